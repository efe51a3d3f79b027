"""What was seen of one slot beyond its clock: intervals behind a gap, and loose writes.

See `clocks.py` for what they mean. Most slots have none at most times: a gap is a batch that was
overtaken or lost, filled within the minute.
"""

from __future__ import annotations

from collections.abc import Mapping
from sys import getsizeof

from dcc.store.accounting import INT_BYTES, block
from dcc.types import Origin, Stamp

Interval = tuple[Stamp, Stamp]
"(low, high]: every write of an origin above low and up to high was seen."

NOTES_MAX = 64
"Intervals for each slot; beyond it writes are loose, and the next exchange settles them."

SPANS_MAX = 256
"""Intervals of one slot that another holder may tell, and that are noted then: more than of one's
own accord, since what is told with a slot that is to be released must find room."""

UNBOUNDED = 1 << 62
"""Instead of NOTES_MAX for a node's own writes, which are known in full: they touch one another
and make one note, and its own predecessor must never be lost."""

INTERVAL_BYTES = 56 + 8 + 2 * INT_BYTES
"A pair, its place in a list, two stamps."


class Notes:
    """Intervals and loose stamps by origin; never both covered by the clock and here."""

    __slots__ = ("_loose", "_spans", "counted_bytes")

    def __init__(self) -> None:
        self._spans: dict[Origin, list[Interval]] = {}
        "Ascending, disjoint, not touching, above the clock."
        self._loose: dict[Origin, Stamp] = {}
        "Largest stamp of what is held without being covered or noted."
        self.counted_bytes: int = 0
        "What whoever keeps these notes has counted for them."

    @property
    def empty(self) -> bool:
        """Whether there is nothing here."""
        return not self._spans and not self._loose

    @property
    def has_loose(self) -> bool:
        """Whether anything is held that is not noted either."""
        return bool(self._loose)

    def has(self, origin: Origin, stamp: Stamp) -> bool:
        """Return whether a write was seen by one of the intervals."""
        return any(low < stamp <= high for low, high in self._spans.get(origin, ()))

    def last(self, origin: Origin) -> Stamp:
        """Return the upper end of the last interval; 0 if there is none."""
        spans = self._spans.get(origin)
        return spans[-1][1] if spans else 0

    def loose(self) -> list[tuple[Origin, Stamp]]:
        """Return the largest stamp of each origin of which anything is loose."""
        return list(self._loose.items())

    def tops(self) -> list[tuple[Origin, Stamp]]:
        """Return the largest stamp of each origin, of what is loose and of what is noted."""
        noted = [(origin, spans[-1][1]) for origin, spans in self._spans.items()]
        return [*self._loose.items(), *noted]

    def add(self, origin: Origin, span: Interval, notes_max: int) -> bool:
        """Add an interval, joined with those it touches; return False if it found no room."""
        low, high = span
        apart: list[Interval] = []
        for other in self._spans.get(origin, ()):
            if other[0] <= high and low <= other[1]:
                low, high = min(low, other[0]), max(high, other[1])
            else:
                apart.append(other)
        elsewhere = sum(len(spans) for o, spans in self._spans.items() if o != origin)
        if elsewhere + len(apart) >= notes_max:
            return False
        self._spans[origin] = sorted([*apart, (low, high)])
        return True

    def hold_loose(self, origin: Origin, stamp: Stamp) -> None:
        """Keep that a write is held that nothing covers."""
        self._loose[origin] = max(stamp, self._loose.get(origin, 0))

    def absorb(self, origin: Origin, seen: Stamp) -> Stamp:
        """Drop what a clock covers that advances to `seen`; return how far it gets thereby."""
        above: list[Interval] = []
        for low, high in self._spans.pop(origin, ()):
            if low <= seen:
                seen = max(seen, high)
            else:
                above.append((low, high))
        if above:
            self._spans[origin] = above
        if self._loose.get(origin, 0) <= seen:
            self._loose.pop(origin, None)
        return seen

    def origins(self) -> list[Origin]:
        """Return the origins of which there is something."""
        return sorted({*self._spans, *self._loose})

    def spans(self) -> list[tuple[Origin, Stamp, Stamp]]:
        """Return all intervals as (origin, low, high), ascending."""
        found = [(origin, *one) for origin, spans in self._spans.items() for one in spans]
        return sorted(found)

    def words(self) -> list[int]:
        """Return the intervals as integers, equal for equal ones however they came about."""
        words: list[int] = []
        for origin, spans in sorted(self._spans.items()):
            words += (*origin, len(spans))
            words += (edge for span in spans for edge in span)
        return words

    def bytes_used(self) -> int:
        """Return what this costs. O(origins)."""
        size = block(getsizeof(self)) + getsizeof(self._spans) + getsizeof(self._loose)
        size += INT_BYTES * len(self._loose)
        return size + sum(56 + INTERVAL_BYTES * len(spans) for spans in self._spans.values())

    def check(self, seen: Mapping[Origin, Stamp]) -> None:
        """Assert what is always true beside the clock `seen`."""
        assert not self.empty, "empty notes are dropped"
        for origin, spans in self._spans.items():
            edges = [edge for span in spans for edge in span]
            assert spans, "an origin without notes has no list"
            assert edges == sorted(set(edges)), "notes ascend and do not touch"
            assert edges[0] > seen.get(origin, 0), "notes lie above the clock"
        for origin, stamp in self._loose.items():
            assert stamp > seen.get(origin, 0), "the loose lie above the clock"
