"""Many nodes at once: former owners far from their slots are found, quick restarts go unnoticed."""

from __future__ import annotations

import pytest

from dcc.units import MILLISECOND, SECOND
from dcc.wire.messages import Get, GetReply, Op, Outcome, Status, Write, WriteReply
from simulations.scenario import Scenario
from simulations.stage import Stage
from tests.support.wired_cores import Cores

KEYS = [b"key-%d" % i for i in range(400)]
GROWTHS = [(1, 0, 6), (3, 1, 8)]
"""Nodes, copies beyond the primary, and nodes that join at once: more than the members that are
near a slot, so its former owners may be none of them."""


def grown(first: int, replicas: int, joiners: int) -> tuple[Cores, list[str]]:
    """Return a cluster with a counter at 1,000 under each key, that many nodes have just joined."""
    old = [f"a{i}" for i in range(first)]
    cores = Cores(*old, replicas=replicas)
    cores.settle()
    for key in KEYS:
        cores.ask("a0", Write(op=Op.INCR, key=key, delta=1_000, w=replicas + 1))
    cores.run(1)
    cores.replies.clear()
    for i in range(joiners):
        cores.add(f"n{i}")
    return cores, old


@pytest.mark.parametrize(("first", "replicas", "joiners"), GROWTHS)
def test_no_miss_is_certain_while_many_nodes_join(first: int, replicas: int, joiners: int) -> None:
    cores, old = grown(first, replicas, joiners)
    for _ in range(60):
        cores.step()
        for i, key in enumerate(KEYS):
            cores.ask(old[i % len(old)], Get(key=key))
    reads = [reply for _name, reply in cores.replies if isinstance(reply, GetReply)]
    assert len(reads) > 10_000
    assert not any(reply.status is Status.MISS for reply in reads)


@pytest.mark.parametrize(("first", "replicas", "joiners"), GROWTHS)
def test_no_counter_begins_anew_while_many_nodes_join(
    first: int, replicas: int, joiners: int
) -> None:
    cores, old = grown(first, replicas, joiners)
    for turn in range(60):
        cores.step()
        for i, key in enumerate(KEYS[20 * turn : 20 * turn + 20]):
            cores.ask(old[i % len(old)], Write(op=Op.INCR, key=key, delta=1, w=1))
    cores.run(3)
    replies = [reply for _name, reply in cores.replies if isinstance(reply, WriteReply)]
    done = [reply.number for reply in replies if reply.outcome is Outcome.DONE]
    assert len(done) > 300
    assert min(done) > 1_000
    cores.settle()
    for key in KEYS:
        held = [value for name in cores.nodes if (value := cores.held(name, key)) is not None]
        assert held
        assert max(int(value) for value in held) >= 1_000


@pytest.mark.parametrize("down_ms", [20, 400])
def test_reads_do_not_notice_a_quick_restart(down_ms: int) -> None:
    """Nobody suspects the node, and who leads its slots meanwhile has what it needs."""
    took: list[int] = []
    with Stage(Scenario(seed=1, nodes=3, replicas=1, slots=64)) as stage:
        stage.warm_up()
        for key in KEYS[:100]:
            stage.put("c0", key, b"v", w=255)
        for i in range(30):
            stage.get(f"d{i}", KEYS[i])
        stage.play(10 * SECOND)
        world = stage.world
        world.kill("n1", silent=False)
        world.at(world.now_ns + down_ms * MILLISECOND, world.start, "n1")
        stage.play(5 * MILLISECOND)  # What was on its way to it is lost, and its readers wait.
        for i in range(1_000):
            began = world.now_ns

            def done(reply: GetReply, error: object, began: int = began) -> None:
                assert error is None
                assert reply.status is Status.HIT
                took.append(stage.world.now_ns - began)

            client = stage.client(f"d{i % 30}")
            if not client.busy:
                client.call(Get(key=KEYS[i % 100]), done)
            stage.play(4 * MILLISECOND)
        stage.play(SECOND)
    assert len(took) > 900
    assert max(took) < 100 * MILLISECOND
