"""A program of a stampede: many callers in one process that want one value at the same time.

    python -m tests.support.stampede_callers asyncio ADDRESSES KEY CALLERS FACTORY-S LEASE-S

It says `ready` and waits for the key `go`. The factory says `making` as it begins. At the end one
line tells how often that was, and what came.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from dcc import AsyncClient, Client

GO = "go"
"The key by which all processes are told to begin."


class Factory:
    """Makes one value in some seconds, and counts."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.calls = seconds, 0
        self._lock = threading.Lock()

    def begin(self) -> bytes:
        """Return the value to come, and say that it is being made."""
        with self._lock:
            self.calls += 1
        print("making", flush=True)
        return b"made by %d" % os.getpid()

    def block(self) -> bytes:
        """Make it in a thread."""
        value = self.begin()
        time.sleep(self.seconds)
        return value

    async def sleep(self) -> bytes:
        """Make it in a coroutine."""
        value = self.begin()
        await asyncio.sleep(self.seconds)
        return value


async def in_a_loop(
    nodes: str, key: str, callers: int, factory: Factory, lease: float
) -> set[bytes]:
    async with AsyncClient(nodes, timeout=30) as cache:
        print("ready", flush=True)
        while await cache.get(GO) is None:
            await asyncio.sleep(0.02)
        wanted = [cache.get_or_put(key, factory.sleep, lease=lease) for _ in range(callers)]
        return set(await asyncio.gather(*wanted))


def in_threads(nodes: str, key: str, callers: int, factory: Factory, lease: float) -> set[bytes]:
    with Client(nodes, timeout=30) as cache, ThreadPoolExecutor(callers) as threads:
        print("ready", flush=True)
        while cache.get(GO) is None:
            time.sleep(0.02)
        futures = [
            threads.submit(cache.get_or_put, key, factory.block, lease=lease)
            for _ in range(callers)
        ]
        return {future.result() for future in futures}


def main() -> None:
    """Run the callers and tell."""
    kind, nodes, key, callers, seconds, lease = sys.argv[1:]
    factory = Factory(float(seconds))
    arguments = (nodes, key, int(callers), factory, float(lease))
    in_loop = kind == "asyncio"
    values = asyncio.run(in_a_loop(*arguments)) if in_loop else in_threads(*arguments)
    told = {"calls": factory.calls, "values": sorted(value.decode() for value in values)}
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
