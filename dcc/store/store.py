"""What one node holds: entries in memory, and for each slot the clock of what was seen.

`merge` is the larger version, on every path. What differs between the paths is what they say of
the slot's clock:

- `write`, the coordinator's own, advances it;
- `apply`, for replication, exchange and hand-over, is refused by it, else advances it or leaves a
  note: a write that was seen is never applied again, so that repair cannot bring back what was
  evicted, deleted, expired or forgotten; what is *owed* is the one exception;
- `install`, for reads, neither asks nor advances it: what a reader found at another holder is
  worth having even if it was evicted here.

**Absence.** A get finds an entry only if it has a value, has not expired, and is stamped above
`cleared`. Expired is absent from the same instant everywhere; the record stays to hide older
versions until every holder has seen it (`coverage.py`) or room is needed (`memory.py`).

**Forget mark.** Once records were forgotten for want of room, a write stamped up to the slot's mark
may be older than one that was forgotten: if unknown, it is kept as a ghost, never as a value. So
is the next version of a key that became known that way, up to the mark: it shows nothing either.
Only a *sender* whose own clock has seen all that may be forgotten is trusted.

**What one node evicts is its own loss.** A clock taken over from somebody who has forgotten brings
his mark along: this node now claims to have seen what nobody could send it. Up to that mark other
holders *owe* it values, and give them though the clock covers them; but not up to the stamps of
what was evicted here.

**Parts.** `comparison` says what this node and another holder have to tell each other of a slot,
`forgetting` lets go of what all holders have seen, `room` says what of the limit is left. They and
the store share `memory` (entries and marks) and `clocks`.

Sans I/O, one thread. All times are cluster milliseconds; slots are the caller's business (they
follow from the key) and never checked here.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import IntEnum

from xxhash import xxh3_64_intdigest

from dcc.limits import SLOT_COUNT, VALUE_BYTES_MAX
from dcc.store.clocks import BASE, Clock, Clocks, clock_covers
from dcc.store.comparison import Comparison
from dcc.store.coverage import Coverages
from dcc.store.doubt import Listing
from dcc.store.entry import BARREN, DOUBTED, HEARD, Entry
from dcc.store.forgetting import Forgetting
from dcc.store.graves import BUDGET_SHARE, Graves
from dcc.store.interning import Origins
from dcc.store.memory import Memory, Table
from dcc.store.notes import NOTES_MAX, SPANS_MAX, UNBOUNDED
from dcc.store.room import Room
from dcc.types import PREV_UNKNOWN, Kind, Origin, Record, Stamp, Version


class Applied(IntEnum):
    """What became of a record."""

    NEWER = 0
    "Now the newest version held."
    OLDER = 1
    "An equal or newer version is held, or all was cleared since. The clock knows it now."
    COVERED = 2
    "Seen before; nothing was changed."
    VALUE = 3
    "An equal version was held as a ghost, which has its value now."
    GHOST = 4
    "Newer, but its value was not kept: no room, or stamped up to the forget mark."


class Store:
    """One node's records and clocks, within `memory_limit_bytes`."""

    def __init__(
        self, *, memory_limit_bytes: int, eviction: str = "lru",
        value_bytes_max: int = VALUE_BYTES_MAX,
    ) -> None:  # fmt: skip
        self._clocks = Clocks()
        self.changed: set[int] = self._clocks.changed
        "Slots whose `digest` may have changed; whoever keeps a tree of digests takes them out."
        self._memory = Memory(memory_limit_bytes, eviction)
        self._memory.on_removed = self._clocks.removed
        self.tables: list[Table] = self._memory.tables
        "By slot: key -> entry, whatever its kind. To read only; a slot's table may be replaced."
        self.evicted_marks: array[int] = self._memory.evicted_marks
        "Stamps by slot, to be read: up to there it may be forgotten what was evicted; 0 = nothing."
        self._hit = self._memory.policy.hit
        self.graves: Graves = Graves(memory_limit_bytes // BUDGET_SHARE)
        "To read only: `forgetting` adds."
        self._origins = Origins()
        coverages = Coverages()
        self.room: Room = Room(
            self._memory, self._clocks, coverages, self.graves, value_bytes_max=value_bytes_max
        )
        "What of the limit is left for values."
        self.comparison: Comparison = Comparison(self._memory, self._clocks, self.graves)
        "What this node and another holder have to tell each other of a slot."
        self.forgetting: Forgetting = Forgetting(
            self._memory, self._clocks, coverages, self.graves, self._origins, self.room
        )
        "Lets go of what all holders have seen."
        self._me: Origin | None = None
        "The origin of this node's own writes, once there was one."
        self._left_behind: dict[int, Stamp] = {}
        "Stamps of the last own write in slots whose clocks do not name it any more."
        self._reclaiming = False
        "Whether values may be held that `cleared` made absent."
        self._reclaim_from = 0
        "While reclaiming: slots below were searched."

    # -------------------------------------------------------------- reading

    def get(self, slot: int, key: bytes, now_ms: int) -> Entry | None:
        """Return the entry if it has a value that is to be seen now, and count a hit on it."""
        entry = self.tables[slot].get(key)
        if entry is None or entry.kind:
            return None
        if entry.expires_at_ms and entry.expires_at_ms <= now_ms:
            self._memory.expire(entry)
            self._memory.make_room()
            return None
        if self._reclaiming and entry.version[0] <= self._memory.cleared:
            return None
        self._hit(entry)
        return entry

    def get_many(
        self, slots: Sequence[int], keys: Sequence[bytes], now_ms: int
    ) -> list[Entry | None]:
        """Return what `get` returns for each key; the common case written out, for speed."""
        tables, hit, get, plain = self.tables, self._hit, self.get, not self._reclaiming
        found: list[Entry | None] = []
        for slot, key in zip(slots, keys, strict=True):
            entry = tables[slot].get(key)
            if entry is not None:
                if plain and not entry.kind and not entry.expires_at_ms:
                    hit(entry)
                else:
                    entry = get(slot, key, now_ms)
            found.append(entry)
        return found

    def peek(self, slot: int, key: bytes) -> Entry | None:
        """Return what is held of `key`, of any kind, even expired; nothing is touched."""
        entry = self.tables[slot].get(key)
        return None if entry is None or entry.version[0] <= self._memory.cleared else entry

    def keys(self, slot: int, now_ms: int) -> list[bytes]:
        """Return the keys that a get would find. O(entries of the slot)."""
        return [
            entry.key
            for entry in self.tables[slot].values()
            if entry.kind is Kind.VALUE
            and not 0 < entry.expires_at_ms <= now_ms
            and entry.version[0] > self._memory.cleared
        ]

    def slots_held(self) -> list[int]:
        """Return the slots with an entry or a clock, ascending. O(slots)."""
        return [slot for slot, table in enumerate(self.tables) if table or slot in self._clocks]

    def doubts(self, slot: int, key: bytes) -> bool:
        """Return whether a value of `key` was not taken, since what hides it may be forgotten."""
        entry = self.tables[slot].get(key)
        return entry is not None and entry.kind is Kind.EVICTED and entry.asked == DOUBTED

    # -------------------------------------------------------------- changing

    def write(self, slot: int, record: Record, now_ms: int) -> Applied:
        """Take this node's own new version; `record.prev` must be its `own_prev`."""
        version = record.version
        self._me = origin = self._origins.origin(version)
        assert record.prev == self.own_prev(slot, origin), "prev names the write before"
        applied = self._merge(slot, record, origin, now_ms, mark=0)
        self._clocks.witness(slot, origin, record.prev, version[0], UNBOUNDED)
        self._left_behind.pop(slot, None)
        self.room.count()
        return applied

    def own_prev(self, slot: int, origin: Origin) -> Stamp:
        """Return what a new write of `origin`, this node, names as its predecessor; 0 if none."""
        return max(self._clocks.last(slot, origin), self._left_behind.get(slot, 0))

    def apply(
        self, slot: int, record: Record, now_ms: int, sender: Clock | None = None, *,
        owed: bool = False, asked: Clock | None = None,
    ) -> Applied:  # fmt: skip
        """Take a record that another node sent on its own account, unless it was seen before.

        Args:
            sender: the sender's clock of the slot when it sent, if known.
            owed: whether it was asked for what the clock here covers without its being here.
            asked: the clock that it was asked with, if that claims less than the one here.
        """
        version, prev = record.version, record.prev
        clocks = self._clocks
        origin = self._origins.origin(version)
        held = self.tables[slot].get(record.key)
        bound = asked is not None and not clock_covers(asked, version)
        if clocks.covers(slot, version) and not bound:
            taken = owed and self._is_owed(slot, record) and self.comparison.trusts(slot, sender)
            return self._take_owed(slot, record, now_ms) if taken else Applied.COVERED
        if origin == BASE:
            return Applied.COVERED  # Nobody writes under that name: malformed.
        mark = self._memory.marks[slot]
        if version[0] <= mark and self.comparison.trusts(slot, sender):
            mark = self._memory.evicted_marks[slot]
        if (
            held is not None
            and record.kind is Kind.VALUE
            and held.version == version
            and held.asked & HEARD
            and version[0] > mark
        ):
            applied = self._take_owed(slot, record, now_ms)
        else:
            applied = self._merge(slot, record, origin, now_ms, mark=mark)
        if prev == PREV_UNKNOWN or not clocks.witness(slot, origin, prev, version[0], NOTES_MAX):
            clocks.hold_loose(slot, origin, version[0])
        self.room.count()
        return applied

    def answers_for(self, slot: int, record: Record, now_ms: int) -> bool:
        """Return whether what is here makes up for `record`: it, a newer one, or that it is over.

        A clock may cover a write that never came, if somebody lied about it; a copy of such a
        write is not to be counted on.
        """
        held = self.tables[slot].get(record.key)
        if held is not None:
            return held.version >= record.version
        expired = 0 < record.expires_at_ms <= now_ms
        return expired or record.version[0] <= max(self._memory.marks[slot], self._memory.cleared)

    def install(self, slot: int, record: Record, now_ms: int) -> Applied:
        """Take a record that a read found at another holder, even if it was seen here before."""
        held = self.tables[slot].get(record.key)
        if held is not None and held.version == record.version:
            return self._complete(held, record, now_ms)
        origin = self._origins.origin(record.version)
        if origin == BASE:
            return Applied.OLDER
        applied = self._merge(slot, record, origin, now_ms, mark=self._memory.marks[slot])
        if applied is not Applied.OLDER:
            self.changed.add(slot)  # What it replaces may have been loose.
            self._clocks.hold_loose(slot, origin, record.version[0])
            self.room.count()
        return applied

    # -------------------------------------------------------------- clocks

    def covers(self, slot: int, version: Version) -> bool:
        """Return whether the write of `version` was seen here, whatever became of it."""
        return self._clocks.covers(slot, version)

    def clock(self, slot: int) -> Mapping[Origin, Stamp]:
        """Return the slot's clock as it is now. O(origins)."""
        return self._clocks.clock(slot)

    def mark(self, slot: int) -> Stamp:
        """Return the slot's forget mark; 0 = none."""
        return self._memory.marks[slot]

    def floor(self, slot: int) -> Stamp:
        """Return what new stamps must be above: up to here others may ignore a write."""
        return max(self._memory.marks[slot], self._clocks.seen(slot, BASE))

    def merge_clock(self, slot: int, other: Clock, mark: Stamp = 0) -> None:
        """Raise clock and forget mark to the maximum: all that `other` covers was received.

        But for what its holder had forgotten: if this node was below, by its `mark`.
        """
        self._memory.marks[slot] = max(self._memory.marks[slot], mark)
        last = self._own_last(slot)
        self._clocks.merge(slot, {self._origins.intern(o): stamp for o, stamp in other.items()})
        self._keep_own_last(slot, last)
        self.room.count()

    def close_gaps(self, slot: int, origin: Origin) -> None:
        """Give up the writes missing before noted ones of `origin`: no holder has them.

        To be called once its boot is gone and every holder of the slot, those that are down
        included, was pulled from since; then their clocks need not differ for ever.
        """
        self._clocks.close_gaps(slot, origin)
        self.room.count()

    def clock_origins(self) -> tuple[Origin, ...]:
        """Return the origins of which any slot's clock may have an entry, ascending."""
        return self._clocks.origins()

    def fold(self, slot: int, gone: Callable[[Origin], bool], older_than: Stamp) -> int:
        """Move clock entries of origins that are `gone` to the slot's base; return how many.

        To be called once this node has seen what any holder, up or down, has seen of them up to
        `older_than`, and nobody else can have stamped below that what it has not seen: from then
        on every write up to the largest stamp folded, of an origin without entry, is ignored.
        Entries from `older_than` on stay, and so do those of a slot with gaps. O(origins).
        """
        me, last = self._me, self._own_last(slot)
        folded = self._clocks.fold(slot, lambda o: o != me and gone(o), older_than)
        if folded:
            self._keep_own_last(slot, last)
            self.room.count()
        return folded

    def prune_clocks(self) -> int:
        """Free what clocks of origins folded everywhere took; return how many origins.

        O(origins * slots held), a third of a millisecond for each that is freed.
        """
        pruned = self._clocks.prune()
        self.room.count()
        return pruned

    def spans(self, slot: int) -> list[tuple[Origin, Stamp, Stamp]]:
        """Return what was seen beyond gaps: (origin, low, high), every write in (low, high]."""
        return self._clocks.spans(slot)

    def merge_spans(self, slot: int, spans: Iterable[tuple[Origin, Stamp, Stamp]]) -> None:
        """Take over what another holder has seen beyond gaps; its records were all received."""
        for origin, low, high in spans:
            if origin == BASE:
                continue
            self._clocks.witness(slot, self._origins.intern(origin), low, high, SPANS_MAX)
        self.room.count()

    def gap_origins(self, slot: int) -> tuple[Origin, ...]:
        """Return the origins of which writes are missing before noted ones, ascending."""
        return self._clocks.noted_origins(slot)

    def has_gaps(self, slot: int) -> bool:
        """Return whether writes are held whose predecessors, as far as known, were not seen."""
        return self._clocks.has_notes(slot)

    def refill(self, slot: int, listings: Sequence[Listing]) -> int:
        """Take the value of every entry that a holder has seen and no longer lists; say how many.

        Those stamped up to its forget mark lose theirs, too: it may have forgotten what hides
        them. Unless another one lists the key who has seen all that the first may have forgotten.
        They become barren ghosts, so that nobody gets the value back who does not know better.
        To be called when all records of these holders were applied.
        """
        taken = 0
        births = self.comparison.births
        vouched = [
            [one for one in listings if one.vouches_for(other, births)] for other in listings
        ]
        for entry in list(self.tables[slot].values()) if listings else ():
            if entry.kind not in (Kind.VALUE, Kind.EVICTED):
                continue
            name = xxh3_64_intdigest(entry.key)
            for listing, others in zip(listings, vouched, strict=True):
                if listing.doubts(entry.version, name) and not any(
                    name in other.listed for other in others
                ):
                    if entry.kind is Kind.VALUE:
                        self._memory.strip(entry, Kind.EVICTED)
                        entry.asked, taken = DOUBTED, taken + 1
                    entry.asked |= BARREN
                    break
        self._memory.make_room()
        return taken

    def drop_slot(self, slot: int) -> None:
        """Release a slot: its entries, clock and mark are gone, and not counted as evicted."""
        last = self._own_last(slot)
        for entry in list(self.tables[slot].values()):
            self._memory.remove(entry)
        self._memory.marks[slot] = self._memory.evicted_marks[slot] = 0
        self.changed.add(slot)
        self._clocks.drop(slot)
        self._keep_own_last(slot, last)
        self.forgetting.drop(slot)
        self.room.count()

    # -------------------------------------------------------------- forgetting

    def valueless(self, slot: int) -> int:
        """Return the number of records without a value in the slot."""
        return self._memory.valueless_in[slot]

    def clear(self, stamp: Stamp) -> None:
        """Make all versions up to `stamp` absent at once; `sweep` frees them."""
        if stamp > self._memory.cleared:
            self._memory.cleared = stamp
            self.changed.update(self._clocks.slots_with_loose())
            self._reclaiming, self._reclaim_from = True, 0

    def sweep(self, now_ms: int, limit: int = 1000) -> int:
        """Free what is expired or cleared, about `limit` entries; return how many were met."""
        memory = self._memory
        met = self._reclaim(limit // 2)
        while met < limit and (entry := memory.expiry.due(now_ms)) is not None:
            memory.expire(entry)
            met += 1
        memory.make_room()
        return met

    def next_sweep_ms(self) -> int:
        """Return when `sweep` has work: 0 = now, NEVER = nothing expires."""
        return 0 if self._reclaiming else self._memory.expiry.next_ms()

    def tell(self, on_newer: Callable[[bytes, Stamp], None]) -> None:
        """Call `on_newer` each time that a newer version of a key is held."""
        self._memory.on_newer = on_newer

    # -------------------------------------------------------------- figures

    @property
    def cleared(self) -> Stamp:
        """Versions at or below are absent."""
        return self._memory.cleared

    @property
    def bytes_used(self) -> int:
        """All that counts towards the limit: entries, tables, indexes, clocks, what is reserved."""
        return self._memory.bytes_used

    @property
    def reserved_bytes(self) -> int:
        """What is left to others of the limit."""
        return self.room.reserved_bytes

    @property
    def memory_limit_bytes(self) -> int:
        return self._memory.limit_bytes

    @property
    def items(self) -> int:
        """Entries with a value; one that expired counts until a sweep."""
        return self._memory.counts[Kind.VALUE]

    @property
    def item_bytes(self) -> int:
        """Bytes of the items' keys and values alone."""
        return self._memory.item_bytes

    @property
    def ghosts(self) -> int:
        return self._memory.counts[Kind.EVICTED]

    @property
    def tombstones(self) -> int:
        return self._memory.counts[Kind.TOMBSTONE]

    @property
    def expired_records(self) -> int:
        return self._memory.counts[Kind.EXPIRED]

    @property
    def evicted_total(self) -> int:
        return self._memory.evicted_total

    @property
    def expired_total(self) -> int:
        return self._memory.expired_total

    # -------------------------------------------------------------- inside

    def _own_last(self, slot: int) -> Stamp:
        return 0 if self._me is None else self.own_prev(slot, self._me)

    def _keep_own_last(self, slot: int, last: Stamp) -> None:
        """Remember the last own write of a slot whose clock names it no more.

        The slot was released, or the base covers it; the next own write still has a predecessor.
        """
        if last > self._own_last(slot):
            self._left_behind[slot] = last

    def _merge(
        self, slot: int, record: Record, origin: Origin, now_ms: int, mark: Stamp
    ) -> Applied:
        """Keep the newer of `record` and what is held; no clock is looked at."""
        version = record.version
        entry = self.tables[slot].get(record.key)
        if version[0] <= self._memory.cleared or (entry is not None and entry.version >= version):
            return Applied.OLDER
        if self.graves.hide(slot, record.key, version):
            return Applied.OLDER
        kind = self._kind_to_keep(record, now_ms)
        # What hides it may be forgotten: so of a key that came after that, too, until a newer one.
        barren = version[0] <= mark and (entry is None or entry.asked & BARREN)
        if barren and kind is Kind.VALUE:
            kind = Kind.EVICTED  # Whoever has the value may lack its successor.
        lost = kind is Kind.EVICTED and record.kind is Kind.VALUE
        shared = version[1] is origin[0] and version[2] is origin[1]
        if not shared or kind is not record.kind or (record.value and kind is not Kind.VALUE):
            # All versions of an origin share its integers, and only a value has bytes.
            value = record.value if kind is Kind.VALUE else b""
            own = Version(version[0], *origin)
            record = Record(record.key, kind, value, own, record.expires_at_ms, record.prev)
        if entry is None:
            entry = self._memory.add(slot, record, now_ms)
        else:
            self._memory.replace(entry, record, now_ms)
        entry.asked = 0
        if barren:
            entry.asked = BARREN if version[0] <= self._memory.evicted_marks[slot] else DOUBTED
        elif kind is Kind.EVICTED and not lost and version[0] > self._memory.evicted_marks[slot]:
            entry.asked = HEARD
        room = self._memory.make_room(entry)
        return Applied.NEWER if room and not lost else Applied.GHOST

    def _is_owed(self, slot: int, record: Record) -> bool:
        """Return whether a record that the clock covers was neither here nor evicted here."""
        if record.kind is not Kind.VALUE:
            return False
        stamp, memory = record.version[0], self._memory
        entry = self.tables[slot].get(record.key)
        if entry is None:
            return memory.evicted_marks[slot] < stamp <= memory.marks[slot]
        return bool(entry.asked & HEARD) and entry.version <= record.version

    def _take_owed(self, slot: int, record: Record, now_ms: int) -> Applied:
        entry = self.tables[slot].get(record.key)
        if entry is not None and entry.version == record.version:
            entry.asked = 0
            return self._complete(entry, record, now_ms)
        return self._merge(slot, record, self._origins.origin(record.version), now_ms, mark=0)

    def _kind_to_keep(self, record: Record, now_ms: int) -> Kind:
        """Return what a record amounts to here and now."""
        kind = record.kind
        if 0 < record.expires_at_ms <= now_ms and kind is not Kind.TOMBSTONE:
            return Kind.EXPIRED
        if kind is Kind.VALUE and not self.room.fits(len(record.value)):
            return Kind.EVICTED  # Not worth evicting everything else: it would not fit even then.
        return kind

    def _complete(self, entry: Entry, record: Record, now_ms: int) -> Applied:
        """Add to a ghost what another holder knows of the same version."""
        if entry.kind is not Kind.EVICTED or entry.version[0] <= self._memory.cleared:
            return Applied.OLDER
        if entry.asked & BARREN and entry.version[0] <= self._memory.marks[entry.slot]:
            return Applied.OLDER
        kind = self._kind_to_keep(record, now_ms)
        if kind is Kind.VALUE:
            self._memory.restore(entry, record.value, now_ms)
            return Applied.VALUE if self._memory.make_room(entry) else Applied.GHOST
        if kind is not Kind.EVICTED:
            self._memory.strip(entry, kind)
        return Applied.OLDER

    def _reclaim(self, limit: int) -> int:
        """Go on removing what was cleared; return how many slots and entries were looked at."""
        met = 0
        while self._reclaiming and met < limit:
            table = self.tables[self._reclaim_from]
            met += 1 + len(table)
            for entry in [e for e in table.values() if e.version[0] <= self._memory.cleared]:
                self._memory.remove(entry)
            self._reclaim_from += 1
            self._reclaiming = self._reclaim_from < SLOT_COUNT
        return met

    def check(self) -> None:
        """Assert all invariants by counting anew. O(everything)."""
        self._memory.check()
        self._clocks.check()
        self.graves.check()
        self.room.check()
