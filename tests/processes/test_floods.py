"""Messages and subscriptions without end: their connection ends, and the node goes on."""

from __future__ import annotations

import os
import socket as net
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

import dcc
from dcc.units import MIB
from tests.processes.test_attacks import connected, rss
from tests.support.processes import NodeProcess, Processes, wait_until

pytestmark = [pytest.mark.process, pytest.mark.slow]
ATTACK_SECONDS = 30.0
ENDED_SECONDS = 5.0
"At the latest, also of topics that come slowly."
LONG = b"\3" + struct.pack(">Q", MIB) + bytes(MIB)
"A frame of a mebibyte behind which more come."
EMPTY = b"\1\0" * 30_000
TOPICS = 20_000


class Attack:
    """Sends without end on one connection, until that is ended; on a thread."""

    def __init__(self, address: str, kind: bytes, pieces: Callable[[], Iterator[bytes]]) -> None:
        self.raw = connected(address, kind)
        self.raw.settimeout(None)
        self.sent = 0
        self.ended = False
        self._pieces = pieces
        self.seconds = 0.0
        "From the first piece on, until the connection ended."
        self._thread = threading.Thread(target=self._send)
        self._thread.start()

    def _send(self) -> None:
        began = time.monotonic()
        until = began + ATTACK_SECONDS
        with suppress(OSError):
            for piece in self._pieces():
                if time.monotonic() > until:
                    return
                self.raw.sendall(piece)
                self.sent += len(piece)
        self.seconds = time.monotonic() - began
        self.ended = True

    def close(self) -> None:
        with suppress(OSError):
            self.raw.shutdown(net.SHUT_RDWR)
        self._thread.join()
        self.raw.close()


def long_frames() -> Iterator[bytes]:
    while True:
        yield LONG


def empty_frames() -> Iterator[bytes]:
    while True:
        yield EMPTY


def subscriptions() -> Iterator[bytes]:
    while True:
        topics = [b"\0\x09\1" + os.urandom(8) for _ in range(TOPICS)]
        yield b"".join(topics)


def slow_subscriptions() -> Iterator[bytes]:
    while True:
        yield b"\0\x09\1" + os.urandom(8)
        time.sleep(0.002)


@pytest.fixture
def node(processes: Processes) -> NodeProcess:
    return processes.nodes(2, "--replicas", "0")[0]


@pytest.mark.parametrize(
    ("plane", "kind", "pieces", "grown_max"),
    [
        # It grows by as much as comes in the quarter of a second that a busy node is given.
        ("request", b"DEALER", long_frames, 4 * 400 * MIB),
        ("request", b"DEALER", empty_frames, 400 * MIB),
        ("gossip", b"SUB", subscriptions, 200 * MIB),
        ("gossip", b"SUB", slow_subscriptions, 16 * MIB),
    ],
)
def test_what_does_not_end_ends_its_connection_and_nobody_elses(
    node: NodeProcess,
    plane: str,
    kind: bytes,
    pieces: Callable[[], Iterator[bytes]],
    grown_max: int,
) -> None:
    with dcc.Client(node.address, timeout=5) as client:
        client.put("k", b"v")
        before, highest = rss(node), 0
        attack = Attack(str(node.ready[plane]), kind, pieces)
        try:
            ends = time.monotonic() + ATTACK_SECONDS
            while not attack.ended and time.monotonic() < ends:
                assert client.get("k") == b"v"
                highest = max(highest, rss(node))
            assert attack.ended, "the node ended the connection"
            assert attack.seconds < ENDED_SECONDS
        finally:
            attack.close()
        print(f"{attack.sent / MIB:.0f} MiB sent, {(highest - before) / MIB:.0f} MiB more at most")
        assert highest - before < grown_max
        assert client.get("k") == b"v"
        wait_until(lambda: rss(node) - before < 48 * MIB, 10, lambda: str(rss(node) - before))
        wait_until(lambda: bool(node.events("connection_refused")), 5, node.text)
        assert node.popen.poll() is None


def test_large_values_in_a_hurry_end_no_connection(node: NodeProcess) -> None:
    """Many at once, of the largest size, while the process grows."""
    value = bytes(16 * MIB)
    with dcc.Client(node.address, timeout=20) as client:
        threads = [
            threading.Thread(target=lambda: [client.put(f"large-{n}", value) for n in range(6)])
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert client.get("large-5") == value
    assert not node.events("connection_refused"), node.text()
