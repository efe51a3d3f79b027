"""A node that others cannot reach, or that has not met as many as it was told, is not ready."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable

import pytest

import dcc
from tests.support.processes import NodeProcess, Processes
from tests.support.wired_cores import Cores

NOWHERE = ("--advertise", "127.0.0.1:9", "--gossip-advertise", "127.0.0.1:10")


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)


# ------------------------------------------------------------------ cores


def test_a_node_to_which_nobody_can_send_is_not_ready_and_leads_nothing() -> None:
    cores = Cores("a", "b", replicas=1)
    cores.settle()
    cores.lost = lambda _from, to, _message: to == cores["c"].key
    cores.add("c")
    cores.run(8)
    joined = cores["c"]
    assert joined.membership.joined
    assert not joined.ready
    assert joined.membership.me.filling
    assert any("has reached this node at c:1" in line for line in joined.company.lacks())
    cores.lost = lambda _from, _to, _message: False
    cores.settle()
    assert joined.company.lacks() == []


def test_alone_there_is_nobody_who_would_have_to_reach_it() -> None:
    cores = Cores("a", replicas=1)
    cores.run(1)
    assert cores["a"].ready


def test_who_was_reached_once_stays_ready_when_the_others_die() -> None:
    cores = Cores("a", "b", "c", replicas=1)
    cores.settle()
    cores.stopped |= {"a", "b"}
    cores.run(20)
    assert cores["c"].ready


def test_a_node_that_expects_others_is_ready_once_they_were_there() -> None:
    cores = Cores("a", replicas=1, expect=3)
    cores.run(8)
    assert not cores["a"].ready
    assert cores["a"].company.lacks() == ["1 of 3 expected members are there"]
    cores.add("b")
    cores.run(3)
    assert not cores["a"].ready
    cores.add("c")
    cores.settle()
    assert all(core.ready for core in cores.nodes.values())
    cores.stopped |= {"b"}
    cores.run(20)
    assert cores["a"].ready, "who dies later makes nobody unready"


# ------------------------------------------------------------------ processes


def events(node: NodeProcess, name: str, about: str) -> list[dict[str, object]]:
    return [event for event in node.events(name) if event["node"] == about]


@pytest.mark.process
def test_an_address_that_nobody_reaches_is_named_by_the_node_and_by_its_peers(
    processes: Processes,
) -> None:
    first, second = processes.nodes(2)
    lost = processes.node("--seed", first.address, "--name", "nat", *NOWHERE)
    until(lambda: lost.events("not_ready"))
    told = lost.events("not_ready")[0]
    assert any("127.0.0.1:9" in reason for reason in told["reasons"])
    until(lambda: events(first, "member_not_reached", "nat"))
    accusation = events(first, "member_not_reached", "nat")[0]
    assert (accusation["request"], accusation["gossip"]) == ("127.0.0.1:9", "127.0.0.1:10")
    with dcc.Client(first.address, timeout=5) as client:
        for n in range(300):
            client.put(f"k{n}", b"v")
        stats = client.stats()
        assert second.ready["node"] in stats.nodes
    assert not lost.out, "node_ready"
    assert lost.popen.poll() is None


@pytest.mark.process
def test_a_node_that_is_its_own_only_seed_warns_once_and_waits_if_it_expects_others(
    processes: Processes,
) -> None:
    alike = ("--advertise", "127.0.0.1:17", "--seed", "127.0.0.1:17")
    lone = processes.node("--name", "one", *alike)
    assert lone.ready
    until(lambda: lone.events("seeds_are_this_node"))
    waiting = processes.node("--name", "two", *alike, "--expect", "3", "--http", "127.0.0.1:0")
    until(lambda: waiting.events("not_ready"))
    assert len(waiting.events("seeds_are_this_node")) == 1
    told = waiting.events("not_ready")[0]
    assert told["reasons"] == ["1 of 3 expected members are there"]
    assert not waiting.out, "node_ready"


@pytest.mark.process
def test_the_page_for_readiness_says_what_is_lacking(processes: Processes) -> None:
    node = processes.node("--http", "127.0.0.1:0", "--expect", "2")
    until(lambda: node.events("node_starting"))
    url = f"http://{node.events('node_starting')[0]['http']}/readyz"

    def page() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    until(lambda: page() == (503, "1 of 2 expected members are there\n"))
    request = node.events("node_starting")[0]["request"]
    other = processes.node("--seed", str(request), "--expect", "2")
    assert json.dumps(other.ready)
    until(lambda: page()[0] == 200)
