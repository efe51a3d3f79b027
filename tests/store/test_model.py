"""The store under any sequence of calls, beside a list of everything that ever reached it.

Three origins write to two slots; the writes reach the store late, twice, out of order, with and
without their predecessors, by replication, exchange and reads, while it evicts, expires, forgets,
clears and drops. The model cannot know what was evicted; it knows what may never be seen.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from dcc.config import EVICTION_POLICIES
from dcc.store import Applied, Store
from dcc.store.doubt import Listing
from dcc.store.entry import HEARD
from dcc.types import PREV_UNKNOWN, Kind, Origin, Record, Stamp, Version

ME: Origin = (1, 10)
ORIGINS: list[Origin] = [(0, 5), (2, 20), (2, 21)]
SLOTS = (3, 16_000)
KEYS = [b"%d" % n for n in range(6)]

slots = st.sampled_from(SLOTS)
keys = st.sampled_from(KEYS)
picks = st.integers(0, 10_000)


class StoreModel(RuleBasedStateMachine):
    """What was written anywhere, and what of it this store was told."""

    @initialize(
        limit=st.sampled_from((5_000, 20_000, 1_000_000)),
        eviction=st.sampled_from(EVICTION_POLICIES),
    )
    def start(self, limit: int, eviction: str) -> None:
        self.store = Store(memory_limit_bytes=limit, eviction=eviction)
        self.now_ms = 1000
        self.stamp: Stamp = 100
        self.sent: list[tuple[int, Record]] = []
        self.last: dict[tuple[int, Origin], Stamp] = {}
        self.forget_what_was_seen(SLOTS)
        self.cleared: Stamp = 0
        self.digests: dict[int, int] = {}

    def forget_what_was_seen(self, slots: tuple[int, ...]) -> None:
        if not hasattr(self, "seen"):
            self.seen: set[tuple[int, Version]] = set()
            self.told: set[tuple[int, Version]] = set()
            self.floor: dict[tuple[int, bytes], Version] = {}
        self.seen = {(s, v) for s, v in self.seen if s not in slots}
        self.told = {(s, v) for s, v in self.told if s not in slots}
        self.floor = {(s, k): v for (s, k), v in self.floor.items() if s not in slots}

    # ---------------------------------------------------------- what happens elsewhere

    def make(self, slot: int, key: bytes, origin: Origin, data: Any, prev: Stamp) -> Record:
        self.stamp += data.draw(st.integers(1, 3), "stamp step")
        version = Version(self.stamp, *origin)
        kind = data.draw(st.sampled_from((Kind.VALUE, Kind.VALUE, Kind.TOMBSTONE)), "kind")
        size = data.draw(st.sampled_from((0, 1, 300, 2000, 30_000)), "size")
        value = b"%d:" % self.stamp + bytes(size) if kind is Kind.VALUE else b""
        lives_ms = data.draw(st.sampled_from((0, 0, 5, 3000, 500_000)), "ttl")
        expires_at_ms = self.now_ms + lives_ms if lives_ms and kind is Kind.VALUE else 0
        return Record(key, kind, value, version, expires_at_ms, prev)

    @rule(slot=slots, key=keys, origin=st.sampled_from(ORIGINS), data=st.data())
    def another_node_writes(self, slot: int, key: bytes, origin: Origin, data: Any) -> None:
        prev = self.last.get((slot, origin), 0)
        record = self.make(slot, key, origin, data, prev)
        self.last[slot, origin] = record.version.stamp
        self.sent.append((slot, record))

    # ---------------------------------------------------------- what reaches the store

    def expect(self, slot: int, record: Record, applied: Applied) -> None:
        """Assert what holds after `record` was given to the store, on whichever path."""
        entry = self.store.peek(slot, record.key)
        name = (slot, record.key)
        if applied is Applied.NEWER and entry is not None:
            assert entry.version == record.version
        if applied is Applied.VALUE:
            assert entry is not None
            assert (entry.version, entry.value) == (record.version, record.value)
        if applied is Applied.GHOST and entry is not None:
            assert (entry.kind, entry.version) == (Kind.EVICTED, record.version)
        if entry is not None and entry.kind is Kind.VALUE:
            assert entry.version >= self.floor.get(name, entry.version)
        if applied is not Applied.COVERED:
            self.floor[name] = max(record.version, self.floor.get(name, record.version))

    @rule(slot=slots, key=keys, data=st.data())
    def this_node_writes(self, slot: int, key: bytes, data: Any) -> None:
        prev = self.store.own_prev(slot, ME)
        assert prev == self.last.get((slot, ME), 0)
        record = self.make(slot, key, ME, data, prev)
        self.last[slot, ME] = record.version.stamp
        self.sent.append((slot, record))
        applied = self.store.write(slot, record, self.now_ms)
        assert applied in (Applied.NEWER, Applied.GHOST)
        assert self.store.covers(slot, record.version)
        self.seen.add((slot, record.version))
        self.expect(slot, record, applied)

    @precondition(lambda self: self.sent)
    @rule(pick=picks, chained=st.booleans(), repeat=st.booleans())
    def a_write_arrives(self, pick: int, chained: bool, repeat: bool) -> None:
        slot, record = self.sent[pick % len(self.sent)]
        for _ in range(1 + repeat):
            self.apply(slot, record if chained else record._replace(prev=PREV_UNKNOWN))

    def apply(self, slot: int, record: Record) -> None:
        store, version = self.store, record.version
        covered = store.covers(slot, version)
        before = store.peek(slot, record.key)
        had_value = before is not None and before.kind is Kind.VALUE
        only_heard = before is not None and bool(before.asked & HEARD)
        figures = (store.items, store.ghosts, store.tombstones, store.expired_records)
        applied = store.apply(slot, record, self.now_ms)
        assert (applied is Applied.COVERED) == covered
        if covered:
            assert figures == (
                store.items, store.ghosts, store.tombstones, store.expired_records
            )  # fmt: skip
        after = store.peek(slot, record.key)
        if (slot, version) in self.told and after is not None and after.version == version:
            # What was doubted for others' sake, and not evicted here, whoever has it may bring.
            brought = after.kind is Kind.VALUE and not had_value and not only_heard
            assert not brought, "repair brought back a value that was evicted here"
        self.told.add((slot, version))
        if record.prev != PREV_UNKNOWN:
            self.seen.add((slot, version))
            assert store.covers(slot, version), "few gaps: each is noted"
        self.expect(slot, record, applied)

    @precondition(lambda self: self.sent)
    @rule(pick=picks)
    def a_reader_finds_a_record_elsewhere(self, pick: int) -> None:
        slot, record = self.sent[pick % len(self.sent)]
        before = self.store.peek(slot, record.key)
        if before is None:
            # Forgotten: a reader that found an older one elsewhere is believed.
            self.floor.pop((slot, record.key), None)
        applied = self.store.install(slot, record._replace(prev=PREV_UNKNOWN), self.now_ms)
        assert applied is not Applied.COVERED
        self.expect(slot, record, applied)

    @precondition(lambda self: self.sent)
    @rule(slot=slots, origin=st.sampled_from(ORIGINS))
    def an_exchange_ends(self, slot: int, origin: Origin) -> None:
        """All of one origin's writes have come; then the clock says so."""
        for where, record in self.sent:
            if where == slot and record.version.origin == origin:
                self.apply(slot, record._replace(prev=PREV_UNKNOWN))
                self.seen.add((slot, record.version))
        self.store.merge_clock(slot, {origin: self.last.get((slot, origin), 0)})

    # ---------------------------------------------------------- what the store does meanwhile

    @rule(step_ms=st.sampled_from((0, 1, 5, 2000, 100_000)), limit=st.sampled_from((2, 1000)))
    def time_passes_and_a_sweep_runs(self, step_ms: int, limit: int) -> None:
        self.now_ms += step_ms
        self.store.sweep(self.now_ms, limit)

    @rule(slot=slots)
    def an_empty_holder_that_saw_all_refills_it(self, slot: int) -> None:
        clock = dict.fromkeys((*ORIGINS, ME), self.stamp)
        self.store.refill(slot, [Listing(clock, (), 0)])
        assert not self.store.keys(slot, self.now_ms)

    @rule(slot=slots)
    def every_holder_is_level(self, slot: int) -> None:
        """What no holder can bring any more may be forgotten: nothing older is under way then."""
        clock = self.store.clock(slot)
        under_way = [
            r for s, r in self.sent if s == slot and not self.store.covers(slot, r.version)
        ]
        if not under_way:
            self.store.forgetting.note_covered(slot, 7, clock)
            self.store.forgetting.forget_covered(slot, [7])

    @rule(slot=slots)
    def a_holder_is_behind(self, slot: int) -> None:
        self.store.forgetting.note_covered(slot, 8, {})
        tombstones = self.store.tombstones
        self.store.forgetting.forget_covered(slot, [7, 8])
        assert self.store.tombstones == tombstones

    @rule()
    def everything_is_cleared(self) -> None:
        self.stamp += 1
        self.cleared = self.stamp
        self.store.clear(self.stamp)

    @rule(slot=slots)
    def the_slot_is_released(self, slot: int) -> None:
        self.store.drop_slot(slot)
        self.forget_what_was_seen((slot,))
        assert self.store.clock(slot) == {}
        assert self.store.comparison.digest(slot) == 0

    # ---------------------------------------------------------- what must hold

    @rule(slot=slots, key=keys)
    def a_client_reads(self, slot: int, key: bytes) -> None:
        listed = key in self.store.keys(slot, self.now_ms)
        entry = self.store.get(slot, key, self.now_ms)
        assert (entry is not None) == listed
        if entry is None:
            return
        writes = {r.version: r for s, r in self.sent if s == slot and r.key == key}
        record = writes[entry.version]
        assert (entry.kind, entry.value) == (Kind.VALUE, record.value)
        assert not 0 < record.expires_at_ms <= self.now_ms
        assert entry.version.stamp > self.cleared
        assert entry.version >= self.floor.get((slot, key), entry.version)

    @invariant()
    def clocks_claim_what_was_seen_and_nothing_else(self) -> None:
        if not hasattr(self, "store"):
            return
        for slot, record in self.sent:
            covers = self.store.covers(slot, record.version)
            assert covers == ((slot, record.version) in self.seen)

    @invariant()
    def whatever_is_held_reaches_who_lacks_it(self) -> None:
        if not hasattr(self, "store"):
            return
        for slot in SLOTS:
            lacking = self.store.comparison.lacking(slot, {})
            versions = [record.version for record in lacking]
            assert versions == sorted(versions)
            assert not lacking or self.store.comparison.is_ahead(slot, {})
            assert not lacking or self.store.comparison.digest(slot) != 0
            assert len(self.store.comparison.hashes(slot)) == sum(
                not self.barren(slot, r) for r in lacking
            )
            assert not self.store.comparison.lacking(
                slot, dict.fromkeys((*ORIGINS, ME), self.stamp)
            )
            prevs = {r.version: r.prev for s, r in self.sent if s == slot}
            assert all(r.prev in (PREV_UNKNOWN, prevs[r.version]) for r in lacking)

    def barren(self, slot: int, record: Record) -> bool:
        """A ghost whose value nobody has: it is not listed to whom it would only mislead."""
        entry = self.store.peek(slot, record.key)
        return entry is not None and entry.kind is Kind.EVICTED and bool(entry.asked)

    @invariant()
    def a_slot_whose_digest_changed_is_named(self) -> None:
        if not hasattr(self, "store"):
            return
        for slot in SLOTS:
            digest = self.store.comparison.digest(slot)
            assert digest == self.digests.get(slot, 0) or slot in self.store.changed
            self.digests[slot] = digest
        assert self.store.changed <= set(SLOTS)
        self.store.changed.clear()

    @invariant()
    def the_sums_are_right_and_the_limit_holds(self) -> None:
        if hasattr(self, "store"):
            self.store.check()
            if self.store.memory_limit_bytes > 5_000:
                assert self.store.bytes_used <= self.store.memory_limit_bytes


TestStoreModel = StoreModel.TestCase
TestStoreModel.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
