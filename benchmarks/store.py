"""What the store costs: nanoseconds for a hit and for a write, bytes for a key.

    python -m benchmarks.store                   # 20,000 hot keys, 200,000 keys for memory
    python -m benchmarks.store --keys 1000000    # memory and cold hits with a million keys
    python -m benchmarks.store --only memory --keys 1000000
    python -m benchmarks.store --only clocks     # a write with and without clocks and digests
    python -m benchmarks.store --only churn      # the resident set at the limit

Times are CPU time, best of several rounds, without the loop's own; a dictionary look-up of the
same keys in the same order stands beside the hits, since caches and neighbours on the machine
matter more than code. Memory is the growth of the resident set beside what the store counts. The
collector is off and everything frozen while times are taken, as in a node.
"""

from __future__ import annotations

import argparse
import gc
import random
import sys
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from time import process_time_ns

from dcc.config import EVICTION_POLICIES
from dcc.limits import SLOT_COUNT
from dcc.ring.hashing import slot_of
from dcc.store import Store
from dcc.store.memory import Memory
from dcc.types import PREV_UNKNOWN, Kind, Record, Version
from dcc.units import GIB, MIB

NOW_MS = 1_800_000_000_000
NODE, BOOT = 0xFEDC_BA98_7654_3210, NOW_MS << 16
HOT_KEYS = 20_000
CHURN_LIMIT_BYTES = 256 * MIB
ROUNDS = 5

Asks = list[tuple[int, bytes]]
Writes = list[tuple[int, Record]]


def make_records(count: int, *, value_bytes: int, start: int = 0) -> Writes:
    """Return (slot, record) for keys 0..count-1, as a decoder makes them: nothing shared."""
    made = []
    for i in range(count):
        key = b"key:%012d" % i
        version = Version(((NOW_MS + start) << 16) + i, int(str(NODE)), int(str(BOOT)))
        value = i.to_bytes(4, "big") * (value_bytes // 4)
        made.append((slot_of(key), Record(key, Kind.VALUE, value, version, 0, PREV_UNKNOWN)))
    return made


def chained(records: Writes) -> Writes:
    """Return the records with the stamp of the write before in the slot, as a stream has them."""
    last = [0] * SLOT_COUNT
    done = []
    for slot, record in records:
        done.append((slot, record._replace(prev=last[slot])))
        last[slot] = record.version.stamp
    return done


def best_ns(run: Callable[..., None], *arguments: object) -> float:
    """Return CPU ns of the best of several runs."""
    taken = []
    for _ in range(ROUNDS):
        begun = process_time_ns()
        run(*arguments)
        taken.append(process_time_ns() - begun)
    return min(taken)


def hits(policy: str, records: Writes, hot: int) -> list[float]:
    """Return ns for a look-up and a hit among `hot` keys, and among all, in random order."""
    store = Store(memory_limit_bytes=8 * GIB, eviction=policy)
    plain = {}
    for slot, record in records:
        store.apply(slot, record, NOW_MS)
        plain[record.key] = record
    rng = random.Random(1)
    gc.freeze()
    found = []
    for population in (hot, len(records)):
        # Keys as a request brings them: equal to the ones held, not the same objects.
        asks = [(slot, bytes(bytearray(r.key))) for slot, r in records[:population]]
        order = [rng.choice(asks) for _ in range(100_000)]
        loop = best_ns(look, order)
        found.append((best_ns(look_up, plain, order) - loop) / len(order))
        found.append((best_ns(hit, store, order) - loop) / len(order))
    gc.unfreeze()
    return found


def look(order: Asks) -> None:
    """Do nothing, for each key."""
    for _slot, _key in order:
        pass


def look_up(plain: dict[bytes, Record], order: Asks) -> None:
    """Look each key up in a dictionary."""
    get = plain.get
    for _slot, key in order:
        get(key)


def hit(store: Store, order: Asks) -> None:
    """Get each key."""
    get = store.get
    for slot, key in order:
        get(slot, key, NOW_MS)


def put(apply: Callable[[int, Record, int], object], records: Writes) -> None:
    """Give each record to the store."""
    for slot, record in records:
        apply(slot, record, NOW_MS)


def writes(policy: str, count: int) -> dict[str, float]:
    """Return ns for each kind of write."""
    first = chained(make_records(count, value_bytes=100))
    # A stream goes on: what comes again is chained to what came before.
    tails = {slot: record.version.stamp for slot, record in first}
    again = [
        (slot, record._replace(prev=record.prev or tails[slot]))
        for slot, record in chained(make_records(count, value_bytes=100, start=1000))
    ]
    loose = make_records(count, value_bytes=100, start=2000)
    taken: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        store = Store(memory_limit_bytes=8 * GIB, eviction=policy)
        full = Store(memory_limit_bytes=4 * MIB, eviction=policy)
        for name, call, records in (
            ("apply, new key", store.apply, first),
            ("apply, newer version", store.apply, again),
            ("apply, seen before", store.apply, again),
            ("install, newer version", store.install, loose),
            ("apply, new key, full", full.apply, first),
            ("apply, evicted key, full", full.apply, again),
        ):
            begun = process_time_ns()
            put(call, records)
            taken.setdefault(name, []).append((process_time_ns() - begun) / count)
    return {name: min(rounds) for name, rounds in taken.items()}


def with_and_without_clocks(count: int) -> dict[str, float]:
    """Return ns for a write of a new key and of a newer version, layer by layer."""
    first = chained(make_records(count, value_bytes=100))
    tails = {slot: record.version.stamp for slot, record in first}
    again = [
        (slot, record._replace(prev=record.prev or tails[slot]))
        for slot, record in chained(make_records(count, value_bytes=100, start=1000))
    ]
    taken: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        memory = Memory(8 * GIB, "lru")
        plain, digested = Store(memory_limit_bytes=8 * GIB), Store(memory_limit_bytes=8 * GIB)

        def bare(slot: int, record: Record, now_ms: int, memory: Memory = memory) -> None:
            entry = memory.tables[slot].get(record.key)
            if entry is None:
                entry = memory.add(slot, record, now_ms)
            elif entry.version < record.version:
                memory.replace(entry, record, now_ms)
            memory.make_room(entry)

        def hashed(slot: int, record: Record, now_ms: int, store: Store = digested) -> None:
            store.apply(slot, record, now_ms)
            store.comparison.digest(slot)

        for name, call in (
            ("without clocks", bare),
            ("with clocks", plain.apply),
            ("with clocks and digest", hashed),
        ):
            for what, records in (("new key", first), ("newer version", again)):
                begun = process_time_ns()
                put(call, records)
                spent = (process_time_ns() - begun) / count
                taken.setdefault(f"{what}, {name}", []).append(spent)
    return {name: min(rounds) for name, rounds in sorted(taken.items())}


def churn(limit_bytes: int, value_bytes: int) -> None:
    """Print the resident set beside the limit after writing four times what fits."""
    gc.collect()
    before = resident_bytes()
    store = Store(memory_limit_bytes=limit_bytes)
    rng = random.Random(3)
    fits = limit_bytes // (value_bytes + 400)
    tails = [0] * SLOT_COUNT
    for i in range(4 * fits):
        key = b"key:%012d" % rng.randrange(3 * fits)
        slot, stamp = slot_of(key), (NOW_MS << 16) + i
        version = Version(stamp, int(str(NODE)), int(str(BOOT)))
        value = rng.randbytes(4) * (value_bytes // 4)
        store.apply(slot, Record(key, Kind.VALUE, value, version, 0, tails[slot]), NOW_MS)
        tails[slot] = stamp
    after = resident_bytes()
    share = store.bytes_used / limit_bytes
    line = f"limit {limit_bytes // MIB} MiB, values of {value_bytes:,}: counted {share:.2f} of it"
    if before is None or after is None:
        print(f"{line}; resident set skipped, /proc/self/statm is not there")
        return
    ratio = (after - before) / limit_bytes
    print(
        f"{line}, resident {ratio:.3f} of it, {after / MIB:.0f} MiB with {before / MIB:.0f} before"
    )


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
    of_key = 16 + 100
    print(
        f"beyond key and value: counted {counted - of_key:.0f} B, resident {grown - of_key:.0f} B"
    )
    held = store.slots_held()
    before_clocks = store.bytes_used
    for boot in range(1, 11):
        for slot in held:
            store.merge_clock(slot, {(NODE, boot): NOW_MS + boot})
    each = (store.bytes_used - before_clocks) / (10 * len(held))
    print(f"slot clocks: {each:.1f} B for each slot and origin, {len(held):,} slots held")
    for slot in held:
        store.fold(slot, lambda origin: origin[1] <= 10, 1 << 60)
    store.prune_clocks()
    left = (store.bytes_used - before_clocks) / len(held)
    print(f"ten boots gone and folded: {left:.1f} B for each slot left of {10 * each:.1f} B")


def main() -> int:
    """Print all tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.store", description=__doc__)
    parser.add_argument("--keys", type=int, default=200_000, help="keys for memory and cold hits")
    parser.add_argument("--only", choices=("memory", "clocks", "churn", "speed"))
    arguments = parser.parse_args()
    keys, only = arguments.keys, arguments.only
    if only in (None, "churn"):
        for value_bytes in (1_000, 100):
            # A process of its own: what another run has left behind would count as the base.
            process = get_context("spawn").Process(
                target=churn, args=(CHURN_LIMIT_BYTES, value_bytes)
            )
            process.start()
            process.join()
    if only in (None, "memory"):
        memory(keys)
    gc.disable()
    if only in (None, "clocks"):
        for name, ns in with_and_without_clocks(HOT_KEYS).items():
            print(f"{name:<40} {ns:>6.0f} ns")
    if only in (None, "speed"):
        speed(keys)
    return 0


def speed(keys: int) -> None:
    """Print nanoseconds for hits and writes of both policies."""
    records = chained(make_records(keys, value_bytes=100))
    for policy in EVICTION_POLICIES:
        warm, warm_hit, cold, cold_hit = hits(policy, records, min(keys, HOT_KEYS))
        print(f"{policy}: hit among {HOT_KEYS:>9,} keys {warm_hit:>6.0f} ns (dict {warm:.0f} ns)")
        print(f"{policy}: hit among {keys:>9,} keys {cold_hit:>6.0f} ns (dict {cold:.0f} ns)")
        for name, ns in writes(policy, HOT_KEYS).items():
            print(f"{policy}: {name:<25} {ns:>6.0f} ns")


if __name__ == "__main__":
    sys.exit(main())
