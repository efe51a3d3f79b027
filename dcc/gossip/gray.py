"""Who is slow: a member that is never silent and takes many times as long as the others.

The failure detector asks whether somebody answers within a period. A *gray* member does (a link
that loses packets, a busy or broken machine) and yet makes everything wait that waits for it. So
each member measures how long its pings take, by member, and tells the pinged one with the next ping
what it thinks of it: *slow* is who took ten times as long as the others in the middle, and 30 ms at
least, over its last pings without the longest one; *well* again is who takes less than three times
as long, or less than 10 ms. Between these bounds a judgement stays what it was. A ping
that had to be sent again is timed from then on: gossip may be lost, and that says nothing of the
member's pace. By comparing with others a member that is slow itself finds everybody alike; of two
members none is slow.

A member takes itself for slow when more than half of those who judged it lately say so, and two
at least, so that no single member can make it. Then it says so in its own row, under a new
incarnation, and all agree at once: it comes behind the other owners in every route, as one that is
filling does, and leads again when it has not been found slow for `CALM_NS`.

Source: Huang et al., "Gray Failure: The Achilles' Heel of Cloud-Scale Systems" (HotOS 2017), for
judging by what others experience instead of by what a node knows of itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable

from dcc.types import NodeKey, Pace
from dcc.units import MILLISECOND, NEVER, SECOND

SAMPLES = 6
"Pings that are remembered of each member."

SAMPLES_MIN = 3

SLOW_TIMES, SLOW_LEAST_NS = 10, 30 * MILLISECOND
WELL_TIMES, WELL_LEAST_NS = 3, 10 * MILLISECOND

CALM_NS = 20 * SECOND
"For how long a slow member must not have been found slow."

VOICE_NS = 30 * SECOND
"How long a judgement counts."


class PaceJudge:
    """What this member thinks of the others' pace, and what they think of its own."""

    def __init__(self) -> None:
        self._took: dict[NodeKey, deque[int]] = {}
        self._slow: set[NodeKey] = set()
        self._voices: dict[NodeKey, tuple[Pace, int]] = {}
        self._calm_at = NEVER

    def took(self, key: NodeKey, ns: int) -> None:
        """Take the time of one ping to the member `key` and back."""
        self._took.setdefault(key, deque(maxlen=SAMPLES)).append(ns)

    def forget(self, key: NodeKey) -> None:
        """Forget how long a member took: it is another one now, or gone."""
        self._took.pop(key, None)
        self._slow.discard(key)
        self._voices.pop(key, None)

    def of(self, key: NodeKey) -> Pace:
        """Return what this member thinks of another one's pace. O(members)."""
        own = self._usual(key)
        others = sorted(
            [usual for other in self._took if other != key if (usual := self._usual(other))]
        )
        if not own or not others:
            return Pace.UNKNOWN
        rest = others[(len(others) - 1) // 2]
        if own >= max(SLOW_LEAST_NS, SLOW_TIMES * rest):
            self._slow.add(key)
        elif own < max(WELL_LEAST_NS, WELL_TIMES * rest):
            self._slow.discard(key)
        return Pace.SLOW if key in self._slow else Pace.WELL

    def heard(self, voter: NodeKey, pace: Pace, now: int) -> None:
        """Take what another member thinks of this one."""
        if pace is not Pace.UNKNOWN:
            self._voices[voter] = (pace, now)

    def is_slow(self, alive: Container[NodeKey], now: int, *, slow: bool) -> bool:
        """Return whether this member is slow, which it takes itself to be already if `slow`."""
        if self._said_slow(alive, now):
            self._calm_at = now + CALM_NS
            return True
        return slow and now < self._calm_at

    def _said_slow(self, alive: Container[NodeKey], now: int) -> bool:
        voices = [
            pace
            for voter, (pace, at) in self._voices.items()
            if voter in alive and at + VOICE_NS > now
        ]
        slow = voices.count(Pace.SLOW)
        return slow >= 2 and slow * 2 > len(voices)

    def _usual(self, key: NodeKey) -> int:
        """Return the mean of the last times without the longest; 0 while they are too few."""
        times: Iterable[int] = self._took.get(key, ())
        ordered = sorted(times)[:-1]
        if len(ordered) + 1 < SAMPLES_MIN:
            return 0
        return max(1, sum(ordered) // len(ordered))

    def check(self) -> None:
        """Assert that only those are found slow who were measured."""
        assert self._slow <= self._took.keys()
