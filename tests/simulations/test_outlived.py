"""No simulated client reads what it has outlived, and a client that forgets to look is seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from dcc.client.outlived import Outlived
from dcc.units import MILLISECOND, SECOND
from simulations.checkers.outlived import PROMISE
from simulations.faults import Drop, Restart
from simulations.runs import run
from simulations.scenario import WARM_UP_NS, Scenario
from simulations.workload import WorkloadSettings

LASTS_NS = 14 * SECOND
LOSSY = Scenario(
    seed=1,
    nodes=3,
    replicas=1,
    faults_ns=LASTS_NS,
    liveness_ns=60 * SECOND,
    exchange_interval_ns=10 * SECOND,
    workload=WorkloadSettings(
        clients=2, crowds=1, keys=12, pause_ns=40 * MILLISECOND, w=(1,), rare_permille=100
    ),
    faults=(
        Drop(at_ns=WARM_UP_NS, lasts_ns=LASTS_NS, permille=600),
        *(
            Restart(
                at_ns=WARM_UP_NS + (2 + 3 * turn) * SECOND,
                lasts_ns=100 * MILLISECOND,
                node=f"n{turn % 3}",
            )
            for turn in range(4)
        ),
    ),
)
"Copies are lost, and then who wrote them: what is left is older than what clients have seen."


@pytest.mark.parametrize("seed", [1, 2])
def test_no_client_reads_what_it_has_outlived(seed: int) -> None:
    report = run(replace(LOSSY, seed=seed))
    assert report.violations == []
    assert report.counts["stale_refused"] > 0, "there was something to refuse"


def remembers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read and written is not remembered."""
    monkeypatch.setattr(Outlived, "_note", lambda self, key, stamp: None)


def admits_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hits of many keys are believed without a look."""
    monkeypatch.setattr(Outlived, "admits", lambda self, keys, stamps: True)


def many_unnoted(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read or written of many keys at a time is not remembered."""
    monkeypatch.setattr(Outlived, "note_all", lambda self, pairs: None)


PLANTED: list[Callable[[pytest.MonkeyPatch], None]] = [
    remembers_nothing,
    admits_all,
    many_unnoted,
]


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_planted_bug_of_a_client_is_caught(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    for seed in range(1, 6):
        found = {one.promise for one in run(replace(LOSSY, seed=seed)).violations}
        if found:
            assert found == {PROMISE}
            return
    raise AssertionError("went unseen")
