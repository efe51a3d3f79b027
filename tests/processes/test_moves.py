"""Whatever the cluster goes through, every acknowledged key is read at every moment.

Five real nodes at two thirds of their memory; client processes read all their keys again and again
and write some, all the time, while nodes join, leave, die, restart and stand still. The cluster is
started once; each test first sees to it that five nodes have converged and that the clients have
read every key, so that it also holds when it runs alone.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import dcc
from tests.support.paths import ROOT
from tests.support.processes import NodeProcess, Processes, Running, wait_until

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(300)]

OPTIONS = ("--replicas", "2", "--rebalance-delay", "3", "--max-memory", "13MiB")
NODES = 5
READERS = ("primary", "primary", "any")
"One client process for each, with this way of reading."
KEYS_EACH = 2_500
FULL = (0.6, 0.72)
"Share of the memory in use at five nodes, all that counts included: four can hold everything."

CALL_SECONDS = 5
"More than the default of one: a busy machine that starves every node must not look like a miss."

SETTLED_SECONDS = 40.0
"Generous: to find out that a node has died takes about 6 s, the delay 3 s, the copying some more."


class Cluster:
    """The nodes that should be running, and the clients that never stop reading."""

    def __init__(self, processes: Processes) -> None:
        self.processes = processes
        self.nodes = processes.nodes(NODES, *OPTIONS)
        self._clients: list[Running] = []

    @property
    def addresses(self) -> str:
        """Where the nodes are that should be running."""
        return ",".join(node.address for node in self.nodes)

    # -------------------------------------------------------------- nodes

    def start(self, *options: str) -> NodeProcess:
        """Start a node that joins; it need not be ready yet."""
        seeds = ",".join(node.address for node in self.nodes[:3])
        node = self.processes.node(*OPTIONS, "--seed", seeds, *options)
        self.nodes.append(node)
        return node

    def restart(self, name: str) -> None:
        """Let the node called `name` leave, and start it again as what it was."""
        [node] = [one for one in self.nodes if one.ready["node"] == name]
        self.leave(node)
        assert self.start(*node.same_again).ready

    def leave(self, node: NodeProcess) -> None:
        """Let `node` hand its data over and go."""
        self.nodes.remove(node)
        node.signal(signal.SIGTERM)
        assert node.wait(45) == 0, node.text()

    def settle(self) -> float:
        """Wait until all copies are in their places; return the seconds that it took."""
        began = time.monotonic()
        reasons: list[str] = []
        with dcc.Client(self.addresses, timeout=5) as client:
            wait_until(lambda: self._settled(client, reasons), SETTLED_SECONDS, reasons.__repr__)
        return time.monotonic() - began

    def _settled(self, client: dcc.Client, reasons: list[str]) -> bool:
        reasons[:] = unsettled(client, {str(node.ready["node"]) for node in self.nodes})
        return not reasons

    # -------------------------------------------------------------- clients

    def start_clients(self) -> None:
        """Start the clients and wait until they have written all their keys."""
        self._clients = [
            self.processes.python(
                "-m", "tests.support.load", self.addresses, "--name", f"poll{i}", "--poll",
                "--keys", str(KEYS_EACH), "--read", read, "--pause", "0.005",
                "--timeout", str(CALL_SECONDS),
            )
            for i, read in enumerate(READERS)
        ]  # fmt: skip
        for client in self._clients:
            wait_for_lines(client, 1)

    def books(self) -> list[dict[str, Any]]:
        """Return what every client has entered since it was last asked."""
        seen = [len(client.out) for client in self._clients]
        for client in self._clients:
            client.signal(signal.SIGUSR1)
        for client, lines in zip(self._clients, seen, strict=True):
            wait_for_lines(client, lines + 1)
        return [json.loads(client.out[-1]) for client in self._clients]

    @contextmanager
    def polled(self, what: str) -> Iterator[None]:
        """Run the body while clients read, wait until all is settled, and judge their books."""
        self.books()
        began, began_at = time.monotonic(), time.time()
        yield
        happened = time.monotonic() - began
        settled = self.settle()
        books = self.books()
        loops = sum(book["loops"] for book in books)
        unlike = sum_of(books, "missing", "wrong")
        print(
            f"\n{what}: {happened:.1f} s, settled {settled:.1f} s later;"
            f" {len(READERS) * KEYS_EACH} keys read {loops / len(books):.1f} times,"
            f" {sum_of(books, 'gets')} gets, {unlike} missing or wrong,"
            f" (of lookups {sum_of(books, 'missed_lookups')}, {sum_of(books, 'unsure')} of them"
            f" unsure), {count_of(books, 'failed_gets')} failed;"
            f" {sum_of(books, 'puts')} puts, {sum_of(books, 'uncertain_puts')} uncertain,"
            f" {count_of(books, 'failed_puts')} failed;"
            f" {count_of(books, 'slow')} calls above 250 ms,"
            f" slowest {max(book['slowest'][1] for book in books):.2f} s"
        )
        for at, key, how, _acked_at in (one for book in books for one in book["missing_at"]):
            print(f"  {at - began_at:.2f} s after its begin {key} was missing: {how}")
        for book in books:
            assert (book["missing"], book["wrong"]) == (0, 0), book["missing_at"]
            assert book["failed_gets"] == []
            assert book["loops"] >= 1


def wait_for_lines(client: Running, count: int) -> None:
    """Return once `client` has printed so many lines."""
    wait_until(lambda: len(client.out) >= count or client.popen.poll() is not None, 60, client.text)
    assert len(client.out) >= count, client.text()


def unsettled(client: dcc.Client, names: set[str]) -> list[str]:
    """Return why the nodes called `names` are not one cluster with all copies in their places."""
    try:
        found = client.convergence()
        ring = {
            one.name: one.standing
            for one in client.topology().nodes
            if one.standing in ("alive", "suspect", "dead")
        }
    except dcc.DccError as error:
        return [repr(error)]
    strange = [] if ring == dict.fromkeys(names, "alive") else [f"the ring is {ring}"]
    return strange + ([] if found.converged else [*found.reasons, "not converged"])


def filled(node: dcc.NodeStats) -> float:
    """Return which share of its limit `node` uses when nothing is under way."""
    rows = node.detail["memory_bytes"]
    return float(rows["store"] + rows["recent_writes"]) / node.memory_limit_bytes


def sum_of(books: list[dict[str, Any]], *names: str) -> int:
    """Return the sum of some counts over all books."""
    return sum(book[name] for book in books for name in names)


def count_of(books: list[dict[str, Any]], name: str) -> int:
    """Return how many entries of a kind there are in all books."""
    return sum(len(book[name]) for book in books)


@pytest.fixture(scope="module")
def started() -> Iterator[Cluster]:
    """The one cluster of this file, with its clients."""
    processes = Processes()
    try:
        cluster = Cluster(processes)
        cluster.settle()
        cluster.start_clients()
        with dcc.Client(cluster.addresses, timeout=5) as client:
            nodes = client.stats().nodes.values()
        shares = [filled(one) for one in nodes]
        print(f"\n{NODES} nodes, {', '.join(f'{share:.0%}' for share in shares)} full")
        assert FULL[0] < sum(shares) / len(shares) < FULL[1]
        yield cluster
        with dcc.Client(cluster.addresses, timeout=5) as client:
            total = client.stats().total
        assert total.evicted == 0, "values were evicted, so a miss would prove nothing"
    finally:
        processes.end()


@pytest.fixture
def cluster(started: Cluster) -> Cluster:
    """The cluster with at least five nodes, converged."""
    while len(started.nodes) < NODES:
        assert started.start().ready
    started.settle()
    return started


def test_a_rolling_restart_by_the_script_misses_nothing(cluster: Cluster, tmp_path: Path) -> None:
    names = [str(node.ready["node"]) for node in cluster.nodes]
    command = f"touch {tmp_path}/{{node}}; while [ -e {tmp_path}/{{node}} ]; do sleep 0.05; done"
    with cluster.polled(f"rolling restart of {len(names)} nodes"):
        script = cluster.processes.run(
            sys.executable, str(ROOT / "scripts/rolling_restart.py"),
            "--nodes", cluster.addresses, "--restart", command, "--timeout", "60",
        )  # fmt: skip
        restarted = []
        while script.popen.poll() is None:
            for flag in list(tmp_path.iterdir()):
                cluster.restart(flag.name)
                restarted.append(flag.name)
                flag.unlink()
            time.sleep(0.05)
        assert script.wait() == 0, script.text()
    assert restarted == sorted(names)
    print("\n".join(script.out))


def test_a_join_misses_nothing(cluster: Cluster) -> None:
    with cluster.polled("join"):
        assert cluster.start().ready


def test_a_graceful_leave_misses_nothing(cluster: Cluster) -> None:
    with cluster.polled("graceful leave"):
        cluster.leave(cluster.nodes[0])


def test_a_kill_misses_nothing(cluster: Cluster) -> None:
    with cluster.polled("kill -9"):
        killed = cluster.nodes.pop(1)
        killed.kill()


def test_a_crash_and_a_restart_without_seeds_miss_nothing(cluster: Cluster) -> None:
    with cluster.polled("kill -9 and restart without seeds"):
        killed = cluster.nodes.pop(0)
        killed.kill()
        again = cluster.processes.node(*OPTIONS, *killed.same_again)
        cluster.nodes.append(again)
        assert again.ready


def test_two_joins_at_once_miss_nothing(cluster: Cluster) -> None:
    with cluster.polled("two joins at once"):
        both = [cluster.start(), cluster.start()]
        assert all(node.ready for node in both)


def test_a_join_while_a_node_stands_still_misses_nothing(cluster: Cluster) -> None:
    with cluster.polled("join while a node stands still"):
        still = cluster.nodes[2]
        still.signal(signal.SIGSTOP)
        joined = cluster.start()
        with dcc.Client(cluster.nodes[0].address, timeout=5) as client:
            wait_until(lambda: standing(client, still) == "removed", 30)
        assert joined.ready
        still.signal(signal.SIGCONT)


def standing(client: dcc.Client, node: NodeProcess) -> str:
    """Return what some node thinks of `node`."""
    found = {one.name: one.standing for one in client.topology().nodes}
    return found[str(node.ready["node"])]
