"""The truth tables of `dcc.replication.certainty`, row by row, on real stores and pulls."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from dcc.replication.certainty import Certainty
from dcc.replication.questions import Verdict
from dcc.replication.sync import IN_SYNC
from dcc.ring.hashing import slot_of
from dcc.store.entry import BARREN
from dcc.types import NO_VERSION, Kind, NodeKey, Record, Standing, Version, node_key
from dcc.wire.messages import Op
from tests.support.wired_replication import Plane, Planes

KEY = b"key"
SLOT = slot_of(KEY)
GHOST = Record(KEY, Kind.EVICTED, b"", Version(5, 5, 5), 0, 0)


@dataclass
class Seen:
    """A cluster of three owners of every slot, seen by the primary of `SLOT` or by the second."""

    world: Planes
    route: tuple[NodeKey, ...]

    def at(self, place: int) -> tuple[Plane, Certainty]:
        plane = self.world.planes[self.route[place]]
        certainty = Certainty(plane.held, plane.sync)
        certainty.lone = False
        return plane, certainty


@pytest.fixture(scope="module")
def module_world() -> Planes:
    world = Planes("a", "b", "c", replicas=2)
    world.run(3.0)
    return world


@pytest.fixture
def seen(module_world: Planes) -> Iterator[Seen]:
    """In sync and caught up; what a test bends is mended behind it."""
    yield Seen(module_world, module_world["a"].held.view.route(SLOT))
    for plane in module_world.planes.values():
        plane.store.drop_slot(SLOT)
    module_world.standing = dict.fromkeys(module_world.planes, Standing.ALIVE)
    module_world.draining.clear()
    module_world.take_view()
    for plane in module_world.planes.values():
        plane.exchange.standstill(module_world.at)
    module_world.run(1.0)


def asked(certainty: Certainty, *, aside: bool = False) -> tuple[tuple[NodeKey, ...], bool]:
    """Return whom a miss has to ask, and whether they decide; the short form must agree."""
    inquiry = certainty.of_absence(SLOT, KEY, aside=aside)
    if certainty._view.is_primary(SLOT) and certainty.is_authoritative(SLOT, KEY):
        assert not inquiry.peers
        assert inquiry.decides
    return inquiry.peers, inquiry.decides


# ------------------------------------------------------------------ a key that is absent


def test_a_primary_in_sync_with_all_holders_asks_nobody(seen: Seen) -> None:
    _, certainty = seen.at(0)
    assert asked(certainty) == ((), True)
    assert certainty.is_authoritative(SLOT, KEY)
    assert certainty.of_listing(SLOT) == (True, False, False)
    assert certainty.of_word(SLOT)


def test_a_primary_asks_the_holders_that_it_is_not_in_sync_with(seen: Seen) -> None:
    plane, certainty = seen.at(0)
    plane.sync.standstill(seen.world.mono + 1)
    assert asked(certainty) == (tuple(sorted(seen.route[1:], key=seen.route.index)), True)
    assert not certainty.is_authoritative(SLOT, KEY)
    assert certainty.of_listing(SLOT) == (False, True, True)
    assert not certainty.of_word(SLOT)


def test_whoever_is_not_the_primary_asks_it_first(seen: Seen) -> None:
    plane, certainty = seen.at(1)
    assert asked(certainty) == (seen.route[:1], True)
    assert not certainty.of_listing(SLOT).authoritative
    assert certainty.of_word(SLOT)
    plane.sync.standstill(seen.world.mono + 1)
    peers, decides = asked(certainty)
    assert sorted(peers) == sorted((seen.route[0], seen.route[2]))
    assert decides


def test_a_ghost_is_asked_for_of_every_live_holder_until_it_is_barren(seen: Seen) -> None:
    plane, certainty = seen.at(0)
    plane.store.install(SLOT, GHOST, seen.world.at.ms)
    entry = plane.store.peek(SLOT, KEY)
    assert entry is not None
    peers, decides = asked(certainty)
    assert (set(peers), decides) == (set(seen.route[1:]), True)
    assert not certainty.is_authoritative(SLOT, KEY)
    entry.asked |= BARREN
    assert asked(certainty) == ((), True)
    assert certainty.is_authoritative(SLOT, KEY)


def test_without_a_live_owner_a_miss_is_unsure_whatever_others_say(seen: Seen) -> None:
    seen.world.draining.update(seen.world.planes)
    seen.world.take_view()
    _, certainty = seen.at(0)
    assert not asked(certainty)[1]
    assert not certainty.is_authoritative(SLOT, KEY)


def test_a_holder_that_is_down_makes_a_miss_unsure(seen: Seen) -> None:
    seen.world.standing[seen.route[2]] = Standing.DEAD
    seen.world.take_view()
    _, certainty = seen.at(0)
    assert not asked(certainty)[1]
    assert not certainty.is_authoritative(SLOT, KEY)
    assert not certainty.of_listing(SLOT).authoritative


def test_whoever_is_lone_calls_no_miss_authoritative(seen: Seen) -> None:
    _, certainty = seen.at(0)
    certainty.lone = True
    assert asked(certainty) == ((), False)
    assert not certainty.is_authoritative(SLOT, KEY)
    assert not certainty.of_listing(SLOT).authoritative
    assert not certainty.of_write(SLOT, Op.DELETE, KEY).decides


# ------------------------------------------------------------------ after a question


@pytest.mark.parametrize(
    ("answered", "agreed", "gone", "from_all", "authoritative"),
    [
        (True, True, NO_VERSION, True, True),
        (False, True, NO_VERSION, True, False),
        (True, False, NO_VERSION, True, False),
        (True, True, Version(5, 5, 5), True, False),
        (True, True, NO_VERSION, False, False),
    ],
)
def test_a_miss_is_judged_by_all_answers_and_by_the_table(
    seen: Seen, answered: bool, agreed: bool, gone: Version, from_all: bool, authoritative: bool
) -> None:
    plane, certainty = seen.at(0)
    plane.sync.standstill(seen.world.mono + 1)
    answers = dict.fromkeys(seen.route[1 : None if from_all else 2], NO_VERSION)
    verdict = Verdict(1, None, answered, answers, agreed=agreed, gone=gone)
    assert certainty.after(verdict, SLOT, KEY) == authoritative


def test_a_ghost_is_barren_once_every_holder_has_answered(seen: Seen) -> None:
    plane, certainty = seen.at(0)
    plane.store.install(SLOT, GHOST, seen.world.at.ms)
    some = Verdict(1, None, True, {seen.route[1]: NO_VERSION})
    assert not certainty.after(some, SLOT, KEY)
    assert asked(certainty)[0]
    every = Verdict(2, None, True, dict.fromkeys(seen.route[1:], NO_VERSION))
    assert certainty.after(every, SLOT, KEY)
    assert asked(certainty) == ((), True)


# ------------------------------------------------------------------ a value that is held


@pytest.mark.parametrize(
    ("place", "behind", "in_sync", "aside", "expected"),
    [
        (1, False, True, False, ()),
        (1, False, False, False, ()),
        (1, False, True, True, (2,)),
        (0, False, True, True, ()),
        (1, True, True, False, ()),
        (1, True, True, True, (2,)),
        (1, True, False, False, (0, 2)),
        (0, True, False, False, (1, 2)),
    ],
)
def test_a_value_is_served_at_once_unless_others_may_know_better(
    seen: Seen, place: int, behind: bool, in_sync: bool, aside: bool, expected: tuple[int, ...]
) -> None:
    plane, certainty = seen.at(place)
    if not in_sync:
        plane.sync.standstill(seen.world.mono + 1)
    plane.sync.behind = behind
    inquiry = certainty.of_hit(SLOT, aside=aside)
    assert sorted(inquiry.peers) == sorted(seen.route[i] for i in expected)
    assert (inquiry is IN_SYNC) == (not expected)
    assert (
        certainty.may_be_old(SLOT) == certainty.any_may_be_old([SLOT]) == (behind and not in_sync)
    )
    plane.sync.behind = False


# ------------------------------------------------------------------ a write, and a read of several


def test_a_put_asks_those_it_has_to_exceed_and_a_condition_all_who_may_know_better(
    seen: Seen,
) -> None:
    _, certainty = seen.at(1)
    assert certainty.of_write(SLOT, Op.PUT, KEY).peers == ()
    assert certainty.of_write(SLOT, Op.ADD, KEY).peers == (seen.route[0], seen.route[2])
    _, first = seen.at(0)
    assert first.of_write(SLOT, Op.ADD, KEY).peers == ()


def test_a_read_of_several_asks_like_a_miss_where_no_value_is_held(seen: Seen) -> None:
    plane, certainty = seen.at(1)
    assert certainty.of_quorum(SLOT, KEY).peers == seen.route[:1]
    value = Record(KEY, Kind.VALUE, b"v", Version(5, node_key("a"), 5), 0, 0)
    plane.store.install(SLOT, value, seen.world.at.ms)
    assert certainty.of_quorum(SLOT, KEY).peers == ()
