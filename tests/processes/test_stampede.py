"""Stampedes of real processes: one makes the value, and who is killed over it is followed soon."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from dcc import Client
from tests.support.processes import Processes, Running, wait_until
from tests.support.stampede_callers import GO

pytestmark = pytest.mark.process


def crowd(
    processes: Processes, nodes: str, count: int, kind: str, callers: int, factory_s: float,
    lease_s: float,
) -> list[Running]:  # fmt: skip
    """Start processes that want one value, and wait until all are about to."""
    arguments = (kind, nodes, "costly", str(callers), str(factory_s), str(lease_s))
    them = [
        processes.python("-m", "tests.support.stampede_callers", *arguments) for _ in range(count)
    ]
    for one in them:
        wait_until(lambda one=one: "ready" in one.out, 60, one.text)  # type: ignore[misc]
    return them


def told(one: Running) -> dict[str, Any]:
    assert one.wait(120) == 0, one.text()
    found: dict[str, Any] = json.loads(one.out[-1])
    return found


@pytest.mark.parametrize(("kind", "callers"), [("asyncio", 100), ("threads", 20)])
def test_of_all_that_miss_in_five_processes_one_makes_the_value(
    processes: Processes, kind: str, callers: int
) -> None:
    nodes = ",".join(node.address for node in processes.nodes(3, "--replicas", "1"))
    them = crowd(processes, nodes, 5, kind, callers, 0.5, 60)
    with Client(nodes, timeout=30) as cache:
        cache.put(GO, b"")
        reports = [told(one) for one in them]
        assert sum(report["calls"] for report in reports) == 1
        values = {value for report in reports for value in report["values"]}
        assert values == {(cache.get("costly") or b"").decode()}


def test_who_is_killed_with_the_lease_is_followed_within_it(processes: Processes) -> None:
    lease_s = 10.0
    nodes = ",".join(node.address for node in processes.nodes(3, "--replicas", "1"))
    with Client(nodes, timeout=30) as cache:
        cache.put(GO, b"")
    (first,) = crowd(processes, nodes, 1, "threads", 1, 120, lease_s)
    wait_until(lambda: "making" in first.out, 30, first.text)
    taken_at = time.monotonic()
    others = crowd(processes, nodes, 2, "asyncio", 10, 0.1, lease_s)
    first.kill()
    assert sorted(told(one)["calls"] for one in others) == [0, 1]
    assert time.monotonic() - taken_at < lease_s + 10
