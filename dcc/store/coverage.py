"""When records without values may be forgotten: once every holder has seen what they hide.

Holders catch up with a slot that is written all the time, but never stand still at one clock
together. So a slot that has such records takes a **snapshot** of its own clock and waits until
the clock of every holder, as received, covers the snapshot; one after another, in any order. Then
whatever the snapshot covers is known everywhere and may go, and the next snapshot is taken.

That nobody can bring an older version is half of it; the other half is that none is on its way
here. A holder may have written one before it learned of the deletion, and a lost message is sent
again after a change of the view. So this node must also have seen what each holder had seen when
it was first heard covering the snapshot: older writes that come late are then refused.
"""

from __future__ import annotations

from collections.abc import Collection
from sys import getsizeof

from dcc.store.accounting import INT_BYTES, block
from dcc.store.clocks import BASE, Clock, clock_includes
from dcc.types import Origin, Stamp


class Coverage:
    """One slot's snapshot, and the holders that are known to cover it."""

    __slots__ = ("_covered_by", "counted_bytes", "snapshot")

    def __init__(self, clock: Clock) -> None:
        self.snapshot: dict[Origin, Stamp] = dict(clock)
        self._covered_by: dict[int, Clock | None] = {}
        "The clock each holder covered it with, as long as this node may not have seen all of it."
        self.counted_bytes: int = 0
        "What `growth_bytes` has reported in sum."

    def note(self, peer: int, clock: Clock, own: Clock) -> None:
        """Take in a clock received from `peer`, beside the slot's `own` clock now.

        A smaller one than before counts, too.
        """
        if not clock_includes(clock, self.snapshot):
            self._covered_by.pop(peer, None)
            return
        # What is younger than all that is to be forgotten needs no hiding.
        top = max(self.snapshot.values(), default=0)
        older = {origin: min(stamp, top) for origin, stamp in clock.items()}
        if clock_includes(own, older):
            self._covered_by[peer] = None
        else:
            self._covered_by.setdefault(peer, older)

    def by_all(self, holders: Collection[int], own: Clock) -> bool:
        """Return whether all of `holders` cover the snapshot, and `own` what they had seen then."""
        covered_by = self._covered_by
        return all(
            holder in covered_by
            and ((clock := covered_by[holder]) is None or clock_includes(own, clock))
            for holder in holders
        )

    def growth_bytes(self) -> int:
        """Return by how much the cost has changed since last asked."""
        before, self.counted_bytes = self.counted_bytes, self.bytes_used()
        return self.counted_bytes - before

    def bytes_used(self) -> int:
        """Return what this costs; the stamps are shared with the clock at first, not later."""
        own = block(getsizeof(self)) + getsizeof(self.snapshot) + getsizeof(self._covered_by)
        own += sum(clock_bytes(clock) for clock in self._covered_by.values() if clock is not None)
        return own + INT_BYTES * (len(self.snapshot) + len(self._covered_by))


class Coverages:
    """The coverages of a store by slot, and what they cost."""

    def __init__(self) -> None:
        self._by_slot: dict[int, Coverage] = {}
        self.bytes_used: int = 0

    def __contains__(self, slot: int) -> bool:
        return slot in self._by_slot

    def of(self, slot: int, clock: Clock) -> Coverage:
        """Return the coverage of `slot`, begun with its `clock` now if there is none."""
        coverage = self._by_slot.get(slot)
        if coverage is None:
            coverage = self._by_slot[slot] = Coverage(clock)
            self.bytes_used += coverage.growth_bytes()
        return coverage

    def note(self, slot: int, peer: int, clock: Clock, own: Clock) -> None:
        """Take in a clock received from `peer`, beside the slot's `own` clock now."""
        coverage = self.of(slot, own)
        coverage.note(peer, clock, own)
        self.bytes_used += coverage.growth_bytes()

    def drop(self, slot: int) -> bool:
        """Let go of a slot's coverage; return whether there was one."""
        coverage = self._by_slot.pop(slot, None)
        if coverage is None:
            return False
        self.bytes_used -= coverage.counted_bytes
        return True

    def check(self) -> None:
        """Assert that the bytes are the sum."""
        assert self.bytes_used == sum(one.bytes_used() for one in self._by_slot.values())


def clock_bytes(clock: Clock) -> int:
    """Return what a clock received from another node costs; its origins were decoded with it."""
    return getsizeof(clock) + len(clock) * (block(getsizeof(BASE)) + 3 * INT_BYTES)
