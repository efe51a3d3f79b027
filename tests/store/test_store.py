"""The store, sentence by sentence: versions, absence, ghosts, clocks, forgetting, limits."""

from __future__ import annotations

import pytest

from dcc.config import EVICTION_POLICIES
from dcc.limits import SLOT_COUNT
from dcc.store import Applied, Entry, Store
from dcc.store.doubt import Listing
from dcc.store.entry import BARREN
from dcc.types import NO_VERSION, PREV_UNKNOWN, Kind, Origin, Record, Stamp, Version
from dcc.units import KIB, MIB, NEVER

ME: Origin = (1, 10)
OTHER: Origin = (2, 20)
SLOT = 7


def put(
    stamp: Stamp, key: bytes = b"k", value: bytes = b"v", *, origin: Origin = OTHER,
    prev: Stamp = PREV_UNKNOWN, expires_at_ms: int = 0,
) -> Record:  # fmt: skip
    return Record(key, Kind.VALUE, value, Version(stamp, *origin), expires_at_ms, prev)


def delete(stamp: Stamp, key: bytes = b"k", prev: Stamp = PREV_UNKNOWN) -> Record:
    return Record(key, Kind.TOMBSTONE, b"", Version(stamp, *OTHER), 0, prev)


def make(limit_bytes: int = 1 * MIB, **options: str) -> Store:
    return Store(memory_limit_bytes=limit_bytes, **options)  # type: ignore[arg-type]


def value_of(store: Store, key: bytes = b"k", now_ms: int = 0) -> bytes | None:
    entry = store.get(SLOT, key, now_ms)
    return None if entry is None else entry.value


def held(store: Store, key: bytes = b"k") -> Entry:
    entry = store.peek(SLOT, key)
    assert entry is not None
    return entry


def evict_all(store: Store) -> None:
    """Turn every value into a ghost, as a refill from an empty holder that saw all does."""
    store.refill(SLOT, [Listing({ME: 1 << 60, OTHER: 1 << 60}, (), 0)])


# ------------------------------------------------------------------ versions


def test_the_larger_version_wins_in_either_order() -> None:
    for order in ((5, 6), (6, 5)):
        store = make()
        for stamp in order:
            store.apply(SLOT, put(stamp, value=b"%d" % stamp, prev=stamp - 1), 0)
        assert value_of(store) == b"6"
        store.check()


def test_equal_stamps_are_decided_by_node_then_boot() -> None:
    store = make()
    store.apply(SLOT, put(5, value=b"two", origin=(2, 1)), 0)
    assert store.apply(SLOT, put(5, value=b"one", origin=(1, 9)), 0) is Applied.OLDER
    assert store.apply(SLOT, put(5, value=b"boot", origin=(2, 2)), 0) is Applied.NEWER
    assert value_of(store) == b"boot"


def test_what_each_path_answers() -> None:
    store = make()
    assert store.apply(SLOT, put(5, prev=0), 0) is Applied.NEWER
    assert store.apply(SLOT, put(5, prev=0), 0) is Applied.COVERED
    assert store.apply(SLOT, put(4, origin=(3, 3), prev=0), 0) is Applied.OLDER
    assert store.apply(SLOT, put(4, origin=(3, 3), prev=0), 0) is Applied.COVERED
    assert store.install(SLOT, put(5), 0) is Applied.OLDER
    assert store.install(SLOT, put(4), 0) is Applied.OLDER
    assert store.install(SLOT, put(6), 0) is Applied.NEWER


def test_keys_of_one_slot_and_equal_keys_of_two_slots_are_apart() -> None:
    store = make()
    store.apply(1, put(5, b"a", b"1a"), 0)
    store.apply(1, put(6, b"b", b"1b"), 0)
    store.apply(2, put(7, b"a", b"2a"), 0)
    found = [store.get(slot, key, 0) for slot, key in ((1, b"a"), (1, b"b"), (2, b"a"))]
    assert [entry and entry.value for entry in found] == [b"1a", b"1b", b"2a"]
    assert store.slots_held() == [1, 2]
    assert sorted(store.keys(1, 0)) == [b"a", b"b"]


def test_an_own_write_names_the_one_before() -> None:
    store = make()
    for stamp in (5, 6):
        store.write(SLOT, put(stamp, origin=ME, prev=store.own_prev(SLOT, ME)), 0)
    assert store.own_prev(SLOT, ME) == 6
    assert store.clock(SLOT) == {ME: 6}
    with pytest.raises(AssertionError):
        store.write(SLOT, put(9, origin=ME, prev=5), 0)


def test_a_slot_that_comes_back_remembers_the_own_last_write_but_claims_nothing() -> None:
    """Claiming prev = 0 would let others cover writes they missed; covering would hide a loss."""
    store = make()
    store.write(SLOT, put(5, b"a", origin=ME, prev=0), 0)
    store.write(SLOT, put(6, b"b", origin=ME, prev=5), 0)
    store.drop_slot(SLOT)
    assert store.own_prev(SLOT, ME) == 6
    store.write(SLOT, put(9, b"c", origin=ME, prev=6), 0)
    store.write(SLOT, put(10, b"d", origin=ME, prev=9), 0)
    assert store.clock(SLOT) == {}
    assert not store.covers(SLOT, Version(5, *ME))
    store.drop_slot(SLOT)
    assert store.own_prev(SLOT, ME) == 10
    store.merge_clock(SLOT, {ME: 10})
    assert store.clock(SLOT) == {ME: 10}
    store.check()


def test_the_own_last_write_is_remembered_when_only_earlier_ones_come_back() -> None:
    store = make()
    store.write(SLOT, put(5, b"a", origin=ME, prev=0), 0)
    store.write(SLOT, put(6, b"b", origin=ME, prev=5), 0)
    store.drop_slot(SLOT)
    store.apply(SLOT, put(5, b"a", origin=ME, prev=0), 0)
    assert store.own_prev(SLOT, ME) == 6


# ------------------------------------------------------------------ absence


def test_an_entry_is_absent_from_the_very_millisecond_it_expires_at() -> None:
    store = make()
    store.apply(SLOT, put(5, expires_at_ms=1000), 0)
    assert value_of(store, now_ms=999) == b"v"
    assert store.keys(SLOT, 999) == [b"k"]
    assert store.keys(SLOT, 1000) == []
    assert value_of(store, now_ms=1000) is None
    assert held(store).kind is Kind.EXPIRED
    assert (store.expired_total, store.expired_records, store.items) == (1, 1, 0)
    store.check()


def test_an_expired_version_hides_an_older_one() -> None:
    store = make()
    store.apply(SLOT, put(6, expires_at_ms=1000), 0)
    assert value_of(store, now_ms=1000) is None
    assert store.apply(SLOT, put(5, value=b"old"), 1000) is Applied.OLDER
    assert store.install(SLOT, put(5, value=b"old"), 1000) is Applied.OLDER
    assert value_of(store, now_ms=1000) is None


def test_what_comes_expired_is_kept_without_its_value() -> None:
    store = make()
    store.apply(SLOT, put(5, value=b"old"), 2000)
    assert store.apply(SLOT, put(6, expires_at_ms=1000), 2000) is Applied.NEWER
    assert (held(store).kind, held(store).value) == (Kind.EXPIRED, b"")
    assert value_of(store, now_ms=2000) is None


def test_a_sweep_frees_expired_values_that_nobody_reads() -> None:
    store = make()
    for n in range(100):
        store.apply(SLOT, put(5 + n, b"%d" % n, b"x" * 1000, expires_at_ms=1000 + n), 0)
    used = store.bytes_used
    due = store.next_sweep_ms()
    assert 1000 <= due <= 2200
    assert store.sweep(999) == 0
    assert store.sweep(2200, limit=60) == 60
    assert store.sweep(2200) == 40
    assert (store.items, store.expired_records, store.expired_total) == (0, 100, 100)
    assert used - store.bytes_used > 100_000
    assert store.next_sweep_ms() == NEVER
    store.check()


@pytest.mark.parametrize("lives_ms", [1, 10_000, 3_600_000, 86_400_000 * 365])
def test_a_sweep_is_late_by_a_second_or_a_64th_of_the_time_to_live(lives_ms: int) -> None:
    store = make()
    start = 1_800_000_000_123
    store.apply(SLOT, put(5, expires_at_ms=start + lives_ms), start)
    late = store.next_sweep_ms() - (start + lives_ms)
    assert 0 <= late <= max(1024, lives_ms / 64)


def test_putting_a_key_with_ever_new_expiries_takes_no_more_memory() -> None:
    store = make()
    used = []
    for n in range(2000):
        lives_ms = (n * 7919) % 10_000_000 + 1
        store.apply(SLOT, put(5 + n, expires_at_ms=n + lives_ms, prev=4 + n), n)
        used.append(store.bytes_used)
    assert max(used[1:]) == min(used[1:])
    store.check()


def test_a_version_without_expiry_lifts_the_old_one() -> None:
    store = make()
    store.apply(SLOT, put(5, expires_at_ms=1000), 0)
    store.apply(SLOT, put(6), 0)
    assert store.next_sweep_ms() == NEVER
    assert value_of(store, now_ms=5000) == b"v"


def test_cleared_versions_are_absent_at_once_and_freed_by_sweeps() -> None:
    store = make()
    for n in range(50):
        store.apply(n * 300, put(100 + n, b"%d" % n), 0)
    store.apply(SLOT, put(300), 0)
    store.clear(200)
    assert store.get(300, b"1", 0) is None
    assert store.peek(300, b"1") is None
    assert store.keys(300, 0) == []
    assert store.comparison.hashes(300) == ()
    assert store.comparison.lacking(300, {}, NO_VERSION) == []
    assert value_of(store) == b"v"
    while store.next_sweep_ms() == 0:
        assert store.sweep(0, limit=500) <= 500
    assert store.items == 1
    assert store.ghosts == store.evicted_total == 0
    store.check()


def test_a_write_at_or_below_the_cleared_stamp_is_seen_but_not_kept() -> None:
    store = make()
    store.clear(200)
    assert store.apply(SLOT, put(200, prev=0), 0) is Applied.OLDER
    assert store.covers(SLOT, Version(200, *OTHER))
    assert store.install(SLOT, put(200), 0) is Applied.OLDER
    assert value_of(store) is None
    assert store.apply(SLOT, put(201, prev=200), 0) is Applied.NEWER


def test_clearing_further_while_a_clear_is_reclaimed_starts_again() -> None:
    store = make()
    store.apply(0, put(100, b"low"), 0)
    store.apply(SLOT_COUNT - 1, put(150, b"high"), 0)
    store.clear(120)
    store.sweep(0, limit=1000)
    store.clear(160)
    store.clear(40)
    assert store.cleared == 160
    while store.next_sweep_ms() == 0:
        store.sweep(0)
    assert store.items == 0
    assert store.tables[SLOT_COUNT - 1] == {}


# ------------------------------------------------------------------ ghosts


def test_what_was_evicted_does_not_come_back_by_repair_but_by_a_read() -> None:
    store = make()
    store.apply(SLOT, put(5, prev=0), 0)
    evict_all(store)
    assert (held(store).kind, store.ghosts) == (Kind.EVICTED, 1)
    assert store.apply(SLOT, put(5, prev=0), 0) is Applied.COVERED
    assert store.apply(SLOT, put(5), 0) is Applied.COVERED
    assert value_of(store) is None
    assert store.install(SLOT, put(5), 0) is Applied.VALUE
    assert value_of(store) == b"v"
    store.check()


def test_an_evicted_write_that_the_clock_does_not_cover_does_not_come_back_either() -> None:
    store = make()
    store.apply(SLOT, put(5), 0)
    store._memory.evict(held(store))
    assert store.apply(SLOT, put(5), 0) is Applied.OLDER
    assert value_of(store) is None


def test_a_value_that_was_only_heard_of_comes_when_somebody_sends_it() -> None:
    store = make()
    store.apply(SLOT, put(5)._replace(kind=Kind.EVICTED, value=b""), 0)
    store.apply(SLOT, put(5), 0)
    assert value_of(store) == b"v"


def test_a_value_comes_from_the_third_holder_though_two_have_told_of_its_eviction() -> None:
    store, evicted = make(), put(5)._replace(kind=Kind.EVICTED, value=b"")
    store.apply(SLOT, evicted, 0)
    store.apply(SLOT, evicted, 0)
    assert store.apply(SLOT, put(5), 0) is Applied.VALUE
    assert value_of(store) == b"v"


def test_what_is_owed_is_taken_from_who_has_seen_as_much_and_not_if_it_was_evicted_here() -> None:
    store, clock = make(), {OTHER: 9}
    store.merge_clock(SLOT, clock, mark=9)
    assert store.apply(SLOT, put(5), 0, {OTHER: 9}) is Applied.COVERED, "not asked for"
    assert store.apply(SLOT, put(5), 0, {OTHER: 8}, owed=True) is Applied.COVERED, "in doubt"
    assert store.apply(SLOT, put(5), 0, {OTHER: 9}, owed=True) is Applied.NEWER
    assert value_of(store) == b"v"
    store._memory.evict(held(store))
    assert store.apply(SLOT, put(5), 0, {OTHER: 9}, owed=True) is Applied.COVERED
    store._memory.valueless_bytes_max = 0
    store._memory.make_room()
    assert store.apply(SLOT, put(5), 0, {OTHER: 9}, owed=True) is Applied.COVERED, "for good"
    store.check()


def test_a_ghost_hides_older_versions_from_reads() -> None:
    store = make()
    store.apply(SLOT, put(6), 0)
    evict_all(store)
    assert store.install(SLOT, put(5, value=b"old"), 0) is Applied.OLDER
    assert value_of(store) is None


def test_a_barren_ghost_is_barren_until_its_key_changes() -> None:
    store = make()
    store.apply(SLOT, put(5), 0)
    evict_all(store)
    held(store).asked = BARREN
    assert store.apply(SLOT, put(4), 0) is Applied.OLDER
    assert held(store).asked
    store.apply(SLOT, put(6), 0)
    assert not held(store).asked


def test_a_ghost_learns_from_a_reader_that_its_time_is_over() -> None:
    store = make()
    store.apply(SLOT, put(5, expires_at_ms=1000), 0)
    evict_all(store)
    store.install(SLOT, put(5, expires_at_ms=1000), 1000)
    assert held(store).kind is Kind.EXPIRED
    store.check()


def test_a_refill_takes_what_the_other_has_seen_and_lists_no_more() -> None:
    store, full = make(), make()
    for stamp, key in ((5, b"both"), (6, b"gone"), (9, b"unknown")):
        store.apply(SLOT, put(stamp, key), 0)
    full.apply(SLOT, put(5, b"both"), 0)
    store.refill(SLOT, [Listing({OTHER: 8}, (), 0, full.comparison.hashes(SLOT))])
    kinds = {key: held(store, key).kind for key in (b"both", b"gone", b"unknown")}
    assert kinds == {b"both": Kind.VALUE, b"gone": Kind.EVICTED, b"unknown": Kind.VALUE}
    assert store.evicted_total == 0
    store.check()


def test_a_write_up_to_the_forget_mark_is_kept_as_a_ghost_if_its_key_is_unknown() -> None:
    store = make()
    store.apply(SLOT, put(40, b"known", prev=0), 0)
    store.merge_clock(SLOT, {}, mark=50)
    assert store.mark(SLOT) == 50
    assert store.apply(SLOT, put(50, prev=45), 0) is Applied.GHOST
    assert held(store).kind is Kind.EVICTED
    assert store.apply(SLOT, put(45, b"known", prev=40), 0) is Applied.NEWER
    assert store.apply(SLOT, put(51, b"newer", prev=50), 0) is Applied.NEWER
    assert value_of(store, b"known") == value_of(store, b"newer") == b"v"


@pytest.mark.parametrize("first", [put(40, prev=0), delete(40, prev=0)])
def test_so_is_the_next_version_of_a_key_that_became_known_below_the_mark(first: Record) -> None:
    """What hid both may be forgotten: that an older one is held again says nothing about it."""
    store = make()
    store.merge_clock(SLOT, {}, mark=50)
    store.apply(SLOT, first, 0)
    assert store.apply(SLOT, put(45, prev=40), 0) is Applied.GHOST
    assert store.install(SLOT, put(45), 0) is Applied.OLDER
    assert store.apply(SLOT, put(46, prev=45), 0) is Applied.GHOST
    assert value_of(store) is None
    assert store.apply(SLOT, put(51, prev=46), 0) is Applied.NEWER
    assert value_of(store) == b"v"
    store.check()


# ------------------------------------------------------------------ exchange


def test_lacking_names_what_a_clock_does_not_cover_in_ascending_order() -> None:
    store = make()
    store.apply(SLOT, put(7, b"c", prev=5), 0)
    store.apply(SLOT, put(5, b"a", prev=0), 0)
    store.apply(SLOT, delete(8, b"d", prev=7), 0)
    store.apply(SLOT, put(6, b"b", origin=ME), 0)
    stamps = [r.version.stamp for r in store.comparison.lacking(SLOT, {OTHER: 5}, NO_VERSION)]
    assert stamps == [6, 7, 8]
    behind = store.comparison.lacking(SLOT, {OTHER: 5}, Version(6, *ME))
    assert [r.key for r in behind] == [b"c", b"d"]
    assert [r.kind for r in behind] == [Kind.VALUE, Kind.TOMBSTONE]
    assert store.comparison.is_ahead(SLOT, {OTHER: 5})
    assert store.comparison.is_ahead(SLOT, {OTHER: 8})
    assert not store.comparison.is_ahead(SLOT, {OTHER: 8, ME: 6})


def test_a_lost_write_of_a_boot_that_is_gone_can_be_given_up() -> None:
    store = make()
    store.apply(SLOT, put(5, b"a", prev=0), 0)
    store.apply(SLOT, put(8, b"b", prev=6), 0)
    store.close_gaps(SLOT, OTHER)
    assert store.clock(SLOT) == {OTHER: 8}
    assert not store.has_gaps(SLOT)
    store.close_gaps(SLOT + 1, OTHER)
    store.check()


# ------------------------------------------------------------------ forgetting


def test_records_without_values_are_forgotten_once_all_holders_cover_them() -> None:
    store = make()
    store.apply(SLOT, put(5, b"a", prev=0), 0)
    store.apply(SLOT, delete(6, b"b", prev=5), 0)
    store.forgetting.note_covered(SLOT, 1, {OTHER: 6})
    assert store.forgetting.forget_covered(SLOT, [1, 2]) == 0
    store.forgetting.note_covered(SLOT, 2, {OTHER: 5})
    assert store.forgetting.forget_covered(SLOT, [1, 2]) == 0
    store.forgetting.note_covered(SLOT, 2, {OTHER: 7})
    assert store.forgetting.forget_covered(SLOT, [1, 2]) == 1
    assert (store.tombstones, store.items, store.mark(SLOT)) == (0, 1, 0)
    assert store.apply(SLOT, delete(6, b"b", prev=5), 0) is Applied.COVERED
    store.check()


def test_forgetting_keeps_up_in_a_slot_that_is_always_written() -> None:
    """No holder is ever level with this node, yet tombstones do not pile up."""
    store = make()
    most = 0
    for stamp in range(1, 200):
        store.apply(SLOT, delete(stamp, b"%d" % stamp, prev=stamp - 1), 0)
        store.forgetting.note_covered(SLOT, stamp % 2, {OTHER: max(0, stamp - 3)})
        store.forgetting.forget_covered(SLOT, [0, 1])
        most = max(most, store.tombstones)
    assert most < 20
    store.check()


def test_a_holder_that_lost_its_memory_holds_forgetting_up() -> None:
    store = make()
    store.apply(SLOT, delete(6, prev=0), 0)
    store.forgetting.note_covered(SLOT, 1, {OTHER: 6})
    store.forgetting.note_covered(SLOT, 1, {})
    assert store.forgetting.forget_covered(SLOT, [1]) == 0


def test_alone_nothing_needs_to_be_remembered() -> None:
    store = make()
    store.apply(SLOT, delete(6, prev=0), 0)
    store.apply(SLOT, delete(9, b"noted", prev=8), 0)
    assert store.forgetting.forget_covered(SLOT, []) == 1
    assert store.peek(SLOT, b"noted") is not None


def test_over_budget_the_longest_valueless_are_forgotten_and_the_mark_rises() -> None:
    store = make(64 * KIB)
    for stamp in range(1, 101):
        store.apply(SLOT, delete(stamp, b"%d" % stamp, prev=stamp - 1), 0)
    assert 10 < store.tombstones < 40
    assert store.mark(SLOT) == 100 - store.tombstones
    assert store.peek(SLOT, b"100") is not None
    assert store.apply(SLOT, put(3, b"3", origin=ME, prev=0), 0) is Applied.GHOST
    store.check()


def test_a_released_slot_is_gone_without_a_trace_in_the_counts() -> None:
    store = make()
    empty = store.bytes_used
    store.apply(SLOT, put(5, b"a", expires_at_ms=1000, prev=3), 0)
    store.apply(SLOT, delete(6, b"b"), 0)
    store.merge_clock(SLOT, {ME: 3}, mark=2)
    store.forgetting.note_covered(SLOT, 1, {})
    store.drop_slot(SLOT)
    assert store.slots_held() == []
    assert (store.clock(SLOT), store.mark(SLOT), store.has_gaps(SLOT)) == ({}, 0, False)
    assert (store.items, store.tombstones, store.evicted_total) == (0, 0, 0)
    assert store.bytes_used == empty == 0
    store.drop_slot(SLOT)
    store.check()


# ------------------------------------------------------------------ room


@pytest.mark.parametrize("eviction", EVICTION_POLICIES)
def test_the_least_useful_values_go_when_room_is_needed(eviction: str) -> None:
    store = make(64 * KIB, eviction=eviction)
    for n in range(200):
        store.apply(n, put(5 + n, b"%d" % n, b"x" * 1000, prev=0), 0)
        store.get(0, b"0", 0)
        assert store.bytes_used <= 64 * KIB
    assert store.get(0, b"0", 0) is not None
    assert store.get(199, b"199", 0) is not None
    assert store.get(1, b"1", 0) is None
    assert store.evicted_total == 200 - store.items
    store.check()


@pytest.mark.parametrize("eviction", EVICTION_POLICIES)
def test_a_new_value_is_kept_even_if_all_others_are_more_popular(eviction: str) -> None:
    """A write that was acknowledged should not be the next thing to go."""
    store = make(64 * KIB, eviction=eviction)
    for n in range(100):
        store.apply(n, put(5 + n, b"%d" % n, b"x" * 1000, prev=0), 0)
        for _ in range(5):
            store.get(n, b"%d" % n, 0)
    assert store.apply(SLOT, put(500, b"new", b"x" * 20_000), 0) is Applied.NEWER
    assert value_of(store, b"new") is not None
    store.check()


@pytest.mark.parametrize("eviction", EVICTION_POLICIES)
def test_a_value_that_could_never_fit_is_a_ghost_and_evicts_nothing(eviction: str) -> None:
    store = make(64 * KIB, eviction=eviction)
    store.apply(SLOT, put(5, b"small", prev=0), 0)
    assert store.apply(SLOT, put(6, b"large", bytes(64 * KIB), prev=5), 0) is Applied.GHOST
    assert held(store, b"large").kind is Kind.EVICTED
    assert store.clock(SLOT) == {OTHER: 6}
    assert value_of(store, b"small") == b"v"
    assert store.install(SLOT, put(6, b"large", bytes(64 * KIB)), 0) is Applied.OLDER
    assert store.evicted_total == 0
    store.check()


def test_a_value_grown_too_large_frees_the_old_one() -> None:
    store = make(64 * KIB)
    store.apply(SLOT, put(5, prev=0), 0)
    assert store.apply(SLOT, put(6, value=bytes(64 * KIB), prev=5), 0) is Applied.GHOST
    assert value_of(store) is None
    assert (store.items, store.ghosts) == (0, 1)


def test_a_value_above_the_nodes_own_bound_is_a_ghost() -> None:
    store = Store(memory_limit_bytes=1 * MIB, value_bytes_max=10)
    assert store.apply(SLOT, put(5, value=bytes(11)), 0) is Applied.GHOST
    assert store.apply(SLOT, put(6, value=bytes(10)), 0) is Applied.NEWER


def test_bytes_that_a_peer_sends_with_a_tombstone_are_not_kept() -> None:
    store = make()
    store.apply(SLOT, delete(5)._replace(value=bytes(100_000)), 0)
    assert held(store).value == b""
    store.check()


def test_overwriting_keeps_the_sums() -> None:
    store = make()
    for n, size in enumerate((10, 10_000, 0, 500)):
        store.apply(SLOT, put(5 + n, value=bytes(size), expires_at_ms=n % 2 * 1000, prev=4 + n), 0)
        assert (store.items, store.item_bytes) == (1, 1 + size)
        store.check()


def test_integers_that_every_version_repeats_are_shared() -> None:
    store = make()
    big = 1 << 63
    for n in range(3):
        record = put(5 + n, b"%d" % n, origin=(int(str(big)), int(str(big + 1))))
        store.apply(SLOT, record, 0)
    nodes = [held(store, b"%d" % n).version.node for n in range(3)]
    assert nodes[0] is nodes[1] is nodes[2]


def test_a_table_that_shrank_gives_its_memory_back() -> None:
    store = make(8 * MIB)
    for n in range(5000):
        store.apply(SLOT, delete(5 + n, b"%d" % n, prev=4 + n if n else 0), 0)
    store.apply(SLOT, put(9999, prev=5004), 0)
    store.forgetting.forget_covered(SLOT, [])
    assert store.items == 1
    assert store.bytes_used - store.graves.bytes_used < 2 * KIB
    store.check()


def test_clock_and_notes_together_may_have_seen_all_that_was_seen_here() -> None:
    """Whoever has noted the same beyond a gap lacks nothing, though no clock covers it."""
    store = make()
    store.apply(SLOT, put(8, prev=5), 0)
    assert store.spans(SLOT) == [(OTHER, 5, 8)]
    assert not store.comparison.is_within(SLOT, {}, [])
    assert not store.comparison.is_within(SLOT, {}, [(OTHER, 6, 8)])
    assert not store.comparison.is_within(SLOT, {}, [(ME, 5, 8)])
    assert store.comparison.is_within(SLOT, {}, [(OTHER, 5, 8)])
    assert store.comparison.is_within(SLOT, {OTHER: 8}, [])
    store.write(SLOT, put(9, b"own", prev=0, origin=ME), 0)
    assert not store.comparison.is_within(SLOT, {OTHER: 8}, [])
    assert store.comparison.is_within(SLOT, {OTHER: 8, ME: 9}, [])


def test_a_write_that_is_loose_here_is_within_others_who_have_seen_just_that() -> None:
    store = make()
    store.apply(SLOT, put(5), 0)
    assert store.spans(SLOT) == []
    assert store.comparison.points(SLOT) == [(OTHER, 4, 5)]
    for spans in ([], [(OTHER, 5, 9)], [(OTHER, 2, 4)], [(ME, 4, 5)]):
        assert not store.comparison.is_within(SLOT, {}, spans)
    assert store.comparison.is_within(SLOT, {}, [(OTHER, 4, 5)])
    assert store.comparison.is_within(SLOT, {OTHER: 5}, [])
