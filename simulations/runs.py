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
from dcc.replication.once import KEEP_NS
from dcc.units import MILLISECOND, SECOND
from dcc.wire.messages import Get
from simulations.checkers import (
    limits,
    silence,
)
from simulations.clients import ClientProcess
from simulations.history import End, Entry, Violation
from simulations.judging import REDIAL_NS, Judge
from simulations.looking import Looking
from simulations.observer import core_of
from simulations.processes import NodeProcess
from simulations.scenario import WARM_UP_NS, Scenario
from simulations.stage import MakeCore, Stage
from simulations.workload import Workload

ROUNDS = 5
"Exchanges behind convergence until nothing but roots may travel."

FOLD_ROUNDS = 14
"""The same where boots are gone: ten exchanges behind its last write every node folds their entries
in its clocks, each when it gets to it, and for two more their digests differ."""

WELL_NS = 90 * SECOND
"For how long a member may still be taken for slow once nothing is."
LIMITS_TOLD = 5
"A node above a limit is so at each of its turns: the first ones tell all."

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
        self.scenario = stage.scenario
        self.stage = stage
        self.world, self.observer = stage.world, stage.observer
        self.violations: list[Violation] = []
        self.converged_ns = -1
        self.looking = Looking(stage)
        self.workload: Workload | None = None
        self.world.on_turn = self._check_limits

    def play(self) -> Report:
        """Run all phases, or up to the first exception."""
        try:
            self.stage.warm_up()
            self.looking.timing.start()
            self._safety()
            self._liveness()
            self._rest()
        except Exception as error:  # Whatever a core raises is a finding, not the end of the tool.
            self.violations.append(_crash(error, self.world.now_ns))
        judge = Judge(self.looking, self._history())
        self.violations += judge.violations(rested=self.converged_ns >= 0)
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
            self.looking.survey()
            if len(self.violations) < LIMITS_TOLD:
                self.violations += world.outsiders.judge()
            if self.observer.violations:
                return

    def _liveness(self) -> None:
        assert self.workload is not None
        world = self.world
        world.heal(self.scenario.revive)
        if not world.living():
            world.start("n0")
        healed_ns = world.now_ns
        self.looking.note_all()
        self.observer.on_held = self.looking.note_newest
        world.run(world.now_ns + 2 * SECOND)
        self.workload.stop()
        missing: list[Violation] = []
        while world.now_ns < healed_ns + self.scenario.liveness_ns:
            world.run(world.now_ns + STEP_NS)
            missing = self.looking.unconverged()
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
        open_by = world.now_ns + REDIAL_NS
        while world.now_ns < open_by and world.network.reopening():
            stage.play(SECOND)  # What waits on such a connection has come through others.
        gone = world.lives.any_ended
        folded = gone and self.scenario.seed % 4 != 0  # It takes its time: not in every run.
        stage.play((FOLD_ROUNDS if folded else ROUNDS) * interval_ns + 2 * SECOND)
        well_by = world.now_ns + WELL_NS
        while world.now_ns < well_by and any(core_of(n).membership.me.slow for n in world.living()):
            stage.play(SECOND)  # Who was slow is found so late, and compares before it leads again.
            stage.play(interval_ns)
        repaired = self.observer.repaired
        sent = stage.traffic_in(interval_ns + 2 * SECOND)
        self.violations += silence.check(self.observer.repaired - repaired, world.now_ns)
        if folded or not gone:
            self.violations += silence.check_traffic(sent, world.now_ns)
        self.violations += self.looking.unconverged()
        self._read_all()

    def _check_limits(self, node: NodeProcess) -> None:
        if len(self.violations) < LIMITS_TOLD:
            core, now_ns = core_of(node), self.world.now_ns
            self.violations += limits.check_node(node.name, core.footprint, now_ns)
            age_ns = core.writes.once.age_ns(node.now().mono)
            self.violations += limits.check_remembered(node.name, age_ns, KEEP_NS, now_ns)

    def _read_all(self) -> None:
        """Read every key through a new client; each answer must be the newest version."""
        assert self.workload is not None
        world = self.world
        nodes = tuple(node.request for node in world.living())
        reader = ClientProcess(world, "reader", nodes, self.scenario.workload.timeout_ns)
        world.clients["reader"] = reader
        for key in self.looking.keys:
            entry = self.workload.begin(reader, Get(key=key))
            while entry.end is End.OPEN:  # At its deadline, at the latest.
                world.run(world.now_ns + 10 * MILLISECOND)
            self.violations += self.looking.check_last_read(entry)


def _crash(error: Exception, at_ns: int) -> Violation:
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    where = " < ".join(f"{f.filename.rsplit('/', 1)[-1]}:{f.lineno} {f.name}" for f in frames[::-1])
    return Violation("no core ever raises", f"{type(error).__name__}: {error} at {where}", at_ns)
