"""Real nodes, one of them on a machine whose clock is two minutes off, restarted in turn."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import dcc
from tests.support.processes import NodeProcess, Processes, wait_until

pytestmark = pytest.mark.process

OFF_SECONDS = 120
TTL_SECONDS = 60.0

WRONG_CLOCK = """
import runpy, sys, time
off_ns = int(sys.argv[1])
right, right_of = time.time_ns, time.clock_gettime_ns
time.time_ns = lambda: right() + off_ns
time.time = lambda: time.time_ns() / 1e9
time.clock_gettime_ns = lambda c: right_of(c) + (off_ns if c == time.CLOCK_REALTIME else 0)
sys.argv = sys.argv[4:]
runpy.run_module("dcc.node", run_name="__main__")
"""
"Run before `python -m dcc.node OPTIONS`, in the same process: the wall clock is off, no other."


@pytest.fixture
def started() -> Iterator[Processes]:
    processes = Processes()
    try:
        yield processes
    finally:
        processes.end()


def statuses(cache: dcc.Client, keys: list[str]) -> Counter[str]:
    return Counter(str(cache.lookup(key).status) for key in keys)


@pytest.mark.parametrize("off_seconds", [-OFF_SECONDS, OFF_SECONDS])
def test_whoever_restarts_all_keys_are_read_and_no_write_is_refused(
    started: Processes, tmp_path: Path, off_seconds: int
) -> None:
    """The founder's clock is wrong, and it has written before others came: time is its own."""
    wrong = tmp_path / "wrong_clock.py"
    wrong.write_text(WRONG_CLOCK)
    inside = (sys.executable, str(wrong), str(off_seconds * 10**9))
    nodes = [started.node("--replicas", "2", inside=inside)]
    keys = [f"key-{n}" for n in range(100)]
    with dcc.Client([nodes[0].address], timeout=5) as cache:
        for key in keys[:50]:
            cache.put(key, b"alone", ttl=TTL_SECONDS)
        for _ in range(2):
            nodes.append(started.node("--seed", nodes[0].address))
            wait_until(lambda: bool(nodes[-1].ready), 30.0, nodes[-1].text)
            for n in range(20):
                cache.put(f"company-{n}", b"value", w=1, ttl=TTL_SECONDS)
        wait_until(cache.converged, 30.0, nodes[0].text)
        assert statuses(cache, keys[:50]) == {"hit": 50}
        for key in keys:
            cache.put(key, b"value", ttl=TTL_SECONDS, w="all")
        for index in (1, 0, 2):
            nodes[index] = restarted(started, nodes, index, inside if index == 0 else ())
            for _ in range(10):
                assert statuses(cache, keys) == {"hit": 100}
            wait_until(cache.converged, 30.0, nodes[index].text)
            for key in keys[:20]:
                cache.put(key, b"newer", ttl=TTL_SECONDS, w=2)
            cache.put("for-all", b"value", w="all")
        offsets = sorted(
            round(node.detail["clock_offset_seconds"]) for node in cache.stats().nodes.values()
        )
        assert offsets[-1] - offsets[0] == pytest.approx(OFF_SECONDS, abs=1), "a clock was wrong"
        cache.clear()
        assert statuses(cache, keys) == {"miss": 100}


def restarted(
    started: Processes, nodes: list[NodeProcess], index: int, inside: tuple[str, ...]
) -> NodeProcess:
    """Kill a node and start it again at once, its memory empty, by the seed of another."""
    old, other = nodes[index], nodes[(index + 1) % len(nodes)]
    again = old.same_again
    old.kill()
    node = started.node(*again, "--seed", other.address, inside=inside)
    wait_until(lambda: bool(node.ready), 30.0, node.text)
    return node
