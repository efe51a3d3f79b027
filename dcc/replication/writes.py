"""One write: decided, stamped and stored here, replicated, acknowledged.

    late or impossible?  -> refused, definitely
    know enough?         -> else ask the holders this node is not in sync with, then go on
    decide               -> what the operation makes of the present value (`decide`)
    stamp, store, offer  -> to the slot's live targets (owners, stand-ins)
    w - 1 acknowledgements later, or at the deadline -> answer

What follows once it is stored is `confirming`'s.

A coordinator asks before it stamps whenever it is not in sync, so that the new version exceeds
the ones it has missed. What stays unsure counts as absent. Only the coordinator stamps; a version
names one value for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dcc.effects import Effect
from dcc.replication.certainty import Certainty
from dcc.replication.confirming import Confirming, Request
from dcc.replication.decide import Decision, Refusal, decide, decide_put
from dcc.replication.holdings import Asker, Holdings, Instant
from dcc.replication.once import Client, Once
from dcc.replication.questions import Questions, Verdict
from dcc.replication.quorum import needed
from dcc.replication.streams import Streams
from dcc.ring.hashing import slot_of
from dcc.types import NO_VERSION, NodeKey, Record, Version
from dcc.wire.messages import (
    Code,
    ErrorReply,
    Op,
    Outcome,
    Write,
    WriteMany,
    WriteReply,
)


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
        certainty: Certainty,
        questions: Questions,
        streams: Streams,
    ) -> None:
        self._held, self._certainty = holdings, certainty
        self._questions, self._streams = questions, streams
        self.once: Once = Once(holdings.config.remembered_bytes_max)
        self._undecided: dict[int, _Undecided] = {}
        self.confirming: Confirming = Confirming(holdings, self.once)
        "Those that are stored and wait for acknowledgements."
        self.stored: int = 0
        self.too_late: int = 0
        self.undecided_bytes: int = 0
        "Of the values of writes that wait for an answer: nothing else holds them."

    def __len__(self) -> int:
        return len(self.confirming) + len(self._undecided)

    @property
    def bytes_used(self) -> int:
        """Of the values of writes that wait, for an answer or for acknowledgements."""
        return self.undecided_bytes + self.confirming.bytes_used

    # -------------------------------------------------------------- one write

    def write(
        self, client: Client, asker: Asker, write: Write, until: int, now: Instant
    ) -> list[Effect]:
        """Coordinate one write; it is remembered under `client` already (`once.begin`)."""
        slot = slot_of(write.key)
        refusal = self._impossible(slot, write.w) or self._skewed(write.seen, now)
        refusal = refusal or self._unfit(len(write.value))
        if refusal:
            return [self.once.finish(client, asker, refusal)]
        inquiry = self._certainty.of_write(slot, write.op, write.key)
        if inquiry.peers:
            number, effects = self._questions.ask(
                write.key, inquiry.peers, now, patient=write.op is not Op.PUT, for_newer=True
            )
            self._undecided[number] = _Undecided(client, asker, write, slot, until)
            self.undecided_bytes += len(write.value)
            return effects
        return self._execute(
            client, asker, write, slot, until, authoritative=inquiry.decides, now=now
        )

    def better_stamped_by(self, route: Sequence[NodeKey], now: Instant) -> NodeKey | None:
        """Return the member of `route` that should stamp instead of this node: None, as a rule.

        After a step back of time its stamps lie in the future, and others would refuse them.
        """
        clock = self._held.clock
        if not clock.is_ahead(now.ms):
            return None
        others = (key for key in route if key != self._held.key and not clock.claims_ahead(key))
        return next(others, None)

    def resume(self, verdict: Verdict, now: Instant) -> list[Effect]:
        """Go on with the write whose question has ended; nothing if it is not one of writes."""
        waiting = self._undecided.pop(verdict.question, None)
        if waiting is None:
            return []
        self.undecided_bytes -= len(waiting.write.value)
        refusal = self._impossible(waiting.slot, waiting.write.w)
        if waiting.until <= now.mono:
            self.too_late += 1
            refusal = ErrorReply(code=Code.TOO_LATE, text="its deadline passed undecided")
        elif verdict.ahead:
            refusal = self._too_far_ahead("a version of the key", now)
        elif self._held.key not in self._held.view.route(waiting.slot):
            refusal = ErrorReply(code=Code.NOT_OWNER, text="this node lost the slot meanwhile")
        elif self._is_ignorant(waiting, verdict):
            refusal = ErrorReply(code=Code.NOT_READY, text="who knows better does not answer")
        if refusal:
            return [self.once.finish(waiting.client, waiting.asker, refusal)]
        key = waiting.write.key
        authoritative = self._certainty.after(verdict, waiting.slot, key)
        return self._execute(
            waiting.client, waiting.asker, waiting.write, waiting.slot, waiting.until,
            authoritative=authoritative, now=now, gone=verdict.gone,
        )  # fmt: skip

    def _is_ignorant(self, waiting: _Undecided, verdict: Verdict) -> bool:
        """Return whether a condition would be judged by a value that may be gone elsewhere.

        This node was away, and not all peers that wrote meanwhile have answered.
        """
        conditional = waiting.write.op is not Op.PUT
        return conditional and not verdict.answered and self._certainty.may_be_old(waiting.slot)

    def _execute(
        self,
        client: Client,
        asker: Asker,
        write: Write,
        slot: int,
        until: int,
        *,
        authoritative: bool,
        now: Instant,
        gone: Version = NO_VERSION,
    ) -> list[Effect]:
        """Decide, and carry the decision out; a value of the version `gone` counts as absent."""
        entry = self._held.store.get(slot, write.key, now.ms)
        if entry is not None and entry.version == gone:
            entry = None
        agreed_ms = self._held.clock.agreed_ms(now.ms)
        decision = decide(write, entry, authoritative=authoritative, now_ms=agreed_ms)
        if isinstance(decision, Refusal):
            return [self._refuse(client, asker, decision.code, decision.text)]
        if decision.record is None:
            found = entry.version if entry is not None else NO_VERSION
            reply = WriteReply(outcome=decision.outcome, version=found, number=decision.number)
            return [self.once.finish(client, asker, reply)]
        request = Request(client, asker, until, [decision.outcome])
        version = self._store(request, 0, slot, decision, write.w, write.seen, now)
        request.single = WriteReply(
            outcome=decision.outcome, version=version, number=decision.number
        )
        return self.confirming.answer(request)

    # -------------------------------------------------------------- many writes

    def write_many(
        self, client: Client, asker: Asker, many: WriteMany, until: int, now: Instant
    ) -> list[Effect]:
        """Coordinate the items this node can decide alone; the others are ELSEWHERE."""
        refusal = self._skewed(many.seen, now)
        if refusal:
            return [self.once.finish(client, asker, refusal)]
        request = Request(client, asker, until, [Outcome.ELSEWHERE] * len(many.items))
        if many.versions:
            request.stamps = [0] * len(many.items)
        held, clock, store = self._held, self._held.clock, self._held.store
        targets = self._targets_needed(many.w)
        agreed_ms = clock.agreed_ms(now.ms)
        queued_bytes = 0  # They wait for copies, and count once the turn is over.
        for index, (key, value) in enumerate(many.items):
            slot = slot_of(key)
            route = held.view.route(slot)
            if not route or route[0] != held.key or len(route) < targets:
                continue
            if clock.is_ahead(now.ms) and self.better_stamped_by(route, now) is not None:
                continue
            if not store.room.fits(len(value), queued_bytes):
                continue
            inquiry = self._certainty.of_write(slot, many.op, key)
            if inquiry.peers:
                continue
            entry = store.get(slot, key, now.ms)
            decision: Decision | Refusal
            if many.op is Op.PUT:
                decision = decide_put(key, value, many.ttl_ms, agreed_ms)
            else:
                write = Write(op=many.op, key=key, value=value, ttl_ms=many.ttl_ms, w=many.w)
                decision = decide(write, entry, authoritative=inquiry.decides, now_ms=agreed_ms)
            if isinstance(decision, Refusal):
                continue
            request.outcomes[index] = decision.outcome
            if decision.record is not None:
                version = self._store(request, index, slot, decision, many.w, many.seen, now)
                queued_bytes += len(value)
                request.stamp = max(request.stamp, version.stamp)
                if request.stamps is not None:
                    request.stamps[index] = version.stamp
        return self.confirming.answer(request)

    # -------------------------------------------------------------- time

    def tick(self, now: Instant) -> list[Effect]:
        """Answer what was not acknowledged in time; forget requests of long ago."""
        self.once.tick(now.mono)
        return self.confirming.tick(now)

    def wake_at(self) -> int:
        """Return the earliest deadline of a write that waits, or when a remembered one is old."""
        return min(self.once.wake_at(), self.confirming.wake_at())

    def check(self) -> None:
        """Assert that the bytes are those of the writes that wait."""
        self.once.check()
        self.confirming.check()
        waiting = [len(one.write.value) for one in self._undecided.values()]
        assert self.undecided_bytes == sum(waiting)

    # -------------------------------------------------------------- inside

    def _targets_needed(self, w: int) -> int:
        return needed(w, self._held.view.replicas + 1)

    def _impossible(self, slot: int, w: int) -> ErrorReply | None:
        needed, live = self._targets_needed(w), len(self._held.view.route(slot))
        if needed <= live:
            return None
        text = f"w = {needed}, live owners and stand-ins {live}"
        return ErrorReply(code=Code.QUORUM_NOT_REACHED, text=text)

    def _unfit(self, length: int) -> ErrorReply | None:
        """Return the refusal of a value that this node can never hold, or cannot now."""
        store = self._held.store
        if store.room.fits(length):
            return None
        if not store.room.can_hold(length):
            text = f"{length} bytes, more than this node can hold beside its bookkeeping"
            return ErrorReply(code=Code.VALUE_TOO_LARGE, text=text)
        return ErrorReply(code=Code.OVERLOADED, text="no memory for so large a value just now")

    def _skewed(self, seen: int, now: Instant) -> ErrorReply | None:
        ahead = self._held.clock.too_far_ahead(seen, now.ms)
        return self._too_far_ahead("a stamp seen", now) if ahead else None

    def _too_far_ahead(self, what: str, now: Instant) -> ErrorReply:
        text = f"{what} lies too far ahead of cluster time"
        return ErrorReply(code=Code.CLOCK_SKEW, text=text, stamp=self._held.clock.present(now.ms))

    def _refuse(self, client: Client, asker: Asker, code: Code, text: str) -> Effect:
        return self.once.finish(client, asker, ErrorReply(code=code, text=text))

    def _store(
        self,
        request: Request,
        index: int,
        slot: int,
        decision: Decision,
        w: int,
        seen: int,
        now: Instant,
    ) -> Version:
        held = self._held
        assert decision.record is not None
        key, kind, value, _, expires_at_ms, _ = decision.record
        held_before = held.store.peek(slot, key)
        known = held_before.version.stamp if held_before else 0
        above = max(seen, known, held.store.floor(slot))
        version = Version(held.clock.next_stamp(now.ms, above), held.key, held.boot)
        prev = held.store.own_prev(slot, held.origin)
        record = Record(key, kind, value, version, expires_at_ms, prev)
        held.store.write(slot, record, now.ms)
        self.stored += 1
        self._replicate(request, index, slot, record, w, now)
        return version

    def _replicate(
        self, request: Request, index: int, slot: int, record: Record, w: int, now: Instant
    ) -> None:
        for peer in self._held.view.route(slot):
            if peer != self._held.key:
                self._streams.offer(peer, record, now.mono)
        needed = self._targets_needed(w) - 1 if w != 1 else 0
        if needed > 0:
            self.confirming.wait(request, index, record, needed)
