"""What readers feel while data moves: latencies at an open loop of 30 % load as a node joins.

    python -m benchmarks.moves [--rounds 3] [--keys 100000] [--value-bytes 1000] [--load 0.3]
                               [--skew 0.99]

Three nodes hold all keys twice, and one reader sends requests at a rate that keeps 30 % of this
machine's processors busy, nodes and reader together (`/proc/stat`; Linux only). They leave on time,
whether earlier ones were answered or not, and each latency counts from when its request was *due*
(no coordinated omission). Keys are read by Zipf's law with the exponent `--skew`, by default that
of YCSB; 0 reads all alike, which is the worst case: whatever is read while it moves is fetched, so
what is popular has moved after one read. In each round the quiet cluster is measured, then the time
from the start of a fourth node until it has all its copies; it leaves (SIGTERM) and the round is
over. The reader learns new topologies like a client: when an epoch differs, at most once a second.
Figures are medians of the rounds.
"""

from __future__ import annotations

import argparse
import json
import select
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from random import Random

from benchmarks.hot_path import started
from benchmarks.zmtp import Dealer
from dcc import Client
from dcc.client.routing import View
from dcc.ring.hashing import slot_of
from dcc.wire import messages as m
from dcc.wire.codec import Codec

TRIAL_RATE = 1_000.0
TRIAL_SECONDS = 3.0
"Requests per second, and for how long, to learn what a request costs."
REFRESH_SECONDS = 1.0
QUIET_SECONDS = 5.0
MOVE_SECONDS_MAX = 120.0
LIMIT = 2.0
"p90 while data moves, at most so many times the quiet one."


@dataclass
class Reader:
    """GETs straight to the primaries, by a topology of its own."""

    seed: str
    keys: Sequence[bytes]
    skew: float
    "Exponent of Zipf's law: the n-th most popular key is read in proportion to n ** -skew."
    others: Counter[str] = field(default_factory=Counter)
    "Answers that were no hit, by what they were."
    late: list[float] = field(default_factory=list)
    "Seconds from when a request was due to its answer."

    def __post_init__(self) -> None:
        self._codec = Codec("dcc", sender=9, boot=9)
        self._dealers: dict[str, Dealer] = {}
        self._due: dict[int, float] = {}
        self._number = 0
        self._refreshed_at = 0.0
        self._refreshing = False
        self._slots = [slot_of(key) for key in self.keys]
        shares = accumulate((n + 1) ** -self.skew for n in range(len(self.keys)))
        popular = Random(1).sample(range(len(self.keys)), len(self.keys))
        self._script = Random(2).choices(popular, cum_weights=list(shares), k=1 << 20)
        self.refresh()

    def refresh(self) -> None:
        """Connect anew and learn the topology; nothing may be under way.

        A node hangs up on a reader that slept through its heartbeats.
        """
        self.close()
        dealer = self._dealer(self.seed)
        dealer.send(self._codec.encode(m.TopologyGet(), request=1 << 40)[0])
        for frames in dealer.messages(wait=True):
            header, topology = self._codec.decode(frames)
            assert isinstance(topology, m.Topology)
            self._view = View(topology, header.epoch)

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

    def close(self) -> None:
        """Close all connections."""
        while self._dealers:
            self._dealers.popitem()[1].close()

    def _dealer(self, address: str) -> Dealer:
        dealer = self._dealers.get(address)
        if dealer is None:
            dealer = self._dealers[address] = Dealer(address)
        return dealer

    def _send(self, due: float) -> None:
        self._number += 1
        place = self._script[self._number % len(self._script)]
        address = self._view.primary(self._slots[place])
        assert address is not None
        frames = self._codec.encode(m.Get(key=self.keys[place]), request=self._number)
        self._due[self._number] = due
        self._dealer(address).send(frames[0])

    def _take(self, timeout: float) -> int:
        """Wait for answers at most so long; return how many GETs were answered."""
        answered = 0
        for dealer in select.select(list(self._dealers.values()), (), (), timeout)[0]:
            for frames in dealer.messages(wait=False):
                header, reply = self._codec.decode(frames)
                answered += self._answered(header.request, header.epoch, reply)
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
            self._dealer(self.seed).send(frames[0])
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


def rate_for(load: float, reader: Reader) -> float:
    """Return the requests per second that keep the share `load` of all processors busy."""
    rate = TRIAL_RATE
    for _ in range(3):
        busy, total = processors()
        reader.open_loop(rate, after(TRIAL_SECONDS))
        busy_after, total_after = processors()
        rate *= load * (total_after - total) / (busy_after - busy)
    return rate


def after(seconds: float) -> Callable[[], bool]:
    """Return the question whether so long has passed since now."""
    end = time.perf_counter() + seconds
    return lambda: time.perf_counter() > end


def processors() -> tuple[int, int]:
    """Return the ticks that all processors together were busy for, and those that have passed."""
    with open("/proc/stat", encoding="ascii") as stat:
        ticks = [int(word) for word in stat.readline().split()[1:9]]
    idle, waiting = ticks[3:5]
    return sum(ticks) - idle - waiting, sum(ticks)


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
    with watched(client, 3):
        quiet = reader.open_loop(rate, after(QUIET_SECONDS))
    begin = time.perf_counter()
    with started(node_argv(reader.seed)) as (node, line):
        assert json.loads(line)["event"] == "node_ready"
        with watched(client, 4) as over:
            moving = reader.open_loop(rate, over.is_set)
        lasted = time.perf_counter() - begin
        node.send_signal(signal.SIGTERM)
        try:
            node.wait(60)
        except subprocess.TimeoutExpired:
            raise SystemExit("the newcomer did not leave") from None
    wait(lambda: settled(client, 3))
    reader.refresh()
    return Round(quiet, moving, lasted)


@contextmanager
def watched(client: Client, nodes: int) -> Iterator[threading.Event]:
    """Yield an event that is set once all is settled; end the program if it never is.

    A thread looks twice a second, so that asking makes no request late; it looks in the quiet
    phase, too, which makes both phases pay for it alike.
    """
    over, stop = threading.Event(), threading.Event()

    def look() -> None:
        end = time.monotonic() + MOVE_SECONDS_MAX
        try:
            while not stop.wait(0.5):
                if settled(client, nodes):
                    over.set()
                elif time.monotonic() > end:
                    raise SystemExit("the move does not end")
        finally:
            over.set()  # Whatever happens, nobody waits for this thread in vain.

    with ThreadPoolExecutor(1) as thread:
        looking = thread.submit(look)
        try:
            yield over
        finally:
            stop.set()
    looking.result()


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
    parser.add_argument("--skew", type=float, default=0.99)
    options = parser.parse_args(argv)
    keys = [b"key:%07d" % i for i in range(options.keys)]
    with ExitStack() as stack:
        _, line = stack.enter_context(started(node_argv(None)))
        seed: str = json.loads(line)["request"]
        for _ in range(2):
            stack.enter_context(started(node_argv(seed)))
        client = stack.enter_context(Client(seed, timeout=10))
        wait(lambda: settled(client, 3))
        fill(client, keys, b"v" * options.value_bytes)
        wait(lambda: settled(client, 3))
        reader = Reader(seed, keys, options.skew)
        stack.callback(reader.close)
        rate = rate_for(options.load, reader)
        rounds = [play(client, reader, rate) for _ in range(options.rounds)]
        report(rounds, rate, reader.others)


if __name__ == "__main__":
    main()
