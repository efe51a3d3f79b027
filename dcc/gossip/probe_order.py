"""In which order members are probed: round-robin over a shuffled list.

The list is shuffled again at each wrap, so each member is probed within 2n - 1 periods at worst.
Newcomers enter at a random place, one period after they were learned, when the connections have
come up.

Source: SWIM (Das, Gupta, Motivala, DSN 2002), round-robin probe target selection.
"""

from __future__ import annotations

import random
from collections import deque

from dcc.gossip.table import Table
from dcc.types import NodeKey


class ProbeOrder:
    """The round of one prober."""

    def __init__(self, table: Table, rng: random.Random) -> None:
        self._table, self._rng = table, rng
        self._order: list[NodeKey] = []
        self._next = 0
        self._listed: set[NodeKey] = set()
        self._newcomers: deque[tuple[int, NodeKey]] = deque()
        "Who enters the round, and when."

    def add(self, key: NodeKey, at: int) -> None:
        """Take a new or returned member into the round at the time `at`."""
        if key not in self._listed:
            self._listed.add(key)
            self._newcomers.append((at, key))

    def next(self, now: int) -> NodeKey | None:
        """Return whom to probe now; None if there is nobody."""
        self._admit_newcomers(now)
        for _ in range(len(self._order) + 1):
            if self._next >= len(self._order):
                self._wrap()
                if not self._order:
                    return None
            key = self._order[self._next]
            self._next += 1
            if self._table.is_peer(key):
                return key
        return None

    def _wrap(self) -> None:
        self._order = [key for key in self._order if self._table.is_peer(key)]
        self._listed = set(self._order)
        self._listed.update(key for _, key in self._newcomers)
        self._rng.shuffle(self._order)
        self._next = 0

    def _admit_newcomers(self, now: int) -> None:
        while self._newcomers and self._newcomers[0][0] <= now:
            _, key = self._newcomers.popleft()
            place = int(self._rng.random() * (len(self._order) + 1))
            self._order.insert(place, key)
            if place < self._next:
                self._next += 1

    def check(self) -> None:
        """Assert that every peer is listed, and nobody twice."""
        listed = [*self._order, *(key for _, key in self._newcomers)]
        assert len(listed) == len(set(listed))
        assert set(listed) <= self._listed
        assert all(key in self._listed for key in self._table.peers)
