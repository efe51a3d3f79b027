"""Doubt: what may hide a value without anybody being able to show it any more; and who is owed one.

A holder who has forgotten records for want of room, or was himself filled by such a one, has a
forget mark. Whoever has not seen all that the holder saw up to there is *below* it: he may hold a
value whose newer version, or deletion, the holder has seen and forgotten. So he lays what he holds
beside the list of what the holder still has, and doubts what is not in it. What others list who are
not below themselves is vouched for: had there been anything to hide it they would have seen it.

A node that began to write above the mark hid nothing under it, so its writes put nobody below.
Members say what all their stamps exceed (`Member.stamps_above`): else a node that stood still would
be below everybody as soon as a newcomer has written.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from functools import cached_property
from sys import getsizeof
from typing import NamedTuple

from xxhash import xxh3_64_intdigest

from dcc.store.clocks import NO_BIRTHS, Births, Clock, clock_below, clock_covers, clock_seen
from dcc.store.entry import HEARD, Entry
from dcc.types import Kind, Origin, Stamp, Version

Span = tuple[Origin, Stamp, Stamp]


class Owed(NamedTuple):
    """Records stamped above `low` and up to `high` are owed: the clock covers them all the same."""

    low: Stamp = 0
    high: Stamp = 0
    held: int = 0
    "A digest of those that are there: equal to the other's, and nothing is to come."


def content(entries: Iterable[Entry], low: Stamp, high: Stamp) -> int:
    """Return 64 bits of the versions above `low` up to `high` that are held, or were evicted."""
    found = 0
    for entry in entries:
        kept = entry.kind is Kind.VALUE or (entry.kind is Kind.EVICTED and not entry.asked & HEARD)
        if kept and low < entry.version[0] <= high:
            found ^= xxh3_64_intdigest(entry.key, entry.version[0] ^ entry.version[1])
    return found


def is_below(
    clock: Clock, other: Clock, mark: Stamp, spans: Sequence[Span], births: Births = NO_BIRTHS
) -> bool:
    """Return whether `clock` may lack a write that a holder has seen and forgotten.

    `other` is the holder's clock, `mark` his forget mark, `spans` what he has seen beyond gaps: it
    may be forgotten, too. Who began to write above the mark, by `births`, hid nothing under it.
    """
    return clock_below(clock, other, mark, births) or any(
        max(low, births.get(origin, 0)) < mark and clock_seen(clock, origin) < min(high, mark)
        for origin, low, high in spans
    )


NOTHING_OWED = Owed()


class Listing:
    """What a holder with a forget mark has seen of a slot, and the keys he still has."""

    def __init__(
        self, clock: Clock, spans: Sequence[Span], mark: Stamp, hashes: Sequence[int] = ()
    ) -> None:
        self.clock: Clock = clock
        self.spans: Sequence[Span] = spans
        self.mark: Stamp = mark
        self._hashes = array("Q", hashes)

    @cached_property
    def listed(self) -> frozenset[int]:
        """The xxh3_64 of every key of which he has a record."""
        return frozenset(self._hashes)

    def doubts(self, version: Version, name: int) -> bool:
        """Return whether a version held elsewhere is in doubt, its key hashing to `name`."""
        seen = version[0] <= self.mark or clock_covers(self.clock, version)
        return seen and name not in self.listed

    def vouches_for(self, other: Listing, births: Births = NO_BIRTHS) -> bool:
        """Return whether this holder has seen all that the `other` may have forgotten."""
        return self is not other and not is_below(
            self.clock, other.clock, other.mark, other.spans, births
        )

    def bytes_used(self) -> int:
        """Return what this costs while it waits."""
        return getsizeof(self._hashes) + 200 * (1 + len(self.clock) + len(self.spans))
