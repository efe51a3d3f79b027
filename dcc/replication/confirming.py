"""Confirming: writes that are stored here and wait until w - 1 other owners have them, too.

    stored and streamed out         `wait`
    an owner acknowledges           `acknowledged`: enough? and the primary among them? -> answer
    the view changes                `view_changed`: a primary that was waited for may have gone
    the request's deadline          `tick`: MAYBE for what is open; nothing is rolled back

A node that coordinates aside of the primary, because a client found that silent, counts w >= 2 only
with the primary's own acknowledgement, as long as it is alive: it may be well, and a client
that reads there has to find the write. Without it the write waits until the primary is suspected.

One request may hold many writes. It is answered when all of them have ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dcc.effects import Effect
from dcc.replication.holdings import Asker, Holdings, Instant
from dcc.replication.once import Client, Once
from dcc.replication.streams import Waiting
from dcc.ring.hashing import slot_of
from dcc.types import NodeKey, Record, Version
from dcc.units import NEVER
from dcc.wire.messages import Message, Outcome, WriteManyReply, WriteReply


@dataclass(slots=True)
class Request:
    """One client's request: a write, or many of them under one answer."""

    client: Client
    asker: Asker
    until: int
    outcomes: list[Outcome]
    single: WriteReply | None = None
    stamp: int = 0
    stamps: list[int] | None = None
    "Of each item, where the client asked for them."
    number: int = 0
    "Its place in the table of open requests."
    open: set[Version] = field(default_factory=set)
    "Versions of it that still wait for acknowledgements."


@dataclass(slots=True)
class _Unconfirmed:
    """A stored write that fewer than w owners are known to hold."""

    request: Request
    index: int
    record: Record
    needed: int
    acked: set[NodeKey] = field(default_factory=set)
    "Owners besides this node; the primary must be among them as long as it is alive."


class Confirming:
    """The stored writes of one node that are not acknowledged by enough owners yet."""

    def __init__(self, holdings: Holdings, once: Once) -> None:
        self._held, self._once = holdings, once
        self._unconfirmed: dict[Version, _Unconfirmed] = {}
        self._open: dict[int, Request] = {}  # with unconfirmed writes, in order of arrival
        self._number = 0
        self._lead_changed = False
        "The view has changed: a primary that was waited for may have gone."
        self.bytes_used: int = 0
        "Of the values of the writes that wait."

    def __len__(self) -> int:
        return len(self._unconfirmed)

    # -------------------------------------------------------------- one request

    def wait(self, request: Request, index: int, record: Record, needed: int) -> None:
        """Let item `index` of a request wait until `needed` other owners have `record`."""
        if not request.open:
            self._number += 1
            request.number = self._number
            self._open[request.number] = request
        request.open.add(record.version)
        self._unconfirmed[record.version] = _Unconfirmed(request, index, record, needed)
        self.bytes_used += len(record.value)

    def answer(self, request: Request) -> list[Effect]:
        """Answer a request that has no write waiting; nothing yet if one waits."""
        return [] if request.open else self._reply(request)

    # -------------------------------------------------------------- what ends the waiting

    def acknowledged(self, peer: NodeKey, versions: Sequence[Version]) -> list[Effect]:
        """Count one holder's acknowledgement of each of `versions`."""
        effects: list[Effect] = []
        for version in versions:
            write = self._unconfirmed.get(version)
            if write is None:
                continue
            write.acked.add(peer)
            if self._is_confirmed(write):
                effects += self._confirm(version)
        return effects

    def view_changed(self) -> None:
        """Look, at the next tick, which owners need not be waited for any more."""
        self._lead_changed = True

    def tick(self, now: Instant) -> list[Effect]:
        """Answer MAYBE for what has not been acknowledged in time."""
        effects: list[Effect] = []
        if self._lead_changed:
            self._lead_changed = False
            for version in [v for v, one in self._unconfirmed.items() if self._is_confirmed(one)]:
                effects += self._confirm(version)
        overdue = [request for request in self._open.values() if request.until <= now.mono]
        for request in overdue:
            del self._open[request.number]
            for version in sorted(request.open):
                request.outcomes[self._taken(version).index] = Outcome.MAYBE
            effects += self._reply(request)
        return effects

    def wake_at(self) -> int:
        """Return the earliest deadline."""
        return min([request.until for request in self._open.values()], default=NEVER)

    def unconfirmed(self) -> list[Waiting]:
        """Return the writes that wait for acknowledgements, each with owners that gave one."""
        return [(write.record, write.acked) for write in self._unconfirmed.values()]

    def check(self) -> None:
        """Assert that every unconfirmed write belongs to a request that waits for it."""
        writes = self._unconfirmed.values()
        assert self.bytes_used == sum(len(write.record.value) for write in writes)
        for write in writes:
            assert self._open[write.request.number] is write.request
            assert self._lead_changed or not self._is_confirmed(write)

    # -------------------------------------------------------------- inside

    def _is_confirmed(self, write: _Unconfirmed) -> bool:
        return len(write.acked) >= write.needed and self._primary_has(write)

    def _primary_has(self, write: _Unconfirmed) -> bool:
        """Return whether a reader finds the write: at the primary, if that is alive."""
        lead = self._held.view.route(slot_of(write.record.key))[:1]
        return not lead or lead[0] == self._held.key or lead[0] in write.acked

    def _confirm(self, version: Version) -> list[Effect]:
        request = self._taken(version).request
        request.open.discard(version)
        if request.open:
            return []
        del self._open[request.number]
        return self._reply(request)

    def _taken(self, version: Version) -> _Unconfirmed:
        write = self._unconfirmed.pop(version)
        self.bytes_used -= len(write.record.value)
        return write

    def _reply(self, request: Request) -> list[Effect]:
        reply: Message
        if request.single is not None:
            outcome = request.outcomes[0]
            single = request.single
            reply = WriteReply(outcome=outcome, version=single.version, number=single.number)
        else:
            stamps = tuple(request.stamps or ())
            reply = WriteManyReply(
                outcomes=bytes(request.outcomes), stamp=request.stamp, stamps=stamps
            )
        return [self._once.finish(request.client, request.asker, reply)]
