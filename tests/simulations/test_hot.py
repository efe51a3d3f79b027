"""Hot keys in the simulated world: their reads are spread, and no client reads what it outlived."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dcc.client.flights import Question
from dcc.client.outlived import Outlived
from dcc.units import MILLISECOND, SECOND
from simulations.checkers.outlived import PROMISE
from simulations.faults import Drop, Pause, Restart
from simulations.runs import run
from simulations.scenario import WARM_UP_NS, Scenario
from simulations.workload import WorkloadSettings
from tests.support.planting import first_broken

LASTS_NS = 6 * SECOND
BUSY = Scenario(
    seed=1,
    nodes=3,
    replicas=1,
    faults_ns=LASTS_NS,
    liveness_ns=20 * SECOND,
    exchange_interval_ns=10 * SECOND,
    workload=WorkloadSettings(
        clients=0, crowds=1, readers=1, reader_pause_ns=7 * MILLISECOND, keys=2,
        pause_ns=25 * MILLISECOND, w=(1,),
    ),
    faults=(
        Drop(at_ns=WARM_UP_NS, lasts_ns=LASTS_NS, permille=300),
        Pause(at_ns=WARM_UP_NS + 3 * SECOND, lasts_ns=700 * MILLISECOND, node="n1"),
        Restart(at_ns=WARM_UP_NS + 5 * SECOND, lasts_ns=100 * MILLISECOND, node="n0"),
    ),
)  # fmt: skip
"All want the same two keys, copies of which are lost on their way, and nodes with them."


def test_no_client_reads_what_it_has_outlived_where_hot_keys_are_spread() -> None:
    report = run(BUSY)
    assert report.violations == []
    assert report.counts["spread reads"] > 200
    assert report.counts["stale_refused"] > 0, "there was something to refuse"


def test_a_client_that_believes_other_owners_whatever_they_serve_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a hot key's other owner says is not compared with what is known."""
    question: Any = Question.__init__

    def mutant(self: Any, *of: Any) -> None:
        *others, known, direct = of
        question(self, *others, 0 if direct else known, direct)

    monkeypatch.setattr(Question, "__init__", mutant)
    monkeypatch.setattr(Outlived, "admits", lambda self, keys, stamps: True)
    broken = first_broken(lambda seed: run(replace(BUSY, seed=seed)).violations, seeds=3)
    assert broken == {PROMISE}
