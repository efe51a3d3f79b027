"""The command where its output cannot be written: a reader that is gone, a device that is full."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import IO

import pytest

from dcc.output import READER_GONE, UNWRITABLE
from tests.support.client_peers import PeerThread

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full device"),
]


@pytest.fixture
def peer() -> Iterator[PeerThread]:
    with PeerThread() as one:
        one.peer.data[b"k"] = b"v" * 1_000
        one.peer.data[b"large"] = b"v" * 300_000
        yield one


@pytest.fixture
def full() -> Iterator[IO[bytes]]:
    with open("/dev/full", "wb", buffering=0) as device:
        yield device


Stream = IO[bytes] | int


@pytest.fixture
def unread() -> Iterator[int]:
    """The writing end of a pipe that nobody reads any more."""
    read, write = os.pipe()
    os.close(read)
    yield write
    os.close(write)


def run(
    *arguments: str, module: str = "dcc", stdout: Stream = subprocess.PIPE,
    stderr: Stream = subprocess.PIPE,
) -> tuple[int, str, str]:  # fmt: skip
    """Return the exit code and what was written to the streams that are not given."""
    argv = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(argv, timeout=60, check=False, stdout=stdout, stderr=stderr)
    return done.returncode, (done.stdout or b"").decode(), (done.stderr or b"").decode()


def calls(peer: PeerThread) -> dict[str, tuple[str, ...]]:
    return {
        "a value": ("get", "k", "-n", peer.address),
        "a large one": ("get", "large", "-n", peer.address),
        "JSON": ("get", "k", "--json", "-n", peer.address),
        "a table": ("members", "-n", peer.address),
        "the help": ("--help",),
        "the help of a command": ("get", "--help"),
        "the help of the node": ("node", "--help"),
        "the help of the demo": ("demo", "--help"),
    }


def test_a_reader_that_is_gone_ends_a_command_quietly(peer: PeerThread, unread: int) -> None:
    for name, arguments in calls(peer).items():
        assert run(*arguments, stdout=unread) == (READER_GONE, "", ""), name


def test_a_full_device_is_told_in_one_line(peer: PeerThread, full: IO[bytes]) -> None:
    line = "dcc: the output cannot be written: no space left on device\n"
    for name, arguments in calls(peer).items():
        assert run(*arguments, stdout=full) == (UNWRITABLE, "", line), name


@pytest.mark.parametrize("module", ["dcc.node", "dcc.demo"])
def test_modules_of_their_own_are_no_exception(module: str, full: IO[bytes], unread: int) -> None:
    line = "dcc: the output cannot be written: no space left on device\n"
    assert run("--help", module=module, stdout=full) == (UNWRITABLE, "", line)
    assert run("--help", module=module, stdout=unread) == (READER_GONE, "", "")


def test_errors_keep_their_exit_code_where_nobody_can_be_told(
    peer: PeerThread, full: IO[bytes], unread: int
) -> None:
    for stream in (full, unread):
        assert run("get", "absent", "-n", peer.address, stderr=stream) == (1, "", "")
        assert run("get", "k", "-n", "127.0.0.1:1", "--timeout", "0.2", stderr=stream)[0] == 2
        assert run("nonsense", stderr=stream)[0] == 64
        assert run("--bind", "nonsense", module="dcc.node", stderr=stream)[0] == 2


def test_a_full_device_for_both_streams_is_no_traceback(peer: PeerThread, full: IO[bytes]) -> None:
    code, _, _ = run("get", "k", "-n", peer.address, stdout=full, stderr=full)
    assert code == UNWRITABLE


def test_closed_streams_are_no_error(peer: PeerThread) -> None:
    for closed in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
        command = f"{sys.executable} -m dcc get k -n {peer.address} {closed}"
        done = subprocess.run(["sh", "-c", command], capture_output=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, b""), closed
