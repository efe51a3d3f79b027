#!/usr/bin/env python3
"""Restart the nodes of a cluster one by one, each only while all copies are in their places.

    python scripts/rolling_restart.py -n 10.0.0.1:6740,10.0.0.2:6740 \\
        --restart 'ssh {host} systemctl restart dcc'

For every node: wait until the cluster has converged, run the command, wait until the node is back
with a new life, go on. The command runs in a shell; {node}, {host} and {request} stand for the
node's name, the host it is reached at, and host:port of its requests. Before the end the cluster
is waited for once more. Whatever does not happen in time, or a command that fails, stops
everything: the nodes behind it are not touched.

A restart is seen by the time that a node says it has been up, so a command that did nothing is
found out. The node must come back under its own name.

Exit codes: 0 all restarted, 1 stopped in the middle or not begun, 2 nobody could be reached,
64 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

import dcc

DONE, ABORTED, UNREACHABLE, USAGE, INTERRUPTED = 0, 1, 2, 64, 130

POLL_SECONDS = 0.5
NOTE_SECONDS = 10.0
"While it waits it says at least so often what for."


class Aborted(Exception):
    """Something did not happen in time, or failed."""


class RollingRestart:
    """Restarts nodes with one command, and watches the cluster through one client."""

    def __init__(self, client: dcc.Client, command: str, timeout_seconds: float) -> None:
        self._client, self._command, self._timeout_seconds = client, command, timeout_seconds

    def run(self, only: Sequence[str]) -> int:
        """Restart the nodes named `only`, or all; return how many there were.

        Raises:
            Aborted: something failed, or did not happen in time; the rest was not touched.
        """
        self._client.topology()  # Whoever reaches nobody learns it now, and need not wait.
        self.wait_converged()
        members = {one.name: one for one in self._client.topology().nodes if _belongs(one)}
        unknown = sorted(set(only) - members.keys())
        if unknown:
            raise Aborted(f"no member is called {', '.join(unknown)}")
        names = list(only) or sorted(members)
        for count, name in enumerate(names, 1):
            say(f"{count}/{len(names)} {name}: restarting")
            began = time.monotonic()
            self._restart(members[name], began)
            up = time.monotonic() - began
            self.wait_converged()
            took = time.monotonic() - began
            say(f"{count}/{len(names)} {name}: back after {up:.1f} s, converged after {took:.1f} s")
        return len(names)

    def wait_converged(self) -> None:
        """Return once every copy is where it belongs and all agree on that."""
        self._wait("not converged", self._missing)

    def _restart(self, node: dcc.NodeInfo, began: float) -> None:
        host = node.request.rpartition(":")[0].strip("[]")
        parts = {"node": node.name, "host": host, "request": node.request}
        command = self._command
        for name, part in parts.items():
            command = command.replace(f"{{{name}}}", shlex.quote(part))
        code = self._run(command)
        if code is None:
            raise Aborted(f"{node.name}: the command took too long: {command}")
        if code:
            raise Aborted(f"{node.name}: the command ended with {code}: {command}")
        self._wait(f"{node.name} is not back", lambda: self._not_back(node.name, began))

    def _run(self, command: str) -> int | None:
        """Run `command` and return its exit code, or None when it had to be ended."""
        # A session of its own, so that whatever it started ends with it.
        process = subprocess.Popen(command, shell=True, start_new_session=True)
        try:
            return process.wait(self._timeout_seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _not_back(self, name: str, began: float) -> list[str]:
        mine = self._client.stats().nodes.get(name)
        if mine is None:
            return ["it does not answer"]
        if mine.up_seconds > time.monotonic() - began:
            return [f"it has been up for {mine.up_seconds:.0f} s, so it was not restarted"]
        return [] if mine.ready else ["it is not ready"]

    def _missing(self) -> list[str]:
        """Return what is not as it should be; empty = converged."""
        found = self._client.convergence()
        return [] if found.converged else list(found.reasons) or ["no reason was told"]

    def _wait(self, what: str, reasons: Callable[[], list[str]]) -> None:
        """Return once `reasons()` is empty; Aborted when that takes too long."""
        began = noted = time.monotonic()
        while True:
            try:
                left = reasons()
            except dcc.DccError as error:
                left = [str(error) or type(error).__name__]
            if not left:
                return
            now = time.monotonic()
            if now - began > self._timeout_seconds:
                raise Aborted(f"{what} after {self._timeout_seconds:g} s: {'; '.join(left)}")
            if now - noted > NOTE_SECONDS:
                say(f"  {what}: {'; '.join(left)}")
                noted = now
            time.sleep(POLL_SECONDS)


def _belongs(node: dcc.NodeInfo) -> bool:
    return node.standing in ("alive", "suspect", "dead")


def say(text: str) -> None:
    """Print one line at once."""
    print(text, flush=True)


class Parser(argparse.ArgumentParser):
    """Leaves with 64 for wrong usage, as `dcc` does."""

    def error(self, message: str) -> NoReturn:
        """Print the mistake in one line and leave."""
        self.exit(USAGE, f"{self.prog}: {message}\n")


def parser() -> Parser:
    """Return the parser of the command line."""
    one = Parser(
        prog="rolling_restart", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    one.add_argument("-n", "--nodes", metavar="HOST:PORT,…",
                     help="several, since each is away once; default $DCC_NODES")  # fmt: skip
    one.add_argument("--cluster", default=os.environ.get("DCC_CLUSTER", "dcc"), metavar="NAME")
    one.add_argument("--restart", required=True, metavar="COMMAND",
                     help="restarts one node, e.g. 'systemctl restart dcc@{node}'")  # fmt: skip
    one.add_argument("--only", default="", metavar="NAME,…", help="these, in this order")
    one.add_argument("--timeout", type=float, default=300.0, metavar="SECONDS",
                     help="for each command and each wait (default 300)")  # fmt: skip
    return one


def main(argv: Sequence[str] | None = None) -> int:
    """Do what `argv` says; return the exit code."""
    arguments = parser()
    options = arguments.parse_args(argv)
    only = [name for name in options.only.split(",") if name]
    try:
        with dcc.Client(options.nodes, timeout=5.0, cluster=options.cluster) as client:
            count = RollingRestart(client, options.restart, options.timeout).run(only)
    except Aborted as error:
        sys.stderr.write(f"rolling_restart: stopped: {error}\n")
        return ABORTED
    except (dcc.NodeUnavailable, dcc.WrongCluster, dcc.OperationTimeout) as error:
        sys.stderr.write(f"rolling_restart: {error}\n")
        return UNREACHABLE
    except (ValueError, TypeError) as error:
        arguments.error(str(error))
    except KeyboardInterrupt:
        return INTERRUPTED
    say(f"{count} nodes restarted")
    return DONE


if __name__ == "__main__":
    sys.exit(main())
