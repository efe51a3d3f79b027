"""Processes patched by gevent: a call lets other greenlets run, and a node says that it cannot."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dcc.wire.messages import Get
from tests.client.test_shell import closed_port, silent_to
from tests.support.client_peers import PeerThread

pytest.importorskip("gevent")
pytestmark = pytest.mark.process

BEGIN = """
import sys, time
from gevent import monkey
monkey.patch_all(**{options!r})
import gevent
import dcc

longest = 0.0

def tick():
    global longest
    while True:
        began = time.monotonic()
        gevent.sleep(0.01)
        longest = max(longest, time.monotonic() - began)

def at_once(count, call):
    began = time.monotonic()
    jobs = [gevent.spawn(call, n) for n in range(count)]
    gevent.joinall(jobs, raise_error=True)
    return time.monotonic() - began

cache = dcc.Client(sys.argv[1], timeout=1.0)
address = sys.argv[1]
ticker = gevent.spawn(tick)
gevent.sleep(0.05)
longest = 0.0
"""


FINE = (0, "", "")
"What a program that found all as it should be leaves: its exit code, and what it wrote."


def run(program: str, address: str, **options: bool) -> tuple[int, str, str]:
    """Run `program` in a patched process; return its exit code, output and errors."""
    argv = [sys.executable, "-c", BEGIN.format(options=options) + program, address]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


SILENT = """
def call(n):
    try:
        cache.get("k")
    except dcc.OperationTimeout:
        return
    raise AssertionError("it was answered")

cache.put("k", b"v")
assert at_once(100, call) < 5, "one waited for the other"
assert longest < 0.5, longest
"""

ALL_CALLS = """
def call(n):
    key, value = f"k{n}", b"%d" % n
    assert cache.put(key, value)
    assert cache.get(key) == value
    assert cache.get_many([key, "absent"]) == {key: value}
    assert cache.put_many({key + "a": value, key + "b": value}) == []
    assert cache.incr("n" + key) == 1
    assert cache.delete(key)

cache = dcc.Client(address, timeout=20)
at_once(400, call)
assert cache._pool._made <= 128
"""

INTERRUPTED = """
cache.put("k", b"v")
slow = dcc.Client(address, timeout=20)
for n in range(20):
    with gevent.Timeout(0.05, False):
        slow.get("k")
        raise AssertionError("it was answered")
job = gevent.spawn(slow.get, "k")
gevent.sleep(0.1)
job.kill()
assert slow._pool._made <= 1, slow._pool._made
assert slow.put("k", b"w")

def closed():
    try:
        slow.get("k")
    except dcc.ClientClosed:
        return True

job = gevent.spawn(closed)
gevent.sleep(0.1)
slow.close()
assert job.get(timeout=5)
"""

NOBODY = """
began = time.monotonic()
try:
    cache.get("k")
except dcc.NodeUnavailable:
    pass
assert longest < 0.5, longest
"""

NODES = """
for start in (dcc.Node().start, dcc.LocalCluster(2).start):
    try:
        start()
    except dcc.ConfigError as error:
        assert "gevent" in str(error)
    else:
        raise AssertionError("it started")
"""


@pytest.mark.parametrize("options", [{}, {"select": False}, {"thread": False}])
def test_silent_nodes_hold_up_no_other_greenlet(options: dict[str, bool]) -> None:
    with PeerThread() as peer:
        silent_to(peer, Get)
        assert run(SILENT, peer.address, **options) == FINE


def test_all_calls_work_in_more_greenlets_than_there_are_channels() -> None:
    with PeerThread() as peer:
        assert run(ALL_CALLS, peer.address) == FINE


def test_names_are_looked_up_meanwhile() -> None:
    with PeerThread() as peer:
        assert run(ALL_CALLS, peer.address.replace("127.0.0.1", "localhost")) == FINE


def test_a_greenlet_that_is_stopped_in_a_call_costs_no_channel() -> None:
    with PeerThread() as peer:
        silent_to(peer, Get)
        assert run(INTERRUPTED, peer.address) == FINE


def test_a_cluster_that_is_gone_holds_up_nobody() -> None:
    assert run(NOBODY, closed_port()) == FINE


def test_a_node_says_that_it_cannot_run_there() -> None:
    assert run(NODES, closed_port()) == FINE


def test_without_patches_nothing_changes() -> None:
    program = (
        "import gevent.monkey, dcc.green, zmq.backend\n"
        "assert dcc.green.poller() is zmq.backend.zmq_poll\n"
        "assert not dcc.green.threads_are_green()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], timeout=60, check=False)
    assert done.returncode == 0
