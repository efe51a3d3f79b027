"""One stranger against three real nodes: they go on serving, and nothing acknowledged is lost."""

from __future__ import annotations

import os
import socket as net
import struct
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
import zmq

import dcc
from dcc.types import Member, Standing, node_key
from dcc.units import MIB
from dcc.wire import messages as m
from dcc.wire.codec import Codec, Header
from tests.support.processes import NodeProcess, Processes, wait_until

pytestmark = pytest.mark.process
KEYS = [f"key-{number}" for number in range(200)]


class Ground:
    """Three nodes that hold values with two copies each, and a stranger's connection to one."""

    def __init__(self, processes: Processes, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self.nodes = processes.nodes(3, "--replicas", "1")
        self.client = dcc.Client([node.address for node in self.nodes], timeout=5.0)
        wait_until(lambda: self.client.converged() and len(self.rows) == 3, 30)
        for key in KEYS:
            self.client.put(key, key.encode(), w=2)
        self._context = context
        self._sockets: list[zmq.Socket[bytes]] = []

    def close(self) -> None:
        self.client.close()
        for socket in self._sockets:
            socket.close(0)

    @property
    def rows(self) -> list[dcc.NodeInfo]:
        return [one for one in self.client.topology().nodes if one.standing == "alive"]

    def all_is_served(self) -> bool:
        return all(self.client.get(key) == key.encode() for key in KEYS)

    def speaks(self, to: NodeProcess, sender: int = 5, boot: int = 6) -> Stranger:
        socket = self._context.socket(zmq.DEALER)
        socket.setsockopt(zmq.RCVTIMEO, 15_000)
        socket.connect(f"tcp://{to.address}")
        self._sockets.append(socket)
        return Stranger(socket, sender, boot)


class Stranger:
    """Speaks the protocol, in whose name it likes."""

    def __init__(self, socket: zmq.Socket[bytes], sender: int, boot: int) -> None:
        self.socket, self.codec = socket, Codec("dcc", sender=sender, boot=boot)

    def topology(self) -> tuple[Header, m.Topology]:
        self.socket.send_multipart(self.codec.encode(m.TopologyGet(), request=1))
        header, reply = self.codec.decode(self.socket.recv_multipart())
        assert isinstance(reply, m.Topology)
        return header, reply

    def tell(self, message: m.Message, epoch: int = 0) -> None:
        at = time.time_ns() // 1_000_000
        self.socket.send_multipart(self.codec.encode(message, epoch=epoch, at=at))


@pytest.fixture
def ground(processes: Processes) -> Iterator[Ground]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    made = Ground(processes, context)
    yield made
    made.close()
    context.destroy(linger=0)


def rss(node: NodeProcess) -> int:
    with open(f"/proc/{node.pid}/statm") as statm:
        return int(statm.read().split()[1]) * 4096


def test_a_frame_of_invented_members_takes_nothing_from_anybody(ground: Ground) -> None:
    header, topology = ground.speaks(ground.nodes[0]).topology()
    ms = time.time_ns() // 1_000_000
    rows = tuple([
        Member(f"phantom-{i}", f"127.0.3.{i + 1}:7", f"127.0.3.{i + 1}:8", "", 1.0, (ms << 16) + i,
               ms, Standing.ALIVE, ms, draining=False)
        for i in range(200)
    ])  # fmt: skip
    one = topology.members[1]
    for node in ground.nodes:
        liar = ground.speaks(node, one.key, one.boot)
        liar.tell(m.PushPull(members=rows, settings=topology.settings), header.epoch)
    ends = time.monotonic() + 5
    while time.monotonic() < ends:
        assert ground.all_is_served()
    assert len(ground.rows) == 3


def test_nobody_is_displaced_by_a_claim(ground: Ground) -> None:
    _, topology = ground.speaks(ground.nodes[0]).topology()
    by_name = {row.name: row for row in topology.members}
    for node in ground.nodes:
        row = by_name[node.ready["node"]]
        other = row._replace(
            request="127.0.3.9:9", gossip="127.0.3.9:10", boot=row.boot + 7,
            incarnation=row.incarnation + 1_000,
        )  # fmt: skip
        liar = ground.speaks(node, node_key(row.name), row.boot + 7)
        liar.tell(m.PushPull(members=(other,), settings=topology.settings))
    wait_until(lambda: all(node.events("refuted") for node in ground.nodes), 15)
    assert all(node.popen.poll() is None for node in ground.nodes)
    assert ground.all_is_served()


def connected(address: str, kind: bytes) -> net.socket:
    """Return a connection on which the greeting and the handshake of ZMTP 3.0 are done."""
    host, port = address.rsplit(":", 1)
    raw = net.create_connection((host, int(port)), timeout=5)
    raw.sendall(b"\xff" + bytes(8) + b"\x7f\3\0NULL" + bytes(16) + bytes(32))
    got = b""
    while len(got) < 64:
        got += raw.recv(64 - len(got))
    ready = b"\5READY\x0bSocket-Type" + struct.pack(">I", len(kind)) + kind
    raw.sendall(bytes([4, len(ready)]) + ready)
    return raw


def test_long_subscriptions_end_the_connection(ground: Ground) -> None:
    """libzmq would keep a node for each byte of a topic, and does not give them back."""
    node = ground.nodes[0]
    before = rss(node)
    with connected(str(node.ready["gossip"]), b"SUB") as raw, suppress(OSError):
        for number in range(8):
            topic = b"\1" + bytes([number]) + os.urandom(MIB)
            raw.sendall(b"\2" + struct.pack(">Q", len(topic)) + topic)
        ends = time.monotonic() + 2
        while time.monotonic() < ends:
            assert ground.all_is_served()
    assert rss(node) - before < 32 * MIB


def test_many_that_pipeline_and_go_take_no_node_with_them(ground: Ground) -> None:
    """More waits than a connection may hold when it ends: libzmq's heartbeats abort there."""
    write = m.Write(op=m.Op.PUT, key=b"flood", value=bytes(200))
    node = ground.nodes[0]
    strangers = [ground.speaks(node, sender=10_000 + number) for number in range(60)]
    for one in strangers:
        frames = one.codec.encode(write, request=1)
        one.socket.setsockopt(zmq.SNDTIMEO, 100)
        with suppress(zmq.Again):
            for _ in range(3_000):
                one.socket.send_multipart(frames)
    for one in strangers:
        one.socket.close(0)
    wait_until(ground.all_is_served, 30)
    wait_until(lambda: served_by(node), 30, node.text)
    assert node.popen.poll() is None, node.text()


def served_by(node: NodeProcess) -> bool:
    with dcc.Client(node.address, timeout=1) as client:
        try:
            return client.stats().nodes[node.ready["node"]].ready
        except (dcc.DccError, KeyError):
            return False
