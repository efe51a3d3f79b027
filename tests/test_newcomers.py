"""Rows that others tell of count once their owners have answered."""

from __future__ import annotations

from dcc.effects import Tell
from dcc.types import node_key
from tests.test_membership_rules import MS, Bench, row


def test_a_row_that_somebody_else_tells_of_is_believed_once_its_owner_answers() -> None:
    bench = Bench("a")
    bench.unreachable = {"x"}
    bench.gossip("a", row("x"), row("y"))
    assert set(names(bench)) == {"me", "a", "y"}


def test_invented_rows_are_asked_a_few_at_a_time_and_forgotten() -> None:
    bench = Bench("a")
    bench.unreachable = {f"x{i}" for i in range(200)}
    told = bench.push_pull(row("a"), *[row(f"x{i}") for i in range(200)])
    told += bench.pass_time(30)
    assert set(names(bench)) == {"me", "a"}
    asked = [each for each in told if isinstance(each, Tell) and str(each.to).startswith("x")]
    assert {str(each.to) for each in asked} == {f"x{i}:1" for i in range(200)}
    assert bench.machine._newcomers.wake_at() > bench.now, "all are forgotten"


def test_who_speaks_for_itself_is_asked_before_those_that_others_tell_of() -> None:
    bench = Bench("a")
    bench.unreachable = {f"x{i}" for i in range(500)}
    bench.gossip("a", *[row(f"x{i}") for i in range(400)])
    bench.push_pull(row("b"))
    told = bench.pass_time(3.5)
    asked = [str(each.to) for each in told if isinstance(each, Tell) and each.to == "b:1"]
    assert asked, "as soon as one of those before has had its time"


def test_a_member_is_not_moved_by_somebody_elses_word() -> None:
    bench = Bench("a", "b")
    moved = row("b", MS + 9, request="no:1", gossip="no:2", boot=(MS + 9) << 16)
    bench.unreachable = {"b"}
    bench.gossip("a", moved)
    bench.pass_time(5)
    assert bench.machine.members[node_key("b")].request == "b:1"


def names(bench: Bench) -> list[str]:
    return [member.name for member in bench.machine.members.values()]
