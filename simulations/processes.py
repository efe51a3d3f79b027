"""The processes of the simulated world: a node and a client, each a shell around a real core.

A shell does here what the loop over sockets does in production, and nothing else: hand bytes and
the process's own clocks to the core, carry out the effects, wake the core when it asked. Stopped
or slow processes let their input queue up, by connection, within a bound (`inbox`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Protocol

from dcc.effects import Connect, Disconnect, Effect, Notify, Publish, Reply, Send
from dcc.node.contract import Machine
from dcc.types import Boot, Identity, NodeKey, Now, Role, node_key
from dcc.units import MILLISECOND, NEVER
from simulations.clocks import ProcessClock
from simulations.inbox import Inbox
from simulations.network import GOSSIP, REQUEST, Connection, Frames, Network

TURN_MAX = 64
"Messages that the loop drains before it lets the core do its timed work."
UNDELIVERABLE = "undeliverable"
STRAY_ROUTE = b"\0\xff\xff\xff\xff"
SPIN_MAX = 1_000
"Ticks at one instant before the world calls it a core that never rests."


class Core(Machine, Protocol):
    """A core as the world drives it."""

    def check(self) -> None: ...


class Surroundings(Protocol):
    """What a process needs of the world, and what it tells it; see `World` for each."""

    seed: str
    keyed: bool
    now_ns: int
    network: Network
    nodes: dict[str, NodeProcess]

    def living(self) -> list[NodeProcess]: ...
    def at(self, time_ns: int, action: Callable[[Any], None], argument: Any) -> None: ...
    def drops(self, node: NodeProcess, to: object, frames: Frames) -> bool: ...
    def sent(self, node: NodeProcess, to: object, frames: Frames) -> None: ...
    def answering(self, node: NodeProcess, route: bytes, frames: Frames) -> None: ...
    def digest_input(self, index: int, kind: str, frames: Frames) -> None: ...
    def before_input(self, node: NodeProcess, route: bytes, frames: Frames) -> None: ...
    def after_input(self, node: NodeProcess) -> None: ...
    def notified(self, node: NodeProcess, note: Notify) -> None: ...
    def checked(self, node: NodeProcess) -> None: ...
    def departed(self, node: NodeProcess, *, in_time: bool) -> None: ...


CoreMaker = Callable[["NodeProcess", Boot, Random, Now], Core]
"Builds the core of one life of a node."

Input = tuple[str, Any, Frames]
"A plane or UNDELIVERABLE, route or destination, frames."


class NodeProcess:
    """A node's name and addresses, and the lives of the process behind them."""

    def __init__(
        self, world: Surroundings, index: int, name: str, clock: ProcessClock, called: str = ""
    ) -> None:
        self.world, self.index, self.name, self.clock = world, index, name, clock
        self.called = called or name
        "What the node on this machine is configured to be called."
        self.key: NodeKey = node_key(self.called)
        self.outside = False
        "No part of the cluster: nothing of it is observed (`company`)."
        self.reachable = True
        "Whether what it advertises leads to it."
        self.request = f"10.0.{index >> 8}.{index & 255}:6740"
        self.gossip = f"10.0.{index >> 8}.{index & 255}:6741"
        self.life = 0
        self.alive = False
        self.paused = False
        self.paused_ns = NEVER
        "World time since when it stands still; NEVER if it does not."
        self.seedless = False
        "Whether it was started without seeds this time."
        self.started_ns = 0
        self.slow_ns = 0
        "What one message costs; 0 = nothing worth simulating."
        self.boot: Boot = 0
        self._core: Core | None = None
        self._to: dict[NodeKey | str, Connection] = {}
        self._bulk: dict[NodeKey, Connection] = {}
        "The second connection to a member, opened when first needed."
        self._subscribed: dict[NodeKey, tuple[tuple[str, str], Connection]] = {}
        self._inbox: Inbox[Input] = Inbox()
        self._turn_due = False
        self._wake_ns = NEVER
        self._leave_until_ns = NEVER
        self._spins = (0, 0)

    @property
    def core(self) -> Core:
        """The core of the present life; only of a living process."""
        assert self._core is not None, "a dead process has no core"
        return self._core

    def now(self) -> Now:
        """Read this machine's clocks."""
        return self.clock.read(self.world.now_ns)

    # -------------------------------------------------------------- life

    def boot_up(self, make: CoreMaker) -> None:
        """Start a new life of the process, with a new boot and nothing remembered."""
        assert not self.alive
        world = self.world
        self.life += 1
        self.alive, self.started_ns = True, world.now_ns
        rng = Random(f"{world.seed}/node/{self.name}/{self.life}")
        now = self.now()
        self.boot = (now.wall // MILLISECOND) << 16 | int(rng.random() * 65536)
        world.network.bind(self, self.request, self.gossip)
        if not self.reachable:
            world.network.unbind(self)
        self._core = make(self, self.boot, rng, now)
        self._wake_ns = self._leave_until_ns = NEVER
        self.carry_out(self._core.start(now))
        self._after_input(now)

    def kill(self, *, silent: bool) -> None:
        """End the process at once; its memory is gone."""
        assert self.alive
        self.alive, self.paused, self.paused_ns = False, False, NEVER
        self._core = None
        self._to.clear()
        self._bulk.clear()
        self._subscribed.clear()
        self._inbox.clear()
        self.world.network.died(self, silent=silent)

    def pause(self) -> None:
        """Stop the process (SIGSTOP): what arrives waits."""
        self.paused, self.paused_ns = True, self.world.now_ns
        self.world.network.paused(self)

    def resume(self) -> None:
        """Let it go on (SIGCONT): everything that waited arrives at once, timers fire behind."""
        self.paused, self.paused_ns = False, NEVER
        self._turn_soon(0)

    def leave(self, timeout_ns: int) -> None:
        """Ask for a graceful leave; the world ends the process when the core has left."""
        now = self.now()
        if self._leave_until_ns == NEVER:
            self._leave_until_ns = self.world.now_ns + timeout_ns
        self.carry_out(self.core.leave(now))
        self._after_input(now)

    # -------------------------------------------------------------- input

    def arrived(self, connection: Connection, frames: Frames) -> bool:
        """Take frames from the network; False when the queue is full."""
        # Whatever comes back on an own DEALER has no route to answer to.
        inbound = connection.plane == REQUEST and connection.target is self
        route = connection.route if inbound else b""
        return self._accept(connection, (connection.plane, route, frames))

    def undeliverable(self, connection: Connection, frames: Frames) -> None:
        """Learn, one turn later, that a send did not leave."""
        what = (self.life, connection.to, frames)
        self.world.at(self.world.now_ns, self._undelivered, what)

    def _undelivered(self, what: tuple[int, NodeKey | str, Frames]) -> None:
        life, to, frames = what
        if self.alive and self.life == life:
            self._accept(UNDELIVERABLE, (UNDELIVERABLE, to, frames))

    def _accept(self, source: object, one: Input) -> bool:
        if not self.paused and not self.slow_ns and not self._inbox:
            now = self.now()
            self._take(one, now)
            self._after_input(now)
            return True
        if not self._inbox.put(source, one):
            return False
        if not self.paused:
            self._turn_soon(self.slow_ns)
        return True

    def _turn_soon(self, wait_ns: int) -> None:
        if not self._turn_due:
            self._turn_due = True
            self.world.at(self.world.now_ns + wait_ns, self._turn, self.life)

    def _turn(self, life: int) -> None:
        self._turn_due = False
        if life != self.life or not self.alive or self.paused:
            return
        now = self.now()
        for _ in range(1 if self.slow_ns else TURN_MAX):
            if self._inbox:
                self._take(self._inbox.take(), now)
        if self._inbox:
            self._turn_soon(self.slow_ns)
        self._after_input(now)

    def _take(self, one: Input, now: Now) -> None:
        kind, where, frames = one
        core = self.core
        self.world.digest_input(self.index, kind, frames)
        if kind == GOSSIP:
            effects = core.receive_gossip(frames, now)
        elif kind == REQUEST:
            self.world.before_input(self, where, frames)
            if len(frames) == 1:
                reply = core.serve(where, frames[0], now)
                if reply is not None:
                    if reply:  # Else it came too late.
                        self._answer(where, [reply])
                    return
            effects = core.receive(where, frames, now, _who_asks(self.world, where))
        else:
            effects = core.undeliverable(where, frames, now)
        self.carry_out(effects)
        if kind == REQUEST:
            self.world.after_input(self)

    def stray(self, frames: Frames) -> None:
        """Take frames from a connection that nobody knows, or has any more."""
        if self.alive:
            self._accept(STRAY_ROUTE, (REQUEST, STRAY_ROUTE, frames))

    # -------------------------------------------------------------- timers and effects

    def _after_input(self, now: Now) -> None:
        """End a turn as the loop does: tick when it is due, then sleep until the next wake-up."""
        wake = self.core.wake_at()
        if wake <= now.mono:
            self.carry_out(self.core.tick(now))
            wake = self.core.wake_at()
            self._count_spin()
        if self.core.left:
            self.world.departed(self, in_time=self.world.now_ns < self._leave_until_ns)
            return
        self.world.checked(self)
        if wake == NEVER:
            return
        at = max(self.clock.when(wake), self.world.now_ns)
        if at < self._wake_ns or self._wake_ns <= self.world.now_ns:
            self._wake_ns = at
            self.world.at(at, self._woken, (self.life, at))

    def _count_spin(self) -> None:
        at, count = self._spins
        self._spins = (at, count + 1) if at == self.world.now_ns else (self.world.now_ns, 1)
        assert self._spins[1] < SPIN_MAX, f"{self.name} ticks for ever at one instant"

    def _woken(self, what: tuple[int, int]) -> None:
        life, at = what
        if life != self.life or not self.alive or at != self._wake_ns:
            return
        self._wake_ns = NEVER
        if self.paused:
            return
        self._after_input(self.now())

    def carry_out(self, effects: Sequence[Effect]) -> None:
        network = self.world.network
        for effect in effects:
            if isinstance(effect, Send):
                self._send(effect)
            elif isinstance(effect, Publish):
                network.publish(self, effect.topic, effect.payload)
            elif isinstance(effect, Reply):
                self._answer(effect.route, effect.frames)
            elif isinstance(effect, Connect):
                self._connect(effect)
            elif isinstance(effect, Disconnect):
                self._disconnect(effect.key)
            else:
                assert isinstance(effect, Notify), f"{effect} must not leave a core"
                self.world.notified(self, effect)

    def _send(self, effect: Send) -> None:
        to, frames = effect.to, effect.frames
        if self.world.drops(self, to, frames):
            return
        self.world.sent(self, to, frames)
        connection = self._to.get(to)
        if connection is None:
            if isinstance(to, int):
                self.world.at(self.world.now_ns, self._undelivered, (self.life, to, frames))
                return
            connection = self.world.network.connect(self, to, REQUEST, to)
            self._to[to] = connection
        if effect.bulk and isinstance(to, int):
            connection = self._bulk_to(to, connection.address)
        self.world.network.send(connection, frames)

    def _answer(self, route: bytes, frames: Frames) -> None:
        self.world.answering(self, route, frames)
        self.world.network.answer(route, frames)

    def _bulk_to(self, to: NodeKey, address: str) -> Connection:
        connection = self._bulk.get(to)
        if connection is None:
            connection = self._bulk[to] = self.world.network.connect(self, address, REQUEST, to)
        return connection

    def _connect(self, to: Connect) -> None:
        addresses = (to.request, to.gossip)
        known = self._subscribed.get(to.key)
        if known is not None and known[0] == addresses:
            return
        self._disconnect(to.key)
        network = self.world.network
        self._to[to.key] = network.connect(self, to.request, REQUEST, to.key)
        self._subscribed[to.key] = (addresses, network.connect(self, to.gossip, GOSSIP, to.key))

    def _disconnect(self, key: NodeKey | str) -> None:
        bulk = self._bulk.pop(key, None) if isinstance(key, int) else None
        for opened in (self._to.pop(key, None), bulk):
            if opened is not None:
                self.world.network.close(opened)
        if isinstance(key, str):
            return
        known = self._subscribed.pop(key, None)
        if known is not None:
            self.world.network.close(known[1])


def _who_asks(world: Surroundings, route: bytes) -> Identity | None:
    """Return whose key a request came with: a node's, or that of a client.

    Clients of the workload may do everything; whom nobody knows has a client's key, too.
    """
    if not world.keyed or not route:
        return None
    sender = world.network.opener(route)
    if isinstance(sender, NodeProcess):
        return Identity(Role.NODE, sender.called, sender.key)
    return Identity(Role.CLIENT if sender is None else Role.ADMIN, "client")
