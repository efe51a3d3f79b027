"""The store's count of its own bytes beside what Python says it allocated."""

from __future__ import annotations

import gc
import random
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcc.config import EVICTION_POLICIES
from dcc.limits import SLOT_COUNT
from dcc.store import Store
from dcc.types import Kind, Record, Version
from dcc.units import GIB, KIB, MIB

NOW_MS = 1_800_000_000_000
ENTRIES = 20_000
NODES = [0xFEDC_BA98_7654_3210 + n for n in range(3)]


@contextmanager
def traced() -> Iterator[Callable[[], int]]:
    """Yield a function that returns the bytes allocated since, and still held."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]

        def held() -> int:
            gc.collect()
            return tracemalloc.get_traced_memory()[0] - before

        yield held
    finally:
        tracemalloc.stop()


def fill(store: Store, *, value_bytes: int, ttl_ms: int, kind: Kind, slots: int) -> None:
    """Apply records that share no object with each other, as if each had been decoded."""
    last = [[0] * len(NODES) for _ in range(slots)]
    for n in range(ENTRIES):
        slot, who = n * 7919 % slots, n % len(NODES)
        stamp = (NOW_MS << 16) + n
        node, boot = (int(str(number)) for number in (NODES[who], NOW_MS << 16))
        value = bytes(bytearray(value_bytes)) if kind is Kind.VALUE else b""
        expires_at_ms = NOW_MS + ttl_ms + n if ttl_ms else 0
        prev = last[slot][who]
        last[slot][who] = stamp
        version = Version(stamp, node, boot)
        store.apply(
            slot, Record(b"key:%010d" % n, kind, value, version, expires_at_ms, prev), NOW_MS
        )


@pytest.mark.parametrize(
    ("value_bytes", "ttl_ms", "kind", "slots"),
    [
        (100, 0, Kind.VALUE, SLOT_COUNT),
        (100, 3_600_000, Kind.VALUE, 400),
        (2000, 0, Kind.VALUE, SLOT_COUNT),
        (0, 0, Kind.TOMBSTONE, 400),
    ],
)
def test_the_count_is_within_a_tenth_of_what_is_allocated(
    value_bytes: int, ttl_ms: int, kind: Kind, slots: int
) -> None:
    with traced() as held:
        store = Store(memory_limit_bytes=1 * GIB)
        empty = held()
        fill(store, value_bytes=value_bytes, ttl_ms=ttl_ms, kind=kind, slots=slots)
        allocated = held() - empty
    assert store.bytes_used == pytest.approx(allocated, rel=0.1)


def test_what_a_store_costs_empty_is_little() -> None:
    with traced() as held:
        store = Store(memory_limit_bytes=1 * GIB)
        assert held() < 1 * MIB
    assert store.bytes_used == 0


def test_memory_comes_back_when_slots_are_dropped() -> None:
    with traced() as held:
        store = Store(memory_limit_bytes=1 * GIB)
        empty = held()
        fill(store, value_bytes=100, ttl_ms=60_000, kind=Kind.VALUE, slots=400)
        for slot in store.slots_held():
            store.drop_slot(slot)
        assert store.bytes_used == 0
        assert held() - empty < 64 * KIB


def test_the_limit_holds_when_sizes_shift_and_slots_of_a_small_node_fill_up() -> None:
    """Small values everywhere, then large ones: tables and clocks must leave room for them."""
    store = Store(memory_limit_bytes=2 * MIB)
    rng = random.Random(5)
    stamp = 0
    for size in (10, 100_000, 10, 3_000):
        for _ in range(3_000 if size < 10_000 else 300):
            stamp += 1
            slot = rng.randrange(SLOT_COUNT)
            origin = (NODES[stamp % 3], 1)
            prev = store.clock(slot).get(origin, 0)
            record = Record(
                b"%d" % stamp, Kind.VALUE, bytes(size), Version(stamp, *origin), 0, prev
            )
            store.apply(slot, record, NOW_MS)
            assert store.bytes_used <= 2 * MIB
        assert store.item_bytes > (0.5 * MIB if size > 1000 else 10_000)
    store.check()


@settings(max_examples=20)
@given(
    limit_bytes=st.integers(100_000, 1_000_000),
    eviction=st.sampled_from(EVICTION_POLICIES),
    seed=st.integers(0, 2**32),
)
def test_the_limit_holds_after_every_call(limit_bytes: int, eviction: str, seed: int) -> None:
    rng = random.Random(seed)
    store = Store(memory_limit_bytes=limit_bytes, eviction=eviction)
    for stamp in range(1, 200):
        slot, origin = rng.randrange(50), (rng.randrange(5), 1 + rng.randrange(3))
        kind = Kind.VALUE if rng.random() < 0.8 else Kind.TOMBSTONE
        value = bytes(int(rng.paretovariate(0.4)) % 300_000) if kind is Kind.VALUE else b""
        expires_at_ms = rng.choice((0, stamp + rng.randrange(1, 1 << rng.randrange(1, 40))))
        key = b"%d" % rng.randrange(300)
        record = Record(key, kind, value, Version(stamp, *origin), expires_at_ms, stamp // 3)
        store.apply(slot, record, stamp)
        assert store.bytes_used <= limit_bytes
        store.get(slot, b"%d" % rng.randrange(300), stamp)
        store.forgetting.note_covered(slot, 1, {origin: stamp})
        assert store.bytes_used <= limit_bytes
    store.check()
