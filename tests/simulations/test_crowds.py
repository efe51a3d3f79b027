"""Clients with many calls at a time, in the simulated world; and bugs of theirs that are seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from dcc.client.dispatch import Dispatcher
from dcc.client.flights import Flight, Question, Turn
from dcc.client.many import ChangeMany
from dcc.types import Now
from dcc.units import MILLISECOND, SECOND
from dcc.wire.codec import HEADER_FIELDS, PREFIX_BYTES
from dcc.wire.messages import WriteMany, WriteManyReply
from simulations import draws
from simulations.faults import Pause, Restart
from simulations.runs import run
from simulations.scenario import WARM_UP_NS, Scenario
from simulations.workload import WorkloadSettings
from tests.support.planting import first_broken

SMALL = Scenario(
    seed=1,
    nodes=3,
    replicas=1,
    faults_ns=12 * SECOND,
    liveness_ns=60 * SECOND,
    workload=WorkloadSettings(clients=0, crowds=2, keys=24, pause_ns=60 * MILLISECOND),
    faults=(
        Pause(at_ns=WARM_UP_NS + 2 * SECOND, lasts_ns=700 * MILLISECOND, node="n1"),
        Pause(at_ns=WARM_UP_NS + 5 * SECOND, lasts_ns=2 * SECOND, node="n2"),
        Restart(at_ns=WARM_UP_NS + 9 * SECOND, lasts_ns=500 * MILLISECOND, node="n0", silent=False),
    ),
)


@pytest.mark.parametrize("seed", range(1, 4))
def test_many_calls_at_a_time_break_no_promise(seed: int) -> None:
    report = run(replace(SMALL, seed=seed))
    assert report.violations == []
    assert len(report.history) > 1_000
    ends = {entry.error for entry in report.history}
    assert {"", "Cancelled"} <= ends


@pytest.mark.parametrize("seed", [1, 2])
def test_many_calls_at_a_time_under_drawn_faults(seed: int) -> None:
    assert run(draws.draw_scenario(seed, "crowds")).violations == []


# ------------------------------------------------------------------ planted bugs


def answers_by_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node's answer is taken for its oldest question, whatever number it has."""
    take_plain: Any = Dispatcher._take_plain

    def mutant(self: Any, address: str, frame: bytes, now: Now) -> bool:
        items = self._fast.unpack(frame)
        open_ones = [one for one in self._routes.values() if isinstance(one, Question)]
        first = next((one for one in open_ones if one.address == address), None)
        if items and first is not None:
            items[HEADER_FIELDS - 2] = first.request
            frame = frame[:PREFIX_BYTES] + self._fast._pack(items)
        return bool(take_plain(self, address, frame, now))

    monkeypatch.setattr(Dispatcher, "_take_plain", mutant)


def versions_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """The puts of one message are told each other's versions."""
    answered: Any = ChangeMany.answered

    def mutant(self: Any, attempt: Any, header: Any, message: Any, now: Now) -> None:
        if isinstance(message, WriteManyReply):
            message = replace(message, stamps=message.stamps[::-1])
        answered(self, attempt, header, message, now)

    monkeypatch.setattr(ChangeMany, "answered", mutant)


def puts_sent_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts that were not answered soon are sent once more, as new ones."""
    overdue: Any = Dispatcher._overdue

    def mutant(self: Any, what: Any, now: Now) -> None:
        request = getattr(what.call._root, "_request", None) if isinstance(what, Flight) else None
        if isinstance(request, WriteMany) and what.is_wanted:
            weight = len(what.waiters())
            if self.in_flight + weight <= self._in_flight_max:
                self.in_flight += weight
                self._fly(request, what.call.deadline, now, by_key=dict(what.by_key))
        overdue(self, what, now)

    monkeypatch.setattr(Dispatcher, "_overdue", mutant)


def cancelled_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was cancelled before its turn was over is sent all the same."""
    monkeypatch.setattr(Turn, "drop_given_up", lambda self: None)


def time_begins_when_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has waited for room has its whole time from then on."""
    split: Any = Turn.split

    def mutant(self: Any, count: int) -> Turn:
        part: Turn = split(self, count)
        part.deadline += 300 * MILLISECOND
        return part

    monkeypatch.setattr(Turn, "split", mutant)


PLANTED: dict[Callable[[pytest.MonkeyPatch], None], str] = {
    answers_by_order: "provenance",
    versions_of_others: "a put is told its own version",
    puts_sent_anew: "a write happens once",
    cancelled_are_sent: "provenance",
    time_begins_when_sent: "every call ends by its deadline",
}


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_planted_bug_of_the_dispatcher_is_caught(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    broken = first_broken(lambda seed: run(replace(SMALL, seed=seed)).violations, seeds=10)
    assert PLANTED[plant] in broken
