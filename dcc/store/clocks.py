"""Slot clocks: which writes of each slot this node has seen, whatever became of them.

A slot's clock maps an origin (one life of one node) to a stamp: every write of that origin in the
slot up to the stamp was seen. A write names the stamp of its origin's previous write in the slot.
If the clock covers that predecessor the clock advances to the write, otherwise the write is *noted*
beside the clock: the interval (predecessor, stamp] holds no write that was not seen. Intervals
that touch are joined, and the clock absorbs an interval as soon as it reaches its lower end.
So the clock never claims a write that this node has not seen, and in whichever order, and however
often, the same writes come, clock and notes end up equal.

Writes that came without a predecessor, or found no room among the notes, are *loose*: known to
be held, claimed by nothing. Only their largest stamp is kept, to know that there is something
that another node's clock may lack; an exchange that ends raises the clock over them.

**Base.** Each restart makes a new origin, and the entries of those gone would add up for ever. So
they are folded into one, the slot's base: of every origin that has no entry of its own, each write
stamped up to the base was seen, or is to be ignored. It is kept as the entry of the origin `BASE`,
whom no node can be. A clock is thus a function from all origins to stamps, the base nearly
everywhere: it is compared and merged point by point, so clocks that were folded and clocks that
were not, or not as far, order and merge as any others do. An entry that equals the base is left
out; so equal functions are equal dictionaries, and have equal digests. (An entry may lie below the
base: that of an origin which still lived when others were folded.)

**Layout.** A matrix: a row for each slot, a column of 64-bit stamps for each origin, 0 = nothing
seen. A dictionary for each slot would take 330 bytes and more, 5 MB for a node of few keys that
owns every slot. The matrix is sparse in a large cluster, where most origins never write to most
slots, but then a node holds fewer slots: with c copies rows times columns is about 16,384 c,
whatever the number of nodes; 0.4 MB with three copies.

Source: Gonçalves et al., "DottedDB: anti-entropy without Merkle trees, deletes without
tombstones", SRDS 2017: its node-wide logical clocks with gaps. Different here: a clock for each
slot, since nodes hold different slots, and hybrid stamps instead of counters, hence the
predecessor in each write: stamps have gaps of their own.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from struct import pack

from xxhash import xxh3_64_intdigest

from dcc.limits import SLOT_COUNT
from dcc.store.notes import Notes
from dcc.types import Origin, Stamp, Version

Clock = Mapping[Origin, Stamp]

Births = Mapping[Origin, Stamp]
"Origins of which it is known that all their stamps, in any slot, are larger than this one."

NO_BIRTHS: Births = {}

STAMP_BYTES = 8
COLUMN_BYTES = 400
"An origin's tuple and integers, its array's head, its place in two dictionaries."

NO_ROW = 0xFFFF
ROWS_STEP = 64
"Columns grow by so many rows: 1,024 times at most, not 16,384 times."

_NEW_ROWS = bytes(ROWS_STEP * STAMP_BYTES)


BASE: Origin = (0, 0)
"Stands in a clock for every origin that has no entry there. No boot is 0, so it is nobody's."


def clock_seen(clock: Clock, origin: Origin) -> Stamp:
    """Return the stamp up to which `clock` has seen the writes of `origin`.

    >>> clock_seen({BASE: 5, (7, 1): 3}, (7, 1)), clock_seen({BASE: 5, (7, 1): 3}, (7, 2))
    (3, 5)
    """
    return clock.get(origin) or clock.get(BASE, 0)


def clock_covers(clock: Clock, version: Version) -> bool:
    """Return whether `clock` says that the write of `version` was seen."""
    return version[0] <= clock_seen(clock, (version[1], version[2]))


def clock_includes(clock: Clock, other: Clock) -> bool:
    """Return whether everything that `other` has seen was seen by `clock`. O(origins)."""
    return not clock_exceeds(other, clock)


def clock_exceeds(clock: Clock, other: Clock) -> bool:
    """Return whether `clock` has seen anything that `other` has not. O(origins).

    >>> clock_exceeds({BASE: 5}, {(7, 1): 9}), clock_exceeds({BASE: 5}, {BASE: 5, (7, 1): 4})
    (True, True)
    """
    return any(
        clock_seen(clock, origin) > clock_seen(other, origin) for origin in (BASE, *clock, *other)
    )


def clock_below(clock: Clock, other: Clock, mark: Stamp, births: Births = NO_BIRTHS) -> bool:
    """Return whether `clock` may lack a write up to `mark` that `other` has seen. O(origins).

    Of an origin in `births` that wrote nothing up to the mark it lacks nothing there.

    Of origins that `other` has folded nothing can be told by name; but its base is the stamp of
    the last write of one of them, and where `clock` has just that entry it is the clock of a
    holder that merely has not folded yet: an origin is folded long after every holder has seen
    all of it. Otherwise each fold would look like a loss to everybody else.

    >>> clock_below({}, {BASE: 5}, 9), clock_below({(7, 1): 5, (7, 2): 3}, {BASE: 5}, 9)
    (True, False)
    >>> clock_below({(7, 1): 5}, {(7, 1): 7}, 5), clock_below({(7, 1): 5}, {(7, 1): 7}, 6)
    (False, True)
    >>> clock_below({}, {(7, 1): 9}, 5, {(7, 1): 5}), clock_below({}, {(7, 1): 9}, 5, {(7, 1): 4})
    (False, True)
    """
    late = any(
        min(stamp, mark) > clock_seen(clock, origin) and births.get(origin, 0) < mark
        for origin, stamp in other.items()
        if origin != BASE
    )
    if late:
        return True
    base = other.get(BASE, 0)
    if min(base, mark) <= clock.get(BASE, 0):
        return False
    return all(stamp != base or origin in other for origin, stamp in clock.items())


def digest_of(words: Sequence[int]) -> int:
    """Return 64 bits of unsigned 64-bit integers, never 0; part of the protocol."""
    return xxh3_64_intdigest(pack(f"<{len(words)}Q", *words)) or 1


class Clocks:
    """The clocks of all slots, with their notes."""

    def __init__(self) -> None:
        self.bytes_used: int = 0
        "All that grows: columns and notes."
        self.changed: set[int] = set()
        "Slots whose clock or notes changed; whoever reads takes them out."
        self._row_of = array("H", [NO_ROW]) * SLOT_COUNT
        self._free_rows: list[int] = []
        self._rows = 0
        self._columns: dict[Origin, array[int]] = {}
        "0 = no entry: the base, if there is one."
        self._base: array[int] | None = None
        "The column of BASE."
        self._digests = array("Q", bytes(STAMP_BYTES * SLOT_COUNT))
        "By slot; 0 = to be made anew."
        self._notes: dict[int, Notes] = {}
        "By slot; only where there are any."

    # -------------------------------------------------------------- asking

    def __contains__(self, slot: int) -> bool:
        return self._row_of[slot] != NO_ROW

    def slots(self) -> list[int]:
        """Return the slots that have a clock, ascending. O(slots)."""
        return [slot for slot, row in enumerate(self._row_of) if row != NO_ROW]

    def clock(self, slot: int) -> dict[Origin, Stamp]:
        """Return a copy of the slot's clock. O(origins)."""
        row = self._row_of[slot]
        if row == NO_ROW:
            return {}
        return {origin: stamp for origin, column in self._columns.items() if (stamp := column[row])}

    def covers(self, slot: int, version: Version) -> bool:
        """Return whether the write of `version` was seen, by clock or note."""
        stamp, origin = version[0], (version[1], version[2])
        if stamp <= self.seen(slot, origin):
            return True
        notes = self._notes.get(slot)
        return notes is not None and notes.has(origin, stamp)

    def based(self) -> list[int]:
        """Return the slots with a base, ascending. O(slots), or O(1) if there is none."""
        base = self._base
        if base is None:
            return []
        return [s for s, row in enumerate(self._row_of) if row != NO_ROW and base[row]]

    def seen(self, slot: int, origin: Origin) -> Stamp:
        """Return the stamp up to which writes of `origin` were seen: its entry or the base."""
        row = self._row_of[slot]
        if row == NO_ROW:
            return 0
        column, base = self._columns.get(origin), self._base
        stamp = 0 if column is None else column[row]
        return stamp if stamp or base is None else base[row]

    def last(self, slot: int, origin: Origin) -> Stamp:
        """Return the largest stamp of `origin` that was seen, by clock or note; 0 if none.

        The base does not count: it is no write of `origin`.
        """
        notes, row = self._notes.get(slot), self._row_of[slot]
        noted = 0 if notes is None else notes.last(origin)
        column = self._columns.get(origin)
        return noted or (0 if column is None or row == NO_ROW else column[row])

    def origins(self) -> tuple[Origin, ...]:
        """Return the origins of which any slot may have an entry, BASE excepted, ascending."""
        return tuple(sorted(origin for origin in self._columns if origin != BASE))

    def spans(self, slot: int) -> list[tuple[Origin, Stamp, Stamp]]:
        """Return the slot's notes as (origin, low, high), ascending."""
        notes = self._notes.get(slot)
        return [] if notes is None else notes.spans()

    def noted_origins(self, slot: int) -> tuple[Origin, ...]:
        """Return the origins that have notes, ascending."""
        notes = self._notes.get(slot)
        return () if notes is None else tuple(sorted(notes.origins()))

    def has_notes(self, slot: int) -> bool:
        """Return whether anything is noted or loose."""
        return slot in self._notes

    def has_loose(self, slot: int) -> bool:
        """Return whether anything is held that neither clock nor notes cover."""
        notes = self._notes.get(slot)
        return notes is not None and notes.has_loose

    def loose(self, slot: int) -> list[tuple[Origin, Stamp]]:
        """Return the largest stamp of what neither clock nor notes cover, by origin."""
        notes = self._notes.get(slot)
        return [] if notes is None else notes.loose()

    def removed(self, slot: int) -> None:
        """Take in that a record of the slot is held no more: it may have been loose. O(1)."""
        if self.has_loose(slot):
            self.changed.add(slot)

    def slots_with_loose(self) -> list[int]:
        """Return the slots where something is held that is not covered. O(slots with notes)."""
        return [slot for slot, notes in self._notes.items() if notes.has_loose]

    def exceeds(self, slot: int, other: Clock) -> bool:
        """Return whether anything seen or held here may be unknown to `other`. O(origins)."""
        if self._row_of[slot] == NO_ROW:
            return False
        if clock_exceeds(self.clock(slot), other):
            return True
        notes = self._notes.get(slot)
        return notes is not None and any(
            stamp > clock_seen(other, origin) for origin, stamp in notes.tops()
        )

    def digest(self, slot: int) -> int:
        """Return 64 bits that are equal where clock and intervals are; 0 = nothing was seen.

        The intervals belong to it: a write that only one node noted is one that the other lacks.
        O(origins) after a change, else O(1).
        """
        if self._row_of[slot] == NO_ROW:
            return 0
        return self._digests[slot] or self._make_digest(slot)

    # -------------------------------------------------------------- seeing

    def witness(self, slot: int, origin: Origin, prev: Stamp, stamp: Stamp, notes_max: int) -> bool:
        """Take in that the write `stamp` behind `prev` was seen; return whether it counts now.

        False means that the slot had `notes_max` notes already: the write is loose.
        """
        seen = self.seen(slot, origin)
        if prev <= seen:
            if stamp > seen:
                self._advance(slot, origin, stamp)
            return True
        # No write precedes itself: what the sender says of this one is void.
        return prev < stamp and self._note(slot, origin, (prev, stamp), notes_max)

    def hold_loose(self, slot: int, origin: Origin, stamp: Stamp) -> None:
        """Take in that a write is held though nothing is known of those before it."""
        notes = self._notes.get(slot)
        if stamp > self.seen(slot, origin) and not (notes and notes.has(origin, stamp)):
            self._notes_of(slot).hold_loose(origin, stamp)
            self._settle_notes(slot)

    def merge(self, slot: int, other: Clock) -> None:
        """Become the maximum of both. O(origins of other), O(all origins) if the base rises."""
        for origin, stamp in other.items():
            if stamp > self.seen(slot, origin) and origin != BASE:
                self._advance(slot, origin, stamp)
        base = other.get(BASE, 0)
        if not base:
            return
        for origin, stamp in self.clock(slot).items():
            if stamp < base and origin not in other:
                self._advance(slot, origin, base)
        if base > self.seen(slot, BASE):
            theirs = {o: self.seen(slot, o) for o in other if o != BASE}
            self._raise_base(slot, base, theirs)

    def fold(self, slot: int, gone: Callable[[Origin], bool], older_than: Stamp) -> int:
        """Move the entries of origins that are `gone` into the base; return how many.

        Younger entries than `older_than` stay, and so does a slot with notes as it is: of an
        origin that is missed there may be more to come. O(origins).
        """
        row = self._row_of[slot]
        if row == NO_ROW or slot in self._notes:
            return 0
        folded = {
            origin: column[row]
            for origin, column in self._columns.items()
            if 0 < column[row] < older_than and origin != BASE and gone(origin)
        }
        if not folded:
            return 0
        base = max(self.seen(slot, BASE), *folded.values())
        kept = {o: s for o, s in self.clock(slot).items() if o not in folded and o != BASE}
        for origin in folded:
            self._columns[origin][row] = 0
        self._raise_base(slot, base, kept)
        return len(folded)

    def prune(self) -> int:
        """Release the columns in which no slot has an entry; return how many. O(columns * rows)."""
        empty = [origin for origin, column in self._columns.items() if not any(column)]
        for origin in empty:
            del self._columns[origin]
            self.bytes_used -= COLUMN_BYTES + self._rows * STAMP_BYTES
        self._base = self._columns.get(BASE)
        return len(empty)

    def close_gaps(self, slot: int, origin: Origin) -> None:
        """Advance over all notes of `origin`: the writes between them are lost for good."""
        last = self.last(slot, origin)
        if last > self.seen(slot, origin):
            self._advance(slot, origin, last)

    def drop(self, slot: int) -> None:
        """Forget a slot's clock and notes. O(origins)."""
        row = self._row_of[slot]
        if row == NO_ROW:
            return
        self._touch(slot)
        for column in self._columns.values():
            column[row] = 0
        self._row_of[slot] = NO_ROW
        self._free_rows.append(row)
        notes = self._notes.pop(slot, None)
        self.bytes_used -= 0 if notes is None else notes.counted_bytes
        if len(self._free_rows) == self._rows:
            # No slot is left: nor need be the columns of whoever wrote to any.
            self.bytes_used = self._rows = 0
            self._base = None
            self._columns.clear()
            self._free_rows.clear()

    # -------------------------------------------------------------- inside

    def _make_digest(self, slot: int) -> int:
        words = self._words(slot)
        if words == [0]:
            return 0  # What was loose here is gone, and was never seen by the clock.
        digest = self._digests[slot] = digest_of(words)
        return digest

    def _words(self, slot: int) -> list[int]:
        clock, notes = self.clock(slot), self._notes.get(slot)
        words = [len(clock)]
        for origin in sorted(clock):
            words += (*origin, clock[origin])
        words += () if notes is None else notes.words()
        return words

    def _touch(self, slot: int) -> None:
        self._digests[slot] = 0
        self.changed.add(slot)

    def _advance(self, slot: int, origin: Origin, stamp: Stamp) -> None:
        assert origin != BASE, "the base is no writer"
        self._digests[slot] = 0
        self.changed.add(slot)
        row = self._row_of[slot]
        if row == NO_ROW:
            row = self._new_row(slot)
        column = self._columns.get(origin)
        if column is None:
            column = self._new_column(origin)
        notes = self._notes.get(slot)
        if notes is not None:
            stamp = notes.absorb(origin, stamp)
            self._settle_notes(slot)
        base = self._base
        column[row] = stamp if base is None or base[row] != stamp else 0

    def _raise_base(self, slot: int, base: Stamp, apart: Clock) -> None:
        """Make `base` the base of all origins but those in `apart`, which are at those stamps.

        An entry above `base` stays; one below, unless in `apart`, is covered by it from now on.
        """
        self._touch(slot)
        row = self._row_of[slot]
        if row == NO_ROW:
            row = self._new_row(slot)
        if self._base is None:
            self._base = self._new_column(BASE)
        for origin, column in self._columns.items():
            if column[row] <= base and origin not in apart:
                column[row] = 0
        self._base[row] = base
        for origin, stamp in apart.items():
            self._put(row, origin, stamp)
        notes = self._notes.get(slot)
        if notes is not None:
            for origin in notes.origins():
                if origin not in apart:
                    self._put(row, origin, notes.absorb(origin, self.seen(slot, origin)))
            self._settle_notes(slot)

    def _put(self, row: int, origin: Origin, stamp: Stamp) -> None:
        """Make `stamp` what a row has seen of `origin`, once it has a base."""
        assert self._base is not None
        column = self._columns.get(origin)
        if stamp != self._base[row]:
            (self._new_column(origin) if column is None else column)[row] = stamp
        elif column is not None:
            column[row] = 0

    def _note(self, slot: int, origin: Origin, span: tuple[Stamp, Stamp], notes_max: int) -> bool:
        counts = self._notes_of(slot).add(origin, span, notes_max)
        self._settle_notes(slot)
        return counts

    def _notes_of(self, slot: int) -> Notes:
        notes = self._notes.get(slot)
        if notes is None:
            notes = self._notes[slot] = Notes()
            if self._row_of[slot] == NO_ROW:
                self._new_row(slot)
        return notes

    def _settle_notes(self, slot: int) -> None:
        """Count notes that changed, and drop them when there are none left."""
        self._touch(slot)
        notes = self._notes[slot]
        before = notes.counted_bytes
        if notes.empty:
            del self._notes[slot]
            self.bytes_used -= before
        else:
            notes.counted_bytes = notes.bytes_used()
            self.bytes_used += notes.counted_bytes - before

    def _new_row(self, slot: int) -> int:
        if not self._free_rows:
            for column in self._columns.values():
                column.frombytes(_NEW_ROWS)
            self._free_rows = list(range(self._rows + ROWS_STEP - 1, self._rows - 1, -1))
            self._rows += ROWS_STEP
            self.bytes_used += len(self._columns) * len(_NEW_ROWS)
        row = self._row_of[slot] = self._free_rows.pop()
        return row

    def _new_column(self, origin: Origin) -> array[int]:
        column = self._columns[origin] = array("Q", bytes(self._rows * STAMP_BYTES))
        self.bytes_used += COLUMN_BYTES + self._rows * STAMP_BYTES
        return column

    def check(self) -> None:
        """Assert what is always true."""
        rows = [row for row in self._row_of if row != NO_ROW]
        assert sorted([*rows, *self._free_rows]) == list(range(self._rows)), "each row once"
        size = len(self._columns) * (COLUMN_BYTES + self._rows * STAMP_BYTES)
        for origin, column in self._columns.items():
            assert len(column) == self._rows, f"column of {origin} as long as all"
            assert not any(column[row] for row in self._free_rows), "free rows are empty"
        assert self._base is self._columns.get(BASE), "the base has a column like any other"
        for slot in self.slots():
            digest = self._digests[slot]
            assert digest in (0, digest_of(self._words(slot))), "made anew after each change"
            clock = self.clock(slot)
            base = clock.pop(BASE, None)
            assert base not in clock.values(), "what equals the base has no entry"
        for slot, notes in self._notes.items():
            notes.check({origin: self.seen(slot, origin) for origin in notes.origins()})
            size += notes.bytes_used()
        assert self.bytes_used == size, "bytes_used is the sum"
