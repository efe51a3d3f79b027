"""Two things at once in the exchange: a question and a change under way lose nothing together."""

from __future__ import annotations

from typing import Any

import pytest

from dcc.node.core import NodeCore
from dcc.ring.hashing import slot_of
from dcc.types import PREV_UNKNOWN, Kind, Record, Standing, Version
from dcc.units import MILLISECOND, SECOND
from dcc.wire.messages import (
    Compare,
    CompareRoot,
    ConvergedGet,
    ConvergedReply,
    GetReply,
    Pull,
    Replicate,
    ReplicateAck,
    SetReplicas,
    SettingsReply,
    Status,
)
from tests.support.wired_cores import Cores
from tests.support.wired_replication import Planes


def keys_of(slot: int, count: int) -> list[bytes]:
    keys = (b"x%d" % i for i in range(2_000_000))
    return [key for key in keys if slot_of(key) == slot][:count]


def test_a_gap_is_not_given_up_because_an_earlier_one_had_been_missed_for_long() -> None:
    world = Planes("a", "b", replicas=1)
    a, b = world["a"], world["b"]
    world.run(3)
    slot = slot_of(b"x1")
    keys = keys_of(slot, 5)

    def overtaken(first: bytes, second: bytes) -> None:
        """Lose the first batch for now; the second leaves a gap at b."""
        world.lost = lambda _a, _b, message: isinstance(message, Replicate)
        world.put("a", first, b"v")
        world.carry(a, a.streams.flush(world.at))
        world.lost = lambda _a, _b, _message: False
        world.put("a", second, b"v")
        world.carry(a, a.streams.flush(world.at))

    tidying = b.exchange.tidying
    world.put("a", keys[0], b"v")
    for first, second in (keys[1:3], keys[3:5]):
        while tidying.at - world.mono > 50 * MILLISECOND:
            world.step(50 * MILLISECOND)
        overtaken(first, second)
        assert b.store.has_gaps(slot)
        world.run(150)
    assert all(b.value(key, world.at) == b"v" for key in keys)


def test_an_owner_that_was_down_is_asked_about_a_ghost_once_it_is_back() -> None:
    cores = Cores("a", "d", "c", replicas=1)
    cores.settle()
    key = cores.key_of("a", "d")
    cores.put("a", key, b"v", w=2)
    cores.run(1)
    store = cores["a"].held.store
    store._memory.evict(store.tables[slot_of(key)][key])
    cores.stopped = {"d"}
    cores.until(lambda: cores["d"].key not in cores["a"].held.view.alive)
    assert _answer(cores, key).status is Status.UNSURE
    cores.stopped = set()
    cores.settle()
    cores.run(3)
    answer = _answer(cores, key)
    assert (answer.status, answer.value) == (Status.HIT, b"v")


def _answer(cores: Cores, key: bytes) -> GetReply:
    before = len(cores.replies)
    cores.get("a", key)
    cores.until(lambda: len(cores.replies) > before, 2.0)
    reply = cores.replies[-1][1]
    assert isinstance(reply, GetReply)
    return reply


def test_an_equal_root_does_not_vouch_for_what_was_deleted_after_it_was_sent() -> None:
    world = Planes("a", "b", replicas=1)
    a, b = world["a"], world["b"]
    world.run(3)
    world.put("a", b"k", b"v")
    world.run(2)
    receive = a.exchange.receive_roots
    deleted: list[Record] = []

    def delete_meanwhile(header: Any, reply: Any, now: Any) -> Any:
        if not deleted and not reply.groups:
            deleted.append(world.put("a", b"k", b"", Kind.TOMBSTONE))
            world.lost = lambda _a, to, message: (
                isinstance(message, Replicate)
                or (isinstance(message, Pull | Compare | CompareRoot) and to == a.key)
            )
        return receive(header, reply, now)

    vars(a.exchange)["receive_roots"] = delete_meanwhile
    while not deleted:
        world.step(50 * MILLISECOND)
    world.run(130)
    assert a.store.tombstones == 1, "b has not said that it has seen it"
    world.lost = lambda _a, _b, _message: False
    world.run(130)
    assert b.value(b"k", world.at) is None


def test_a_slot_is_not_released_on_the_word_of_an_owners_former_life() -> None:
    world = Planes("a", "b", "n", replicas=1)
    a, n = world["a"], world["n"]
    world.run(2)
    slot = next(slot for slot in range(16_384) if not a.held.view.owns(slot))
    (key,) = keys_of(slot, 1)
    version = Version(a.held.clock.next_stamp(world.at.ms), a.key, a.boot)
    a.store.write(slot, Record(key, Kind.VALUE, b"v", version, 0, 0), world.at.ms)
    a.exchange.leftovers.written(slot)
    world.lost = lambda x, y, _message: n.key in (x, y)
    world.run(2)
    assert world["b"].value(key, world.at) == b"v"
    world.restart("b")
    b = world["b"]
    world.lost = lambda x, y, _message: b.key in (x, y)
    world.run(3)
    assert a.value(key, world.at) == b"v"
    world.lost = lambda _a, _b, _message: False
    world.run(5)
    assert b.value(key, world.at) == n.value(key, world.at) == b"v"


def test_a_leftover_of_which_only_a_mark_is_left_is_released() -> None:
    world = Planes("a", "b", "n", replicas=1)
    a = world["a"]
    world.run(2)
    slot = next(slot for slot in range(16_384) if not a.held.view.owns(slot))
    (key,) = keys_of(slot, 1)
    world.put("b", key, b"v")
    a.store.merge_clock(slot, {}, mark=1)
    a.exchange.leftovers.written(slot)
    world.run(10)
    assert slot not in a.exchange.leftovers
    assert not a.store.slots_held()


@pytest.mark.parametrize("known", ["nothing", "it", "newer"])
def test_a_leftover_that_no_clock_will_ever_cover_is_released(known: str) -> None:
    world = Planes("a", "b", "n", replicas=1)
    a, b, n = world["a"], world["b"], world["n"]
    world.run(2)
    slot = next(slot for slot in range(16_384) if not a.held.view.owns(slot))
    key, other = keys_of(slot, 2)
    gone = Version(a.held.clock.next_stamp(world.at.ms), a.key, a.boot - 1)
    record = Record(key, Kind.VALUE, b"v", gone, 0, PREV_UNKNOWN)
    a.store.install(slot, record, world.at.ms)  # A read brought it here.
    a.exchange.leftovers.written(slot)
    if known == "it":
        b.store.install(slot, record, world.at.ms)
    elif known == "newer":
        b.held.clock.witness(gone.stamp)
        world.put("b", key, b"w")
    world.put("b", other, b"v")
    world.run(10)
    assert slot not in a.exchange.leftovers
    assert not a.store.slots_held()
    value = b"w" if known == "newer" else b"v"
    assert [plane.value(key, world.at) for plane in (b, n)] == [value, value]


def test_an_answer_asked_for_before_this_node_led_does_not_cancel_what_it_has_to_ask() -> None:
    world = Planes("a", "b", "c", replicas=2)
    a, b, c = world["a"], world["b"], world["c"]
    world.run(3)
    route = a.held.view.route
    led = [slot for slot in a.held.view.owned if route(slot)[:2] == (c.key, a.key)]
    receive = a.exchange.receive_roots
    suspected: list[bool] = []

    def suspect_meanwhile(header: Any, reply: Any, _now: Any) -> Any:
        if not suspected and header.sender == b.key:
            suspected.append(True)
            world.mono += 5 * MILLISECOND
            world.standing[c.key] = Standing.SUSPECT
            world.take_view()
            for _ in range(20):
                a.exchange.agenda._plan()
        return receive(header, reply, world.at)

    vars(a.exchange)["receive_roots"] = suspect_meanwhile
    while not suspected:
        world.step(50 * MILLISECOND)
    world.run(5)
    assert led
    assert all(a.sync.in_sync(slot, b.key) for slot in led)


def test_a_copy_that_a_stream_has_dropped_is_not_called_converged() -> None:
    cores = Cores("a", "b", "c", replicas=1)
    cores.settle()
    key, pair = cores.key_of("a", "b"), {cores["a"].key, cores["b"].key}
    cores.lost = lambda x, y, message: {x, y} == pair and not _tells_of_loss(message)
    cores.put("a", key, b"v")
    cores.run(20)
    assert cores["a"].streams.dropped
    assert not _converged(cores, "c")
    cores.lost = lambda _a, _b, _message: False
    cores.until(lambda: cores.held("b", key) == b"v", 70.0)
    cores.until(lambda: _converged(cores, "c"), 70.0)


def _tells_of_loss(message: object) -> bool:
    """Whether it is a stream's probe or what answers one."""
    return isinstance(message, ReplicateAck) or (
        isinstance(message, Replicate) and not message.records
    )


def _converged(cores: Cores, name: str) -> bool:
    before = len(cores.replies)
    cores.ask(name, ConvergedGet(), at=cores.ms + 1_000)
    cores.until(lambda: len(cores.replies) > before, 2.0)
    reply = cores.replies[-1][1]
    assert isinstance(reply, ConvergedReply)
    return reply.converged


def test_a_late_number_of_copies_does_not_undo_a_newer_one() -> None:
    cores = Cores("a", "b", replicas=1)
    cores.settle()
    asked_ms = cores.ms
    cores.run(0.5)
    for copies in (2, 0):
        cores.ask("b", SetReplicas(replicas=copies, issued_ms=cores.ms))
        cores.run(0.5)
    assert isinstance(cores.replies[-1][1], SettingsReply)
    cores.ask("a", SetReplicas(replicas=2, issued_ms=asked_ms), at=cores.ms + 5_000)
    cores.run(1)
    nodes: list[NodeCore] = list(cores.nodes.values())
    assert [core.membership.settings.replicas for core in nodes] == [0, 0]


def test_a_gap_that_nobody_can_fill_is_closed_though_a_former_owner_once_announced_the_slot() -> (
    None
):
    """Whoever has released the slot is pulled from no more, and must not be waited for."""
    cores = Cores("a", "b", "c", replicas=1)
    cores.settle()
    keys = [b"key-%d" % i for i in range(200)]
    for key in keys:
        cores.put("a", key, b"v", w=2)
    cores.run(3)
    cores.add("n")
    cores.settle()
    cores.run(30)
    a, b, n = cores["a"], cores["b"], cores["n"]
    owners = a.held.view.slots.owners
    mine = {slot_of(key): key for key in keys if set(owners(slot_of(key))) == {a.key, n.key}}
    assert any(n.sync.nudgers(slot) for slot in mine)
    for slot, key in mine.items():  # The second of two writes by b came; then b loses its memory.
        stamp = n.clock.next_stamp(cores.ms, 0)
        for core in (a, n):
            entry = core.held.store.peek(slot, key)
            assert entry is not None
            second = entry.record()._replace(
                version=Version(stamp, b.key, b.boot), prev=stamp - 1, value=b"second"
            )
            core.held.store.apply(slot, second, cores.ms)
    assert all(n.held.store.has_gaps(slot) for slot in mine)
    cores.add("b")
    cores.settle()
    cores.run(12 * n.config.exchange_interval_ns / SECOND)
    assert not any(n.held.store.has_gaps(slot) for slot in mine)
