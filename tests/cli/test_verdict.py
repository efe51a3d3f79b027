"""The verdict of `dcc status`, and the tables it stands over."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dcc import ClusterStats, NodeInfo, NodeStats, Topology
from dcc.cli import tables
from dcc.cli.verdict import Verdict
from dcc.cli.verdict import verdict as verdict_with
from dcc.client.results import Convergence

# ------------------------------------------------------------------ the verdict


CONVERGED = Convergence(True, 0, ())


def verdict(
    topology: Topology,
    found: ClusterStats,
    convergence: Convergence | None = CONVERGED,
    *,
    cluster: str,
) -> Verdict:
    """Judge where all copies are in their places, unless told otherwise."""
    return verdict_with(topology, found, convergence, cluster=cluster)


def cluster_of(**standings: str) -> tuple[Topology, ClusterStats]:
    """A topology with `standings`, and statistics of the alive that agree with it."""
    nodes = tuple(
        NodeInfo(name, f"{name}:1", f"{name}:2", "", 1.0, one) for name, one in standings.items()
    )
    mine = NodeStats(members=dict(standings), epoch=7, ready=True, slots_ready=True)
    alive = {name: mine for name, one in standings.items() if one == "alive"}
    return Topology(7, 1, nodes, lambda _: ()), ClusterStats(alive, NodeStats.total([mine]))


def test_a_cluster_in_which_all_agree_is_healthy() -> None:
    judged = verdict(*cluster_of(a="alive", b="alive", gone="left"), cluster="dcc")
    assert judged.healthy
    assert judged.line == "healthy: cluster dcc, 2 of 2 nodes alive, one view, 2 copies"


def test_a_node_that_keeps_nobody_out_is_told_of_and_is_no_problem() -> None:
    topology, found = cluster_of(a="alive", b="alive")
    found.nodes["b"] = replace(found.nodes["b"], detail={"security": {"b": "insecure"}})
    judged = verdict(topology, found, cluster="dcc")
    assert judged.healthy
    assert judged.line.endswith("2 copies, INSECURE")


@pytest.mark.parametrize("standing", ["suspect", "dead"])
def test_a_member_that_is_not_alive_degrades(standing: str) -> None:
    judged = verdict(*cluster_of(a="alive", b=standing), cluster="dcc")
    assert judged.problems == [f"b is {standing}", "1 nodes cannot hold 2 copies"]
    assert judged.line.startswith("degraded: cluster dcc, 1 of 2 nodes alive, one view")
    assert judged.line.endswith("2 copies wanted, 1 possible")


def test_a_member_that_does_not_answer_degrades() -> None:
    topology, found = cluster_of(a="alive", b="alive")
    del found.nodes["b"]
    judged = verdict(topology, replace(found, unreachable={"b": "no answer"}), cluster="dcc")
    assert judged.problems == ["b does not answer: no answer"]


def test_views_that_differ_are_told_with_who_says_what() -> None:
    topology, found = cluster_of(a="alive", b="alive", c="alive")
    found.nodes["c"] = replace(found.nodes["c"], members={"a": "dead", "b": "alive"}, epoch=8)
    judged = verdict(topology, found, cluster="dcc")
    assert judged.problems == [
        "views of a differ (a, b: alive; c: dead)",
        "views of c differ (a, b: alive; c: unknown)",
    ]
    assert "views differ" in judged.line


def test_rings_that_differ_under_equal_members_degrade() -> None:
    topology, found = cluster_of(a="alive", b="alive")
    found.nodes["b"] = replace(found.nodes["b"], epoch=8)
    assert not verdict(topology, found, cluster="dcc").healthy


@pytest.mark.parametrize(
    ("wrong", "word"), [({"ready": False}, "not ready"), ({"filling": True}, "still filling")]
)
def test_a_node_that_is_not_ready_degrades(wrong: dict[str, Any], word: str) -> None:
    topology, found = cluster_of(a="alive", b="alive")
    found.nodes["b"] = replace(found.nodes["b"], **wrong)
    assert word in verdict(topology, found, cluster="dcc").problems[0]


def test_nodes_that_compare_with_a_newcomer_are_not_called_new() -> None:
    topology, found = cluster_of(a="alive", b="alive")
    found.nodes["b"] = replace(found.nodes["b"], slots_ready=False)
    assert verdict(topology, found, cluster="dcc").healthy


def test_fewer_nodes_than_copies_degrade_though_every_copy_that_can_be_is_there() -> None:
    judged = verdict(*cluster_of(a="alive", gone="removed"), cluster="dcc")
    assert judged.problems == ["1 nodes cannot hold 2 copies"]
    assert judged.line.startswith("degraded")


def test_copies_that_are_missing_degrade_and_say_what_to_wait_for() -> None:
    judged = verdict(
        *cluster_of(a="alive", b="alive"), Convergence(False, 12, ("why",)), cluster="dcc"
    )
    assert judged.problems == ["12 copies of slots missing or not known to be complete"]
    assert judged.copies.startswith("12 copies of slots missing or not known to be complete, ")
    assert judged.next == "dcc converged --wait 60"


@pytest.mark.parametrize(
    ("convergence", "says"),
    [
        (CONVERGED, "all copies in their places"),
        (Convergence(False, 0, ("b: 3 writes queued",)), "copies on their way"),
        (None, "copies not known"),
    ],
)
def test_copies_that_are_not_missing_are_no_problem(
    convergence: Convergence | None, says: str
) -> None:
    judged = verdict(*cluster_of(a="alive", b="alive"), convergence, cluster="dcc")
    assert judged.healthy
    assert judged.copies == f"{says}, stale reads -, lag 0ms"


def test_stale_reads_are_those_of_all_nodes() -> None:
    topology, found = cluster_of(a="alive", b="alive")
    parts = [
        NodeStats(sampled_reads=900, stale_reads=0),
        NodeStats(sampled_reads=100, stale_reads=20),
    ]
    found = replace(found, total=NodeStats.total(parts))
    assert "stale reads 2.0%" in verdict(topology, found, cluster="dcc").copies


# ------------------------------------------------------------------ tables


def test_a_table_keeps_its_width_by_cutting_the_first_column() -> None:
    rows = [("NODE", "STATE"), ("cache-" + "x" * 100 + ":6740", "alive")]
    lines = tables.table(rows).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[1].split()[0].endswith(":6740")
