"""Clients' requests on one node: who serves them, and what is refused before anybody looks.

A request for a slot that is not this node's goes on once, to the primary of this node's view;
one that has been forwarded already is served here or refused, so two nodes that disagree about
the ring never send a request in circles.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from dcc.effects import Effect, Notify
from dcc.gossip.dissemination import fit
from dcc.gossip.pushpull import VIEW_BYTES
from dcc.limits import (
    BATCH_BYTES,
    EXTRA_FRAMES_MAX,
    FRAME_BYTES_MAX,
    INLINE_VALUE_BYTES_MAX,
)
from dcc.node.audit import AUDIT_SLOTS_MAX, AUDITS_MAX
from dcc.node.converging import ROUNDS_MAX
from dcc.node.forwards import Forward
from dcc.node.settings import CHANGES_MAX, stamp_of_change, stamp_of_clear
from dcc.node.stats import packed, statistics
from dcc.replication.holdings import Asker, Instant
from dcc.replication.staleness import EVERY
from dcc.ring.hashing import slot_of
from dcc.types import NodeKey, Record, Settings
from dcc.units import MILLISECOND
from dcc.wire import messages as m
from dcc.wire.codec import Header
from dcc.wire.shapes import is_text

if TYPE_CHECKING:
    from dcc.node.core import NodeCore

SCAN_BYTES = BATCH_BYTES
SCAN_ENTRIES_MAX = 10_000
"Looked at for one reply, some four milliseconds: then it says how far it got."
RELAY_BYTES = 64
"What a request's header may grow by when it is passed on."


class Requests:
    """Serves, forwards or refuses what clients ask."""

    def __init__(self, core: NodeCore) -> None:
        self._core, self._held = core, core.held
        self._reads, self._writes = core.reads, core.writes
        self._forwards, self._counters = core.forwards, core.counters
        self._table: dict[type, Callable[[Header, Any, Asker, Instant], list[Effect]]] = {
            m.GetMany: self._get_many,
            m.TopologyGet: self._topology,
            m.StatsGet: self._stats,
            m.Scan: self._scan,
            m.Clear: self._clear,
            m.Inspect: self._inspect,
            m.SetReplicas: self._set_replicas,
            m.ConvergedGet: self._converged,
            m.AuditGet: self._audit,
        }

    def handle(
        self, route: bytes, frames: list[bytes], header: Header, message: m.Message, at: Instant
    ) -> list[Effect]:
        """Serve one decoded request, or take the answer to a forwarded one."""
        if isinstance(message, m.GetReply | m.WriteReply | m.ErrorReply):
            return self._answered(header, message)
        peer = header.sender if header.hops else 0
        if peer and peer not in self._held.view.boots:
            self._counters.drop("unknown_sender")
            return []
        asker = Asker(route, peer, header.request, _command_of(message), at.mono)
        if not self._core.membership.joined and not isinstance(message, m.TopologyGet | m.StatsGet):
            return [self._refuse(asker, m.Code.NOT_READY, "the node has not joined yet")]
        if len(frames[0]) > FRAME_BYTES_MAX - RELAY_BYTES:
            return [self._refuse(asker, m.Code.MALFORMED, "too long to be passed on")]
        late = self._core.lateness.before(at)
        if header.at and header.at < late and isinstance(message, m.Get | m.GetMany):
            if not self._core.lateness.tell(header.at, at):
                return []
            return [self._refuse(asker, m.Code.TOO_LATE, f"read {late - header.at} ms too late")]
        if isinstance(message, m.Get):
            return self._get(frames, header, message, asker, at)
        if isinstance(message, m.Write | m.WriteMany):
            return self._write(frames, header, message, asker, at)
        handler = self._table.get(type(message))
        if handler is None:
            self._counters.drop("unexpected")
            return [Notify("message_dropped", {"reason": "unexpected", "tag": header.tag})]
        return handler(header, message, asker, at)

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

    def held_record(self, key: bytes) -> tuple[Record, ...]:
        """Return what is held of `key`, valueless records included: none or one record."""
        entry = self._held.store.peek(slot_of(key), key)
        if entry is None or entry.version.stamp <= self._held.store.cleared:
            return ()
        return (entry.record(),)

    # -------------------------------------------------------------- reads and writes of one key

    def _get(
        self, frames: list[bytes], header: Header, get: m.Get, asker: Asker, at: Instant
    ) -> list[Effect]:
        self._counters.commands["get"] += 1
        route = self._held.view.route(slot_of(get.key))
        mine = route[:1] == (self._held.key,)
        if get.direct:  # A former owner has what the new one may not have yet.
            mine = mine or self._held.key in route or self._reads.has(get.key)
        if self._full():
            return [self._overloaded(asker)]
        until = self._until(header, at)
        if mine or header.hops or not route:
            return self._reads.get(asker, get.key, at, r=get.r, until=until, aside=get.aside)
        forward = Forward(route[0], asker, None, get, until)
        return [self._forwards.send(frames, forward)]

    def _write(
        self,
        frames: list[bytes],
        header: Header,
        write: m.Write | m.WriteMany,
        asker: Asker,
        at: Instant,
    ) -> list[Effect]:
        refusal = self._refusal(header, write, asker, at)
        if refusal is not None:
            return [refusal]
        client = (header.sender, header.boot)
        repeated = self._writes.once.begin(client, asker, at.mono, again=write.boot != 0)
        if repeated is not None:
            return repeated
        until = self._until(header, at)
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

    def _refusal(
        self, header: Header, write: m.Write | m.WriteMany, asker: Asker, at: Instant
    ) -> Effect | None:
        """Return the refusal of a write that must not even be remembered."""
        if not self._core.serving:
            return self._refuse(asker, m.Code.NOT_READY, "the node does not know the time yet")
        if header.at and at.ms > header.at:
            self._writes.too_late += 1
            return self._refuse(asker, m.Code.TOO_LATE, f"read {at.ms - header.at} ms too late")
        if write.boot and write.boot != self._held.boot:
            return self._refuse(asker, m.Code.MAYBE, "the node restarted since the first sending")
        items = write.items if isinstance(write, m.WriteMany) else ((write.key, write.value),)
        limit = self._held.config.value_bytes_max
        size = 0
        for key, value in items:
            size += len(key) + len(value)
            if len(value) > limit:
                text = f"{len(value)} bytes, at most {limit}"
                return self._refuse(asker, m.Code.VALUE_TOO_LARGE, text)
            if not is_text(key):
                return self._refuse(asker, m.Code.INVALID_KEY, "the key is not UTF-8")
        return self._overloaded(asker) if self._full(size) else None

    def _answered(self, header: Header, message: m.Message) -> list[Effect]:
        forward = self._forwards.take(header.request, header.sender)
        if forward is None:
            self._counters.drop("late_reply")
            return []
        if forward.client is None:
            return [forward.asker.answer(message)]
        return [self._writes.once.finish(forward.client, forward.asker, message)]

    def _full(self, size: int = 0) -> bool:
        """Return whether too many requests wait, or hold too much for one of `size` more."""
        core, config = self._core, self._held.config
        waiting = len(core.questions) + len(self._forwards) + len(self._writes)
        held = self._forwards.bytes_used + self._writes.bytes_used
        too_much = size and held and held + size > config.waiting_bytes_max
        return bool(too_much) or waiting >= config.pending_max

    def _overloaded(self, asker: Asker) -> Effect:
        text = "too many requests wait for other nodes"
        return self._refuse(asker, m.Code.OVERLOADED, text)

    def _refuse(self, asker: Asker, code: m.Code, text: str, *, stamp: int = 0) -> Effect:
        self._counters.refuse(code.name.lower())
        return asker.answer(m.ErrorReply(code=code, text=text, stamp=stamp))

    def _until(self, header: Header, at: Instant) -> int:
        """Return the request's deadline on the monotonic clock, bounded by the node's own."""
        longest = self._held.config.request_timeout_ns
        if not header.at:
            return at.mono + longest
        return at.mono + min(max(header.at - at.ms, 1) * MILLISECOND, 60 * longest)

    # -------------------------------------------------------------- many keys, and the rest

    def _get_many(
        self, _header: Header, message: m.GetMany, asker: Asker, at: Instant
    ) -> list[Effect]:
        self._counters.commands["get_many"] += 1
        held, me, certainty = self._held, self._held.key, self._core.certainty
        statuses = bytearray()
        values: list[bytes] = []
        effects: list[Effect] = []
        first = size = large = hits = misses = 0
        for key in message.keys:
            slot = slot_of(key)
            route = held.view.route(slot)
            mine = route[:1] == (me,) and not certainty.may_be_old(slot)
            entry = held.store.get(slot, key, at.ms) if mine else None
            if entry is not None:
                value = entry.value
                size += len(value) + 4
                large += len(value) >= INLINE_VALUE_BYTES_MAX
                if values and (size > BATCH_BYTES or large > EXTRA_FRAMES_MAX):
                    effects.append(asker.answer(_many(first, statuses, values, last=False)))
                    first += len(statuses)
                    statuses, values = bytearray(), []
                    size, large = len(value) + 4, int(len(value) >= INLINE_VALUE_BYTES_MAX)
                statuses.append(m.Status.HIT)
                values.append(value)
                hits += 1
                if not (self._counters.hits + hits) % EVERY:
                    self._core.staleness.served(key, entry.version, at.ms)
            elif mine and not (inquiry := certainty.of_absence(slot, key)).peers:
                statuses.append(m.Status.MISS if inquiry.decides else m.Status.UNSURE)
                misses += 1
            else:
                statuses.append(m.Status.ELSEWHERE)
        self._counters.hits += hits
        self._counters.misses += misses
        effects.append(asker.answer(_many(first, statuses, values, last=True)))
        return effects

    def _topology(
        self, _header: Header, _message: m.TopologyGet, asker: Asker, _at: Instant
    ) -> list[Effect]:
        membership = self._core.membership
        members = sorted(
            membership.members.values(), key=lambda one: (not one.in_ring, -one.since_ms, one.name)
        )
        reply = m.Topology(
            settings=membership.settings,
            members=fit(members, VIEW_BYTES),
            ready=self._core.ready and not self._core.certainty.lone,
        )
        return [asker.answer(reply)]

    def _stats(
        self, _header: Header, _message: m.StatsGet, asker: Asker, at: Instant
    ) -> list[Effect]:
        return [asker.answer(m.StatsReply(stats=packed(statistics(self._core, at.mono))))]

    def _scan(self, _header: Header, scan: m.Scan, asker: Asker, at: Instant) -> list[Effect]:
        if len(set(scan.slots)) < len(scan.slots):
            return [self._refuse(asker, m.Code.MALFORMED, "a slot is named twice")]
        held, keys, unsure, old = self._held, [], [], []
        done = size = looked_at = 0
        after = scan.after
        for slot in scan.slots:
            found = [k for k in held.store.keys(slot, at.ms) if k.startswith(scan.prefix)]
            worth = self._core.certainty.of_listing(slot)
            if worth.may_be_old:
                old.append(slot)
            for key in sorted(key for key in found if key > after):
                keys.append(key)
                size += len(key) + 3
                if size > SCAN_BYTES:
                    break
            looked_at += len(held.store.tables[slot])
            if size > SCAN_BYTES:
                break
            after = b""
            done += 1
            if not worth.authoritative:
                unsure.append(slot)
            if looked_at > SCAN_ENTRIES_MAX:
                break
        reply = m.ScanReply(done=done, keys=tuple(keys), unsure=tuple(unsure), old=tuple(old))
        return [asker.answer(reply)]

    def _clear(self, header: Header, message: m.Clear, asker: Asker, at: Instant) -> list[Effect]:
        refusal = self._unfit_to_change(header, asker, at)
        if refusal is not None:
            return [refusal]
        clock, settings = self._held.clock, self._core.membership.settings
        if clock.too_far_ahead(message.seen, at.ms):
            text = "a stamp seen lies too far ahead of cluster time"
            return [self._refuse(asker, m.Code.CLOCK_SKEW, text, stamp=clock.last)]
        made = clock.next_stamp(at.ms, message.seen)
        stamp = stamp_of_clear(made, message.seen, message.issued_ms, at.ms)
        stamp = max(stamp, settings.cleared)
        reply = partial(m.ClearReply, stamp=stamp)
        return self._change(header, asker, settings._replace(cleared=stamp), reply, at)

    def _set_replicas(
        self, header: Header, message: m.SetReplicas, asker: Asker, at: Instant
    ) -> list[Effect]:
        refusal = self._unfit_to_change(header, asker, at)
        if refusal is not None:
            return [refusal]
        settings = self._core.membership.settings
        if settings.replicas != message.replicas or not settings.replicas_stamp:
            # The same number again is no change: a repetition must not beat what came between.
            made = self._held.clock.next_stamp(at.ms, settings.replicas_stamp)
            stamp = stamp_of_change(made, 0, message.issued_ms)
            if stamp <= settings.replicas_stamp:
                text = "the number was set anew since"
                return [self._refuse(asker, m.Code.TOO_LATE, text)]
            settings = settings._replace(replicas=message.replicas, replicas_stamp=stamp)
        return self._change(
            header, asker, settings, partial(m.SettingsReply, settings=settings), at
        )

    def _unfit_to_change(self, header: Header, asker: Asker, at: Instant) -> Effect | None:
        """Return the refusal of a change of settings that comes too late, or to a node too new."""
        if header.at and at.ms > header.at:
            return self._refuse(asker, m.Code.TOO_LATE, f"read {at.ms - header.at} ms too late")
        if not self._core.serving:
            return self._refuse(asker, m.Code.NOT_READY, "the node does not know the time yet")
        if self._held.clock.is_ahead(at.ms) and len(self._core.membership.alive()) > 1:
            return self._refuse(asker, m.Code.NOT_READY, "the node's stamps are ahead of time")
        if len(self._core.changes) >= CHANGES_MAX:
            return self._refuse(asker, m.Code.OVERLOADED, f"{CHANGES_MAX} changes are under way")
        return None

    def _change(
        self,
        header: Header,
        asker: Asker,
        settings: Settings,
        reply: Callable[..., m.Message],
        at: Instant,
    ) -> list[Effect]:
        effects = self._core.change_settings(settings, at)
        until = self._until(header, at)
        return effects + self._core.changes.begin(asker, settings, reply, until)

    def _converged(
        self, header: Header, _message: m.ConvergedGet, asker: Asker, at: Instant
    ) -> list[Effect]:
        if len(self._core.converging) >= ROUNDS_MAX:
            return [self._refuse(asker, m.Code.OVERLOADED, f"{ROUNDS_MAX} such questions wait")]
        return self._core.converging.begin(asker, self._until(header, at), at)

    def _audit(
        self, _header: Header, message: m.AuditGet, asker: Asker, _at: Instant
    ) -> list[Effect]:
        if len(message.slots) > AUDIT_SLOTS_MAX or len(set(message.slots)) < len(message.slots):
            text = f"{len(message.slots)} slots, at most {AUDIT_SLOTS_MAX}, each once"
            return [self._refuse(asker, m.Code.MALFORMED, text)]
        if len(self._core.audits) >= AUDITS_MAX:
            return [self._refuse(asker, m.Code.OVERLOADED, f"{AUDITS_MAX} audits are under way")]
        self._core.audits.begin(asker, message.slots, message.above)
        return []

    def _inspect(
        self, _header: Header, message: m.Inspect, asker: Asker, at: Instant
    ) -> list[Effect]:
        slot = slot_of(message.key)
        self._held.store.get(slot, message.key, at.ms)  # turns what has expired into a record of it
        confirmed = self._core.certainty.of_listing(slot).authoritative
        reply = m.InspectReply(records=self.held_record(message.key), confirmed=confirmed)
        return [asker.answer(reply)]


def _many(first: int, statuses: bytearray, values: list[bytes], *, last: bool) -> m.GetManyReply:
    return m.GetManyReply(first=first, statuses=bytes(statuses), values=tuple(values), last=last)


def _command_of(message: m.Message) -> str:
    match message:
        case m.Get():
            return "get"
        case m.Write():
            return message.op.name.lower()
        case m.GetMany():
            return "get_many"
        case m.WriteMany():
            return "write_many"
    return ""
