"""What the store costs: nanoseconds for a hit and for a write, bytes for a key.

    python -m benchmarks.store                 # 20,000 hot keys, 200,000 keys for memory
    python -m benchmarks.store --keys 1000000  # memory and cold hits with a million keys

Times are the best of several rounds of single operations in a loop whose own cost is taken off.
Memory is the growth of the resident set beside what the store counts. The collector is frozen
and off while times are taken, as a node has it.
"""

from __future__ import annotations

import argparse
import gc
import random
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter_ns

from dcc.config import EVICTION_POLICIES
from dcc.limits import SLOT_COUNT
from dcc.ring.hashing import slot_of
from dcc.store import Store
from dcc.types import PREV_UNKNOWN, Kind, Record, Version
from dcc.units import GIB, MIB

NOW_MS = 1_800_000_000_000
NODE, BOOT = 0xFEDC_BA98_7654_3210, NOW_MS << 16
HOT_KEYS = 20_000
ROUNDS = 5

Step = Callable[[int], object]


def make_records(count: int, *, value_bytes: int, start: int = 0) -> list[tuple[int, Record]]:
    """Return (slot, record) for keys 0..count-1, as a decoder makes them: nothing shared."""
    made = []
    for i in range(count):
        key = b"key:%012d" % i
        version = Version(((NOW_MS + start) << 16) + i, int(str(NODE)), int(str(BOOT)))
        value = i.to_bytes(4, "big") * (value_bytes // 4)
        made.append((slot_of(key), Record(key, Kind.VALUE, value, version, 0, PREV_UNKNOWN)))
    return made


def chained(records: list[tuple[int, Record]]) -> list[tuple[int, Record]]:
    """Return the records with the stamp of the write before in the slot, as a stream has them."""
    last = [0] * SLOT_COUNT
    done = []
    for slot, record in records:
        done.append((slot, record._replace(prev=last[slot])))
        last[slot] = record.version.stamp
    return done


def ns_each(count: int, step: Step) -> float:
    """Return the mean time of `step(i)` for i in 0..count-1, without the loop's own."""

    def nothing(_i: int) -> None:
        return None

    taken = []
    for each in (nothing, step):
        begun = perf_counter_ns()
        for i in range(count):
            each(i)
        taken.append((perf_counter_ns() - begun) / count)
    return taken[1] - taken[0]


def fill(store: Store, records: list[tuple[int, Record]]) -> None:
    """Apply all records."""
    for slot, record in records:
        store.apply(slot, record, NOW_MS)


def hits(policy: str, records: list[tuple[int, Record]], hot: int) -> tuple[float, float]:
    """Return ns for a hit among `hot` keys, and by random order among all."""
    store = Store(memory_limit_bytes=8 * GIB, eviction=policy)
    fill(store, records)
    rng = random.Random(1)
    get = store.get
    asks = [(slot, record.key) for slot, record in records]
    warm = [rng.choice(asks[:hot]) for _ in range(100_000)]
    cold = [rng.choice(asks) for _ in range(100_000)]
    gc.freeze()

    def run(order: list[tuple[int, bytes]]) -> float:
        return min(ns_each(len(order), lambda i: get(*order[i], NOW_MS)) for _ in range(ROUNDS))

    bare = min(ns_each(len(warm), lambda i: warm[i]) for _ in range(ROUNDS))
    found = run(warm) - bare, run(cold) - bare
    gc.unfreeze()
    return found


def writes(policy: str, count: int) -> dict[str, float]:
    """Return ns for each kind of write."""
    first = chained(make_records(count, value_bytes=100))
    again = chained(make_records(count, value_bytes=100, start=1000))
    loose = make_records(count, value_bytes=100, start=2000)
    store = Store(memory_limit_bytes=8 * GIB, eviction=policy)
    full = Store(memory_limit_bytes=4 * MIB, eviction=policy)
    # A stream goes on: what comes again is chained to what came before.
    tails = {slot: record.version.stamp for slot, record in first}
    again = [
        (slot, record._replace(prev=record.prev or tails[slot])) for slot, record in again
    ]

    def applies(to: Store, records: list[tuple[int, Record]]) -> float:
        return ns_each(count, lambda i: to.apply(*records[i], NOW_MS))

    return {
        "apply, new key": applies(store, first),
        "apply, newer version": applies(store, again),
        "apply, seen before": applies(store, again),
        "install, newer version": ns_each(count, lambda i: store.install(*loose[i], NOW_MS)),
        "apply, new key, full": applies(full, first),
        "apply, newer version, full": applies(full, again),
    }


def resident_bytes() -> int | None:
    """Return the resident set of this process, or None where /proc does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    return pages * 4096


def memory(count: int) -> None:
    """Print bytes for each key by the store's count and by the resident set."""
    gc.collect()
    before = resident_bytes()
    store = Store(memory_limit_bytes=8 * GIB)
    for i in range(count):
        key = b"key:%012d" % i
        slot = slot_of(key)
        version = Version((NOW_MS << 16) + i, int(str(NODE)), int(str(BOOT)))
        prev = max(store.clock(slot).values(), default=0)
        record = Record(key, Kind.VALUE, b"v" * 99 + bytes([i % 256]), version, 0, prev)
        store.apply(slot, record, NOW_MS)
    after = resident_bytes()
    counted = store.bytes_used / count
    print(f"memory, {count:,} keys of 16 bytes with values of 100: counted {counted:.0f} B/key")
    if before is None or after is None:
        print("resident set: skipped, /proc/self/statm is not there")
        return
    grown = (after - before) / count
    print(f"resident set {grown:.0f} B/key, {grown / counted:.3f} of what is counted")


def main() -> int:
    """Print all tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.store", description=__doc__)
    parser.add_argument("--keys", type=int, default=200_000, help="keys for memory and cold hits")
    keys = parser.parse_args().keys
    memory(keys)
    gc.disable()
    records = chained(make_records(keys, value_bytes=100))
    for policy in EVICTION_POLICIES:
        hot, cold = hits(policy, records, min(keys, HOT_KEYS))
        print(f"{policy}: hit {hot:.0f} ns among {HOT_KEYS:,} keys, {cold:.0f} ns among {keys:,}")
        for name, ns in writes(policy, HOT_KEYS).items():
            print(f"{policy}: {name:<28} {ns:>8.0f} ns")
    return 0


if __name__ == "__main__":
    sys.exit(main())
