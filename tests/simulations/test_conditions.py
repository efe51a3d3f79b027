"""Calls with a condition, and reads of several owners, over lossy links and beside a cut."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dcc.client.many import GetEach, ReadEach
from dcc.client.reads import Read
from dcc.errors import DccError, NodeUnavailable, QuorumNotReached
from dcc.replication import decide
from dcc.types import NO_VERSION, Version
from dcc.units import MILLISECOND, SECOND
from dcc.wire.messages import GetMany, Op, Outcome, Write, WriteReply
from simulations.faults import Partition
from simulations.network import LinkSettings
from simulations.scenario import Scenario
from simulations.stage import Stage
from simulations.workload import WorkloadSettings

KEYS = tuple(b"k%d" % number for number in range(12))
THREE = Scenario(seed=1, nodes=3, replicas=2)
LOSSY = replace(
    THREE,
    links=LinkSettings(spike_permille=100, spike_ns=600 * MILLISECOND),
    workload=WorkloadSettings(timeout_ns=20 * SECOND),
)
"One message in ten is so late that what it carries is asked or written again."
ROUNDS = 40


def together(stage: Stage, *calls: tuple[str, Write]) -> list[WriteReply | DccError]:
    """Let clients call at the same time; return how each call has ended."""
    ends: dict[str, WriteReply | DccError] = {}

    def begin(client: str, write: Write) -> None:
        def ended(reply: Any, error: DccError | None) -> None:
            ends[client] = error if error is not None else reply

        stage.client(client).call(write, ended)

    for client, write in calls:
        begin(client, write)
    while len(ends) < len(calls):
        stage.play(MILLISECOND)
    return [ends[client] for client, _ in calls]


def done(ends: list[WriteReply | DccError]) -> list[WriteReply]:
    return [one for one in ends if isinstance(one, WriteReply) and one.outcome is Outcome.DONE]


def repeated(stage: Stage) -> int:
    """Return how many writes the nodes met again that they had executed."""
    return sum(stage.core(node.name).writes.once.repeated for node in stage.world.living())


def delete(version: Version = NO_VERSION) -> Write:
    return Write(op=Op.DELETE, key=b"k", expected=version)


def counted(stage: Stage) -> int:
    """Let clients delete one version at a time; return how many of them were told they had."""
    told = 0
    for _ in range(ROUNDS):
        version = stage.put("c0", b"k", b"v").version
        told += len(done(together(stage, ("c1", delete(version)), ("c2", delete(version)))))
    return told


def test_of_those_who_delete_one_version_one_has_deleted_it() -> None:
    with Stage(LOSSY) as stage:
        stage.warm_up()
        assert counted(stage) == ROUNDS
        assert repeated(stage) > 5


def newer_survives(stage: Stage) -> None:
    for number in range(ROUNDS):
        old = stage.put("c0", b"k", b"old").version
        new = Write(op=Op.PUT, key=b"k", value=b"%d" % number, seen=old.stamp)
        put, _ = together(stage, ("c0", new), ("c1", delete(old)))
        assert put in done([put])
        assert stage.get("c0", b"k").value == b"%d" % number


def test_what_was_put_since_survives_the_delete_of_an_older_version() -> None:
    with Stage(LOSSY) as stage:
        stage.warm_up()
        newer_survives(stage)


def stays_absent(stage: Stage) -> None:
    add = Write(op=Op.INCR, key=b"k", delta=1, if_present=True)
    for _ in range(ROUNDS):
        stage.put("c0", b"k", b"5")
        gone, _ = together(stage, ("c1", delete()), ("c2", add))
        assert gone in done([gone])
        assert stage.get("c0", b"k").value == b""


def test_an_incr_that_makes_no_counter_brings_none_back() -> None:
    with Stage(LOSSY) as stage:
        stage.warm_up()
        stays_absent(stage)


def test_a_node_that_forgets_the_condition_of_a_delete_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decide, "_is_expected", lambda _write, _entry: True)
    with pytest.raises(AssertionError):
        test_what_was_put_since_survives_the_delete_of_an_older_version()


def test_a_node_that_makes_a_counter_anew_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    count = decide._count

    def mutant(write: Write, *rest: Any) -> Any:
        anew = Write(op=write.op, key=write.key, delta=write.delta, initial=write.initial)
        return count(anew, *rest)

    monkeypatch.setattr(decide, "_count", mutant)
    with pytest.raises(AssertionError):
        test_an_incr_that_makes_no_counter_brings_none_back()


# ------------------------------------------------------------------ many keys, several owners


def test_a_read_of_many_keys_by_a_quorum_is_refused_where_there_is_none() -> None:
    """The side with one of three nodes still has the old values; the other has written anew."""
    with Stage(THREE) as stage:
        stage.warm_up()
        for key in KEYS:
            stage.put("c0", key, b"old", w=255)
        sides = ("n0", "left"), ("n1", "n2", "c0", "right")
        assert stage.call("left", GetEach(KEYS, 0)) == dict.fromkeys(KEYS, b"old")
        cut = Partition(
            at_ns=stage.world.now_ns, lasts_ns=60 * SECOND, left=sides[0], right=sides[1]
        )
        stage.world.schedule((cut,))
        stage.play(20 * SECOND)
        for key in KEYS:
            stage.put("c0", key, b"new", w=2)
        assert stage.call("right", GetEach(KEYS, 0)) == dict.fromkeys(KEYS, b"new")
        assert stage.call("left", GetMany(keys=KEYS)) == dict.fromkeys(KEYS, b"old")
        with pytest.raises(NodeUnavailable) as refused:
            stage.call("left", GetEach(KEYS, 0))
        assert refused.value.partial == {}
        assert isinstance(refused.value.__cause__, QuorumNotReached)
        stage.play(60 * SECOND)
        assert stage.call("left", GetEach(KEYS, 0)) == dict.fromkeys(KEYS, b"new")


def test_a_client_that_asks_one_owner_instead_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ReadEach, "_single", lambda plan, key: Read(plan._call, key))
    with pytest.raises(pytest.fail.Exception):
        test_a_read_of_many_keys_by_a_quorum_is_refused_where_there_is_none()
