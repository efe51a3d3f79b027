"""What the clients of a run do: single calls with pauses, on few keys, so that they collide.

The first letter of a key says what is done with it, so that checkers know what to expect:
p is put, replaced, deleted and added, t is also touched, n is a counter, x is put with a short
time to live. Every value is unique and says who wrote it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Any

from dcc import limits
from dcc.client.calls import Operation
from dcc.errors import DccError
from dcc.types import Version
from dcc.units import MILLISECOND, SECOND
from dcc.wire.messages import (
    Clear,
    ClearReply,
    Get,
    GetReply,
    Op,
    Outcome,
    Write,
    WriteMany,
    WriteReply,
)
from simulations import operations
from simulations.clients import ClientProcess
from simulations.crowds import Bursts, Crowd
from simulations.history import End, Entry, History
from simulations.world import World

VERBS: dict[object, str] = {
    Clear: "clear",
    Op.PUT: "put", Op.ADD: "add", Op.REPLACE: "replace", Op.DELETE: "delete",
    Op.TOUCH: "touch", Op.INCR: "incr",
}  # fmt: skip

MIX: dict[str, tuple[tuple[Op | None, int], ...]] = {
    "p": ((None, 45), (Op.PUT, 35), (Op.DELETE, 10), (Op.ADD, 5), (Op.REPLACE, 5)),
    "x": ((None, 50), (Op.PUT, 50)),
    "t": ((None, 45), (Op.PUT, 25), (Op.TOUCH, 25), (Op.DELETE, 5)),
    "n": ((None, 40), (Op.INCR, 60)),
}
"First letter of a key → what is done with it, in percent; None is a get."


IDLE_NS = 4 * SECOND
"Mean pause of an idler."


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadSettings:
    """How much the clients do."""

    clients: int = 3
    keys: int = 24
    pause_ns: int = 100 * MILLISECOND
    "Mean pause of a client between calls."
    timeout_ns: int = 1000 * MILLISECOND
    value_bytes: int = 32
    "Values are 16 bytes up to this, each size equally likely."
    ttl_ms: int = 5_000
    "Longest time to live on x and t keys."
    deletes: int = 0
    "So many percent more of the calls on p keys delete."
    replaces: int = 0
    "So many percent more of them replace what is there."
    clears_permille: int = 0
    "Of all calls: so many make everything absent."
    crowds: int = 0
    "Clients besides, a0, a1, …, each on an event loop with many calls at a time (`crowds`)."
    readers: int = 0
    "Clients besides, r0, r1, …, that do nothing but read."
    reader_pause_ns: int = 30 * MILLISECOND
    idlers: int = 0
    "Clients besides, i0, i1, …, that are silent for seconds between calls."
    rare_permille: int = 0
    "Of all calls: so many are of many keys, of all keys, or about the cluster (`operations`)."
    r: tuple[int, ...] = ()
    "Owners whose word reads want, drawn for each; 0 is quorum, 255 all. None: 1."
    copies: tuple[int, ...] = ()
    "What the number of copies beyond the primary may be set to; none: it stays."
    w: tuple[int, ...] = (1, 1, 2)
    "Drawn for each write; 0 is quorum, 255 all."

    def key_names(self) -> list[bytes]:
        """Return all keys: half of them p, the rest shared."""
        letters = "pxptpnpx"
        return [f"{letters[i % 8]}{i}".encode() for i in range(self.keys)]


class Workload:
    """The clients at work; fills the history."""

    def __init__(self, world: World, settings: WorkloadSettings, nodes: tuple[str, ...]) -> None:
        self.history: History = []
        self._world, self._settings = world, settings
        self._keys = settings.key_names()
        self._written = 0
        self._stopped = False
        for index in range(settings.clients):
            self._hire(f"c{index}", nodes, settings.pause_ns)
        for index in range(settings.readers):
            self._hire(f"r{index}", nodes, settings.reader_pause_ns)
        for index in range(settings.idlers):
            self._hire(f"i{index}", nodes, IDLE_NS)
        for index in range(settings.crowds):
            crowd = Crowd(world, f"a{index}", nodes, settings.timeout_ns)
            world.clients[crowd.name] = crowd
            Bursts(self, crowd, settings.pause_ns)

    def _hire(self, name: str, nodes: tuple[str, ...], pause_ns: int) -> None:
        """Let a client begin to work."""
        world = self._world
        client = ClientProcess(world, name, nodes, self._settings.timeout_ns)
        world.clients[name] = client
        worker = _Worker(self, client, Random(f"{world.seed}/workload/{name}"), pause_ns)
        client.on_death = worker.died
        world.at(world.now_ns + worker.pause_ns(), worker.step, client.life)

    def stop(self) -> None:
        """Begin no further call."""
        self._stopped = True

    @property
    def stopped(self) -> bool:
        """No further call begins."""
        return self._stopped

    def begin(self, client: ClientProcess, operation: Operation, value_ttl_ms: int = 0) -> Entry:
        """Begin a call of a client that is not busy, and return its entry."""
        entry = self.entry(client, operation, value_ttl_ms)
        client.call(operation, lambda outcome, error: self.ended(client, entry, outcome, error))
        return entry

    def entry(self, client: ClientProcess, operation: Operation, value_ttl_ms: int) -> Entry:
        """Return the entry of a call that begins now."""
        assert isinstance(operation, Get | Write | Clear)
        write = operation if isinstance(operation, Write) else None
        entry = Entry(
            client=client.name,
            life=client.life,
            verb=VERBS[write.op] if write else VERBS.get(type(operation), "get"),
            key=b"" if isinstance(operation, Clear) else operation.key,
            value=write.value if write else b"",
            w=write.w if write else 1,
            r=operation.r if isinstance(operation, Get) else 1,
            ttl_ms=value_ttl_ms,
            invoked_ns=self._world.now_ns,
            deadline_ns=self._world.now_ns + self._settings.timeout_ns,
        )
        self.history.append(entry)
        return entry

    def begin_rare(self, client: ClientProcess, operation: operations.Rare) -> None:
        """Begin a call of many keys, of all keys, or about the cluster."""
        now_ns = self._world.now_ns
        deadline_ns = now_ns + self._settings.timeout_ns
        blank = Entry(
            client=client.name, life=client.life, verb="", key=b"", invoked_ns=now_ns,
            deadline_ns=deadline_ns,
        )  # fmt: skip
        begun = operations.entries(operation, blank)
        self.history += begun

        def end(outcome: Any, error: DccError | None) -> None:
            for entry in begun:
                entry.ended_ns = self._world.now_ns
            observer = self._world.observer
            versions_of = observer.versions_of if observer is not None else {}
            operations.ended(begun, outcome, error, client.answers, versions_of)

        client.call(operation, end)

    def ended(
        self, client: ClientProcess, entry: Entry, outcome: Any, error: DccError | None
    ) -> None:
        """Write down how a call has ended."""
        entry.ended_ns = self._world.now_ns
        if error is not None:
            definite = error.definite or entry.verb == "get"
            entry.end = End.FAILED if definite else End.UNKNOWN
            entry.error = type(error).__name__
        elif isinstance(outcome, GetReply):
            entry.end, entry.status = End.OK, outcome.status.name.lower()
            if entry.status == "hit":
                entry.found, entry.version = outcome.value, outcome.version
            said = (entry.key, outcome.status, outcome.version)
            told = [answer for answer in client.answers if answer[2:5] == said]
            entry.answer = told[-1] if told else None
        elif isinstance(outcome, ClearReply):
            entry.end, entry.status = End.OK if outcome.everywhere else End.UNKNOWN, "done"
            entry.version = Version(outcome.stamp + 1, 0, 0)
        else:
            assert isinstance(outcome, WriteReply), outcome
            entry.end = End.UNKNOWN if outcome.outcome is Outcome.MAYBE else End.OK
            entry.status = "done" if outcome.outcome is Outcome.DONE else "not done"
            entry.version, entry.number = outcome.version, outcome.number

    def draw_rare(self, client: ClientProcess, rng: Random) -> operations.Rare | None:
        """Return one of the rare operations now and then, drawn from a stream of their own."""
        settings = self._settings
        if client.name.startswith("r") or rng.random() * 1000 >= settings.rare_permille:
            return None
        w = settings.w[int(rng.random() * len(settings.w))]
        drawn = operations.draw(
            rng, self._keys, slots=limits.SLOT_COUNT, w=w, seen=client.core.seen,
            copies=settings.copies,
        )  # fmt: skip
        if isinstance(drawn, WriteMany) and drawn.op is Op.PUT:
            items = tuple((key, self._value(client, rng)) for key, _ in drawn.items)
            return replace(drawn, items=items)
        return drawn

    def wanted(self, operation: Operation, rng: Random) -> Operation:
        """Return a read with the number of owners that it wants, other operations as they are."""
        among = self._settings.r
        if not among or not isinstance(operation, Get):
            return operation
        return replace(operation, r=among[int(rng.random() * len(among))])

    def draw(self, client: ClientProcess, rng: Random) -> tuple[Operation, int]:
        """Return the next operation of a client, and its time to live."""
        if client.name.startswith("r"):
            return Get(key=self._keys[int(rng.random() * len(self._keys))]), 0
        clears = self._settings.clears_permille
        if clears and rng.random() * 1000 < clears:
            return Clear(seen=client.core.seen), 0
        key = self._keys[int(rng.random() * len(self._keys))]
        letter = key[:1].decode()
        mix = MIX[letter]
        if letter == "p":
            more = self._settings
            mix = (*mix, (Op.DELETE, more.deletes), (Op.REPLACE, more.replaces))
        op = _weighted(rng, mix)
        if op is None:
            return Get(key=key), 0
        w = self._settings.w[int(rng.random() * len(self._settings.w))]
        ttl_ms = 0
        if letter in "xt" and op in (Op.PUT, Op.TOUCH):
            ttl_ms = 500 + int(rng.random() * self._settings.ttl_ms)
        value = b""
        if op in (Op.PUT, Op.ADD, Op.REPLACE):
            value = self._value(client, rng)
        return Write(
            op=op, key=key, value=value, ttl_ms=ttl_ms, w=w, seen=client.core.seen,
            delta=1 if op is Op.INCR else 0,
        ), ttl_ms  # fmt: skip

    def _value(self, client: ClientProcess, rng: Random) -> bytes:
        self._written += 1
        size = 16 + int(rng.random() * max(0, self._settings.value_bytes - 16))
        return b"%s/%d." % (client.name.encode(), self._written) + bytes(max(0, size - 12))


class _Worker:
    """One client's loop: pause, call, pause."""

    def __init__(
        self, workload: Workload, client: ClientProcess, rng: Random, pause_ns: int
    ) -> None:
        self._workload, self._client, self._rng = workload, client, rng
        self._pause_ns = pause_ns
        self._rare = Random(f"{workload._world.seed}/rare/{client.name}")

    def pause_ns(self) -> int:
        return int(self._rng.random() * 2 * self._pause_ns) + 1

    def step(self, life: int) -> None:
        world = self._workload._world
        if life != self._client.life or self._workload.stopped:
            return
        if not self._client.busy:
            rare = self._workload.draw_rare(self._client, self._rare)
            operation, ttl_ms = self._workload.draw(self._client, self._rng)
            if rare is not None:
                self._workload.begin_rare(self._client, rare)
            else:
                operation = self._workload.wanted(operation, self._rare)
                self._workload.begin(self._client, operation, ttl_ms)
        world.at(world.now_ns + self.pause_ns(), self.step, life)

    def died(self) -> None:
        """The client died: whatever was open stays unknown, and its successor goes on."""
        for entry in reversed(self._workload.history):
            if entry.client == self._client.name:
                if entry.end is not End.OPEN:
                    break
                entry.end, entry.ended_ns = End.UNKNOWN, self._workload._world.now_ns
                entry.error = "ClientDied"
        world = self._workload._world
        world.at(world.now_ns + self.pause_ns(), self.step, self._client.life)


def _weighted(rng: Random, choices: tuple[tuple[Op | None, int], ...]) -> Op | None:
    at = rng.random() * sum(weight for _, weight in choices)
    for choice, weight in choices:
        at -= weight
        if at < 0:
            return choice
    return choices[-1][0]
