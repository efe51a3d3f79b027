"""Twists: what a drawn scenario is given on top, so that rare things happen often.

Each makes one kind of trouble likely that a random mixture brings about once in hundreds of seeds:
a slot's holders restarted one after another under load, deletions while a node is cut off and
tombstones find no room, a write whose second copy has to go to a stand-in, stores of unequal size
that evict while copies are lost, many nodes that join at once, restarts without seeds. A twist has
a random stream of its own: scenarios without one stay what they were.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

from dcc.units import KIB, MIB, MILLISECOND, SECOND
from simulations import faults as f
from simulations.budgets import Budgets
from simulations.network import LinkSettings
from simulations.scenario import WARM_UP_NS, Scenario

TOMBSTONE_BYTES = 250
"About what one costs, to count budgets in tombstones."


def twisted(scenario: Scenario) -> Scenario:
    """Return the scenario with its seed's twist: one of them, or none."""
    growth = Random(f"{scenario.seed}/growing")
    if _one_in(growth, 12):
        return growing(scenario, growth)
    lone = Random(f"{scenario.seed}/solitary")
    if _one_in(lone, 16):
        return seedless(scenario, lone)
    rng = Random(f"{scenario.seed}/twist")
    twist = TWISTS[_between(rng, 0, len(TWISTS) - 1)]
    scenario = twist(scenario, rng)
    if _one_in(rng, 3):
        scenario = replace(scenario, budgets=_small_budgets(scenario, rng))
    if _one_in(rng, 6):
        scenario = _lossy(scenario, rng)
    if _one_in(rng, 5):
        scenario = replace(scenario, workload=replace(scenario.workload, clears_permille=10))
    return scenario


def untwisted(scenario: Scenario, _rng: Random) -> Scenario:
    """Leave it as it was drawn."""
    return scenario


def rolling(scenario: Scenario, rng: Random) -> Scenario:
    """Restart node after node, faster than copies settle, under many writes to few keys."""
    nodes, replicas = _between(rng, 3, 4), _between(rng, 1, 2)
    pace_ns = _between(rng, 1_500, 4_000) * MILLISECOND
    first = _between(rng, 0, nodes - 1)
    restarts = tuple(
        f.Restart(
            at_ns=WARM_UP_NS + SECOND + turn * pace_ns, lasts_ns=100 * MILLISECOND,
            node=f"n{(first + turn) % nodes}", silent=_one_in(rng, 4),
        )
        for turn in range(_between(rng, 4, 8))
    )  # fmt: skip
    keys = 200 if _one_in(rng, 3) else _between(rng, 12, 24)
    workload = replace(
        scenario.workload, clients=_between(rng, 4, 6), keys=keys,
        pause_ns=_between(rng, 30, 80) * MILLISECOND, w=(2, replicas + 1),
    )  # fmt: skip
    scenario = replace(
        scenario, nodes=nodes, replicas=replicas, faults=restarts, faults_ns=30 * SECOND,
        rebalance_delay_ns=60 * SECOND, workload=workload, revive=(),
        links=LinkSettings(delay_ns=_between(rng, 1, 30) * MILLISECOND),
    )  # fmt: skip
    return _lossy(scenario, rng) if _one_in(rng, 3) else scenario


def cut_off(scenario: Scenario, rng: Random) -> Scenario:
    """Delete much while one node after another is away, with room for a few tombstones."""
    nodes = _between(rng, 3, 4)
    faults: list[f.Partition | f.Pause] = []
    next_ns = WARM_UP_NS + 2 * SECOND
    for _ in range(3):
        at_ns, lasts_ns = next_ns, _between(rng, 4, 12) * SECOND
        away = f"n{_between(rng, 0, nodes - 1)}"
        others = tuple(f"n{index}" for index in range(nodes) if f"n{index}" != away)
        cut = f.Partition(
            at_ns=at_ns, lasts_ns=lasts_ns, left=(away, "c0"), right=(*others, "c1", "c2", "c3")
        )
        pause = f.Pause(at_ns=at_ns, lasts_ns=lasts_ns, node=away)
        faults.append(pause if _one_in(rng, 4) else cut)
        next_ns += lasts_ns + _between(rng, 1, 6) * SECOND
    if _one_in(rng, 2):  # Until the world heals: little is written behind that hides mistakes.
        faults[-1] = replace(faults[-1], lasts_ns=WARM_UP_NS + scenario.faults_ns - at_ns)
    workload = replace(
        scenario.workload, clients=4, keys=_between(rng, 24, 48), deletes=40,
        pause_ns=_between(rng, 100, 400) * MILLISECOND,
    )  # fmt: skip
    scenario = replace(
        scenario, nodes=nodes, replicas=_between(rng, 1, 2), faults=tuple(faults),
        exchange_interval_ns=_between(rng, 1, 3) * SECOND, workload=workload, revive=(),
        rebalance_delay_ns=(60 if _one_in(rng, 2) else 3) * SECOND,
    )  # fmt: skip
    few = room_for(scenario, _between(rng, 1, 8))
    return replace(scenario, budgets=Budgets(valueless_share=few)) if _one_in(rng, 2) else scenario


def patient(scenario: Scenario, rng: Random) -> Scenario:
    """Ask for every copy, wait for seconds, and let machines vanish: stand-ins must do."""
    replicas = _between(rng, 1, 2)
    nodes = replicas + _between(rng, 2, 3)
    gap_ns = _between(rng, 13, 18) * SECOND
    gone = tuple(
        f.Restart(
            at_ns=WARM_UP_NS + 2 * SECOND + turn * gap_ns, lasts_ns=gap_ns // 2,
            node=f"n{_between(rng, 0, nodes - 1)}", silent=not _one_in(rng, 4),
        )
        for turn in range(3)
    )  # fmt: skip
    workload = replace(
        scenario.workload, clients=5, timeout_ns=8 * SECOND, w=(replicas + 1,),
        pause_ns=_between(rng, 80, 160) * MILLISECOND,
    )  # fmt: skip
    return replace(
        scenario, nodes=nodes, replicas=replicas, faults=gone, workload=workload, revive=(),
        exchange_interval_ns=15 * SECOND, rebalance_delay_ns=60 * SECOND,
        links=LinkSettings(delay_ns=_between(rng, 1, 10) * MILLISECOND),
    )  # fmt: skip


def unequal(scenario: Scenario, rng: Random) -> Scenario:
    """Give every node another limit, too little for what is written, and lose copies."""
    limits = tuple(MIB + _between(rng, 0, 8) * 128 * KIB for _ in range(6))
    workload = replace(
        scenario.workload, value_bytes=_between(rng, 32, 256) * KIB, keys=_between(rng, 16, 40),
        pause_ns=_between(rng, 50, 150) * MILLISECOND,
    )  # fmt: skip
    replicas = _between(rng, 1, 3)
    scenario = replace(
        scenario, nodes=max(scenario.nodes, replicas + 1), replicas=replicas, workload=workload,
        memory_limits_bytes=limits, exchange_interval_ns=_between(rng, 1, 3) * SECOND,
    )  # fmt: skip
    return _lossy(scenario, rng)


def growing(scenario: Scenario, rng: Random) -> Scenario:
    """Let nodes join together, and again, until most owners of a slot are new at once."""
    nodes, replicas = _between(rng, 1, 3), _between(rng, 0, 1)
    joins: list[f.Fault] = []
    for turn in range(2):
        at_ns = WARM_UP_NS + (2 + 12 * turn) * SECOND
        for _ in range(_between(rng, 1, 4)):
            at_ns += int(rng.random() * SECOND / 5)
            joins.append(f.Join(at_ns=at_ns, node=f"n{nodes + len(joins)}"))
    workload = replace(
        scenario.workload, clients=_between(rng, 4, 8), keys=_between(rng, 40, 120),
        pause_ns=_between(rng, 20, 60) * MILLISECOND, w=(replicas + 1,), value_bytes=48,
    )  # fmt: skip
    return replace(
        scenario, nodes=nodes, replicas=replicas, faults=tuple(joins), workload=workload,
        revive=(), memory_limits_bytes=(64 * MIB,), faults_ns=30 * SECOND,
        links=replace(scenario.links, delay_ns=_between(rng, 1, 30) * MILLISECOND),
    )  # fmt: skip


def seedless(scenario: Scenario, rng: Random) -> Scenario:
    """Start crashed nodes again without seeds, where two copies of every write were asked for."""
    replicas = _between(rng, 1, 2)
    nodes = replicas + _between(rng, 2, 3)
    restarts = tuple(
        f.Restart(
            at_ns=WARM_UP_NS + (2 + 14 * turn) * SECOND + int(rng.random() * 4 * SECOND),
            lasts_ns=_between(rng, 100, 9_000) * MILLISECOND, node=f"n{turn % nodes}",
            silent=_one_in(rng, 4), seedless=True,
        )
        for turn in range(3)
    )  # fmt: skip
    workload = replace(
        scenario.workload, clients=_between(rng, 3, 6), keys=_between(rng, 40, 120),
        pause_ns=_between(rng, 20, 80) * MILLISECOND, w=(2, replicas + 1), value_bytes=48,
    )  # fmt: skip
    return replace(
        scenario, nodes=nodes, replicas=replicas, faults=restarts, workload=workload,
        revive=(), memory_limits_bytes=(64 * MIB,),
        rebalance_delay_ns=(60 if _one_in(rng, 2) else 3) * SECOND,
        links=replace(scenario.links, delay_ns=_between(rng, 1, 30) * MILLISECOND),
    )  # fmt: skip


TWISTS: tuple[Callable[[Scenario, Random], Scenario], ...] = (
    untwisted, untwisted, rolling, cut_off, patient, unequal,
)  # fmt: skip


def _lossy(scenario: Scenario, rng: Random) -> Scenario:
    """Lose a share of the copies for good, for half of the time."""
    lasts_ns = scenario.faults_ns // 2
    lost = f.Drop(
        at_ns=WARM_UP_NS + int(rng.random() * lasts_ns), lasts_ns=lasts_ns,
        permille=_between(rng, 50, 500),
    )  # fmt: skip
    return replace(scenario, faults=(*scenario.faults, lost))


def _small_budgets(scenario: Scenario, rng: Random) -> Budgets:
    """Return budgets of which about half are so small that they are met all the time."""
    usual = scenario.budgets
    values = max(scenario.workload.value_bytes, 128)
    return Budgets(
        valueless_share=room_for(scenario, _between(rng, 2, 20))
        if _one_in(rng, 2)
        else usual.valueless_share,
        notes_max=2 if _one_in(rng, 2) else usual.notes_max,
        batch_bytes=_between(rng, 1, 4) * values if _one_in(rng, 2) else usual.batch_bytes,
        window_batches=1 if _one_in(rng, 2) else usual.window_batches,
        queue_bytes_max=_between(rng, 1, 4) * values if _one_in(rng, 2) else usual.queue_bytes_max,
    )


def room_for(scenario: Scenario, tombstones: int) -> int:
    """Return the share of memory that has room for about so many tombstones, at every node."""
    return max(8, min(scenario.memory_limits_bytes) // (tombstones * TOMBSTONE_BYTES))


def _between(rng: Random, low: int, high: int) -> int:
    return low + int(rng.random() * (high - low + 1))


def _one_in(rng: Random, count: int) -> bool:
    return rng.random() * count < 1
