"""Requests that come too late: refused or dropped, because the asker has given up.

A deadline travels with every request, in cluster time. A node that is asked for more than it can
do would spend its time on answers that nobody waits for; so a request is compared with the clock
before anything else is done for it, and one after its deadline costs next to nothing. In the
second after such a request, those whose time is over within `MARGIN_MS` count as late, too: a queue
that is longer than its deadlines yields the next one just in time, and its answer would not be.

A refusal tells the time: a client whose idea of it is wrong gets its answer at the second attempt.
So up to `TOLD_MAX` a second are told; the others are dropped, which costs a tenth of an answer.
A late write is never carried out, told or not; large ones and batches are always told.
"""

from __future__ import annotations

from dcc.clock import ClusterClock
from dcc.replication.holdings import Instant
from dcc.units import SECOND

MARGIN_MS = 25
"What an answer needs to get back while everything waits: two turns of the loop."

STRAINED_NS = 1 * SECOND
TOLD_MAX = 100


class Lateness:
    """Judges the deadlines of requests.

    In the second after a late one those that would be late are late, too.
    """

    def __init__(self, clock: ClusterClock) -> None:
        self._clock = clock
        self.refused: int = 0
        "Late requests so far, told or dropped."
        self.strained: bool = False
        "Whether one came late, at most a second before `before` was asked last."
        self._strained_until = -1
        self._told = 0
        self._told_from = -STRAINED_NS

    def before(self, at: Instant) -> int:
        """Return the cluster ms before which deadlines have passed; 0 if the time is not known.

        A deadline of 0 is none.
        """
        self.strained = at.mono < self._strained_until
        if not self._clock.settled:
            return 0
        return at.ms + MARGIN_MS if self.strained else at.ms

    def tell(self, deadline_ms: int, at: Instant) -> bool:
        """Take a request with a deadline below `before`; return whether its sender is told."""
        if self.drop(deadline_ms, at):
            return False
        self.refused += 1
        self._told += 1
        return True

    def drop(self, deadline_ms: int, at: Instant) -> bool:
        """Drop such a request if enough senders were told in this second, else count nothing."""
        if deadline_ms < at.ms:
            self._strained_until, self.strained = at.mono + STRAINED_NS, True
        if at.mono - self._told_from >= SECOND:
            self._told_from, self._told = at.mono, 0
        if self._told < TOLD_MAX:
            return False
        self.refused += 1
        return True
