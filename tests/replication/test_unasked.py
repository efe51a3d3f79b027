"""Who was not there when a slot was folded, or forgotten, is asked before the slot binds it."""

from __future__ import annotations

from dcc.replication.unasked import Unasked
from dcc.replication.view import View
from dcc.ring.hashing import slot_of
from dcc.store.clocks import BASE
from dcc.store.store import Applied, Store
from dcc.types import PREV_UNKNOWN, Kind, Member, NodeKey, Record, Standing, Version, node_key
from dcc.units import MIB
from tests.support.wired_replication import Plane, Planes

A, B, C = map(node_key, "abc")
BOOT = 7
SLOT = 3


class Seen:
    """What node `a` believes, with a store whose slot may have a base."""

    def __init__(self, *others: str) -> None:
        self.view = View(A)
        self.store = Store(memory_limit_bytes=MIB)
        self.unasked = Unasked(self.view, self.store, (A, BOOT))
        self.standing = dict.fromkeys(("a", *others), Standing.ALIVE)
        self.look()

    def look(self) -> None:
        members: dict[NodeKey, Member] = {
            node_key(name): Member(
                name, "h:1", "h:2", "", 1.0, BOOT, 1, standing, 0, draining=False
            )
            for name, standing in self.standing.items()
        }
        self.view.update(members, 2, 1)
        self.unasked.view_changed()
        self.unasked.check()

    def fold(self) -> None:
        self.store.merge_clock(SLOT, {(B, BOOT - 1): 50, (B, BOOT): 90})
        assert self.store.fold(SLOT, lambda origin: origin == (B, BOOT - 1), 60)
        self.unasked.bound(SLOT)


def test_who_comes_later_is_asked_with_a_clock_of_own_writes_alone() -> None:
    a = Seen("b")
    a.fold()
    assert not a.unasked.aside, "b was there"
    clock = a.store.clock(SLOT)
    assert clock == {BASE: 50, (B, BOOT): 90}
    a.standing["c"] = Standing.ALIVE
    a.look()
    assert a.unasked.of(C) == a.unasked.aside == {SLOT}
    assert a.unasked.holders(SLOT) == [C]
    assert a.unasked.clock_for(SLOT, C) == {BASE: 1}, "b may have it from c, who was not asked here"
    assert a.unasked.told(SLOT) == {(B, BOOT): 90}
    assert a.unasked.clock_for(SLOT, B) == clock
    a.unasked.asked(SLOT, C)
    assert not a.unasked.aside
    assert a.unasked.told(SLOT) == clock
    a.look()
    assert not a.unasked.aside, "once is enough"


def test_who_is_down_when_a_slot_is_bound_is_asked_when_it_is_back() -> None:
    a = Seen("b", "c", "d")
    a.standing |= {"c": Standing.DEAD, "d": Standing.LEFT}
    a.look()
    a.fold()
    assert a.unasked.of(C) == {SLOT}
    assert not a.unasked.of(node_key("d")), "who has left has handed over what it had"
    assert not a.unasked.aside, "there is nobody to ask"
    a.standing["c"] = Standing.ALIVE
    a.look()
    assert a.unasked.aside == {SLOT}


def test_who_was_forgotten_is_a_stranger_when_it_comes_back() -> None:
    a = Seen("b", "c")
    a.fold()
    assert not a.unasked.of(C)
    del a.standing["c"]
    a.look()
    a.standing["c"] = Standing.ALIVE
    a.look()
    assert a.unasked.of(C) == {SLOT}


def test_a_gap_that_was_closed_binds_as_a_base_does() -> None:
    a = Seen("b")
    a.store.merge_clock(SLOT, {(B, BOOT - 1): 50, (B, BOOT): 90})
    a.unasked.bound(SLOT, closed=True)
    a.standing["c"] = Standing.ALIVE
    a.look()
    assert a.unasked.of(C) == {SLOT}
    a.store.merge_clock(SLOT, {(A, BOOT): 70})
    assert a.unasked.clock_for(SLOT, C) == {BASE: 1, (A, BOOT): 70}
    a.unasked.dropped(SLOT)
    assert not a.unasked.aside


def test_what_only_a_base_covers_is_taken_from_who_was_asked_without_it() -> None:
    store = Store(memory_limit_bytes=MIB)
    store.merge_clock(SLOT, {BASE: 50, (B, BOOT): 90})
    theirs = Record(b"k", Kind.VALUE, b"v", Version(40, C, BOOT), 0, PREV_UNKNOWN)
    seen = Record(b"l", Kind.VALUE, b"v", Version(80, B, BOOT), 0, PREV_UNKNOWN)
    asked = {BASE: 1, (B, BOOT): 90}
    assert store.apply(SLOT, theirs, 0) is Applied.COVERED
    assert store.apply(SLOT, seen, 0, asked=asked) is Applied.COVERED
    assert store.apply(SLOT, theirs, 0, asked=asked) is Applied.NEWER
    store.check()


def test_a_stranger_is_pulled_from_whatever_the_base_says_and_hears_of_it_only_then() -> None:
    world = Planes("a", "b", replicas=2)
    world.run(2)
    stranger = world.planes[C] = Plane("c")
    members = {C: Member("c", "h:1", "h:2", "", 1.0, stranger.boot, 1, Standing.ALIVE, 0, False)}
    stranger.held.view.update(members, 2, world.mono)
    world.put("c", b"k", b"theirs")
    slot = slot_of(b"k")
    base = stranger.held.clock.last + 1
    for name in ("a", "b"):
        world[name].store.merge_clock(slot, {BASE: base})
    world.standing[C] = Standing.ALIVE
    world.take_view()
    for name in ("a", "b"):
        held = world[name].held
        assert held.unasked.aside == {slot}
        assert held.digest(slot) != held.store.comparison.digest(slot)
    world.run(3)
    for name in ("a", "b", "c"):
        held = world[name].held
        assert world[name].value(b"k", world.at) == b"theirs", name
        assert not held.unasked.aside
        assert held.store.comparison.base(slot) == base
