"""The processes of a run, and how each fault is done to them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dcc.units import SECOND
from simulations import faults as f
from simulations.chaos import plan, wrong_clock
from simulations.chaos.net import Links

ROOT = Path(__file__).resolve().parents[2]
PORT = 6740
LEAVE_SECONDS = 20
END_SECONDS = 40.0
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Node:
    """One node's process, in one of its lives."""

    def __init__(self, popen: subprocess.Popen[bytes], name: str, log: Path | None) -> None:
        self.popen, self.name, self.log = popen, name, log
        self.born = time.monotonic()
        self.killed = False
        "By the run itself, or told to leave."

    @property
    def alive(self) -> bool:
        """It has not ended."""
        return self.popen.poll() is None

    def usage(self) -> tuple[int, int]:
        """Return resident bytes, and open descriptors; (0, 0) if it has ended."""
        try:
            resident = int(Path(f"/proc/{self.popen.pid}/statm").read_text().split()[1])
            return resident * PAGE_BYTES, len(os.listdir(f"/proc/{self.popen.pid}/fd"))
        except OSError:
            return 0, 0


class Cluster:
    """Nodes and clients, each in a place of its own; times are ns since the start."""

    def __init__(self, net: Links, folder: Path, options: Sequence[str], seed: int) -> None:
        self._net, self._folder, self._options, self._seed = net, folder, options, seed
        names = [f"n{index}" for index in range(plan.NODES + plan.SPARE)]
        self._places = {name: index for index, name in enumerate(names + plan.client_names())}
        self.seeds = ",".join(self.address(name) for name in plan.node_names())
        self.nodes: dict[str, Node] = {}
        self.past: list[Node] = []
        self.clients: dict[str, subprocess.Popen[bytes]] = {}
        self._programs: list[subprocess.Popen[bytes]] = []
        self._lives: dict[str, int] = {}
        self.began_ns = time.monotonic_ns()
        self.losses: list[int] = []
        "When a node lost its memory."
        for name in names:
            wrong_clock.create(self._clock(name))

    # -------------------------------------------------------------- processes

    def now_ns(self) -> int:
        """Return the time of the run."""
        return time.monotonic_ns() - self.began_ns

    def address(self, name: str) -> str:
        """Return a node's request address."""
        return f"{Links.address(self._places[name])}:{PORT}"

    def start(self, name: str, *, log: str = "file") -> None:
        """Start a node; its log goes to a file, to a full disk, or nowhere."""
        if name in self.nodes and self.nodes[name].alive:
            return
        life = self._lives[name] = self._lives.get(name, 0) + 1
        argv = [
            sys.executable, "-m", "simulations.chaos.wrong_clock", str(self._clock(name)),
            "--name", name, "--bind", self.address(name), "--seed", self.seeds,
            "--replicas", str(plan.REPLICAS), "--rebalance-delay", str(plan.REBALANCE_SECONDS),
            "--leave-timeout", str(LEAVE_SECONDS), "--log-format", "json", *self._options,
        ]  # fmt: skip
        file = self._folder / f"{name}-{life}.log" if log == "file" else None
        if log == "closed":
            argv = ["sh", "-c", 'exec "$@" 2>&-', "sh", *argv]
        with open(file or "/dev/full", "wb") as stderr:
            popen = self._popen(name, argv, subprocess.DEVNULL, stderr)
        if name in self.nodes:
            self.past.append(self.nodes[name])
        self.nodes[name] = Node(popen, name, file)

    def run(self, name: str, module: str, *argv: str, log: str) -> subprocess.Popen[bytes]:
        """Start one of this package's programs in a place; what it prints can be read."""
        with (self._folder / log).open("ab") as stderr:
            argv = (sys.executable, "-m", f"simulations.chaos.{module}", self.seeds, *argv)
            popen = self._popen(name, argv, subprocess.PIPE, stderr)
        self._programs.append(popen)
        return popen

    def start_client(self, name: str) -> None:
        """Start a client process."""
        life = self._lives[name] = self._lives.get(name, 0) + 1
        self.clients[name] = self.run(
            name, "load", "--name", name, "--life", str(life), "--seed", str(self._seed),
            "--began", str(self.began_ns), "--history", str(self._folder / f"{name}-{life}.jsonl"),
            log="clients.log",
        )  # fmt: skip

    def stop_clients(self) -> None:
        """Let all clients end their calls, and end."""
        for client in self.clients.values():
            client.send_signal(signal.SIGTERM)
        for client in self.clients.values():
            client.wait(END_SECONDS)

    def close(self) -> None:
        """End everything."""
        for popen in (*self._programs, *(node.popen for node in self.all_nodes())):
            popen.kill()
            popen.wait()
            if popen.stdout is not None:
                popen.stdout.close()

    def all_nodes(self) -> list[Node]:
        """Return every life of every node."""
        return [*self.past, *self.nodes.values()]

    def living(self) -> list[Node]:
        """Return the nodes that run."""
        return [node for node in self.nodes.values() if node.alive]

    def died(self) -> list[str]:
        """Return nodes that ended by themselves, or that did not leave as they should."""
        found = []
        for node in self.all_nodes():
            code = node.popen.poll()
            if code is not None and (code != -signal.SIGKILL if node.killed else True):
                if node.killed and code == 0:
                    continue
                found.append(f"{node.name} ended with {code}: {last_lines(node.log)}")
        return found

    def _popen(self, name: str, argv: Sequence[str], out: Any, err: Any) -> subprocess.Popen[bytes]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("DCC_", "PYTHON"))}
        inside = self._net.inside(self._places[name])
        return subprocess.Popen(
            [*inside, *argv], cwd=ROOT, env=kept | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True,
        )  # fmt: skip

    def _clock(self, name: str) -> Path:
        return self._folder / f"{name}.clock"

    # -------------------------------------------------------------- faults

    def begin(self, event: plan.Event) -> None:
        """Let an event begin."""
        match event:
            case f.Partition():
                self._cut(event.left, event.right)
                if not event.one_way:
                    self._cut(event.right, event.left)
            case f.Restart() | plan.Logs():
                self._kill(event.node)
            case f.Pause():
                self._signal(event.node, signal.SIGSTOP)
            case f.Loss():
                self._net.set_link(self._places[event.node], loss=event.permille / 1_000)
            case f.Delay():
                self._net.set_link(self._places[event.node], delay_s=event.extra_ns / SECOND / 2)
            case f.Narrow():
                self._net.set_link(self._places[event.node], bytes_per_s=event.bytes_per_second)
            case f.ClockStep():
                wrong_clock.set_off(self._clock(event.node), event.by_ns)
            case f.Join():
                self.start(event.node)
            case f.Leave():
                self._signal(event.node, signal.SIGTERM)
                self.nodes[event.node].killed = True
            case f.ClientDeath():
                self.clients[event.client].kill()
                self.clients[event.client].wait()
                self.start_client(event.client)

    def end(self, event: plan.Event) -> None:
        """Let it end."""
        match event:
            case f.Partition():
                self._mend(event.left, event.right)
                if not event.one_way:
                    self._mend(event.right, event.left)
            case f.Restart():
                self.start(event.node)
            case plan.Logs():
                self.start(event.node, log="closed" if event.closed else "full")
            case f.Pause():
                self._signal(event.node, signal.SIGCONT)
            case f.Loss() | f.Delay() | f.Narrow():
                self._net.set_link(self._places[event.node])
            case f.ClockStep():
                wrong_clock.set_off(self._clock(event.node), 0)

    def _kill(self, name: str) -> None:
        node = self.nodes[name]
        if node.alive:
            node.killed = True
            self.losses.append(self.now_ns())
            node.popen.kill()
            node.popen.wait()

    def _signal(self, name: str, number: int) -> None:
        if self.nodes[name].alive:
            self.nodes[name].popen.send_signal(number)

    def _cut(self, left: Sequence[str], right: Sequence[str]) -> None:
        places = self._places
        self._net.cut([places[one] for one in left], [places[one] for one in right])

    def _mend(self, left: Sequence[str], right: Sequence[str]) -> None:
        places = self._places
        self._net.mend([places[one] for one in left], [places[one] for one in right])


def last_lines(log: Path | None) -> str:
    """Return the end of a log."""
    return log.read_text(errors="replace")[-600:] if log else "no log"


def log_lines(nodes: Sequence[Node]) -> list[tuple[str, dict[str, Any]]]:
    """Return every log line of all nodes, as the name of the node and its fields."""
    found = []
    for node in nodes:
        for line in node.log.read_text(errors="replace").splitlines() if node.log else ():
            try:
                found.append((node.name, json.loads(line)))
            except ValueError:
                found.append((node.name, {"event": "no JSON", "line": line}))
    return found
