"""Whole runs: production cores through faults, judged; and bugs planted on purpose, caught."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from dcc.units import KIB, MIB, MILLISECOND, SECOND
from dcc.wire.messages import Op
from simulations import faults as f
from simulations.budgets import Budgets
from simulations.commands import main
from simulations.draws import KINDS, draw_faults, draw_scenario
from simulations.membership import measure
from simulations.mutations import MUTATIONS, core_with
from simulations.network import BOTH_PLANES, GOSSIP, REQUEST, LinkSettings
from simulations.runs import Report, run
from simulations.scenario import WARM_UP_NS, Scenario
from simulations.workload import WorkloadSettings
from tests.simulations.test_behind import made_of_what_is_forgotten, reads_behind_a_long_silence
from tests.simulations.test_promises import lost_by_who_stood_still
from tests.support.paths import ROOT


def told(report: Report) -> list[str]:
    return [f"{found.promise}: {found.text}" for found in report.violations]


@pytest.mark.parametrize("seed", range(1, 9))
def test_drawn_faults_break_no_promise(seed: int) -> None:
    report = run(draw_scenario(seed))
    assert told(report) == []
    assert report.converged_ns >= 0


def times(last_s: int) -> st.SearchStrategy[int]:
    return st.integers(0, last_s * 10).map(lambda tenths: WARM_UP_NS + tenths * SECOND // 10)


NODES = st.sampled_from(["n0", "n1", "n2"])
LASTS = st.integers(1, 80).map(lambda tenths: tenths * SECOND // 10)
FAULTS = st.one_of(
    st.builds(f.Crash, at_ns=times(10), node=NODES, silent=st.booleans()),
    st.builds(
        f.Restart, at_ns=times(10), node=NODES, lasts_ns=LASTS, echo=st.integers(0, 20)
    ),
    st.builds(f.Pause, at_ns=times(10), node=NODES, lasts_ns=LASTS),
    st.builds(f.Leave, at_ns=times(10), node=NODES),
    st.builds(f.Join, at_ns=times(10), node=st.just("n3")),
    st.builds(
        f.Partition, at_ns=times(10), lasts_ns=LASTS, one_way=st.booleans(),
        left=st.sampled_from([("n0",), ("n1",), ("n2", "c0")]),
        right=st.sampled_from([("n0", "c1"), ("n1",), ("n2",)]),
        planes=st.sampled_from([BOTH_PLANES, (GOSSIP,), (REQUEST,)]),
    ),
)  # fmt: skip


# At most four faults, each printed whole: shrinking would take minutes and tell little more.
@settings(
    max_examples=10,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow],
)
@given(seed=st.integers(0, 2**32), faults=st.lists(FAULTS, max_size=4))
def test_a_small_world_checked_at_every_turn_keeps_every_promise(
    seed: int, faults: list[f.Fault]
) -> None:
    scenario = Scenario(
        seed=seed, nodes=3, replicas=1, slots=8, check_every=1, faults=tuple(faults),
        faults_ns=12 * SECOND, revive=("n0", "n1", "n2"),
        workload=WorkloadSettings(clients=2, keys=8, pause_ns=200 * MILLISECOND),
    )  # fmt: skip
    assert told(run(scenario)) == []


def test_every_kind_of_fault_is_drawn() -> None:
    drawn = {
        type(fault)
        for seed in range(60)
        for fault in draw_faults(Random(f"{seed}/kinds"), 4, 60 * SECOND)
    }
    assert len(drawn) == len(KINDS)
    drawn |= {type(fault) for seed in range(60) for fault in draw_scenario(seed).faults}
    assert len(drawn) == len(f.Fault.__args__), "or by a twist"


def test_the_same_seed_gives_the_same_digest_whatever_the_hash_seed() -> None:
    digests = set()
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-m", "simulations", "run", "--seed", "2", "--json"],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            timeout=100,
        )
        digests.add(json.loads(done.stdout)["digest"])
    assert len(digests) == 1


def at(seconds: float) -> int:
    return int(seconds * 10) * SECOND // 10


BUSY = WorkloadSettings(clients=3, keys=16, pause_ns=60 * MILLISECOND, w=(1, 2))
QUIET = Scenario(
    seed=1, nodes=3, replicas=1, faults_ns=10 * SECOND, workload=BUSY,
    exchange_interval_ns=2 * SECOND, rebalance_delay_ns=60 * SECOND,
)  # fmt: skip
STOPPED = replace(
    QUIET,
    faults=(
        f.Pause(at_ns=at(13), lasts_ns=at(4), node="n0"),
        f.Pause(at_ns=at(18), lasts_ns=at(3.5), node="n2"),
    ),
)
FULL = replace(QUIET, memory_limits_bytes=(MIB,), workload=replace(BUSY, value_bytes=256 * KIB))
SPLIT_AND_FULL = replace(
    FULL,
    replicas=2,
    faults_ns=14 * SECOND,
    links=LinkSettings(loss_permille=50, delay_ns=10 * MILLISECOND),
    faults=(
        f.Partition(at_ns=at(13), lasts_ns=at(4), left=("n0",), right=("n1", "n2")),
        f.Partition(at_ns=at(18), lasts_ns=at(4), left=("n1",), right=("n0", "n2")),
    ),
)
SPLIT = replace(
    QUIET,
    replicas=2,
    workload=WorkloadSettings(clients=8, keys=24, pause_ns=60 * MILLISECOND, deletes=40, w=(1,)),
    faults=(
        f.Partition(
            at_ns=at(14), lasts_ns=at(9), left=("n1", "c0", "c1", "c2", "c3"),
            right=("n0", "n2", "c4", "c5", "c6", "c7"),
        ),
    ),
)  # fmt: skip
GROWING = replace(
    QUIET,
    nodes=2,
    replicas=0,
    workload=WorkloadSettings(clients=8, keys=64, pause_ns=20 * MILLISECOND, w=(1,)),
    links=LinkSettings(delay_ns=30 * MILLISECOND),
    faults=(f.Join(at_ns=at(14), node="n8"), f.Join(at_ns=at(17), node="n9")),
)
PATIENT = replace(
    QUIET,
    workload=WorkloadSettings(
        clients=4, keys=16, pause_ns=80 * MILLISECOND, timeout_ns=8 * SECOND, w=(2,)
    ),
    faults=(f.Restart(at_ns=at(13), lasts_ns=at(9), node="n1", silent=True),),
    faults_ns=12 * SECOND,
)
FORGETFUL = replace(
    QUIET,
    seed=2,  # At seed 1 a hit is old just after the cut began, before anybody is suspected.
    replicas=2,
    slots=8,
    budgets=Budgets(valueless_share=64 * MIB // 1000),
    workload=WorkloadSettings(clients=4, keys=40, pause_ns=150 * MILLISECOND, deletes=40, w=(1,)),
    faults=(
        f.Partition(
            at_ns=at(17), lasts_ns=at(11), left=("n0", "c0"), right=("n1", "n2", "c1", "c2", "c3")
        ),
    ),
    faults_ns=16 * SECOND,
)
COPIES_LOST = replace(
    QUIET,
    workload=WorkloadSettings(clients=8, keys=200, pause_ns=20 * MILLISECOND, w=(2,)),
    links=LinkSettings(delay_ns=30 * MILLISECOND),
    exchange_interval_ns=10 * SECOND,
    faults=(
        f.Drop(at_ns=at(12.5), lasts_ns=at(9), permille=500),
        *(
            f.Restart(at_ns=at(15 + 3 * turn), lasts_ns=at(0.1), node=f"n{turn % 3}")
            for turn in range(3)
        ),
    ),
)
ONE_IS_SMALL = replace(
    QUIET,
    replicas=2,
    slots=16,
    memory_limits_bytes=(MIB, 64 * MIB, 64 * MIB),
    budgets=Budgets(valueless_share=256),
    workload=WorkloadSettings(
        clients=4, keys=120, pause_ns=40 * MILLISECOND, value_bytes=100 * KIB, w=(3,)
    ),
    faults=(f.Restart(at_ns=at(23.7), lasts_ns=at(0.2), node="n2"),),
    faults_ns=12 * SECOND,
)
MET_LATE = replace(
    ONE_IS_SMALL,
    nodes=2,
    replicas=1,
    slots=64,
    workload=replace(ONE_IS_SMALL.workload, pause_ns=60 * MILLISECOND, w=(2, 1, 1)),
    faults=(
        f.Pause(at_ns=at(18), lasts_ns=at(7), node="n1"),
        f.Join(at_ns=at(22), node="n2"),
    ),
    faults_ns=13 * SECOND,
)
SEEDLESS = replace(
    QUIET,
    nodes=4,
    workload=WorkloadSettings(clients=6, keys=60, pause_ns=30 * MILLISECOND, w=(2,)),
    faults=(
        f.Restart(at_ns=at(14), lasts_ns=at(0.2), node="n1", seedless=True),
        f.Restart(at_ns=at(24), lasts_ns=at(2), node="n2", seedless=True),
    ),
    rebalance_delay_ns=60 * SECOND,
)
WRONG_CLOCK = Scenario(
    seed=1,
    nodes=1,
    wrong_clocks=(("n0", 120 * SECOND),),
    workload=WorkloadSettings(clients=3, keys=24, pause_ns=50 * MILLISECOND),
    faults=(
        f.Join(at_ns=WARM_UP_NS + 2 * SECOND, node="n1"),
        f.Join(at_ns=WARM_UP_NS + 4 * SECOND, node="n2"),
        f.Restart(at_ns=WARM_UP_NS + 9 * SECOND, lasts_ns=100 * MILLISECOND, node="n1"),
    ),
    faults_ns=15 * SECOND,
)
TWO_WRONG = replace(
    WRONG_CLOCK,
    nodes=2,
    replicas=1,
    wrong_clocks=(("n0", 7 * SECOND), ("n1", -275 * SECOND)),
    faults=tuple(f.Join(at_ns=at(14 + 3 * i), node=f"n{2 + i}") for i in range(3)),
    faults_ns=16 * SECOND,
)
GRAY = Scenario(
    seed=1,
    nodes=3,
    replicas=2,
    links=LinkSettings(delay_ns=MILLISECOND),
    workload=WorkloadSettings(clients=3, keys=24, pause_ns=50 * MILLISECOND, w=(2,)),
    faults=(
        f.Delay(at_ns=at(13), lasts_ns=at(45), node="n1", extra_ns=100 * MILLISECOND),
        f.Loss(at_ns=at(13), lasts_ns=at(45), node="n1", permille=100),
    ),
    faults_ns=46 * SECOND,
)
NARROW = replace(
    QUIET,
    workload=replace(BUSY, value_bytes=64 * KIB, timeout_ns=4 * SECOND),
    faults=(f.Narrow(at_ns=at(13), lasts_ns=at(8), node="n1", bytes_per_second=64 * KIB),),
)
AWAY = replace(
    QUIET,
    replicas=2,
    workload=replace(BUSY, clients=12, w=(2,), pause_ns=40 * MILLISECOND),
    faults=(
        f.Partition(
            at_ns=at(13), lasts_ns=at(12), left=("n0", "c0"), right=("n1", "n2", "c1", "c2", "c3")
        ),
    ),
    faults_ns=25 * SECOND,
    links=LinkSettings(delay_ns=20 * MILLISECOND),
)
LISTED = replace(
    AWAY,
    workload=WorkloadSettings(
        clients=8, keys=200, pause_ns=20 * MILLISECOND, w=(2,), deletes=100, rare_permille=500
    ),
    faults=(
        f.Partition(
            at_ns=at(13), lasts_ns=at(12), left=("n0", "c0"),
            right=("n1", "n2", *(f"c{number}" for number in range(1, 8))),
        ),
    ),
    links=LinkSettings(delay_ns=50 * MILLISECOND),
)  # fmt: skip
ASIDE = replace(
    QUIET,
    replicas=2,
    workload=replace(BUSY, clients=4, w=(2,), pause_ns=20 * MILLISECOND),
    faults=(
        f.Partition(at_ns=at(14), lasts_ns=at(6), left=("c0", "c1"), right=("n0",)),
        f.Partition(
            at_ns=at(14), lasts_ns=at(3), left=("n1",), right=("n0",), one_way=True,
            planes=(REQUEST,),
        ),
        f.Partition(
            at_ns=at(17), lasts_ns=at(3), left=("n2",), right=("n0",), one_way=True,
            planes=(REQUEST,),
        ),
    ),
)  # fmt: skip
REFUTED_UNHEARD = replace(
    QUIET,
    replicas=2,
    workload=replace(BUSY, clients=4, readers=2, pause_ns=40 * MILLISECOND, w=(1, 2)),
    faults=(
        f.Partition(at_ns=at(14), lasts_ns=at(12), left=("n0",), right=("n1",)),
        f.Partition(
            at_ns=at(14) + 650 * MILLISECOND, lasts_ns=at(11), left=("n0",), right=("n2",),
            one_way=True, planes=(GOSSIP,),
        ),
        f.Partition(
            at_ns=at(15) + 300 * MILLISECOND, lasts_ns=at(10), left=("n2",), right=("n0",),
            one_way=True, planes=(GOSSIP,),
        ),
    ),
    faults_ns=20 * SECOND,
    links=LinkSettings(delay_ns=8 * MILLISECOND),
)  # fmt: skip
STARTED_IN_CUTS = replace(
    QUIET,
    faults=tuple(
        fault
        for second in range(13, 53, 5)
        for fault in (
            f.Partition(at_ns=at(second), lasts_ns=at(3), left=("n0",), right=("n1",)),
            f.Restart(at_ns=at(second + 2), lasts_ns=200 * MILLISECOND, node="n0"),
        )
    ),
    faults_ns=45 * SECOND,
)
FORGOTTEN = replace(
    QUIET,
    forget_after_ns=5 * SECOND,
    rebalance_delay_ns=2 * SECOND,
    faults=(f.Crash(at_ns=at(13), node="n2"),),
    faults_ns=25 * SECOND,
)
TWINS = replace(
    QUIET,
    faults=(f.Twin(at_ns=at(14), lasts_ns=at(14), node="n1"),),
    faults_ns=18 * SECOND,
)
UNREACHED = replace(QUIET, faults=(f.Unreached(at_ns=at(13), lasts_ns=at(9), node="n9"),))
FORGED = replace(QUIET, keyed=True, faults=(f.Forgery(at_ns=at(14)),))
LIES = replace(QUIET, faults=(f.Lies(at_ns=at(14), count=20),))
MINUTES = replace(QUIET, faults_ns=80 * SECOND)
RESTARTED_INSIDE = replace(
    QUIET,
    replicas=2,
    exchange_interval_ns=SECOND,
    workload=replace(BUSY, clients=4, keys=60, deletes=60, pause_ns=100 * MILLISECOND),
    faults=(
        f.Partition(
            at_ns=at(16), lasts_ns=at(17), left=("n0", "n1", "c0", "c2"), right=("n2", "c1", "c3")
        ),
        f.Restart(at_ns=at(20), lasts_ns=at(1), node="n0"),
        f.Restart(at_ns=at(20), lasts_ns=at(3), node="n1"),
    ),
    faults_ns=35 * SECOND,
)
FOLDED_INSIDE = replace(
    QUIET,
    nodes=4,
    exchange_interval_ns=SECOND,
    workload=replace(BUSY, clients=4, keys=300, pause_ns=100 * MILLISECOND),
    faults=(
        f.Partition(
            at_ns=at(16),
            lasts_ns=at(38),
            left=("n0", "n1", "n2", "c0", "c2"),
            right=("n3", "c1", "c3"),
        ),
        *(f.Restart(at_ns=at(20), lasts_ns=at(1), node=node) for node in ("n0", "n1", "n2")),
        f.Restart(at_ns=at(35), lasts_ns=at(1), node="n0"),
    ),
    faults_ns=42 * SECOND,
)
APART_FOR_LONG = replace(
    QUIET,
    nodes=2,
    exchange_interval_ns=SECOND,
    rebalance_delay_ns=2 * SECOND,
    forget_after_ns=8 * SECOND,
    workload=replace(BUSY, clients=4, keys=48, deletes=60, pause_ns=100 * MILLISECOND),
    faults=(
        f.Partition(at_ns=at(15), lasts_ns=at(28), left=("n0", "c0", "c2"), right=("n1", "c1")),
    ),
    faults_ns=40 * SECOND,
)
CLEARED = replace(
    QUIET,
    nodes=2,
    links=LinkSettings(delay_ns=MILLISECOND // 10, jitter_ns=MILLISECOND, loss_permille=120),
    workload=WorkloadSettings(
        clients=8, keys=30, clears_permille=30, pause_ns=20 * MILLISECOND, w=(1,)
    ),
    faults_ns=20 * SECOND,
)
CAUGHT = {
    "cleared-anew": (CLEARED, "promised writes survive"),
    "rights-unlooked": (FORGED, "promised writes survive"),
    "twin-unasked": (TWINS, "the first of a name stays"),
    "twin-believed": (TWINS, "the first of a name stays"),
    "unreached-ready": (UNREACHED, "who cannot be reached is not ready"),
    "rows-believed": (LIES, "who never answered is no member"),
    "remembers-for-ever": (MINUTES, "limits hold"),
    "late-word": (STARTED_IN_CUTS, "time does not jump"),
    "taken-for-alive": (REFUTED_UNHEARD, "no hit is older than what its node could have known"),
    "unmarked": (APART_FOR_LONG, "a version never falls"),
    "base-believed": (FOLDED_INSIDE, "convergence"),
    "forgets-the-unmet": (RESTARTED_INSIDE, "a version never falls"),
    "forgets-unseen": (FORGOTTEN, "the ring is laid over the members there are"),
    "serves-in-doubt": (AWAY, "no hit is older than what its node could have known"),
    "lists-in-doubt": (LISTED, "a scan lists nothing that was deleted long before"),
    "primary-uncounted": (ASIDE, "no hit is older than what its node could have known"),
    "impatient": (NARROW, "nothing is sent again while it is on its way"),
    "late-read": (STOPPED, "late reads are not served"),
    "gray-leads": (GRAY, "a gray node is gone round"),
    "time-by-votes": (WRONG_CLOCK, "time does not jump"),
    "old-word-believed": (TWO_WRONG, "time does not jump"),
    "corrected-at-once": (WRONG_CLOCK, "time does not jump"),
    "sure-alone": (SEEDLESS, "promised writes survive"),
    "early-answer": (COPIES_LOST, "promised writes survive"),
    "no-retargeting": (PATIENT, "a write with enough nodes alive is acknowledged"),
    "refill-without-list": (FORGETFUL, "convergence"),
    "refill-without-mark": (MET_LATE, "convergence"),
    "evictions-believed": (ONE_IS_SMALL, "convergence"),
    "released-unpaid": (MET_LATE, "convergence"),
    "blind-expiry": (QUIET, "provenance"),
    "forgotten-early": (SPLIT, "a version never falls"),
    "keeps-older": (QUIET, "convergence"),
    "one-stamp": (QUIET, "one version, one value"),
    "late-write": (STOPPED, "never executed late"),
    "order-reversed": (STOPPED, "convergence"),
    "second-version": (STOPPED, "a write happens once"),
    "no-exchange": (COPIES_LOST, "convergence"),
    "no-eviction": (FULL, "limits hold"),
    "no-reserve": (FULL, "limits hold"),
    "remembers-all": (FULL, "limits hold"),
    "repair-resurrects": (SPLIT_AND_FULL, "repair undoes no eviction"),
    "unready-answers": (GROWING, "promised writes survive"),
}
"Bugs, a scenario that shows each within a few seeds, and the promise whose checker must see it."


DIRECTED = {
    "fetch-unnamed": made_of_what_is_forgotten,
    "silent-given-up": reads_behind_a_long_silence,
    "begun-unsaid": lost_by_who_stood_still,
}
"Bugs that a scenario directed step by step shows, and no checker of whole runs looks for."


def test_every_bug_that_can_be_planted_has_its_scenario() -> None:
    assert CAUGHT.keys() | DIRECTED.keys() == MUTATIONS.keys()
    told_of = (ROOT / "docs/simulation.md").read_text("utf-8")
    assert [name for name in MUTATIONS if told_of.count(f"`{name}`") != 2] == [], (
        "who sees it, when"
    )


@pytest.mark.parametrize("mutation", sorted(CAUGHT))
def test_a_planted_bug_is_caught_and_nothing_else_is(mutation: str) -> None:
    scenario, promise = CAUGHT[mutation]
    assert told(run(scenario)) == []
    for seed in range(1, 6):
        report = run(replace(scenario, seed=seed), core_with(mutation))
        if promise in {found.promise for found in report.violations}:
            return
    raise AssertionError(f"{mutation} went unseen")


@pytest.mark.parametrize("op", [Op.TOUCH, Op.INCR])
def test_a_question_that_names_no_version_brings_deleted_keys_back(op: Op) -> None:
    asked, made, kept = made_of_what_is_forgotten(op, core_with("fetch-unnamed"))
    assert made != (asked if op is Op.INCR else set())
    assert kept, "for good"


def test_who_gives_up_the_silent_for_good_serves_what_is_old_once_they_answer() -> None:
    assert reads_behind_a_long_silence(core_with("silent-given-up"))[b"old"] > 0


def test_the_command_tells_how_to_repeat_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--seed", "300", "--mutate", "one-stamp"]) == 1
    out = capsys.readouterr().out
    assert "python -m simulations run --seed 300 --mutate one-stamp" in out


@pytest.mark.parametrize("nodes", [3, 16])
def test_crashes_are_detected_as_fast_as_designed(nodes: int) -> None:
    figures = measure(nodes, seed=1, trials=100)
    assert figures.unseen == 0
    assert figures.false_positives == 0
    assert figures.good, figures.table()


def test_a_scenario_is_drawn_the_same_way_every_time() -> None:
    assert draw_scenario(7) == draw_scenario(7)
    assert draw_scenario(7) != replace(draw_scenario(7), seed=8)
