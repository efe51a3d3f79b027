"""The gate for clients' requests: what is refused or dropped before anybody looks at it.

A request passes if the node has joined, if it could be passed on, and if the asker of a read
still waits for it (`lateness`). What is refused here was not done, nor is it remembered.
"""

from __future__ import annotations

from typing import NamedTuple

from dcc.effects import Effect
from dcc.limits import FRAME_BYTES_MAX
from dcc.node.machines import Machines
from dcc.replication.holdings import Asker, Instant
from dcc.units import MILLISECOND
from dcc.wire import messages as m
from dcc.wire.codec import Header

RELAY_BYTES = 64
"What a request's header may grow by when it is passed on."

BEFORE_JOINING = (m.TopologyGet, m.StatsGet)
"What a node answers that has not joined yet."


class Request(NamedTuple):
    """A client's request that was let in; its message is told beside it."""

    asker: Asker
    header: Header
    frames: list[bytes]
    "As they came, to be passed on."
    at: Instant


class Admission:
    """Lets clients' requests in, and refuses in the node's name."""

    def __init__(self, machines: Machines) -> None:
        self._machines, self._counters = machines, machines.counters

    def admit(
        self, route: bytes, frames: list[bytes], header: Header, message: m.Message, at: Instant
    ) -> Request | list[Effect]:
        """Return the request that its handler is given, or what becomes of it instead."""
        machines = self._machines
        peer = header.sender if header.hops else 0
        if peer and peer not in machines.held.view.boots:
            self._counters.drop("unknown_sender")
            return []
        asker = Asker(route, peer, header.request, _command_of(message), at.mono)
        if not machines.membership.joined and not isinstance(message, BEFORE_JOINING):
            return [self.refuse(asker, m.Code.NOT_READY, "the node has not joined yet")]
        if len(frames[0]) > FRAME_BYTES_MAX - RELAY_BYTES:
            return [self.refuse(asker, m.Code.MALFORMED, "too long to be passed on")]
        late = machines.lateness.before(at)
        if header.at and header.at < late and isinstance(message, m.Get | m.GetMany):
            if not machines.lateness.tell(header.at, at):
                return []
            return [self.refuse(asker, m.Code.TOO_LATE, f"read {late - header.at} ms too late")]
        return Request(asker, header, frames, at)

    # -------------------------------------------------------------- for the handlers

    def refuse(self, asker: Asker, code: m.Code, text: str, *, stamp: int = 0) -> Effect:
        """Return the refusal of a request, and count it."""
        self._counters.refuse(code.name.lower())
        return asker.answer(m.ErrorReply(code=code, text=text, stamp=stamp))

    def overloaded(self, asker: Asker) -> Effect:
        """Return the refusal of a request for which there is no room, and count it."""
        text = "too many requests wait for other nodes"
        return self.refuse(asker, m.Code.OVERLOADED, text)

    def full(self, size: int = 0) -> bool:
        """Return whether too many requests wait, or hold too much for one of `size` more."""
        machines, config = self._machines, self._machines.config
        waiting = len(machines.questions) + len(machines.forwards) + len(machines.writes)
        held = machines.forwards.bytes_used + machines.writes.bytes_used
        too_much = size and held and held + size > config.waiting_bytes_max
        return bool(too_much) or waiting >= config.pending_max

    def until(self, request: Request) -> int:
        """Return the request's deadline on the monotonic clock, bounded by the node's own."""
        header, at = request.header, request.at
        longest = self._machines.config.request_timeout_ns
        if not header.at:
            return at.mono + longest
        return at.mono + min(max(header.at - at.ms, 1) * MILLISECOND, 60 * longest)


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
