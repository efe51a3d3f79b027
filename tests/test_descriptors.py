"""Descriptors: the first three, those that are left, and a node that has none."""

from __future__ import annotations

import os
import resource
import socket as net
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dcc import Client
from dcc.descriptors import Reserve, are_left
from tests.support.paths import ROOT
from tests.support.processes import NodeProcess, Processes, clean_environment, wait_until

FEW = 160
LIMITED = ("prlimit", f"--nofile={FEW}:{FEW}")


def test_what_is_left_is_counted_and_given_back() -> None:
    before = len(os.listdir("/proc/self/fd"))
    assert are_left(10)
    assert not are_left(resource.getrlimit(resource.RLIMIT_NOFILE)[1] + 1)
    reserve = Reserve(5)
    assert len(os.listdir("/proc/self/fd")) == before + 5
    reserve.release()
    reserve.release()
    assert len(os.listdir("/proc/self/fd")) == before
    assert reserve.refill()
    reserve.release()


STANDARD = """
import os, sys
from dcc.output import fill_standard
fill_standard()
print("lost"); print("lost", file=sys.stderr)
with open(sys.argv[1], "w") as file:
    file.write(" ".join(os.readlink(f"/proc/self/fd/{fd}") for fd in (0, 1, 2)))
"""


@pytest.mark.process
@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2), (0, 2)])
def test_closed_standard_descriptors_become_the_null_device(
    tmp_path: Path, closed: tuple[int, ...]
) -> None:
    told = tmp_path / "told"
    redirections = " ".join(f"{fd}>&-" for fd in closed)
    command = f'exec "{sys.executable}" -c "$0" "{told}" {redirections}'
    done = subprocess.run(
        ["sh", "-c", command, STANDARD], cwd=ROOT, env=clean_environment({}), check=False,
        stdin=subprocess.PIPE, capture_output=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    targets = told.read_text().split()
    assert [fd for fd in (0, 1, 2) if targets[fd] == "/dev/null"] == list(closed)


def sockets_of(node: NodeProcess) -> set[int]:
    """The numbers of the node's descriptors that are sockets."""
    folder = Path(f"/proc/{node.pid}/fd")
    return {
        int(entry.name) for entry in folder.iterdir() if os.readlink(entry).startswith("socket:")
    }


@pytest.mark.process
def test_a_node_whose_standard_descriptors_are_closed_logs_into_no_socket(
    processes: Processes,
) -> None:
    seed = processes.node()
    with net.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    place = ("--bind", f"127.0.0.1:{port}", "--gossip-bind", "127.0.0.1:0")
    options = (*place, "--seed", seed.address)
    node = processes.node(*options, inside=("sh", "-c", 'exec "$@" 0>&- 1>&- 2>&-', "sh"))
    wait_until(lambda: seed.events("member_joined"), 60, seed.text)
    with Client(f"127.0.0.1:{port}", timeout=10) as cache:
        assert sockets_of(node) & {0, 1, 2} == set()
        cache.put("k", b"v")
        assert cache.get("k") == b"v"


@pytest.fixture
def crowd() -> Callable[[NodeProcess, int], list[net.socket]]:
    def come(node: NodeProcess, count: int) -> list[net.socket]:
        host, _, port = node.address.rpartition(":")
        made = []
        for _ in range(count):
            one = net.socket()
            one.setblocking(False)
            one.connect_ex((host, int(port)))
            made.append(one)
        return made

    return come


def cpu_seconds(node: NodeProcess) -> float:
    fields = Path(f"/proc/{node.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.process
def test_a_node_without_descriptors_serves_on_warns_once_and_listens_again(
    processes: Processes, crowd: Callable[[NodeProcess, int], list[net.socket]]
) -> None:
    node = processes.node("--http", "127.0.0.1:0", inside=LIMITED)
    with Client(node.address, timeout=2) as cache:
        cache.put("k", b"v")
        connections: list[net.socket] = []

        def is_short() -> bool:
            # The system turns some away while others wait: so more come until there is no room.
            connections.extend(crowd(node, FEW // 16))
            return bool(node.events("file_descriptors_short"))

        for _ in range(3):
            connections.extend(crowd(node, 2 * FEW))
            wait_until(is_short, 10, node.text)
            assert cache.get("k") == b"v"
        before = cpu_seconds(node)
        idle = processes.python("-c", "import time; time.sleep(4)")
        idle.wait()
        assert cpu_seconds(node) - before < 2, "a processor was taken to accept nothing"
        for one in connections:
            one.close()

        def comes_in() -> bool:
            with Client(node.address, timeout=0.5) as other:
                try:
                    return other.get("k") == b"v"
                except ConnectionError:
                    return False

        wait_until(comes_in, 30, node.text)
    assert len(node.events("file_descriptors_short")) == 1
    assert node.popen.poll() is None


@pytest.mark.process
@pytest.mark.parametrize("limit", [16, 24, 32])
def test_a_node_that_cannot_have_enough_descriptors_says_so(
    processes: Processes, limit: int
) -> None:
    node = processes.node(inside=("prlimit", f"--nofile={limit}:{limit}"))
    assert node.wait() == 2, node.text()
    assert "file descriptors" in node.err[-1]
