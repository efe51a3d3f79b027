"""Graves: what is left of records that were forgotten because every holder had seen them.

Every holder there was: somebody may be behind a cut, or come back after members of his kind were
forgotten, with an older value that nothing hides any more. So of each such record its key's hash
and its version stay. A grave is a tombstone without a key: an exchange sends it to whoever's clock
does not cover its version, and whoever gets it lets go of anything older, and keeps it.

Within a budget: the oldest graves of the slots in turn go first, and with them that protection.
"""

from __future__ import annotations

from xxhash import xxh3_64_intdigest

from dcc.store.clocks import Clock, clock_covers
from dcc.types import Version

GRAVE_BYTES = 240
"Of a hash, a version whose origin is shared, and their places in a dictionary."

BUDGET_SHARE = 64
"Graves may take one part in so many of the memory limit."


class Graves:
    """The graves of one node by slot and hash of the key."""

    def __init__(self, bytes_max: int) -> None:
        self._count_max = bytes_max // GRAVE_BYTES
        self._count = 0
        self._by_slot: dict[int, dict[int, Version]] = {}

    @property
    def bytes_used(self) -> int:
        """What all graves cost."""
        return self._count * GRAVE_BYTES

    def hide(self, slot: int, key: bytes, version: Version) -> bool:
        """Return whether a newer version of `key` than this was forgotten. O(1)."""
        graves = self._by_slot.get(slot)
        if graves is None:
            return False
        grave = graves.get(xxh3_64_intdigest(key))
        return grave is not None and grave > version

    def lacking(self, slot: int, clock: Clock) -> list[tuple[int, Version]]:
        """Return the graves whose versions `clock` does not cover, as (hash of the key, version).

        Oldest first. O(graves of the slot).
        """
        graves = self._by_slot.get(slot, {})
        return [one for one in graves.items() if not clock_covers(clock, one[1])]

    def add(self, slot: int, name: int, version: Version) -> None:
        """Keep the newer of two versions of the key that hashes to `name`. Amortised O(1)."""
        graves = self._by_slot.setdefault(slot, {})
        held = graves.pop(name, None)
        self._count += held is None
        graves[name] = version if held is None else max(held, version)
        while self._count > self._count_max:
            self._drop_one()

    def drop(self, slot: int) -> None:
        """Let go of a slot's graves."""
        self._count -= len(self._by_slot.pop(slot, {}))

    def check(self) -> None:
        """Assert the count and its bound."""
        assert self._count == sum(map(len, self._by_slot.values())) <= self._count_max
        assert all(self._by_slot.values()), "a slot without graves is not here"

    def _drop_one(self) -> None:
        slot = next(iter(self._by_slot))
        graves = self._by_slot.pop(slot)
        del graves[next(iter(graves))]
        self._count -= 1
        if graves:
            self._by_slot[slot] = graves
