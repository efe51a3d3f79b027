"""Clocks with a base: folding entries of boots that are gone changes nothing else.

First the algebra: a clock is a function from all origins to stamps, so the model is the function
itself, over a few origins and one that stands for all others. Then stores that write, pull and
fold at different times, beside a twin of each that never folds.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcc.store import Applied, Store
from dcc.store.clocks import (
    BASE,
    COLUMN_BYTES,
    ROWS_STEP,
    STAMP_BYTES,
    Clock,
    Clocks,
    clock_below,
    clock_covers,
    clock_exceeds,
    clock_includes,
    clock_seen,
)
from dcc.store.doubt import Listing
from dcc.types import NO_VERSION, PREV_UNKNOWN, Kind, Origin, Record, Stamp, Version
from dcc.units import MIB

SLOT = 7
A, B, C, ANYBODY = (1, 10), (2, 20), (3, 30), (9, 90)
EVERYBODY: tuple[Origin, ...] = (A, B, C, ANYBODY)

stamps = st.integers(1, 8)
clocks_drawn = st.dictionaries(st.sampled_from((BASE, A, B, C)), stamps)

Function = dict[Origin, Stamp]


def function(clock: Clock) -> Function:
    """Return what `clock` says of everybody."""
    return {origin: clock.get(origin, clock.get(BASE, 0)) for origin in EVERYBODY}


def maximum(one: Function, two: Function) -> Function:
    return {origin: max(one[origin], two[origin]) for origin in EVERYBODY}


def made(*merged: Clock) -> Clocks:
    clocks = Clocks()
    for clock in merged:
        clocks.merge(SLOT, clock)
        clocks.check()
    return clocks


@given(one=clocks_drawn, two=clocks_drawn, three=clocks_drawn)
def test_merging_is_the_maximum_point_by_point_in_any_order(
    one: Clock, two: Clock, three: Clock
) -> None:
    clocks = made(one, two, three)
    expected = maximum(maximum(function(one), function(two)), function(three))
    assert function(clocks.clock(SLOT)) == expected
    for other in (made(three, one, two, one), made(two, clocks.clock(SLOT))):
        assert other.clock(SLOT) == clocks.clock(SLOT)
        assert other.digest(SLOT) == clocks.digest(SLOT)


@given(one=clocks_drawn, two=clocks_drawn)
def test_digests_are_equal_exactly_where_the_functions_are(one: Clock, two: Clock) -> None:
    same = function(one) == function(two)
    assert (made(one).digest(SLOT) == made(two).digest(SLOT)) == same


@given(one=clocks_drawn, two=clocks_drawn, stamp=st.integers(0, 9))
def test_comparing_is_point_by_point(one: Clock, two: Clock, stamp: Stamp) -> None:
    ours, theirs = function(one), function(two)
    above = [o for o in EVERYBODY if ours[o] > theirs[o]]
    assert clock_exceeds(one, two) == bool(above)
    assert made(one).exceeds(SLOT, two) == bool(above)
    assert clock_includes(two, one) == (not above)
    for origin in EVERYBODY:
        assert clock_seen(one, origin) == made(one).seen(SLOT, origin) == ours[origin]
        assert clock_covers(one, Version(stamp, *origin)) == (stamp <= ours[origin])


@given(one=clocks_drawn, two=clocks_drawn, mark=st.integers(0, 9))
def test_who_lacks_what_may_be_forgotten_is_below_the_mark_folded_or_not(
    one: Clock, two: Clock, mark: Stamp
) -> None:
    """Folding after all holders have seen all of it makes nobody seem to lack anything."""
    ours, theirs = function(one), function(two)
    lacks = [o for o in EVERYBODY if min(theirs[o], mark) > ours[o]]
    if not lacks:
        assert not clock_below(one, two, mark)
    elif BASE not in two:
        assert clock_below(one, two, mark)
    level = made(one, two)
    assert not clock_below(level.clock(SLOT), two, mark)
    folded = made(level.clock(SLOT))
    folded.fold(SLOT, (A, B).__contains__, 1 << 60)
    assert not clock_below(level.clock(SLOT), folded.clock(SLOT), mark)
    assert not clock_below(folded.clock(SLOT), level.clock(SLOT), mark)
    if min(folded.seen(SLOT, BASE), mark):
        assert clock_below({}, folded.clock(SLOT), mark), "a newcomer has seen nothing"


@given(clock=clocks_drawn, gone=st.sets(st.sampled_from((A, B, C))), older_than=st.integers(1, 9))
def test_folding_lowers_nothing_and_leaves_live_and_young_entries_alone(
    clock: Clock, gone: set[Origin], older_than: Stamp
) -> None:
    clocks = made(clock)
    before = clocks.clock(SLOT)
    fold = [o for o in before if o in gone and before[o] < older_than]
    assert clocks.fold(SLOT, gone.__contains__, older_than) == len(fold)
    clocks.check()
    after = clocks.clock(SLOT)
    base = max([before.get(BASE, 0), *(before[o] for o in fold)])
    assert clock_includes(after, before)
    assert after.get(BASE, 0) == base
    kept = {o: before[o] for o in before if o not in fold and o != BASE}
    assert {o: after.get(o, base) for o in kept} == kept
    assert clocks.fold(SLOT, gone.__contains__, older_than) == 0


@given(clock=clocks_drawn, base=stamps, notes=st.lists(st.tuples(stamps, stamps), max_size=6))
def test_a_risen_base_absorbs_notes_and_loose_writes(
    clock: Clock, base: Stamp, notes: list[tuple[Stamp, Stamp]]
) -> None:
    """The clock gets as far with the base first as with the notes first."""
    first, last = made(clock), made(clock, {BASE: base})
    for prev, step in notes:
        first.witness(SLOT, C, prev, prev + step, 64)
        last.witness(SLOT, C, prev, prev + step, 64)
    first.hold_loose(SLOT, A, base)
    first.merge(SLOT, {BASE: base})
    first.check()
    last.check()
    assert first.covers(SLOT, Version(base, *A))
    assert not first.has_loose(SLOT)
    assert (first.clock(SLOT), first.spans(SLOT)) == (last.clock(SLOT), last.spans(SLOT))
    assert first.digest(SLOT) == last.digest(SLOT)


def test_a_slot_with_gaps_is_not_folded() -> None:
    clocks = made({A: 5})
    clocks.witness(SLOT, B, 7, 8, 64)
    assert clocks.fold(SLOT, lambda _origin: True, 100) == 0
    assert clocks.clock(SLOT) == {A: 5}


def test_columns_without_an_entry_are_released_with_their_bytes() -> None:
    clocks = Clocks()
    for boot in range(1, 21):
        for slot in range(100):
            clocks.merge(slot, {(1, boot): boot * 100 + slot})
    column_bytes = COLUMN_BYTES + 128 * STAMP_BYTES
    assert ROWS_STEP == 64
    assert clocks.bytes_used == 20 * column_bytes
    for slot in range(100):
        clocks.fold(slot, lambda origin: origin[1] < 20, 1 << 60)
    assert clocks.prune() == 19
    assert clocks.bytes_used == 2 * column_bytes
    assert clocks.origins() == ((1, 20),)
    assert clocks.clock(5) == {BASE: 1905, (1, 20): 2005}
    clocks.check()
    for slot in range(100):
        clocks.drop(slot)
    assert clocks.bytes_used == 0
    clocks.check()


# ------------------------------------------------------------------ stores


def value(stamp: Stamp, origin: Origin, prev: Stamp, key: bytes = b"k") -> Record:
    return Record(key, Kind.VALUE, b"%d" % stamp, Version(stamp, *origin), 0, prev)


def fold_all(store: Store, *gone: Origin, older_than: Stamp = 1 << 60) -> int:
    return store.fold(SLOT, gone.__contains__, older_than)


def test_a_write_that_only_the_base_covers_is_refused() -> None:
    store = Store(memory_limit_bytes=1 * MIB)
    for stamp in (5, 6):
        store.apply(SLOT, value(stamp, A, stamp - 1 if stamp > 5 else 0), 0)
    store.refill(SLOT, [Listing({A: 6}, (), 0)])
    assert fold_all(store, A) == 1
    assert store.clock(SLOT) == {BASE: 6}
    for prev in (5, PREV_UNKNOWN):
        assert store.apply(SLOT, value(6, A, prev), 0) is Applied.COVERED
    assert store.get(SLOT, b"k", 0) is None
    store.check()


def test_the_first_write_of_a_boot_advances_behind_the_base() -> None:
    folded, plain = Store(memory_limit_bytes=1 * MIB), Store(memory_limit_bytes=1 * MIB)
    folded.merge_clock(SLOT, {A: 50})
    fold_all(folded, A)
    assert folded.own_prev(SLOT, B) == 0
    folded.write(SLOT, value(60, B, 0), 0)
    plain.apply(SLOT, value(60, B, 0), 0)
    assert folded.clock(SLOT) == {BASE: 50, B: 60}
    assert plain.clock(SLOT) == {B: 60}
    assert not plain.has_gaps(SLOT)


@pytest.mark.parametrize("by_merging", [True, False])
def test_an_own_write_that_the_base_covers_still_precedes_the_next(by_merging: bool) -> None:
    """Or a node that missed it would believe, with the next one, that it has seen it."""
    store = Store(memory_limit_bytes=1 * MIB)
    store.write(SLOT, value(50, B, 0), 0)
    store.merge_clock(SLOT, {BASE: 50} if by_merging else {A: 50})
    fold_all(store, A)
    assert store.clock(SLOT) == {BASE: 50}
    assert store.own_prev(SLOT, B) == 50
    store.write(SLOT, value(60, B, 50), 0)
    assert store.clock(SLOT) == {BASE: 50, B: 60}
    assert store.own_prev(SLOT, B) == 60
    store.check()


def test_new_stamps_must_be_above_the_base_and_the_mark() -> None:
    store = Store(memory_limit_bytes=1 * MIB)
    assert store.floor(SLOT) == 0
    store.merge_clock(SLOT, {BASE: 50})
    assert store.floor(SLOT) == 50
    store.merge_clock(SLOT, {}, mark=60)
    assert store.floor(SLOT) == 60


def test_a_version_that_names_nobody_changes_nothing() -> None:
    store = Store(memory_limit_bytes=1 * MIB)
    store.merge_clock(SLOT, {BASE: 50})
    store.changed.clear()
    for prev in (PREV_UNKNOWN, 0, 50, 70):
        assert store.apply(SLOT, value(80, BASE, prev), 0) is Applied.COVERED
        assert store.install(SLOT, value(80, BASE, prev), 0) is Applied.OLDER
    store.merge_spans(SLOT, [(BASE, 50, 90), (BASE, 0, 90)])
    assert store.clock(SLOT) == {BASE: 50}
    assert store.peek(SLOT, b"k") is None
    assert not store.has_gaps(SLOT)
    assert not store.changed
    with pytest.raises(AssertionError):
        store.write(SLOT, value(80, BASE, 0), 0)


# ------------------------------------------------------------------ any schedule, beside a twin

KEYS = [b"%d" % n for n in range(5)]


class Peer:
    """A store that folds, and its twin that is told the same and never does."""

    def __init__(self, node: int) -> None:
        self.node, self.boot = node, 1
        self.folding = Store(memory_limit_bytes=4 * MIB)
        self.plain = Store(memory_limit_bytes=4 * MIB)

    @property
    def origin(self) -> Origin:
        return (self.node, self.boot)

    @property
    def stores(self) -> tuple[Store, Store]:
        return (self.folding, self.plain)


class Peers:
    """Three holders of a slot; every lost message is healed by a later pull."""

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.stamp = rng, 0
        self.peers = [Peer(node) for node in (1, 2, 3)]
        self.evicted: dict[int, set[Version]] = {1: set(), 2: set(), 3: set()}

    def write(self) -> None:
        """Write at one peer; others may get it now, or only by a pull."""
        rng = self.rng
        peer = rng.choice(self.peers)
        self.stamp += rng.randrange(1, 4)
        key, version = rng.choice(KEYS), Version(self.stamp, *peer.origin)
        prev = [store.own_prev(SLOT, peer.origin) for store in peer.stores]
        # Where the base covers the first writes of a boot both name what they really follow.
        assert prev[0] == prev[1]
        record = Record(key, Kind.VALUE, b"%d" % self.stamp, version, 0, prev[0])
        if rng.random() < 0.2:
            record = record._replace(kind=Kind.TOMBSTONE, value=b"")
        for store in peer.stores:
            store.write(SLOT, record, 0)
        for other in self.peers:
            if other is not peer and rng.random() < 0.5:
                self.apply(other, record)

    def apply(self, peer: Peer, record: Record) -> None:
        """Give both twins what came by repair; both must take it or refuse it."""
        before = peer.folding.peek(SLOT, record.key)
        took = peer.folding.apply(SLOT, record, 0)
        assert took == peer.plain.apply(SLOT, record, 0)
        if record.version in self.evicted[peer.node]:
            assert peer.folding.peek(SLOT, record.key) is before, "repair undid an eviction"

    def restart(self) -> None:
        """A peer starts anew, after everybody has what it wrote; empty, then pulls."""
        self.level()
        peer = self.rng.choice(self.peers)
        peer.boot += 1
        peer.folding, peer.plain = Peer(0).stores
        self.evicted[peer.node].clear()
        for other in self.peers:
            if other is not peer:
                self.pull(peer, other)

    def pull(self, asker: Peer, answerer: Peer) -> None:
        """One complete exchange in one direction, for both twins."""
        for one, two in zip(asker.stores, answerer.stores, strict=True):
            clock, spans = dict(two.clock(SLOT)), two.spans(SLOT)
            for record in two.comparison.lacking(SLOT, one.clock(SLOT), NO_VERSION):
                one.apply(SLOT, record, 0)
            one.merge_clock(SLOT, clock, two.mark(SLOT))
            one.merge_spans(SLOT, spans)

    def level(self) -> None:
        for _ in range(2):
            for asker in self.peers:
                for answerer in self.peers:
                    if asker is not answerer:
                        self.pull(asker, answerer)

    def evict(self) -> None:
        """A peer loses all values; repair must not bring any back."""
        peer = self.rng.choice(self.peers)
        for store in peer.stores:
            values = [e.version for e in store.tables[SLOT].values() if e.kind is Kind.VALUE]
            self.evicted[peer.node].update(v for v in values if store.covers(SLOT, v))
            store.refill(SLOT, [Listing(store.clock(SLOT), (), 0)])

    def fold(self) -> int:
        """One peer folds, by the rule: level with all, gone and older than what may come."""
        self.level()
        live = {peer.origin for peer in self.peers}
        older_than = self.stamp - self.rng.choice((0, 0, 5, 20))
        peer = self.rng.choice(self.peers)
        return peer.folding.fold(SLOT, lambda origin: origin not in live, older_than)

    def check(self) -> None:
        """Folding shows nowhere but in the clock itself."""
        for peer in self.peers:
            folding, plain = peer.stores
            assert held(folding) == held(plain)
            assert folding.has_gaps(SLOT) == plain.has_gaps(SLOT)
            assert clock_includes(folding.clock(SLOT), plain.clock(SLOT))


def held(store: Store) -> dict[bytes, tuple[Kind, bytes, Version]]:
    return {k: (e.kind, e.value, e.version) for k, e in store.tables[SLOT].items()}


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_stores_that_fold_at_different_times_hold_what_they_would_have_held(seed: int) -> None:
    rng = random.Random(seed)
    peers = Peers(rng)
    steps: list[Callable[[], object]] = [
        *[peers.write] * 12,
        *[lambda: peers.pull(*rng.sample(peers.peers, 2))] * 4,
        *[peers.fold] * 3,
        peers.restart, peers.restart, peers.evict,
    ]  # fmt: skip
    for _ in range(60):
        rng.choice(steps)()
        peers.check()
    finish(peers)


def finish(peers: Peers) -> None:
    """All fold what is gone: then all are equal, silent, and as small as they can be."""
    live = {peer.origin for peer in peers.peers}
    peers.level()
    for peer in peers.peers:
        peer.folding.fold(SLOT, lambda origin: origin not in live, 1 << 60)
    peers.level()
    for peer in peers.peers:
        before = peer.folding.bytes_used
        pruned = peer.folding.prune_clocks()
        assert (peer.folding.bytes_used < before) == bool(pruned)
        assert set(peer.folding.clock_origins()) <= live
        peer.folding.check()
    assert len({peer.folding.comparison.digest(SLOT) for peer in peers.peers}) == 1
    assert len({peer.plain.comparison.digest(SLOT) for peer in peers.peers}) == 1
    peers.check()


@given(one=clocks_drawn)
def test_a_pull_between_a_folded_and_an_unfolded_store_brings_nothing_back(one: Clock) -> None:
    """In either direction: the unfolded one gets the base, the folded one gets nothing new."""
    folded, plain = Store(memory_limit_bytes=1 * MIB), Store(memory_limit_bytes=1 * MIB)
    for store in (folded, plain):
        store.merge_clock(SLOT, one)
    folded.fold(SLOT, (A, B, C).__contains__, 1 << 60)
    before = dict(folded.clock(SLOT))
    folded.merge_clock(SLOT, plain.clock(SLOT))
    assert folded.clock(SLOT) == before
    plain.merge_clock(SLOT, before)
    assert plain.clock(SLOT) == before
    assert plain.comparison.digest(SLOT) == folded.comparison.digest(SLOT)
