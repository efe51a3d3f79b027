"""One run: a scenario, played in a world, judged by every checker.

    warm-up      nodes start and get ready
    safety       clients work, faults come and go: no promise may be broken
    liveness     all faults end, writing stops: within a bound, all owners must agree on the newest
    rest         a while longer: nothing may come back; then every key is read once more

The run stops at an exception of a core: that is a violation, too.
"""

from __future__ import annotations

import traceback
from collections import Counter
from dataclasses import dataclass, field

from dcc.node.core import NodeCore
from dcc.ring.hashing import slot_of
from dcc.types import Kind, NodeKey, Record, Stamp, Version
from dcc.units import MILLISECOND, NEVER, SECOND
from dcc.wire.messages import Get
from simulations.checkers import (
    acknowledgement,
    clearing,
    convergence,
    deadlines,
    limits,
    provenance,
    silence,
    survival,
    views,
)
from simulations.clients import ClientProcess
from simulations.clocks import EPOCH_NS
from simulations.faults import calm
from simulations.history import End, Entry, Violation
from simulations.observer import core_of
from simulations.processes import NodeProcess
from simulations.scenario import WARM_UP_NS, Scenario
from simulations.stage import MakeCore, Stage
from simulations.workload import Workload

SLACK_NS = 1_500 * MILLISECOND
"Cluster time may be off by `max_skew`, and a hit may be on its way for a call's time-out."

ROUNDS = 5
"Exchanges behind convergence until nothing but roots may travel."

FOLD_ROUNDS = 14
"""The same where boots are gone: ten exchanges behind its last write every node folds their entries
in its clocks, each when it gets to it, and for two more their digests differ."""

STEP_NS = 1 * SECOND
"Between two looks at the cluster."


@dataclass(slots=True, kw_only=True)
class Report:
    """How a run ended."""

    scenario: Scenario
    violations: list[Violation]
    digest: str
    events: int
    inputs: int
    virtual_ns: int
    converged_ns: int
    "From the end of the faults until all owners agreed; -1 = never."
    counts: Counter[str]
    history: list[Entry] = field(repr=False)


def run(scenario: Scenario, make: MakeCore = NodeCore) -> Report:
    """Play `scenario` with node cores from `make` and return what became of it."""
    with Stage(scenario, make) as stage:
        return _Run(stage).play()


class _Run:
    """The state of one run."""

    def __init__(self, stage: Stage) -> None:
        self.scenario = scenario = stage.scenario
        self.stage = stage
        self.world, self.observer = stage.world, stage.observer
        self.violations: list[Violation] = []
        self.converged_ns = -1
        self.newest: dict[bytes, Record] = {}
        "Of each key, the newest record that anybody held since the faults ended."
        self.keys = scenario.workload.key_names()
        self.workload: Workload | None = None

    def play(self) -> Report:
        """Run all phases, or up to the first exception."""
        try:
            self.stage.warm_up()
            self._safety()
            self._liveness()
            self._rest()
        except Exception as error:  # Whatever a core raises is a finding, not the end of the tool.
            self.violations.append(_crash(error, self.world.now_ns))
        self._judge()
        world = self.world
        return Report(
            scenario=self.scenario,
            violations=self.violations,
            digest=world.digest(),
            events=world.events,
            inputs=world.inputs,
            virtual_ns=world.now_ns,
            converged_ns=self.converged_ns,
            counts=world.counts,
            history=self._history(),
        )

    def _history(self) -> list[Entry]:
        return self.workload.history if self.workload else []

    # -------------------------------------------------------------- phases

    def _safety(self) -> None:
        world = self.world
        self.workload = Workload(world, self.scenario.workload, self.stage.seeds)
        world.schedule(self.scenario.faults)
        end_ns = WARM_UP_NS + self.scenario.faults_ns
        while world.now_ns < end_ns:
            world.run(min(world.now_ns + STEP_NS, end_ns))
            self._survey()
            self._check_limits()
            if self.observer.violations:
                return

    def _liveness(self) -> None:
        assert self.workload is not None
        world = self.world
        world.heal(self.scenario.revive)
        if not world.living():
            world.start("n0")
        healed_ns = world.now_ns
        self._note_all()
        self.observer.on_held = self._note_newest
        world.run(world.now_ns + 2 * SECOND)
        self.workload.stop()
        missing: list[Violation] = []
        while world.now_ns < healed_ns + self.scenario.liveness_ns:
            world.run(world.now_ns + STEP_NS)
            missing = self._unconverged()
            if not missing:
                self.converged_ns = world.now_ns - healed_ns
                return
        self.violations += missing[:5]

    def _rest(self) -> None:
        """Stay quiet for some exchanges, then for one more that must be silent; read everything."""
        if self.converged_ns < 0:
            return
        world, stage = self.world, self.stage
        interval_ns = self.scenario.exchange_interval_ns
        gone = any(life.to_ns != NEVER for life in world.lives)
        folded = gone and self.scenario.seed % 4 == 0  # It takes its time: not in every run.
        stage.play((FOLD_ROUNDS if folded else ROUNDS) * interval_ns + 2 * SECOND)
        repaired = self.observer.repaired
        sent = stage.traffic_in(interval_ns + 2 * SECOND)
        self.violations += silence.check(self.observer.repaired - repaired, world.now_ns)
        if folded or not gone:
            self.violations += silence.check_traffic(sent, world.now_ns)
        self.violations += self._unconverged()
        self._read_all()

    # -------------------------------------------------------------- looking

    def _survey(self) -> dict[str, dict[bytes, Record]]:
        self.observer.now_ns = self.world.now_ns
        held = {node.name: self.observer.survey(node, self.keys) for node in self.world.living()}
        if self.observer.on_held is not None:
            for records in held.values():
                for record in records.values():
                    self._note_newest(record)
        return held

    def _note_all(self) -> None:
        """Note what the living hold, and what they held and may have forgotten since."""
        self._survey()
        for node in self.world.living():
            for key in self.keys:
                record = self.observer.newest(node, key)
                if record is not None:
                    self._note_newest(record)

    def _note_newest(self, record: Record) -> None:
        known = self.newest.get(record.key)
        if known is None or known.version < record.version:
            self.newest[record.key] = record

    def _check_limits(self) -> None:
        stores = {node.name: core_of(node).held.store for node in self.world.living()}
        held = {name: store.bytes_used for name, store in stores.items()}
        most = {name: store.memory_limit_bytes for name, store in stores.items()}
        self.violations += limits.check(held, most, self.world.now_ns)

    def _unconverged(self) -> list[Violation]:
        """Return everything that is not as it should be at rest."""
        world = self.world
        held = self._survey()
        living = world.living()
        tables = {node.name: core_of(node).membership.members for node in living}
        missing = views.check(tables, {node.key: node.boot for node in living})
        missing += [
            Violation("ready", f"{node.name} is not ready", world.now_ns)
            for node in living
            if not core_of(node).slots_ready
        ]
        if missing:
            return missing
        names = {node.key: node.name for node in living}
        slots = core_of(living[0]).held.view.slots
        owners = {key: [names[one] for one in slots.owners(slot_of(key)) if one in names]
                  for key in self.keys}  # fmt: skip
        missing = [
            Violation("owners", f"{key.decode()} has owners {found}", world.now_ns)
            for key, found in owners.items()
            if len(found) < min(len(living), self.scenario.replicas + 1)
        ]
        cleared = max(core_of(node).held.store.cleared for node in living)
        missing += self._uncleared(living, cleared)
        expected = {key: self._expected(record) for key, record in self.newest.items()
                    if record.version.stamp > cleared}  # fmt: skip
        may_evict = self.scenario.may_evict
        missing += convergence.check(expected, owners, held, self._covers, may_evict=may_evict)
        return missing

    def _uncleared(self, living: list[NodeProcess], cleared: Stamp) -> list[Violation]:
        return [
            Violation(clearing.PROMISE, f"{node.name} has not heard of it", self.world.now_ns)
            for node in living
            if core_of(node).held.store.cleared != cleared
        ]

    def _expected(self, record: Record) -> Record:
        now_ms = (EPOCH_NS + self.world.now_ns) // MILLISECOND
        if 0 < record.expires_at_ms <= now_ms + SLACK_NS // MILLISECOND:
            return record._replace(kind=Kind.EXPIRED)
        meaning = self.observer.meanings.get(record.version)
        if record.kind is Kind.EVICTED and meaning is not None and not meaning.deleted:
            return record._replace(kind=Kind.VALUE)
        return record

    def _covers(self, name: str, key: bytes, version: Version) -> bool:
        store = core_of(self.world.nodes[name]).held.store
        return bool(store.covers(slot_of(key), version))

    def _read_all(self) -> None:
        """Read every key through a new client; each answer must be the newest version."""
        assert self.workload is not None
        world = self.world
        nodes = tuple(node.request for node in world.living())
        reader = ClientProcess(world, "reader", nodes, self.scenario.workload.timeout_ns)
        world.clients["reader"] = reader
        for key in self.keys:
            entry = self.workload.begin(reader, Get(key=key))
            while entry.end is End.OPEN:  # At its deadline, at the latest.
                world.run(world.now_ns + 10 * MILLISECOND)
            self.violations += self._check_last_read(entry)

    def _check_last_read(self, entry: Entry) -> list[Violation]:
        newest = self.newest.get(entry.key)
        cleared = max(core_of(node).held.store.cleared for node in self.world.living())
        if newest is not None and newest.version.stamp <= cleared:
            newest = None
        expected = self._expected(newest) if newest is not None else None
        exists = expected is not None and expected.kind is Kind.VALUE
        if exists and expected is not None and entry.status == "hit":
            if entry.version == expected.version:
                return []
        elif (not exists or self.scenario.may_evict) and entry.status == "miss":
            return []
        text = f"newest is {expected and expected._replace(value=b'')}: {entry}"
        return [Violation("the last read finds the newest", text, self.world.now_ns)]

    # -------------------------------------------------------------- judging

    def _judge(self) -> None:
        scenario, history = self.scenario, self._history()
        self.violations += self.observer.violations + self.observer.monotony.violations
        losses = [loss.at_ns for loss in self.world.losses]
        end_ns = self.world.now_ns
        slack_ns = SLACK_NS + 2 * scenario.clocks.offset_ns + _worst_step_ns(scenario)
        versions_of = self.observer.versions_of
        self.violations += deadlines.check(history, end_ns, 5 * MILLISECOND)
        self.violations += provenance.check(history, slack_ns)
        self.violations += provenance.check_once(history, versions_of)
        self.violations += provenance.check_late(history, versions_of, EPOCH_NS, slack_ns)
        if not scenario.may_evict:
            self.violations += survival.check_reads(
                history, losses, scenario.replicas,
                lambda start, end: calm(scenario.faults, start, end), slack_ns,
                self.observer.aside,
            )  # fmt: skip
        self.violations += acknowledgement.check(
            history, versions_of, scenario.replicas, self._alive,
            lambda start, end: calm(scenario.faults, start, end),
        )  # fmt: skip
        self.violations += clearing.check(
            history, lambda start, end: calm(scenario.faults, start, end)
        )
        if self.converged_ns >= 0:
            self.violations += survival.check_rest(
                history, losses, scenario.replicas, self._kept, end_ns
            )

    def _alive(self, from_ns: int, to_ns: int) -> set[NodeKey]:
        names = self.world.alive_throughout(from_ns, to_ns)
        return {self.world.nodes[name].key for name in names}

    def _kept(self, entry: Entry) -> bool:
        stores = [core_of(node).held.store for node in self.world.living()]
        if any(entry.version.stamp <= store.cleared for store in stores):
            return True
        newest = self.newest.get(entry.key)
        if newest is not None and newest.version >= entry.version:
            return True
        if newest is not None and self._expected(newest).kind is Kind.VALUE:
            return False  # Whoever forgot the newer one brought the older one back.
        forgettable = entry.key[:1] in b"xtp" or self.scenario.may_evict
        return forgettable and any(
            self._covers(node.name, entry.key, entry.version) for node in self.world.living()
        )


def _worst_step_ns(scenario: Scenario) -> int:
    return sum(abs(getattr(fault, "by_ns", 0)) for fault in scenario.faults)


def _crash(error: Exception, at_ns: int) -> Violation:
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    where = " < ".join(f"{f.filename.rsplit('/', 1)[-1]}:{f.lineno} {f.name}" for f in frames[::-1])
    return Violation("no core ever raises", f"{type(error).__name__}: {error} at {where}", at_ns)
