"""Eviction policies: which value goes when room is needed.

A policy keeps the entries that have values in an order of its own. Room is made by asking for
`victim()` and removing it until enough is free. All operations are O(1), `victim()` amortized.

**LRU**: one chain; a hit moves the entry to its newest end, the oldest is the victim.

**LFU with ageing**: entries stand in chains by rank; the victim is the one of the lowest rank with
no hits since it got it. A hit only counts (one addition); the count is turned into rank when the
entry is next looked at as a victim, so each step of that search uses up at least one hit. Whoever
arrives gets the rank above the floor, the lowest rank there is. So the floor rises by one each
time that all the entries of the lowest rank are gone, and what was popular once, but is no
longer hit, is overtaken: its rank, the reward of at most `RANKS_MAX` hits, stands still.
Ranks therefore lie within `RANKS_MAX` of the floor, and a ring of as many chains holds them.

Source: the floor ("cache age") is that of LFU with dynamic ageing: Arlitt et al., "Evaluating
content management techniques for Web proxy caches", 2000. Different here: hits count once
against the age instead of for ever, which ages better, and late instead of at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from dcc.store.entry import Chain, Entry, unlink


class Policy(Protocol):
    """An order of eviction over the entries that have values."""

    def add(self, entry: Entry) -> None:
        """Take in an entry that got a value."""

    def hit(self, entry: Entry) -> None:
        """Take note that an entry was read, or its value replaced."""

    def remove(self, entry: Entry) -> None:
        """Let go of an entry that is here, whatever the reason."""

    def victim(self) -> Entry | None:
        """Return the entry to evict next, still here; None if there is no entry."""

    def __iter__(self) -> Iterator[Entry]:
        """Yield every entry, for `check()` only."""


class Lru:
    """The least recently used first."""

    def __init__(self) -> None:
        self._chain = Chain()
        self._root = self._chain.root
        self.add: Callable[[Entry], None] = self._chain.append
        self.victim: Callable[[], Entry | None] = self._chain.first

    def hit(self, entry: Entry) -> None:
        """Move to the newest end. Written out, since a read waits for it."""
        root = self._root
        newer = entry.newer
        if newer is root:
            return
        older = entry.older
        older.newer = newer
        newer.older = older
        newest = root.older
        newest.newer = root.older = entry
        entry.older = newest
        entry.newer = root

    def remove(self, entry: Entry) -> None:
        unlink(entry)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._chain)


RANKS_MAX = 63
"Hits that count, and turnovers of the unpopular part that the most popular entry outlives."


class Lfu:
    """The least frequently used first, with ageing."""

    def __init__(self) -> None:
        self._ranks = [Chain() for _ in range(RANKS_MAX + 1)]
        self._floor = 0
        "Index of the lowest rank; ranks above it follow round the ring."

    def add(self, entry: Entry) -> None:
        entry.hits = 0
        self._place(entry, 1)

    def hit(self, entry: Entry) -> None:
        if entry.hits < RANKS_MAX:
            entry.hits += 1

    def remove(self, entry: Entry) -> None:
        unlink(entry)

    def victim(self) -> Entry | None:
        empty = 0
        while empty <= RANKS_MAX:
            entry = self._ranks[self._floor].first()
            if entry is None:
                self._floor = (self._floor + 1) % (RANKS_MAX + 1)
                empty += 1
            elif entry.hits == 0:
                return entry
            else:
                unlink(entry)
                self._place(entry, entry.hits)
                entry.hits = empty = 0
        return None

    def _place(self, entry: Entry, above_floor: int) -> None:
        entry.rank = (self._floor + above_floor) % (RANKS_MAX + 1)
        self._ranks[entry.rank].append(entry)

    def __iter__(self) -> Iterator[Entry]:
        for chain in self._ranks:
            yield from chain


POLICIES: dict[str, Callable[[], Policy]] = {"lru": Lru, "lfu": Lfu}
"By the name of the node's option `eviction`."
