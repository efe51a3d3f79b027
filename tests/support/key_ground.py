"""Key directories and nodes that use them, for the tests of this directory."""

from __future__ import annotations

from pathlib import Path

import dcc
from dcc.cli.main import main
from tests.support.processes import NodeProcess, Processes, wait_until


def dcc_keys(directory: Path, *words: str) -> None:
    """Run `dcc keys`; it must succeed."""
    assert main(["keys", *words, "--keys", str(directory)]) == 0


class Ground:
    """A directory of keys for three nodes, a client and an administrator; and its cluster."""

    def __init__(self, processes: Processes, directory: Path) -> None:
        self.processes, self.directory = processes, directory
        for name in ("a", "b", "c"):
            dcc_keys(directory, "new", name, "--role", "node")
        dcc_keys(directory, "new", "app", "--role", "client")
        dcc_keys(directory, "new", "chief", "--role", "admin")
        self.nodes: list[NodeProcess] = []
        self._clients: list[dcc.Client] = []

    def node(self, name: str, *options: str, directory: Path | None = None) -> NodeProcess:
        """Start a node, which joins the first one."""
        seed = ("--seed", self.nodes[0].address) if self.nodes else ()
        keys = ("--keys", str(directory or self.directory), "--name", name)
        node = self.processes.node(*keys, *seed, *options)
        self.nodes.append(node)
        return node

    def cluster(self, *options: str) -> None:
        """Start all three and wait until they are one cluster."""
        for name in ("a", "b", "c"):
            self.node(name, *options)
        chief = self.client("chief")
        wait_until(lambda: all(node.ready for node in self.nodes))
        wait_until(lambda: is_converged(chief), 60, self.text)

    def client(
        self, name: str | None = "app", directory: Path | None = None, *, keys: bool = True
    ) -> dcc.Client:
        """Return a client that is closed at the end; with keys unless told otherwise."""
        nodes = [node.address for node in self.nodes]
        place = (directory or self.directory) if keys else None
        client = dcc.Client(nodes, timeout=2.0, keys=place, name=name)
        self._clients.append(client)
        return client

    def refusals(self, reason: str) -> int:
        """Return how many lines of refusals for `reason` the nodes have logged."""
        events = [one for node in self.nodes for one in node.events("connection_refused")]
        return sum(one["reason"] == reason for one in events)

    def text(self) -> str:
        """Return what all nodes wrote."""
        return "\n".join(node.text() for node in self.nodes)

    def close(self) -> None:
        """Close the clients."""
        for client in self._clients:
            client.close()


def is_converged(client: dcc.Client) -> bool:
    """Return whether the cluster of three has converged; False while nobody answers."""
    try:
        alive = [one for one in client.topology().nodes if one.standing == "alive"]
        return len(alive) == 3 and client.converged()
    except dcc.DccError:
        return False
