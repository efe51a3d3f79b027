"""Rows that others tell of count once their owners have answered."""

from __future__ import annotations

from dcc.effects import Tell
from dcc.types import node_key
from dcc.wire.messages import Ack, PingReq
from tests.gossip.test_membership import MS, Bench, row


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


def test_a_member_that_moved_is_taken_in_once_its_old_address_was_silent() -> None:
    for old_answers in (False, True):
        bench = Bench("a", "b", "c")
        bench.unreachable = {"b"}
        moved = row("b", MS + 9, request="new:1", gossip="new:2", boot=(MS + 9) << 16)
        asked = [each for each in bench.gossip("a", moved) if isinstance(each, Tell)]
        assert {each.to for each in asked} == {"new:1", "b:1"}
        for boot in (MS << 16, moved.boot) if old_answers else (moved.boot,):
            bench.receive("b", Ack(seq=asked[0].request), boot=boot, request_plane=True)
        bench.pass_time(0.6)
        assert bench.held("b").request == ("b:1" if old_answers else "new:1")


def test_nobody_else_is_asked_about_a_member_that_moved() -> None:
    """They would ask the address that they know, and answer for the one that they do not."""
    bench = Bench("a", "b", "c")
    bench.unreachable = {"b"}
    moved = row("b", MS + 9, request="new:1", gossip="new:2", boot=(MS + 9) << 16)
    told = bench.gossip("a", moved) + bench.pass_time(4)
    helped = [each for each in told if isinstance(each, Tell)]
    of_b = [each for each in helped if getattr(each.message, "target", 0) == node_key("b")]
    assert not [each for each in of_b if isinstance(each.message, PingReq)]
    assert bench.held("b").request == "b:1"


def names(bench: Bench) -> list[str]:
    return [member.name for member in bench.machine.members.values()]
