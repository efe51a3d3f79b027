"""The same over real sockets: it serves, and memory, descriptors and the log are as before."""

from __future__ import annotations

import os
import time

import pytest
import zmq

import dcc
from dcc.units import MIB
from dcc.wire import messages as m
from dcc.wire.codec import Codec
from tests.support.fuzzer import Fuzzer
from tests.support.processes import NodeProcess, Processes, wait_until

FRAMES = 200_000 if os.environ.get("HYPOTHESIS_PROFILE") == "soak" else 20_000
KEYS = [f"key-{number}" for number in range(100)]

pytestmark = [pytest.mark.process, pytest.mark.slow]


def rss(node: NodeProcess) -> int:
    with open(f"/proc/{node.pid}/statm") as statm:
        return int(statm.read().split()[1]) * 4096


def descriptors(node: NodeProcess) -> int:
    return len(os.listdir(f"/proc/{node.pid}/fd"))


@pytest.mark.timeout(600)
def test_a_node_that_strangers_fuzz_is_as_it_was(processes: Processes) -> None:
    nodes = processes.nodes(2, "--replicas", "1")
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with dcc.Client([node.address for node in nodes], timeout=5.0) as client:
        wait_until(client.converged, 30)
        for key in KEYS:
            client.put(key, key.encode(), w=2)
        fuzz(context, nodes[0], 1, FRAMES // 10)  # Opens what is opened once.
        before = rss(nodes[0]), descriptors(nodes[0])
        fuzz(context, nodes[0], 2, FRAMES)
        context.destroy(linger=0)
        wait_until(lambda: all(client.get(key) == key.encode() for key in KEYS), 30)
        client.put("after", b"v", w=2)
        wait_until(lambda: descriptors(nodes[0]) <= before[1] + 16, 30)
        assert rss(nodes[0]) < before[0] + 64 * MIB
        assert not nodes[0].events("bug"), nodes[0].text()
        assert len(nodes[0].err) < 4_000, "the log did not flood"


def fuzz(context: zmq.Context[zmq.Socket[bytes]], node: NodeProcess, seed: int, count: int) -> None:
    """Send what changes no data, and read what comes back."""
    with context.socket(zmq.DEALER) as stranger:
        stranger.setsockopt(zmq.RCVTIMEO, 15_000)
        stranger.connect(f"tcp://{node.address}")
        codec = Codec("dcc", sender=5, boot=6)
        stranger.send_multipart(codec.encode(m.TopologyGet(), request=1))
        header, topology = codec.decode(stranger.recv_multipart())
        assert isinstance(topology, m.Topology)
        fuzzer = Fuzzer(
            seed, rows=topology.members, settings=topology.settings, epoch=header.epoch,
            now_ms=time.time_ns() // 1_000_000,
        )  # fmt: skip
        for _ in range(count // 100):
            fuzzer.now_ms = time.time_ns() // 1_000_000
            for frames in fuzzer.harmless():
                stranger.send_multipart(frames)
            while stranger.poll(1):
                stranger.recv_multipart()
