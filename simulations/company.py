"""Who is no part of the cluster: machines beside it, and what strangers tell its nodes.

An outsider is a real node process that the observer does not watch and that no checker counts: one
under the name of a node that lives, or one whose advertised address leads nowhere. What becomes of
it, and of rows that were invented, is looked at once a second.
"""

from __future__ import annotations

from random import Random
from typing import Protocol

from dcc.clock import COUNTER_BITS
from dcc.types import Member, NodeKey, Standing
from dcc.units import MILLISECOND, SECOND
from dcc.wire.codec import Codec
from dcc.wire.messages import PushPull, SettingsUpdate
from simulations.checkers import company
from simulations.clocks import ProcessClock
from simulations.history import Violation
from simulations.observer import core_of
from simulations.processes import NodeProcess, Surroundings

PATIENCE_NS = 8 * SECOND
"A second node of a name has found the first one by then, or it never will."
ADVERTISED_FROM = 60_000
"Numbers of machines whose addresses nobody else has."


class Cluster(Surroundings, Protocol):
    """The world, as those see it who are no part of the cluster in it."""

    def boot(self, node: NodeProcess) -> None: ...
    def client_clock(self, name: str) -> ProcessClock: ...


class Outsiders:
    """The outsiders of one world, and the rows that were invented in it."""

    def __init__(self, world: Cluster) -> None:
        self._world = world
        self.machines: list[NodeProcess] = []
        self.invented: set[NodeKey] = set()
        self.displaced: list[str] = []
        "Nodes of the cluster that gave their name up."

    def start(self, called: str, *, reachable: bool) -> NodeProcess:
        """Start a machine of its own whose node is configured as `called`."""
        world, number = self._world, len(self.machines)
        name = f"o{number}"
        node = NodeProcess(world, ADVERTISED_FROM + number, name, world.client_clock(name), called)
        node.outside, node.reachable = True, reachable
        self.machines.append(node)
        world.boot(node)
        return node

    def end(self, called: str) -> None:
        """End the outsiders that are called so, if they still run."""
        for node in self.machines:
            if node.alive and node.called == called:
                node.kill(silent=False)

    def lie(self, count: int) -> None:
        """Tell every node of so many members that nobody has ever seen."""
        living = self._world.living()
        for node in living:
            core = core_of(node)
            ms = node.now().wall // MILLISECOND
            rows = tuple(_invented(number, ms) for number in range(count))
            self.invented.update(row.key for row in rows)
            liar = living[(living.index(node) + 1) % len(living)]
            codec = Codec("dcc", sender=liar.key, boot=liar.boot)
            told = PushPull(members=rows, settings=core.membership.settings)
            node.stray(codec.encode(told, at=core.clock.cluster_ms(node.now().mono)))

    def forge(self) -> None:
        """Tell every node in another one's name that all was cleared just now."""
        living = self._world.living()
        for node in living:
            victim = living[(living.index(node) + 1) % len(living)]
            core = core_of(node)
            ms = core.clock.cluster_ms(node.now().mono)
            settings = core.membership.settings._replace(cleared=ms << COUNTER_BITS)
            codec = Codec("dcc", sender=victim.key, boot=victim.boot)
            node.stray(codec.encode(SettingsUpdate(settings=settings), at=ms))

    def judge(self) -> list[Violation]:
        """Return what is wrong now."""
        world, now_ns = self._world, self._world.now_ns
        found = company.check_displaced(self.displaced, now_ns)
        for node in self.machines:
            if not node.alive:
                continue
            if not node.reachable:
                found += company.check_reached(node.name, ready=core_of(node).ready, at_ns=now_ns)
            elif node.called in world.nodes:
                first = world.nodes[node.called]
                seconds = (now_ns - max(node.started_ns, first.started_ns)) / SECOND
                found += company.check_names(
                    node.name, seconds=seconds, patience_s=PATIENCE_NS / SECOND,
                    first_lives=first.alive, at_ns=now_ns,
                )  # fmt: skip
        invented = frozenset(self.invented)
        for node in world.living():
            rows = core_of(node).membership.members.values()
            found += company.check_members(node.name, rows, invented, now_ns)
        return found


def _invented(number: int, ms: int) -> Member:
    name, host = f"phantom-{number}", f"10.250.{number >> 8}.{number & 255}"
    boot = ms << 16 | int(Random(name).random() * 65_536)
    return Member(
        name, f"{host}:6740", f"{host}:6741", "", 1.0, boot, ms, Standing.ALIVE, ms, draining=False
    )
