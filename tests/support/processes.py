"""The one place where tests start processes.

Each process has a session of its own, a clean environment and its output drained by threads (a
full pipe must never be what a test observes). Whatever happens, it is killed and waited for when
the test ends.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any, TypeVar

import pytest

from tests.support.paths import ROOT

_R = TypeVar("_R", bound="Running")

READY_SECONDS = 60.0
"Generous: a loaded machine starts Python slowly. Polls end as soon as the thing is there."


class Running:
    """A started process and what it has written so far."""

    def __init__(self, argv: list[str], env: Mapping[str, str]) -> None:
        self.popen = subprocess.Popen(
            argv, cwd=ROOT, env=clean_environment(env), start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.out: list[str] = []
        self.err: list[str] = []
        self._drains = [
            _drain(self.popen.stdout, self.out),
            _drain(self.popen.stderr, self.err),
        ]

    @property
    def pid(self) -> int:
        """The process id, which is also that of its session."""
        return self.popen.pid

    def signal(self, number: int) -> None:
        """Send a signal to the process; nothing if it has ended."""
        if self.popen.poll() is None:
            os.kill(self.pid, number)

    def wait(self, timeout: float = READY_SECONDS) -> int:
        """Return the exit code; the output is complete then."""
        code = self.popen.wait(timeout)
        for thread in self._drains:
            thread.join(5)
        return code

    def kill(self) -> None:
        """SIGKILL the process and all it started, and wait. Idempotent."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.wait()

    def text(self) -> str:
        """All output so far, for an assertion's message."""
        return "\n".join(["--- stdout", *self.out, "--- stderr", *self.err])


class NodeProcess(Running):
    """`python -m dcc.node` on free loopback ports, logging JSON."""

    def __init__(
        self, options: tuple[str, ...], env: Mapping[str, str], inside: Sequence[str] = ()
    ) -> None:
        argv = [*inside, sys.executable, "-m", "dcc.node", "--log-format", "json", *options]
        if "--bind" not in options:
            argv += ["--bind", "127.0.0.1:0"]
        super().__init__(argv, env)
        self._ready: dict[str, Any] = {}

    @property
    def ready(self) -> dict[str, Any]:
        """The fields of `node_ready`, waited for."""
        if not self._ready:
            wait_until(lambda: self.out or self.popen.poll() is not None, READY_SECONDS, self.text)
            assert self.out, self.text()
            self._ready = json.loads(self.out[0])
            assert self._ready["event"] == "node_ready"
        return self._ready

    @property
    def address(self) -> str:
        """Request address, once it is ready."""
        return str(self.ready["request"])

    @property
    def same_again(self) -> tuple[str, ...]:
        """Options with which another process takes this one's name and addresses."""
        ready = self.ready
        places = ("--bind", ready["request"], "--gossip-bind", ready["gossip"])
        return ("--name", ready["node"], *places)

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log lines of one event so far."""
        lines = [json.loads(line) for line in list(self.err) if line.startswith("{")]
        return [line for line in lines if line.get("event") == name]


class Processes:
    """Starts processes and remembers them, so that the fixture can end them all."""

    def __init__(self) -> None:
        self._running: list[Running] = []

    def run(self, *argv: str, env: Mapping[str, str] | None = None) -> Running:
        """Start `argv`."""
        return self._keep(Running(list(argv), env or {}))

    def python(self, *argv: str, env: Mapping[str, str] | None = None) -> Running:
        """Start this Python with `argv`."""
        return self.run(sys.executable, *argv, env=env)

    def node(
        self, *options: str, env: Mapping[str, str] | None = None, inside: Sequence[str] = ()
    ) -> NodeProcess:
        """Start a node with `options`; ports are free ones unless `--bind` is among them.

        `inside` is put before its command line; what it names must become the node by exec.
        """
        return self._keep(NodeProcess(options, env or {}, inside))

    def nodes(self, count: int, *options: str) -> list[NodeProcess]:
        """Start `count` nodes of one cluster and wait until all are ready."""
        first = self.node(*options)
        seed = ("--seed", first.address)
        rest = [self.node(*seed, *options) for _ in range(count - 1)]
        for node in rest:
            assert node.ready
        return [first, *rest]

    def end(self) -> None:
        """Kill everything that still runs and wait for it."""
        for one in self._running:
            one.kill()

    def _keep(self, one: _R) -> _R:
        self._running.append(one)
        return one


@pytest.fixture
def processes() -> Iterator[Processes]:
    """Start processes in a test; all are dead when it ends."""
    started = Processes()
    yield started
    started.end()


def wait_until(
    holds: Callable[[], object], timeout: float = 10.0, why: Callable[[], str] = lambda: ""
) -> None:
    """Poll until `holds()` is true; fail the test after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < deadline, f"not so after {timeout} s\n{why()}"
        time.sleep(0.01)


def clean_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """This environment without anything that would change a node or Python, and with `extra`."""
    kept = {
        name: value for name, value in os.environ.items()
        if not name.startswith(("DCC_", "PYTHON", "COV_"))
    }  # fmt: skip
    return kept | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)} | dict(extra)


def _drain(pipe: IO[bytes] | None, lines: list[str]) -> threading.Thread:
    assert pipe is not None

    def run() -> None:
        with pipe:
            for line in pipe:
                lines.append(line.decode(errors="replace").rstrip("\n"))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread
