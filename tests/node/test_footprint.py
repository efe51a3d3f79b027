"""The limit is the process's: what grows beside the store is counted, and makes values go."""

from __future__ import annotations

from dcc.node.core import NodeCore
from dcc.replication.once import KEEP_NS
from dcc.types import node_key
from dcc.units import KIB, MIB, SECOND
from dcc.wire.codec import Codec
from dcc.wire.messages import (
    Code,
    ErrorReply,
    Get,
    GetReply,
    Op,
    Outcome,
    Write,
    WriteMany,
    WriteReply,
)
from tests.support.wired_cores import Cores


def alone() -> Cores:
    """Return a node that serves."""
    cores = Cores("a", replicas=0)
    cores.settle()
    return cores


def used(core: NodeCore, name: str) -> int:
    [row] = [row for row in core.footprint.rows if row.name == name]
    return row.used()


def filled(core: NodeCore) -> None:
    """Assert that all is within its bounds, and the sum within the limit."""
    core.check()
    assert core.footprint.bytes_used <= core.footprint.bytes_max


def test_recycled_clients_leave_nothing_behind_and_take_their_share_meanwhile() -> None:
    cores = alone()
    core = cores["a"]
    for client in range(60):
        codec = Codec("dcc", sender=1_000 + client, boot=7)
        for request in range(1, 201):
            write = Write(op=Op.PUT, key=b"k%d" % (request % 50), value=bytes(2_000))
            cores.feed("a", codec.encode(write, request=request))
        cores.step()
        filled(core)
    assert used(core, "recent_writes") > core.config.remembered_bytes_max * 9 // 10
    cores.run(KEEP_NS / SECOND + 1)
    assert used(core, "recent_writes") < 60 * KIB


def test_values_make_room_for_what_grows_beside_them() -> None:
    cores = alone()
    core = cores["a"]
    for i in range(200):
        cores.put("a", b"k%d" % i, bytes(64 * KIB))
    full = core.held.store.bytes_used
    core.load.replies_bytes = MIB
    cores.step()
    filled(core)
    assert core.held.store.item_bytes < full - MIB + 64 * KIB


def test_a_value_that_can_never_fit_is_refused_not_acknowledged() -> None:
    cores = alone()
    [refused] = cores.put("a", b"k", bytes(7 * MIB + 1))
    assert isinstance(refused, ErrorReply)
    assert refused.code is Code.VALUE_TOO_LARGE
    [stored] = cores.put("a", b"k", bytes(6 * MIB))
    assert isinstance(stored, WriteReply)
    found = cores.get("a", b"k")
    assert isinstance(found, GetReply)
    assert len(found.value) == 6 * MIB


def test_a_value_for_which_there_is_no_room_just_now_is_refused_as_overload() -> None:
    cores = alone()
    core = cores["a"]
    core.load.replies_bytes = 2 * MIB
    cores.step()
    [refused] = cores.put("a", b"k", bytes(6 * MIB))
    assert isinstance(refused, ErrorReply)
    assert refused.code is Code.OVERLOADED
    core.load.replies_bytes = 0
    cores.step()
    [stored] = cores.put("a", b"k", bytes(6 * MIB))
    assert isinstance(stored, WriteReply)
    assert stored.outcome is Outcome.DONE


def test_writes_that_wait_for_a_silent_owner_are_bounded_in_bytes() -> None:
    cores = Cores("a", "b", replicas=1)
    cores.settle()
    core = cores["a"]
    cores.stopped.add("b")
    cores.lost = lambda _a, to, _message: to == node_key("b")
    refused = [
        answer.code
        for i in range(40)
        for answer in cores.put("a", cores.fresh_key("a", "b"), bytes(100 * KIB) + b"%d" % i, w=2)
        if isinstance(answer, ErrorReply)
    ]
    assert refused
    assert set(refused) == {Code.OVERLOADED}
    filled(core)
    assert used(core, "waiting_values") <= core.config.waiting_bytes_max
    assert used(core, "replication_queues") <= core.config.queues_bytes_max


def test_what_one_message_brings_to_wait_for_copies_keeps_to_the_limit() -> None:
    """The rest is left to single writes, which are refused while there is no room."""
    cores = Cores("a", "b", replicas=1)
    cores.settle()
    cores.stopped.add("b")
    cores.lost = lambda _a, to, _message: to == node_key("b")
    items = tuple((cores.fresh_key("a", "b"), bytes(3 * MIB)) for _ in range(4))
    cores.ask("a", WriteMany(op=Op.PUT, items=items, w=2))
    cores.step()
    assert 0 < used(cores["a"], "replication_queues") <= 7 * MIB
    filled(cores["a"])


def test_reads_are_still_served_while_writes_wait() -> None:
    cores = alone()
    cores.put("a", b"k", b"v")
    cores["a"].load.replies_bytes = MIB
    cores.step()
    assert [reply.value for reply in cores.ask("a", Get(key=b"k")) if isinstance(reply, GetReply)]


def test_the_books_are_shown_with_their_bounds() -> None:
    cores = alone()
    detail = cores["a"].stats(cores.now)["detail"]
    assert detail["memory_bytes"].keys() == detail["memory_bound_bytes"].keys()
    assert "recent_writes" in detail["memory_bytes"]
