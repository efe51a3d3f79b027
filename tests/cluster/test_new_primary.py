"""Whoever takes a slot over asks before it calls a key absent: the last copy may be elsewhere."""

from __future__ import annotations

from dcc.replication.questions import QUESTION_NS
from dcc.types import NodeKey, node_key
from dcc.units import SECOND
from dcc.wire.messages import (
    Fetch,
    FetchReply,
    Get,
    Message,
    Outcome,
    Replicate,
    Status,
    WriteReply,
)
from tests.support.wired_cores import Cores


def test_a_new_primary_finds_the_write_that_only_the_other_replica_got() -> None:
    cores = Cores("c", "r1", "r2", replicas=2)
    cores.settle()
    key = cores.key_of("c", "r2", "r1")
    _lose_replication(cores, "c", "r2")
    (reply,) = cores.put("c", key, b"v", w=2)
    assert isinstance(reply, WriteReply)
    assert reply.outcome is Outcome.DONE
    assert cores.held("r1", key) == b"v"
    assert cores.held("r2", key) is None
    cores.stopped = {"c"}
    _lose_all_but_questions(cores)
    slot_view = cores["r2"].held.view
    cores.until(lambda: node_key("c") not in slot_view.alive)
    assert cores.held("r2", key) is None, "nothing repaired it meanwhile"
    before = len(cores.replies)
    cores.ask("r2", Get(key=key))
    cores.run(2 * QUESTION_NS / SECOND)
    (answer,) = [message for _name, message in cores.replies[before:]]
    assert (getattr(answer, "status", None), getattr(answer, "value", None)) == (Status.HIT, b"v")


def _lose_replication(cores: Cores, source: str, target: str) -> None:
    pair = (node_key(source), node_key(target))

    def lost(a: NodeKey, b: NodeKey, message: Message) -> bool:
        return (a, b) == pair and isinstance(message, Replicate)

    cores.lost = lost


def _lose_all_but_questions(cores: Cores) -> None:
    """Repair would make the test pass by itself, only later."""

    def lost(_a: NodeKey, _b: NodeKey, message: Message) -> bool:
        data = type(message).__module__ == "dcc.wire.messages" and _is_data(message)
        return data and not isinstance(message, Fetch | FetchReply)

    cores.lost = lost


def _is_data(message: Message) -> bool:
    return type(message).__name__.startswith(("Pull", "Compare", "Nudge", "Replicate", "Root"))
