"""Forgetting by agreement: records without values go once every holder has seen what they hide.

`coverage` says when that is so. What is forgotten leaves a grave, for holders that nobody asked
(`graves`). What is forgotten for want of room is `memory`'s, and leaves a mark.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from xxhash import xxh3_64_intdigest

from dcc.store.clocks import Clock, Clocks, clock_covers
from dcc.store.coverage import Coverages
from dcc.store.graves import Graves
from dcc.store.interning import Origins
from dcc.store.memory import Memory
from dcc.store.room import Room
from dcc.types import Kind, Version


class Forgetting:
    """Forgets in one node's store what all holders of a slot have seen."""

    def __init__(
        self, memory: Memory, clocks: Clocks, coverages: Coverages, graves: Graves,
        origins: Origins, room: Room,
    ) -> None:  # fmt: skip
        self._memory, self._clocks, self._coverages = memory, clocks, coverages
        self._graves, self._origins, self._room = graves, origins, room

    def note_covered(self, slot: int, peer: int, clock: Clock) -> None:
        """Take in a clock received from `peer`.

        `peer` should name one life of a node, such as its boot: a node that started anew has
        seen nothing.
        """
        if self._memory.valueless_in[slot]:
            self._coverages.note(slot, peer, clock, self._clocks.clock(slot))
            self._room.count()

    def forget_covered(self, slot: int, holders: Collection[int]) -> int:
        """Forget the records without values that all `holders` have seen; return how many.

        Nothing is forgotten until this node has seen, too, what they had seen by then.
        O(entries of the slot) when something can be forgotten, else O(holders).
        """
        memory = self._memory
        if not memory.valueless_in[slot]:
            self._drop_coverage(slot)
            return 0
        clock = self._clocks.clock(slot)
        coverage = self._coverages.of(slot, clock)
        if not coverage.by_all(holders, clock if holders else {}):
            self._room.count()
            return 0
        entries = [
            entry
            for entry in memory.tables[slot].values()
            if entry.kind is not Kind.VALUE and clock_covers(coverage.snapshot, entry.version)
        ]
        for entry in entries:
            memory.note_lost(entry)
            memory.agreed_marks[slot] = max(memory.agreed_marks[slot], entry.version[0])
            self._graves.add(slot, xxh3_64_intdigest(entry.key), entry.version)
            memory.remove(entry)
        self._drop_coverage(slot)
        return len(entries)

    def bury(self, slot: int, graves: Iterable[tuple[int, Version]]) -> None:
        """Take over graves of another holder: what is older goes. O(entries of the slot)."""
        for name, version in graves:
            self._graves.add(slot, name, Version(version[0], *self._origins.origin(version)))
        held = list(self._memory.tables[slot].values())
        for entry in [e for e in held if self._graves.hide(slot, e.key, e.version)]:
            self._memory.remove(entry)
        self._room.count()

    def needs_tidying(self, slot: int) -> bool:
        """Return whether `forget_covered` or `Store.close_gaps` may have something to do."""
        valueless = bool(self._memory.valueless_in[slot])
        return valueless or slot in self._coverages or self._clocks.has_notes(slot)

    def drop(self, slot: int) -> None:
        """Let go of what was kept for a slot that is released."""
        self._graves.drop(slot)
        self._memory.agreed_marks[slot] = 0
        self._drop_coverage(slot)

    def _drop_coverage(self, slot: int) -> None:
        if self._coverages.drop(slot):
            self._room.count()
