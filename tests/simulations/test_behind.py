"""Who was away asks before it serves, and a write aside of the primary is known to it."""

from __future__ import annotations

from collections import Counter

import pytest

from dcc.errors import MaybeStored
from dcc.node.core import NodeCore
from dcc.ring.hashing import slot_of
from dcc.units import KIB, MILLISECOND, SECOND
from dcc.wire.messages import Op, Outcome, Write
from simulations.budgets import Budgets
from simulations.faults import Partition, Pause
from simulations.network import REQUEST, LinkSettings
from simulations.scenario import Scenario
from simulations.stage import MakeCore, Stage

OTHERS = ("n1", "n2", "c0")
KEYS = [b"k%d" % i for i in range(100)]


@pytest.mark.parametrize("deleted", [False, True])
def test_who_returns_from_behind_a_cut_serves_nothing_old(deleted: bool) -> None:
    """What it has missed takes seconds to fetch; it is asked as soon as it sees the others."""
    scenario = Scenario(
        seed=1, nodes=3, replicas=2, slots=256, exchange_interval_ns=20 * SECOND,
        rebalance_delay_ns=200 * SECOND, memory_limits_bytes=(256 * 1024 * KIB,),
        links=LinkSettings(delay_ns=5 * MILLISECOND),
    )  # fmt: skip
    with Stage(scenario) as stage:
        led, heals_ns = cut_off(stage, b"old", 40 * SECOND)
        for key in KEYS:
            if deleted:
                stage.delete("c0", key, w=2)
            else:
                stage.put("c0", key, b"new", w=2)
        for i in range(200):
            stage.put("c0", b"big%d" % i, bytes(64 * KIB), w=2)
        stage.play(heals_ns - stage.world.now_ns)
        found = reads_of_who_returns(stage, led)
        assert sum(found.values()) == len(led) > 20
        assert found[b"old"] == 0


@pytest.mark.parametrize("op", [Op.TOUCH, Op.INCR, Op.REPLACE])
def test_who_returns_makes_nothing_of_a_value_whose_delete_the_others_have_forgotten(
    op: Op,
) -> None:
    asked, made, kept = made_of_what_is_forgotten(op)
    assert made == (asked if op is Op.INCR else set()), "a counter begins anew"
    assert kept == made


def made_of_what_is_forgotten(
    op: Op, make: MakeCore = NodeCore
) -> tuple[set[bytes], set[bytes], set[bytes]]:
    """Return the deleted keys that a returning node is asked to change, has changed, and are left.

    Of counters those that begin anew.
    """
    scenario = Scenario(
        seed=1, nodes=3, replicas=2, slots=256, exchange_interval_ns=20 * SECOND,
        rebalance_delay_ns=200 * SECOND, memory_limits_bytes=(64 * 1024 * KIB,),
        budgets=Budgets(valueless_share=1 << 15), links=LinkSettings(delay_ns=5 * MILLISECOND),
    )  # fmt: skip
    with Stage(scenario, make) as stage:
        led, heals_ns = cut_off(stage, b"1", 30 * SECOND)
        for key in KEYS:
            stage.delete("c0", key, w=2)
        assert stage.core("n1").held.store.tombstones < 10, "nearly all are forgotten"
        for i in range(100):
            stage.put("c0", b"big%d" % i, bytes(64 * KIB), w=2)
        stage.play(heals_ns - stage.world.now_ns)
        while len(stage.core("n0").held.view.alive) < 3:
            stage.play(MILLISECOND)
        made: set[bytes] = set()
        for key in led:
            reply = stage.call("alone", Write(op=op, key=key, value=b"2", delta=1, ttl_ms=60_000))
            if reply.number == 1 if op is Op.INCR else reply.outcome is Outcome.DONE:
                made.add(key)
        if op is Op.TOUCH:
            assert len(stage.observer.asking.made_of_gone) == len(made), "the checker sees it, too"
        stage.play(30 * SECOND)
        return set(led), made, {key for key in KEYS if stage.values(key)}


def cut_off(stage: Stage, value: bytes, lasts_ns: int) -> tuple[list[bytes], int]:
    """Write KEYS to all owners, and cut n0 off; return which it leads, and when the cut heals."""
    stage.warm_up()
    for key in KEYS:
        stage.put("c0", key, value, w=255)
    led = [key for key in KEYS if stage.primary(key) == "n0"]
    stage.get("alone", led[0])
    cut = Partition(
        at_ns=stage.world.now_ns, lasts_ns=lasts_ns, left=("n0", "alone"), right=OTHERS
    )  # fmt: skip
    stage.world.schedule((cut,))
    stage.play(10 * SECOND)
    return led, cut.at_ns + lasts_ns


def reads_of_who_returns(stage: Stage, keys: list[bytes]) -> Counter[bytes]:
    """Read each key once, beginning when n0 has the others in its view."""
    found: Counter[bytes] = Counter()
    alive_at_ns = stage.world.now_ns + 30 * SECOND
    while len(stage.core("n0").held.view.alive) < 3:
        stage.play(MILLISECOND)
        assert stage.world.now_ns < alive_at_ns
    for key in keys:
        found[stage.get("alone", key).value] += 1
        stage.play(5 * MILLISECOND)
    return found


@pytest.mark.parametrize("silent", [False, True])
def test_who_leads_since_a_crash_serves_nothing_older_than_another_owner_has(silent: bool) -> None:
    """Nor before it knows: whoever reads aside of the dead primary says so."""
    scenario = Scenario(
        seed=1, nodes=3, replicas=2, exchange_interval_ns=60 * SECOND,
        rebalance_delay_ns=60 * SECOND,
    )  # fmt: skip
    with Stage(scenario) as stage:
        stage.warm_up()
        for key in KEYS:
            stage.put("c0", key, b"old", w=255)
        stage.play(SECOND)
        primary, second = owners(stage, KEYS[0])[:2]
        mine = [key for key in KEYS if owners(stage, key)[:2] == [primary, second]]
        assert len(mine) > 5
        stage.get("c1", mine[0])
        stage.world.network.cut([(primary, second)], [REQUEST])
        for key in mine:
            assert stage.put("c0", key, b"new", w=2).outcome is Outcome.DONE
        stage.world.kill(primary, silent=silent)
        stage.world.network.mend([(primary, second)], [REQUEST])
        found: Counter[bytes] = Counter()
        for turn in range(150):
            found[stage.get("c1", mine[turn % len(mine)]).value] += 1
            stage.play(20 * MILLISECOND)
        assert found == {b"new": 150}


def test_a_write_aside_waits_for_a_primary_that_is_alive() -> None:
    """Only its writer cannot reach it: whoever reads there finds what was acknowledged."""
    with Stage(Scenario(seed=1, nodes=3, replicas=2, rebalance_delay_ns=60 * SECOND)) as stage:
        stage.warm_up()
        primary, second = owners(stage, KEYS[0])[:2]
        mine = [key for key in KEYS if owners(stage, key)[:2] == [primary, second]][:10]
        for name in ("c0", "c1"):
            stage.get(name, mine[0])
        stage.world.network.cut([("c0", primary), (primary, "c0")], [REQUEST])
        stage.world.network.cut([(second, primary)], [REQUEST])
        stage.play(5 * SECOND)
        acknowledged = 0
        for key in mine:
            try:
                stage.put("c0", key, b"new", w=2)
            except MaybeStored:
                continue
            acknowledged += 1
            assert stage.get("c1", key).value == b"new"
        assert acknowledged < len(mine), "what the second owner took never reached the primary"


def test_a_write_aside_waits_no_longer_once_the_primary_is_suspected() -> None:
    scenario = Scenario(seed=1, nodes=3, replicas=2, rebalance_delay_ns=60 * SECOND)
    with Stage(scenario) as stage:
        stage.warm_up()
        key = b"k"
        stage.put("c0", key, b"old", w=255)
        primary = owners(stage, key)[0]
        stage.world.kill(primary, silent=True)
        stage.play(10 * SECOND)
        assert stage.put("c0", key, b"new", w=2).outcome is Outcome.DONE


def owners(stage: Stage, key: bytes) -> list[str]:
    """Return the names of a key's owners, the primary first."""
    names = {node.key: node.name for node in stage.world.living()}
    view = stage.core(next(iter(names.values()))).held.view
    return [names[one] for one in view.slots.owners(slot_of(key))]


def test_who_was_silent_for_long_is_asked_again_as_soon_as_it_answers() -> None:
    """Until then it holds nobody up; from then on what only it has is known to be missing here."""
    found = reads_behind_a_long_silence()
    assert found[b"old"] == 0
    assert found[b"new"] > 100


def reads_behind_a_long_silence(make: MakeCore = NodeCore) -> Counter[bytes]:
    """Return what a node serves that may have missed writes, once their holder answers again.

    The two see each other by gossip all the time, and each other's answers not for a minute. What
    there is to catch up with then takes seconds.
    """
    scenario = Scenario(
        seed=1, nodes=2, replicas=1, slots=256, exchange_interval_ns=20 * SECOND,
        rebalance_delay_ns=200 * SECOND, memory_limits_bytes=(256 * 1024 * KIB,),
        move_bytes_per_second=2 * 1024 * KIB, links=LinkSettings(delay_ns=5 * MILLISECOND),
        budgets=Budgets(queue_bytes_max=256 * KIB),
    )  # fmt: skip
    with Stage(scenario, make) as stage:
        stage.warm_up()
        for key in KEYS:
            stage.put("c0", key, b"old", w=255)
        led = [key for key in KEYS if stage.primary(key) == "n0"]
        stage.get("reader", led[0])
        network = stage.world.network
        between = [("n0", "n1"), ("n1", "n0")]
        network.cut([*between, ("c0", "n0"), ("n0", "c0")], [REQUEST])
        stage.play(5 * SECOND)
        for i in range(200):
            stage.put("c0", b"big%d" % i, bytes(64 * KIB))
        for key in led:  # The queue to n0 is full by now.
            stage.put("c0", key, b"new")
        stage.world.schedule((Pause(at_ns=stage.world.now_ns, lasts_ns=SECOND, node="n0"),))
        stage.play(40 * SECOND)
        for key in led[:10]:
            began_ns = stage.world.now_ns
            assert stage.get("reader", key).value == b"old", "nobody else answers"
            assert stage.world.now_ns < began_ns + 50 * MILLISECOND, "nor is waited for"
        network.mend(between, [REQUEST])
        n0, n1 = stage.world.nodes["n0"], stage.world.nodes["n1"]
        while stage.observer.answers.silences.is_mute(n0, n1):
            stage.play(MILLISECOND)
        found: Counter[bytes] = Counter()
        for turn in range(150):
            found[stage.get("reader", led[turn % len(led)]).value] += 1
            stage.play(20 * MILLISECOND)
        return found


def test_a_newcomer_to_the_other_side_is_asked_before_it_has_filled() -> None:
    """It is the first to be met, with the last copy of what was acknowledged over there."""
    found = reads_beside_a_newcomer_of_the_others()
    assert found[b"old"] == 0
    assert found[b"new"] == 100


def reads_beside_a_newcomer_of_the_others(make: MakeCore = NodeCore) -> Counter[bytes]:
    """Return what a node serves from when it has met a member that joined behind a cut.

    The other one of that side dies at the same moment.
    """
    scenario = Scenario(
        seed=1, nodes=2, replicas=1, slots=256, exchange_interval_ns=20 * SECOND,
        rebalance_delay_ns=200 * SECOND, move_bytes_per_second=256 * KIB,
        links=LinkSettings(delay_ns=5 * MILLISECOND),
    )  # fmt: skip
    with Stage(scenario, make) as stage:
        stage.warm_up()
        for key in KEYS:
            stage.put("c0", key, b"old", w=255)
        led = [key for key in KEYS if stage.primary(key) == "n0"]
        stage.get("alone", led[0])
        right = ("n1", "n2", "c0")
        cut = Partition(
            at_ns=stage.world.now_ns, lasts_ns=30 * SECOND, left=("n0", "alone"), right=right
        )
        stage.world.schedule((cut,))
        stage.play(10 * SECOND)
        for i in range(200):
            stage.put("c0", b"big%d" % i, bytes(64 * KIB))
        stage.world.start("n2")
        newcomer = stage.world.nodes["n2"].key
        view = stage.core("n1").held.view
        while newcomer not in view.alive:
            stage.play(MILLISECOND)
        mine = [key for key in led if newcomer in view.slots.owners(slot_of(key))]
        assert len(mine) > 20
        for key in mine:
            assert stage.put("c0", key, b"new", w=2).outcome is Outcome.DONE
        n0 = stage.core("n0")
        while newcomer not in n0.membership.members:
            stage.play(MILLISECOND)
        stage.world.kill("n1", silent=True)
        while newcomer not in n0.held.view.alive:
            stage.play(MILLISECOND)
        assert stage.core("n2").membership.me.filling
        found: Counter[bytes] = Counter()
        for turn in range(100):
            found[stage.get("alone", mine[turn % len(mine)]).value] += 1
            stage.play(MILLISECOND)
        return found
