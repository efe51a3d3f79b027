"""What a near cache costs and saves: hits, bytes, notices, and what it costs to listen.

    python -m benchmarks.near [--rounds 5] [--gets 20000] [--puts 4000]

A node in a process of its own, a client in this one, values of 100 bytes; each figure is the median
of the rounds, within which the contestants take turns. Times are of processor: of this process, all
threads, and of the node's.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable

from benchmarks.hot_path import cpu_seconds, started
from dcc import AsyncClient, Client, NearCache

KEYS = [f"key:{i:06}" for i in range(1_000)]
VALUE = b"v" * 100
COPIES = [f"copy:{i:05}" for i in range(9_000)]
"So many that what every client takes counts for little; fewer than a near cache keeps."
IDLE_SECONDS = 4.0
WAIT_SECONDS = 60.0
OWN = 0
"In place of a process id: this process."


def used(pid: int) -> float:
    """Return the processor's seconds of a process so far."""
    return cpu_seconds(pid) if pid else time.process_time()


def each(count: int, pids: tuple[int, ...], work: Callable[[], object]) -> list[float]:
    """Return microseconds of processor for one of `count` while `work` is done, by process."""
    before = [used(pid) for pid in pids]
    work()
    return [(used(pid) - was) / count * 1e6 for pid, was in zip(pids, before, strict=True)]


def filled(client: Client, keys: list[str]) -> None:
    """Read all keys until each is a copy here."""
    deadline = time.monotonic() + WAIT_SECONDS
    while client.counts()["near_entries"] < len(keys):
        for key in keys:
            client.get(key)
        if time.monotonic() > deadline:
            raise SystemExit("the client does not come to listen")


def gets(client: Client, count: int) -> None:
    """Read `count` times."""
    get, size = client.get, len(KEYS)
    for i in range(count):
        get(KEYS[i % size])


def puts(client: Client, count: int) -> None:
    """Write `count` keys, one by one."""
    for i in range(count):
        client.put(KEYS[i % len(KEYS)], VALUE)


async def near_gets(address: str, count: int) -> float:
    """Return the microseconds of a hit of an `AsyncClient`."""
    async with AsyncClient(address, near_cache=NearCache(), timeout=10) as client:
        deadline = time.monotonic() + WAIT_SECONDS
        while client.counts()["near_entries"] < len(KEYS) and time.monotonic() < deadline:
            for key in KEYS:
                await client.get(key)
        before = time.process_time()
        for i in range(count):
            await client.get(KEYS[i % len(KEYS)])
        return (time.process_time() - before) / count * 1e6


def bytes_of_a_copy(address: str) -> tuple[float, float]:
    """Return what a copy takes beyond what a read without one leaves, and as it is counted."""
    with Client(address, timeout=10) as writer:
        writer.put_many(dict.fromkeys(COPIES, VALUE))
    taken = [0, 0]
    for kept in (False, True):
        with Client(address, near_cache=NearCache() if kept else None, timeout=10) as client:
            client.get(COPIES[0])
            tracemalloc.start()
            if kept:
                filled(client, COPIES)
            else:
                for key in COPIES:
                    client.get(key)
            gc.collect()
            taken[kept] = tracemalloc.get_traced_memory()[0]
            tracemalloc.stop()
            counts = client.counts()
    return (taken[1] - taken[0]) / len(COPIES), counts["near_bytes"] / len(COPIES)


def measured(address: str, pid: int, options: argparse.Namespace) -> dict[str, list[float]]:
    """Return the figures of one round."""
    found: dict[str, list[float]] = {}
    both = (OWN, pid)
    with (
        Client(address, timeout=10) as plain,
        Client(address, timeout=10, near_cache=NearCache()) as near,
    ):
        plain.put_many(dict.fromkeys(KEYS, VALUE))
        gets(plain, 1_000)
        found["get, plain"] = each(
            options.gets // 10, both, lambda: gets(plain, options.gets // 10)
        )
        filled(near, KEYS)
        found["get, near"] = each(options.gets, both, lambda: gets(near, options.gets))
        seconds = int(IDLE_SECONDS)
        found["second, listening"] = each(seconds, both, lambda: time.sleep(IDLE_SECONDS))
        found["put, one listens"] = each(options.puts, both, lambda: puts(plain, options.puts))
    with Client(address, timeout=10) as plain:
        gets(plain, 1_000)
        wait_for_silence()
        found["second, nobody listens"] = each(seconds, both, lambda: time.sleep(IDLE_SECONDS))
        found["put, nobody listens"] = each(options.puts, both, lambda: puts(plain, options.puts))
    found["get, near, asyncio"] = [asyncio.run(near_gets(address, options.gets)), 0.0]
    return found


def wait_for_silence() -> None:
    """Let the node forget that somebody listened: it publishes for ten seconds after a `Watch`."""
    time.sleep(11)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--gets", type=int, default=20_000)
    parser.add_argument("--puts", type=int, default=4_000)
    options = parser.parse_args()
    argv = [sys.executable, "-m", "dcc.node", "--bind", "127.0.0.1:0"]
    rounds: list[dict[str, list[float]]] = []
    with started(argv) as (node, line):
        address = line.partition("request=")[2].split()[0]
        for _ in range(options.rounds):
            rounds.append(measured(address, node.pid, options))
        taken, counted = bytes_of_a_copy(address)
    print(f"{'µs of processor':28}{'client':>10}{'node':>10}")
    for name in rounds[0]:
        mine, others = (statistics.median(one[name][side] for one in rounds) for side in (0, 1))
        print(f"{name:28}{mine:10.1f}{others:10.1f}")
    own = len(COPIES[0]) + len(VALUE)
    print(f"a copy takes {taken:.0f} bytes, counted as {counted:.0f}, {own} of them key and value")


if __name__ == "__main__":
    main()
