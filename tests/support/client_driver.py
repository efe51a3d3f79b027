"""Drives calls by hand: peers in memory, time that jumps, and a record of all that was sent."""

from __future__ import annotations

import random
from typing import Any, Generic, NamedTuple, TypeVar

from dcc.client.calls import Call, Operation
from dcc.client.core import ClientCore
from dcc.effects import Effect, Notify, Send
from dcc.ring.hashing import slot_of
from dcc.types import Now, Standing
from dcc.units import MILLISECOND, NEVER, SECOND
from dcc.wire.codec import Header
from dcc.wire.messages import Message, TopologyGet
from tests.support.client_peers import Peer, member

TRIP_NS = 1 * MILLISECOND
START_MS = 1_000_000
"Cluster time when the bench begins."


class OnceLock:
    """Stands in for the shell's lock: taking it while it is held would wait for ever."""

    held = False

    def __enter__(self) -> None:
        assert not self.held, "a lock that is not reentrant is taken twice"
        self.held = True

    def __exit__(self, *_: object) -> None:
        self.held = False


M = TypeVar("M", bound=Message)


class Sent(NamedTuple, Generic[M]):
    """One message that left the client."""

    at: int
    address: str
    header: Header
    message: M


class Bench:
    """A client core, its peers, and links that can be cut (`down`) or swallow (`mute`)."""

    def __init__(self, names: str = "abc", *, replicas: int = 1, timeout_ns: int = SECOND) -> None:
        self.mono = 5 * SECOND
        self.peers = {f"{name}:1": Peer(name, f"{name}:1") for name in names}
        self.standings = dict.fromkeys(self.peers, Standing.ALIVE)
        self.replicas = replicas
        self.filling: set[str] = set()
        self.publish()
        self.down: set[str] = set()
        self.mute: set[str] = set()
        self.delay_ns: dict[str, int] = {}
        self.sent: list[Sent[Message]] = []
        self.events: list[Notify] = []
        self.inbox: list[tuple[int, int, str, list[bytes]]] = []
        self.core = ClientCore(
            sorted(self.peers),
            client_id=99,
            boot=1,
            rng=random.Random(1),
            timeout_ns=timeout_ns,
            lock=OnceLock(),
        )

    def publish(self, epoch: int = 1) -> None:
        """Let every peer tell the present standings under `epoch`."""
        members = tuple(
            member(peer.name, address, standing=self.standings[address])._replace(
                filling=address in self.filling
            )
            for address, peer in self.peers.items()
        )
        for peer in self.peers.values():
            peer.members = members
            peer.epoch, peer.replicas = epoch, self.replicas

    @property
    def now(self) -> Now:
        """Both clocks; the machine's own is ten seconds off."""
        return Now(self.mono, self.mono + 10 * SECOND)

    def order(self, key: bytes) -> list[str]:
        """Return the addresses of the key's owners, the primary first; needs a topology."""
        assert self.core.view is not None
        return [target.address for target in self.core.view.targets(slot_of(key))]

    def learn(self) -> Bench:
        """Let the core learn the topology, and forget what that took."""
        self.do(TopologyGet())
        self.deliver_late()
        self.sent.clear()
        self.events.clear()
        return self

    def do(self, operation: Operation, *, timeout_ns: int | None = None) -> Any:
        """Run a call to its end in virtual time; return its outcome or raise its error."""
        return self.run(self.core.begin(operation, self.now, timeout_ns=timeout_ns))

    def run(self, call: Call) -> Any:
        """Start `call` and drive it to its end."""
        self.perform(call, call.start(self.now))
        while not call.done:
            self.step(call)
        return call.outcome()

    def step(self, call: Call) -> None:
        """Let the next thing happen."""
        arrival = min(self.inbox)[0] if self.inbox else NEVER
        self.mono = max(self.mono, min(arrival, call.wake_at()))
        if arrival <= self.mono:
            self.inbox.sort()
            _, _, address, frames = self.inbox.pop(0)
            self.perform(call, call.receive(address, frames, self.now))
        if call.wake_at() <= self.mono:
            self.perform(call, call.tick(self.now))
        self.core.check()

    def deliver_late(self) -> None:
        """Let everything that is still on its way arrive while no call waits."""
        while self.inbox:
            self.inbox.sort()
            at, _, address, frames = self.inbox.pop(0)
            self.mono = max(self.mono, at)
            self.events += [
                effect
                for effect in self.core.receive(address, frames, self.now)
                if isinstance(effect, Notify)
            ]

    def wait(self, ns: int) -> None:
        """Let time pass while nothing is called; what was on its way arrives."""
        end = self.mono + ns
        self.deliver_late()
        self.mono = max(self.mono, end)

    def perform(self, call: Call, effects: list[Effect]) -> None:
        """Carry out effects: replies come one round trip later."""
        for effect in effects:
            if isinstance(effect, Notify):
                self.events.append(effect)
                continue
            assert isinstance(effect, Send)
            address = str(effect.to)
            if address in self.down:
                self.perform(call, call.undeliverable(address, self.now, effect.frames))
                continue
            self.arrive(address, effect)

    def arrive(self, address: str, effect: Send) -> None:
        """Let a message reach its peer, and the answers be on their way."""
        peer = self.peers[address]
        self.sent.append(Sent(self.mono, address, *peer.codec.decode(effect.frames)))
        if address in self.mute:
            return
        peer.at_ms = START_MS + self.mono // MILLISECOND
        replies = peer.receive(effect.frames)
        at = self.mono + self.delay_ns.get(address, TRIP_NS)
        for frames in replies:
            self.inbox.append((at, len(self.inbox), address, frames))

    def asked(self, kind: type[M]) -> list[Sent[M]]:
        """Return what was sent of one kind."""
        return [
            Sent(at, address, header, message)
            for at, address, header, message in self.sent
            if isinstance(message, kind)
        ]
