"""A cluster as a client sees it, made of the real codec and a dict: what a node would answer.

Only for tests of the client: `Peers` answers frames with frames, in memory or behind sockets.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import zmq
from xxhash import xxh3_64_intdigest

from dcc.ring.hashing import slot_of
from dcc.types import NO_VERSION, Member, Settings, Standing, Version, node_key
from dcc.wire.codec import Codec, Header
from dcc.wire.messages import (
    AuditGet,
    AuditReply,
    Clear,
    ClearReply,
    Code,
    ConvergedGet,
    ConvergedReply,
    ErrorReply,
    Get,
    GetMany,
    GetManyReply,
    GetReply,
    Message,
    Op,
    Outcome,
    Scan,
    ScanReply,
    SetReplicas,
    SettingsReply,
    StatsGet,
    StatsReply,
    Status,
    Topology,
    TopologyGet,
    Write,
    WriteMany,
    WriteManyReply,
    WriteReply,
)

Answer = Callable[[Header, Message], list[Message]]


def member(
    name: str, address: str, *, standing: Standing = Standing.ALIVE, boot: int = 7
) -> Member:
    """Return a member called `name` at `address`."""
    return Member(name, address, address, "", 1.0, boot, 1, standing, 0, False)


class Peer:
    """One node: a dict, a clock that stands still, and the codec."""

    def __init__(self, name: str, address: str, *, cluster: str = "dcc", at_ms: int = 0) -> None:
        self.name, self.address, self.at_ms = name, address, at_ms
        self.members: tuple[Member, ...] = (member(name, address),)
        self.replicas = 1
        self.ready = True
        self.epoch = 1
        self.data: dict[bytes, bytes] = {}
        self.stamp = 1
        self.asked: list[tuple[Header, Message]] = []
        self.codec = Codec(cluster, sender=node_key(name), boot=7)
        self.answer: Answer = self.serve
        self.receive: Callable[[list[bytes]], list[list[bytes]]] = self.handle

    def handle(self, frames: list[bytes]) -> list[list[bytes]]:
        """Return the replies to one request."""
        header, message = self.codec.decode(frames)
        self.asked.append((header, message))
        return [self.encode(reply, header.request) for reply in self.answer(header, message)]

    def encode(self, message: Message, request: int) -> list[bytes]:
        """Return a reply's frames."""
        return self.codec.encode(message, epoch=self.epoch, request=request, at=self.at_ms)

    def serve(self, header: Header, message: Message) -> list[Message]:
        """Answer as a node that owns everything."""
        match message:
            case TopologyGet():
                settings = Settings(self.replicas, 0, 0)
                return [Topology(settings=settings, members=self.members, ready=self.ready)]
            case Get():
                return [self._get(message.key)]
            case GetMany():
                hits = [key for key in message.keys if key in self.data]
                statuses = bytes(Status.HIT if key in hits else Status.MISS for key in message.keys)
                values = tuple(self.data[key] for key in hits)
                stamps = (self.stamp,) * len(hits)
                reply = GetManyReply(
                    first=0, statuses=statuses, values=values, last=True, stamps=stamps
                )
                return [reply]
            case Write():
                return [self._write(message)]
            case WriteMany():
                first = self.stamp + 1
                outcomes = bytes(self._one_of_many(message.op, *item) for item in message.items)
                stamps = tuple(range(first, self.stamp + 1)) if message.versions else ()
                return [WriteManyReply(outcomes=outcomes, stamp=self.stamp, stamps=stamps)]
            case Scan():
                wanted = set(message.slots)
                held = [key for key in sorted(self.data) if slot_of(key) in wanted]
                keys = [key for key in held if key.startswith(message.prefix)]
                return [ScanReply(done=len(message.slots), keys=tuple(keys), unsure=())]
            case Clear():
                self.data.clear()
                return [ClearReply(stamp=self.stamp, everywhere=True)]
            case SetReplicas():
                self.replicas = message.replicas
                settings = Settings(self.replicas, 1, 0)
                return [SettingsReply(settings=settings, everywhere=True)]
            case ConvergedGet():
                return [ConvergedReply(converged=True, under_replicated=0, reasons=())]
            case AuditGet():
                return [self._audit(message.slots)]
            case StatsGet():
                return [StatsReply(stats=b'{"hits": 3, "misses": 1, "items": "many"}')]
        return [ErrorReply(code=Code.MALFORMED, text="no")]

    def _get(self, key: bytes) -> GetReply:
        if key in self.data:
            return GetReply(
                status=Status.HIT, version=self._version(), value=self.data[key], expires_at_ms=0
            )
        return GetReply(status=Status.MISS, version=NO_VERSION, value=b"", expires_at_ms=0)

    def _write(self, write: Write) -> WriteReply:
        present = write.key in self.data
        allowed = {Op.ADD: not present, Op.REPLACE: present, Op.DELETE: present, Op.TOUCH: present}
        named = write.expected in (NO_VERSION, self._version())
        if not allowed.get(write.op, True) or not named or (write.if_present and not present):
            return WriteReply(outcome=Outcome.NOT_DONE, version=NO_VERSION)
        self.stamp = max(self.stamp, write.seen) + 1
        number = 0
        if write.op is Op.DELETE:
            del self.data[write.key]
        elif write.op is Op.INCR:
            number = int(self.data.get(write.key, b"%d" % write.initial)) + write.delta
            self.data[write.key] = b"%d" % number
        elif write.op is not Op.TOUCH:
            self.data[write.key] = write.value
        return WriteReply(outcome=Outcome.DONE, version=self._version(), number=number)

    def _version(self) -> Version:
        """Return the version that all values have, whenever they were written."""
        return Version(self.stamp, node_key(self.name), 7)

    def _audit(self, slots: tuple[int, ...]) -> AuditReply:
        held = {slot: [k for k in sorted(self.data) if slot_of(k) == slot] for slot in slots}
        # Equal for equal data, which is all that a comparison asks for.
        content = tuple(
            xxh3_64_intdigest(repr([(key, self.data[key]) for key in keys]).encode()) if keys else 0
            for keys in held.values()
        )
        return AuditReply(
            content=content,
            seen=(0,) * len(slots),
            items=tuple(map(len, held.values())),
            ghosts=(0,) * len(slots),
            forgotten=(0,) * len(slots),
        )

    def _one_of_many(self, op: Op, key: bytes, value: bytes) -> int:
        self.stamp += 1
        if op is Op.PUT:
            self.data[key] = value
            return Outcome.DONE
        return Outcome.NOT_DONE if self.data.pop(key, None) is None else Outcome.DONE


class PeerThread:
    """A `Peer` behind a ROUTER on a loopback port, served by a thread."""

    def __init__(self, name: str = "a", *, cluster: str = "dcc") -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._router.setsockopt(zmq.LINGER, 0)
        port = self._router.bind_to_random_port("tcp://127.0.0.1")
        self.peer = Peer(name, f"127.0.0.1:{port}", cluster=cluster)
        self.address = self.peer.address
        self.withhold = 0
        "So many replies are kept until the request after them, whose reply they precede."
        self._kept: list[list[bytes]] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        try:
            while True:
                route, *frames = self._router.recv_multipart()
                kept, self._kept = self._kept, []
                replies = [[route, *reply] for reply in self.peer.receive(frames)]
                if self.withhold:
                    self.withhold -= 1
                    self._kept, replies = kept + replies, []
                for reply in kept * (not self._kept) + replies:
                    self._router.send_multipart(reply)
        except zmq.ContextTerminated:
            self._router.close(0)

    def __enter__(self) -> PeerThread:
        return self

    def __exit__(self, *_: object) -> None:
        self._context.term()
        self._thread.join(10)
