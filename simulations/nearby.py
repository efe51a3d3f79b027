"""A client with a near cache in the simulated world: the production cache, simulated ears.

The ears are a process of their own, as the listener's threads are: they ask every node to tell of
changes, listen on the gossip plane, and drop all copies when the members change. Each hit is
written down with the life of the node that the copy came from, and so is each version that a node
came to hold, for the checker.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

from xxhash import xxh3_64_intdigest

from dcc.client.near import Near, NearCache
from dcc.client.routing import View
from dcc.config import NodeConfig
from dcc.node.core import NodeCore
from dcc.types import CLIENTS, Boot, NodeKey, Now, Stamp
from dcc.units import MILLISECOND, SECOND
from dcc.wire.messages import Changes, Get, Status, Watch
from simulations.clients import ClientProcess
from simulations.network import GOSSIP, Connection, Frames
from simulations.stage import Stage
from simulations.world import World

ASK_NS = 2 * SECOND
LOOK_NS = 50 * MILLISECOND


class Held(NamedTuple):
    """A node came to hold a version."""

    at_ns: int
    origin: tuple[NodeKey, Boot]
    key: bytes
    stamp: Stamp


class NearHit(NamedTuple):
    """A copy was served."""

    at_ns: int
    origin: tuple[NodeKey, Boot]
    "The node that it came from, and its life."
    key: bytes
    stamp: Stamp
    known: Stamp
    "What the client had written or read itself by then."


class Ledger:
    """What nodes came to hold, in order of time."""

    def __init__(self) -> None:
        self.held: list[Held] = []
        self.world: World | None = None

    def make(self, config: NodeConfig, *, boot: Boot, rng: Random, now: Now) -> NodeCore:
        """Return a core whose new versions are written down."""
        core = NodeCore(config, boot=boot, rng=rng, now=now)
        tell = core.machines.watchers.changed

        def changed(key: bytes, stamp: Stamp) -> None:
            assert self.world is not None
            self.held.append(Held(self.world.now_ns, (core.key, core.boot), key, stamp))
            tell(key, stamp)

        core.held.store.tell(changed)
        return core


class Ears(ClientProcess):
    """Listens to the nodes for one near cache."""

    def __init__(self, stage: Stage, name: str, near: Near) -> None:
        super().__init__(stage.world, name, stage.seeds, SECOND)
        self.near = near
        self._view: View | None = None
        self._publishers: dict[str, Connection] = {}
        stage.world.clients[name] = self
        stage.world.at(stage.world.now_ns, self._ask, None)
        stage.world.at(stage.world.now_ns, self._look, None)

    def _ask(self, _: None) -> None:
        if not self.busy:
            self.call(Watch(), lambda outcome, error: None)
        self.world.at(self.world.now_ns + ASK_NS, self._ask, None)

    def _look(self, _: None) -> None:
        view = self.core.view
        if view is not None and view is not self._view:
            known, self._view = self._view, view
            if known is not None and (known.epoch, known.alive) != (view.epoch, view.alive):
                self.near.drop_all()
            for member in view.members.values():
                if member.gossip not in self._publishers:
                    one = self.world.network.connect(self, member.gossip, GOSSIP, CLIENTS)
                    self._publishers[member.gossip] = one
        self.world.at(self.world.now_ns + LOOK_NS, self._look, None)

    def arrived(self, connection: Connection, frames: Frames) -> bool:
        """Take what a node tells, or an answer."""
        if connection.plane != GOSSIP:
            return super().arrived(connection, frames)
        header, message = self.core.codec.decode(frames[1:])
        if isinstance(message, Changes) and header.at:
            now = self.clock.read(self.world.now_ns)
            self.near.hear(header, message, now.mono, self.core.cluster_ms(now))
            self.near.check()
        return True


class Nearby:
    """One client with a near cache, and the ears that belong to it."""

    def __init__(self, stage: Stage, name: str, options: NearCache | None = None) -> None:
        self.hits: list[NearHit] = []
        self.near = Near(options or NearCache())
        self.client = stage.client(name)
        self.client.core.outlived.on_newer = self._outlived
        self.client.core.on_view = self._routed
        self.ears = Ears(stage, f"ears-{name}", self.near)
        self.ears.clock = self.client.clock  # They are threads of one process.
        self._world = stage.world

    def get(self, key: bytes, then: Callable[[bytes | None], None] = lambda value: None) -> None:
        """Read a key: a copy, or as a node has it; nothing while another call is under way."""
        now = self.client.clock.read(self._world.now_ns)
        name = key.decode()
        copy = self.near._copies.get(name)
        value = self.near.find(name, now.mono)
        if value is not None:
            assert copy is not None
            nodes = {id(stream): node for node, stream in self.near._streams.items()}
            origin = nodes[id(copy.stream)], copy.stream.boot
            known = self.client.core.outlived.known(key)
            self.hits.append(NearHit(self._world.now_ns, origin, key, copy.stamp, known))
            then(value)
        elif not self.client.busy:
            read = self.near.begin()
            self.client.call(Get(key=key), lambda reply, error: self._read(key, read, reply, then))

    def _read(
        self, key: bytes, read: Any, reply: Any, then: Callable[[bytes | None], None]
    ) -> None:
        core, view = self.client.core, self.client.core.view
        if reply is None or view is None or reply.status is not Status.HIT:
            then(None)
            return
        now = self.client.clock.read(self._world.now_ns)
        left_ms = reply.expires_at_ms - core.cluster_ms(now) if reply.expires_at_ms else None
        said = [one for one in self.client.answers if one.version == reply.version]
        node = self._world.nodes[said[-1].node].key if said else None
        if node is not None:
            self.near.fill(
                key.decode(), xxh3_64_intdigest(key), reply.value, reply.version.stamp, left_ms,
                node, read, now.mono,
            )  # fmt: skip
            self.near.check()
        then(reply.value)

    def _routed(self, view: View) -> None:
        self.near.route(view.epoch)

    def _outlived(self, key: bytes, stamp: Stamp) -> None:
        self.near.forget(xxh3_64_intdigest(key), stamp)
