"""The node's HTTP under clients that are slow on purpose: a probe is answered all the same."""

from __future__ import annotations

import http.client
import socket as net
import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from dcc.errors import ConfigError
from dcc.node import http as under_test
from dcc.node.http import ASKING_MAX, CONNECTIONS_MAX, HttpServer
from dcc.units import MILLISECOND
from tests.support.processes import wait_until
from tests.support.stub_core import HERE, Harness

pytestmark = pytest.mark.process


@pytest.fixture
def node() -> Iterator[Harness]:
    harness = Harness()
    yield harness
    harness.core.release.set()
    harness.end()


@pytest.fixture
def server(node: Harness) -> Iterator[HttpServer]:
    served = HttpServer(HERE, node.loop)
    yield served
    served.close()


def status(server: HttpServer, path: str, authorization: str = "") -> int:
    connection = http.client.HTTPConnection(server.address.host, server.address.port, timeout=10)
    with closing(connection):
        headers = {"Authorization": authorization} if authorization else {}
        connection.request("GET", path, headers=headers)
        return connection.getresponse().status


PAGES = ("/metrics", "/api/v1/status", "/nothing")
TOKEN = b"token-of-16-byte"


@pytest.mark.parametrize(("token", "refused"), [(TOKEN, 401), (b"", 403)])
def test_without_the_token_there_are_probes_and_nothing_else(
    node: Harness, token: bytes, refused: int
) -> None:
    with closing(HttpServer(HERE, node.loop, token)) as server:
        assert status(server, "/livez") == 200, "a probe sends no token"
        for wrong in ("", "Bearer ", "Bearer wrong", "Bearer \xe9", f"Basic {TOKEN.decode()}"):
            assert {status(server, path, wrong) for path in PAGES} == {refused}


def test_who_sends_the_token_gets_every_page(node: Harness) -> None:
    with closing(HttpServer(HERE, node.loop, TOKEN)) as server:
        sent = f"bearer {TOKEN.decode()}"
        assert [status(server, path, sent) for path in PAGES] == [200, 200, 404]


class Tricklers:
    """Connections that send a request one byte at a time, without ever ending it."""

    def __init__(self, server: HttpServer, count: int) -> None:
        where = (server.address.host, server.address.port)
        self.open = [net.create_connection(where, timeout=10) for _ in range(count)]
        self.request = iter(b"GET /livez?" + b"x" * 60_000)

    def send(self) -> None:
        """Send one byte on each connection that is still open."""
        byte = bytes([next(self.request)])
        self.open = [one for one in self.open if _sent(one, byte)]

    def close(self) -> None:
        for one in self.open:
            one.close()


def _sent(connection: net.socket, byte: bytes) -> bool:
    try:
        connection.send(byte)
    except OSError:
        connection.close()
        return False
    return True


@pytest.fixture
def trickle(server: HttpServer) -> Iterator[Callable[[int], Tricklers]]:
    made = []

    def make(count: int) -> Tricklers:
        made.append(Tricklers(server, count))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_a_probe_is_answered_while_slow_senders_hold_every_place(
    server: HttpServer, trickle: Callable[[int], Tricklers]
) -> None:
    slow = trickle(3 * CONNECTIONS_MAX)
    for _ in range(50):
        slow.send()
        assert status(server, "/livez") == 200


def test_a_newcomer_takes_the_place_of_the_slowest_sender_and_of_nobody_else(
    server: HttpServer, trickle: Callable[[int], Tricklers]
) -> None:
    slow = trickle(CONNECTIONS_MAX)
    slow.send()
    assert status(server, "/livez") == 200
    first, *others = slow.open
    assert first.recv(1) == b""
    for other in others:
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            other.recv(1)


def test_a_connection_ends_in_time_however_busily_it_sends(
    server: HttpServer,
    trickle: Callable[[int], Tricklers],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(under_test, "CONNECTION_NS", 300 * MILLISECOND)
    slow = trickle(3)

    def ended() -> bool:
        slow.send()
        return not slow.open

    wait_until(ended, 10)


def test_pages_that_wait_for_a_stuck_loop_leave_places_for_the_probe(
    node: Harness, server: HttpServer, trickle: Callable[[int], Tricklers]
) -> None:
    node.stick()
    statuses: list[int] = []
    scrapes = [
        threading.Thread(target=lambda: statuses.append(status(server, "/metrics")))
        for _ in range(CONNECTIONS_MAX)
    ]
    for scrape in scrapes:
        scrape.start()
    wait_until(lambda: len(statuses) == CONNECTIONS_MAX - ASKING_MAX, 10)  # Refused at once.
    trickle(CONNECTIONS_MAX - ASKING_MAX)
    for _ in range(3):  # At the cost of those that trickle, not of those that wait for an answer.
        assert status(server, "/livez") == 200
    assert len(statuses) == CONNECTIONS_MAX - ASKING_MAX, "the others still wait"
    for scrape in scrapes:
        scrape.join(10)
    assert statuses == [503] * CONNECTIONS_MAX
    assert status(server, "/livez") == 200


def test_a_restarted_node_gets_its_port_back_from_probes_that_were_answered(node: Harness) -> None:
    """Whoever closes first keeps the connection's end for a minute, and that is the server."""
    served = HttpServer(HERE, node.loop)
    address = served.address
    with net.create_connection((address.host, address.port), timeout=10) as probe:
        probe.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
        while probe.recv(4_096):
            pass
    served.close()
    again = HttpServer(address, node.loop)
    try:
        assert again.address == address
        assert status(again, "/livez") == 200
        with pytest.raises(ConfigError):
            HttpServer(address, node.loop)  # A port that is being listened on is still refused.
    finally:
        again.close()
