"""Data planes of a few nodes wired back to back: no membership, no bytes, a network to bend."""

from __future__ import annotations

from collections.abc import Callable

from dcc.clock import ClusterClock
from dcc.config import NodeConfig
from dcc.effects import Effect, Tell
from dcc.replication.exchange import Exchange
from dcc.replication.holdings import Holdings, Instant
from dcc.replication.streams import Streams
from dcc.replication.sync import SyncTable
from dcc.ring.hashing import slot_of
from dcc.store.store import Store
from dcc.types import Kind, Member, NodeKey, Now, Record, Standing, Version, node_key
from dcc.units import MILLISECOND, SECOND
from dcc.wire.codec import Header
from dcc.wire.messages import (
    TAG,
    Compare,
    CompareReply,
    CompareRoot,
    CompareRootReply,
    Nudge,
    Pull,
    PullReply,
    Replicate,
    ReplicateAck,
)

START_MS = 1_700_000_000_000


class Plane:
    """One node's store, streams and exchange."""

    def __init__(self, name: str, *, limit_bytes: int = 64 << 20, lives: int = 0) -> None:
        self.name, self.key, self.boot = name, node_key(name), hash_boot(name) + (lives << 16)
        config = NodeConfig(
            name=name, request=f"{name}:1", gossip=f"{name}:2", memory_limit_bytes=limit_bytes
        )
        clock = ClusterClock(Now(0, START_MS * MILLISECOND), max_skew_ms=500)
        self.held = Holdings(config, key=self.key, boot=self.boot, clock=clock)
        self.sync = SyncTable(self.held.view, self.held.unasked, 0)
        self.exchange = Exchange(self.held, self.sync)
        self.streams = Streams(self.held)

    @property
    def store(self) -> Store:
        return self.held.store

    def value(self, key: bytes, at: Instant) -> bytes | None:
        entry = self.store.get(slot_of(key), key, at.ms)
        return entry.value if entry else None


def hash_boot(name: str) -> int:
    return (START_MS << 16) | (node_key(name) & 0xFFFF)


class Planes:
    """Several planes, one clock, and a message list that tests may filter."""

    def __init__(self, *names: str, replicas: int, limit_bytes: int = 64 << 20) -> None:
        self.planes = {node_key(name): Plane(name, limit_bytes=limit_bytes) for name in names}
        self.standing = dict.fromkeys(self.planes, Standing.ALIVE)
        self.draining: set[NodeKey] = set()
        self.replicas = replicas
        self.mono, self.lives = 1, 0
        self.lost: Callable[[NodeKey, NodeKey, object], bool] = lambda _a, _b, _message: False
        self.carried: list[object] = []
        self.take_view()

    def __getitem__(self, name: str) -> Plane:
        return self.planes[node_key(name)]

    @property
    def at(self) -> Instant:
        return Instant(self.mono, START_MS + self.mono // MILLISECOND)

    def take_view(self) -> None:
        """Give every plane the present member table."""
        members = {
            key: Member(
                plane.name, "h:1", "h:2", "", 1.0, plane.boot, 1,
                self.standing[key], 0, key in self.draining,
            )
            for key, plane in self.planes.items()
        }  # fmt: skip
        for plane in self.planes.values():
            boots = dict(plane.held.view.boots)
            change = plane.held.view.update(members, self.replicas, self.mono)
            plane.held.unasked.view_changed()
            plane.sync.view_changed(
                tuple(k for k, boot in boots.items() if plane.held.view.boots.get(k) != boot)
            )
            plane.exchange.view_changed(change, self.at)
            plane.streams.retarget(self.at)

    def restart(self, name: str) -> None:
        """Replace a node by its next life: empty, in a boot of its own."""
        self.lives += 1
        plane = self.planes[node_key(name)] = Plane(name, lives=self.lives)
        plane.sync = SyncTable(plane.held.view, plane.held.unasked, self.mono)
        plane.exchange = Exchange(plane.held, plane.sync)
        self.take_view()

    def put(self, name: str, key: bytes, value: bytes, kind: Kind = Kind.VALUE) -> Record:
        """Coordinate a write at `name`."""
        plane, slot = self[name], slot_of(key)
        stamp = plane.held.clock.next_stamp(self.at.ms)
        version = Version(stamp, plane.key, plane.boot)
        prev = plane.store.own_prev(slot, plane.held.origin)
        record = Record(key, kind, value, version, 0, prev)
        plane.store.write(slot, record, self.at.ms)
        for peer in plane.held.view.route(slot):
            if peer != plane.key:
                plane.streams.offer(peer, record, self.mono)
        return record

    def run(self, seconds: float, step_ns: int = 50 * MILLISECOND) -> None:
        """Let time pass; everything that is sent arrives within the step."""
        end = self.mono + int(seconds * SECOND)
        while self.mono < end:
            self.step(step_ns)
        for plane in self._up():
            plane.store.check()
            plane.streams.check()
            plane.exchange.check()

    def step(self, step_ns: int) -> None:
        """One turn of every plane."""
        self.mono += step_ns
        for plane in self._up():
            self.carry(plane, plane.exchange.tick(self.at))
            while plane.exchange.wake_at() == 0:  # Work is done in pieces.
                self.carry(plane, plane.exchange.tick(self.at))
            self.carry(plane, plane.streams.flush(self.at) + plane.streams.tick(self.at))
            plane.store.sweep(self.at.ms)

    def carry(self, source: Plane, effects: list[Effect]) -> None:
        """Deliver what a plane wants to tell, and what that leads to."""
        for effect in effects:
            assert isinstance(effect, Tell)
            assert isinstance(effect.to, int)
            target = self.planes[effect.to]
            self.carried.append(effect.message)
            lost = self.lost(source.key, target.key, effect.message)
            if not lost and self.standing[target.key] is Standing.ALIVE:
                self.carry(target, self._deliver(source, target, effect))

    def _up(self) -> list[Plane]:
        return [p for k, p in self.planes.items() if self.standing[k] is Standing.ALIVE]

    def _deliver(self, source: Plane, target: Plane, tell: Tell) -> list[Effect]:
        message, epoch = tell.message, source.held.view.epoch
        header = Header(TAG[type(message)], source.key, source.held.boot, epoch, 0, tell.request, 0)
        exchange = target.exchange
        handlers: dict[type, Callable[..., list[Effect]]] = {
            Pull: exchange.answerer.receive_pull,
            PullReply: exchange.receive_reply,
            Compare: exchange.answerer.receive_compare,
            CompareReply: exchange.receive_comparison,
            CompareRoot: exchange.answerer.receive_root,
            CompareRootReply: exchange.receive_roots,
            Nudge: exchange.agenda.nudged,
        }
        if type(message) in handlers:
            return handlers[type(message)](header, message, self.at)
        if isinstance(message, Replicate):
            for record in message.records:
                target.held.clock.witness(record.version.stamp)
                slot = slot_of(record.key)
                target.store.apply(slot, record, self.at.ms)
                if not target.held.view.holds(slot):
                    target.exchange.leftovers.written(slot)
            return [Tell(source.key, ReplicateAck(seq=message.seq, moved=()))]
        elif isinstance(message, ReplicateAck):
            target.streams.acknowledged(source.key, message, self.mono)
        return []
