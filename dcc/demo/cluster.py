"""The processes of the demonstration: started, listened to, killed, and never left behind.

Each child is a session of its own, so that Ctrl-C reaches only the story, which then ends them
all; its output is always drained, so that a full pipe stops nobody.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import IO, Any, Self

from dcc.keys import new_key
from dcc.types import Role

READY_SECONDS_MAX = 20.0
END_SECONDS_MAX = 5.0
LINES_MAX = 4096
"Kept of a child's output; a worker writes five a second and they are read ten times a second."
MEMORY = "64MiB"
REBALANCE_DELAY_SECONDS = 3


class Broken(Exception):
    """A process did not do what it was started for; the text says which and what it wrote."""


class Child:
    """One process and what it wrote."""

    def __init__(self, name: str, module: str, *arguments: str, keys: str = "") -> None:
        self.name = name
        self.expected_to_end: bool = False
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True, env=environment(keys), text=True, encoding="utf-8",
        )  # fmt: skip
        self._output: deque[str] = deque(maxlen=LINES_MAX)
        self._errors: deque[str] = deque(maxlen=20)
        self._drains = [
            self._drained(self._process.stdout, self._output),
            self._drained(self._process.stderr, self._errors),
        ]

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """True until the process has ended."""
        return self._process.poll() is None

    def lines(self) -> list[str]:
        """Return the lines of output that were not returned before."""
        return [self._output.popleft() for _ in range(len(self._output))]

    def say(self, line: str) -> None:
        """Write a line to its standard input; a process that has ended does not hear it."""
        assert self._process.stdin is not None
        if self._process.stdin.closed:
            return
        with contextlib.suppress(OSError):
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def end_input(self) -> None:
        """Close its standard input, which tells a worker to finish."""
        assert self._process.stdin is not None
        self.expected_to_end = True
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def wait(self) -> None:
        """Wait for its end and the last of its output, or kill it."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_SECONDS_MAX)
        self.kill()

    def kill(self) -> None:
        """SIGKILL the process and all it started, and wait for it. May be repeated."""
        self.expected_to_end = True
        if self.running:  # Once it was waited for, its number may be another process's.
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        self.end_input()
        for drain in self._drains:
            drain.join()

    def broken(self, what: str) -> Broken:
        """Return the error that says `what` of this process, with the last it wrote."""
        code = self._process.poll()
        state = "is running" if code is None else f"ended with code {code}"
        last = "".join(f"\n    {line}" for line in list(self._errors)[-5:])
        return Broken(f"{self.name} (pid {self.pid}) {what}; it {state}{last}")

    @staticmethod
    def _drained(source: IO[str] | None, target: deque[str]) -> threading.Thread:
        assert source is not None

        def drain() -> None:
            with source:
                target.extend(line.rstrip("\n") for line in source)

        thread = threading.Thread(target=drain, daemon=True)
        thread.start()
        return thread


class Node(Child):
    """A node process; knows its addresses once it is ready."""

    def __init__(self, name: str, seeds: list[str], keys: str = "") -> None:
        options = [
            "--bind", "127.0.0.1:0", "--name", name, "--log-format", "json",
            "--rebalance-delay", str(REBALANCE_DELAY_SECONDS), "--max-memory", MEMORY,
        ]  # fmt: skip
        super().__init__(
            name,
            "dcc.node",
            *options,
            *(part for seed in seeds for part in ("--seed", seed)),
            keys=keys,
        )
        self.request: Any = ""

    @property
    def ready(self) -> bool:
        """True once it has said that it joined and serves; Broken if it says something else."""
        if not self.request:
            for line in self.lines()[:1]:
                event: dict[str, Any] = json.loads(line)
                if event.get("event") != "node_ready":
                    raise self.broken(f"said {line} instead of being ready")
                self.request = event["request"]
        return bool(self.request)


class Cluster:
    """All processes of one demonstration; leaving the block ends every one of them."""

    def __init__(self, *, with_keys: bool = False) -> None:
        self._made_keys = TemporaryDirectory(prefix="dcc-keys-") if with_keys else None
        self.keys: str = self._made_keys.name if self._made_keys is not None else ""
        "The directory of everybody's keys; empty without."
        self.nodes: list[Node] = []
        "In the order of their start, the killed one included."
        self.workers: list[Child] = []
        self.signal = 0
        "Number of a signal that asked the demonstration to end; set by the handler."

    def add_node(self) -> Node:
        """Start one more node, whose only seed is the youngest of those that are ready."""
        seeds = [node.request for node in self.nodes if node.running and node.request][-1:]
        name = f"node-{len(self.nodes) + 1}"
        if self.keys:
            new_key(Path(self.keys), name, Role.NODE)
            if not self.nodes:
                new_key(Path(self.keys), "demo", Role.CLIENT)
        node = Node(name, seeds, self.keys)
        self.nodes.append(node)
        return node

    def add_worker(self, *, seed: int, period: float) -> Child:
        """Start one more client process; its pages grow stale once in `period` seconds."""
        number = len(self.workers) + 1
        nodes = ",".join(node.request for node in self.nodes if node.running)
        worker = Child(
            f"client-{number}", "dcc.demo.worker",
            "--nodes", nodes, "--seed", str(seed), "--number", str(number), "--period", str(period),
            keys=self.keys,
        )  # fmt: skip
        self.workers.append(worker)
        return worker

    def check(self) -> None:
        """Raise Broken if a process ended that nobody told to, SystemExit after a signal."""
        if self.signal:
            raise SystemExit(128 + self.signal)
        for child in (*self.nodes, *self.workers):
            if not child.running and not child.expected_to_end:
                raise child.broken("ended by itself")

    def wait_ready(self, node: Node) -> None:
        """Return once `node` has joined and serves; Broken if that takes too long."""
        deadline = time.monotonic() + READY_SECONDS_MAX
        while not node.ready:
            self.check()
            if time.monotonic() > deadline:
                raise node.broken("is not ready")
            time.sleep(0.01)

    def finish_workers(self) -> None:
        """Let the client processes end and send what they still have to report."""
        for worker in self.workers:
            worker.end_input()
        for worker in self.workers:
            worker.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for child in (*self.workers, *self.nodes):
            child.kill()
        if self._made_keys is not None:
            self._made_keys.cleanup()


def environment(keys: str = "") -> dict[str, str]:
    """Return this environment without DCC_… variables, which would change what is shown.

    With the directory of keys, if there is one.
    """
    kept = {name: text for name, text in os.environ.items() if not name.startswith("DCC_")}
    return kept | ({"DCC_KEYS": keys} if keys else {})
