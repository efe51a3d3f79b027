"""Whole node cores wired back to back: real frames, virtual time, a network to bend.

For what needs membership and data plane together, and a client that says exactly what it wants.
Everything that is sent arrives within the step, unless `lost` says otherwise.
"""

from __future__ import annotations

import contextlib
import random
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count

from dcc.config import NodeConfig
from dcc.effects import Effect, Publish, Reply, Send
from dcc.errors import PeerError
from dcc.node.core import NodeCore
from dcc.ring.hashing import slot_of
from dcc.types import TOPIC_ALL, NodeKey, Now, node_key, topic_of
from dcc.units import MILLISECOND, SECOND
from dcc.wire.codec import Codec
from dcc.wire.messages import Get, GetReply, Message, Op, Write

START_MS = 1_700_000_000_000
STEP_NS = 20 * MILLISECOND
CLIENT = b"\0client"

Lost = Callable[[NodeKey, NodeKey, Message], bool]
"(from, to, message) -> whether a message of the request plane is lost."

Overheard = Callable[[str, str, Message, bool], None]
"(from, to, message, whether it arrives): called for every message."

FRESH = count()


class Cores:
    """Nodes by name, all seeded with the first; `run` until they are one cluster."""

    def __init__(
        self, *names: str, replicas: int, max_skew_ms: int = 500, memory_limit_bytes: int = 8 << 20,
        expect: int = 1,
    ) -> None:  # fmt: skip
        self.mono = 1_000 * SECOND
        self.memory_limit_bytes, self.expect = memory_limit_bytes, expect
        self.replicas, self.max_skew_ms = replicas, max_skew_ms
        self.nodes: dict[str, NodeCore] = {}
        self.stopped: set[str] = set()
        self.replies: list[tuple[str, Message]] = []
        "What clients were answered: the node's name and the message."
        self.lost: Lost = lambda _a, _b, _message: False
        self.overheard: Overheard | None = None
        self.client = Codec("dcc", sender=77, boot=1)
        self._requests = 0
        self._queue: deque[tuple[str, Effect]] = deque()
        for name in names:
            self.add(name)

    @property
    def now(self) -> Now:
        return Now(self.mono, START_MS * MILLISECOND + self.mono)

    @property
    def ms(self) -> int:
        """Cluster time, as all clocks here are right."""
        return START_MS + self.mono // MILLISECOND

    def __getitem__(self, name: str) -> NodeCore:
        return self.nodes[name]

    def add(self, name: str, *, seeded: bool = True) -> NodeCore:
        """Start a node, or start it anew; the first founds the cluster, as does who has no seed."""
        seeds = tuple(f"{other}:1" for other in list(self.nodes)[:1] if seeded)
        config = NodeConfig(
            name=name, request=f"{name}:1", gossip=f"{name}:2", seeds=seeds,
            replicas=self.replicas, max_skew_ms=self.max_skew_ms,
            memory_limit_bytes=self.memory_limit_bytes, expect=self.expect,
        )  # fmt: skip
        boot = self.ms << 16 | len(self.nodes)
        core = NodeCore(config, boot=boot, rng=random.Random(name), now=self.now)
        self.nodes[name] = core
        self.carry(name, core.start(self.now))
        return core

    # ---------------------------------------------------------------- time

    def run(self, seconds: float) -> None:
        """Let time pass; check the invariants of all running nodes at its end."""
        end = self.mono + int(seconds * SECOND)
        while self.mono < end:
            self.step()
        self.check()

    def step(self, step_ns: int = STEP_NS) -> None:
        """One turn of every running node."""
        self.mono += step_ns
        for name, core in self.nodes.items():
            if name not in self.stopped:
                self.carry(name, core.tick(self.now))

    def until(self, condition: Callable[[], bool], seconds: float = 60.0) -> None:
        """Let time pass until `condition()`; AssertionError after `seconds`."""
        end = self.mono + int(seconds * SECOND)
        while not condition():
            assert self.mono < end, "it did not come true in time"
            self.step()

    def settle(self) -> None:
        """Let time pass until all running nodes are one cluster with its slots in sync."""
        self.until(self.settled)

    def settled(self) -> bool:
        """Whether all running nodes see each other and their slots are filled."""
        up = [core for name, core in self.nodes.items() if name not in self.stopped]
        keys = {core.key for core in up}
        one_view = len({core.held.view.epoch for core in up}) == 1
        return one_view and all(core.slots_ready and core.membership.alive() == keys for core in up)

    def check(self) -> None:
        """Assert the invariants of every running node."""
        for name, core in self.nodes.items():
            if name not in self.stopped:
                core.check()

    # ---------------------------------------------------------------- clients

    def ask(self, name: str, message: Message, *, at: int = 0, request: int = 0) -> list[Message]:
        """Send a client's request to a node; return what it was answered within the step."""
        self._requests += 1
        frames = self.client.encode(message, request=request or self._requests, at=at)
        return self.feed(name, frames)

    def feed(self, name: str, frames: list[bytes], route: bytes = CLIENT) -> list[Message]:
        """Give frames to a node as the loop would; return the answers that `route` got."""
        before = len(self.replies)
        core = self.nodes[name]
        self._overhear("client", name, frames)
        served = core.serve(route, frames[0], self.now) if len(frames) == 1 else None
        if served == b"":
            return []  # It came too late.
        if served is not None:
            self._overhear(name, "client", [served])
            self.replies.append((name, self.client.decode([served])[1]))
        else:
            self.carry(name, core.receive(route, frames, self.now))
            if core.wake_at() <= self.mono:
                self.carry(name, core.tick(self.now))
        return [message for _name, message in self.replies[before:]]

    def put(self, name: str, key: bytes, value: bytes, *, w: int = 1) -> list[Message]:
        """Put with `name` as the coordinator or the one who forwards."""
        return self.ask(name, Write(op=Op.PUT, key=key, value=value, w=w))

    def get(self, name: str, key: bytes) -> GetReply | None:
        """Get from `name`; None while it has not answered."""
        for message in self.ask(name, Get(key=key)):
            assert isinstance(message, GetReply)
            return message
        return None

    def held(self, name: str, key: bytes) -> bytes | None:
        """Return the live value that a node itself holds."""
        entry = self.nodes[name].held.store.get(slot_of(key), key, self.ms)
        return entry.value if entry else None

    def key_of(self, *order: str) -> bytes:
        """Return a key whose owners are exactly `order`, the primary first."""
        wanted = tuple(node_key(name) for name in order)
        owners = self.nodes[order[0]].held.view.slots.owners
        return next(key for key in map(_key, range(100_000)) if owners(slot_of(key)) == wanted)

    def fresh_key(self, *order: str) -> bytes:
        """Return such a key that was never returned before, for tests that share a cluster."""
        wanted = tuple(node_key(name) for name in order)
        owners = self.nodes[order[0]].held.view.slots.owners
        return next(key for i in FRESH if owners(slot_of(key := b"fresh-%d" % i)) == wanted)

    # ---------------------------------------------------------------- the network

    def carry(self, name: str, effects: Sequence[Effect]) -> None:
        """Deliver what a node asks for, and what that leads to, in order."""
        busy = bool(self._queue)
        self._queue.extend((name, effect) for effect in effects)
        while self._queue and not busy:
            source, effect = self._queue[0]
            self._deliver(source, effect)
            self._queue.popleft()

    def _deliver(self, source: str, effect: Effect) -> None:
        if isinstance(effect, Send):
            self._send(source, effect)
        elif isinstance(effect, Publish):
            self._publish(source, effect)
        elif isinstance(effect, Reply):
            self._reply(source, effect)

    def _publish(self, source: str, effect: Publish) -> None:
        frames = [effect.topic, effect.payload]
        for name, core in self.nodes.items():
            heard = effect.topic in (TOPIC_ALL, topic_of(core.key))
            if heard and name != source and name not in self.stopped:
                self._overhear(source, name, [effect.payload])
                self.carry(name, core.receive_gossip(frames, self.now))

    def _send(self, source: str, send: Send) -> None:
        for name, core in self.nodes.items():
            if send.to not in (core.key, core.config.request) or name in self.stopped:
                continue
            try:
                message = core.codec.decode(send.frames)[1]
            except PeerError:  # Of which the receiver takes what it can read.
                message = core.codec.salvage(send.frames)[1]
            lost = self.lost(self.nodes[source].key, core.key, message)
            self._overhear(source, name, send.frames, arrives=not lost)
            if not lost:
                route = b"\1" + source.encode()
                self.carry(name, core.receive(route, send.frames, self.now))

    def _reply(self, source: str, reply: Reply) -> None:
        if reply.route[:1] == b"\1":
            name = reply.route[1:].decode()
            if name not in self.stopped:
                self._overhear(source, name, reply.frames)
                self.carry(name, self.nodes[name].receive(b"", reply.frames, self.now))
        else:
            message = self.client.decode(reply.frames)[1]
            self._overhear(source, "client", reply.frames)
            self.replies.append((source, message))

    def _overhear(
        self, source: str, target: str, frames: list[bytes], *, arrives: bool = True
    ) -> None:
        if self.overheard is not None:
            with contextlib.suppress(PeerError):
                self.overheard(source, target, self.client.decode(frames)[1], arrives)


def _key(index: int) -> bytes:
    return b"key-%d" % index
