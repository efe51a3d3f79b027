"""The exchange between two and more holders: what is repaired, and what stays as it is."""

from __future__ import annotations

from dcc.ring.hashing import slot_of
from dcc.types import Kind, Standing
from dcc.units import MILLISECOND
from dcc.wire.messages import CompareRoot, CompareRootReply, PullReply, Replicate
from tests.support.wired_replication import Planes


def lose_replication(_source: int, _target: int, message: object) -> bool:
    return isinstance(message, Replicate)


def keys(count: int) -> list[bytes]:
    return [b"key-%d" % i for i in range(count)]


def test_a_record_whose_replication_was_lost_comes_by_the_exchange() -> None:
    world = Planes("a", "b", replicas=1)
    world.run(1)
    world.lost = lose_replication
    for key in keys(300):
        world.put("a", key, b"value of " + key)
    world.run(70)
    assert [world["b"].value(key, world.at) for key in keys(300)] == [
        b"value of " + key for key in keys(300)
    ]


def test_all_are_in_sync_after_the_first_exchange_and_then_it_is_silent() -> None:
    world = Planes("a", "b", "c", replicas=2)
    for key in keys(50):
        world.put("b", key, b"v")
    world.run(3)
    for plane in world.planes.values():
        assert plane.exchange.agenda.caught_up
        for key in keys(50):
            assert not plane.sync.unsynced(slot_of(key)).peers
    world.run(60)
    world.carried.clear()
    world.run(125)
    records = [m for m in world.carried if isinstance(m, PullReply) and m.records]
    assert records == []


def test_an_evicted_value_does_not_come_back() -> None:
    world = Planes("a", "b", replicas=1, limit_bytes=1 << 20)
    world.run(1)
    for key in keys(2_000):
        world.put("a", key, b"x" * 1_000)
        world.step(1_000_000)
    world.run(5)
    evicted = {k for k in keys(2_000) if world["b"].value(k, world.at) is None}
    assert evicted
    world.run(130)
    # What is remembered of others' clocks takes room too, so a few more may go; none may return.
    assert evicted <= {k for k in keys(2_000) if world["b"].value(k, world.at) is None}


def test_a_deleted_key_stays_deleted_where_the_delete_was_missed() -> None:
    world = Planes("a", "b", replicas=1)
    world.run(1)
    world.put("a", b"gone", b"old")
    world.run(1)
    world.lost = lose_replication
    world.put("a", b"gone", b"", Kind.TOMBSTONE)
    world.run(70)
    assert world["b"].value(b"gone", world.at) is None
    world.run(200)
    assert world["a"].store.tombstones == world["b"].store.tombstones == 0
    assert world["b"].value(b"gone", world.at) is None


def test_a_node_that_comes_is_filled_and_the_former_owners_release() -> None:
    world = Planes("a", "b", "c", "d", replicas=1)
    world.standing[world["d"].key] = Standing.LEFT
    world.take_view()
    world.run(1)
    for key in keys(500):
        world.put("a", key, b"value of " + key)
    world.run(5)
    world.standing[world["d"].key] = Standing.ALIVE
    world.take_view()
    world.run(10)
    held = 0
    for key in keys(500):
        owners = world["a"].held.view.slots.owners(slot_of(key))
        for owner, plane in world.planes.items():
            expected = b"value of " + key if owner in owners else None
            assert plane.value(key, world.at) == expected
            held += expected is not None
    assert held == 1_000


def test_a_draining_node_hands_over_everything_and_is_left_with_nothing() -> None:
    world = Planes("a", "b", "c", replicas=1)
    world.run(1)
    for key in keys(400):
        world.put("b", key, b"v" + key)
    world.run(5)
    world.draining.add(world["b"].key)
    world.take_view()
    world.run(10)
    assert world["b"].store.slots_held() == []
    for key in keys(400):
        assert world["a"].value(key, world.at) == world["c"].value(key, world.at) == b"v" + key


def test_a_stand_in_hands_over_what_it_took_when_the_owner_is_back() -> None:
    world = Planes("a", "b", "c", replicas=1)
    world.run(2)
    world.standing[world["b"].key] = Standing.SUSPECT
    world.take_view()
    for key in keys(300):
        world.put("a", key, b"v" + key)
    world.run(2)
    world.standing[world["b"].key] = Standing.ALIVE
    world.take_view()
    world.run(10)
    for key in keys(300):
        for owner in world["a"].held.view.slots.owners(slot_of(key)):
            assert world.planes[owner].value(key, world.at) == b"v" + key
    for plane in world.planes.values():
        assert not plane.exchange.leftovers


def test_a_slot_larger_than_a_frame_comes_in_pieces_and_whole() -> None:
    world = Planes("a", "b", replicas=1)
    slot = slot_of(b"key-0")
    many = [k for k in keys(400_000) if slot_of(k) == slot]
    world.lost = lose_replication
    for key in many:
        world.put("a", key, b"z" * 9_000)
    world.run(80)
    assert len(many) * 9_000 > 64 * 1024
    assert [world["b"].value(k, world.at) for k in many] == [b"z" * 9_000] * len(many)
    assert world["b"].sync.in_sync(slot, world["a"].key)


def test_the_clocks_of_boots_that_are_gone_are_folded_without_a_word_about_the_data() -> None:
    world = Planes("a", "b", "c", replicas=2)
    world.run(2)
    for life in range(4):
        for key in keys(50):
            world.put("b", b"%d-" % life + key, b"v")
        world.run(2)
        world.restart("b")
        world.run(4)
    slots = {slot_of(b"%d-" % life + key) for life in range(4) for key in keys(50)}
    assert all(world["a"].store.clock(slot) for slot in slots)
    before = world["a"].store.bytes_used
    world.carried.clear()
    world.run(800, 500 * MILLISECOND)
    assert not [r for m in world.carried if isinstance(m, PullReply) for r in m.records]
    for plane in world.planes.values():
        assert plane.store.clock_origins() == ()
        for life in range(4):
            assert all(plane.value(b"%d-" % life + key, world.at) == b"v" for key in keys(50))
    assert world["a"].store.bytes_used < before
    world.carried.clear()
    world.run(130, 500 * MILLISECOND)
    assert {type(m) for m in world.carried} == {CompareRoot, CompareRootReply}


def test_a_newcomer_gets_the_values_of_boots_whose_clocks_were_folded() -> None:
    world = Planes("a", "b", "c", replicas=2)
    world.run(2)
    for key in keys(50):
        world.put("b", key, b"v")
    world.run(2)
    world.restart("b")
    world.run(800, 500 * MILLISECOND)
    world.restart("c")
    world.run(5)
    assert all(world["c"].value(key, world.at) == b"v" for key in keys(50))
    world.carried.clear()
    world.run(130, 500 * MILLISECOND)
    assert {type(m) for m in world.carried} == {CompareRoot, CompareRootReply}
