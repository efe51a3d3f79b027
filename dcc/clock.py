"""Cluster time and the stamps made from it.

Cluster time is the machine's wall clock read once at start, plus monotonic time since, plus the
offset to the median of the members' clocks. Steps of the wall clock after the start have no
effect, and one machine whose clock is wrong follows the others instead of dragging them along.
Two clocks have no majority; both nodes then follow the one that has been up for longer, since what
was stamped so far was stamped by it, or the slower one if both started together: so they agree at
least. A node alone keeps the offset that it had.

A stamp is a hybrid logical clock in one integer: milliseconds << 16 | counter. It exceeds every
stamp seen, so a write that knew of another one is newer than it; and it stays close to cluster
time, because stamps too far ahead are refused before they are seen.

Source: Kulkarni, Demirbas et al., "Logical Physical Clocks", OPODIS 2014, section 3 (the
difference: one 64-bit integer, a full counter carries into the milliseconds).
"""

from __future__ import annotations

from dataclasses import dataclass

from dcc.types import Boot, NodeKey, Now, Stamp
from dcc.units import MILLISECOND, SECOND

COUNTER_BITS = 16
BOOT_BITS = 16
"A boot is its start in ms above so many random bits."

WINDOW_NS = 10 * SECOND
"A member's clock is read off the quickest of its messages in one to two windows."


TOGETHER_MS = 5_000
"Two nodes of which neither has been up for so much longer have started together."


@dataclass(slots=True)
class _Reading:
    """Their wall minus ours, ms. Time on the way only makes it smaller, so the largest counts."""

    boot: Boot
    longer_up_ms: int
    "By how much they have been up for longer than we, each by its own clock."
    best: int
    newest: int
    "The largest of the present window."
    until: int

    def take(self, difference: int, mono: int, *, late: bool) -> bool:
        """Take in one message, which may have been read `late`; return whether `best` changed."""
        before = self.best
        if mono >= self.until:
            if not late:
                self.best = self.newest
            self.newest, self.until = difference, mono + WINDOW_NS
        self.newest = max(self.newest, difference)
        self.best = max(self.best, self.newest)
        return self.best != before


class ClusterClock:
    """One node's reading of cluster time and its last stamp."""

    def __init__(self, now: Now, *, max_skew_ms: int) -> None:
        self._base_ns = now.wall - now.mono
        self._started_ms = now.wall // MILLISECOND
        self._max_skew_ms = max_skew_ms
        self._others: dict[NodeKey, _Reading] = {}
        self._offset_ms = 0
        self.settled = False
        "Whether enough other clocks were read to trust this one; once true it stays so."
        self.last: Stamp = 0
        "The largest stamp made or seen; grows only."

    @property
    def offset_ms(self) -> int:
        """What is added to this machine's own clock, ms; how wrong the machine's clock is."""
        return self._offset_ms

    def own_ms(self, mono: int) -> int:
        """Return this machine's wall time in ms, as started: what it tells the others."""
        return (self._base_ns + mono) // MILLISECOND

    def cluster_ms(self, mono: int) -> int:
        """Return cluster time in ms. May step by small amounts when members come and go."""
        return (self._base_ns + mono) // MILLISECOND + self._offset_ms

    def observe(
        self, member: NodeKey, boot: Boot, their_own_ms: int, mono: int, *, late: bool = False
    ) -> None:
        """Note what a member said its own wall time was; O(members log members).

        Another boot than before is another clock: what was read of the former one is void. A node
        that has more to do than it can reads everything `late`, and to it all clocks go slow; then
        it goes by what it knew.
        """
        own_ms = self.own_ms(mono)
        difference = their_own_ms - own_ms
        reading = self._others.get(member)
        if reading is None or reading.boot != boot:
            longer_up_ms = their_own_ms - (boot >> BOOT_BITS) - (own_ms - self._started_ms)
            until = mono + WINDOW_NS
            self._others[member] = _Reading(boot, longer_up_ms, difference, difference, until)
        elif not reading.take(difference, mono, late=late):
            return
        self._follow()

    def forget(self, member: NodeKey) -> None:
        """Stop counting a member that is not alive."""
        if self._others.pop(member, None) is not None:
            self._follow()

    def skews_ms(self) -> dict[NodeKey, int]:
        """Return how far each member's own clock is ahead of this machine's, as last read."""
        return {member: reading.best for member, reading in sorted(self._others.items())}

    def settle(self, members: int) -> bool:
        """Return `settled`, which becomes true once two of the other `members - 1` were read.

        A machine whose clock is wrong must not stamp before it knows: what it stamps would be
        refused, or would beat newer writes.
        """
        if not self.settled:
            self.settled = len(self._others) >= min(2, members - 1)
        return self.settled

    def next_stamp(self, cluster_ms: int, seen: Stamp = 0) -> Stamp:
        """Return a stamp above all made or seen here and above `seen`, and remember it."""
        self.last = max(cluster_ms << COUNTER_BITS, self.last + 1, seen + 1)
        return self.last

    def witness(self, stamp: Stamp) -> None:
        """Remember a stamp that was accepted; own stamps will exceed it."""
        if stamp > self.last:
            self.last = stamp

    def too_far_ahead(self, stamp: Stamp, cluster_ms: int) -> bool:
        """Return whether `stamp` must be refused: it would drag time along with it."""
        return stamp >> COUNTER_BITS > cluster_ms + self._max_skew_ms

    def _follow(self) -> None:
        """Take over the median, or of two clocks the elder's."""
        others = list(self._others.values())
        if len(others) == 1 and abs(others[0].longer_up_ms) > TOGETHER_MS:
            self._offset_ms = others[0].best if others[0].longer_up_ms > 0 else 0
            return
        differences = sorted([0, *(reading.best for reading in others)])
        if len(differences) >= 2:
            self._offset_ms = differences[(len(differences) - 1) // 2]
