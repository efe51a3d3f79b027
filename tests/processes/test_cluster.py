"""Five real nodes under real load: killed, joined, left and stopped."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import pytest
import zmq

import dcc
from dcc.client.shared import QUIET_NS
from dcc.units import SECOND
from dcc.wire.codec import Codec
from dcc.wire.messages import Get, GetReply, Op, Write
from tests.support.processes import NodeProcess, Processes, Running, wait_until

pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]

OPTIONS = ("--replicas", "2", "--rebalance-delay", "3")
RESTORED_SECONDS = 20.0
"From the kill: about 6 to find out, a rebalance delay of 3, the copying, and a slow machine."

CALM_AFTER_SECONDS = 3.0
SLOWEST_SECONDS = 0.5


def value_of(i: int) -> bytes:
    size = 100 + (i * 7919) % 9_900
    return (f"value {i} ".encode() * (size // 8))[:size]


def start_load(
    processes: Processes, nodes: Sequence[NodeProcess], seconds: float, *, w: int = 2
) -> list[Running]:
    addresses = ",".join(node.address for node in nodes)
    return [
        processes.python(
            "-m", "tests.support.load", addresses, "--name", f"load{i}", "--seconds", str(seconds),
            "--w", str(w),
        )
        for i in range(4)
    ]  # fmt: skip


def books(loads: Sequence[Running]) -> list[dict[str, Any]]:
    result = []
    for load in loads:
        assert load.wait(120) == 0, load.text()
        result.append(json.loads(load.out[-1]))
    return result


def standings(client: dcc.Client, standing: str) -> int:
    return sum(node.standing == standing for node in client.topology().nodes)


def copies_are_whole(nodes: Sequence[NodeProcess], *, gone: NodeProcess) -> bool:
    """Return whether all owners are in sync in a ring that `gone` is no longer in."""
    with dcc.Client([node.address for node in nodes], timeout=5) as client:
        stats = client.stats().nodes
    removed = all(one.members[gone.ready["node"]] == "removed" for one in stats.values())
    return len(stats) == len(nodes) and removed and all(one.slots_ready for one in stats.values())


def one_view(nodes: Sequence[NodeProcess]) -> bool:
    """Return whether every node itself sees exactly these alive, at one epoch."""
    with dcc.Client(nodes[0].address, timeout=10) as client:
        stats = client.stats().nodes
    views = {
        (one.epoch, tuple(sorted(n for n, s in one.members.items() if s == "alive")))
        for one in stats.values()
    }
    return len(stats) == len(nodes) == len(next(iter(views))[1]) and len(views) == 1


def test_all_that_one_node_took_is_read_through_all_others(processes: Processes) -> None:
    nodes = processes.nodes(5, *OPTIONS)
    count = 20_000
    with dcc.Client(nodes[0].address, timeout=10) as client:
        for first in range(0, count, 200):
            some = {f"key-{i}": value_of(i) for i in range(first, first + 200)}
            assert client.put_many(some) == []
        newer = range(0, count, 100)
        for i in newer:
            client.put(f"key-{i}", value_of(i + 1))
            assert client.get(f"key-{i}") == value_of(i + 1), "the newest that was answered"

    def expected(i: int) -> bytes:
        return value_of(i + 1 if i in newer else i)

    for n, node in enumerate(nodes[1:]):
        with dcc.Client(node.address) as client:
            for first in range(0, count, 200):
                wanted = {f"key-{i}": expected(i) for i in range(first, first + 200)}
                assert client.get_many(list(wanted)) == wanted
            for i in range(n, count, 97):
                assert client.get(f"key-{i}") == expected(i)
    with dcc.Client(nodes[0].address, timeout=10) as client:
        wait_until(client.converged, 20)
        assert client.audit().clean
        assert client.stats().total.items == 3 * count, "each key and two copies"
        for i in newer:
            copies = client.inspect(f"key-{i}").values()
            values = {copy.value if isinstance(copy, dcc.Entry) else copy for copy in copies}
            assert (len(copies), values) == (3, {expected(i)})


def test_a_request_sent_to_the_wrong_node_is_forwarded(processes: Processes) -> None:
    nodes = processes.nodes(3, "--replicas", "0")
    wait_until(lambda: one_view(nodes), 20)
    codec = Codec("dcc", sender=77, boot=1)
    with dcc.Client(nodes[0].address) as client, zmq.Context() as context:
        for i in range(40):
            key = f"key-{i}"
            [owner] = client.topology().owners(key)
            wrong = next(node for node in nodes if node.ready["node"] != owner)
            with context.socket(zmq.DEALER) as dealer:
                dealer.setsockopt(zmq.LINGER, 0)
                dealer.setsockopt(zmq.RCVTIMEO, 5_000)
                dealer.connect(f"tcp://{wrong.address}")
                write = Write(op=Op.PUT, key=key.encode(), value=value_of(i))
                for request, message in ((2 * i + 1, write), (2 * i + 2, Get(key=key.encode()))):
                    dealer.send_multipart(codec.encode(message, request=request))
                    header, reply = codec.decode(dealer.recv_multipart())
                    assert header.request == request
                assert isinstance(reply, GetReply)
                assert reply.value == value_of(i)
            assert client.get(key) == value_of(i)
        stats = client.stats().nodes
    assert sum(one.detail["forwarded"] for one in stats.values()) == 80


def test_a_kill_under_load_loses_nothing_that_two_nodes_acknowledged(processes: Processes) -> None:
    nodes = processes.nodes(5, *OPTIONS)
    loads = start_load(processes, nodes, 25)
    time.sleep(8)
    killed_at = time.time()
    nodes[2].kill()
    left = [node for node in nodes if node is not nodes[2]]
    wait_until(lambda: copies_are_whole(left, gone=nodes[2]), RESTORED_SECONDS)
    for book in books(loads):
        assert (book["missing"], book["failed_gets"], book["wrong"]) == (0, [], 0)
        assert book["lost_at_end"] == 0
        assert book["gets"] > 1_000
        slow = [s for s in book["slow"] if s[0] - s[1] > killed_at + CALM_AFTER_SECONDS]
        assert [s for s in slow if s[1] > SLOWEST_SECONDS] == []


def test_a_join_and_a_leave_under_load_miss_nothing(processes: Processes) -> None:
    nodes = processes.nodes(5, *OPTIONS)
    loads = start_load(processes, nodes, 25)
    time.sleep(5)
    joined = processes.node(*OPTIONS, "--seed", nodes[0].address)
    assert joined.ready
    time.sleep(5)
    nodes[1].signal(signal.SIGTERM)
    assert nodes[1].wait(40) == 0
    for book in books(loads):
        assert (book["missing"], book["failed_gets"], book["wrong"]) == (0, [], 0)
        assert (book["failed_puts"], book["lost_at_end"]) == ([], 0)
    wait_until(lambda: one_view([joined, nodes[0], *nodes[2:]]), 20)


def test_a_stopped_node_fails_no_read_and_loses_no_write(processes: Processes) -> None:
    nodes = processes.nodes(5, *OPTIONS[:2], "--rebalance-delay", "60")
    loads = start_load(processes, nodes, 35)
    time.sleep(5)
    nodes[3].signal(signal.SIGSTOP)
    time.sleep(20)
    nodes[3].signal(signal.SIGCONT)
    for book in books(loads):
        assert (book["missing"], book["failed_gets"], book["wrong"]) == (0, [], 0)
        assert book["lost_at_end"] == 0
    wait_until(lambda: one_view(nodes), 30)


def test_clients_that_were_silent_write_past_a_node_that_has_stopped(processes: Processes) -> None:
    """They have heard of nothing meanwhile, and still none of them gives it what it would keep."""
    nodes = processes.nodes(3, "--replicas", "2")
    with ExitStack() as stack:
        clients = [stack.enter_context(dcc.Client(nodes[0].address)) for _ in range(8)]
        keys = [f"key {number}" for number in range(30)]
        for client in clients:
            client.put_many(dict.fromkeys(keys, b"old"))
        nodes[1].signal(signal.SIGSTOP)
        time.sleep(QUIET_NS / SECOND)
        for number, client in enumerate(clients):
            for key in keys[number::8]:
                client.put(key, b"new")
        assert clients[0].get_many(keys) == dict.fromkeys(keys, b"new")


async def test_an_async_client_that_was_silent_does_so_too(processes: Processes) -> None:
    nodes = processes.nodes(3, "--replicas", "2")
    async with dcc.AsyncClient(nodes[0].address) as client:
        keys = [f"key {number}" for number in range(30)]
        await client.put_many(dict.fromkeys(keys, b"old"))
        nodes[1].signal(signal.SIGSTOP)
        await asyncio.sleep(QUIET_NS / SECOND)
        await asyncio.gather(*(client.put(key, b"new") for key in keys))
        assert await client.get_many(keys) == dict.fromkeys(keys, b"new")


@pytest.mark.slow
def test_thirty_two_processes_form_one_view_from_one_seed(processes: Processes) -> None:
    first = processes.node("--replicas", "2")
    assert first.ready
    began = time.monotonic()
    nodes = [first, *(processes.node("--seed", first.address) for _ in range(31))]
    with dcc.Client(first.address, timeout=20) as client:
        wait_until(lambda: standings(client, "alive") == 32, 60)
    wait_until(lambda: one_view(nodes), 60)
    took = time.monotonic() - began
    print(f"32 processes in one view after {took:.1f} s")
    assert took < 30  # A loaded machine may take longer than the 15 s of a quiet one.
