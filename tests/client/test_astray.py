"""A client whose known ring is gone: it finds the cluster at its configured nodes again."""

from __future__ import annotations

import contextlib
import socket as net
import time
from typing import Any

import pytest

from dcc.client.shared import SEEK_MOST_NS
from dcc.client.sync import Client
from dcc.errors import DccError, NodeUnavailable
from dcc.types import Standing
from dcc.units import MILLISECOND, SECOND
from dcc.wire.messages import Code, ErrorReply, Get, Op, TopologyGet, Write
from tests.support.client_driver import Bench
from tests.support.client_peers import Peer, PeerThread

KEY = b"key"
PUT = Write(op=Op.PUT, key=KEY, value=b"v")


def moved(*, how: str) -> Bench:
    """Return a bench that knows the ring a, b, c, which is gone; n1 and n2 are the cluster now."""
    bench = Bench().learn()
    old = list(bench.peers)
    for name in ("n1", "n2"):
        bench.peers[f"{name}:1"] = Peer(name, f"{name}:1")
        bench.standings[f"{name}:1"] = Standing.ALIVE
    bench.publish(epoch=2)
    ring = tuple(one for one in bench.peers["n1:1"].members if one.name in ("n1", "n2"))
    for peer in bench.peers.values():
        peer.members = ring
    bench.core.nodes = ("gone:1", "n1:1", *old)
    bench.peers["gone:1"] = Peer("gone", "gone:1")
    gone = {"gone:1", *old}
    if how == "down":
        bench.down = gone
    elif how == "mute":
        bench.mute = gone
    else:
        for address in gone:
            bench.peers[address] = foreign(address, bench.peers[address])
    return bench


def foreign(address: str, instead_of: Peer) -> Peer:
    """Return a node of the cluster `blue`, which refuses whatever it is sent."""
    peer = Peer("x", address, cluster="blue")
    refusal = peer.encode(ErrorReply(code=Code.WRONG_CLUSTER, text="it is of cluster 'blue'"), 0)
    peer.codec = instead_of.codec
    peer.receive = lambda _frames: [refusal]
    return peer


@pytest.mark.parametrize("how", ["down", "mute", "foreign"])
def test_a_client_whose_ring_is_gone_asks_its_configured_nodes(how: str) -> None:
    bench = moved(how=how)
    began, failures = bench.mono, 0
    while True:
        try:
            bench.do(PUT)
            break
        except DccError:
            failures += 1
            bench.wait(50 * MILLISECOND)
    assert bench.mono - began < 5 * SECOND
    assert failures <= 4
    assert bench.core.view is not None
    assert set(bench.core.view.by_address) == {"n1:1", "n2:1"}
    bench.sent.clear()
    for _ in range(50):
        bench.do(Get(key=KEY))
    assert len(bench.asked(TopologyGet)) <= 1


@pytest.mark.parametrize("how", ["down", "foreign"])
def test_one_long_call_finds_the_cluster_again_before_its_deadline(how: str) -> None:
    bench = moved(how=how)
    began = bench.mono
    bench.do(PUT, timeout_ns=60 * SECOND)
    assert bench.mono - began < 10 * SECOND


def test_a_cluster_that_is_only_down_is_not_asked_the_more_for_it() -> None:
    bench = Bench().learn()
    bench.down = set(bench.peers)
    learns = 0
    for _ in range(200):
        call = bench.core.begin(Get(key=KEY), bench.now)
        effects = call.start(bench.now)
        learns += call._learn is not None
        bench.perform(call, effects)
        while not call.done:
            bench.step(call)
        bench.mono += 50 * MILLISECOND
    assert learns <= 3 + 10 * SECOND // (SEEK_MOST_NS // 2)
    bench.down.clear()
    bench.do(Get(key=KEY))


def test_who_was_down_by_the_last_topology_is_asked_too_when_nobody_else_answers() -> None:
    bench = Bench()
    bench.standings["c:1"] = Standing.DEAD
    bench.publish()
    bench.learn()
    bench.core.nodes = ("a:1",)
    bench.down = {"a:1", "b:1"}
    bench.standings.update({"a:1": Standing.DEAD, "b:1": Standing.DEAD, "c:1": Standing.ALIVE})
    bench.publish(epoch=2)
    for _ in range(3):
        try:
            bench.do(PUT)
        except NodeUnavailable:
            bench.wait(100 * MILLISECOND)
    assert bench.core.view is not None
    assert bench.core.view.epoch == 2


def test_the_topology_of_a_node_that_is_not_ready_binds_nobody() -> None:
    """The others are back, and the one that never gets ready still answers."""
    bench = Bench("ab")
    bench.down = {"b:1"}
    alone = tuple(one for one in bench.peers["a:1"].members if one.name == "a")
    bench.peers["a:1"].members, bench.peers["a:1"].ready = alone, False
    bench.peers["a:1"].answer = lambda header, message: (
        bench.peers["a:1"].serve(header, message)
        if isinstance(message, TopologyGet)
        else [ErrorReply(code=Code.NOT_READY, text="the node has not joined yet")]
    )
    with pytest.raises(NodeUnavailable):
        bench.do(PUT)
    bench.down.clear()
    bench.standings["a:1"] = Standing.DEAD
    ring = tuple(one for one in bench.peers["b:1"].members if one.name == "b")
    bench.peers["b:1"].members = ring
    for _ in range(12):
        try:
            bench.do(PUT)
            break
        except NodeUnavailable:
            bench.wait(500 * MILLISECOND)
    assert bench.core.view is not None
    assert "b:1" in bench.core.view.by_address


# -------------------------------------------------------------------- what errors tell


def test_an_error_names_who_was_tried_and_why_each_failed() -> None:
    bench = Bench().learn()
    bench.down = {"a:1"}
    bench.mute = {"b:1"}
    bench.peers["c:1"].answer = lambda header, message: [
        ErrorReply(code=Code.NOT_READY, text="the node has not joined yet")
    ]
    with pytest.raises(DccError) as caught:
        bench.do(Get(key=KEY))
    text = str(caught.value)
    assert "a:1: no connection" in text
    assert "b:1: no answer within" in text
    assert "c:1: the node has not joined yet" in text
    assert text.count("c:1") == 1


def test_an_error_names_the_cluster_that_was_met_and_the_option() -> None:
    bench = Bench("ab")
    for address, peer in bench.peers.items():
        bench.peers[address] = foreign(address, peer)
    with pytest.raises(DccError) as caught:
        bench.do(PUT)
    text = str(caught.value)
    assert all(word in text for word in ("a:1", "b:1", "'blue'", "'dcc'", "`cluster`")), text


def test_an_error_of_a_large_cluster_is_not_a_page_long() -> None:
    bench = Bench("abcdefghijklmnop")
    bench.down = set(bench.peers)
    with pytest.raises(NodeUnavailable, match="and 8 more"):
        bench.do(Get(key=KEY))


# -------------------------------------------------------------------- with sockets


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """A name server that knows these names only."""
    known: dict[str, list[str]] = {}

    def getaddrinfo(host: str, port: Any, **_options: Any) -> list[Any]:
        if host not in known:
            raise net.gaierror(net.EAI_NONAME, "Name or service not known")
        return [(net.AF_INET, net.SOCK_STREAM, 6, "", (one, 0)) for one in known[host]]

    monkeypatch.setattr(net, "getaddrinfo", getaddrinfo)
    return known


@pytest.mark.process
def test_a_cluster_that_moved_to_another_address_is_found_by_its_name(
    hosts: dict[str, list[str]],
) -> None:
    hosts["cache"] = ["127.0.0.9"]
    with PeerThread() as new:
        port = new.address.rpartition(":")[2]
        with Client(f"cache:{port}", timeout=2) as cache:
            hosts["cache"] = ["127.0.0.1"]
            now = new.peer.members
            new.peer.members = Peer("old", f"127.0.0.9:{port}").members
            with pytest.raises(NodeUnavailable, match=f"127.0.0.9:{port}: no connection"):
                cache.put("k", b"v")  # Now it knows a ring that is not there.
            new.peer.members = now
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                with contextlib.suppress(DccError):
                    cache.put("k", b"v")
                    break
            assert cache.get("k") == b"v"


@pytest.mark.process
def test_a_name_that_does_not_exist_is_told_in_the_error(hosts: dict[str, list[str]]) -> None:
    expected = pytest.raises(NodeUnavailable, match=r"no\.such\.host:6740: name or service")
    with Client("no.such.host:6740", timeout=0.5) as cache, expected:
        cache.get("k")
