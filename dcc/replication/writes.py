"""One write: decided, stamped and stored here, replicated, acknowledged.

    late or impossible?  -> refused, definitely
    know enough?         -> else ask the holders this node is not in sync with, then go on
    decide               -> what the operation makes of the present value (`decide`)
    stamp, store, offer  -> to the slot's live targets (owners, stand-ins)
    w - 1 acknowledgements later, or at the deadline -> answer

A coordinator asks before it stamps whenever it is not in sync, so that the new version exceeds
the ones it has missed. What stays unsure counts as absent. Only the coordinator stamps; a version
names one value for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dcc.effects import Effect
from dcc.replication.decide import Decision, Refusal, decide
from dcc.replication.holdings import Asker, Holdings, Instant
from dcc.replication.once import Client, Once
from dcc.replication.questions import Questions, Verdict
from dcc.replication.quorum import needed
from dcc.replication.reads import Doubt, Reads
from dcc.replication.streams import Streams, Waiting
from dcc.replication.sync import SyncTable
from dcc.ring.hashing import slot_of
from dcc.types import NO_VERSION, NodeKey, Record, Version
from dcc.units import NEVER
from dcc.wire.messages import (
    Code,
    ErrorReply,
    Message,
    Op,
    Outcome,
    Write,
    WriteMany,
    WriteManyReply,
    WriteReply,
)


@dataclass(slots=True)
class _Request:
    """One client's request: a write, or many of them under one answer."""

    client: Client
    asker: Asker
    until: int
    outcomes: list[Outcome]
    single: WriteReply | None = None
    stamp: int = 0
    number: int = 0
    "Its place in the table of open requests."
    open: set[Version] = field(default_factory=set)
    "Versions of it that still wait for acknowledgements."


@dataclass(slots=True)
class _Unconfirmed:
    """A stored write that fewer than w owners are known to hold."""

    request: _Request
    index: int
    record: Record
    needed: int
    acked: set[NodeKey] = field(default_factory=set)


@dataclass(slots=True)
class _Undecided:
    """A write that waits for a question to end."""

    client: Client
    asker: Asker
    write: Write
    slot: int
    until: int


class Writes:
    """Coordinates the writes of one node."""

    def __init__(
        self,
        holdings: Holdings,
        sync: SyncTable,
        reads: Reads,
        questions: Questions,
        streams: Streams,
    ) -> None:
        self._held, self._sync, self._reads = holdings, sync, reads
        self._questions, self._streams = questions, streams
        self.once = Once()
        self._undecided: dict[int, _Undecided] = {}
        self._unconfirmed: dict[Version, _Unconfirmed] = {}
        self._open: dict[int, _Request] = {}  # with unconfirmed writes, in order of arrival
        self._number = 0
        self.stored = self.too_late = 0

    def __len__(self) -> int:
        return len(self._unconfirmed) + len(self._undecided)

    # -------------------------------------------------------------- one write

    def write(
        self, client: Client, asker: Asker, write: Write, until: int, now: Instant
    ) -> list[Effect]:
        """Coordinate one write; it is remembered under `client` already (`once.begin`)."""
        slot = slot_of(write.key)
        refusal = self._impossible(slot, write.w) or self._skewed(write.seen, now)
        if refusal:
            return [self.once.finish(client, asker, refusal)]
        doubt = self._doubt(slot, write.op, write.key)
        if doubt.ask:
            number, effects = self._questions.ask(write.key, doubt.ask, now)
            self._undecided[number] = _Undecided(client, asker, write, slot, until)
            return effects
        return self._execute(client, asker, write, slot, until, sure=doubt.settles, now=now)

    def resume(self, verdict: Verdict, now: Instant) -> list[Effect]:
        """Go on with the write whose question has ended; nothing if it is not one of writes."""
        waiting = self._undecided.pop(verdict.question, None)
        if waiting is None:
            return []
        refusal = self._impossible(waiting.slot, waiting.write.w)
        if waiting.until <= now.mono:
            self.too_late += 1
            refusal = ErrorReply(code=Code.TOO_LATE, text="its deadline passed undecided")
        elif verdict.ahead:
            refusal = self._too_far_ahead("a version of the key")
        elif self._held.key not in self._held.view.route(waiting.slot):
            refusal = ErrorReply(code=Code.NOT_OWNER, text="this node lost the slot meanwhile")
        if refusal:
            return [self.once.finish(waiting.client, waiting.asker, refusal)]
        key = waiting.write.key
        self._reads.best(waiting.slot, key, verdict, now)  # marks a ghost that nobody has
        sure = self._reads.is_settled(waiting.slot, key, verdict)
        return self._execute(
            waiting.client, waiting.asker, waiting.write, waiting.slot, waiting.until,
            sure=sure, now=now,
        )  # fmt: skip

    def _doubt(self, slot: int, op: Op, key: bytes) -> Doubt:
        """Return whom to ask before stamping.

        A put only has to exceed the versions that this node may have missed; the others are
        conditions, on a value that a primary gone silent may know better.
        """
        if op is Op.PUT:
            unsynced = self._sync.unsynced(slot)
            return Doubt(unsynced.ask, unsynced.settles)
        return self._reads.doubt(slot, key)

    def _execute(
        self,
        client: Client,
        asker: Asker,
        write: Write,
        slot: int,
        until: int,
        *,
        sure: bool,
        now: Instant,
    ) -> list[Effect]:
        entry = self._held.store.get(slot, write.key, now.ms)
        decision = decide(write, entry, sure=sure, now_ms=now.ms)
        if isinstance(decision, Refusal):
            return [self._refuse(client, asker, decision.code, decision.text)]
        if decision.record is None:
            found = entry.version if entry is not None else NO_VERSION
            reply = WriteReply(outcome=decision.outcome, version=found, number=decision.number)
            return [self.once.finish(client, asker, reply)]
        request = _Request(client, asker, until, [decision.outcome])
        version = self._store(request, 0, slot, decision, write.w, write.seen, now)
        request.single = WriteReply(
            outcome=decision.outcome, version=version, number=decision.number
        )
        return self._settle(request)

    # -------------------------------------------------------------- many writes

    def write_many(
        self, client: Client, asker: Asker, many: WriteMany, until: int, now: Instant
    ) -> list[Effect]:
        """Coordinate the items this node can decide alone; the others are ELSEWHERE."""
        refusal = self._skewed(many.seen, now)
        if refusal:
            return [self.once.finish(client, asker, refusal)]
        request = _Request(client, asker, until, [Outcome.ELSEWHERE] * len(many.items))
        for index, (key, value) in enumerate(many.items):
            slot = slot_of(key)
            if not self._held.view.is_primary(slot) or self._impossible(slot, many.w):
                continue
            doubt = self._doubt(slot, many.op, key)
            if doubt.ask:
                continue
            write = Write(op=many.op, key=key, value=value, ttl_ms=many.ttl_ms, w=many.w)
            entry = self._held.store.get(slot, key, now.ms)
            decision = decide(write, entry, sure=doubt.settles, now_ms=now.ms)
            if isinstance(decision, Refusal):
                continue
            request.outcomes[index] = decision.outcome
            if decision.record is not None:
                version = self._store(request, index, slot, decision, many.w, many.seen, now)
                request.stamp = max(request.stamp, version.stamp)
        return self._settle(request)

    # -------------------------------------------------------------- acknowledgements

    def acknowledged(self, peer: NodeKey, versions: Sequence[Version]) -> list[Effect]:
        """Count one holder's acknowledgement of each of `versions`."""
        effects: list[Effect] = []
        for version in versions:
            write = self._unconfirmed.get(version)
            if write is None:
                continue
            write.acked.add(peer)
            if len(write.acked) >= write.needed:
                del self._unconfirmed[version]
                write.request.open.discard(version)
                if not write.request.open:
                    del self._open[write.request.number]
                    effects += self._reply(write.request)
        return effects

    def tick(self, now: Instant) -> list[Effect]:
        """Answer MAYBE for what has not been acknowledged by its deadline."""
        overdue = [request for request in self._open.values() if request.until <= now.mono]
        effects: list[Effect] = []
        for request in overdue:
            del self._open[request.number]
            for version in sorted(request.open):
                request.outcomes[self._unconfirmed.pop(version).index] = Outcome.MAYBE
            effects += self._reply(request)
        return effects

    def unconfirmed(self) -> list[Waiting]:
        """Return the writes that wait for acknowledgements, each with who has given one."""
        return [(write.record, write.acked) for write in self._unconfirmed.values()]

    def wake_at(self) -> int:
        """Return the earliest deadline of a write that waits for acknowledgements."""
        return min((request.until for request in self._open.values()), default=NEVER)

    def check(self) -> None:
        """Assert that every unconfirmed write belongs to a request that waits for it."""
        self.once.check()
        for write in self._unconfirmed.values():
            assert self._open[write.request.number] is write.request
            assert len(write.acked) < write.needed

    # -------------------------------------------------------------- inside

    def _targets_needed(self, w: int) -> int:
        return needed(w, self._held.view.replicas + 1)

    def _impossible(self, slot: int, w: int) -> ErrorReply | None:
        needed, live = self._targets_needed(w), len(self._held.view.route(slot))
        if needed <= live:
            return None
        text = f"w = {needed}, live owners and stand-ins {live}"
        return ErrorReply(code=Code.QUORUM_NOT_REACHED, text=text)

    def _skewed(self, seen: int, now: Instant) -> ErrorReply | None:
        ahead = self._held.clock.too_far_ahead(seen, now.ms)
        return self._too_far_ahead("a stamp seen") if ahead else None

    def _too_far_ahead(self, what: str) -> ErrorReply:
        text = f"{what} lies too far ahead of cluster time"
        return ErrorReply(code=Code.CLOCK_SKEW, text=text, stamp=self._held.clock.last)

    def _refuse(self, client: Client, asker: Asker, code: Code, text: str) -> Effect:
        return self.once.finish(client, asker, ErrorReply(code=code, text=text))

    def _store(
        self,
        request: _Request,
        index: int,
        slot: int,
        decision: Decision,
        w: int,
        seen: int,
        now: Instant,
    ) -> Version:
        held = self._held
        assert decision.record is not None
        held_before = held.store.peek(slot, decision.record.key)
        known = held_before.version.stamp if held_before else 0
        above = max(seen, known, held.store.floor(slot))
        version = Version(held.clock.next_stamp(now.ms, above), held.key, held.boot)
        record = decision.record._replace(
            version=version, prev=held.store.own_prev(slot, held.origin)
        )
        held.store.write(slot, record, now.ms)
        self.stored += 1
        self._replicate(request, index, slot, record, w, now)
        return version

    def _replicate(
        self, request: _Request, index: int, slot: int, record: Record, w: int, now: Instant
    ) -> None:
        for peer in self._held.view.route(slot):
            if peer != self._held.key:
                self._streams.offer(peer, record, now.mono)
        needed = self._targets_needed(w) - 1
        if needed > 0:
            if not request.open:
                self._number += 1
                request.number = self._number
                self._open[request.number] = request
            request.open.add(record.version)
            self._unconfirmed[record.version] = _Unconfirmed(request, index, record, needed)

    def _settle(self, request: _Request) -> list[Effect]:
        return [] if request.open else self._reply(request)

    def _reply(self, request: _Request) -> list[Effect]:
        reply: Message
        if request.single is not None:
            outcome = request.outcomes[0]
            single = request.single
            reply = WriteReply(outcome=outcome, version=single.version, number=single.number)
        else:
            reply = WriteManyReply(outcomes=bytes(request.outcomes), stamp=request.stamp)
        return [self.once.finish(request.client, request.asker, reply)]
