"""A process with one client library, which measures what it is told to.

    python -m benchmarks.peers.worker CONTESTANT ADDRESS

Each line of standard input is one piece of work as JSON (`Work`), each line of standard output what
it took: `us` (microseconds of one operation: the median of single calls, else the mean), `cpu_us`
(this process's processor time for one operation) and `operations`.
"""

from __future__ import annotations

import asyncio
import gc
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks.peers.contestants import ASYNC, SYNC

BLOCK = 500
"Keys that are stored in one call while filling."


class Work(NamedTuple):
    """What is to be measured."""

    kind: str
    "fill, get, put, miss, get_many, put_many, threads or flight."
    size: int
    "Bytes of a value."
    keys: int
    "Keys that the calls go through in turn."
    width: int
    "Keys in one call, or threads, or calls in flight."
    calls: int


class Took(NamedTuple):
    """What it took."""

    us: float
    cpu_us: float
    operations: int


def key(size: int, i: int) -> str:
    """Return the name of the `i`-th key with a value of `size` bytes."""
    return f"key:{size}:{i:07}"


def singles(call: Callable[[int], object], work: Work) -> Took:
    """Time every one of `work.calls` calls; the median is the figure."""
    clock, times = time.perf_counter_ns, []
    cpu = time.process_time_ns()
    for i in range(work.calls):
        before = clock()
        call(i)
        times.append(clock() - before)
    cpu = time.process_time_ns() - cpu
    return Took(statistics.median(times) / 1e3, cpu / work.calls / 1e3, work.calls)


def run_sync(client: Any, work: Work) -> Took:
    """Measure one piece of work of a client whose calls block."""
    value, keys = b"v" * work.size, [key(work.size, i) for i in range(work.keys)]
    if work.kind == "fill":
        for first in range(0, work.keys, BLOCK):
            client.put_many(dict.fromkeys(keys[first : first + BLOCK], value))
        assert len(client.get(keys[-1])) == work.size
        return Took(0, 0, work.keys)
    if work.kind == "threads":
        return in_threads(client, keys, work)
    groups = [
        [keys[(first + i) % work.keys] for i in range(work.width)]
        for first in range(0, work.keys, work.width)
    ]
    lots = [dict.fromkeys(group, value) for group in groups]
    get = client.get
    calls: dict[str, Callable[[int], object]] = {
        "get": lambda i: get(keys[i % work.keys]),
        "put": lambda i: client.put(keys[i % work.keys], value),
        "miss": lambda i: get(f"absent:{i % work.keys}"),
        "get_many": lambda i: client.get_many(groups[i % len(groups)]),
        "put_many": lambda i: client.put_many(lots[i % len(lots)]),
    }
    return singles(calls[work.kind], work)


def in_threads(client: Any, keys: list[str], work: Work) -> Took:
    """Let `work.width` threads share one client; the mean over the wall time is the figure."""
    each = work.calls // work.width
    gate = threading.Barrier(work.width + 1)

    def body(first: int) -> None:
        gate.wait()
        for i in range(each):
            client.get(keys[(first + i) % len(keys)])

    threads = [threading.Thread(target=body, args=(i * 37,)) for i in range(work.width)]
    for one in threads:
        one.start()
    gate.wait()
    began, cpu = time.perf_counter_ns(), time.process_time_ns()
    for one in threads:
        one.join()
    took, cpu = time.perf_counter_ns() - began, time.process_time_ns() - cpu
    return Took(took / each / work.width / 1e3, cpu / each / work.width / 1e3, each * work.width)


async def in_flight(client: Any, work: Work) -> Took:
    """Keep `work.width` gets in flight; the mean over the wall time is the figure."""
    keys = [key(work.size, i) for i in range(work.keys)]
    each, get = work.calls // work.width, client.get

    async def body(first: int) -> None:
        for i in range(each):
            await get(keys[(first + i) % len(keys)])

    assert await get(keys[0]), "what is measured must be a hit"
    began, cpu = time.perf_counter_ns(), time.process_time_ns()
    await asyncio.gather(*(body(i * 37) for i in range(work.width)))
    took, cpu = time.perf_counter_ns() - began, time.process_time_ns() - cpu
    return Took(took / each / work.width / 1e3, cpu / each / work.width / 1e3, each * work.width)


async def serve_async(client: Any) -> None:
    """Do all work that comes in; the loop only runs while there is some."""
    await client.open()
    for line in sys.stdin:
        tell(await in_flight(client, Work(*json.loads(line))))
    await client.close()


def tell(took: Took) -> None:
    """Print a result."""
    gc.collect()
    print(json.dumps(took), flush=True)


def main() -> None:
    """Work until standard input ends."""
    name, address = sys.argv[1:]
    try:
        made = (SYNC.get(name) or ASYNC[name])(address)
    except (ImportError, AttributeError) as error:
        print(json.dumps({"skipped": f"{name} is not installed ({error})"}), flush=True)
        return
    print(json.dumps({"ready": name}), flush=True)
    if name in ASYNC:
        asyncio.run(serve_async(made))
        return
    for line in sys.stdin:
        tell(run_sync(made, Work(*json.loads(line))))


if __name__ == "__main__":
    main()
