"""What a change costs: this checkout beside another one, in the same run.

    python -m benchmarks.against ../before [--rounds 7] [--calls 3000] [--joins 3]

Each checkout runs a cluster of two nodes with one copy and a client of its own, from its own
source with this interpreter. Clients are pinned to the first processor and nodes to the second one,
because thread wake-ups across processors otherwise decide the figures. Within a round the checkouts
take turns, so a busy machine slows both. Printed are the medians over the rounds of

1. the p50 of a get, a put, and a get and a put of 100 keys, in the caller's time;
2. the time of a join: from the start of a third node until the cluster says `converged`.

The ratio is this checkout's median divided by the other's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

WORKER = """
import json, statistics, sys, time
import dcc
client = dcc.Client(sys.argv[1], timeout=10)
keys = ["key:%06d" % i for i in range(20_000)]
value = b"v" * 100
clock = time.perf_counter_ns

def p50(call, count):
    times = []
    for i in range(count):
        before = clock()
        call(i)
        times.append(clock() - before)
    return statistics.median(times) / 1e3

def until_converged(nodes):
    end = time.monotonic() + 120
    while time.monotonic() < end:
        try:
            if len(client.topology().nodes) == nodes and client.converged():
                return
        except dcc.DccError:
            pass
        time.sleep(0.02)
    raise SystemExit("the cluster does not converge")

def fill():
    for first in range(0, len(keys), 500):
        left = dict.fromkeys(keys[first:first + 500], value * 10)
        while left:
            left = {key: left[key] for key in client.put_many(left)}

many, lots = keys[:100], dict.fromkeys(keys[:100], value)
single = {
    "get": lambda n: p50(lambda i: client.get(keys[i % 1000]), n),
    "put": lambda n: p50(lambda i: client.put(keys[i % 1000], value), n),
    "get_many(100)": lambda n: p50(lambda i: client.get_many(many), n // 20),
    "put_many(100)": lambda n: p50(lambda i: client.put_many(lots), n // 20),
}
until_converged(2)
fill()
for line in sys.stdin:
    name, count = json.loads(line)
    if name == "joined":
        began = time.perf_counter()
        until_converged(count)
        print(json.dumps(time.perf_counter() - began), flush=True)
    else:
        print(json.dumps(single[name](count)), flush=True)
"""

CALLS = ("get", "put", "get_many(100)", "put_many(100)")
CLIENT_CPU, NODE_CPU = 0, 1


@contextmanager
def process(argv: Sequence[str], checkout: Path, cpu: int) -> Iterator[subprocess.Popen[str]]:
    """Run a program of a checkout on one processor for the block."""
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    child = subprocess.Popen(
        argv,
        cwd=checkout,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        os.sched_setaffinity(child.pid, {cpu})
        yield child
    finally:
        child.kill()
        child.communicate()


def line_of(child: subprocess.Popen[str]) -> str:
    """Return the next line that a program prints."""
    assert child.stdout is not None
    line = child.stdout.readline()
    if not line:
        raise SystemExit(f"{child.args!r:.80} ended without a word")
    return line


@contextmanager
def node(checkout: Path, seed: str | None) -> Iterator[str]:
    """Run one node for the block; yields its address."""
    argv = [sys.executable, "-m", "dcc.node", "--bind", "127.0.0.1:0", "--replicas", "1",
            "--log-level", "error", "--log-format", "json"]  # fmt: skip
    argv += ["--seed", seed] if seed else []
    with process(argv, checkout, NODE_CPU) as child:
        yield json.loads(line_of(child))["request"]


@dataclass
class Contestant:
    """One checkout: its cluster, its client, and what was measured."""

    name: str
    checkout: Path
    seed: str
    client: subprocess.Popen[str]
    figures: dict[str, list[float]] = field(default_factory=dict)

    def ask(self, what: str, count: int) -> None:
        """Measure one figure once."""
        assert self.client.stdin is not None
        self.client.stdin.write(json.dumps([what, count]) + "\n")
        self.client.stdin.flush()
        self.figures.setdefault(what, []).append(json.loads(line_of(self.client)))

    def join(self) -> None:
        """Measure the join of a third node, which is then killed."""
        with node(self.checkout, self.seed):
            self.ask("joined", 3)

    def median(self, what: str) -> float:
        """Return the median of one figure over the rounds."""
        return statistics.median(self.figures[what])


def started(stack: ExitStack, name: str, checkout: Path) -> Contestant:
    """Start a cluster of two nodes and a client of it."""
    seed = stack.enter_context(node(checkout, None))
    stack.enter_context(node(checkout, seed))
    argv = [sys.executable, "-c", WORKER, seed]
    return Contestant(
        name, checkout, seed, stack.enter_context(process(argv, checkout, CLIENT_CPU))
    )


def report(this: Contestant, other: Contestant, units: Mapping[str, str]) -> None:
    """Print the medians with their spread, and the ratios."""
    print(f"{'':16}{'this':>10}{'other':>10}{'ratio':>8}   this, other: least to most")
    for what, unit in units.items():
        spread = ", ".join(
            f"{min(one.figures[what]):.2f} to {max(one.figures[what]):.2f}" for one in (this, other)
        )
        mine, theirs = this.median(what), other.median(what)
        print(f"{what:12}{unit:>4}{mine:10.2f}{theirs:10.2f}{mine / theirs:8.3f}   {spread}")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.against",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("other", type=Path, help="another checkout of this project")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=3_000, help="of one round")
    parser.add_argument("--joins", type=int, default=3)
    options = parser.parse_args(argv)
    if (os.cpu_count() or 1) < 2:
        raise SystemExit("clients and nodes need a processor each")
    here = Path(__file__).resolve().parent.parent
    with ExitStack() as stack:
        this = started(stack, "this", here)
        other = started(stack, "other", options.other.resolve())
        # In turns, also who begins: nodes are still busy with what the one before has put.
        for turn in range(options.rounds):
            for what in CALLS:
                for one in (this, other) if turn % 2 else (other, this):
                    one.ask(what, options.calls)
        for name in ("this", "other") * options.joins:
            # A cluster for each join: who was killed is remembered, and would be waited for.
            with ExitStack() as inner:
                checkout = here if name == "this" else options.other.resolve()
                fresh = started(inner, name, checkout)
                fresh.ask("get", 1)  # The cluster is filled.
                fresh.join()
                kept = this if name == "this" else other
                kept.figures.setdefault("joined", []).extend(fresh.figures["joined"])
        joins = {"joined": "s"} if options.joins else {}
        report(this, other, dict.fromkeys(CALLS, "µs") | joins)


if __name__ == "__main__":
    main()
