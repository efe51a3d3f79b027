"""Own time: monotonic time that stands still while the node does.

All deadlines of the membership machine live in it, so whoever wakes after a stop judges nobody by
what it did not hear meanwhile. Two things count as a stop: a standstill that the loop reports, and
a turn that comes much later than the wake-up that was asked for, which nobody needs to report.
Sleep until the time that was asked for is neither.
"""

from __future__ import annotations

from dcc.units import NEVER


class OwnTime:
    """Converts monotonic ns to own ns.

    >>> time = OwnTime(100, late_max_ns=20)
    >>> time.due = 150
    >>> time.advance(160), time.now
    (0, 160)
    >>> time.advance(450), time.now, time.to_mono(200)
    (300, 160, 500)
    """

    def __init__(self, now: int, *, late_max_ns: int) -> None:
        self.now: int = now
        "Own time of this turn."
        self.due = NEVER
        "When the next turn was asked for, in own time."
        self.cluster_ms = 0
        "Cluster time of this turn: what is told to all is dated in it."
        self._late_max_ns = late_max_ns
        self._slept_ns = 0

    def advance(self, mono: int) -> int:
        """Set the time of this turn; return how long the node stood still unreported, or 0."""
        late_ns = mono - self._slept_ns - self.due
        if late_ns <= self._late_max_ns:
            late_ns = 0
        self._slept_ns += late_ns
        self.now = max(self.now, mono - self._slept_ns)
        return late_ns

    def standstill(self, gap_ns: int, mono: int) -> int:
        """Take out a reported standstill; return what of it exceeds the sleep asked for."""
        late_ns = max(0, min(gap_ns, mono - self._slept_ns - self.due))
        self._slept_ns += late_ns
        return late_ns

    def to_own(self, mono: int) -> int:
        """Return the own time of a monotonic instant."""
        return mono - self._slept_ns

    def to_mono(self, own: int) -> int:
        """Return the monotonic instant of an own time; NEVER stays NEVER."""
        return NEVER if own == NEVER else own + self._slept_ns
