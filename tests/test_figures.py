"""One schema of statistics: a node, its clients, the metrics, the command and the page agree."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import pytest

from dcc import LocalCluster
from dcc.client.results import NodeStats
from dcc.figures import BY_PATH, COMBINERS, FIGURES, at, document, total
from dcc.node.stats import packed
from dcc.units import MILLISECOND
from tests.support.paths import ROOT
from tests.support.wired_cores import Cores

PAGE = ROOT / "docs/statistics.md"
UNITS = {"count", "bytes", "seconds", "ratio", "per second", "flag", "text", "hash"}
KINDS = {"counter", "gauge", "histogram", "text"}


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    """What a node tells that has looked at its cluster and served something."""
    cores = Cores("a", "b", replicas=1)
    cores.settle()
    key = cores.key_of("a", "b")
    cores.put("a", key, b"v")
    cores.get("a", key)
    cores["a"].stats(cores.now)  # The first look only asks for a judgement of the cluster.
    for _ in range(100):
        cores.step(5 * MILLISECOND)
    return cores["a"].stats(cores.now)


def paths(told: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Yield the path of every figure: what no path of the schema goes through."""
    for name, value in told.items():
        path = above + name
        if any(known.startswith(f"{path}.") for known in BY_PATH):
            assert isinstance(value, Mapping), path
            yield from paths(value, f"{path}.")
        else:
            yield path


def test_a_node_tells_exactly_what_the_schema_says(told: dict[str, Any]) -> None:
    schema = [figure.path for figure in FIGURES if not figure.path.startswith("shell.")]
    assert sorted(paths(told)) == sorted(schema)


def test_nothing_that_a_node_tells_is_dropped_by_its_clients(told: dict[str, Any]) -> None:
    assert {one.name for one in fields(NodeStats)} == {path.partition(".")[0] for path in told}
    found = NodeStats.from_json(packed(told))
    for name, value in told.items():
        assert getattr(found, name) == value, name


def test_every_figure_has_a_unit_a_kind_and_a_way_to_make_a_total() -> None:
    for figure in FIGURES:
        assert figure.unit in UNITS, figure
        assert figure.kind in KINDS, figure
        parts = figure.total.replace(" + ", " / ").split(" / ")
        shared = len(parts) > 1 and all(part in BY_PATH for part in parts)
        assert shared or figure.total in {*COMBINERS, "same", "union", ""}, figure
        assert figure.help.endswith("."), figure
    assert len(BY_PATH) == len(FIGURES)


def test_a_total_combines_what_stands_behind_the_details_too(told: dict[str, Any]) -> None:
    both = total([told, told])
    assert both["bytes_used"] == 2 * told["bytes_used"]
    assert both["requests"]["put"] == 2 * told["requests"]["put"]
    assert both["hit_ratio"] == told["hit_ratio"] == 1.0
    assert both["epoch"] == told["epoch"]
    assert at(both, "detail.memory_bytes.store") == 2 * at(told, "detail.memory_bytes.store")
    assert at(both, "detail.convergence.converged") is True
    assert total([told, told | {"epoch": 1}]).get("epoch") is None
    assert total([]) == {"hit_ratio": 0.0, "stale_read_ratio": 0.0}


@pytest.mark.parametrize("odd", [None, "many", [1], {"a": {"b": {"c": {"d": 1}}}}, 1e300, 10**400])
def test_what_another_version_tells_breaks_no_total(told: dict[str, Any], odd: object) -> None:
    strange = dict.fromkeys(told, odd) | {"detail": {"exchange": odd, "errors": odd}}
    assert total([told, strange])["items"] == told["items"]


def test_the_page_is_the_schema() -> None:
    text = PAGE.read_text("utf-8")
    head = text.partition("| figure |")[0]
    if os.environ.get("DCC_GOLDEN") == "write":
        PAGE.write_text(head + document(), "utf-8")
    assert PAGE.read_text("utf-8") == head + document()


@pytest.mark.process
def test_status_shows_what_counts_towards_the_limit() -> None:
    with LocalCluster(1, max_memory="256MiB") as cluster:
        cache = cluster.client()
        for number in range(100):
            cache.put(f"key-{number}", bytes(1_000_000))
        used = cache.stats().total.bytes_used
        assert 100_000_000 < used < 110_000_000
        patterns = {"status": r"([\d.]+)M/256M", "stats": r"used ([\d.]+)M, memory limit 256M"}
        for command, pattern in patterns.items():
            argv = [sys.executable, "-m", "dcc", command, "--nodes", cluster.nodes[0].address]
            ran = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
            shown_used = re.search(pattern, ran.stdout)
            assert shown_used, ran
            assert 95 <= float(shown_used[1]) < 105, "mebibytes"
