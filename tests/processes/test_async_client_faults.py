"""Ten thousand calls at a time, a thousand cancelled, while nodes stop, die and answer late.

Values say which key and which put they belong to, so a reply that went astray would be seen.
"""

from __future__ import annotations

import asyncio
import gc
import random
import signal
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from dcc import AsyncClient, DccError, Version
from dcc.client.async_loop import LoopDriver
from dcc.client.dispatch import Dispatcher
from tests.support.client_peers import PeerThread
from tests.support.processes import Processes

pytestmark = pytest.mark.process

KEYS = 500


def dispatcher_of(client: AsyncClient) -> Dispatcher:
    driver = client._driver
    assert isinstance(driver, LoopDriver)
    return driver.dispatcher


async def nothing_is_left(client: AsyncClient) -> None:
    """Wait until no call is under way, and assert that nothing of any is kept."""
    dispatcher = dispatcher_of(client)
    deadline = time.monotonic() + 10
    while dispatcher.in_flight or dispatcher._debts:
        assert time.monotonic() < deadline, "calls that have ended are still kept"
        dispatcher.check()
        await asyncio.sleep(0.02)
    dispatcher.check()
    for table in (dispatcher._routes, dispatcher._flights, dispatcher._waiting, dispatcher._due):
        assert len(table) == 0
    await asyncio.sleep(0)  # The callback that runs now holds the last gathering.
    gc.collect()
    futures = [one for one in gc.get_objects() if isinstance(one, asyncio.Future)]
    assert len(futures) < 50, "futures of calls that have ended are kept"


class Storm:
    """Calls drawn by chance, and what their outcomes may be."""

    def __init__(self, client: AsyncClient, seed: int) -> None:
        self.client, self.draw = client, random.Random(seed)
        self.puts = 0
        self.values: dict[tuple[str, Version], bytes] = {}
        "What each put that was answered has written."
        self.seen: list[tuple[str, Version, bytes]] = []
        self.refused = 0

    def call(self) -> Coroutine[Any, Any, None]:
        """Return a call that checks its own outcome."""
        key = f"key:{self.draw.randrange(KEYS)}"
        kind = self.draw.choices([self.get, self.put, self.lookup, self.many], [60, 25, 10, 1])[0]
        return self.tolerant(kind, key)

    async def tolerant(self, kind: Callable[[str], Coroutine[Any, Any, None]], key: str) -> None:
        """Await a call; the cluster may fail it, but only by an error of ours."""
        try:
            await kind(key)
        except DccError:
            self.refused += 1

    async def get(self, key: str) -> None:
        """A value is one of this key."""
        value = await self.client.get(key, b"")
        assert value is not None
        assert not value or value.startswith(f"{key}=".encode()), (key, value)

    async def put(self, key: str) -> None:
        """A version names one value."""
        self.puts += 1
        value = f"{key}={self.puts}".encode()
        version = await self.client.put(key, value)
        assert (key, version) not in self.values
        self.values[key, version] = value

    async def lookup(self, key: str) -> None:
        """A version that was told belongs to the value that is read with it."""
        found = await self.client.lookup(key)
        if found.value is not None and found.version is not None:
            assert found.value.startswith(f"{key}=".encode()), (key, found)
            self.seen.append((key, found.version, found.value))

    async def many(self, key: str) -> None:
        """Each value is one of its key."""
        keys = [f"key:{self.draw.randrange(KEYS)}" for _ in range(30)]
        for name, value in (await self.client.get_many(keys)).items():
            assert value.startswith(f"{name}=".encode()), (name, value)

    async def rage(self, count: int, cancelled: int) -> None:
        """Make `count` calls at a time in bursts, and cancel some at any moment."""
        tasks: list[asyncio.Task[None]] = []
        while len(tasks) < count:
            burst = self.draw.choice([1, 1, 3, 30, 300, 2_000])
            tasks += [asyncio.ensure_future(self.call()) for _ in range(min(burst, count))]
            await asyncio.sleep(self.draw.choice([0, 0, 0.002, 0.03]))
        victims = self.draw.sample(tasks, cancelled)
        for victim in victims:
            victim.cancel()
            if self.draw.random() < 0.02:
                await asyncio.sleep(0)
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        wrong = [one for one in outcomes if isinstance(one, Exception)]
        assert wrong == []
        for key, version, value in self.seen:
            assert self.values.get((key, version), value) == value


@pytest.mark.parametrize("seed", [1, 2])
async def test_nodes_stop_and_die_while_ten_thousand_calls_are_made(
    processes: Processes, seed: int
) -> None:
    nodes = processes.nodes(4, "--replicas", "2", "--log-level", "error")
    addresses = [node.address for node in nodes]
    async with AsyncClient(addresses, timeout=3) as client:
        storm = Storm(client, seed)
        await storm.rage(2_000, 0)

        async def disturb() -> None:
            await asyncio.sleep(0.3)
            nodes[1].signal(signal.SIGSTOP)
            await asyncio.sleep(0.7)
            nodes[2].signal(signal.SIGKILL)
            await asyncio.sleep(0.7)
            nodes[1].signal(signal.SIGCONT)

        disturbing = asyncio.ensure_future(disturb())
        while not disturbing.done():
            await storm.rage(10_000, 1_000)
        await disturbing
        await nothing_is_left(client)
        assert len(storm.values) > 1_000
        # All is well again: every key is readable.
        before = client.counts().get("stale_refused", 0)
        found = await asyncio.gather(*[client.get(f"key:{n}") for n in range(KEYS)])
        # Or its copies, three at most, are older than what this client wrote; that died.
        refused = (client.counts().get("stale_refused", 0) - before) // 3
        assert sum(value is not None for value in found) + refused > KEYS * 0.9
        await nothing_is_left(client)


async def test_calls_that_run_out_of_time_against_stopped_nodes_leave_nothing(
    processes: Processes,
) -> None:
    nodes = processes.nodes(2, "--replicas", "1", "--log-level", "error")
    async with AsyncClient([node.address for node in nodes], timeout=0.4) as client:
        storm = Storm(client, 3)
        await storm.rage(1_000, 0)
        for node in nodes:
            node.signal(signal.SIGSTOP)
        for _ in range(3):
            await storm.rage(3_000, 300)
        assert storm.refused > 3_000
        await nothing_is_left(client)
        for node in nodes:
            node.signal(signal.SIGCONT)
        deadline = time.monotonic() + 20
        before = len(storm.values)
        while len(storm.values) < before + 50:
            assert time.monotonic() < deadline, "calls succeed again once the nodes go on"
            await storm.rage(200, 0)
        await nothing_is_left(client)


@pytest.mark.parametrize("seed", range(3))
async def test_replies_late_doubled_and_out_of_order_reach_nobody_else(seed: int) -> None:
    draw = random.Random(seed)
    with PeerThread() as peer:
        held: list[list[bytes]] = []

        def shuffled(frames: list[bytes]) -> list[list[bytes]]:
            held.extend(peer.peer.handle(frames))
            draw.shuffle(held)
            count = draw.randrange(len(held) + 1)
            told = [held.pop() for _ in range(count)]
            return [*told, *draw.sample(told, len(told) // 4)]

        async with AsyncClient(peer.address, timeout=0.5) as client:
            await client.put("key:0", b"key:0=0")
            peer.peer.receive = shuffled
            storm = Storm(client, seed)
            await storm.rage(4_000, 400)
            await nothing_is_left(client)
            assert client.counts().get("late_reply", 0) > 0
            assert storm.values
