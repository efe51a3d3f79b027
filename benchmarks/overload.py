"""A node that is asked for twice what it can do: what is answered in time, refused, or given up.

    python -m benchmarks.overload [--seconds 60] [--times 2.0]

Three nodes; all requests go to one of them, for keys that it leads: 80 % gets and 20 % puts with
one acknowledgement, 100 bytes, each with a deadline of a second. Nodes have the last processor and
the generator the first one, if there are two.

1. *The maximum*: answers in time while so many requests are under way as keep the node busy.
2. *Overload*: for so many seconds requests are sent at a fixed rate, so many times the maximum,
   whether answers come or not. Goodput is what is answered within its deadline.
3. *After it*: from a second later on, as many requests as before, again in time?

Beside: how refusals are told and how soon, whether any node suspects another, and its memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from tempfile import TemporaryFile
from typing import IO

import zmq

import dcc
from dcc.units import MIB
from dcc.wire import messages as m
from dcc.wire.codec import Codec

KEYS = 1_000
VALUE = bytes(100)
PUTS = 0.2
DEADLINE_MS = 1_000
CONNECTIONS = 8
UNDER_WAY = 256
"Requests without an answer that keep a node busy and make none of them late."
MAXIMUM_SECONDS, AFTER_SECONDS = 5.0, 3.0
TICK_SECONDS = 0.002
START_SECONDS = 30.0
NOBLOCK = int(zmq.NOBLOCK)


@dataclass
class Figures:
    """What became of the requests of one phase."""

    seconds: float = 0.0
    sent: int = 0
    unsent: int = 0
    "The connection took no more: the node reads no faster."
    in_time_ms: list[float] = field(default_factory=list)
    late: int = 0
    "Answered behind the deadline."
    refused: Counter[str] = field(default_factory=Counter)
    refused_ms: list[float] = field(default_factory=list)

    @property
    def goodput(self) -> float:
        """Answers in time, a second."""
        return len(self.in_time_ms) / self.seconds

    @property
    def unanswered(self) -> int:
        """Requests that were sent and had no answer by the end."""
        return self.sent - len(self.in_time_ms) - self.late - self.refused.total()


class Generator:
    """Sends requests over some connections and books what comes back."""

    def __init__(self, address: str, keys: Sequence[bytes]) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._codec = Codec("dcc", sender=77, boot=78)
        self._rng, self._keys = Random(1), keys
        self._sockets = []
        for _ in range(CONNECTIONS):
            socket = self._context.socket(zmq.DEALER)
            socket.setsockopt(zmq.SNDHWM, 1_000)
            socket.setsockopt(zmq.RCVHWM, 0)
            socket.connect(f"tcp://{address}")
            self._sockets.append(socket)
        self._poller = [(socket, int(zmq.POLLIN)) for socket in self._sockets]
        self._number = 0
        self._open: dict[int, float] = {}
        self.figures = Figures()

    def close(self) -> None:
        """Close all connections."""
        self._context.destroy(linger=0)

    def busy(self, seconds: float) -> Figures:
        """Keep `UNDER_WAY` requests without an answer for so long."""

        def due(_elapsed: float) -> int:
            self._forget()
            return UNDER_WAY - len(self._open)

        return self._run(seconds, due)

    def at_rate(self, per_second: float, seconds: float) -> Figures:
        """Send at a fixed rate for so long, whatever comes back; then wait for what is open."""
        begun = [0]

        def due(elapsed: float) -> int:
            count = int(min(elapsed, seconds) * per_second) - begun[0]
            begun[0] += count
            return count

        return self._run(seconds, due)

    def _run(self, seconds: float, due: Callable[[float], int]) -> Figures:
        figures = self.figures = Figures(seconds=seconds)
        self._open.clear()
        began = time.monotonic()
        while (elapsed := time.monotonic() - began) < seconds:
            for _ in range(due(elapsed)):
                self._send()
            self._receive(TICK_SECONDS)
        until = time.monotonic() + 2 * DEADLINE_MS / 1_000
        while self._open and time.monotonic() < until:
            self._receive(TICK_SECONDS)
        return figures

    def _send(self) -> None:
        key = self._rng.choice(self._keys)
        message: m.Message = m.Get(key=key)
        if self._rng.random() < PUTS:
            message = m.Write(op=m.Op.PUT, key=key, value=VALUE, w=1)
        self._number += 1
        at = time.time_ns() // 1_000_000 + DEADLINE_MS
        frames = self._codec.encode(message, request=self._number, at=at)
        try:
            self._sockets[self._number % CONNECTIONS].send_multipart(frames, NOBLOCK)
        except zmq.Again:
            self.figures.unsent += 1
            return
        self.figures.sent += 1
        self._open[self._number] = time.monotonic()

    def _receive(self, seconds: float) -> None:
        for socket in self._sockets if zmq.zmq_poll(self._poller, int(seconds * 1_000)) else ():
            try:
                while True:
                    self._take(socket.recv_multipart(NOBLOCK))
            except zmq.Again:
                continue

    def _take(self, frames: list[bytes]) -> None:
        header, message = self._codec.decode(frames)
        sent_at = self._open.pop(header.request, 0.0)
        took_ms = (time.monotonic() - sent_at) * 1_000
        if not sent_at:
            return  # Of the phase before, or given up.
        if isinstance(message, m.ErrorReply):
            self.figures.refused[message.code.name] += 1
            self.figures.refused_ms.append(took_ms)
        elif took_ms <= DEADLINE_MS:
            self.figures.in_time_ms.append(took_ms)
        else:
            self.figures.late += 1

    def _forget(self) -> None:
        """Give up what had no answer for twice its time, so that others take its place."""
        limit = time.monotonic() - 2 * DEADLINE_MS / 1_000
        while self._open and next(iter(self._open.values())) < limit:
            del self._open[next(iter(self._open))]


# ---------------------------------------------------------------- the nodes


class Nodes:
    """Three node processes."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[str]] = []
        self._logs: list[IO[bytes]] = []
        self.addresses: list[str] = []
        self.pids: list[int] = []
        self.names: list[str] = []

    def start(self) -> None:
        """Start all, one after the other."""
        for _ in range(3):
            seed = ("--seed", self.addresses[0]) if self.addresses else ()
            argv = [sys.executable, "-m", "dcc.node", "--bind", "127.0.0.1:0",
                    "--log-format", "json", *seed]  # fmt: skip
            log = TemporaryFile()  # noqa: SIM115
            popen = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=log, text=True)
            self._running.append(popen)
            self._logs.append(log)
            assert popen.stdout is not None
            ready = json.loads(popen.stdout.readline())
            self.addresses.append(ready["request"])
            self.names.append(ready["node"])
            self.pids.append(popen.pid)
            _pin(popen.pid, last=True)

    def resident(self) -> int:
        """Return the resident bytes of the loaded node."""
        with open(f"/proc/{self.pids[0]}/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def suspicions(self) -> int:
        """Return how often a node has suspected another one."""
        found = 0
        for log in self._logs:
            log.seek(0)
            found += log.read().count(b'"member_suspect"')
        return found

    def close(self) -> None:
        """End them."""
        for popen in self._running:
            popen.kill()
            popen.wait()
            assert popen.stdout is not None
            popen.stdout.close()
        for log in self._logs:
            log.close()


def _pin(pid: int, *, last: bool) -> None:
    processors = sorted(os.sched_getaffinity(0))
    if len(processors) > 1:
        for task in os.listdir(f"/proc/{pid}/task"):
            os.sched_setaffinity(int(task), {processors[-1 if last else 0]})


@contextmanager
def three_nodes() -> Iterator[tuple[Nodes, dcc.Client]]:
    """Start three nodes; a client watches them."""
    nodes = Nodes()
    try:
        nodes.start()
        with dcc.Client(nodes.addresses[1:], timeout=5) as client:
            ends = time.monotonic() + START_SECONDS
            while not client.converged():
                assert time.monotonic() < ends, "the nodes did not converge"
                time.sleep(0.1)
            yield nodes, client
    finally:
        nodes.close()


@dataclass
class Result:
    """The three phases, and what the nodes tell."""

    maximum: Figures
    overload: Figures
    after: Figures
    wanted_rate: float
    suspected: int
    grown_bytes: int


def measure(seconds: float, times: float) -> Result:
    """Run all three phases."""
    with three_nodes() as (nodes, client):
        view = client.topology()
        names = (f"key-{number}" for number in range(100 * KEYS))
        led = (name for name in names if view.owners(name)[0] == nodes.names[0])
        keys = [next(led) for _ in range(KEYS)]
        client.put_many(dict.fromkeys(keys, VALUE))
        generator = Generator(nodes.addresses[0], [key.encode() for key in keys])
        try:
            generator.busy(1.0)  # All is warm then.
            maximum = generator.busy(MAXIMUM_SECONDS)
            before = nodes.resident()
            rate = times * maximum.goodput
            overload = generator.at_rate(rate, seconds)
            # What waits for its answer was waited for two seconds; normal is due after one.
            after = generator.busy(AFTER_SECONDS)
            grown = nodes.resident() - before
        finally:
            generator.close()
        return Result(maximum, overload, after, rate, nodes.suspicions(), grown)


# ---------------------------------------------------------------- the report


def quantiles(times_ms: list[float]) -> str:
    """Return p50 and p99, in ms."""
    ordered = sorted(times_ms) or [0.0]
    p50, p99 = (ordered[int(q * (len(ordered) - 1))] for q in (0.5, 0.99))
    return f"p50 {p50:.0f} ms, p99 {p99:.0f} ms"


def report(result: Result) -> Iterator[str]:
    """Return the lines of the report."""
    top = result.maximum.goodput
    for title, one in (
        ("maximum", result.maximum), ("overload", result.overload), ("after it", result.after)
    ):  # fmt: skip
        yield (
            f"{title:9} {one.sent / one.seconds:7.0f} sent a second, {one.goodput:7.0f} answered in"
            f" time ({one.goodput / top:4.0%} of the maximum), {quantiles(one.in_time_ms)};"
            f" {one.late} late, {one.unanswered} unanswered, {one.unsent} not sent"
        )
        refused = ", ".join(f"{count} {code}" for code, count in one.refused.most_common())
        yield f"{'':9} refused: {refused or 'none'}; {quantiles(one.refused_ms)}"
    grown = f"the loaded node grew by {result.grown_bytes / MIB:.0f} MiB"
    yield f"members suspected: {result.suspected}; {grown}"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.overload", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--times", type=float, default=2.0)
    options = parser.parse_args(argv)
    _pin(os.getpid(), last=False)
    for line in report(measure(options.seconds, options.times)):
        print(line, flush=True)


if __name__ == "__main__":
    main()
