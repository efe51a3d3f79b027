"""Servers and workers as processes, and the processors that they run on."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.against import CLIENT_CPU, line_of
from benchmarks.against import NODE_CPU as SERVER_CPU
from benchmarks.hot_path import ECHO, cpu_seconds, free_port
from benchmarks.peers.contestants import SERVER_OF
from benchmarks.peers.worker import Took, Work
from dcc.keys import new_key
from dcc.types import Role

START_SECONDS = 30.0
MEMORY_MIB = 2_048


def pin(pid: int, cpus: set[int]) -> None:
    """Let all threads of a process run on `cpus` only, those that it starts later included."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), cpus)


@contextmanager
def process(argv: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a program for the block."""
    child = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def until_open(port: int) -> None:
    """Return once somebody listens."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@dataclass
class Server:
    """A running server, or several that are one."""

    address: str
    pids: list[int] = field(default_factory=list)

    def cpu_seconds(self) -> float:
        """Return the processor time of all its processes so far."""
        return sum(cpu_seconds(pid) for pid in self.pids)

    def pin(self, cpus: set[int]) -> None:
        """Move it."""
        for pid in self.pids:
            pin(pid, cpus)


def dcc_with_keys(stack: ExitStack) -> Server:
    """Start one node that encrypts, and lets in only who has a key."""
    keys = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    new_key(keys, "node", Role.NODE)
    new_key(keys, "bench", Role.CLIENT)
    server = dcc_cluster(stack, options=("--keys", str(keys), "--name", "node"))
    return Server(f"{server.address}#{keys}", server.pids)


def dcc_cluster(
    stack: ExitStack, nodes: int = 1, replicas: int = 0, options: Sequence[str] = ()
) -> Server:
    """Start so many nodes that know each other."""
    server = Server("")
    for _ in range(nodes):
        argv = [sys.executable, "-m", "dcc.node", "--bind", "127.0.0.1:0",
                "--replicas", str(replicas), "--max-memory", f"{MEMORY_MIB}MiB",
                "--log-level", "error", "--log-format", "json", *options]  # fmt: skip
        argv += ["--seed", server.address] if server.address else []
        child = stack.enter_context(process(argv))
        server.address = json.loads(line_of(child))["request"]
        server.pids.append(child.pid)
    if nodes > 1:
        until_converged(server.address, nodes)
    return server


def until_converged(address: str, nodes: int) -> None:
    """Return once all nodes agree."""
    import dcc

    deadline = time.monotonic() + 4 * START_SECONDS
    with dcc.Client(address, timeout=5) as client:
        while len(client.topology().nodes) < nodes or not client.converged():
            if time.monotonic() > deadline:
                raise SystemExit("the cluster does not converge")
            time.sleep(0.1)


def redis_server(stack: ExitStack) -> Server:
    """Start a Redis (or Valkey) server without persistence."""
    port = free_port()
    directory = stack.enter_context(tempfile.TemporaryDirectory())
    program = shutil.which("redis-server") or shutil.which("valkey-server") or "redis-server"
    argv = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "",
            "--appendonly", "no", "--dir", directory]  # fmt: skip
    child = stack.enter_context(process(argv))
    until_open(port)
    return Server(f"127.0.0.1:{port}", [child.pid])


def memcached(stack: ExitStack) -> Server:
    """Start memcached."""
    port = free_port()
    argv = ["memcached", "-l", "127.0.0.1", "-p", str(port), "-m", str(MEMORY_MIB), "-u", "nobody"]
    child = stack.enter_context(process(argv))
    until_open(port)
    return Server(f"127.0.0.1:{port}", [child.pid])


def echo(stack: ExitStack) -> Server:
    """Start the bare ROUTER loop."""
    child = stack.enter_context(process([sys.executable, "-c", ECHO]))
    return Server(f"127.0.0.1:{int(line_of(child))}", [child.pid])


STARTERS = {
    "dcc": dcc_cluster, "dcc with keys": dcc_with_keys, "redis": redis_server,
    "memcached": memcached, "echo": echo,
}  # fmt: skip
PROGRAMS = {"redis": ("redis-server", "valkey-server"), "memcached": ("memcached",)}


@dataclass
class Client:
    """A worker process and the server that it talks to."""

    name: str
    child: subprocess.Popen[str]
    server: Server

    def pin(self, mode: str) -> None:
        """Set the processors: `pinned` apart, `one core` together, `free` wherever they like."""
        everywhere = set(range(os.cpu_count() or 1))
        client, server = {
            "pinned": ({CLIENT_CPU}, {SERVER_CPU}),
            "one core": ({CLIENT_CPU}, {CLIENT_CPU}),
            "free": (everywhere, everywhere),
        }[mode]
        pin(self.child.pid, client)
        self.server.pin(server)

    def measure(self, work: Work) -> tuple[Took, float]:
        """Have a piece of work done; return what it took and the server's µs of an operation."""
        assert self.child.stdin is not None
        before = self.server.cpu_seconds()
        self.child.stdin.write(json.dumps(work) + "\n")
        self.child.stdin.flush()
        took = Took(*json.loads(line_of(self.child)))
        return took, (self.server.cpu_seconds() - before) / max(took.operations, 1) * 1e6


@contextmanager
def clients(names: Sequence[str], skipped: list[str]) -> Iterator[dict[str, Client]]:
    """Start servers and a worker for each contestant that this machine has; says who is skipped."""
    servers: dict[str, Server] = {}
    found: dict[str, Client] = {}
    with ExitStack() as stack:
        for name in names:
            kind = SERVER_OF[name]
            programs = PROGRAMS.get(kind, ())
            if programs and not any(map(shutil.which, programs)):
                skipped.append(f"{name}: no {' or '.join(programs)} on this machine")
                continue
            if kind not in servers:
                servers[kind] = STARTERS[kind](stack)
            started = worker(stack, name, servers[kind], skipped)
            if started is not None:
                found[name] = started
        yield found


def worker(stack: ExitStack, name: str, server: Server, skipped: list[str]) -> Client | None:
    """Start the process of one contestant; None, with the reason noted, if it cannot run."""
    argv = [sys.executable, "-m", "benchmarks.peers.worker", name, server.address]
    child = stack.enter_context(process(argv))
    hello = json.loads(line_of(child))
    if "skipped" in hello:
        skipped.append(f"{name}: {hello['skipped']}")
        return None
    return Client(name, child, server)
