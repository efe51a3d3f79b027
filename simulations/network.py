"""The network between simulated processes: connections that behave as ZeroMQ's over TCP do.

Request plane: a connection from a DEALER to a ROUTER. Frames stay in order and are never lost
while it lives; a lost segment only makes them late, and so does a link's bandwidth (`wires`): what
is sent behind a large frame waits for it, and a frame that takes longer than the heartbeat's
time-out breaks its connection, since nothing whole arrives meanwhile. A cut (or a stopped process)
first holds the frames back; when it outlasts the heartbeat the connection breaks, what was in
flight is gone, and from then on a send is reported as undeliverable until a reconnect succeeds.

Gossip plane: a SUB connects to a PUB; from then on it receives what is published under its own
topic or under everybody's. Any message may be lost, repeated or overtaken.

    CONNECTING --- handshake ok ---> OPEN --- broken ---> DOWN --- back-off ---> CONNECTING
         \\----------- refused, cut or timed out ----------->/

All randomness comes from one stream per sending process, so that a new draw for one does not
reshuffle the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import Enum
from random import Random
from typing import Any, Protocol

from dcc.types import CLIENTS, TOPIC_ALL, NodeKey, topic_of
from dcc.units import MICROSECOND, MILLISECOND, NEVER, SECOND
from simulations.wires import Wires

GOSSIP = "gossip"
REQUEST = "request"
BOTH_PLANES = (GOSSIP, REQUEST)

HEARTBEAT_NS = 3 * SECOND
"A connection lives so long when nothing passes: TCP_MAXRT of the shell's sockets."
FRAME_NS = 30 * SECOND
"""How long one frame may be on the wire, and a stopped process leave heartbeats unanswered: their
time-out, by which only whole frames are life."""
BACKOFF_MIN_NS = 100 * MILLISECOND
BACKOFF_MAX_NS = 5 * SECOND
RETRANSMIT_NS = 200 * MILLISECOND
"Linux's smallest TCP retransmission time-out."
OPENING_NS = 1 * SECOND
"How long a new connection keeps what is sent before it is open, as the shell does."
PENDING_MAX = 256
"Frames that wait in that time."

Frames = list[bytes]


class Endpoint(Protocol):
    """A process as the network sees it."""

    name: str
    life: int
    "Counts restarts; frames for an earlier life are lost."
    alive: bool
    paused: bool
    key: NodeKey

    def arrived(self, connection: Connection, frames: Frames) -> bool:
        """Take frames that came in on `connection`; False when the queue is full."""

    def stray(self, frames: Frames) -> None:
        """Take frames from a connection that the process knows nothing of."""

    def undeliverable(self, connection: Connection, frames: Frames) -> None:
        """Learn that frames sent on `connection` surely did not leave."""


class Scheduler(Protocol):
    """The world's heap as the network sees it."""

    now_ns: int

    def at(self, time_ns: int, action: Callable[[Any], None], argument: Any) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkSettings:
    """How every link behaves when no fault is active. Probabilities in thousandths."""

    delay_ns: int = 200 * MICROSECOND
    jitter_ns: int = 300 * MICROSECOND
    "Added uniformly."
    spike_permille: int = 0
    "Share of messages that are late by up to `spike_ns`."
    spike_ns: int = 50 * MILLISECOND
    loss_permille: int = 0
    "Gossip: lost. Request plane: late by retransmissions."
    duplicate_permille: int = 0
    "Gossip only: TCP delivers once."
    bytes_per_second: int = 0
    "From each process to each other one; 0 = unbounded."


class State(Enum):
    """Of a connection, as its opening side sees it."""

    CONNECTING = 0
    OPEN = 1
    DOWN = 2
    CLOSED = 3


class Connection:
    """One socket of one life of a process, towards an address; reconnects by itself."""

    def __init__(self, source: Endpoint, address: str, plane: str, to: NodeKey | str) -> None:
        self.source, self.source_life = source, source.life
        self.address, self.plane, self.to = address, plane, to
        self.state = State.CONNECTING
        self.target: Endpoint | None = None
        self.target_life = -1
        self.route = b""
        "The ROUTER's name for this connection; new with every reconnect."
        self.generation = 0
        "Raised by every break: frames of an earlier one are lost."
        self.pending: list[Frames] = []
        self.fresh = True
        "Opened less than `OPENING_NS` ago and never connected: sends wait."
        self.held: list[tuple[bool, Frames]] = []
        self.floor_ns = [0, 0]
        "No frame overtakes an earlier one of its direction: towards source, towards target."
        self.backoff_ns = BACKOFF_MIN_NS


Flight = tuple[Connection, int, bool, Frames]
"Connection, its generation, whether towards the target, frames."


class Network:
    """Every connection, every cut, and the draws that decide what arrives when."""

    def __init__(self, world: Scheduler, seed: str, settings: LinkSettings) -> None:
        self._world, self._seed = world, seed
        self.settings = settings
        self.wires = Wires(settings.bytes_per_second)
        self._streams: dict[str, Random] = {}
        self._bound: dict[tuple[str, str], Endpoint] = {}
        self._connections: list[Connection] = []
        self._routes: dict[bytes, Connection] = {}
        self._route_last = 0
        self._subscribers: dict[str, dict[NodeKey, Connection]] = {}
        self._cuts: dict[tuple[str, str, str], list[int]] = {}
        "(from, to, plane) → [how many faults cut it, since when]."
        self.extra_loss: dict[str, int] = {}
        "Process name → permille, by faults; counts for what it sends and receives."
        self.extra_delay_ns: dict[str, int] = {}
        self.mangle: Callable[[Random, Frames], Frames] | None = None
        self.mangle_permille = 0
        self.lost = 0
        self._joined_ns: dict[tuple[str, str], int] = {}
        "From, to → when a connection or link of the request plane between them last came back."

    # -------------------------------------------------------------- processes

    def bind(self, endpoint: Endpoint, request: str, gossip: str) -> None:
        """Let a process that has just started listen on its two addresses."""
        self._bound[REQUEST, request] = endpoint
        self._bound[GOSSIP, gossip] = endpoint
        self._subscribers[endpoint.name] = {}

    def unbind(self, endpoint: Endpoint) -> None:
        """Let nobody reach a process at its addresses."""
        for where in [where for where, who in self._bound.items() if who is endpoint]:
            del self._bound[where]

    def died(self, endpoint: Endpoint, *, silent: bool) -> None:
        """Take a process off the network: what it had sent still arrives, the rest is lost.

        Args:
            silent: the machine is gone, so that nobody tells its peers; else its kernel does.
        """
        self.unbind(endpoint)
        self._subscribers.pop(endpoint.name, None)
        for one in self._connections:
            if one.source is endpoint:
                one.state = State.CLOSED
                self._forget_route(one)
            elif one.target is endpoint and one.state is State.OPEN:
                wait = self._heartbeat_wait(one) if silent else self._delay_ns(one.source.name)
                self._world.at(self._world.now_ns + wait, self._break, (one, one.generation))
        self._connections = [one for one in self._connections if one.state is not State.CLOSED]

    def paused(self, endpoint: Endpoint) -> None:
        """Note that a process stopped: its I/O threads answer no heartbeat any more."""
        mine = [one for one in self._connections if endpoint in (one.source, one.target)]
        self._watch(mine, FRAME_NS)

    # -------------------------------------------------------------- connections

    def connect(self, source: Endpoint, address: str, plane: str, to: NodeKey | str) -> Connection:
        """Return a new connection; it opens after a handshake, or keeps trying."""
        one = Connection(source, address, plane, to)
        self._connections.append(one)
        self._dial(one)
        self._world.at(self._world.now_ns + OPENING_NS, self._aged, one)
        return one

    def close(self, one: Connection) -> None:
        """Close from the opening side; what is in flight towards the target still arrives."""
        one.state = State.CLOSED
        one.pending.clear()
        self._forget_route(one)
        self._connections.remove(one)

    def _dial(self, one: Connection) -> None:
        one.state = State.CONNECTING
        cut = self._is_cut(one)
        # A refusal comes back at once; a black hole is noticed by the connect time-out.
        wait = 2 * self._delay_ns(one.source.name)
        if cut:
            wait += self._uniform(one.source.name, 2 * SECOND)
        self._world.at(self._world.now_ns + wait, self._established, (one, one.generation))

    def _established(self, what: tuple[Connection, int]) -> None:
        one, generation = what
        if one.state is not State.CONNECTING or one.generation != generation:
            return
        target = self._bound.get((one.plane, one.address))
        if target is None or target.paused or one.source.paused or self._cut_between(one, target):
            self._down(one)
            return
        one.state, one.target, one.target_life = State.OPEN, target, target.life
        one.backoff_ns, one.fresh = BACKOFF_MIN_NS, False
        if one.plane == GOSSIP:
            self._subscribers[target.name][one.source.key] = one
        else:
            self._joined_ns[one.source.name, target.name] = self._world.now_ns
            self._route_last += 1
            one.route = b"\0" + self._route_last.to_bytes(4, "big")
            self._routes[one.route] = one
        pending, one.pending = one.pending, []
        for frames in pending:
            self.send(one, frames)

    def _down(self, one: Connection) -> None:
        one.state = State.DOWN
        one.generation += 1
        one.held.clear()
        wait = one.backoff_ns + self._uniform(one.source.name, 2 * one.backoff_ns)
        one.backoff_ns = min(2 * one.backoff_ns, BACKOFF_MAX_NS)
        self._world.at(self._world.now_ns + wait, self._redial, (one, one.generation))

    def _aged(self, one: Connection) -> None:
        one.fresh = False
        pending, one.pending = one.pending, []
        for frames in pending:
            one.source.undeliverable(one, frames)

    def _redial(self, what: tuple[Connection, int]) -> None:
        one, generation = what
        if one.state is State.DOWN and one.generation == generation:
            self._dial(one)

    def _break(self, what: tuple[Connection, int]) -> None:
        one, generation = what
        if one.state is State.OPEN and one.generation == generation:
            self._forget_route(one)
            self._down(one)

    def _forget_route(self, one: Connection) -> None:
        self._routes.pop(one.route, None)
        if one.plane == GOSSIP and one.target is not None:
            subscribers = self._subscribers.get(one.target.name, {})
            if subscribers.get(one.source.key) is one:
                del subscribers[one.source.key]

    # -------------------------------------------------------------- frames

    def send(self, one: Connection, frames: Frames) -> None:
        """Send from the side that opened the connection."""
        assert frames
        if one.state is State.OPEN:
            self._fly(one, True, frames)
        elif one.fresh and len(one.pending) < PENDING_MAX:
            one.pending.append(frames)
        elif one.state is not State.CLOSED:
            one.source.undeliverable(one, frames)

    def answer(self, route: bytes, frames: Frames) -> None:
        """Send back on the connection that a ROUTER knows as `route`, if it still exists."""
        one = self._routes.get(route)
        if one is not None and one.state is State.OPEN:
            self._fly(one, False, frames)

    def opener(self, route: bytes) -> Endpoint | None:
        """Return who opened the connection that a ROUTER knows as `route`, if it still exists."""
        one = self._routes.get(route)
        return None if one is None else one.source

    def publish(self, endpoint: Endpoint, topic: bytes, payload: bytes) -> None:
        """Send to whoever is connected to this PUB and subscribes `topic`."""
        subscribers = self._subscribers[endpoint.name]
        if topic == TOPIC_ALL:
            chosen = [one for one in subscribers.values() if one.to != CLIENTS]
        elif topic == topic_of(CLIENTS):
            chosen = [one for one in subscribers.values() if one.to == CLIENTS]
        else:
            found = subscribers.get(int.from_bytes(topic, "big"))
            chosen = [] if found is None else [found]
        for one in chosen:
            self._cast(one, endpoint.name, [topic, payload])

    def _cast(self, one: Connection, sender: str, frames: Frames) -> None:
        if self._lossy(sender, one.source.name) or (sender, one.source.name, GOSSIP) in self._cuts:
            self.lost += 1
            return
        if self.mangle is not None and self._chance(sender, self.mangle_permille):
            frames = [frames[0], *self.mangle(self._stream(sender), frames[1:])]
        flight = (one, one.generation, False, frames)
        wired = self._wire_ns(one, False, (sender, one.source.name), frames)
        copies = 1 + self._chance(sender, self.settings.duplicate_permille)
        for _ in range(copies):
            late = wired + self._delay_ns(sender, one.source.name)
            self._world.at(self._world.now_ns + late, self._land, flight)

    def _fly(self, one: Connection, towards_target: bool, frames: Frames) -> None:
        assert one.target is not None
        ends = (one.source.name, one.target.name)
        sender, receiver = ends if towards_target else ends[::-1]
        late = self._delay_ns(sender, receiver)
        for attempt in range(5):
            if not self._lossy(sender, receiver):
                break
            late += RETRANSMIT_NS << attempt
        if self.mangle is not None and self._chance(sender, self.mangle_permille):
            # TCP loses and changes nothing: garbage comes from strangers, on connections of theirs.
            garbage = self.mangle(self._stream(sender), frames)
            to = one.target if towards_target else one.source
            self._world.at(self._world.now_ns + late, to.stray, garbage)
        wired = self._wire_ns(one, towards_target, (sender, receiver), frames)
        self._queue(one, towards_target, frames, late + wired)

    def _wire_ns(
        self, one: Connection, towards_target: bool, ends: tuple[str, str], frames: Frames
    ) -> int:
        """Return how much later all of a message arrives for its size, behind those before it."""
        now, size = self._world.now_ns, sum(map(len, frames))
        start, end = self.wires.occupy(*ends, (one, one.generation, towards_target), size, now)
        if (end - start) * max(map(len, frames)) > FRAME_NS * size and one.plane == REQUEST:
            self._world.at(start + FRAME_NS, self._break, (one, one.generation))
        return end - now

    def _queue(self, one: Connection, towards_target: bool, frames: Frames, late: int) -> None:
        at = max(self._world.now_ns + late, one.floor_ns[towards_target] + 1)
        one.floor_ns[towards_target] = at
        self._world.at(at, self._land, (one, one.generation, towards_target, frames))

    def _land(self, flight: Flight) -> None:
        one, generation, towards_target, frames = flight
        assert one.target is not None
        if one.generation != generation:
            return
        if one.plane == REQUEST:
            pair = (one.source.name, one.target.name)
            sender, receiver = pair if towards_target else pair[::-1]
            if one.held or (sender, receiver, REQUEST) in self._cuts:
                one.held.append((towards_target, frames))
                return
        if towards_target:
            to, life = one.target, one.target_life
        else:
            to, life = one.source, one.source_life
            if one.state is State.CLOSED:
                return
        if not to.alive or to.life != life:
            return
        if not to.arrived(one, frames):
            self.lost += 1

    # -------------------------------------------------------------- cuts

    def cut(self, pairs: Iterable[tuple[str, str]], planes: Iterable[str]) -> None:
        """Stop everything from the first to the second of each pair; cuts add up."""
        pairs = list(pairs)
        for plane in planes:
            for source, target in pairs:
                state = self._cuts.setdefault((source, target, plane), [0, self._world.now_ns])
                state[0] += 1
        self._watch(one for one in self._connections if self._is_cut(one))

    def mend(self, pairs: Iterable[tuple[str, str]], planes: Iterable[str]) -> None:
        """Take back one `cut`; frames that were held arrive now, in their order."""
        pairs = list(pairs)
        for plane in planes:
            for source, target in pairs:
                state = self._cuts[source, target, plane]
                state[0] -= 1
                if state[0] == 0:
                    del self._cuts[source, target, plane]
                    if plane == REQUEST:
                        self._joined_ns[source, target] = self._world.now_ns
        for one in self._connections:
            if one.held and not self._is_cut(one):
                held, one.held = one.held, []
                for towards_target, frames in held:
                    self._queue(one, towards_target, frames, 0)

    def mend_all(self) -> None:
        """Take back every cut and every drawn loss, delay and corruption."""
        for source, target, plane in list(self._cuts):
            self._cuts[source, target, plane][0] = 1
            self.mend([(source, target)], [plane])
        self.extra_loss.clear()
        self.extra_delay_ns.clear()
        self.mangle_permille = 0
        self.wires.mend_all()
        self.settings = replace(
            self.settings, spike_permille=0, loss_permille=0, duplicate_permille=0
        )

    def _watch(self, connections: Iterable[Connection], least_ns: int = HEARTBEAT_NS) -> None:
        for one in list(connections):
            if one.state is State.OPEN:
                wait = least_ns + self._uniform(one.source.name, 1 * SECOND)
                self._world.at(self._world.now_ns + wait, self._heartbeat, (one, one.generation))

    def _heartbeat_wait(self, one: Connection) -> int:
        return HEARTBEAT_NS + self._uniform(one.source.name, 1 * SECOND)

    def _heartbeat(self, what: tuple[Connection, int]) -> None:
        one, _ = what
        if one.source.paused or (one.target is not None and one.target.paused) or self._is_cut(one):
            self._break(what)

    def passes_since(self, source: str, target: str) -> int:
        """Return since when what `source` tells `target` over its own connections gets there.

        NEVER if it does not now: the link is cut, or no connection is open.
        """
        if (source, target, REQUEST) in self._cuts:
            return NEVER
        opened = any(
            one.state is State.OPEN and one.plane == REQUEST and one.source.name == source
            and one.target is not None and one.target.name == target
            for one in self._connections
        )  # fmt: skip
        return self._joined_ns.get((source, target), 0) if opened else NEVER

    def reopening(self) -> bool:
        """Return whether a connection of the request plane to somebody who listens is not open."""
        waiting = (State.CONNECTING, State.DOWN)
        return any(
            one.plane == REQUEST and one.state in waiting and (REQUEST, one.address) in self._bound
            for one in self._connections
            if one.source.alive
        )

    def _is_cut(self, one: Connection) -> bool:
        target = one.target or self._bound.get((one.plane, one.address))
        return target is not None and self._cut_between(one, target)

    def _cut_between(self, one: Connection, target: Endpoint) -> bool:
        # TCP needs both directions: without acknowledgements nothing lives long.
        ends = (one.source.name, target.name)
        return (*ends, one.plane) in self._cuts or (*ends[::-1], one.plane) in self._cuts

    # -------------------------------------------------------------- draws

    def _stream(self, name: str) -> Random:
        stream = self._streams.get(name)
        if stream is None:
            stream = self._streams[name] = Random(f"{self._seed}/network/{name}")
        return stream

    def _uniform(self, name: str, below_ns: int) -> int:
        return int(self._stream(name).random() * below_ns)

    def _chance(self, name: str, permille: int) -> bool:
        return permille > 0 and self._stream(name).random() * 1000 < permille

    def _lossy(self, sender: str, receiver: str) -> bool:
        permille = self.settings.loss_permille
        if self.extra_loss:
            permille += self.extra_loss.get(sender, 0) + self.extra_loss.get(receiver, 0)
        return self._chance(sender, permille)

    def _delay_ns(self, sender: str, receiver: str = "") -> int:
        settings = self.settings
        late = settings.delay_ns + self._uniform(sender, settings.jitter_ns)
        if self._chance(sender, settings.spike_permille):
            late += self._uniform(sender, settings.spike_ns)
        if self.extra_delay_ns:
            late += self._uniform(sender, self.extra_delay_ns.get(sender, 0) + 1)
            late += self._uniform(sender, self.extra_delay_ns.get(receiver, 0) + 1)
        return late
