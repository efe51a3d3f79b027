"""A node that stood still: what it holds may be old, and it knows."""

from __future__ import annotations

from dcc.ring.hashing import slot_of
from dcc.types import Kind, Record, Version
from dcc.units import SECOND
from dcc.wire.messages import (
    Get,
    GetMany,
    GetManyReply,
    GetReply,
    Op,
    Scan,
    ScanReply,
    Status,
    Write,
)
from tests.support.wired_cores import Cores

VERSION = Version(1 << 16, 7, 1)


def stopped_and_overtaken() -> tuple[Cores, bytes]:
    """Return three nodes of which "a", the primary of the key, missed its newest write."""
    cores = Cores("a", "b", "c", replicas=2)
    cores.settle()
    key = cores.key_of("a", "b", "c")
    cores.put("a", key, b"old", w=3)
    cores.run(0.1)
    cores.stopped = {"a"}
    cores.until(lambda: cores["a"].key not in cores["b"].held.view.alive)
    (reply,) = cores.ask("b", Write(op=Op.PUT, key=key, value=b"new", w=2, direct=True))
    assert cores.held("b", key) == b"new", reply
    cores.stopped = set()
    return cores, key


def test_the_first_read_after_a_standstill_finds_what_others_wrote_meanwhile() -> None:
    cores, key = stopped_and_overtaken()
    before = len(cores.replies)
    cores.ask("a", Get(key=key))
    cores.until(lambda: len(cores.replies) > before, 1.0)
    reply = cores.replies[-1][1]
    assert isinstance(reply, GetReply)
    assert (reply.status, reply.value) == (Status.HIT, b"new")


def test_many_keys_at_once_are_not_answered_from_what_may_be_old() -> None:
    cores, key = stopped_and_overtaken()
    (reply,) = cores.ask("a", GetMany(keys=(key,)))
    assert isinstance(reply, GetManyReply)
    assert reply.statuses == bytes([Status.ELSEWHERE])


def test_a_node_that_nobody_answers_serves_what_it_has() -> None:
    cores, key = stopped_and_overtaken()
    cores.lost = lambda _a, _b, _message: True
    before = len(cores.replies)
    assert not cores.ask("a", Get(key=key))
    cores.until(lambda: len(cores.replies) > before, 1.0)
    reply = cores.replies[-1][1]
    assert isinstance(reply, GetReply)
    assert (reply.status, reply.value) == (Status.HIT, b"old")


def test_it_has_caught_up_soon_and_the_short_path_serves_again() -> None:
    cores, key = stopped_and_overtaken()
    began = cores.mono
    cores.step()
    assert cores["a"].sync.behind
    cores.until(lambda: not cores["a"].sync.behind, 10.0)
    assert cores.mono - began < 2 * SECOND
    assert cores.held("a", key) == b"new"
    assert not cores["a"].certainty.may_be_old(slot_of(key))
    reply = cores.get("a", key)
    assert reply is not None
    assert reply.value == b"new"


def test_a_listing_names_the_slots_whose_keys_may_be_deleted() -> None:
    cores, key = stopped_and_overtaken()
    scan = Scan(slots=(slot_of(key),), prefix=b"")
    cores.ask("b", Write(op=Op.DELETE, key=key, value=b"", w=2, direct=True))
    (reply,) = cores.ask("a", scan)
    assert isinstance(reply, ScanReply)
    assert (reply.keys, reply.old, reply.unsure) == ((key,), scan.slots, scan.slots)
    cores.until(lambda: not cores["a"].sync.behind, 10.0)
    (reply,) = cores.ask("a", scan)
    assert isinstance(reply, ScanReply)
    assert (reply.keys, reply.old, reply.unsure) == ((), (), ())


def test_a_listing_that_is_cut_names_the_slot_it_was_cut_in() -> None:
    cores, key = stopped_and_overtaken()
    slot = slot_of(key)
    for number in range(700):  # More than one reply holds.
        record = Record(b"%03d" % number + b"x" * 500, Kind.VALUE, b"v", VERSION, 0, -1)
        cores["a"].held.store.install(slot, record, cores.ms)
    (reply,) = cores.ask("a", Scan(slots=(slot,), prefix=b""))
    assert isinstance(reply, ScanReply)
    assert (reply.done, reply.old) == (0, (slot,))
