"""The Merkle trees over what was seen, and what they save the exchange."""

from __future__ import annotations

import pytest

from dcc.limits import GROUP_COUNT
from dcc.replication.merkle import NOT_KNOWN, NOTHING, REFRESH_SLOTS, differing
from dcc.ring.hashing import slot_of
from dcc.units import SECOND
from dcc.wire.codec import Codec
from dcc.wire.messages import (
    Compare,
    CompareReply,
    CompareRoot,
    CompareRootReply,
    Message,
    Pull,
    PullReply,
    Replicate,
)
from tests.support.wired_cores import Cores
from tests.support.wired_replication import Planes


def keys(count: int) -> list[bytes]:
    return [b"key-%d" % i for i in range(count)]


def filled(count: int = 200) -> Planes:
    world = Planes("a", "b", "c", replicas=2)
    for key in keys(count):
        world.put("a", key, b"v")
    world.run(3)
    return world


def test_nodes_that_have_seen_the_same_have_equal_roots() -> None:
    world = filled()
    a, b, c = world["a"], world["b"], world["c"]
    assert a.exchange.trees.root(b.key) == b.exchange.trees.root(a.key) != NOT_KNOWN
    assert b.exchange.trees.root(c.key) == c.exchange.trees.root(b.key) != NOTHING


@pytest.mark.parametrize("lost", [{7}, set(range(20)), {3, 31, 314}])
def test_the_groups_that_differ_are_those_of_the_slots_that_do(lost: set[int]) -> None:
    world = filled(20)
    a, b = world["a"], world["b"]
    world.lost = lambda _a, _b, message: isinstance(message, Replicate)
    written = {slot_of(world.put("a", b"late-%d" % i, b"v").key) for i in sorted(lost)}
    for plane in (a, b):
        while not plane.exchange.trees.refresh():
            pass
    found = differing(a.exchange.trees.groups(b.key), b.exchange.trees.groups(a.key))
    assert set(found) == {slot % GROUP_COUNT for slot in written}
    a.exchange.trees.check()


def test_a_root_is_not_told_while_leaves_are_missing_and_their_groups_equal_nothing() -> None:
    world = filled(20)
    a, b = world["a"], world["b"]
    for key in keys(4 * REFRESH_SLOTS):
        world.put("a", b"more-" + key, b"v")
    assert a.exchange.trees.root(b.key) == NOT_KNOWN
    groups = a.exchange.trees.groups(b.key)
    dirty = {slot % GROUP_COUNT for slot in a.store.changed}
    assert {group for group, one in enumerate(groups) if one == NOT_KNOWN} == dirty
    assert set(differing(groups, groups)) == dirty


def test_nodes_tell_their_roots_and_find_a_lost_write_long_before_the_round() -> None:
    """The whole way: lost each time it is sent, told by pings and acks, looked into, pulled."""
    cores = Cores("a", "b", replicas=1)
    cores.settle()
    key = cores.key_of("a", "b")
    cores.lost = lambda _source, _to, message: isinstance(message, Replicate)
    cores.put("a", key, b"v")
    cores.run(0.1)
    assert cores.held("b", key) is None
    cores.until(lambda: cores.held("b", key) is not None, 8)
    assert cores.held("b", key) == b"v"


def test_an_idle_pair_compares_roots_alone_in_less_than_a_kilobyte_a_round() -> None:
    world = filled()
    world.run(130)
    world.carried.clear()
    world.run(61)
    assert {type(message) for message in world.carried} == {CompareRoot, CompareRootReply}
    pairs = 3  # Their roots ride on pings and acks, 9 bytes each, round or not.
    codec = Codec("dcc", sender=1 << 63, boot=1 << 57)
    size = sum(wire_bytes(codec, message) for message in world.carried)
    assert 0 < size / pairs < 1024, size


def wire_bytes(codec: Codec, message: object) -> int:
    assert isinstance(message, Message)
    return sum(map(len, codec.encode(message, epoch=1 << 63, request=1 << 62)))


def test_a_root_that_goes_on_to_differ_is_looked_into_long_before_the_round() -> None:
    world = filled()
    a, b = world["a"], world["b"]
    world.lost = lambda _a, _b, message: isinstance(message, Replicate)
    world.put("a", b"lost", b"v")
    world.run(6)  # Given up by the stream; no later write tells of a gap.
    world.lost = lambda _a, _b, _message: False
    assert b.value(b"lost", world.at) is None
    began = world.mono
    while b.value(b"lost", world.at) is None and world.mono < began + 10 * SECOND:
        b.exchange.root_heard(a.key, a.exchange.trees.root(b.key), world.at)
        world.run(0.2)
    assert world.mono - began < 2 * SECOND
    assert b.exchange.divergences == 1


def test_a_difference_that_goes_away_by_itself_costs_nothing() -> None:
    world = filled()
    a, b = world["a"], world["b"]
    world.put("a", b"under way", b"v")
    b.exchange.root_heard(a.key, a.exchange.trees.root(b.key), world.at)
    world.run(0.5)
    b.exchange.root_heard(a.key, a.exchange.trees.root(b.key), world.at)
    world.carried.clear()
    world.run(3)
    assert not [m for m in world.carried if isinstance(m, CompareRoot | Compare | Pull)]


def test_one_slot_that_differs_costs_its_group_and_one_pull() -> None:
    world = filled()
    world.run(130)
    world.lost = lambda _a, _b, message: isinstance(message, Replicate)
    world.put("a", b"lost", b"v")
    world.run(6)
    world.lost = lambda _a, _b, _message: False
    world.carried.clear()
    world.run(61)
    compared = [m for m in world.carried if isinstance(m, Compare)]
    assert compared
    assert all(len(m.slots) <= 2 * GROUP_COUNT for m in compared), "a group, not the ring"
    records = [r for m in world.carried if isinstance(m, PullReply) for r in m.records]
    assert {record.key for record in records} == {b"lost"}
    assert all(len(m.differ) <= 1 for m in world.carried if isinstance(m, CompareReply))
    assert world["c"].value(b"lost", world.at) == b"v"
