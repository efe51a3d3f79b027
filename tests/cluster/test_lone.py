"""A node that knows too few others does not call a key absent: they may have it."""

from __future__ import annotations

from dcc.replication.questions import Verdict
from dcc.ring.hashing import slot_of
from dcc.types import NO_VERSION, node_key
from dcc.units import SECOND
from dcc.wire.messages import (
    Get,
    GetMany,
    GetManyReply,
    GetReply,
    Op,
    Outcome,
    Scan,
    ScanReply,
    Status,
    Topology,
    TopologyGet,
    Write,
    WriteReply,
)
from tests.support.wired_cores import Cores


def test_a_founder_is_sure_of_what_it_lacks_once_others_must_have_looked_for_it() -> None:
    cores = Cores("a", replicas=1)
    assert status_of(cores, "a", b"key") is Status.UNSURE
    assert statuses_of(cores, "a", b"key") == [Status.UNSURE]
    assert not told_ready(cores, "a"), "who knows another ring keeps it"
    slot = slot_of(b"here")
    cores.put("a", b"here", b"value")
    assert status_of(cores, "a", b"here") is Status.HIT
    assert listed(cores, "a", slot) == ((b"here",), (slot,)), "another owner may list more"
    config = cores["a"].config
    cores.run((config.reconnect_interval_ns + config.protocol_period_ns) / SECOND + 0.5)
    assert status_of(cores, "a", b"key") is Status.MISS
    assert statuses_of(cores, "a", b"key") == [Status.MISS]
    assert listed(cores, "a", slot) == ((b"here",), ())
    assert told_ready(cores, "a")


def test_a_founder_that_others_have_joined_is_sure_at_once() -> None:
    cores = Cores("a", "b", replicas=1)
    cores.settle()
    assert status_of(cores, "a", cores.key_of("a", "b")) is Status.MISS
    assert told_ready(cores, "a")


def test_a_restart_without_seeds_makes_no_key_absent() -> None:
    cores = Cores("a", "b", "c", replicas=1)
    cores.settle()
    keys = [b"key-%d" % i for i in range(300)]
    for key in keys:
        cores.put("b", key, b"value", w=2)
    cores.until(lambda: len(cores.replies) == len(keys))
    cores.add("a", seeded=False)
    wrong: list[tuple[bytes, str]] = []

    def looked() -> bool:
        for key in keys[:: len(keys) // 30]:
            for name in cores.nodes:
                answer = cores.get(name, key)
                if answer is not None and answer.status is Status.MISS:
                    wrong.append((key, name))
        return cores.settled()

    assert status_of(cores, "a", keys[0]) is Status.UNSURE, "nobody has found it yet"
    cores.until(looked)
    assert wrong == []
    assert [key for key in keys if settled_status(cores, "a", key) is not Status.HIT] == []


def test_a_delete_at_a_lone_node_reaches_what_it_cannot_see() -> None:
    cores = Cores("a", "b", replicas=1)
    cores.settle()
    key = cores.key_of("a", "b")
    cores.put("a", key, b"value", w=2)
    cores.run(0.1)
    assert cores.held("b", key) == b"value"
    a = cores.add("a", seeded=False)
    cores.until(lambda: a.machines.serving, 5.0)
    assert a.certainty.lone
    (reply,) = cores.ask("a", Write(op=Op.DELETE, key=key))
    assert isinstance(reply, WriteReply)
    assert reply.outcome is Outcome.NOT_DONE, "it found nothing to delete"
    cores.settle()
    cores.run(5.0)
    assert (cores.held("a", key), cores.held("b", key)) == (None, None)


def test_an_answer_from_another_ring_settles_no_absence() -> None:
    cores, key = half_met()
    assert b"value" not in (cores.held("a", key), cores.held("b", key))
    assert settled_status(cores, "a", key) is not Status.MISS


def test_a_miss_is_judged_by_the_ring_at_its_end() -> None:
    cores, key = half_met()
    a = cores["a"]
    verdict = Verdict(1, None, True, {node_key("b"): NO_VERSION})
    assert a.certainty.after(verdict, slot_of(key), key), "as far as it knew"
    cores.lost = lambda _s, _t, _m: False
    cores.until(lambda: node_key("c") in a.held.view.boots)
    assert not a.certainty.after(verdict, slot_of(key), key)


def half_met() -> tuple[Cores, bytes]:
    """Return a cluster whose "a" was restarted and has met "b" only, and a key that "c" has."""
    cores = Cores("a", "b", "c", replicas=1)
    cores.settle()
    key = cores.key_of("a", "c")
    cores.put("a", key, b"value", w=2)
    cores.run(0.1)
    cores.add("a", seeded=False)
    cores.lost = lambda source, target, _m: node_key("c") in (source, target)
    view = cores["a"].held.view
    cores.until(lambda: node_key("b") in view.boots)
    assert node_key("c") not in view.boots
    return cores, key


def status_of(cores: Cores, name: str, key: bytes) -> Status:
    """Return how a read at a node ends that can be answered at once."""
    answer = cores.get(name, key)
    assert answer is not None
    return answer.status


def settled_status(cores: Cores, name: str, key: bytes) -> Status:
    """Return how a read at a node ends that may have to wait for others."""
    before = len(cores.replies)
    cores.ask(name, Get(key=key))
    cores.until(lambda: len(cores.replies) > before, 1.0)
    reply = cores.replies[-1][1]
    assert isinstance(reply, GetReply)
    return reply.status


def statuses_of(cores: Cores, name: str, *keys: bytes) -> list[int]:
    """Return what a node says of many keys."""
    (reply,) = cores.ask(name, GetMany(keys=keys))
    assert isinstance(reply, GetManyReply)
    return list(reply.statuses)


def listed(cores: Cores, name: str, slot: int) -> tuple[tuple[bytes, ...], tuple[int, ...]]:
    """Return the keys of a slot that a node lists, and the slots that it is unsure of."""
    (reply,) = cores.ask(name, Scan(slots=(slot,), prefix=b""))
    assert isinstance(reply, ScanReply)
    return reply.keys, reply.unsure


def told_ready(cores: Cores, name: str) -> bool:
    """Return whether clients are to route by the ring that a node sees."""
    (reply,) = cores.ask(name, TopologyGet())
    assert isinstance(reply, Topology)
    return reply.ready
