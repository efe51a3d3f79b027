"""Room: what of the memory limit is left for values, beside all that is none.

Clocks, coverages and graves grow with the store, and other parts of the node reserve what they take
(`dcc.node.footprint`). All of it counts towards the limit: whatever grows, values make room for it.
"""

from __future__ import annotations

from dcc.store.accounting import bytes_cost
from dcc.store.clocks import Clocks
from dcc.store.coverage import Coverages
from dcc.store.graves import Graves
from dcc.store.memory import Memory


class Room:
    """The room for values in one node's store."""

    def __init__(
        self, memory: Memory, clocks: Clocks, coverages: Coverages, graves: Graves, *,
        value_bytes_max: int,
    ) -> None:  # fmt: skip
        self._memory, self._clocks = memory, clocks
        self._coverages, self._graves = coverages, graves
        self._value_bytes_max = value_bytes_max
        self.reserved_bytes: int = 0
        "What is left to others of the limit; `reserve` changes it."

    def reserve(self, size: int) -> None:
        """Leave `size` bytes of the limit to what grows beside the store; values make room."""
        self.reserved_bytes = size
        self.count()

    def can_hold(self, length: int) -> bool:
        """Return whether a value of `length` bytes could be kept if all others made room for it."""
        memory = self._memory
        taken = memory.valueless_bytes_max + memory.other_bytes - self.reserved_bytes
        return length <= self._value_bytes_max and bytes_cost(length) <= memory.limit_bytes - taken

    def fits(self, length: int, beside: int = 0) -> bool:
        """Return whether a value of `length` bytes can be kept now, with what is reserved.

        `beside`: bytes that will be reserved at the end of this turn, and are not yet.
        """
        room_bytes = self._memory.room_bytes - beside
        return length <= self._value_bytes_max and bytes_cost(length) <= room_bytes

    def count(self) -> None:
        """Count what may have grown, and make the room that takes."""
        used = self._used()
        if used != self._memory.other_bytes:
            self._memory.other_bytes = used
            self._memory.make_room()

    def check(self) -> None:
        """Assert that everything was counted after each change."""
        self._coverages.check()
        assert self._memory.other_bytes == self._used(), "clocks are counted after each change"

    def _used(self) -> int:
        used = self._clocks.bytes_used + self._coverages.bytes_used + self.reserved_bytes
        return used + self._graves.bytes_used
