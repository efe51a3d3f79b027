"""Which slots a tree of digests has to look at again, sentence by sentence.

`test_model.py` has the rule itself: under any calls, a slot whose digest changed is named.
"""

from __future__ import annotations

from dcc.store import Applied, Store
from dcc.types import PREV_UNKNOWN, Kind, Record, Stamp, Version
from dcc.units import KIB, MIB

SLOT = 7


def put(stamp: Stamp, key: bytes, node: int, prev: Stamp = PREV_UNKNOWN) -> Record:
    return Record(key, Kind.VALUE, b"v", Version(stamp, node, 1), 0, prev)


def taken(store: Store) -> list[int]:
    """Return the slots that were named, and take them out."""
    found = sorted(store.changed)
    store.changed.clear()
    return found


def test_a_write_names_its_slot_and_a_repetition_or_a_read_does_not() -> None:
    store = Store(memory_limit_bytes=1 * MIB)
    store.apply(SLOT, put(5, b"k", 1, prev=0), 0)
    assert taken(store) == [SLOT]
    assert store.apply(SLOT, put(5, b"k", 1, prev=0), 0) is Applied.COVERED
    store.get(SLOT, b"k", 0)
    store.comparison.digest(SLOT)
    store.merge_clock(SLOT, {(1, 1): 5})
    assert taken(store) == []


def test_a_read_that_replaces_a_loose_write_by_one_seen_before_names_the_slot() -> None:
    """The clock stays as it is, but the loose write was part of the digest."""
    store = Store(memory_limit_bytes=1 * MIB)
    store.apply(SLOT, put(5, b"k", 1), 0)
    store.merge_clock(SLOT, {(2, 1): 6})
    before = store.comparison.digest(SLOT)
    taken(store)
    assert store.install(SLOT, put(6, b"k", 2), 0) is Applied.NEWER
    assert store.comparison.digest(SLOT) != before
    assert taken(store) == [SLOT]


def test_clearing_names_the_slots_with_loose_writes_only() -> None:
    store = Store(memory_limit_bytes=1 * MIB)
    store.apply(SLOT, put(5, b"k", 1), 0)
    store.apply(SLOT + 1, put(6, b"l", 1, prev=0), 0)
    before = [store.comparison.digest(SLOT), store.comparison.digest(SLOT + 1)]
    taken(store)
    store.clear(7)
    assert store.comparison.digest(SLOT) != before[0]
    assert store.comparison.digest(SLOT + 1) == before[1]
    assert taken(store) == [SLOT]


def test_marks_change_nothing_that_is_compared_and_released_slots_are_named() -> None:
    store = Store(memory_limit_bytes=8 * KIB)
    store.merge_clock(SLOT, {}, mark=9)
    assert taken(store) == []
    for stamp in range(1, 9):
        record = Record(b"%d" % stamp, Kind.TOMBSTONE, b"", Version(stamp, 1, 1), 0, 0)
        store.apply(stamp, record, 0)
    taken(store)
    store.apply(20, Record(b"20", Kind.TOMBSTONE, b"", Version(20, 1, 1), 0, 0), 0)
    named = taken(store)
    assert named == [20]
    assert any(map(store.mark, range(1, 9)))
    store.drop_slot(20)
    assert taken(store) == [20]


def test_a_loose_write_that_is_let_go_of_names_its_slot() -> None:
    """A grave, as here, or too little room: nothing else of the slot changes."""
    store, other = Store(memory_limit_bytes=1 * MIB), Store(memory_limit_bytes=1 * MIB)
    other.apply(SLOT, put(6, b"k", 2, prev=0)._replace(kind=Kind.TOMBSTONE, value=b""), 0)
    other.forgetting.forget_covered(SLOT, [])
    store.apply(SLOT, put(5, b"k", 1), 0)
    before = store.comparison.digest(SLOT)
    taken(store)
    store.forgetting.bury(SLOT, other.graves.lacking(SLOT, {}))
    assert store.peek(SLOT, b"k") is None
    assert store.comparison.digest(SLOT) != before
    assert taken(store) == [SLOT]
