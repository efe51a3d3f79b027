"""The rolling restart stops before it does harm.

That nothing is missed while it does what it should, is for `test_moves_process`.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import dcc
from tests.support.paths import ROOT
from tests.support.processes import NodeProcess, Processes, wait_until

SCRIPT = ROOT / "scripts/rolling_restart.py"

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rolling_restart", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[NodeProcess]]:
    started = Processes()
    try:
        yield started.nodes(2, "--replicas", "1")
    finally:
        started.end()


class Run:
    """One run of the script whose command notes the nodes it is called for."""

    def __init__(
        self, script: ModuleType, folder: Path, nodes: list[NodeProcess], command: str, *more: str
    ) -> None:
        calls = folder / "calls"
        calls.touch()
        addresses = ",".join(node.address for node in nodes)
        self.code = script.main(
            ["-n", addresses, "--restart", f"echo {{node}} >> {calls}; {command}", *more]
        )
        self.called = calls.read_text().split()


def test_a_command_that_fails_stops_it_at_the_first_node(
    script: ModuleType, nodes: list[NodeProcess], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(script, tmp_path, nodes, "false", "--timeout", "20")
    assert (run.code, run.called) == (1, [min(node.ready["node"] for node in nodes)])
    assert "the command ended with 1" in capsys.readouterr().err


def test_a_command_that_restarts_nothing_is_found_out(
    script: ModuleType, nodes: list[NodeProcess], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    second = str(nodes[1].ready["node"])
    # The command takes no time, so any node that has been up for longer was not restarted by it.
    run = Run(script, tmp_path, nodes, "true", "--timeout", "5", "--only", second)
    assert (run.code, run.called) == (1, [second])
    assert "so it was not restarted" in capsys.readouterr().err


def test_a_command_that_never_ends_is_given_up(
    script: ModuleType, nodes: list[NodeProcess], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    group = tmp_path / "group"
    run = Run(script, tmp_path, nodes, f"echo $$ > {group}; sleep 60; true", "--timeout", "5")
    assert (run.code, len(run.called)) == (1, 1)
    assert "took too long" in capsys.readouterr().err
    wait_until(lambda: is_gone(int(group.read_text())))


def is_gone(group: int) -> bool:
    """Return whether no process of a group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_name_that_no_member_has_touches_nothing(
    script: ModuleType, nodes: list[NodeProcess], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(script, tmp_path, nodes, "true", "--timeout", "20", "--only", "nobody")
    assert (run.code, run.called) == (1, [])
    assert "no member is called nobody" in capsys.readouterr().err


def test_a_cluster_that_has_not_converged_is_not_touched(
    script: ModuleType, processes: Processes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    three = processes.nodes(3, "--replicas", "1")
    with dcc.Client(three[0].address, timeout=5) as client:
        wait_until(client.converged, 30)  # Else who has just started is the reason, too.
    three[2].kill()
    run = Run(script, tmp_path, three[:2], "true", "--timeout", "2")
    assert (run.code, run.called) == (1, [])
    said = capsys.readouterr().err
    assert "not converged after 2 s" in said
    assert str(three[2].ready["node"]) in said


def test_nobody_there_and_wrong_usage_have_exit_codes_of_their_own(
    script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(["-n", "127.0.0.1:1", "--restart", "true"]) == 2
    with pytest.raises(SystemExit) as wrong:
        script.main(["-n", "127.0.0.1:1"])
    assert wrong.value.code == 64
    assert "--restart" in capsys.readouterr().err


def test_a_node_that_takes_connections_and_says_nothing_is_not_reached(
    script: ModuleType, processes: Processes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (node,) = processes.nodes(1)
    node.signal(signal.SIGSTOP)
    run = Run(script, tmp_path, [node], "true")
    assert (run.code, run.called) == (2, [])
    assert "rolling_restart:" in capsys.readouterr().err
