"""Names and their addresses, with the system's look-up replaced; and a DEALER that tries them."""

from __future__ import annotations

import socket as net
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import zmq

from dcc import resolve
from dcc.resolve import Dial, Resolver, is_numeric, look_up_all, split
from dcc.units import SECOND
from tests.support.processes import wait_until
from tests.support.tracing import Interruption, Tracer, interrupt

Hosts = dict[str, list[str]]


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts]:
    """A name server that knows these names, fails for others, and is silent about `silent…`."""
    known: Hosts = {}
    release = threading.Event()

    def getaddrinfo(host: str, port: Any, **_options: Any) -> list[Any]:
        if host.startswith("silent"):
            release.wait(30)
        if host not in known:
            raise net.gaierror(net.EAI_NONAME, "Name or service not known")
        return [(net.AF_INET, net.SOCK_STREAM, 6, "", (one, 0)) for one in known[host]]

    monkeypatch.setattr(net, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(resolve, "PAUSE_NS", 0)
    yield known
    release.set()


def look_up(resolver: Resolver, address: str) -> tuple[str, ...]:
    resolver.look_up(address)
    wait_until(lambda: not resolver.pending(address))
    return resolver.addresses(address)


@pytest.mark.parametrize("text", ["", ":", "nonsense", "host:", "host:99999", "::1:5", ":5", "h:५"])
def test_what_is_no_host_and_port_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        split(text)
    with pytest.raises(ValueError):
        Resolver().addresses(text)


def test_only_an_ip_address_is_numeric() -> None:
    assert is_numeric("127.0.0.1:1")
    assert is_numeric("[::1]:1")
    for name in ("localhost:1", "1.2.3.4.5:1", "127.1:1", "*:1"):
        assert not is_numeric(name)


def test_a_numeric_address_is_known_without_asking(hosts: Hosts) -> None:
    assert Resolver().addresses("[fd00::5]:6740") == ("[fd00::5]:6740",)


def test_all_addresses_of_both_families_are_known_once_they_were_asked_for(hosts: Hosts) -> None:
    hosts["cache"] = ["fd00::5", "10.0.0.1", "10.0.0.2", "10.0.0.1"]
    resolver = Resolver()
    assert resolver.addresses("cache:7") == ()
    assert look_up(resolver, "cache:7") == ("[fd00::5]:7", "10.0.0.1:7", "10.0.0.2:7")
    assert resolver.addresses("cache:8")[0] == "[fd00::5]:8"


def test_a_failed_look_up_says_why_and_keeps_what_was_known(hosts: Hosts) -> None:
    hosts["cache"] = ["10.0.0.1"]
    resolver = Resolver()
    look_up(resolver, "cache:7")
    del hosts["cache"]
    assert look_up(resolver, "cache:7") == ("10.0.0.1:7",)
    assert resolver.failure("cache:7") == "name or service not known"
    hosts["cache"] = ["10.0.0.2"]
    assert look_up(resolver, "cache:7") == ("10.0.0.2:7",)
    assert resolver.failure("cache:7") == ""


def test_a_silent_name_server_keeps_no_other_name_waiting(hosts: Hosts) -> None:
    hosts["live"] = ["10.0.0.1"]
    resolver = Resolver()
    for n in range(resolve.THREADS_MAX - 1):
        resolver.look_up(f"silent{n}:1")
    assert look_up(resolver, "live:1") == ("10.0.0.1:1",)


def test_names_that_were_slow_before_leave_threads_to_the_others(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts["live"] = ["10.0.0.1"]
    monkeypatch.setattr(resolve, "SLOW_NS", 0)  # From now on every name that was asked is slow.
    resolver = Resolver()
    names = [f"dead{n}:1" for n in range(2 * resolve.THREADS_MAX)]
    for name in names:
        look_up(resolver, name)
    silent = threading.Event()

    def look_up_slowly(host: str) -> tuple[list[str], str]:
        if host not in hosts:
            silent.wait(30)
        return hosts.get(host, []), ""

    monkeypatch.setattr(resolve, "_look_up", look_up_slowly)
    for name in names:
        resolver.look_up(name)
    assert look_up(resolver, "live:1") == ("10.0.0.1:1",)
    silent.set()


def test_waiting_names_and_remembered_ones_are_bounded(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolve, "WAITING_MAX", 5)
    monkeypatch.setattr(resolve, "NAMES_MAX", 30)
    resolver = Resolver()
    for n in range(100):
        resolver.look_up(f"silent{n}:1")
    assert sum(resolver.pending(f"silent{n}:1") for n in range(100)) <= resolve.THREADS_MAX + 5
    assert len(resolver._names) <= 30
    assert len(resolver._threads) <= resolve.THREADS_MAX


def test_looking_up_all_waits_no_longer_than_it_was_told(hosts: Hosts) -> None:
    hosts["live"] = ["10.0.0.1"]
    began = time.monotonic()
    found = look_up_all(["live:1", "silent1:1", "silent2:1", "10.0.0.9:1"], 0.3)
    assert time.monotonic() - began < 5
    assert found["live:1"] == ("10.0.0.1:1",)
    assert found["silent1:1"] == ()
    assert found["10.0.0.9:1"] == ("10.0.0.9:1",)


class Sockets:
    """DEALERs and ROUTERs of one context, closed when the test ends."""

    def __init__(self) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._open: list[zmq.Socket[bytes]] = []

    def _socket(self, kind: int) -> zmq.Socket[bytes]:
        self._open.append(self.context.socket(kind))
        return self._open[-1]

    def dealer(self) -> zmq.Socket[bytes]:
        socket = self._socket(zmq.DEALER)
        socket.setsockopt(zmq.IMMEDIATE, 1)
        return socket

    def router(self, host: str, port: int = 0) -> tuple[zmq.Socket[bytes], int]:
        socket = self._socket(zmq.ROUTER)
        socket.bind(f"tcp://{host}:{port or '*'}")
        endpoint = socket.getsockopt(zmq.LAST_ENDPOINT)
        assert isinstance(endpoint, bytes)
        return socket, int(endpoint.decode().rstrip("\0").rpartition(":")[2])


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    made = Sockets()
    yield made
    made.context.destroy(linger=0)


def is_connected(socket: zmq.Socket[bytes]) -> bool:
    return bool(int(socket.getsockopt(zmq.EVENTS)) & zmq.POLLOUT)


@pytest.mark.process
def test_a_dead_address_of_a_name_does_not_stop_the_others(hosts: Hosts, sockets: Sockets) -> None:
    _router, port = sockets.router("127.0.0.3")
    hosts["cache"] = ["127.0.0.4", "127.0.0.5", "127.0.0.3"]
    socket = sockets.dealer()
    dial = Dial(socket, f"cache:{port}", Resolver())

    def connected() -> bool:
        if not is_connected(socket):
            dial.tend(time.monotonic_ns())
        return is_connected(socket)

    wait_until(connected)
    assert dial.at == f"127.0.0.3:{port}"


@pytest.mark.process
def test_a_lost_connection_goes_where_the_name_means_now(hosts: Hosts, sockets: Sockets) -> None:
    old, port = sockets.router("127.0.0.3")
    hosts["cache"] = ["127.0.0.3"]
    socket = sockets.dealer()
    dial = Dial(socket, f"cache:{port}", Resolver())

    def connected() -> bool:
        if not is_connected(socket):
            dial.tend(time.monotonic_ns())
        return is_connected(socket)

    wait_until(connected)
    sockets.router("127.0.0.6", port)
    hosts["cache"] = ["127.0.0.6"]
    old.close(0)
    wait_until(lambda: not is_connected(socket))
    wait_until(connected)
    assert dial.at == f"127.0.0.6:{port}"


def test_patience_grows_from_round_to_round_and_has_an_end(hosts: Hosts, sockets: Sockets) -> None:
    hosts["cache"] = ["127.0.0.4"]
    resolver = Resolver()
    look_up(resolver, "cache:1")
    dial = Dial(sockets.dealer(), "cache:1", resolver)
    now, times = 0, []
    for _ in range(9):
        dial.tend(now)
        times.append(dial.moves_at - now)
        now = dial.moves_at
    assert times[0] == resolve.PATIENCE_NS
    assert sorted(times) == times
    assert times[-1] == resolve.PATIENCE_MAX_NS <= 10 * SECOND


def test_a_look_up_that_is_interrupted_anywhere_is_made_up_for(hosts: Hosts) -> None:
    hosts["cache"] = ["10.0.0.1"]
    resolver = Resolver()
    for at in range(100_000):
        resolver._names.pop("cache", None)
        tracer = Tracer(at, interrupt)
        try:
            with tracer:
                resolver.look_up("cache:7")
        except Interruption:
            pass

        def known() -> bool:
            resolver.look_up("cache:7")
            return resolver.addresses("cache:7") == ("10.0.0.1:7",)

        wait_until(known, 5)
        if tracer.left >= 0:
            assert len(resolver._threads) <= resolve.THREADS_MAX
            return
