"""Keys are added, changed and taken away while nodes and clients run."""

from __future__ import annotations

import shutil
import signal
import time

import pytest
import zmq

import dcc
from dcc.keys import Credentials, Directory, present
from dcc.node.__main__ import EXIT_KEY_REVOKED
from dcc.types import Role
from dcc.wire.codec import Codec
from dcc.wire.messages import TopologyGet
from tests.support.key_ground import Ground, dcc_keys
from tests.support.processes import wait_until

pytestmark = pytest.mark.process


def standing_of(client: dcc.Client, name: str) -> str:
    """Return how a member stands by the newest topology; empty while nobody answers."""
    try:
        found = {one.name: one.standing for one in client.topology().nodes}
    except dcc.DccError:
        return ""
    return found.get(name, "unknown")


def works(client: dcc.Client, key: str = "key") -> bool:
    """Return whether a value can be written and read."""
    try:
        client.put(key, b"value")
        return client.get(key) == b"value"
    except dcc.DccError:
        return False


def test_a_client_that_is_added_is_let_in_and_one_that_is_revoked_is_not(ground: Ground) -> None:
    node = ground.node("a")
    client, other = ground.client(), ground.client("chief")
    assert works(client)
    dcc_keys(ground.directory, "new", "late", "--role", "client")
    late = ground.client("late")
    wait_until(lambda: works(late), 5, node.text)
    dcc_keys(ground.directory, "revoke", "app")
    wait_until(lambda: not works(client), 5, node.text)
    with pytest.raises(dcc.AuthenticationFailed, match="refuses this key"):
        client.get("key")
    assert works(other)
    assert works(late)


def test_a_revoked_connection_ends_within_a_second(ground: Ground) -> None:
    """Also one that nothing is sent on any more."""
    node = ground.node("a")
    ring = Directory(ground.directory)
    codec = Codec("dcc", sender=5, boot=6)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket, ended = context.socket(zmq.DEALER), context.socket(zmq.PAIR)
    try:
        socket.monitor("inproc://ended", zmq.EVENT_DISCONNECTED)
        ended.connect("inproc://ended")
        present(socket, Credentials(ring.own("app", tuple(Role))[1], ring.servers()), 0)
        socket.connect(f"tcp://{node.address}")
        socket.send_multipart(codec.encode(TopologyGet(), request=1))
        assert socket.poll(10_000), node.text()
        assert not ended.poll(100)
        began = time.monotonic()
        dcc_keys(ground.directory, "revoke", "app")
        assert ended.poll(5_000), node.text()
        assert time.monotonic() - began < 1.0
    finally:
        socket.close(0)
        ended.close(0)
        context.term()


def test_a_revoked_subscriber_hears_no_gossip_within_a_second(ground: Ground) -> None:
    a, b = ground.node("a"), ground.node("b")
    assert b.ready
    ring = Directory(ground.directory)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket, ended = context.socket(zmq.SUB), context.socket(zmq.PAIR)
    try:
        socket.monitor("inproc://ended", zmq.EVENT_DISCONNECTED)
        ended.connect("inproc://ended")
        present(socket, Credentials(ring.own("c", tuple(Role))[1], ring.servers()), 0)
        socket.setsockopt(zmq.SUBSCRIBE, b"")
        socket.connect(f"tcp://{a.ready['gossip']}")
        assert socket.poll(20_000), a.text()
        began = time.monotonic()
        dcc_keys(ground.directory, "revoke", "c")
        assert ended.poll(5_000), a.text()
        assert time.monotonic() - began < 1.0
        while socket.poll(0):
            socket.recv_multipart()
        assert not socket.poll(2_000)
    finally:
        socket.close(0)
        ended.close(0)
        context.term()
    client = ground.client("chief")
    wait_until(lambda: standing_of(client, "b") == "alive", 10, ground.text)


def test_the_files_are_read_at_sighup(ground: Ground) -> None:
    node = ground.node("a")
    assert node.ready
    dcc_keys(ground.directory, "revoke", "app")
    node.signal(signal.SIGHUP)
    wait_until(lambda: node.events("keys_read"), 5, node.text)
    assert node.events("keys_read")[0]["removed"] == ["app"]
    assert node.popen.poll() is None


def test_files_that_cannot_be_read_change_nothing(ground: Ground) -> None:
    node = ground.node("a")
    client = ground.client()
    assert works(client)
    (ground.directory / "clients/app.pub").write_text("public = [")
    wait_until(lambda: node.events("keys_unreadable"), 5, node.text)
    assert works(client)
    shutil.rmtree(ground.directory / "clients")
    (ground.directory / "clients").write_text("no directory")
    wait_until(lambda: len(node.events("keys_unreadable")) == 2, 5, node.text)
    assert works(ground.client("chief")), "who is new is still looked at"


def test_a_client_changes_its_key_and_misses_no_call(ground: Ground) -> None:
    node = ground.node("a")
    client = ground.client()
    assert works(client)
    for part in ("rotate", "use", "retire"):
        dcc_keys(ground.directory, part, "app")
        told = len(node.events("keys_read"))
        ends = time.monotonic() + 1.5
        while time.monotonic() < ends:
            assert works(client), node.text()
        assert told or node.events("keys_read")


def test_a_revoked_node_is_no_member_any_more(ground: Ground) -> None:
    ground.cluster("--replicas", "2")
    client = ground.client("chief")
    for number in range(20):
        client.put(f"key-{number}", b"v", w=3)
    # Its own directory still lets everybody in.
    own = ground.directory.with_name("of-c")
    shutil.copytree(ground.directory, own)
    ground.nodes[2].kill()
    c = ground.processes.node(
        "--keys", str(own), *ground.nodes[2].same_again, "--seed", ground.nodes[0].address
    )
    assert c.ready
    wait_until(lambda: standing_at_a(ground, "c") == "alive", 30, ground.text)
    dcc_keys(ground.directory, "revoke", "c")
    wait_until(lambda: standing_at_a(ground, "c") == "dead", 30, ground.text)
    ends = time.monotonic() + 3
    while time.monotonic() < ends:
        assert standing_at_a(ground, "c") == "dead", ground.text()
    assert ground.refusals("unknown_key"), ground.text()
    c.kill()
    for number in range(20):
        assert client.get(f"key-{number}") == b"v"


def test_a_revoked_node_ends_and_takes_no_writes_from_clients(ground: Ground) -> None:
    ground.cluster("--replicas", "2")
    dcc_keys(ground.directory, "revoke", "a")
    a = ground.nodes.pop(0)
    assert a.wait() == EXIT_KEY_REVOKED, a.text()
    assert a.events("own_key_revoked"), a.text()
    client = ground.client("chief")
    wait_until(lambda: works(client), 30, ground.text)
    assert not any(node.events("own_key_revoked") for node in ground.nodes), ground.text()


def test_a_node_changes_its_key_and_stays_a_member(ground: Ground) -> None:
    ground.cluster("--replicas", "2")
    client = ground.client("chief")
    for times, part in enumerate(("rotate", "use", "retire"), 1):
        dcc_keys(ground.directory, part, "b")
        wait_until_read(ground, times)
    ends = time.monotonic() + 4
    while time.monotonic() < ends:
        assert standing_of(client, "b") == "alive", ground.text()
    client.put("key", b"v", w=3)
    wait_until(lambda: client.converged(), 30, ground.text)
    assert not any(node.events("member_dead") for node in ground.nodes), ground.text()


def test_the_servers_key_changes_while_all_runs(ground: Ground) -> None:
    ground.cluster("--replicas", "2")
    client = ground.client()
    client.put("before", b"v", w=3)
    for times, part in enumerate(("rotate", "use"), 1):
        dcc_keys(ground.directory, part, "server")
        wait_until_read(ground, times)
    wait_until(lambda: works(client), 10, ground.text)
    dcc_keys(ground.directory, "retire", "server")
    fresh = ground.client("chief")
    wait_until(lambda: works(fresh) and fresh.converged(), 30, ground.text)
    assert client.get("before") == b"v"
    assert all(standing_of(fresh, name) == "alive" for name in ("a", "b", "c"))


def wait_until_read(ground: Ground, times: int) -> None:
    """Wait until every node has read its key files so many times again."""

    def have_read() -> bool:
        return min(len(node.events("keys_read")) for node in ground.nodes) >= times

    wait_until(have_read, 10, ground.text)


def standing_at_a(ground: Ground, name: str) -> str:
    """Return how a member stands at the first node, whatever other nodes think."""
    place = ground.nodes[0].address
    with dcc.Client(place, timeout=2.0, keys=ground.directory, name="chief") as client:
        return standing_of(client, name)
