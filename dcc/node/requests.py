"""Reads and writes of one key, and batches of writes: who serves them.

A request for a slot that is not this node's goes on once, to the primary of this node's view;
one that has been forwarded already is served here or refused, so two nodes that disagree about
the ring never send a request in circles.
"""

from __future__ import annotations

from dcc.effects import Effect
from dcc.node.admission import Admission, Request
from dcc.node.forwards import Forward
from dcc.node.machines import Machines
from dcc.replication.holdings import Instant
from dcc.ring.hashing import slot_of
from dcc.types import NodeKey
from dcc.wire import messages as m
from dcc.wire.codec import Header
from dcc.wire.shapes import is_text


class Requests:
    """Serves, forwards or refuses reads and writes."""

    def __init__(self, machines: Machines, admission: Admission) -> None:
        self._machines, self._held, self._admission = machines, machines.held, admission
        self._reads, self._writes = machines.reads, machines.writes
        self._forwards, self._counters = machines.forwards, machines.counters

    def get(self, request: Request, get: m.Get) -> list[Effect]:
        """Read one key here, or at the primary of this node's view."""
        asker, header, frames, at = request
        self._counters.commands["get"] += 1
        route = self._held.view.route(slot_of(get.key))
        mine = route[:1] == (self._held.key,)
        if get.direct:  # A former owner has what the new one may not have yet.
            mine = mine or self._held.key in route or self._reads.has(get.key)
        if self._admission.full():
            return [self._admission.overloaded(asker)]
        until = self._admission.until(request)
        if mine or header.hops or not route:
            return self._reads.get(asker, get.key, at, r=get.r, until=until, aside=get.aside)
        forward = Forward(route[0], asker, None, get, until)
        return [self._forwards.send(frames, forward)]

    def write(self, request: Request, write: m.Write | m.WriteMany) -> list[Effect]:
        """Coordinate a write here, or let the primary of this node's view do it."""
        asker, header, frames, at = request
        refusal = self._refusal(request, write)
        if refusal is not None:
            return [refusal]
        client = (header.sender, header.boot)
        repeated = self._writes.once.begin(client, asker, at.mono, again=write.boot != 0)
        if repeated is not None:
            return repeated
        until = self._admission.until(request)
        if isinstance(write, m.WriteMany):
            self._counters.commands["write_many"] += 1
            return self._writes.write_many(client, asker, write, until, at)
        self._counters.commands[write.op.name.lower()] += 1
        route = self._held.view.route(slot_of(write.key))
        if route[:1] == (self._held.key,) or (
            self._held.key in route and (write.direct or header.hops)
        ):
            other = None if header.hops else self._writes.better_stamped_by(route, at)
            if other is None:
                return self._writes.write(client, asker, write, until, at)
            return [self._forwards.send(frames, Forward(other, asker, client, write, until))]
        if header.hops or not route:
            text = "this node does not hold the slot"
            self._counters.refuse("not_owner")
            reply = m.ErrorReply(code=m.Code.NOT_OWNER, text=text)
            return [self._writes.once.finish(client, asker, reply)]
        return [self._forwards.send(frames, Forward(route[0], asker, client, write, until))]

    def _refusal(self, request: Request, write: m.Write | m.WriteMany) -> Effect | None:
        """Return the refusal of a write that must not even be remembered."""
        asker, header, _frames, at = request
        refuse = self._admission.refuse
        if not self._machines.serving:
            return refuse(asker, m.Code.NOT_READY, "the node does not know the time yet")
        if header.at and at.ms > header.at:
            self._writes.too_late += 1
            self._machines.lateness.tell(header.at, at)
            return refuse(asker, m.Code.TOO_LATE, f"read {at.ms - header.at} ms too late")
        if write.boot and write.boot != self._held.boot:
            return refuse(asker, m.Code.MAYBE, "the node restarted since the first sending")
        items = write.items if isinstance(write, m.WriteMany) else ((write.key, write.value),)
        limit = self._held.config.value_bytes_max
        size = 0
        for key, value in items:
            size += len(key) + len(value)
            if len(value) > limit:
                text = f"{len(value)} bytes, at most {limit}"
                return refuse(asker, m.Code.VALUE_TOO_LARGE, text)
            if not is_text(key):
                return refuse(asker, m.Code.INVALID_KEY, "the key is not UTF-8")
        return self._admission.overloaded(asker) if self._admission.full(size) else None

    # -------------------------------------------------------------- what was passed on

    def answered(self, header: Header, message: m.Message, _at: Instant) -> list[Effect]:
        """Pass the answer to a forwarded request on to its asker, if it is one."""
        forward = self._forwards.take(header.request, header.sender)
        if forward is None:
            self._counters.drop("late_reply")
            return []
        if forward.client is None:
            return [forward.asker.answer(message)]
        return [self._writes.once.finish(forward.client, forward.asker, message)]

    def undeliverable(self, to: NodeKey, number: int, at: Instant) -> list[Effect]:
        """A forwarded request could not be sent: serve a read here, refuse a write."""
        forward = self._forwards.take(number, to)
        if forward is None:
            return []
        if forward.client is None:
            get = forward.message
            assert isinstance(get, m.Get), "only writes have a client"
            return self._reads.get(forward.asker, get.key, at, r=get.r, aside=True)
        text = "the primary cannot be reached from here"
        self._counters.refuse("not_ready")
        refusal = m.ErrorReply(code=m.Code.NOT_READY, text=text)
        return [self._writes.once.finish(forward.client, forward.asker, refusal)]
