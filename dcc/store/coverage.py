"""When records without values may be forgotten: once every holder has seen what they hide.

Holders catch up with a slot that is written all the time, but never stand still at one clock
together. So a slot that has such records takes a **snapshot** of its own clock and waits until
the clock of every holder, as received, covers the snapshot; one after another, in any order. Then
whatever the snapshot covers is known everywhere and may go, and the next snapshot is taken.
"""

from __future__ import annotations

from collections.abc import Collection
from sys import getsizeof

from dcc.store.accounting import INT_BYTES, block
from dcc.store.clocks import Clock, clock_includes
from dcc.types import Origin, Stamp


class Coverage:
    """One slot's snapshot, and the holders that are known to cover it."""

    __slots__ = ("_covered_by", "counted_bytes", "snapshot")

    def __init__(self, clock: Clock) -> None:
        self.snapshot: dict[Origin, Stamp] = dict(clock)
        self._covered_by: dict[int, None] = {}
        self.counted_bytes = 0
        "What `growth_bytes` has reported in sum."

    def note(self, peer: int, clock: Clock) -> None:
        """Take in a clock received from `peer`; a smaller one than before counts, too."""
        if clock_includes(clock, self.snapshot):
            self._covered_by[peer] = None
        else:
            self._covered_by.pop(peer, None)

    def by_all(self, holders: Collection[int]) -> bool:
        """Return whether all of `holders` cover the snapshot."""
        return all(holder in self._covered_by for holder in holders)

    def growth_bytes(self) -> int:
        """Return by how much the cost has changed since last asked."""
        before, self.counted_bytes = self.counted_bytes, self.bytes_used()
        return self.counted_bytes - before

    def bytes_used(self) -> int:
        """Return what this costs; the stamps are shared with the clock at first, not later."""
        own = block(getsizeof(self)) + getsizeof(self.snapshot) + getsizeof(self._covered_by)
        return own + INT_BYTES * (len(self.snapshot) + len(self._covered_by))
