"""Placement measured: balance, movement and time, beside a ring with virtual nodes.

    python -m benchmarks.placement [--sets 20]

Balance is the number of slots of the fullest node divided by the mean, the median over sets of
random node keys. Movement is the share of copies that move when one node of 30 leaves or joins,
divided by the share that has to (that node's own). Times are CPU
times of this process, the best of five.
"""

from __future__ import annotations

import argparse
import platform
import tracemalloc
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from random import Random
from statistics import median
from time import process_time_ns

from xxhash import xxh3_64_intdigest

from dcc.limits import SLOT_COUNT
from dcc.ring.hashing import slot_of
from dcc.ring.placement import Place
from dcc.ring.slots import SlotMap

VIRTUAL_NODES = 128
COPIES = (1, 2, 3)
SIZES = (10, 30, 100)
TIMED_SIZES = (3, 10, 32, 100)
LOOKUPS = 100_000

Table = list[tuple[int, ...]]
Build = Callable[[Sequence[int]], Table]


def rendezvous(keys: Sequence[int]) -> Table:
    """Return three owners for each slot by dcc's ring."""
    ring = SlotMap()
    ring.update(members(keys), max(COPIES) - 1)
    return [ring.owners(slot) for slot in range(SLOT_COUNT)]


def virtual_nodes(keys: Sequence[int]) -> Table:
    """Return three owners for each slot by a ring with 128 tokens for each node.

    The first distinct nodes clockwise from the slot's token, as in Dynamo.
    """
    tokens = sorted(
        (xxh3_64_intdigest(i.to_bytes(2, "big"), seed=key), key)
        for key in keys
        for i in range(VIRTUAL_NODES)
    )
    table = []
    for slot in range(SLOT_COUNT):
        at = bisect(tokens, (xxh3_64_intdigest(b"slot" + slot.to_bytes(2, "big")), 0))
        found: dict[int, None] = {}
        while len(found) < min(max(COPIES), len(keys)):
            found[tokens[at % len(tokens)][1]] = None
            at += 1
        table.append(tuple(found))
    return table


def members(keys: Iterable[int], zones: int = 1, weights: Sequence[float] = (1.0,)) -> list[Place]:
    """Return places for keys, zones and weights dealt in turn."""
    return [
        Place(key, 1, weights[i % len(weights)], f"zone-{i % zones}", False)
        for i, key in enumerate(keys)
    ]


def random_keys(count: int, seed: int) -> list[int]:
    """Return `count` node keys, the same for the same seed."""
    rng = Random(seed)
    return [rng.getrandbits(64) for _ in range(count)]


def imbalance(table: Table, copies: int, count: int) -> float:
    """Return the fullest of `count` nodes' slots divided by the mean."""
    held = Counter(key for owners in table for key in owners[:copies])
    return max(held.values()) * count / (copies * SLOT_COUNT)


def print_balance(build: Build, sets: int) -> None:
    """Print max/mean for all sizes and numbers of copies."""
    for count in SIZES:
        tables = [build(random_keys(count, seed)) for seed in range(sets)]
        cells = [median(imbalance(table, copies, count) for table in tables) for copies in COPIES]
        print(f"| {count} | " + " | ".join(f"{cell:.2f}" for cell in cells) + " |")


def moved(before: Table, after: Table, copies: int) -> int:
    """Return how many copies of `after` are on a node that did not hold the slot before."""
    pairs = zip(before, after, strict=True)
    return sum(len(set(new[:copies]) - set(old[:copies])) for old, new in pairs)


def print_movement(build: Build) -> None:
    """Print copies moved by one leave and one join, as multiples of the least possible."""
    keys = random_keys(31, seed=1)
    less, more = build(keys[:30]), build(keys)
    for copies in COPIES:
        # Both directions need as many moves as the node has copies.
        least = sum(keys[30] in owners[:copies] for owners in more)
        join, leave = moved(less, more, copies), moved(more, less, copies)
        print(f"| {copies} | {least} | {join / least:.3f} | {leave / least:.3f} |")


def best_ms(run: Callable[[], object], *, repeat: int = 5) -> float:
    """Return the shortest of some runs in ms of this process' CPU time."""
    times = []
    for _ in range(repeat):
        start = process_time_ns()
        run()
        times.append(process_time_ns() - start)
    return min(times) / 1e6


def update_ms(places: Sequence[Place]) -> tuple[float, float, float]:
    """Return ms to build a table of all places but one, to add that one, and to take it away."""
    ring = SlotMap()
    return (
        best_ms(lambda: ring.update(places[:-1], 2), repeat=1),
        best_ms(lambda: ring.update(places, 2), repeat=1),
        best_ms(lambda: ring.update(places[:-1], 2), repeat=1),
    )


def print_times() -> None:
    """Print ms to build a table and to update it by one node, by size, zones and weights."""
    shapes: list[tuple[int, str, int, Sequence[float]]] = [
        *((count, "", 1, (1.0,)) for count in TIMED_SIZES),
        (TIMED_SIZES[-1], ", 3 zones", 3, (1.0,)),
        (TIMED_SIZES[-1], ", weights 1 and 2", 1, (1.0, 2.0)),
    ]
    for count, name, zones, weights in shapes:
        places = members(random_keys(count + 1, seed=2), zones, weights)
        runs = [update_ms(places) for _ in range(5)]
        whole, join, leave = (min(times) for times in zip(*runs, strict=True))
        print(f"| {count}{name} | {whole:.0f} | {join:.1f} | {leave:.1f} |")


def print_virtual_nodes_time() -> None:
    """Print ms to find the owners of all slots on the other ring."""
    keys = random_keys(100, seed=2)
    took = best_ms(lambda: virtual_nodes(keys), repeat=3)
    print(f"\nThe owners of all slots at 100 nodes by virtual nodes: {took:.0f} ms.")


def print_memory() -> None:
    """Print what one table allocates."""
    places = members(random_keys(100, seed=2))
    tracemalloc.start()
    ring = SlotMap()
    ring.update(places, 2)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"Memory of the table at {len(ring.order(0))} nodes: {held / 2**20:.1f} MiB.")


def per_lookup_us(look_up: Callable[[int], object]) -> float:
    """Return µs to hash a key and look its slot up, the loop included."""
    keys = [f"user:{number}".encode() for number in range(LOOKUPS)]

    def run() -> None:
        for key in keys:
            look_up(slot_of(key))

    return best_ms(run) * 1e3 / LOOKUPS


def print_lookups() -> None:
    """Print µs from a key to what a request needs, at 100 nodes with 3 copies."""
    keys = random_keys(100, seed=3)
    ring, lazy = SlotMap(), SlotMap(lazy=True)
    ring.update(members(keys), 2)
    lazy.update(members(keys), 2)
    look_ups: list[tuple[str, Callable[[int], object]]] = [
        ("order", ring.order),
        ("owners", ring.owners),
        ("route, all alive", partial(ring.route, alive=set(keys))),
        ("route, ten down", partial(ring.route, alive=set(keys[10:]))),
    ]
    for name, look_up in look_ups:
        print(f"| key → {name} | {per_lookup_us(look_up):.2f} |")
    first = best_ms(lambda: [lazy.near(slot) for slot in range(SLOT_COUNT)], repeat=1)
    print(f"| first question about a slot, lazy map | {first * 1e3 / SLOT_COUNT:.0f} |")


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description="Measure placement.")
    parser.add_argument("--sets", type=int, default=20, help="random sets of node keys")
    sets = parser.parse_args().sets
    print(f"Python {platform.python_version()}, {SLOT_COUNT} slots, {sets} sets of node keys\n")
    builds: list[tuple[str, Build]] = [
        ("rendezvous", rendezvous),
        (f"{VIRTUAL_NODES} virtual nodes", virtual_nodes),
    ]
    for name, build in builds:
        print(f"Balance, max/mean, {name}:\n\n| nodes | 1 copy | 2 copies | 3 copies |")
        print("| --- | --- | --- | --- |")
        print_balance(build, sets)
        print()
    for name, build in builds:
        print(f"Movement at 30 nodes, copies moved / least possible, {name}:\n")
        print("| copies | least | join | leave |\n| --- | --- | --- | --- |")
        print_movement(build)
        print()
    print("Times, 3 copies:\n\n| nodes | whole table, ms | one joins, ms | one leaves, ms |")
    print("| --- | --- | --- | --- |")
    print_times()
    print_virtual_nodes_time()
    print_memory()
    print("\nAt 100 nodes, 3 copies:\n\n| look-up | µs |\n| --- | --- |")
    print_lookups()


if __name__ == "__main__":
    main()
