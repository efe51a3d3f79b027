"""Many connections at once, and many one after the other: all are served, and all is given back."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import zmq

from dcc.units import MIB
from dcc.wire import messages as m
from dcc.wire.codec import Codec
from tests.support.processes import NodeProcess, Processes, wait_until

AT_ONCE = 300
ROUNDS = int(os.environ.get("DCC_TEST_CONNECTION_ROUNDS", "10"))
"Of so many connections each; 34 are 10,000."
WARM_ROUNDS = 8
"Until libzmq and the allocator have what such a crowd needs once."
REMEMBERED_BYTES = 400
"Of a routing id that has gone, about which libzmq tells nobody; of 65,536 ids at most."
ANSWER_MS = 20_000

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    made: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    made.set(zmq.MAX_SOCKETS, 4 * AT_ONCE)
    yield made
    made.destroy(linger=0)


def rss(node: NodeProcess) -> int:
    with open(f"/proc/{node.pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors(node: NodeProcess) -> int:
    return len(os.listdir(f"/proc/{node.pid}/fd"))


def connect_and_ask(context: zmq.Context[zmq.Socket[bytes]], node: NodeProcess) -> int:
    """Connect `AT_ONCE` times, ask over each, and close; return the node's descriptors with all."""
    codec = Codec("dcc", sender=5, boot=6)
    sockets = [context.socket(zmq.DEALER) for _ in range(AT_ONCE)]
    try:
        for number, socket in enumerate(sockets):
            socket.connect(f"tcp://{node.address}")
            socket.send_multipart(codec.encode(m.Get(key=b"key-%d" % number), request=number))
        for number, socket in enumerate(sockets):
            assert socket.poll(ANSWER_MS), f"{number} had no answer\n{node.text()[-2_000:]}"
            header, reply = codec.decode(socket.recv_multipart())
            assert header.request == number
            assert isinstance(reply, m.GetReply)
        return descriptors(node)
    finally:
        for socket in sockets:
            socket.close(0)


def test_hundreds_connect_at_once_and_thousands_in_turn_and_all_is_given_back(
    processes: Processes, context: zmq.Context[zmq.Socket[bytes]]
) -> None:
    [node] = processes.nodes(1)
    alone = descriptors(node)
    assert connect_and_ask(context, node) >= alone + AT_ONCE
    for number in range(WARM_ROUNDS + ROUNDS):
        wait_until(lambda: descriptors(node) <= alone + 8, 30, node.text)
        if number == WARM_ROUNDS:
            before = rss(node)
        connect_and_ask(context, node)
    wait_until(lambda: descriptors(node) <= alone + 8, 30, node.text)
    grown = rss(node) - before
    print(f"{ROUNDS * AT_ONCE} connections more: {grown / MIB:.1f} MiB more")
    assert grown < 1 * MIB + ROUNDS * AT_ONCE * REMEMBERED_BYTES
    assert not node.events("bug"), node.text()
