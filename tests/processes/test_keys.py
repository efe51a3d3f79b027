"""Real nodes with keys: who has one is served, and nobody else, on either plane."""

from __future__ import annotations

import asyncio
import socket as net
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector
from typing import Any

import pytest
import zmq

import dcc
from dcc.keys import Credentials, Directory, present
from dcc.types import Role
from dcc.wire import messages as m
from dcc.wire.codec import Codec
from tests.support.key_ground import Ground, dcc_keys
from tests.support.processes import NodeProcess, wait_until

pytestmark = pytest.mark.process


def test_a_cluster_with_keys_serves_who_has_one(ground: Ground) -> None:
    ground.cluster("--replicas", "1")
    client = ground.client()
    for number in range(50):
        client.put(f"key-{number}", b"value-%d" % number, w=2)
    for number in range(50):
        assert client.get(f"key-{number}") == b"value-%d" % number
    client.put("large", bytes(200_000), w=2)
    assert client.get("large") == bytes(200_000)
    assert not ground.refusals("unknown_key")


def test_the_asyncio_client_has_a_key_too(ground: Ground) -> None:
    node = ground.node("a")

    async def use() -> bytes | None:
        async with dcc.AsyncClient(node.address, keys=ground.directory, name="app") as client:
            await client.put("key", b"value")
            return await client.get("key")

    assert asyncio.run(use()) == b"value"


def refused_by(ground: Ground, name: str, reason: str) -> int:
    """Return how many a node says that it refused for a reason."""
    count = ground.client("chief").stats().nodes[name].detail["refused"].get(reason, 0)
    assert isinstance(count, int)
    return count


def test_who_has_no_key_is_told_so_and_counted_and_logged_once(ground: Ground) -> None:
    node = ground.node("a")
    for _ in range(2):
        with pytest.raises(dcc.AuthenticationFailed, match="lets in only whoever has a key"):
            ground.client(keys=False).get("key")
    wait_until(lambda: refused_by(ground, "a", "without_key") >= 2, 10, node.text)
    assert ground.refusals("without_key") == 1


def test_who_has_an_unknown_key_is_told_so_and_logged_once(ground: Ground, tmp_path: Path) -> None:
    node = ground.node("a")
    other = tmp_path / "other"
    dcc_keys(other, "new", "app", "--role", "client")
    (other / "servers").mkdir()
    shared = ground.directory / "servers/server.pub"
    (other / "servers/server.pub").write_text(shared.read_text())
    for _ in range(3):
        with pytest.raises(dcc.AuthenticationFailed, match="refuses this key"):
            ground.client("app", other).get("key")
    wait_until(lambda: refused_by(ground, "a", "unknown_key") >= 3, 10, node.text)
    assert ground.refusals("unknown_key") == 1


def test_a_server_with_another_key_is_not_trusted(ground: Ground, tmp_path: Path) -> None:
    ground.node("a")
    other = tmp_path / "other"
    dcc_keys(other, "new", "x", "--role", "node")
    dcc_keys(other, "new", "app", "--role", "client")
    with pytest.raises(dcc.AuthenticationFailed, match="serves with another key"):
        ground.client("app", other).get("key")
    wait_until(lambda: refused_by(ground, "a", "wrong_server_key") >= 1, 10, ground.text)
    assert ground.refusals("wrong_server_key") == 1


def test_a_client_with_keys_does_not_speak_to_a_node_without(ground: Ground) -> None:
    node = ground.processes.node()
    ground.nodes.append(node)
    with pytest.raises(dcc.AuthenticationFailed, match="uses no keys"):
        ground.client().get("key")


@pytest.fixture
def subscriber(ground: Ground) -> Iterator[Callable[[NodeProcess, str], zmq.Socket[bytes]]]:
    """Give sockets that subscribe to all the gossip of a node, with a key or (empty) without."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    ring = Directory(ground.directory)
    sockets = []

    def connect(node: NodeProcess, name: str) -> zmq.Socket[bytes]:
        socket = context.socket(zmq.SUB)
        if name:
            own = Credentials(ring.own(name, tuple(Role))[1], ring.servers())
            present(socket, own, 0)
        socket.setsockopt(zmq.SUBSCRIBE, b"")
        socket.connect(f"tcp://{node.ready['gossip']}")
        sockets.append(socket)
        return socket

    yield connect
    context.destroy(linger=0)


def test_gossip_is_for_nodes_only(
    ground: Ground, subscriber: Callable[[NodeProcess, str], zmq.Socket[bytes]]
) -> None:
    a, b = ground.node("a"), ground.node("b")
    assert b.ready
    node, client, nobody = (subscriber(a, name) for name in ("c", "app", ""))
    assert node.poll(20_000), ground.text()
    wait_until(lambda: ground.refusals("not_a_node"), 5, ground.text)
    assert not client.poll(1_000)
    assert not nobody.poll(0)


def test_nodes_with_and_without_keys_make_no_cluster_and_say_so(ground: Ground) -> None:
    closed, open_ = ground.node("a"), ground.processes.node()
    joining = ground.processes.node("--seed", closed.address)
    ground.node("b", "--seed", open_.address)
    wait_until(lambda: ground.refusals("without_key"), 20, ground.text)
    wait_until(lambda: refused(joining, "by_seed"), 20, joining.text)
    assert "lets in only whoever has a key" in refused(joining, "by_seed")[0]["text"]
    wait_until(lambda: refused(open_, "with_key"), 20, open_.text)
    wait_until(lambda: refused(ground.nodes[1], "by_seed"), 20, ground.text)
    assert "uses no keys" in refused(ground.nodes[1], "by_seed")[0]["text"]


def refused(node: NodeProcess, reason: str) -> list[dict[str, Any]]:
    """Return the lines of one node about refusals for `reason`."""
    return [one for one in node.events("connection_refused") if one["reason"] == reason]


class Tap:
    """Passes one connection on to a node, and keeps what was sent to it."""

    def __init__(self, address: str) -> None:
        host, port = address.rsplit(":", 1)
        self.node = (host, int(port))
        self._listener = net.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.sent = b""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        client = self._listener.accept()[0]
        with client, net.create_connection(self.node) as node, DefaultSelector() as ready:
            ready.register(client, EVENT_READ, node)
            ready.register(node, EVENT_READ, client)
            while True:
                for key, _ in ready.select():
                    data = (client if key.data is node else node).recv(65_536)
                    if not data:
                        return
                    if key.data is node:
                        self.sent += data
                    key.data.sendall(data)

    def close(self) -> None:
        """Wait for the end of the connection."""
        self._thread.join(10)
        self._listener.close()


def test_what_was_recorded_is_worth_nothing_later(ground: Ground) -> None:
    """Whoever repeats all that a client has sent gets no further than the handshake."""
    node = ground.node("a")
    chief = ground.client("chief")
    chief.put("warm", b"up")
    tap = Tap(node.address)
    ring = Directory(ground.directory)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.DEALER)
    present(socket, Credentials(ring.own("app", tuple(Role))[1], ring.servers()), 0)
    socket.connect(f"tcp://{tap.address}")
    write = m.Write(op=m.Op.PUT, key=b"key", value=b"first")
    socket.send_multipart(Codec("dcc", sender=5, boot=6).encode(write, request=1))
    assert socket.poll(10_000), node.text()
    assert chief.get("key") == b"first"
    socket.close(0)
    context.term()
    tap.close()
    chief.put("key", b"second")
    before = refused_by(ground, "a", "wrong_server_key")
    with net.create_connection(tap.node, timeout=10) as again:
        again.sendall(tap.sent)
        got = b""
        while data := again.recv(65_536):
            got += data
    assert b"first" not in tap.sent, "it is encrypted"
    assert len(got) < 500, "greeting and welcome, no answer"
    wait_until(lambda: refused_by(ground, "a", "wrong_server_key") > before, 10, node.text)
    assert chief.get("key") == b"second"
