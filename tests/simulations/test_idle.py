"""Clients that seldom call: they may not know that a node has come to stand still meanwhile."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dcc.client.core import ClientCore
from dcc.client.shared import QUIET_NS
from dcc.errors import MaybeStored, NodeUnavailable
from dcc.units import MILLISECOND, SECOND
from dcc.wire.messages import Op, Outcome, WriteMany
from simulations.checkers.sendings import STOPPED
from simulations.faults import Pause
from simulations.runs import run
from simulations.scenario import WARM_UP_NS, Scenario
from simulations.stage import Stage
from simulations.workload import WorkloadSettings

KEYS = [b"p%d" % number for number in range(30)]
IDLE = Scenario(
    seed=1, nodes=3, replicas=2, slots=16,
    workload=WorkloadSettings(clients=2, idlers=8),
    faults=(Pause(at_ns=WARM_UP_NS + 5 * SECOND, lasts_ns=20 * SECOND, node="n1"),),
)  # fmt: skip
THREE = Scenario(seed=1, nodes=3, replicas=2, slots=16, rebalance_delay_ns=60 * SECOND)


def stop(stage: Stage, *names: str) -> None:
    """Fill the cache by c0, and let nodes stand still for as long as the test lasts."""
    for key in KEYS:
        stage.put("c0", key, b"old", w=255)
    for name in names:
        stage.world._begin(Pause(at_ns=0, lasts_ns=60 * SECOND, node=name))


def led_by(stage: Stage, name: str) -> bytes:
    return next(key for key in KEYS if stage.primary(key) == name)


@pytest.mark.parametrize("silent_ns", [QUIET_NS, 8 * SECOND])
def test_a_write_behind_a_long_silence_goes_round_a_node_that_stands_still(silent_ns: int) -> None:
    with Stage(THREE) as stage:
        stage.warm_up()
        key = led_by(stage, "n1")
        stop(stage, "n1")
        stage.play(silent_ns)
        began_ns = stage.world.now_ns
        reply = stage.put("c0", key, b"new")
        assert reply.outcome is Outcome.DONE
        assert stage.world.now_ns - began_ns < 400 * MILLISECOND, "one node's patience, no more"
        assert stage.get("c0", key).value == b"new"


def test_many_writes_behind_a_long_silence_go_round_it_too() -> None:
    with Stage(THREE) as stage:
        stage.warm_up()
        stop(stage, "n1")
        stage.play(8 * SECOND)
        many = WriteMany(op=Op.PUT, items=tuple((key, b"new") for key in KEYS))
        written = stage.call("c0", many)
        assert (written.done, written.failed) == (len(KEYS), ())


@pytest.fixture
def alone() -> Iterator[Stage]:
    """A client that has been silent for long, and all nodes stand still."""
    with Stage(THREE) as stage:
        stage.warm_up()
        stop(stage, "n0", "n1", "n2")
        stage.play(8 * SECOND)
        yield stage


def test_with_nobody_there_a_write_has_surely_not_happened(alone: Stage) -> None:
    with pytest.raises(NodeUnavailable) as failure:
        alone.put("c0", KEYS[0], b"new")
    assert failure.value.definite


def test_with_nobody_there_many_writes_have_surely_not_happened(alone: Stage) -> None:
    items = tuple((key, b"new") for key in KEYS)
    written = alone.call("c0", WriteMany(op=Op.PUT, items=items))
    assert (written.done, written.failed, written.maybe) == (0, tuple(KEYS), frozenset())


def test_a_node_that_was_heard_of_late_is_not_asked_first() -> None:
    """What it was given it may have done: only its silence afterwards is the caller's doubt."""
    with Stage(THREE) as stage:
        stage.warm_up()
        key = led_by(stage, "n1")
        stop(stage, "n1")
        with pytest.raises(MaybeStored):
            stage.put("c0", key, b"new")


def test_a_planted_bug_is_seen_and_nothing_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client gives its write to whoever it has not heard for long, too."""
    assert run(IDLE).violations == []
    monkeypatch.setattr(ClientCore, "is_quiet", lambda self, address, mono: False)
    report = run(IDLE)
    assert {one.promise for one in report.violations} == {STOPPED}
