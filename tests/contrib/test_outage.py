"""Programs in an outage: they end when they want to, and their children see its end themselves."""

from __future__ import annotations

import time

import pytest

from tests.support.processes import Processes

pytestmark = pytest.mark.process

ENDS = """
import sys
from dcc import Cache
cache = Cache(nodes=sys.argv[1], timeout=0.2, on_error="miss")
assert cache.get("key") is None
assert cache.counts()["breaker_open"] == 1
print("end")
"""

FORKS = """
import os, sys, time
from dcc import Cache, LocalCluster
cluster = LocalCluster(1).start()
address = cluster.nodes[0].address
cache = Cache(nodes=address, timeout=0.3, on_error="miss")
assert cache.put("key", b"1")
cluster.nodes[0].kill()
assert cache.get("key") is None
child = os.fork()
if child == 0:
    # It has the open breaker of its parent, but not the thread that probes.
    assert cache.counts()["breaker_open"] == 1
    deadline = time.monotonic() + 20
    while not cache.put("key", b"2") and time.monotonic() < deadline:
        time.sleep(0.05)
    os._exit(0 if cache.get("key") == b"2" else 1)
cluster.add(bind=address, gossip_bind="127.0.0.1:0")
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
cluster.close()
sys.exit(code)
"""

INTERRUPTED = """
import signal, sys
from dcc import Cache
cache = Cache(nodes=sys.argv[1], timeout=0.2, on_error="miss")
asked = []
def handler(number, frame):
    asked.append(cache.get("key", "none"))
cache.get("key")
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
while len(asked) < 50:
    cache.get("key")
signal.setitimer(signal.ITIMER_REAL, 0)
assert set(asked) == {"none"}, asked
print("end")
"""


def test_a_program_ends_at_once_while_its_cluster_is_probed(
    processes: Processes, silent: str
) -> None:
    ran = processes.python("-c", ENDS, silent)
    began = time.monotonic()
    assert ran.wait() == 0, ran.text()
    assert ran.out == ["end"]
    assert ran.err == []
    assert time.monotonic() - began < 10


def test_a_child_process_probes_for_itself(processes: Processes) -> None:
    ran = processes.python("-W", "ignore", "-c", FORKS)
    assert ran.wait() == 0, ran.text()


def test_a_signal_handler_may_use_the_cache_in_an_outage(processes: Processes, silent: str) -> None:
    ran = processes.python("-c", INTERRUPTED, silent)
    assert ran.wait(30) == 0, ran.text()
