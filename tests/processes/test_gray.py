"""One of three nodes is gray: a link of 50 ms each way that loses packets. Writes go round it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from dcc import Client, DccError
from tests.support.forwarder import Forwarder
from tests.support.processes import NodeProcess, Processes, wait_until

FOUND_OUT_SECONDS = 60.0
MEASURED_SECONDS = 4.0
WRITERS = 4


@pytest.fixture
def links() -> Iterator[tuple[Forwarder, Forwarder]]:
    """The links that lead to one node: to its request plane, and to its gossip plane."""
    with ExitStack() as stack:
        yield stack.enter_context(Forwarder(1)), stack.enter_context(Forwarder(2))


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens at just now."""
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in taken:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in taken]


def behind(links: tuple[Forwarder, Forwarder], processes: Processes, *options: str) -> NodeProcess:
    """Start a node that others reach by the links alone."""
    request, gossip = (f"127.0.0.1:{port}" for port in free_ports(2))
    links[0].forward(request)
    links[1].forward(gossip)
    return processes.node(
        "--bind", request, "--advertise", links[0].address,
        "--gossip-bind", gossip, "--gossip-advertise", links[1].address, *options,
    )  # fmt: skip


def writes_a_second(clients: list[Client], seconds: float = MEASURED_SECONDS) -> float:
    """Return how many writes with two copies are acknowledged in a second."""
    done = [0] * WRITERS
    until = time.monotonic() + seconds

    def write(writer: int) -> None:
        number = 0
        while time.monotonic() < until:
            number += 1
            try:
                clients[writer].put(f"{writer}/{number % 500}", b"v", w=2)
            except DccError:
                continue
            done[writer] += 1

    threads = [threading.Thread(target=write, args=(index,)) for index in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / seconds


@pytest.mark.process
@pytest.mark.slow
def test_writes_go_round_a_gray_node(
    links: tuple[Forwarder, Forwarder], processes: Processes
) -> None:
    first = processes.node("--name", "a", "--replicas", "2")
    second = processes.node("--name", "b", "--seed", first.address)
    gray = behind(links, processes, "--name", "gray", "--seed", first.address)
    addresses = [first.address, second.address, gray.address]
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(addresses, timeout=5.0)) for _ in range(WRITERS)]
        wait_until(lambda: clients[0].converged(), 60.0, first.text)
        healthy = writes_a_second(clients)
        for link in links:
            link.delay, link.loss = 0.05, 0.2
        rates = []

        def gone_round() -> bool:
            rates.append(round(writes_a_second(clients)))
            return rates[-1] * 2 >= healthy

        wait_until(gone_round, FOUND_OUT_SECONDS, lambda: f"healthy {healthy:.0f}, gray {rates}")
        again = writes_a_second(clients, 8.0)
        assert again * 2 >= healthy, f"healthy {healthy:.0f}, gray {rates}, then {again:.0f}"
        print(f"healthy {healthy:.0f}, gray {rates}, then {again:.0f}")
