"""Questions: ask some holders what they hold of one key, and take the newest answer.

Used whenever a coordinator does not know enough alone: an absent key while it is not in sync, a
ghost, a conditional write, a stamp that has to be above an existing version. A question ends when
all whose answers are needed have answered, shortly after the first value (others may hold a newer
one, but a silent peer must not hold up a hit), or at its deadline. A node that has a value already,
which may be old, asks for a newer one, so another value does not end the wait. Only newcomers that
are still filling are not waited for then: they have hardly anything that nobody else has.

"I hold nothing" is not "I know nothing". A node that asks about a value it holds names its version
and what it has seen of the slot. A holder that has forgotten a later write of the key, which the
asker has not seen, answers that the value is *gone*. The value is then taken for absent, unless a
holder that has missed nothing still has it. The absence is unsure: what one node has evicted
another may have kept. The same holds if the asker has forgotten and the answerer was away.

Where nothing at all is known of the key, which is what most reads find at a node that has just
taken over a slot, the best of the holders may be asked alone: a value that it answers with is what
it would have told the reader itself. The others are asked only if it has none. That spares
them most of the questions that a move causes, and the reader the wait for the slowest of them.

A question for a quorum is also put to further owners; any `enough` of them will do. It does not end
with the first value, because a reader that asks several owners wants the newest. It ends early when
too few can still answer for a quorum. An owner that is not in sync with the others, such as one
that has just restarted empty, may have forgotten what it acknowledged: its record counts, but it
counts towards the quorum only once no other owner is left to ask.

A put asks only for what its stamp has to exceed, and clocks nearly tell: it has no patience with
members that are slow (`gossip.gray`), and waits for those alone no longer than for a second answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from dcc.effects import Effect, Tell
from dcc.replication.holdings import Holdings, Instant
from dcc.ring.hashing import slot_of
from dcc.types import NO_VERSION, Kind, NodeKey, Record, Version
from dcc.units import MILLISECOND, NEVER
from dcc.wire.messages import Fetch, FetchReply

QUESTION_NS = 200 * MILLISECOND
"Below a client's patience with one node, so that its answer still counts. Reads have longer."

SETTLE_NS = 20 * MILLISECOND
"How long answers are still awaited once a value is there, and the first holder before the others."


class Quorum(NamedTuple):
    """Holders, and how many of them have to answer, whichever they are."""

    among: tuple[NodeKey, ...]
    enough: int


NO_QUORUM = Quorum((), 0)


class Verdict(NamedTuple):
    """How a question ended."""

    question: int
    newest: Record | None
    "The newest record anybody answered with; None when nobody holds one."
    answered: bool
    "Whether all whose word was needed have answered."
    versions: Mapping[NodeKey, Version]
    "The peers that have answered, each with its version; NO_VERSION = holds nothing."
    ahead: bool = False
    "Whether somebody holds a version from so far ahead of cluster time that it was not taken."
    enough: bool = True
    "Whether there is a quorum, if one was asked for."
    agreed: bool = True
    "Whether all that have answered see this node's ring: if not, it may not know all holders."
    gone: Version = NO_VERSION
    "The version that is held here and was deleted or replaced elsewhere, by what is forgotten."

    @property
    def decides(self) -> bool:
        """Whether all whose word was needed have answered, in one ring."""
        return self.answered and self.agreed


class Outcome(NamedTuple):
    """Questions that have ended, and messages to holders that are asked only now."""

    verdicts: Sequence[Verdict] = ()
    effects: Sequence[Effect] = ()


NOTHING_YET = Outcome()


@dataclass(slots=True)
class _Open:
    fetch: Fetch
    "The question, as it is put to everybody."
    missing: set[NodeKey]
    "Whose word is needed and has not come."
    quorum: Quorum
    waiting: set[NodeKey]
    "All that may still answer."
    until: int
    later: tuple[NodeKey, ...] = ()
    "Holders that are asked only if the first has no value to answer with, or none in time."
    later_at: int = NEVER
    newest: Record | None = None
    answered: bool = True
    versions: dict[NodeKey, Version] = field(default_factory=dict)
    unsure: set[NodeKey] = field(default_factory=set)
    ahead: bool = False
    agreed: bool = True
    patient: bool = True
    "Whether members that are slow are waited for like others."
    for_newer: bool = False
    "Whether a value is at hand, or none is asked for: the first one that comes ends nothing."
    gone: bool = False
    kept: bool = False
    "Whether a holder that has missed nothing has that value or a newer record."

    @property
    def bytes(self) -> int:
        """Of the value that it keeps until it ends."""
        return len(self.newest.value) if self.newest is not None else 0

    @property
    def over(self) -> bool:
        """Whether nothing is gained by waiting any longer."""
        among, enough = self.quorum
        left = sum(peer in self.waiting for peer in among)
        hopeless = sum(peer in self.versions for peer in among) + left < enough
        return hopeless or (not self.missing and (self.enough or not left))

    @property
    def enough(self) -> bool:
        """Whether enough owners that have forgotten nothing have answered, or all there are."""
        among, enough = self.quorum
        got = [peer for peer in among if peer in self.versions]
        sure = sum(peer not in self.unsure for peer in got)
        return sure >= enough or (len(got) == len(among) and len(got) >= enough)


class Questions:
    """All questions of one node that are not answered yet."""

    def __init__(self, holdings: Holdings) -> None:
        self._held = holdings
        self._open: dict[int, _Open] = {}
        self.bytes_used: int = 0
        self.refused: int = 0
        "Answers not taken because those to other questions fill the budget."

    def __len__(self) -> int:
        return len(self._open)

    def ask(
        self,
        key: bytes,
        peers: Sequence[NodeKey],
        now: Instant,
        quorum: Quorum = NO_QUORUM,
        *,
        until: int = 0,
        first_alone: bool = False,
        patient: bool = True,
        for_newer: bool = False,
    ) -> tuple[int, list[Effect]]:
        """Return the question's number and the messages to all whose word is asked for.

        Everybody's of `peers` is needed, and `quorum.enough` of the others'; with `first_alone`
        that of `peers[0]` will do, if it is a value. It ends at `until`, monotonic ns, or after
        `QUESTION_NS`, whichever is later; soon, if not `patient` and only slow members are left.
        With `for_newer` no value ends it, but newcomers alone are not waited for.
        """
        others = tuple([peer for peer in quorum.among if peer not in peers])
        asked = (*peers, *others)
        assert peers or quorum.enough, "a question to nobody would never end"
        number = self._held.next_request()
        until = max(until, now.mono + QUESTION_NS)
        question = self._open[number] = _Open(
            self._fetch(key),
            set(peers),
            quorum,
            set(asked),
            until,
            patient=patient,
            for_newer=for_newer,
        )
        self._hurry(question, now)
        if first_alone and len(asked) > 1:
            question.later, question.later_at = asked[1:], now.mono + SETTLE_NS
            asked = asked[:1]
        return number, _fetches(number, question, asked)

    def receive(
        self, peer: NodeKey, number: int, reply: FetchReply, now: Instant, *, agreed: bool = True
    ) -> Outcome:
        """Take one answer; it may have been the last that mattered.

        `agreed` says whether the peer sees the ring that this node sees.
        """
        question = self._open.get(number)
        if question is None or peer not in question.waiting:
            return NOTHING_YET
        if not self._fits(reply):
            self.refused += 1
            return self.unreachable(peer, number, now)
        question.waiting.discard(peer)
        question.missing.discard(peer)
        question.agreed = question.agreed and agreed
        believed = [record for record in reply.records if self._believable(question, record, now)]
        if len(believed) == len(reply.records):
            question.versions[peer] = believed[0].version if believed else NO_VERSION
            if not reply.sure:
                question.unsure.add(peer)
            question.gone = question.gone or reply.gone
            question.kept = question.kept or (
                reply.sure and question.versions[peer] >= question.fetch.version
            )
        else:
            question.answered, question.ahead = False, True
        for record in believed:
            if not reply.sure and self._may_be_gone(record):
                question.answered, question.versions[peer] = False, NO_VERSION
            else:
                self._take(question, record, now)
        self._hurry(question, now)
        if question.later and self._serves(question.newest, now):
            question.answered = False
            return Outcome([self._close(number)])
        return self._ended_or_asked_on(number)

    def unreachable(self, peer: NodeKey, number: int, now: Instant) -> Outcome:
        """The question `number` could not be sent to `peer`, by which it may end."""
        question = self._open.get(number)
        if question is None or peer not in question.waiting:
            return NOTHING_YET
        question.waiting.discard(peer)
        if peer in question.missing:
            question.missing.discard(peer)
            question.answered = False
            self._hurry(question, now)
        return self._ended_or_asked_on(number)

    def tick(self, now: Instant) -> Outcome:
        """End the questions whose time is over; where the first holder is silent ask the others."""
        overdue = sorted([n for n, question in self._open.items() if question.until <= now.mono])
        for number in overdue:
            self._open[number].answered = False
        verdicts = [self._close(number) for number in overdue]
        effects: list[Effect] = []
        for number, question in self._open.items():
            if question.later_at <= now.mono:
                effects += self._ask_on(number, question)
        return Outcome(verdicts, effects)

    def wake_at(self) -> int:
        """Return the earliest deadline."""
        return min([min(q.until, q.later_at) for q in self._open.values()], default=NEVER)

    def check(self) -> None:
        """Assert that the bytes are those of the questions."""
        assert self.bytes_used == sum(question.bytes for question in self._open.values())

    def _fits(self, reply: FetchReply) -> bool:
        """Return whether an answer's values have room beside those of other questions."""
        size = sum([len(record.value) for record in reply.records])
        room = self._held.config.waiting_bytes_max - self.bytes_used
        return size <= room or not self.bytes_used or not size

    def _hurry(self, question: _Open, now: Instant) -> None:
        """Wait no longer, where only those are left that are not waited for, than for a value."""
        view, missing = self._held.view, question.missing
        slow = not question.patient and missing <= view.slow
        if slow or (question.for_newer and missing <= view.filling):
            question.until = min(question.until, now.mono + SETTLE_NS)

    def _ended_or_asked_on(self, number: int) -> Outcome:
        question = self._open[number]
        if question.later:
            return Outcome((), self._ask_on(number, question))
        return Outcome([self._close(number)]) if question.over else NOTHING_YET

    def _ask_on(self, number: int, question: _Open) -> list[Effect]:
        later, question.later, question.later_at = question.later, (), NEVER
        return _fetches(number, question, later)

    def _serves(self, record: Record | None, now: Instant) -> bool:
        """Return whether a reader may be answered with `record`."""
        if record is None or record.kind is not Kind.VALUE:
            return False
        expired = 0 < record.expires_at_ms <= now.ms
        return not expired and record.version.stamp > self._held.store.cleared

    def _believable(self, question: _Open, record: Record, now: Instant) -> bool:
        believed = self._held.intake.believes(record.version.stamp, now.ms)
        return record.key == question.fetch.key and believed

    def _may_be_gone(self, record: Record) -> bool:
        """Return whether a value was seen here and may have been deleted by what is forgotten.

        A peer that holds it still may just have missed that, if it is not in sync with the others.
        """
        store, slot = self._held.store, slot_of(record.key)
        if record.kind is not Kind.VALUE or record.version.stamp > store.mark(slot):
            return False
        return store.peek(slot, record.key) is None and store.covers(slot, record.version)

    def _take(self, question: _Open, record: Record, now: Instant) -> None:
        self._held.intake.install(slot_of(record.key), record, now.ms)
        known = question.newest
        if known is None or _rank(record) > _rank(known):
            self.bytes_used -= question.bytes
            question.newest = record
            self.bytes_used += question.bytes
        if record.kind is Kind.VALUE and not question.quorum.enough and not question.for_newer:
            question.until = min(question.until, now.mono + SETTLE_NS)

    def _close(self, number: int) -> Verdict:
        question = self._open.pop(number)
        self.bytes_used -= question.bytes
        return Verdict(
            number, question.newest, question.answered, question.versions, question.ahead,
            question.enough, question.agreed,
            question.fetch.version if question.gone and not question.kept else NO_VERSION,
        )  # fmt: skip

    def _fetch(self, key: bytes) -> Fetch:
        """Return the question of a key: a value that is held may be what others know deleted."""
        store, slot = self._held.store, slot_of(key)
        entry = store.peek(slot, key)
        if entry is None or entry.kind is not Kind.VALUE:
            return Fetch(key=key)
        clock = store.clock(slot)
        return Fetch(
            key=key, version=entry.version, origins=tuple(clock), stamps=tuple(clock.values())
        )


def _fetches(number: int, question: _Open, peers: Sequence[NodeKey]) -> list[Effect]:
    return [Tell(peer, question.fetch, number) for peer in peers]


def _rank(record: Record) -> tuple[object, bool]:
    # One version may come as a value and, where it was evicted, as a ghost: the value says more.
    return (record.version, record.kind is Kind.VALUE)
