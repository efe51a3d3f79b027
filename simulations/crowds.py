"""A client on an event loop, in the simulated world: many calls at a time, some cancelled.

The shell is simulated, the dispatcher is the production one. Calls come in bursts, each burst in
one turn of the loop, over one connection to each node. To the checkers every call is one of its
own, whatever message it shared; a call that is cancelled may have happened, unless that was before
its turn was over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

from dcc.client.calls import Call, Operation
from dcc.client.dispatch import Dispatcher
from dcc.effects import Send
from dcc.errors import DccError
from dcc.types import Version
from dcc.units import MILLISECOND, NEVER
from dcc.wire.codec import HEADER_FIELDS, unpack_items
from dcc.wire.messages import Get, Op, Write
from simulations import operations
from simulations.answers import ANSWERING
from simulations.clients import ClientProcess
from simulations.history import End, Entry
from simulations.network import Connection, Frames
from simulations.observer import tag_of
from simulations.world import World

BURST_MOST = 12
IN_FLIGHT_MAX = 25
"So few that bursts on top of each other have to wait."
CANCELLED_PERMILLE = 100
REQUEST_AT = HEADER_FIELDS - 2
"Where the number of the request stands."

Told = Callable[[Any], None]


class Caller:
    """Who waits for one call."""

    def __init__(self, told: Told) -> None:
        self._told: Told | None = told

    def done(self) -> bool:
        """Return whether the call has ended or was cancelled."""
        return self._told is None

    def set_result(self, result: Any, /) -> None:
        """Take the outcome."""
        assert self._told is not None, "an outcome is told once"
        told, self._told = self._told, None
        told(result)

    def cancel(self) -> None:
        """Wait no more."""
        self._told = None


class Crowd(ClientProcess):
    """One client with many calls at a time."""

    dispatcher: Dispatcher

    def __init__(self, world: World, name: str, nodes: tuple[str, ...], timeout_ns: int) -> None:
        super().__init__(world, name, nodes, timeout_ns)

    def _begin_life(self) -> None:
        super()._begin_life()
        self.dispatcher = Dispatcher(self.core, IN_FLIGHT_MAX)

    def make(self, calls: list[tuple[Operation, Caller]], early: list[Caller]) -> None:
        """Make calls in one turn; those of `early` are cancelled before it is over."""
        now = self.clock.read(self.world.now_ns)
        turn = self.dispatcher.begin_turn(now.mono)
        for operation, caller in calls:
            if isinstance(operation, Get) and operation.r == 1 and not operation.direct:
                turn.keys.append(operation.key)
                turn.readers.append(caller)
            elif isinstance(operation, Write) and operation.op is Op.PUT:
                turn.writes.append((operation, caller))
            else:
                turn.operations.append((operation, caller))
        for caller in early:
            caller.cancel()
        spread = self.core.hot.spread
        self._carry_out(self.dispatcher.flush(now))
        self.world.counts["spread reads"] += self.core.hot.spread - spread
        self._await()

    def arrived(self, connection: Connection, frames: Frames) -> bool:
        """Take frames from the network."""
        now = self.clock.read(self.world.now_ns)
        if self.world.observer is not None and tag_of(frames[0]) in ANSWERING:
            self.answers += self.world.observer.answers.taken(self, frames)[1]
        self._carry_out(self.dispatcher.receive(connection.address, frames, now))
        self._await()
        return True

    def _undelivered(self, what: tuple[int, str, Frames]) -> None:
        life, address, frames = what
        if life == self.life:
            now = self.clock.read(self.world.now_ns)
            send = Send(address, frames, request=unpack_items(frames[0])[REQUEST_AT])
            self._carry_out(self.dispatcher.undeliverable(send, now))
            self._await()

    def _await(self) -> None:
        """See that the dispatcher is told of time when it wants to be."""
        self.dispatcher.check()
        due = self.dispatcher.wake_at()
        if due == NEVER:
            return
        at = max(self.clock.when(due), self.world.now_ns)
        if at < self._wake_ns or self._wake_ns <= self.world.now_ns:
            self._wake_ns = at
            self.world.at(at, self._woken, (self.life, at))

    def _woken(self, what: tuple[int, int]) -> None:
        life, at = what
        if life == self.life and at == self._wake_ns:
            self._wake_ns = NEVER
            self._carry_out(self.dispatcher.tick(self.clock.read(self.world.now_ns)))
            self._await()


@dataclass(slots=True)
class Pending:
    """A call of the burst that is being made."""

    operation: Operation
    entry: Entry
    caller: Caller


class Work(Protocol):
    """What a crowd is given to do, and what becomes of it: the workload."""

    @property
    def stopped(self) -> bool: ...
    @property
    def history(self) -> Iterable[Entry]: ...
    def draw(self, client: ClientProcess, rng: Random) -> tuple[Operation, int]: ...
    def entry(self, client: ClientProcess, operation: Operation, value_ttl_ms: int) -> Entry: ...
    def ended(
        self, client: ClientProcess, entry: Entry, result: Any, error: DccError | None
    ) -> None: ...


class Bursts:
    """Lets one crowd work: a pause, a burst of calls, a pause."""

    def __init__(self, workload: Work, crowd: Crowd, pause_ns: int) -> None:
        self._workload, self._crowd, self._pause_ns = workload, crowd, pause_ns
        self._world = crowd.world
        self._rng = Random(f"{self._world.seed}/crowd/{crowd.name}")
        crowd.on_death = self._died
        self._later()

    def _later(self) -> None:
        pause_ns = 1 + int(self._rng.random() * 2 * self._pause_ns)
        self._world.at(self._world.now_ns + pause_ns, self._step, self._crowd.life)

    def _step(self, life: int) -> None:
        if life != self._crowd.life or self._workload.stopped:
            return
        if not self._crowd.dispatcher.in_flight:
            self._crowd.answers.clear()
        burst = [self._begin() for _ in range(1 + int(self._rng.random() * BURST_MOST))]
        early = [one for one in burst if self._rng.random() * 2_000 < CANCELLED_PERMILLE]
        for one in early:
            self._cancelled(one, End.FAILED)
        self._crowd.make([(one.operation, one.caller) for one in burst], [e.caller for e in early])
        for one in burst:
            if self._rng.random() * 1_000 < CANCELLED_PERMILLE:
                after_ns = int(self._rng.random() * 300) * MILLISECOND
                self._world.at(self._world.now_ns + after_ns, self._cancel, one)
        self._later()

    def _begin(self) -> Pending:
        operation, ttl_ms = self._workload.draw(self._crowd, self._rng)
        entry = self._workload.entry(self._crowd, operation, ttl_ms)
        caller = Caller(lambda outcome: self._ended(entry, outcome))
        return Pending(operation, entry, caller)

    def _cancel(self, one: Pending) -> None:
        if not one.caller.done():
            one.caller.cancel()
            self._cancelled(one, End.UNKNOWN)

    def _cancelled(self, one: Pending, end: End) -> None:
        one.entry.end, one.entry.error = end, "Cancelled"
        one.entry.ended_ns = self._world.now_ns

    def _ended(self, entry: Entry, outcome: Any) -> None:
        if isinstance(outcome, Call):
            try:
                self._workload.ended(self._crowd, entry, outcome.outcome(), None)
            except DccError as error:
                self._workload.ended(self._crowd, entry, None, error)
        elif isinstance(outcome, DccError):
            self._workload.ended(self._crowd, entry, None, outcome)
        elif isinstance(outcome, Version):
            entry.ended_ns = self._world.now_ns
            entry.end, entry.status, entry.version = End.OK, "done", outcome
        else:
            entry.ended_ns = self._world.now_ns
            observer = self._world.observer
            versions_of = observer.versions_of if observer is not None else {}
            mine = [one for one in self._crowd.answers if one.at_ns >= entry.invoked_ns]
            hits = {} if outcome is None else {entry.key: outcome}
            operations.read(entry, hits, mine, versions_of)

    def _died(self) -> None:
        for entry in self._workload.history:
            if entry.client == self._crowd.name and entry.end is End.OPEN:
                entry.end, entry.error = End.UNKNOWN, "ClientDied"
                entry.ended_ns = self._world.now_ns
        self._later()
