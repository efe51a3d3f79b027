"""The pauses between two takings of the member table."""

from __future__ import annotations

from dcc.node.viewpace import PAUSE_MOST_NS, PAUSE_NS, PAUSES, ViewPace
from dcc.units import MILLISECOND, NEVER
from tests.support.wired_cores import Cores


def pace() -> ViewPace:
    return ViewPace(Cores("a", replicas=1)["a"].membership)


def test_nothing_is_due_after_a_taking_until_something_changes() -> None:
    views = pace()
    assert views.due
    assert views.wake_at() == 0
    views.taken(1_000)
    assert not views.due
    assert views.wake_at() == NEVER
    views.changed()
    assert views.wake_at() == 1_000 + PAUSE_NS


def test_a_costly_taking_is_followed_by_a_pause_of_several_times_its_length() -> None:
    views = pace()
    views.taken(0)
    views.moved()
    cost = 100 * MILLISECOND
    views.turned(cost, cost)
    views.turned(cost, 2 * cost)  # Only the turn right after it tells what it cost.
    views.changed()
    assert views.wake_at() == cost + PAUSES * cost


def test_the_pause_has_a_bound_whatever_the_machine_did_meanwhile() -> None:
    views = pace()
    views.taken(0)
    views.moved()
    views.turned(3_600_000 * MILLISECOND, 0)
    views.changed()
    assert views.wake_at() == PAUSE_MOST_NS
