"""What readers feel while data moves: latencies at an open loop of 30 % load as a node joins.

    python -m benchmarks.moves [--rounds 3] [--keys 100000] [--value-bytes 1000] [--load 0.3]

Three nodes hold all keys twice. First the throughput of one reader in a closed loop is measured on
the spot; then requests leave at 30 % of it, on time, whether earlier ones were answered or not, and
each latency counts from when its request was *due* (no coordinated omission). In each round the
quiet cluster is measured, then the time from the start of a fourth node until it has all its
copies; it leaves (SIGTERM) and the round is over. The reader learns new topologies like a client:
when an epoch differs, at most once a second. Figures are medians of the rounds.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import zmq

from benchmarks.hot_path import dealer, started
from dcc import Client
from dcc.client.routing import View
from dcc.ring.hashing import slot_of
from dcc.wire import messages as m
from dcc.wire.codec import Codec

DEPTH = 16
"Requests under way while the throughput is measured."
REFRESH_SECONDS = 1.0
QUIET_SECONDS = 5.0
MOVE_SECONDS_MAX = 120.0
LIMIT = 2.0
"p90 while data moves, at most so many times the quiet one."


@dataclass
class Reader:
    """GETs straight to the primaries, by a topology of its own."""

    context: zmq.Context[zmq.Socket[bytes]]
    seed: str
    keys: Sequence[bytes]
    others: Counter[str] = field(default_factory=Counter)
    "Answers that were no hit, by what they were."
    late: list[float] = field(default_factory=list)
    "Seconds from when a request was due to its answer."

    def __post_init__(self) -> None:
        self._codec = Codec("dcc", sender=9, boot=9)
        self._sockets: dict[str, zmq.Socket[bytes]] = {}
        self._poller = zmq.Poller()
        self._due: dict[int, float] = {}
        self._number = 0
        self._refreshed_at = 0.0
        self._refreshing = False
        self._slots = [slot_of(key) for key in self.keys]
        self.refresh()

    def refresh(self) -> None:
        """Learn the topology now; nothing may be under way."""
        socket = self._socket(self.seed)
        socket.send_multipart(self._codec.encode(m.TopologyGet(), request=1 << 40))
        header, topology = self._codec.decode(socket.recv_multipart())
        assert isinstance(topology, m.Topology)
        self._view = View(topology, header.epoch)

    def closed_loop(self, seconds: float) -> float:
        """Return the requests per second with `DEPTH` under way."""
        for _ in range(DEPTH):
            self._send(time.perf_counter())
        begin, done = time.perf_counter(), 0
        while time.perf_counter() < begin + seconds:
            answered = self._take(1.0)
            done += answered
            for _ in range(answered):
                self._send(time.perf_counter())
        self._drain()
        return done / seconds

    def open_loop(self, rate: float, until: Callable[[], bool]) -> list[float]:
        """Send `rate` requests per second until `until`; return each latency in seconds."""
        self.late = []
        begin, sent = time.perf_counter(), 0
        while not until():
            now = time.perf_counter()
            while begin + sent / rate <= now:
                self._send(begin + sent / rate)
                sent += 1
            self._take(max(0.0, begin + sent / rate - time.perf_counter()))
        self._drain()
        return self.late

    def _socket(self, address: str) -> zmq.Socket[bytes]:
        socket = self._sockets.get(address)
        if socket is None:
            socket = self._sockets[address] = dealer(self.context, address)
            self._poller.register(socket, zmq.POLLIN)
        return socket

    def _send(self, due: float) -> None:
        self._number += 1
        place = self._number * 7919 % len(self.keys)
        address = self._view.primary(self._slots[place])
        assert address is not None
        frames = self._codec.encode(m.Get(key=self.keys[place]), request=self._number)
        self._due[self._number] = due
        self._socket(address).send_multipart(frames)

    def _take(self, timeout: float) -> int:
        """Take what has arrived; return how many GETs were answered."""
        answered = 0
        for socket, _ in self._poller.poll(int(timeout * 1e3)):
            try:
                while True:
                    header, reply = self._codec.decode(socket.recv_multipart(zmq.NOBLOCK))
                    answered += self._answered(header.request, header.epoch, reply)
            except zmq.Again:
                continue
        return answered

    def _answered(self, request: int, epoch: int, reply: m.Message) -> bool:
        if isinstance(reply, m.Topology):
            self._view, self._refreshing = View(reply, epoch), False
            return False
        due = self._due.pop(request, None)
        if due is not None:
            self.late.append(time.perf_counter() - due)
            if not isinstance(reply, m.GetReply):
                self.others[str(reply)] += 1
            elif reply.status is not m.Status.HIT:
                self.others[reply.status.name.lower()] += 1
        now = time.perf_counter()
        wanted = epoch != self._view.epoch and not self._refreshing
        if wanted and now - self._refreshed_at > REFRESH_SECONDS:
            self._refreshing, self._refreshed_at = True, now
            frames = self._codec.encode(m.TopologyGet(), request=1 << 40)
            self._socket(self.seed).send_multipart(frames)
        return due is not None

    def _drain(self) -> None:
        end = time.perf_counter() + 5.0
        while self._due and time.perf_counter() < end:
            self._take(0.1)
        if self._due:
            raise SystemExit(f"{len(self._due)} requests were never answered")


def node_argv(seed: str | None) -> list[str]:
    """Return the command line of one node."""
    argv = [sys.executable, "-m", "dcc.node", "--bind", "127.0.0.1:0", "--replicas", "1",
            "--max-memory", "1GiB", "--log-level", "error", "--log-format", "json"]  # fmt: skip
    return [*argv, "--seed", seed] if seed else argv


def fill(client: Client, keys: Sequence[bytes], value: bytes) -> None:
    """Store all keys, with patience."""
    chunk = 500
    for i in range(0, len(keys), chunk):
        left = {key.decode(): value for key in keys[i : i + chunk]}
        while left:
            left = dict.fromkeys(client.put_many(left), value)


def settled(client: Client, nodes: int) -> bool:
    """Return whether all nodes are there and have all their copies."""
    found = client.stats().nodes
    return len(found) == nodes and all(
        one.detail["exchange"]["leftover_slots"] == 0 and one.slots_ready for one in found.values()
    )


@dataclass
class Round:
    """One round's figures in seconds."""

    quiet: list[float]
    moving: list[float]
    lasted: float


def play(client: Client, reader: Reader, rate: float) -> Round:
    """Measure the quiet cluster, then a join; leave it as it was."""
    end = time.perf_counter() + QUIET_SECONDS
    quiet = reader.open_loop(rate, lambda: time.perf_counter() > end)
    begin = time.perf_counter()
    with started(node_argv(reader.seed)) as (node, line):
        assert json.loads(line)["event"] == "node_ready"
        moving = reader.open_loop(rate, watch(client, begin))
        lasted = time.perf_counter() - begin
        node.send_signal(signal.SIGTERM)
        try:
            node.wait(60)
        except subprocess.TimeoutExpired:
            raise SystemExit("the newcomer did not leave") from None
    wait(lambda: settled(client, 3))
    reader.refresh()
    return Round(quiet, moving, lasted)


def watch(client: Client, begin: float) -> Callable[[], bool]:
    """Return the question whether the move is over, which looks twice a second."""
    looked = time.perf_counter()

    def over() -> bool:
        nonlocal looked
        now = time.perf_counter()
        if now - looked < 0.5:
            return False
        looked = now
        if now - begin > MOVE_SECONDS_MAX:
            raise SystemExit("the move does not end")
        return settled(client, 4)

    return over


def wait(ready: Callable[[], bool]) -> None:
    """Return once `ready`, within the time that a move may take."""
    end = time.monotonic() + MOVE_SECONDS_MAX
    while not ready():
        if time.monotonic() > end:
            raise SystemExit("the cluster does not come to rest")
        time.sleep(0.2)


def quantile(values: Sequence[float], q: float) -> float:
    """Return the q-quantile in milliseconds."""
    return sorted(values)[int(q * (len(values) - 1))] * 1e3


def report(rounds: Sequence[Round], rate: float, others: Counter[str]) -> None:
    """Print medians over the rounds, and the ratio that counts."""
    lasted = statistics.median(one.lasted for one in rounds)
    print(f"{rate:.0f} requests per second; a join took {lasted:.1f} s; no hits: {dict(others)}")
    print("            quiet    moving   ratio")
    for q in (0.5, 0.9, 0.99):
        quiet = statistics.median(quantile(one.quiet, q) for one in rounds)
        moving = statistics.median(quantile(one.moving, q) for one in rounds)
        verdict = ""
        if q == 0.9:
            verdict = f"   at most {LIMIT}: {'ok' if moving <= LIMIT * quiet else 'MISSED'}"
        ratio = moving / quiet
        print(f"  p{q * 100:<4g} {quiet:8.2f} ms {moving:6.2f} ms {ratio:6.2f}{verdict}")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.moves",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--value-bytes", type=int, default=1_000)
    parser.add_argument("--load", type=float, default=0.3)
    options = parser.parse_args(argv)
    keys = [b"key:%07d" % i for i in range(options.keys)]
    with ExitStack() as stack:
        context = stack.enter_context(zmq.Context())
        _, line = stack.enter_context(started(node_argv(None)))
        seed: str = json.loads(line)["request"]
        for _ in range(2):
            stack.enter_context(started(node_argv(seed)))
        client = stack.enter_context(Client(seed, timeout=10))
        wait(lambda: settled(client, 3))
        fill(client, keys, b"v" * options.value_bytes)
        wait(lambda: settled(client, 3))
        reader = Reader(context, seed, keys)
        rate = options.load * reader.closed_loop(QUIET_SECONDS)
        rounds = [play(client, reader, rate) for _ in range(options.rounds)]
        report(rounds, rate, reader.others)
        context.destroy(linger=0)


if __name__ == "__main__":
    main()
