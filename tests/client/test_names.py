"""The blocking client where nodes are known by names, and where it can open nothing."""

from __future__ import annotations

import socket as net
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from dcc.client.sync import Client
from dcc.errors import NodeUnavailable
from tests.support.client_peers import PeerThread
from tests.support.processes import Processes

pytestmark = pytest.mark.process


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, list[str]]]:
    """A name server that knows these names and answers nothing about others."""
    known: dict[str, list[str]] = {}
    release = threading.Event()

    def getaddrinfo(host: str, port: Any, **_options: Any) -> list[Any]:
        if host not in known:
            release.wait(30)
            raise net.gaierror(net.EAI_AGAIN, "Temporary failure in name resolution")
        return [(net.AF_INET, net.SOCK_STREAM, 6, "", (one, 0)) for one in known[host]]

    monkeypatch.setattr(net, "getaddrinfo", getaddrinfo)
    yield known
    release.set()


def port_of(peer: PeerThread) -> str:
    return peer.address.rpartition(":")[2]


def test_a_dead_address_of_a_name_is_passed_over(hosts: dict[str, list[str]]) -> None:
    hosts["cache"] = ["127.0.0.7", "127.0.0.8", "127.0.0.1"]
    with PeerThread() as peer, Client(f"cache:{port_of(peer)}", timeout=5) as cache:
        cache.put("k", b"v")
        assert cache.get("k") == b"v"


def test_a_name_that_nobody_answers_for_delays_no_other_node(hosts: dict[str, list[str]]) -> None:
    with PeerThread() as peer:
        nodes = [f"gone{n}.example:6740" for n in range(3)]
        with Client([*nodes, peer.address], timeout=5) as cache:
            began = time.monotonic()
            for n in range(20):
                cache.put(f"k{n}", b"v")
            assert time.monotonic() - began < 2.5


def test_only_a_name_that_nobody_answers_for_is_a_node_that_is_unavailable(
    hosts: dict[str, list[str]],
) -> None:
    with Client("gone.example:6740", timeout=0.3) as cache:
        began = time.monotonic()
        with pytest.raises(NodeUnavailable) as raised:
            cache.put("k", b"v")
        assert time.monotonic() - began < 2
        assert raised.value.definite


OUT_OF_DESCRIPTORS = """
import os, resource, sys
import dcc
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
taken = []
def fill(leaving):
    try:
        while True:
            taken.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    for _ in range(leaving):
        os.close(taken.pop())
def outcome(cache):
    try:
        cache.put("k", b"v")
    except dcc.DccError as error:
        return f"{type(error).__name__} {error.definite}"
    return "stored"
cache = dcc.Client(sys.argv[1], timeout=0.5)
for leaving in (0, 1, 2, 4, 6, 8):
    fill(leaving)
    print(leaving, outcome(cache), flush=True)
for fd in taken:
    os.close(fd)
print("all", outcome(cache), flush=True)
"""


def test_out_of_descriptors_a_call_fails_for_certain_and_the_process_lives_on(
    processes: Processes,
) -> None:
    with PeerThread() as peer:
        script = processes.python("-c", OUT_OF_DESCRIPTORS, peer.address)
        assert script.wait() == 0, script.text()
    said = [f"{leaving} NodeUnavailable True" for leaving in (0, 1, 2, 4, 6, 8)]
    assert script.out == [*said, "all stored"]
