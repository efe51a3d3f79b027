"""The entries of one node, in their roles, within a byte limit.

An entry is in one of two roles. With a value it stands in the eviction policy and, if it expires,
in the expiry index. Without one (tombstone, ghost, expired) it stands in the queue of the
valueless, in the order in which entries got there. Each change of an entry takes it out of its
role, changes it, and puts it into its new one; that is where everything is counted, so the sums
are right by construction.

**Room.** When the sum exceeds the limit, victims of the policy become ghosts; when the valueless
exceed their share of the limit, the head of their queue is forgotten and its slot's forget mark
rises to its stamp. The head is not always the oldest stamp, but it is the one that was
valueless for longest; nothing is stamped later than it lost its value, so the mark never comes
closer to the present than records stay in the queue, which is what the mark is to tell.

Tables: one dictionary for each slot that has entries, so that a slot can be enumerated.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from sys import getsizeof

from dcc.limits import SLOT_COUNT
from dcc.store.accounting import block, bytes_cost, entry_cost
from dcc.store.entry import HEARD, Chain, Entry, unlink
from dcc.store.eviction import POLICIES, Policy
from dcc.store.expiry import ExpiryIndex
from dcc.types import Kind, Record, Stamp

Table = dict[bytes, Entry]

EMPTY: Table = {}
"Stands for the table of every slot without entries; never changed."

VALUELESS_SHARE = 8
"Records without values may take one part in so many of the limit."

TABLE_BYTES_SPARSE = 512
ENTRY_TABLE_BYTES_MAX = 256
"""A table above both sizes, the second for each entry, is copied into one that fits: a dictionary
never shrinks by itself. Fresh ones take 27 to 110 bytes for each entry, so copying is rare."""

# Shared integers: a caller's slot number would be an object of its own for each entry.
SLOTS = tuple(range(SLOT_COUNT))


class Memory:
    """Entries by slot and key, and what they cost."""

    def __init__(self, limit_bytes: int, eviction: str) -> None:
        self.on_newer: Callable[[bytes, Stamp], None] = lambda key, stamp: None
        "Told each time that a newer version of a key is held."
        self.on_removed: Callable[[int], None] = lambda slot: None
        "Told the slot of each entry that is let go of."
        self.tables: list[Table] = [EMPTY] * SLOT_COUNT
        self.limit_bytes = limit_bytes
        self.valueless_bytes_max: int = limit_bytes // VALUELESS_SHARE
        self.policy: Policy = POLICIES[eviction]()
        self.expiry: ExpiryIndex = ExpiryIndex()
        self.valueless: Chain = Chain()
        self.marks: array[int] = array("Q", bytes(8 * SLOT_COUNT))
        "Forget marks by slot: records stamped up to here may have been forgotten; 0 = none."
        self.evicted_marks: array[int] = array("Q", bytes(8 * SLOT_COUNT))
        "The same of values that were evicted here and whose ghosts were forgotten since."
        self.agreed_marks: array[int] = array("Q", bytes(8 * SLOT_COUNT))
        "Records stamped up to here may have been forgotten because every holder had seen them."
        self.cleared: Stamp = 0
        "Versions at or below are absent, though some may still be here."
        self.entry_bytes: int = 0
        "Entries, keys, values and tables."
        self.other_bytes = 0
        "What the store adds for its clocks, and reserves for what grows beside it."
        self.valueless_bytes: int = 0
        self.item_bytes: int = 0
        self.counts: list[int] = [0] * len(Kind)
        "Entries by kind."
        self.valueless_in: array[int] = array("I", bytes(4 * SLOT_COUNT))
        "Entries without a value by slot."
        self._table_bytes = array("I", bytes(4 * SLOT_COUNT))
        self.evicted_total: int = 0
        self.expired_total: int = 0

    @property
    def bytes_used(self) -> int:
        """All that grows with use."""
        return self.entry_bytes + self.other_bytes + self.expiry.bytes_used

    @property
    def room_bytes(self) -> int:
        """What a single value may take: all but the valueless' share and what is no entry."""
        return self.limit_bytes - self.valueless_bytes_max - self.other_bytes

    def add(self, slot: int, record: Record, now_ms: int) -> Entry:
        """Return a new entry that holds `record`. Room is the caller's next step."""
        table = self.tables[slot]
        if table is EMPTY:
            table = self.tables[slot] = {}
        key, kind, value, version, expires_at_ms, prev = record
        entry = Entry(key, SLOTS[slot], kind, value, version, expires_at_ms, prev)
        table[key] = entry
        self.on_newer(key, version[0])
        self._measure_table(slot, table)
        self._join_role(entry, now_ms)
        return entry

    def replace(self, entry: Entry, record: Record, now_ms: int) -> None:
        """Give an entry another version. Room is the caller's next step."""
        stays = entry.kind is Kind.VALUE and record.kind is Kind.VALUE
        if stays:
            # In the policy, which would forget how often it was hit.
            self._count_value(entry, -1)
            self.policy.hit(entry)
        else:
            self._leave_role(entry)
        _, entry.kind, entry.value, entry.version, entry.expires_at_ms, entry.prev = record
        entry.asked = 0
        self.on_newer(entry.key, record.version[0])
        if stays:
            self._count_value(entry, 1)
            if entry.expires_at_ms:
                self.expiry.add(entry, now_ms)
        else:
            self._join_role(entry, now_ms)

    def restore(self, entry: Entry, value: bytes, now_ms: int) -> None:
        """Give a ghost its value back."""
        self._leave_role(entry)
        entry.kind = Kind.VALUE
        entry.value = value
        entry.asked = 0
        self._join_role(entry, now_ms)

    def strip(self, entry: Entry, kind: Kind) -> None:
        """Take an entry's value, or what kind of valueless it was."""
        self._leave_role(entry)
        entry.kind = kind
        entry.value = b""
        self._join_valueless(entry)

    def evict(self, entry: Entry) -> None:
        """Make a ghost of an entry with a value."""
        self.strip(entry, Kind.EVICTED)
        self.evicted_total += 1

    def expire(self, entry: Entry) -> None:
        """Take the value of an entry whose time is over."""
        self.strip(entry, Kind.EXPIRED)
        self.expired_total += 1

    def remove(self, entry: Entry) -> None:
        """Let go of an entry altogether."""
        self._leave_role(entry)
        slot = entry.slot
        table = self.tables[slot]
        del table[entry.key]
        self.on_removed(slot)
        if not table:
            self.tables[slot] = EMPTY
            self.entry_bytes -= self._table_bytes[slot]
            self._table_bytes[slot] = 0
        elif self._table_bytes[slot] > max(TABLE_BYTES_SPARSE, len(table) * ENTRY_TABLE_BYTES_MAX):
            self.tables[slot] = table = dict(table)
            self._measure_table(slot, table)

    def make_room(self, keep: Entry | None = None) -> bool:
        """Evict and forget until the limits hold; return whether `keep` kept its value.

        `keep` goes last of those with a value; without one it counts as kept. Each step takes
        O(1) and makes an entry smaller, so the cost is paid by what made it large.
        """
        aside = False
        while self._exceeds():
            victim = self.policy.victim()
            if self.valueless_bytes > self.valueless_bytes_max:
                self._forget_first()
            elif victim is not None and victim is keep:
                # The policy would name it again and again.
                self.policy.remove(victim)
                aside = True
            elif victim is not None:
                self.evict(victim)
            elif self.valueless.first() is not None:
                self._forget_first()
            else:
                break
        if not aside or keep is None:
            return True
        self.policy.add(keep)
        if not self._exceeds():
            return True
        self.evict(keep)
        self.make_room()
        return False

    def _exceeds(self) -> bool:
        used = self.entry_bytes + self.other_bytes + self.expiry.bytes_used
        return used > self.limit_bytes or self.valueless_bytes > self.valueless_bytes_max

    def _forget_first(self) -> None:
        entry = self.valueless.first()
        assert entry is not None, "over a limit with nothing to forget"
        self.marks[entry.slot] = max(self.marks[entry.slot], entry.version[0])
        self.note_lost(entry)
        self.remove(entry)

    def note_lost(self, entry: Entry) -> None:
        """Remember of a ghost about to be forgotten that a value is not here that others may have.

        That all who hold the slot have seen it is no reason not to: somebody new may ask.
        """
        if entry.kind is not Kind.EVICTED:
            return
        slot, stamp = entry.slot, entry.version[0]
        self.marks[slot] = max(self.marks[slot], stamp)
        if not entry.asked & HEARD:
            self.evicted_marks[slot] = max(self.evicted_marks[slot], stamp)

    # -------------------------------------------------------------- roles

    def _join_role(self, entry: Entry, now_ms: int) -> None:
        if entry.kind is not Kind.VALUE:
            self._join_valueless(entry)
            return
        self.policy.add(entry)
        self._count_value(entry, 1)
        if entry.expires_at_ms:
            self.expiry.add(entry, now_ms)

    def _join_valueless(self, entry: Entry) -> None:
        self.valueless.append(entry)
        cost = entry_cost(entry)
        self.entry_bytes += cost
        self.valueless_bytes += cost
        self.counts[entry.kind] += 1
        self.valueless_in[entry.slot] += 1

    def _leave_role(self, entry: Entry) -> None:
        if entry.kind is Kind.VALUE:
            self.policy.remove(entry)
            self._count_value(entry, -1)
            return
        unlink(entry)
        cost = entry_cost(entry)
        self.entry_bytes -= cost
        self.valueless_bytes -= cost
        self.counts[entry.kind] -= 1
        self.valueless_in[entry.slot] -= 1

    def _count_value(self, entry: Entry, sign: int) -> None:
        """Count an entry with a value in or out; out of the expiry index, too."""
        length = len(entry.value)
        self.entry_bytes += sign * (entry_cost(entry) + bytes_cost(length))
        self.item_bytes += sign * (len(entry.key) + length)
        self.counts[Kind.VALUE] += sign
        if sign < 0 and entry.expires_at_ms:
            self.expiry.remove(entry)

    def _measure_table(self, slot: int, table: Table) -> None:
        size = block(getsizeof(table))
        self.entry_bytes += size - self._table_bytes[slot]
        self._table_bytes[slot] = size

    # -------------------------------------------------------------- check

    def __iter__(self) -> Iterator[Entry]:
        for table in self.tables:
            if table:
                yield from table.values()

    def check(self) -> None:
        """Assert every sum and every role by counting anew. O(everything)."""
        assert not EMPTY, "the shared empty table stays empty"
        held = list(self)
        values = [entry for entry in held if entry.kind is Kind.VALUE]
        others = [entry for entry in held if entry.kind is not Kind.VALUE]
        assert names(self.policy) == names(values), "the policy has what has a value"
        assert names(self.valueless) == names(others), "the queue has the rest"
        expiring = [entry for entry in values if entry.expires_at_ms]
        assert names(self.expiry) == names(expiring), "the index has what expires"
        self._check_sums(held, values, others)
        fits = self.bytes_used <= self.limit_bytes
        assert fits or not held, "the limit holds, or nothing but clocks is left"
        assert self.valueless_bytes <= self.valueless_bytes_max, "the valueless keep to their share"

    def _check_sums(self, held: list[Entry], values: list[Entry], others: list[Entry]) -> None:
        tables = {slot: table for slot, table in enumerate(self.tables) if table is not EMPTY}
        cost = sum(block(getsizeof(table)) for table in tables.values())
        cost += sum(entry_cost(e) + bytes_cost(len(e.value)) for e in held)
        assert self.entry_bytes == cost, "entry_bytes is the sum of all costs"
        assert self.valueless_bytes == sum(map(entry_cost, others)), "valueless_bytes is its sum"
        assert self.item_bytes == sum(len(e.key) + len(e.value) for e in values), "item_bytes"
        for kind in Kind:
            assert self.counts[kind] == sum(e.kind is kind for e in held), "counts by kind"
        for slot, table in tables.items():
            assert table, "no table is empty but the shared one"
            assert all(entry.slot == slot for entry in table.values()), "in its own slot's table"
            without = sum(entry.kind is not Kind.VALUE for entry in table.values())
            assert self.valueless_in[slot] == without, "valueless_in counts by slot"
        assert sum(self.valueless_in) == len(others), "and counts nothing else"
        for entry in held:
            assert self.tables[entry.slot][entry.key] is entry, "found by its key"
            assert entry.kind is Kind.VALUE or entry.value == b"", "only a value has bytes"


def names(entries: Iterable[Entry]) -> list[tuple[int, bytes]]:
    """Return slot and key of `entries` in an order of their own."""
    return sorted((entry.slot, entry.key) for entry in entries)
