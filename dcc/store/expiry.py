"""When values end: an index from time to the entries that expire then.

Entries stand in buckets by the time at which they will be looked at, their expiry rounded up:
to a second for what lives up to two minutes, to at most 1/64 of the time left beyond. So there
are a few thousand buckets at most, whatever expiries callers choose, and each entry stands in one
bucket once, however often its value is replaced. Being late frees memory late and nothing else:
a reader compares the entry's own expiry.

Joining and leaving cost O(1), and O(log buckets) if that creates or empties a bucket.
"""

from __future__ import annotations

from collections.abc import Iterator

from sortedcontainers import SortedDict

from dcc.store.accounting import BUCKET_BYTES
from dcc.store.entry import NOWHERE, Entry, anchor
from dcc.units import NEVER

FINEST_MS = 1024
"Width of the narrowest buckets."

SHARE_BITS = 6
"Wider buckets are as wide as 1/64 of the time left, rounded down to a power of two."


def bucket_of(expires_at_ms: int, now_ms: int) -> int:
    """Return the time at which to look at what expires at `expires_at_ms`.

    >>> bucket_of(1_000_100, 1_000_000)
    1000448
    """
    left_ms = max(0, expires_at_ms - now_ms)
    width_ms = max(FINEST_MS, 1 << max(0, (left_ms >> SHARE_BITS).bit_length() - 1))
    return -(-expires_at_ms // width_ms) * width_ms


class ExpiryIndex:
    """Entries by expiry. An entry must leave before its `expires_at_ms` changes."""

    def __init__(self) -> None:
        self._buckets: SortedDict[int, Entry] = SortedDict()
        "Time to look -> the anchor of a ring through `sooner`/`later`; never an empty ring."

    @property
    def bytes_used(self) -> int:
        """Memory for the buckets; the links are part of the entries."""
        return len(self._buckets) * BUCKET_BYTES

    def add(self, entry: Entry, now_ms: int) -> None:
        """Take in an entry that expires."""
        at = bucket_of(entry.expires_at_ms, now_ms)
        root = self._buckets.get(at)
        if root is None:
            root = self._buckets[at] = anchor()
            root.expires_at_ms = at
        last = root.sooner
        last.later = root.sooner = entry
        entry.sooner = last
        entry.later = root

    def remove(self, entry: Entry) -> None:
        """Let go of an entry that is here."""
        sooner, later = entry.sooner, entry.later
        assert later is not NOWHERE, "only what is in the index can leave it"
        sooner.later = later
        later.sooner = sooner
        entry.sooner = entry.later = NOWHERE
        if sooner is later:
            # Both neighbours are the anchor, which alone is left.
            del self._buckets[sooner.expires_at_ms]

    def due(self, now_ms: int) -> Entry | None:
        """Return an entry whose time is over, still here; None if no bucket is due."""
        if not self._buckets:
            return None
        at, root = self._buckets.peekitem(0)
        return root.later if at <= now_ms else None

    def next_ms(self) -> int:
        """Return when the first bucket is due in cluster milliseconds, or NEVER."""
        return self._buckets.peekitem(0)[0] if self._buckets else NEVER

    def __iter__(self) -> Iterator[Entry]:
        """Yield every entry, for `check()` only."""
        for root in self._buckets.values():
            entry = root.later
            while entry is not root:
                yield entry
                entry = entry.later
