"""Questions: ask some holders what they hold of one key, and take the newest answer.

Used whenever a coordinator does not know enough alone: an absent key while it is not in sync, a
ghost, a conditional write, a stamp that has to be above an existing version. A question ends when
all have answered, shortly after the first value (others may hold a newer one, but a silent peer
must not hold up a hit), or at its deadline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dcc.effects import Effect, Tell
from dcc.replication.holdings import Holdings, Instant
from dcc.ring.hashing import slot_of
from dcc.types import Kind, NodeKey, Record
from dcc.units import MILLISECOND, NEVER
from dcc.wire.messages import Fetch, FetchReply

QUESTION_NS = 200 * MILLISECOND
"Below a client's patience with one node, so that its answer still counts."

SETTLE_NS = 20 * MILLISECOND
"How long answers are still awaited once a value is there."


class Verdict(NamedTuple):
    """How a question ended."""

    question: int
    newest: Record | None
    "The newest record anybody answered with; None when nobody holds one."
    answered: bool
    "Whether all that were asked have answered."


@dataclass(slots=True)
class _Open:
    key: bytes
    waiting: set[NodeKey]
    newest: Record | None
    until: int
    answered: bool = True


class Questions:
    """All questions of one node that are not answered yet."""

    def __init__(self, holdings: Holdings) -> None:
        self._held = holdings
        self._open: dict[int, _Open] = {}

    def __len__(self) -> int:
        return len(self._open)

    def ask(self, key: bytes, peers: Sequence[NodeKey], now: Instant) -> tuple[int, list[Effect]]:
        """Return the question's number and the messages; `peers` must not be empty."""
        assert peers, "a question to nobody would never end"
        number = self._held.next_request()
        self._open[number] = _Open(key, set(peers), None, now.mono + QUESTION_NS)
        return number, [Tell(peer, Fetch(key=key), number) for peer in peers]

    def receive(
        self, peer: NodeKey, number: int, reply: FetchReply, now: Instant
    ) -> Verdict | None:
        """Take one answer; return the verdict if it was the last that mattered."""
        question = self._open.get(number)
        if question is None or peer not in question.waiting:
            return None
        question.waiting.discard(peer)
        for record in reply.records:
            if self._believable(question, record, now):
                self._take(question, record, now)
        return self._close(number) if not question.waiting else None

    def unreachable(self, peer: NodeKey, number: int) -> list[Verdict]:
        """The question `number` could not be sent to `peer`; return it if it ends by that."""
        question = self._open.get(number)
        if question is None or peer not in question.waiting:
            return []
        question.waiting.discard(peer)
        question.answered = False
        return [] if question.waiting else [self._close(number)]

    def tick(self, now: Instant) -> list[Verdict]:
        """Return the questions whose time is over."""
        overdue = [n for n, question in self._open.items() if question.until <= now.mono]
        for number in overdue:
            self._open[number].answered = False
        return [self._close(number) for number in sorted(overdue)]

    def wake_at(self) -> int:
        """Return the earliest deadline."""
        return min((question.until for question in self._open.values()), default=NEVER)

    def _believable(self, question: _Open, record: Record, now: Instant) -> bool:
        ahead = self._held.clock.too_far_ahead(record.version.stamp, now.ms)
        return record.key == question.key and not ahead

    def _take(self, question: _Open, record: Record, now: Instant) -> None:
        held = self._held
        held.clock.witness(record.version.stamp)
        slot = slot_of(record.key)
        if held.view.holds(slot):
            held.store.install(slot, record, now.ms)
        known = question.newest
        if known is None or _rank(record) > _rank(known):
            question.newest = record
        if record.kind is Kind.VALUE:
            question.until = min(question.until, now.mono + SETTLE_NS)

    def _close(self, number: int) -> Verdict:
        question = self._open.pop(number)
        return Verdict(number, question.newest, question.answered)


def _rank(record: Record) -> tuple[object, bool]:
    # One version may come as a value and, where it was evicted, as a ghost: the value says more.
    return (record.version, record.kind is Kind.VALUE)
