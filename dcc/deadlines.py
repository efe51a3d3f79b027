"""Deadlines by key: set, move, cancel, and pop those that are due.

A heap with lazy deletion: moving a deadline pushes another entry, and an entry counts only while
it is the key's current one. Every entry is pushed once and popped once, so operations cost
O(log n) amortised; the heap is rebuilt when most of it is stale.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from dcc.units import NEVER


class Deadlines:
    """At most one deadline (monotonic ns) per integer key.

    >>> deadlines = Deadlines()
    >>> deadlines.set(7, 30); deadlines.set(8, 20); deadlines.set(7, 10)
    >>> deadlines.next_at(), deadlines.pop_due(15), deadlines.next_at()
    (10, [7], 20)
    """

    def __init__(self) -> None:
        self._at: dict[int, int] = {}
        self._heap: list[tuple[int, int]] = []

    def set(self, key: int, at: int) -> None:
        """Give `key` the deadline `at`, in place of any it had."""
        if self._at.get(key) == at:
            return
        self._at[key] = at
        heappush(self._heap, (at, key))
        if len(self._heap) > 2 * len(self._at) + 64:
            self._heap = [(due, each) for each, due in self._at.items()]
            heapify(self._heap)

    def cancel(self, key: int) -> None:
        """Forget the deadline of `key`, if there is one."""
        self._at.pop(key, None)

    def get(self, key: int) -> int:
        """Return the deadline of `key`, or NEVER."""
        return self._at.get(key, NEVER)

    def next_at(self) -> int:
        """Return the earliest deadline, or NEVER."""
        heap, current = self._heap, self._at
        while heap and current.get(heap[0][1]) != heap[0][0]:
            heappop(heap)
        return heap[0][0] if heap else NEVER

    def pop_due(self, now: int) -> list[int]:
        """Remove and return the keys that are due at `now`, the earliest first."""
        due = []
        while self.next_at() <= now:
            _, key = heappop(self._heap)
            del self._at[key]
            due.append(key)
        return due

    def __len__(self) -> int:
        return len(self._at)

    def __contains__(self, key: int) -> bool:
        return key in self._at

    def check(self) -> None:
        """Assert that every current deadline is in the heap, which is bounded."""
        assert {(at, key) for key, at in self._at.items()} <= set(self._heap)
        assert len(self._heap) <= 2 * len(self._at) + 64 + 1
