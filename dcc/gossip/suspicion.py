"""Suspicions: how long each accused member has to refute before it is declared dead.

A suspicion starts with the longest time-out and shrinks to the shortest as independent accusers
confirm it: if nobody else finds the member silent, the fault may be the accuser's own. For C
confirmations beyond the first accusation, of which K would settle it,

    timeout = max(min, max - (max - min) * log(C + 1) / log(K + 1))

Two rules are dcc's own. *The last look*: nobody is declared dead unless it was pinged once more,
with the accusation in the ping, at least an ack time-out before (`look_at`). *Grace*: a claim that
a member is dead, about one that was not yet suspected here, starts a suspicion of two periods
instead of being believed at once; see `membership.py`.

Source: Dadgar, Phillips, Currey, "Lifeguard" (arXiv 1707.00788), Local Health Aware Suspicion;
hashicorp/memberlist `suspicion.go` and `suspicionTimeout` in `util.go` for today's parameters.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import log, log10

from dcc.deadlines import Deadlines
from dcc.types import NodeKey

SUSPICION_MULT = 4
"Shortest time-out in periods, times log10 of the members; memberlist's LAN default."

SUSPICION_MAX_MULT = 6
"Longest over shortest time-out; memberlist's LAN default."

CONFIRMATIONS = 2
"K: independent confirmations that bring the time-out down to the shortest."

GRACE_PERIODS = 2
"What a member has to refute when it is called dead before it was suspected here."


def shortest_ns(members: int, period_ns: int) -> int:
    """Return the time-out that enough confirmations lead to.

    >>> shortest_ns(3, 1000), shortest_ns(128, 1000)
    (4000, 8428)
    """
    return int(SUSPICION_MULT * max(1.0, log10(max(1, members))) * period_ns)


def timeout_ns(members: int, confirmations: int, period_ns: int) -> int:
    """Return the time-out after `confirmations` beyond the first accusation.

    With fewer than K members who could confirm, it is the shortest at once.

    >>> [timeout_ns(128, c, 1000) for c in (0, 1, 2, 9)]
    [50568, 23980, 8428, 8428]
    >>> timeout_ns(3, 0, 1000)
    4000
    """
    shortest = shortest_ns(members, period_ns)
    if members - 2 < CONFIRMATIONS:
        return shortest
    longest = SUSPICION_MAX_MULT * shortest
    gone = log(confirmations + 1) / log(CONFIRMATIONS + 1)
    return max(shortest, int(longest - (longest - shortest) * gone))


@dataclass(slots=True)
class _Suspicion:
    members: int
    "At its start, so that many suspicions at once do not shorten each other."
    started_at: int
    ends_at: int
    accusers: set[NodeKey] = field(default_factory=set)
    looked: bool = False


class Suspicions:
    """The running suspicions of one node. All instants are monotonic ns; O(log n) each."""

    def __init__(self, *, period_ns: int, ack_timeout_ns: int) -> None:
        self._period_ns, self._ack_timeout_ns = period_ns, ack_timeout_ns
        self._running: dict[NodeKey, _Suspicion] = {}
        self._looks = Deadlines()
        self._ends = Deadlines()

    def start(self, key: NodeKey, accuser: NodeKey, members: int, now: int) -> None:
        """Begin a suspicion, in place of any that ran: a new incarnation is a new case."""
        ends_at = now + timeout_ns(members, 0, self._period_ns)
        self._running[key] = _Suspicion(members, now, ends_at, {accuser})
        self._schedule(key, now)

    def confirm(self, key: NodeKey, accuser: NodeKey, now: int) -> bool:
        """Return whether `accuser` is a new one that counts; the time-out shrinks if so."""
        suspicion = self._running[key]
        accusers = suspicion.accusers
        if accuser in accusers or len(accusers) > CONFIRMATIONS:
            return False
        accusers.add(accuser)
        ends_at = suspicion.started_at + timeout_ns(
            suspicion.members, len(accusers) - 1, self._period_ns
        )
        self._end_by(key, ends_at, now)
        return True

    def called_dead(self, key: NodeKey, now: int) -> bool:
        """Return whether a claim of death may be believed now; else the end comes with the grace.

        It may once the member has had `GRACE_PERIODS` since it was suspected here.
        """
        granted_until = self._running[key].started_at + GRACE_PERIODS * self._period_ns
        if now >= granted_until:
            return True
        self._end_by(key, granted_until, now)
        return False

    def cancel(self, key: NodeKey) -> None:
        """End the suspicion without a verdict, if there is one."""
        if self._running.pop(key, None) is not None:
            self._looks.cancel(key)
            self._ends.cancel(key)

    def pop_looks(self, now: int) -> list[NodeKey]:
        """Return the members due for their last look; each once per suspicion."""
        keys = self._looks.pop_due(now)
        for key in keys:
            suspicion = self._running[key]
            suspicion.looked = True
            # A confirmation can end a suspicion at once; the look still gets its answer's time.
            suspicion.ends_at = max(suspicion.ends_at, now + self._ack_timeout_ns)
            self._ends.set(key, suspicion.ends_at)
        return keys

    def pop_ended(self, now: int) -> list[NodeKey]:
        """Remove and return the members whose time to refute is over."""
        keys = self._ends.pop_due(now)
        for key in keys:
            del self._running[key]
        return keys

    def next_at(self) -> int:
        """Return when the next look or end is due, or NEVER."""
        return min(self._looks.next_at(), self._ends.next_at())

    def __contains__(self, key: NodeKey) -> bool:
        return key in self._running

    def __len__(self) -> int:
        return len(self._running)

    def _end_by(self, key: NodeKey, ends_at: int, now: int) -> None:
        suspicion = self._running[key]
        if ends_at < suspicion.ends_at:
            suspicion.ends_at = ends_at
            self._schedule(key, now)

    def _schedule(self, key: NodeKey, now: int) -> None:
        suspicion = self._running[key]
        if suspicion.looked:
            self._ends.set(key, max(suspicion.ends_at, now))
            return
        # The end is armed by the look, so that there is never one without the other.
        self._looks.set(key, max(suspicion.ends_at - self._period_ns, now))

    def check(self) -> None:
        """Assert that each suspicion waits for exactly one of: its look, its end."""
        self._looks.check()
        self._ends.check()
        for key, suspicion in self._running.items():
            assert suspicion.looked == (key in self._ends)
            assert suspicion.looked != (key in self._looks)
            assert 1 <= len(suspicion.accusers) <= CONFIRMATIONS + 1
        assert len(self._running) == len(self._looks) + len(self._ends)
