"""Promises about repair, eviction, deletion and clocks, each directed step by step on a stage."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from dcc.node.core import NodeCore
from dcc.ring.hashing import slot_of
from dcc.types import PREV_UNKNOWN, Kind, Record, Version
from dcc.units import KIB, MIB, MILLISECOND, SECOND
from dcc.wire.messages import Clear, ConvergedGet, Op, Scan, WriteMany
from simulations.budgets import Budgets
from simulations.checkers import limits, silence
from simulations.faults import ClockDrift, ClockStep, Drop, Fault, Partition, Pause, Restart
from simulations.history import End
from simulations.mutations import core_with
from simulations.scenario import Scenario
from simulations.stage import MakeCore, Stage
from simulations.workload import Workload, WorkloadSettings
from simulations.world import ClockSettings

KEYS = [b"k%d" % number for number in range(30)]


def statuses(stage: Stage, keys: list[bytes]) -> Counter[str]:
    """Read keys one by one; return how often each status came."""
    return Counter(stage.get("reader", key).status.name for key in keys)


def bytes_above_limit(stage: Stage) -> list[str]:
    stores = {node.name: stage.core(node.name).held.store for node in stage.world.living()}
    held = {name: store.bytes_used for name, store in stores.items()}
    most = {name: store.memory_limit_bytes for name, store in stores.items()}
    return [found.text for found in limits.check(held, most, stage.world.now_ns)]


# ------------------------------------------------------------------ eviction against repair


def test_a_thousand_rounds_undo_no_eviction_and_end_in_silence() -> None:
    """Three copies on nodes of 1, 1.25 and 1.5 MiB, 2.25 MiB of data, a fifth of copies lost."""
    interval_ns = 250 * MILLISECOND
    scenario = Scenario(
        seed=1, nodes=3, replicas=2, slots=16, exchange_interval_ns=interval_ns,
        memory_limits_bytes=(MIB, MIB * 5 // 4, MIB * 3 // 2),
    )  # fmt: skip
    keys = [b"k%d" % number for number in range(144)]
    rng = Random(1)
    with Stage(scenario) as stage:
        stage.warm_up()
        writing_ns = 45 * SECOND
        lossy = Drop(at_ns=stage.world.now_ns, lasts_ns=writing_ns, permille=200)
        stage.world.schedule((lossy,))
        end_ns = stage.world.now_ns + writing_ns
        before = stage.observer.sent.copy()
        while stage.world.now_ns < end_ns:
            key = keys[int(rng.random() * len(keys))]
            stage.put("c0", key, b"%d." % stage.world.now_ns + bytes(16 * KIB))
            stage.play(60 * MILLISECOND)
            assert bytes_above_limit(stage) == []
        sent = stage.observer.sent - before
        assert sent["CompareRoot"] >= 1_000, "rounds"
        assert stage.world.counts["dropped copies"] > 50
        assert all(stage.core(f"n{i}").held.store.evicted_total > 20 for i in range(3))
        stage.play(5 * interval_ns)
        assert silence.check_traffic(stage.traffic_in(20 * interval_ns), 0) == []
        assert stage.observer.violations == []


@pytest.mark.parametrize("change", ["join", "restart"])
def test_what_a_small_node_evicted_no_join_and_no_restart_loses(change: str) -> None:
    """n0 has room for a fifth and has long forgotten the rest; the others have evicted nothing."""
    nodes = 2 if change == "join" else 3
    scenario = Scenario(
        seed=1, nodes=nodes, replicas=nodes - 1, slots=64, exchange_interval_ns=2 * SECOND,
        rebalance_delay_ns=60 * SECOND, memory_limits_bytes=(MIB, 64 * MIB, 64 * MIB),
    )  # fmt: skip
    with Stage(scenario) as stage:
        stage.warm_up()
        keys = [b"k%d" % i for i in range(3_000)]
        fill(stage, keys)
        assert stage.core("n0").held.store.evicted_total > 1_000
        if change == "join":
            stage.world.start("n2")
        else:
            stage.world._begin(Restart(at_ns=0, lasts_ns=100 * MILLISECOND, node="n2"))
        stage.play(30 * SECOND)
        assert stage.core("n2").slots_ready
        for name in ("n1", "n2"):
            core = stage.core(name)
            owned = [key for key in keys if core.held.view.owns(slot_of(key))]
            assert core.held.store.evicted_total == 0
            assert [key for key in owned if name not in stage.values(key)] == []
        assert silence.check_traffic(stage.traffic_in(10 * SECOND), 0) == []


def lost_by_who_stood_still(make: MakeCore = NodeCore) -> dict[str, int]:
    """Return how many keys the large nodes lack of what they own, all of which one of them had.

    n0 and n1 have all; n1 is small and has long forgotten most. While n0 stands still n2 joins
    and writes.
    """
    scenario = Scenario(
        seed=1, nodes=2, replicas=1, slots=64, exchange_interval_ns=2 * SECOND,
        rebalance_delay_ns=60 * SECOND, memory_limits_bytes=(64 * MIB, MIB, 64 * MIB),
    )  # fmt: skip
    keys = [b"k%d" % i for i in range(3_000)]
    with Stage(scenario, make) as stage:
        stage.warm_up()
        fill(stage, keys)
        assert stage.core("n1").held.store.evicted_total > 1_000
        stage.world.schedule((Pause(at_ns=stage.world.now_ns, lasts_ns=9 * SECOND, node="n0"),))
        stage.play(3 * SECOND)
        stage.world.start("n2")
        stage.play(4 * SECOND)
        assert stage.core("n2").slots_ready
        for i in range(300):
            stage.put("c0", b"x%d" % i, b"v")
        assert stage.world.nodes["n0"].paused
        stage.play(30 * SECOND)
        held = {key: stage.values(key) for key in keys}
        lost: dict[str, int] = {}
        for name in ("n0", "n2"):
            core = stage.core(name)
            assert core.slots_ready
            assert core.held.store.evicted_total == 0
            owned = [key for key in keys if core.held.view.owns(slot_of(key))]
            assert len(owned) > 1_000
            lost[name] = sum(name not in held[key] for key in owned)
        return lost


def fill(stage: Stage, keys: list[bytes]) -> None:
    """Write half a kilobyte under each of `keys` to all owners, and let that settle."""
    for first in range(0, len(keys), 250):
        items = tuple((key, b"v" * 500) for key in keys[first : first + 250])
        stage.call("c0", WriteMany(op=Op.PUT, items=items, w=255))
        stage.play(50 * MILLISECOND)
    stage.play(10 * SECOND)


def test_who_stood_still_gives_what_a_small_node_evicted_to_who_joined_meanwhile() -> None:
    assert lost_by_who_stood_still() == {"n0": 0, "n2": 0}


def test_a_newcomer_that_does_not_say_when_it_began_costs_who_stood_still_values() -> None:
    lost = lost_by_who_stood_still(core_with("begun-unsaid"))
    assert min(lost.values()) > 100


# ------------------------------------------------------------------ expiry


def test_a_client_that_missed_a_join_lists_what_has_moved_by_it() -> None:
    keys = [b"k%d" % number for number in range(60)]
    with Stage(Scenario(seed=1, nodes=2, replicas=0)) as stage:
        stage.warm_up()
        for key in keys:
            stage.put("c0", key, b"v")
        stage.world.start("n2")
        stage.play(20 * SECOND)
        assert any(list(stage.values(key)) == ["n2"] for key in keys)
        view = stage.client("c0").core.view
        assert view is not None
        assert len(view.members) == 2, "it has not heard of it"
        found = stage.call("c0", Scan(slots=tuple(range(64)), prefix=b"k"))
        assert sorted(found) == sorted(keys)


@pytest.mark.parametrize("bug", [False, True])
def test_a_leftover_that_no_clock_covers_is_released_while_a_member_is_down(bug: bool) -> None:
    with Stage(Scenario(seed=1, nodes=4, replicas=1, rebalance_delay_ns=SECOND)) as stage:
        stage.warm_up()
        gone = stage.core("n0")
        stage.put("c0", b"k", b"v", w=2)
        stage.world.kill("n0")
        stage.play(20 * SECOND)
        slot = slot_of(b"k")
        cores = [stage.core(name) for name in ("n1", "n2", "n3")]
        (former,) = [core for core in cores if not core.held.view.owns(slot)]
        # A read brought it there while it stood in, and nobody else ever noted it.
        version = Version(gone.held.clock.next_stamp(gone.held.clock.last >> 16), *gone.held.origin)
        late = next(k for k in (b"l%d" % n for n in range(9_999)) if slot_of(k) == slot)
        record = Record(late, Kind.VALUE, b"v", version, 0, PREV_UNKNOWN)
        former.held.store.install(slot, record, 0)
        former.exchange.leftovers.written(slot)
        if bug:
            vars(former.held.store.comparison)["points"] = lambda slot: []
        stage.play(SECOND // 10)
        stage.put("c0", b"k", b"w", w=2)
        stage.play(30 * SECOND)
        assert (slot in former.exchange.leftovers) == bug
        assert list(stage.values(late).values()) == [b"v"] * (2 + bug)
        assert stage.call("c0", ConvergedGet()).converged != bug


def test_keys_that_expire_are_never_exchanged() -> None:
    """3,000 keys that live 6 s: repair carries nothing, before, at and behind their end."""
    scenario = Scenario(seed=1, nodes=3, replicas=2, slots=64, exchange_interval_ns=SECOND)
    with Stage(scenario) as stage:
        stage.warm_up()
        for first in range(0, 3_000, 500):
            items = tuple((b"t%d" % (first + i), b"v" * 40) for i in range(500))
            stage.call("c0", WriteMany(op=Op.PUT, items=items, ttl_ms=6_000))
        assert sum(stage.core(f"n{i}").held.store.items for i in range(3)) == 9_000
        stage.play(2 * SECOND)
        sent = stage.traffic_in(20 * SECOND)
        assert silence.check_traffic(sent, 0) == []
        assert all(stage.core(f"n{i}").held.store.items == 0 for i in range(3))
        assert all(stage.core(f"n{i}").held.store.expired_records == 0 for i in range(3))


# ------------------------------------------------------------------ deletion


@pytest.mark.parametrize("share", [8, 1 << 16, 1 << 17])
@pytest.mark.parametrize("seed", [1, 2])
def test_deleted_keys_stay_deleted_across_a_long_partition(seed: int, share: int) -> None:
    """With room for all tombstones (share 8), or for three of them, or one."""
    scenario = Scenario(
        seed=seed, nodes=3, replicas=2, slots=16, exchange_interval_ns=2 * SECOND,
        budgets=Budgets(valueless_share=share),
    )  # fmt: skip
    with Stage(scenario) as stage:
        stage.warm_up()
        for key in KEYS:
            stage.put("c0", key, b"old", w=255)
        apart = Partition(
            at_ns=stage.world.now_ns, lasts_ns=60 * SECOND,
            left=("n0", "alone"), right=("n1", "n2", "c0"),
        )  # fmt: skip
        stage.world.schedule((apart,))
        stage.play(15 * SECOND)
        for key in KEYS[:10]:
            stage.put("alone", key, b"written before the deletion, unseen by who deletes")
        stage.play(SECOND)
        for key in KEYS:
            stage.delete("c0", key)
        marked = sum(map(bool, stage.core("n1").held.store._memory.marks))
        assert bool(marked) == (share > 8), "the budget was exceeded where it should be"
        stage.play(75 * SECOND)
        assert {key: stage.values(key) for key in KEYS if stage.values(key)} == {}
        assert statuses(stage, KEYS) == {"MISS": len(KEYS)}
        assert silence.check_traffic(stage.traffic_in(10 * SECOND), 0) == []


@pytest.mark.parametrize(
    "away",
    [
        Partition(at_ns=0, lasts_ns=20 * SECOND, left=("n1",), right=("n0", "n2", "c0")),
        Pause(at_ns=0, lasts_ns=20 * SECOND, node="n1"),
        Restart(at_ns=0, lasts_ns=20 * SECOND, node="n1"),
    ],
    ids=["partitioned", "paused", "restarted"],
)
def test_clear_holds_when_a_node_that_missed_it_returns(away: Fault) -> None:
    scenario = Scenario(
        seed=1, nodes=3, replicas=2, slots=16, exchange_interval_ns=2 * SECOND,
        rebalance_delay_ns=60 * SECOND,
    )  # fmt: skip
    with Stage(scenario) as stage:
        stage.warm_up()
        for key in KEYS:
            stage.put("c0", key, b"old", w=255)
        begin, end = stage.world._begin, stage.world._end
        begin(away)
        stage.play(8 * SECOND)
        stage.call("c0", Clear(seen=stage.client("c0").core.seen))
        stage.put("c0", KEYS[0], b"new")
        stage.play(away.lasts_ns)
        end(away)
        stage.play(10 * SECOND)
        assert {key for key in KEYS if stage.held(key)} == {KEYS[0]}
        assert stage.values(KEYS[0]) == dict.fromkeys(("n0", "n1", "n2"), b"new")
        assert statuses(stage, KEYS) == {"HIT": 1, "MISS": len(KEYS) - 1}


# ------------------------------------------------------------------ clocks


@pytest.mark.parametrize("nodes", [2, 3])
def test_a_coordinator_set_back_a_minute_between_two_puts_loses_neither(nodes: int) -> None:
    scenario = Scenario(
        seed=1, nodes=nodes, replicas=nodes - 1, slots=16, exchange_interval_ns=2 * SECOND
    )
    with Stage(scenario) as stage:
        stage.warm_up()
        first = {key: stage.put("c0", key, b"first", w=255).version for key in KEYS}
        stage.play(SECOND)
        stage.world.nodes["n0"].clock.step_wall(-60 * SECOND)
        stage.world._begin(Restart(at_ns=stage.world.now_ns, lasts_ns=SECOND, node="n0"))
        stage.play(6 * SECOND)
        # Another client, that has not seen the first stamps, whoever the primary is.
        led = [key for key in KEYS if stage.primary(key) == "n0"]
        assert len(led) > 5
        for key in KEYS:
            second = stage.put("c1", key, b"second").version
            assert second > first[key], "the second put is the newer one"
        stage.play(10 * SECOND)
        for key in KEYS:
            assert stage.values(key) == dict.fromkeys(scenario.names(), b"second")
            assert stage.get("c2", key).value == b"second"
        assert stage.observer.violations == []


def test_clocks_apart_by_the_bound_cause_no_repair_and_no_refusal() -> None:
    """Clocks up to 200 ms off and drifting, steps of 400 ms either way, a minute of load."""
    work = WorkloadSettings(clients=3, keys=24, pause_ns=50 * MILLISECOND, w=(1, 2, 255))
    scenario = Scenario(
        seed=1, nodes=3, replicas=2, slots=16, exchange_interval_ns=2 * SECOND, workload=work,
        clocks=ClockSettings(offset_ns=200 * MILLISECOND, drift_ppm=100),
    )  # fmt: skip
    with Stage(scenario) as stage:
        stage.warm_up()
        start = stage.world.now_ns
        steps: list[Fault] = [
            ClockStep(
                at_ns=start + turn * 5 * SECOND, node=f"n{turn % 3}",
                by_ns=(400 if turn % 2 else -400) * MILLISECOND,
            )
            for turn in range(12)
        ]  # fmt: skip
        steps.append(ClockDrift(at_ns=start + 20 * SECOND, node="n1", ppm=300))
        stage.world.schedule(tuple(steps))
        workload = Workload(stage.world, work, stage.seeds)
        stage.play(60 * SECOND)
        workload.stop()
        stage.play(SECOND)
        assert stage.world.counts["ClockStep"] == 12
        assert {entry.end for entry in workload.history} == {End.OK}
        assert {entry.status for entry in workload.history} <= {"hit", "miss", "done", "not done"}
        assert len(workload.history) > 2_000
        assert stage.observer.repaired == 0, "no record by repair"
        drops = [stage.core(f"n{i}").counters.dropped for i in range(3)]
        assert not any("clock_skew" in found for found in drops)


def test_what_was_folded_behind_a_cut_binds_nobody_beyond_it() -> None:
    """n0 to n2 are all restarted inside the cut, forget that there is n3, and fold twice over."""
    scenario = Scenario(
        seed=1, nodes=4, replicas=3, slots=16, exchange_interval_ns=SECOND,
        rebalance_delay_ns=60 * SECOND,
    )  # fmt: skip
    others = [b"o" + key for key in KEYS]
    with Stage(scenario) as stage:
        stage.warm_up()
        world = stage.world
        for key in others:
            stage.put("c0", key, b"old", w=255)
        stage.get("alone", KEYS[0])  # It learns of n3, which is nobody's seed.
        cut = Partition(at_ns=0, lasts_ns=0, left=("n3", "alone"), right=("n0", "n1", "n2", "c0"))
        cut.begin(world)
        stage.play(4 * SECOND)
        now_ns = world.now_ns  # n0 is back first, and has nobody but n3 for a further seed.
        world.schedule(
            tuple(Restart(at_ns=now_ns, lasts_ns=(1 + i) * SECOND, node=f"n{i}") for i in range(3))
        )
        stage.play(10 * SECOND)
        for key in KEYS:
            stage.put("alone", key, b"theirs")
        stage.play(2 * SECOND)
        for key in KEYS:
            stage.put("c0", b"b" + key, b"ours", w=2)
        for name in ("n0", "n1", "n2"):
            world.schedule((Restart(at_ns=world.now_ns, lasts_ns=SECOND // 10, node=name),))
            stage.play(6 * SECOND)
        stage.play(20 * SECOND)
        stores = [stage.core(f"n{i}").held.store for i in range(3)]
        assert all(len(store.comparison.based()) > 10 for store in stores), "folded without n3"
        cut.end(world)
        stage.play(20 * SECOND)
        assert stage.call("reader", ConvergedGet()).converged
        for key in (*KEYS, *others):
            assert set(stage.values(key)) == {"n0", "n1", "n2", "n3"}
        assert statuses(stage, [*KEYS, *others]) == {"HIT": 2 * len(KEYS)}
        assert silence.check_traffic(stage.traffic_in(10 * SECOND), 0) == []


def test_who_is_restarted_inside_a_cut_brings_no_deleted_key_back() -> None:
    """Alone there, n2 founds for itself; the others still hold what is deleted on its side."""
    with Stage(Scenario(seed=1, replicas=2, nodes=3, slots=16)) as stage:
        stage.warm_up()
        world = stage.world
        for key in KEYS:
            stage.put("c0", key, b"old", w=255)
        cut = Partition(at_ns=0, lasts_ns=0, left=("n2", "alone"), right=("n0", "n1", "c0"))
        cut.begin(world)
        stage.play(5 * SECOND)
        world.schedule((Restart(at_ns=world.now_ns, lasts_ns=SECOND, node="n2"),))
        stage.play(20 * SECOND)
        for key in KEYS:
            stage.put("alone", key, b"new")
            stage.delete("alone", key)
        stage.play(30 * SECOND)
        cut.end(world)
        stage.play(60 * SECOND)
        assert all(stage.values(key) == {} for key in KEYS), "deleted on the side that wrote last"
        stage.play(60 * SECOND)
        left = [stage.core(f"n{i}").held.store.tombstones for i in range(3)]
        assert left == [0, 0, 0], "once all have met they are forgotten as ever"
