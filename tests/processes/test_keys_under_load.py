"""A cluster with keys under load, of which one node is killed: as without them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import dcc
from tests.support.key_ground import Ground, dcc_keys, is_converged
from tests.support.processes import NodeProcess, wait_until

pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]


def test_a_node_is_killed_and_comes_back_and_nothing_is_lost(
    ground: Ground, tmp_path: Path
) -> None:
    """Each process has a directory with what it needs, and nothing else."""
    for name in ("a", "b", "c", "app"):
        dcc_keys(ground.directory, "export", name, str(tmp_path / name))
    options = ("--replicas", "1", "--rebalance-delay", "3")
    for name in ("a", "b", "c"):
        ground.node(name, *options, directory=tmp_path / name)
    chief = ground.client("chief")
    wait_until(lambda: all(node.ready for node in ground.nodes))
    wait_until(lambda: is_converged(chief), 60, ground.text)
    addresses = ",".join(node.address for node in ground.nodes)
    loads = [
        ground.processes.python(
            "-m", "tests.support.load", addresses, "--name", f"load{number}", "--seconds", "8",
            "--w", "2", env={"DCC_KEYS": str(tmp_path / "app")},
        )
        for number in range(2)
    ]  # fmt: skip
    wait_until(lambda: commands(chief) > 100, 30)
    killed = ground.nodes[1]
    killed.kill()
    books = []
    for load in loads:
        assert load.wait(120) == 0, load.text()
        books.append(json.loads(load.out[-1]))
    back: NodeProcess = ground.processes.node(
        "--keys", str(tmp_path / "b"), *killed.same_again, "--seed", ground.nodes[0].address,
        *options,
    )  # fmt: skip
    assert back.ready
    wait_until(lambda: is_converged(chief), 60, ground.text)
    for book in books:
        assert (book["missing"], book["failed_gets"], book["wrong"]) == (0, [], 0), book
        assert (book["lost_at_end"], book["behind_at_end"]) == (0, []), book
        assert book["puts"] > 0
    assert not any(node.events("not_allowed") for node in ground.nodes), ground.text()
    assert not ground.refusals("revoked")


def commands(client: dcc.Client) -> int:
    """Return how many requests the nodes have served."""
    return sum(client.stats().total.requests.values())
