"""A client process of the simulated world: a shell around the production client core.

It does one call at a time, as one thread of an application does. Its sockets keep what is sent
while a connection is being made, and report what surely did not leave.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any

from dcc.client.calls import Call, Operation
from dcc.client.core import ClientCore
from dcc.effects import Effect, Send
from dcc.errors import DccError
from dcc.types import NodeKey
from dcc.units import MILLISECOND, NEVER
from simulations.network import REQUEST, Connection, Frames

if TYPE_CHECKING:
    from simulations.world import World

Done = Callable[[Any, DccError | None], None]
"Told how a call ended: the outcome, or the error."


class ClientProcess:
    """One client, one call at a time; may die and be replaced."""

    def __init__(self, world: World, name: str, nodes: tuple[str, ...], timeout_ns: int) -> None:
        self.world, self.name = world, name
        self.clock = world.client_clock(name)
        self.life = 0
        self.alive = True
        self.paused = False
        self.key: NodeKey = 0
        self.on_death: Callable[[], None] | None = None
        self._nodes, self._timeout_ns = nodes, timeout_ns
        self._call: Call | None = None
        self._done: Done | None = None
        self._wake_ns = NEVER
        self._to: dict[str, Connection] = {}
        self._begin_life()

    def _begin_life(self) -> None:
        self.life += 1
        rng = Random(f"{self.world.seed}/client/{self.name}/{self.life}")
        boot = (self.clock.read(self.world.now_ns).wall // MILLISECOND) << 16
        self.key = int(rng.random() * (1 << 53)) | 1
        self.core = ClientCore(
            self._nodes,
            cluster="dcc",
            client_id=self.key,
            boot=boot | int(rng.random() * 65536),
            rng=rng,
            timeout_ns=self._timeout_ns,
        )

    def restart(self) -> None:
        """Die in the middle of whatever is under way; a new client takes over the name."""
        self.world.network.died(self, silent=False)
        self._call = self._done = None
        self._wake_ns = NEVER
        self._to.clear()
        self._begin_life()
        if self.on_death is not None:
            self.on_death()

    # -------------------------------------------------------------- calls

    @property
    def busy(self) -> bool:
        """A call is under way."""
        return self._call is not None

    def call(self, operation: Operation, done: Done) -> None:
        """Begin a call; `done` is told when it has ended."""
        assert self._call is None, "one call at a time"
        now = self.clock.read(self.world.now_ns)
        self._call, self._done = self.core.begin(operation, now), done
        self._carry_out(self._call.start(now))
        self._after_input()

    def arrived(self, connection: Connection, frames: Frames) -> bool:
        """Take frames from the network, also when nobody waits for them any more."""
        now = self.clock.read(self.world.now_ns)
        if self._call is None:
            self._carry_out(self.core.receive(connection.address, frames, now))
        else:
            self._carry_out(self._call.receive(connection.address, frames, now))
            self._after_input()
        return True

    def stray(self, frames: Frames) -> None:
        """Drop them: a client listens to nobody but those it connected to."""

    def undeliverable(self, connection: Connection, frames: Frames) -> None:
        """Learn, one turn later, that a send did not leave."""
        what = (self.life, connection.address, frames)
        self.world.at(self.world.now_ns, self._undelivered, what)

    def _undelivered(self, what: tuple[int, str, Frames]) -> None:
        life, address, frames = what
        if life == self.life and self._call is not None:
            now = self.clock.read(self.world.now_ns)
            self._carry_out(self._call.undeliverable(address, now, frames))
            self._after_input()

    def _after_input(self) -> None:
        call = self._call
        assert call is not None
        if call.done:
            self._finish(call)
            return
        at = max(self.clock.when(call.wake_at()), self.world.now_ns)
        if at < self._wake_ns or self._wake_ns <= self.world.now_ns:
            self._wake_ns = at
            self.world.at(at, self._woken, (self.life, at))

    def _woken(self, what: tuple[int, int]) -> None:
        life, at = what
        if life != self.life or at != self._wake_ns:
            return
        self._wake_ns = NEVER
        if self._call is not None:
            now = self.clock.read(self.world.now_ns)
            if self._call.wake_at() <= now.mono:
                self._carry_out(self._call.tick(now))
            self._after_input()

    def _finish(self, call: Call) -> None:
        done, self._call, self._done = self._done, None, None
        assert done is not None
        try:
            outcome = call.outcome()
        except DccError as error:
            done(None, error)
        else:
            done(outcome, None)

    def _carry_out(self, effects: list[Effect]) -> None:
        network = self.world.network
        for effect in effects:
            if isinstance(effect, Send):
                assert isinstance(effect.to, str)
                connection = self._to.get(effect.to)
                if connection is None:
                    connection = network.connect(self, effect.to, REQUEST, effect.to)
                    self._to[effect.to] = connection
                network.send(connection, effect.frames)
