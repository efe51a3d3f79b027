"""What is met most often in a stream, in constant memory: Space-Saving.

A counter for each of the items that are watched. An item that has none takes over the counter of
the item that was met least, and begins with its count, which is from then on the most by which its
own count may be too high. So no count is too low, and whatever makes up more than one part in
`places` of the stream has a counter.

Counters of one height stand in one row (the paper's stream-summary), and a count rises by one at a
time: whoever was met least is always at hand, and each call takes constant time.

The past fades: `fade` halves all counts, so what was met one fading ago weighs half.

Source: Metwally, Agrawal, El Abbadi, "Efficient computation of frequent and top-k elements in data
streams", ICDT 2005, section 3.
"""

from __future__ import annotations

from typing import NamedTuple


class Frequent(NamedTuple):
    """One item that is watched."""

    item: bytes
    times: int
    "How often it was met at most; what faded weighs less."
    error: int
    "By how much `times` may be too high."


class SpaceSaving:
    """The items met most often.

    >>> met = SpaceSaving(places=2)
    >>> for item in (b"a", b"b", b"a", b"c"):
    ...     met.count(item)
    >>> met.top(2)
    [Frequent(item=b'a', times=2, error=0), Frequent(item=b'c', times=2, error=1)]
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._counts: dict[bytes, int] = {}
        self._errors: dict[bytes, int] = {}
        "Of items that took over a counter; 0 of all others."
        self._rows: dict[int, dict[bytes, None]] = {}
        "Height -> the items with that count, those that came to it first in front."
        self._least = 0
        "The lowest height that has items; of no meaning while there are none."
        self.total: int = 0
        "How often anything was met, as far as it has not faded."

    def __len__(self) -> int:
        return len(self._counts)

    def count(self, item: bytes) -> None:
        """Note that `item` was met; O(1)."""
        self.total += 1
        counts, rows = self._counts, self._rows
        height = counts.get(item)
        if height is not None:
            other = item
        elif len(counts) < self._places:
            other, height = None, 0
            self._least = 1
        else:
            height = self._least
            other = next(iter(rows[height]))
            del counts[other]
            self._errors.pop(other, None)
            self._errors[item] = height
        if other is not None:
            row = rows[height]
            del row[other]
            if not row:
                del rows[height]
                if height == self._least:
                    self._least = height + 1
        height += 1
        counts[item] = height
        if height in rows:
            rows[height][item] = None
        else:
            rows[height] = {item: None}

    def top(self, most: int) -> list[Frequent]:
        """Return the `most` items met most often, the first first. O(places log places)."""
        errors = self._errors
        ranked = sorted(self._counts.items(), key=lambda pair: (-pair[1], pair[0]))
        return [Frequent(item, count, errors.get(item, 0)) for item, count in ranked[:most]]

    def fade(self) -> None:
        """Halve all counts, and forget what was met but once. O(places)."""
        self.total //= 2
        halved = {item: count // 2 for item, count in self._counts.items()}
        self._counts = {item: count for item, count in halved.items() if count}
        errors = {item: error // 2 for item, error in self._errors.items()}
        self._errors = {one: error for one, error in errors.items() if error and halved[one]}
        self._rows = {}
        for item, count in self._counts.items():
            self._rows.setdefault(count, {})[item] = None
        self._least = min(self._rows, default=0)

    def check(self) -> None:
        """Assert the invariants: each item stands in the row of its count, and no row is empty."""
        assert len(self._counts) <= self._places
        assert self._errors.keys() <= self._counts.keys()
        assert all(error <= self._counts[item] for item, error in self._errors.items())
        rows = {item: height for height, row in self._rows.items() for item in row}
        assert rows == self._counts
        assert all(self._rows.values())
        assert not self._rows or self._least == min(self._rows)
