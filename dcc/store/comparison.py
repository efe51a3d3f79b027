"""Comparison: what two holders of a slot have to tell each other.

What is compared is what was *seen*, by clocks and spans, and not what is held: so a value that was
evicted or has expired is not missed, and equal digests mean silence. Two things are besides that:

- *loose* records, which no clock covers, count one by one;
- what is *owed* (`doubt`): values that a clock covers though its holder never received them.

All questions are about one slot, change nothing, and take a clock that another holder sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xxhash import xxh3_64_intdigest

from dcc.store.clocks import (
    BASE,
    NO_BIRTHS,
    Births,
    Clock,
    Clocks,
    clock_covers,
    clock_exceeds,
    clock_seen,
    digest_of,
)
from dcc.store.doubt import NOTHING_OWED, Listing, Owed, Span, content, is_below
from dcc.store.entry import BARREN, HEARD
from dcc.store.graves import Graves
from dcc.store.memory import Memory
from dcc.types import NO_VERSION, PREV_UNKNOWN, Kind, Record, Stamp, Version


@dataclass(frozen=True, slots=True)
class Difference:
    """What a holder with a certain clock has to be told of a slot, besides what follows at its end.

    `Comparison.ending` is that: it is asked for only when all of `records` have found room.
    """

    records: list[Record]
    "Those that it lacks, ascending by version."
    clock: Clock
    "The clock here, as it was then."
    spans: list[Span]
    "What was seen here beyond gaps."
    mark: Stamp
    "The forget mark here; 0 = none."


@dataclass(frozen=True, slots=True)
class Ending:
    """What a holder that has got all records of a slot needs besides."""

    listed: tuple[int, ...]
    "The hashes of all keys held here if it is below the mark, so that it drops others; else empty."
    graves: list[tuple[int, Version]]
    "What was forgotten here and it has not seen, oldest first."


class Comparison:
    """Compares the slots of one node's store with what other holders say of them."""

    def __init__(self, memory: Memory, clocks: Clocks, graves: Graves) -> None:
        self._memory, self._clocks, self._graves = memory, clocks, graves
        self.births: Births = NO_BIRTHS
        """Of members: above which stamp they began to write. Who is *told* something is judged
        without it, since he may not know as much."""

    # -------------------------------------------------------------- is there anything to tell

    def base(self, slot: int) -> Stamp:
        """Return the base of the slot's clock; 0 = none."""
        return self._clocks.seen(slot, BASE)

    def based(self) -> list[int]:
        """Return the slots whose clocks have a base, ascending. O(slots) if any has, else O(1)."""
        return self._clocks.based()

    def digest(self, slot: int) -> int:
        """Return 64 bits: equal at two nodes that have nothing to tell each other of the slot.

        0 = nothing was ever seen. O(origins) after a change, else O(1); O(entries of the slot)
        while some of them are loose.
        """
        # Their largest stamp would not do: another node may hold that one alone.
        loose, seen = self._loose(slot), self._clocks.digest(slot)
        return digest_of([seen, *(word for one in loose for word in one)]) if loose else seen

    def has_everything(
        self, slot: int, clock: Clock, spans: Sequence[Span], owed: Owed = NOTHING_OWED
    ) -> bool:
        """Return whether a holder has all that is here: it has seen it, and is `owed` nothing.

        O(origins + spans here * spans there); O(entries of the slot) while some are loose.
        """
        return self.is_within(slot, clock, spans) and not self.owes(slot, owed)

    def is_within(self, slot: int, clock: Clock, spans: Sequence[Span]) -> bool:
        """Return whether `clock` and `spans` beside it have seen all that was seen here.

        O(origins + spans here * spans there); O(entries of the slot) while some are loose.
        """
        if clock_exceeds(self._clocks.clock(slot), clock):
            return False
        single = [((v.node, v.boot), v.stamp - 1, v.stamp) for v in self._loose(slot)]
        return all(
            high <= clock_seen(clock, origin)
            or any(origin == o and lo <= low and high <= hi for o, lo, hi in spans)
            for origin, low, high in [*self._clocks.spans(slot), *single]
        )

    # -------------------------------------------------------------- what is to be told

    def difference(
        self, slot: int, clock: Clock, after: Version = NO_VERSION, owed: Owed = NOTHING_OWED
    ) -> Difference:
        """Return what a holder with `clock`, who has all up to `after` and is `owed`, lacks.

        O(origins), or O(entries of the slot) if it lacks anything.
        """
        if not self.owes(slot, owed):
            owed = NOTHING_OWED
        lacks = owed.high or self.is_ahead(slot, clock)
        records = self.lacking(slot, clock, after, owed) if lacks else []
        clocks, mark = self._clocks, self._memory.marks[slot]
        return Difference(records, clocks.clock(slot), clocks.spans(slot), mark)

    def ending(self, slot: int, clock: Clock, told: Difference) -> Ending:
        """Return what a holder with `clock` needs that was `told` all records. O(entries)."""
        below = is_below(clock, told.clock, told.mark, told.spans)
        listed = self.hashes(slot) if below else ()
        return Ending(listed, self._graves.lacking(slot, clock))

    def is_ahead(self, slot: int, clock: Clock) -> bool:
        """Return whether `lacking` may have something for `clock`, or this clock to add to it."""
        return self._clocks.exceeds(slot, clock)

    def lacking(
        self, slot: int, clock: Clock, after: Version = NO_VERSION, owed: Owed = NOTHING_OWED
    ) -> list[Record]:
        """Return the records above `after` that `clock` does not cover, ascending by version.

        And the values that it covers, but are `owed`. O(entries of the slot).
        """
        memory = self._memory
        floor = max(after, Version(memory.cleared + 1, 0, 0))
        low, high, _ = owed
        entries = [
            entry
            for entry in memory.tables[slot].values()
            if entry.version > floor
            and (
                (low < entry.version[0] <= high and entry.kind is Kind.VALUE)
                or not clock_covers(clock, entry.version)
            )
        ]
        entries.sort(key=lambda entry: entry.version)
        seen = self._clocks.clock(slot)
        return [
            entry.record(PREV_UNKNOWN if clock_covers(seen, entry.version) else entry.prev)
            for entry in entries
        ]

    def hashes(self, slot: int) -> tuple[int, ...]:
        """Return the xxh3_64 of every key of which a record is held, barren ghosts left out."""
        memory = self._memory
        held = [e for e in memory.tables[slot].values() if e.version[0] > memory.cleared]
        useful = [e for e in held if e.kind is not Kind.EVICTED or not e.asked & BARREN]
        return tuple([xxh3_64_intdigest(e.key) for e in useful])

    def points(self, slot: int) -> list[Span]:
        """Return what is held that neither clock nor spans cover: a span for each single write.

        Those up to the forget mark are left out: as a span they would call it in doubt what else
        of their origins was forgotten. O(1), or O(entries of the slot) while some are loose.
        """
        mark = self._memory.marks[slot]
        loose = [version for version in self._loose(slot) if version.stamp > mark]
        return [((v.node, v.boot), v.stamp - 1, v.stamp) for v in loose]

    # -------------------------------------------------------------- what is owed

    def owed(self, slot: int) -> Owed:
        """Return which records other holders owe: values that the clock covers without them.

        O(entries of the slot) where a mark was taken over, else O(1).
        """
        low, high = self._memory.evicted_marks[slot], self._memory.marks[slot]
        for version in self._heard(slot):
            low, high = min(low, version[0] - 1), max(high, version[0])
        if high <= low:
            return NOTHING_OWED
        return Owed(low, high, content(self._memory.tables[slot].values(), low, high))

    def owes(self, slot: int, owed: Owed) -> bool:
        """Return whether something is held here that somebody is `owed`.

        O(entries of the slot) if anything is owed at all.
        """
        low, high, held = owed
        return high > low and content(self._memory.tables[slot].values(), low, high) != held

    def misses(self, slot: int, clock: Clock) -> bool:
        """Return whether values that `clock` covers, not yet the one here, were only heard of.

        O(entries of the slot) where any are without a value.
        """
        heard = self._heard(slot)
        return any(clock_covers(clock, one) and not self._clocks.covers(slot, one) for one in heard)

    # -------------------------------------------------------------- what may be forgotten

    def is_below(self, slot: int, holder: Listing) -> bool:
        """Return whether writes may be missing here that a holder has seen and forgotten."""
        clock = self._clocks.clock(slot)
        return is_below(clock, holder.clock, holder.mark, holder.spans, self.births)

    def trusts(self, slot: int, sender: Clock | None) -> bool:
        """Return whether a holder with that clock has seen all that may be forgotten here.

        So it holds nothing that a forgotten record hides. O(origins).
        """
        if sender is None:
            return False
        clocks, memory = self._clocks, self._memory
        mark = max(memory.marks[slot], memory.agreed_marks[slot])
        loose = [(origin, 0, stamp) for origin, stamp in clocks.loose(slot)]
        spans = [*clocks.spans(slot), *loose]
        return not is_below(sender, clocks.clock(slot), mark, spans, self.births)

    def knows_gone(self, slot: int, version: Version, clock: Clock) -> bool:
        """Return whether a value that a holder has, and this node has not, was deleted.

        Or replaced by what has expired: whatever it was, its record is forgotten here under the
        mark, and the holder, with that `clock`, has not seen it. If it had, the value was merely
        evicted here. O(origins).
        """
        clocks, mark = self._clocks, self._memory.marks[slot]
        if version.stamp > mark or not clocks.covers(slot, version):
            return False
        return is_below(clock, clocks.clock(slot), mark, clocks.spans(slot), self.births)

    # -------------------------------------------------------------- inside

    def _loose(self, slot: int) -> list[Version]:
        """Return the versions held whose writes the clock does not cover, ascending."""
        clocks, cleared = self._clocks, self._memory.cleared
        if not clocks.has_loose(slot):
            return []
        held = [entry.version for entry in self._memory.tables[slot].values()]
        return sorted(v for v in held if v[0] > cleared and not clocks.covers(slot, v))

    def _heard(self, slot: int) -> list[Version]:
        """Return the versions of ghosts whose values were never here."""
        if not self._memory.valueless_in[slot]:
            return []
        held = self._memory.tables[slot].values()
        return [e.version for e in held if e.kind is Kind.EVICTED and e.asked & HEARD]
