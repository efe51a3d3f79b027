"""The `dcc` command against nodes in this process: what it prints and how it ends."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import pytest

from dcc import LocalCluster
from dcc.cli.main import main
from tests.support.processes import wait_until

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(3, replicas=1) as started:
        yield started


class Ran:
    """What one run of the command printed and how it ended."""

    def __init__(self, code: int, out: bytes, err: str) -> None:
        self.code, self.raw, self.out, self.err = code, out, out.decode("utf-8", "replace"), err

    @property
    def json(self) -> Any:
        """The output, read as JSON."""
        return json.loads(self.raw)


@pytest.fixture
def dcc(cluster: LocalCluster, capfdbinary: pytest.CaptureFixture[bytes]) -> Any:
    nodes = ",".join(node.address for node in cluster.nodes)

    def run(*argv: str, nodes: str = nodes, timeout: str = "5") -> Ran:
        try:
            code = main(["--nodes", nodes, "--timeout", timeout, *argv])
        except SystemExit as stop:
            code = int(str(stop.code or 0))
        sys.stdout.flush()
        sys.stderr.flush()
        out, err = capfdbinary.readouterr()
        return Ran(code, out, err.decode())

    return run


def test_what_was_put_is_printed_byte_by_byte(dcc: Any, monkeypatch: Any) -> None:
    value = bytes(range(256))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(value)))
    assert dcc("put", "binary").code == 0
    assert dcc("get", "binary").raw == value


def test_a_value_may_be_an_argument(dcc: Any) -> None:
    stored = dcc("put", "greeting", "hello", "--ttl", "60", "--w", "all", "--json").json
    assert dcc("get", "greeting").raw == b"hello"
    assert dcc("get", "greeting", "--json").json == {
        "key": "greeting", "status": "hit", "version": stored["version"], "value": "hello",
    }  # fmt: skip


def test_an_absent_key_is_exit_code_1_and_no_output(dcc: Any) -> None:
    ran = dcc("get", "absent")
    assert (ran.code, ran.raw) == (1, b"")
    assert "no such key" in ran.err
    assert dcc("get", "absent", "--json").json["status"] == "miss"


def test_delete_tells_whether_there_was_something(dcc: Any) -> None:
    dcc("put", "short-lived", "x", "--w", "all")
    assert dcc("delete", "short-lived").code == 0
    assert dcc("delete", "short-lived").code == 1
    assert "tombstone" in dcc("entry", "short-lived").out


def test_entry_shows_every_owner_side_by_side(dcc: Any, cluster: LocalCluster) -> None:
    dcc("put", "shown", "hello", "--ttl", "3600", "--w", "all")
    ran = dcc("entry", "shown")
    owners = cluster.client().topology().owners("shown")
    lines = ran.out.splitlines()
    assert ran.code == 0
    assert [line.split()[0] for line in lines[1:]] == list(owners)
    assert all("hello" in line and "5B" in line for line in lines[1:])
    held = dcc("entry", "shown", "--json").json["held"]
    assert {one["value"] for one in held.values()} == {"hello"}


def test_status_fits_80_columns_and_says_healthy(dcc: Any, cluster: LocalCluster) -> None:
    wait_until(lambda: "all copies in their places" in dcc("status").out, 30)
    ran = dcc("status")
    assert ran.out.startswith("healthy: cluster dcc, 3 of 3 nodes alive, one view, 2 copies\n")
    assert ran.out.splitlines()[1].startswith("all copies in their places, stale reads ")
    assert max(map(len, ran.out.splitlines())) <= 80
    assert all(node.address in ran.out for node in cluster.nodes)
    found = dcc("status", "--json").json
    assert found["healthy"] is True
    assert found["convergence"] == {"converged": True, "under_replicated": 0, "reasons": []}


def test_members_and_ring_name_every_node(dcc: Any, cluster: LocalCluster) -> None:
    members, ring = dcc("members"), dcc("ring")
    assert members.code == ring.code == 0
    for node in cluster.nodes:
        assert node.name in members.out
        assert node.name in ring.out
    shares = dcc("ring", "--json").json["owned_ratio"]
    assert sum(shares.values()) == pytest.approx(2.0)


def test_ring_names_the_owners_of_keys(dcc: Any, cluster: LocalCluster) -> None:
    owners = dcc("ring", "one", "two", "--json").json["owners"]
    topology = cluster.client().topology()
    assert owners == {key: list(topology.owners(key)) for key in ("one", "two")}


def test_stats_has_every_node_and_the_total(dcc: Any, cluster: LocalCluster) -> None:
    ran = dcc("stats", "--json")
    assert ran.code == 0
    assert set(ran.json["nodes"]) == {node.name for node in cluster.nodes}
    assert ran.json["total"]["items"] == sum(one["items"] for one in ran.json["nodes"].values())
    assert dcc("stats").out.count("hit ratio") == 4


def test_a_read_may_ask_for_several_owners(dcc: Any) -> None:
    dcc("put", "read-by-all", "v", "--w", "all")
    assert dcc("get", "read-by-all", "--r", "all").raw == b"v"
    ran = dcc("get", "read-by-all", "--r", "3")
    assert ran.code == 1
    assert "r = 3" in ran.err


def test_converged_is_exit_code_0_and_says_so(dcc: Any) -> None:
    ran = dcc("converged", "--wait", "30")
    assert (ran.code, ran.out) == (0, "converged\n")
    assert dcc("converged", "--wait", "30", "--json").json == {
        "converged": True, "under_replicated": 0, "reasons": [],
    }  # fmt: skip


def test_an_audit_of_equal_copies_is_clean(dcc: Any) -> None:
    for n in range(20):
        dcc("put", f"audited:{n}", "v", "--w", "all")
    wait_until(lambda: dcc("audit").code == 0, 30)
    ran = dcc("audit", "--json").json
    assert ran["clean"] is True
    assert ran["compared"] == 16_384
    assert dcc("audit").out.endswith("clean\n")


def test_the_number_of_copies_is_set_and_waited_for(dcc: Any, cluster: LocalCluster) -> None:
    dcc("put", "copied", "v", "--w", "all")
    assert dcc("replicas").out == "1\n"
    try:
        ran = dcc("replicas", "2", "--wait", "60")
        assert ran.code == 0
        assert ran.out.endswith("2\nconverged\n")
        assert dcc("replicas", "--json").json == {"replicas": 2}
        assert len(dcc("ring", "copied", "--json").json["owners"]["copied"]) == 3
        assert dcc("entry", "copied").code == 0, "all three hold it"
    finally:
        back = dcc("replicas", "1", "--wait", "60", "--json")
    assert back.code == 0
    assert back.json["replicas"] == 1
    assert back.json["converged"] is True


def test_nobody_there_is_exit_code_2(dcc: Any) -> None:
    for command in (["status"], ["get", "k"], ["put", "k", "v"], ["members"], ["stats"],
                    ["converged"], ["converged", "--wait", "0.3"], ["replicas"], ["replicas", "1"],
                    ["audit"]):  # fmt: skip
        ran = dcc(*command, nodes="127.0.0.1:1", timeout="0.2")
        assert (ran.code, ran.raw) == (2, b""), command
        assert ran.err.startswith("dcc: ")


def test_another_clusters_nodes_are_exit_code_2(dcc: Any) -> None:
    ran = dcc("--cluster", "other", "status")
    assert ran.code == 2
    assert "cluster" in ran.err


@pytest.mark.parametrize(
    "argv",
    [
        (),
        ("bogus",),
        ("get",),
        ("get", ""),
        ("get", "k" * 513),
        ("put", "k", "v", "--ttl", "0"),
        ("put", "k", "v", "--ttl", "soon"),
        ("put", "k", "v", "--w", "11"),
        ("--nodes", "nonsense", "status"),
        ("--timeout", "0", "status"),
        ("--cluster", "", "status"),
        ("status", "--unknown"),
        ("get", "k", "--r", "0"),
        ("get", "k", "--r", "most"),
        ("replicas", "10"),
        ("replicas", "-1"),
        ("replicas", "many"),
        ("converged", "--wait", "-1"),
        ("converged", "--wait", "nan"),
    ],
)
def test_wrong_usage_is_exit_code_64_in_one_line(dcc: Any, argv: tuple[str, ...]) -> None:
    ran = dcc(*argv)
    assert (ran.code, ran.raw) == (64, b"")
    assert ran.err.startswith("dcc")
    assert ran.err.count("\n") == 1


def test_global_options_may_stand_behind_the_command(dcc: Any) -> None:
    assert dcc("members", "-n", "127.0.0.1:1", "--timeout", "0.2").code == 2


def test_the_version_is_that_of_the_installed_package(dcc: Any) -> None:
    ran = dcc("--version")
    assert (ran.code, ran.out) == (0, f"dcc {metadata.version('dcc-cache')}\n")
