"""A stage: a cluster in a world, watched, for whoever directs what happens on it.

A run plays a drawn scenario on it; a test of one promise directs it step by step:

    with Stage(Scenario(seed=1, nodes=3)) as stage:
        stage.warm_up()
        stage.put("c0", b"k", b"v")
        stage.play(5 * SECOND)
        assert stage.values(b"k") == {"n0": b"v", "n1": b"v"}
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from random import Random
from typing import Any

from dcc.client.calls import Operation
from dcc.errors import DccError
from dcc.node.core import NodeCore
from dcc.ring.hashing import slot_of
from dcc.types import Boot, Kind, Now, Record
from dcc.units import MILLISECOND, SECOND
from dcc.wire.messages import Get, Op, Write
from simulations.budgets import squeezed
from simulations.clients import ClientProcess
from simulations.few_slots import few_slots
from simulations.observer import Observer, core_of, held_record
from simulations.processes import Core, NodeProcess
from simulations.scenario import SEEDS_LISTED, WARM_UP_NS, Scenario
from simulations.world import World

MakeCore = Callable[..., Core]


class Stage:
    """The world of a scenario, its nodes and an observer; a context, for the budgets it sets."""

    def __init__(self, scenario: Scenario, make: MakeCore = NodeCore) -> None:
        self.scenario = scenario
        self.world = World(
            scenario.seed, self._make_core, links=scenario.links, clocks=scenario.clocks,
            wrong_clocks=dict(scenario.wrong_clocks), check_every=scenario.check_every,
            keyed=scenario.keyed,
        )  # fmt: skip
        self.world.copies_min = scenario.replicas
        self.observer = self.world.observer = Observer("dcc")
        self._make = make
        self._budgets = ExitStack()
        machines = [self.world.add_node(name) for name in scenario.names()]
        self.seeds = tuple(machine.request for machine in machines[:SEEDS_LISTED])

    def __enter__(self) -> Stage:
        self._budgets.enter_context(few_slots(self.scenario.slots))
        self._budgets.enter_context(squeezed(self.scenario.budgets))
        return self

    def __exit__(self, *_error: object) -> None:
        self._budgets.close()

    def _make_core(self, node: NodeProcess, boot: Boot, rng: Random, now: Now) -> Core:
        # Whoever adds a node names one that is there and stays; the first ones may all be gone.
        others = [one for one in self.world.living() if one is not node]
        there = [one.request for one in others if not core_of(one).lifecycle.leaving][:1]
        seeds = () if node.seedless else tuple(dict.fromkeys((*self.seeds, *there)))
        config = self.scenario.node_config(node.called, node.request, node.gossip, seeds)
        core = self._make(config, boot=boot, rng=rng, now=now)
        if self.scenario.keyed:
            assert isinstance(core, NodeCore), "others know of no keys"
            core.access.nodes = frozenset(one.key for one in self.world.nodes.values())
        if not node.outside:
            self.observer.attach(node, core)
        return core

    # -------------------------------------------------------------- time

    def warm_up(self) -> None:
        """Start the nodes within a second, in any order, and let them get ready."""
        rng = Random(f"{self.scenario.seed}/start")
        for name in self.scenario.names():
            self.world.at(int(rng.random() * SECOND), self.world.start, name)
        self.world.run(WARM_UP_NS)

    def play(self, for_ns: int) -> None:
        """Let this much time pass; ValueError if it is negative, since time runs forwards."""
        if for_ns < 0:
            raise ValueError(f"for_ns: time runs forwards, got {for_ns}")
        self.world.run(self.world.now_ns + for_ns)

    # -------------------------------------------------------------- calls

    def client(self, name: str) -> ClientProcess:
        """Return the client called `name`; a new one the first time."""
        client = self.world.clients.get(name)
        if client is None:
            timeout_ns = self.scenario.workload.timeout_ns
            client = ClientProcess(self.world, name, self.seeds, timeout_ns)
            self.world.clients[name] = client
        assert isinstance(client, ClientProcess)
        return client

    def call(self, client: str, operation: Operation) -> Any:
        """Let a client call, and time pass until its end; return the outcome or raise its error."""
        ends: list[tuple[Any, DccError | None]] = []
        self.client(client).call(operation, lambda *end: ends.append(end))
        while not ends:
            self.play(MILLISECOND)
        outcome, error = ends[0]
        if error is not None:
            raise error
        return outcome

    def put(self, client: str, key: bytes, value: bytes, *, ttl_ms: int = 0, w: int = 1) -> Any:
        """Return the reply to a put."""
        seen = self.client(client).core.seen
        return self.call(
            client, Write(op=Op.PUT, key=key, value=value, ttl_ms=ttl_ms, w=w, seen=seen)
        )

    def delete(self, client: str, key: bytes, *, w: int = 1) -> Any:
        """Return the reply to a delete."""
        seen = self.client(client).core.seen
        return self.call(client, Write(op=Op.DELETE, key=key, w=w, seen=seen))

    def get(self, client: str, key: bytes) -> Any:
        """Return the reply to a get."""
        return self.call(client, Get(key=key))

    # -------------------------------------------------------------- looking

    def core(self, name: str) -> Any:
        """Return the core of a living node."""
        return self.world.nodes[name].core

    def held(self, key: bytes) -> dict[str, Record]:
        """Return what each living node holds of a key, of any kind."""
        found = {node.name: held_record(node, key) for node in self.world.living()}
        return {name: record for name, record in found.items() if record is not None}

    def values(self, key: bytes) -> dict[str, bytes]:
        """Return the values that the living nodes hold of a key."""
        return {n: r.value for n, r in self.held(key).items() if r.kind is Kind.VALUE}

    def primary(self, key: bytes) -> str:
        """Return the name of the key's primary, in the view of the first living node."""
        view = core_of(self.world.living()[0]).held.view
        target = view.route(slot_of(key))[0]
        return next(node.name for node in self.world.living() if node.key == target)

    def traffic_in(self, for_ns: int) -> Counter[str]:
        """Let time pass; return what nodes sent each other on the request plane, by message."""
        before = self.observer.sent.copy()
        self.play(for_ns)
        return self.observer.sent - before
