"""The view that one node has of the others, and what it tells them of it."""

from __future__ import annotations

from dcc.replication.view import View
from dcc.types import Member, Standing, node_key

NAMES = ("a", "b", "c")
A, B, C = map(node_key, NAMES)


def seen_by_a(b_is: Standing) -> View:
    view = View(A)
    standing = dict.fromkeys((A, B, C), Standing.ALIVE) | {B: b_is}
    members = {
        node_key(name): Member(
            name, "h:1", "h:2", "", 1.0, 1 << 20, 1, standing[node_key(name)], 0, draining=False
        )
        for name in NAMES
    }
    view.update(members, 1, 1)
    return view


def test_a_member_that_is_down_here_is_told_no_epoch() -> None:
    for standing in (Standing.SUSPECT, Standing.DEAD):
        view = seen_by_a(standing)
        assert view.epoch_for(B) == 0 != view.epoch
        assert view.epoch_for(C) == view.epoch


def test_whoever_lives_and_whoever_is_no_member_are_told_the_epoch() -> None:
    view = seen_by_a(Standing.ALIVE)
    assert view.epoch_for(B) == view.epoch_for("h:1") == view.epoch_for(99) == view.epoch != 0
