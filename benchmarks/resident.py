"""The resident set of a node, beside its limit: `python -m benchmarks.resident`.

One real node, and what makes memory grow beside the data: clients that ask for large values and
never read, clients that come, write and go, and twice the limit in values. With `--large`, instead:
clients that put one large value each at the same moment, and what is left when they are served.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import zmq

from dcc.units import KIB, MIB
from dcc.wire.codec import Codec
from dcc.wire.messages import Get, Op, Write

ALLOWED = 1.25
VALUE_BYTES = 16 * KIB
WINDOW = 64
"Requests of a writing client that wait for their answers."


@dataclass(frozen=True, slots=True)
class Figures:
    """MiB of resident memory."""

    limit: int
    base: float
    highest: float
    last: float

    @property
    def most(self) -> float:
        """What the highest may be."""
        return ALLOWED * self.limit + self.base

    @property
    def good(self) -> bool:
        """Whether it is not more."""
        return self.highest <= self.most

    def text(self) -> str:
        """Return all of it in a line."""
        return (
            f"limit {self.limit} MiB, at start {self.base:.0f}, highest {self.highest:.0f},"
            f" at the end {self.last:.0f}, at most {self.most:.0f}"
        )


def measure(*, limit_mib: int, clients: int, writes: int, readers: int) -> Figures:
    """Start a node, let all of it happen, and return what the process took."""
    with _node(limit_mib) as (pid, address), zmq.Context() as context:
        base = highest = _resident_mib(pid)
        stuck = [_dealer(context, address, unread=True) for _ in range(readers)]
        for client in range(clients):
            _write(context, address, client, writes)
            highest = max(highest, _resident_mib(pid))
        values = 2 * limit_mib * MIB // VALUE_BYTES
        rounds = 20
        for part in range(rounds):
            _write(context, address, 10_000 + part, values // rounds, VALUE_BYTES)
            for number, socket in enumerate(stuck):
                _ask(socket, number, part)
            highest = max(highest, _resident_mib(pid))
        last = _resident_mib(pid)
        for socket in stuck:
            socket.close()
    return Figures(limit_mib, base, highest, last)


def measure_large(*, limit_mib: int, clients: int, value_mib: int) -> Figures:
    """Start a node, let all clients put a value three times; `last` is from a second later."""
    with _node(limit_mib) as (pid, address), zmq.Context() as context:
        base = highest = _resident_mib(pid)
        value = bytes(value_mib * MIB)
        sockets = [_dealer(context, address) for _ in range(clients)]
        for turn in range(1, 4):
            for number, socket in enumerate(sockets):
                codec = Codec("dcc", sender=200_000 + number, boot=1)
                write = Write(op=Op.PUT, key=b"w%d" % number, value=value)
                socket.send_multipart(codec.encode(write, request=turn), copy=False)
            for socket in sockets:
                socket.recv_multipart()
                highest = max(highest, _resident_mib(pid))
        time.sleep(1)
        last = _resident_mib(pid)
        for socket in sockets:
            socket.close()
    return Figures(limit_mib, base, highest, last)


def _ask(socket: zmq.Socket[bytes], reader: int, part: int) -> None:
    """Write a value of 1 MiB and ask for it ten times."""
    codec = Codec("dcc", sender=5_000 + reader, boot=1)
    key = b"large-%d" % reader
    frames = codec.encode(Write(op=Op.PUT, key=key, value=bytes(MIB)), request=part * 20 + 1)
    socket.send_multipart(frames, zmq.NOBLOCK)
    for n in range(10):
        socket.send_multipart(codec.encode(Get(key=key), request=part * 20 + 2 + n), zmq.NOBLOCK)


def _write(
    context: zmq.Context[zmq.Socket[bytes]], address: str, client: int, count: int, size: int = 1
) -> None:
    """Be a client that puts `count` values, reads its answers, and goes."""
    codec = Codec("dcc", sender=100_000 + client, boot=client + 1)
    value = bytes(size)
    with _dealer(context, address) as socket:
        answered = 0
        for request in range(1, count + 1):
            key = b"k%d-%d" % (client if size > 1 else 0, request)
            write = Write(op=Op.PUT, key=key, value=value)
            socket.send_multipart(codec.encode(write, request=request))
            if request - answered >= WINDOW:
                socket.recv_multipart()
                answered += 1
        for _ in range(count - answered):
            socket.recv_multipart()


def _dealer(
    context: zmq.Context[zmq.Socket[bytes]], address: str, *, unread: bool = False
) -> zmq.Socket[bytes]:
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.RCVTIMEO, 10_000)
    socket.setsockopt(zmq.SNDTIMEO, 10_000)
    if unread:
        socket.setsockopt(zmq.RCVHWM, 1)
        socket.setsockopt(zmq.RCVBUF, 64 * KIB)
    socket.connect(f"tcp://{address}")
    return socket


@contextmanager
def _node(limit_mib: int) -> Iterator[tuple[int, str]]:
    options = ["--bind", "127.0.0.1:0", "--replicas", "0", "--max-memory", f"{limit_mib}MiB"]
    argv = [sys.executable, "-m", "dcc.node", *options, "--log-level", "error"]
    argv += ["--log-format", "json"]
    node = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    try:
        assert node.stdout is not None
        address = node.stdout.readline().split('"request": "')[1].split('"')[0]
        time.sleep(0.5)
        yield node.pid, address
    finally:
        node.kill()
        node.communicate(timeout=20)


def _resident_mib(pid: int) -> float:
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        [line] = [line for line in status if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def main() -> int:
    """Measure and print; exit code 1 if the node took more than is promised."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.resident", description=__doc__)
    parser.add_argument("--limit", type=int, default=64, help="MiB (default 64)")
    parser.add_argument("--clients", type=int, default=300, help="that come and go (default 300)")
    parser.add_argument("--writes", type=int, default=1_000, help="of each (default 1000)")
    parser.add_argument("--readers", type=int, default=2, help="that never read (default 2)")
    parser.add_argument("--large", type=int, metavar="CLIENTS", help="that put 8 MiB each at once")
    options = parser.parse_args()
    if options.large:
        figures = measure_large(limit_mib=options.limit, clients=options.large, value_mib=8)
        print(figures.text())
        return 0 if figures.last <= figures.most else 1
    figures = measure(
        limit_mib=options.limit, clients=options.clients, writes=options.writes,
        readers=options.readers,
    )  # fmt: skip
    print(figures.text())
    return 0 if figures.good else 1


if __name__ == "__main__":
    sys.exit(main())
