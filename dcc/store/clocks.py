"""A slot's clock: which writes of the slot this node has seen, whatever became of them.

The clock maps an origin (one life of one node) to a stamp: every write of that origin in the slot
up to the stamp was seen. A write names the stamp of its origin's previous write in the slot. If the
clock covers that predecessor the clock advances to the write, otherwise the write is *noted*
beside the clock: the interval (predecessor, stamp] holds no write that was not seen. Intervals
that touch are joined, and the clock absorbs an interval as soon as it reaches its lower end.
So the clock never claims a write that this node has not seen, and in whichever order, and however
often, the same writes come, clock and notes end up equal.

Writes that came without a predecessor, or found no room among the notes, are *loose*: known to
be held, claimed by nothing. Only their largest stamp is kept, to know that there is something
that another node's clock may lack; an exchange that ends raises the clock over them.

The price is about 100 bytes for each (slot, origin).

Source: Gonçalves et al., "DottedDB: anti-entropy without Merkle trees, deletes without
tombstones", SRDS 2017: its node-wide logical clocks with gaps. Different here: a clock for each
slot, since nodes hold different slots, and hybrid stamps instead of counters, hence the
predecessor in each write: stamps have gaps of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from sys import getsizeof

from dcc.store.accounting import INT_BYTES, block
from dcc.types import Origin, Stamp, Version

Clock = Mapping[Origin, Stamp]
Interval = tuple[Stamp, Stamp]
"(low, high]: every write of an origin above low and up to high was seen."

NOTES_MAX = 64
"Intervals for each slot; a gap in a slot's replication is rare and filled within a minute."

UNBOUNDED = 1 << 62
"""Instead of NOTES_MAX for a node's own writes, which are known in full: they touch one another
and make one note, and its own predecessor must never be lost."""

NOTE_BYTES = 56 + 8 + 2 * INT_BYTES
ORIGIN_TUPLE_BYTES = 56 + 48 + INT_BYTES


def clock_covers(clock: Clock, version: Version) -> bool:
    """Return whether `clock` says that the write of `version` was seen."""
    return version[0] <= clock.get((version[1], version[2]), 0)


def clock_includes(clock: Clock, other: Clock) -> bool:
    """Return whether everything that `other` has seen was seen by `clock`. O(origins)."""
    seen = clock.get
    return all(stamp <= seen(origin, 0) for origin, stamp in other.items())


class SlotClock:
    """What was seen of one slot."""

    __slots__ = ("_counted_origins", "counted_bytes", "loose", "notes", "seen")

    def __init__(self) -> None:
        self.seen: dict[Origin, Stamp] = {}
        self.notes: dict[Origin, list[Interval]] = {}
        "Ascending, disjoint, not touching, all above the clock."
        self.loose: dict[Origin, Stamp] = {}
        "Largest stamp of what is held without being covered or noted."
        self.counted_bytes = 0
        "What `growth_bytes` has reported in sum."
        self._counted_origins = 0

    def covers(self, version: Version) -> bool:
        """Return whether the write of `version` was seen, by clock or note."""
        stamp = version[0]
        origin = (version[1], version[2])
        if stamp <= self.seen.get(origin, 0):
            return True
        if not self.notes:
            return False
        return any(low < stamp <= high for low, high in self.notes.get(origin, ()))

    def last(self, origin: Origin) -> Stamp:
        """Return the largest stamp of `origin` that was seen, by clock or note; 0 if none."""
        noted = self.notes.get(origin)
        return noted[-1][1] if noted else self.seen.get(origin, 0)

    def witness(self, origin: Origin, prev: Stamp, stamp: Stamp, notes_max: int) -> bool:
        """Take in that the write `stamp` behind `prev` was seen; return whether it now counts.

        False means that there were `notes_max` notes already: the write is loose.
        """
        seen = self.seen.get(origin, 0)
        if prev >= stamp:
            return stamp <= seen  # No write precedes itself: what its sender says is void.
        if prev > seen:
            return self._note(origin, prev, stamp, notes_max)
        if stamp > seen:
            self.seen[origin] = stamp
            if self.notes or self.loose:
                self._absorb(origin)
        return True

    def hold_loose(self, version: Version, origin: Origin) -> None:
        """Take in that the write of `version` is held, though nothing is known around it."""
        if not self.covers(version):
            self.loose[origin] = max(version[0], self.loose.get(origin, 0))

    def merge(self, other: Clock) -> None:
        """Become the maximum of both. O(origins of other)."""
        for origin, stamp in other.items():
            if stamp > self.seen.get(origin, 0):
                self.seen[origin] = stamp
                if self.notes or self.loose:
                    self._absorb(origin)

    def close_gaps(self, origin: Origin) -> None:
        """Advance over all notes of `origin`: the writes between them are lost for good."""
        if origin in self.notes:
            self.seen[origin] = self.last(origin)
            self._absorb(origin)

    def exceeds(self, other: Clock) -> bool:
        """Return whether anything seen or held here may be unknown to `other`. O(origins)."""
        if not clock_includes(other, self.seen):
            return True
        theirs = other.get
        noted = any(spans[-1][1] > theirs(origin, 0) for origin, spans in self.notes.items())
        return noted or not clock_includes(other, self.loose)

    def growth_bytes(self) -> int:
        """Return by how much the cost has changed since last asked. O(1) without notes."""
        origins = len(self.seen)
        if origins == self._counted_origins and not self.notes and not self.loose:
            return 0
        before, self.counted_bytes = self.counted_bytes, self.bytes_used()
        # After notes were counted, the next time must count again though they are gone.
        self._counted_origins = -1 if self.notes or self.loose else origins
        return self.counted_bytes - before

    def bytes_used(self) -> int:
        """Return what this clock costs. O(notes)."""
        size = block(getsizeof(self)) + getsizeof(self.notes) + getsizeof(self.loose)
        size += block(getsizeof(self.seen)) + INT_BYTES * (len(self.seen) + len(self.loose))
        return size + sum(getsizeof(n) + NOTE_BYTES * len(n) for n in self.notes.values())

    def _note(self, origin: Origin, low: Stamp, high: Stamp, notes_max: int) -> bool:
        apart: list[Interval] = []
        for span in self.notes.get(origin, ()):
            if span[0] <= high and low <= span[1]:
                low, high = min(low, span[0]), max(high, span[1])
            else:
                apart.append(span)
        others = sum(len(spans) for o, spans in self.notes.items() if o != origin)
        if others + len(apart) >= notes_max:
            return False
        self.notes[origin] = sorted([*apart, (low, high)])
        return True

    def _absorb(self, origin: Origin) -> None:
        """Restore that notes and loose writes lie above the clock, which has advanced."""
        seen = self.seen[origin]
        above = []
        for low, high in self.notes.get(origin, ()):
            if low <= seen:
                seen = max(seen, high)
            else:
                above.append((low, high))
        self.seen[origin] = seen
        if above:
            self.notes[origin] = above
        else:
            self.notes.pop(origin, None)
        if self.loose.get(origin, 0) <= seen:
            self.loose.pop(origin, None)

    def check(self) -> None:
        """Assert what is always true."""
        for origin, spans in self.notes.items():
            edges = [edge for span in spans for edge in span]
            assert spans, "an origin without notes has no list"
            assert edges == sorted(set(edges)), "notes ascend and do not touch"
            assert edges[0] > self.seen.get(origin, 0), "notes lie above the clock"
        counted = self.counted_bytes == self.bytes_used()
        assert counted or not self.seen, "growth is asked for after each change"
        assert all(s > self.seen.get(o, 0) for o, s in self.loose.items()), "loose is above"
