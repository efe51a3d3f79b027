"""Worlds: what some scenarios are given besides their twist, to ask a question of their own.

Each is built so that one promise is in doubt for most of the run and clients look at it all the
time: links that are cut one by one and mended one by one, clients that cannot reach one node, a
whole side of a cut that is restarted inside it, a cut that outlasts the memory of members, a node
that comes back to so much that catching up takes it seconds. A world has a random stream of its
own, so what was drawn before stays what it was.

**To add one:** a function from a scenario and a random stream to a scenario, listed in `WORLDS`;
`python -m simulations run --world NAME` plays every seed in it. `ODDS` has those that are drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from random import Random

from dcc.units import KIB, MIB, MICROSECOND, MILLISECOND, SECOND
from simulations import faults as f
from simulations.budgets import Budgets
from simulations.network import BOTH_PLANES, GOSSIP, REQUEST, LinkSettings
from simulations.scenario import SEEDS_LISTED, WARM_UP_NS, Scenario
from simulations.twists import room_for

World = Callable[[Scenario, Random], Scenario]


def in_world(scenario: Scenario, name: str = "") -> Scenario:
    """Return the scenario in the world called `name`; in its seed's own, or none, by default."""
    rng = Random(f"{scenario.seed}/world")
    rng.random()  # What it decided once is decided by `ODDS`; the draws behind it stay.
    name = name or _drawn(scenario.seed)
    return WORLDS[name](scenario, rng) if name else scenario


def _drawn(seed: int) -> str:
    for name, stream, one_of in ODDS:
        if _one_in(Random(f"{seed}/{stream}"), one_of):
            return name
    return ""


def cut_by_pieces(scenario: Scenario, rng: Random) -> Scenario:
    """Cut single pairs of nodes, some one way only or on one plane, and mend them one by one."""
    nodes, replicas = _between(rng, 3, 5), _between(rng, 1, 2)
    faults: list[f.Fault] = []
    for _ in range(_between(rng, 2, 6)):
        one, other = _two(rng, _names(nodes))
        lasts_ns = _between(rng, 1, 20) * SECOND
        faults.append(
            f.Partition(
                at_ns=_within(rng, 25), lasts_ns=lasts_ns, left=(one,), right=(other,),
                one_way=_one_in(rng, 2), planes=_planes(rng),
            )
        )  # fmt: skip
    if _one_in(rng, 2):
        faults.append(_restart(rng, _within(rng, 30), _names(nodes)))
    return _roomy(scenario, rng, nodes, replicas, faults, lasts_s=45)


def half_reached(scenario: Scenario, rng: Random) -> Scenario:
    """Let some clients not reach some node, which is well, while links between nodes are slow."""
    nodes, replicas = _between(rng, 3, 4), _between(rng, 1, 2)
    faults: list[f.Fault] = []
    for index in range(_between(rng, 2, 4)):
        node, other = _two(rng, _names(nodes))
        at_ns, lasts_ns = _within(rng, 25), _between(rng, 2, 15) * SECOND
        faults.append(
            f.Partition(at_ns=at_ns, lasts_ns=lasts_ns, left=(f"c{index % 3}",), right=(node,))
        )
        if _one_in(rng, 2):  # What others write aside of it reaches it late.
            faults.append(
                f.Partition(
                    at_ns=at_ns, lasts_ns=_between(rng, 500, 4_000) * MILLISECOND,
                    left=(other,), right=(node,), one_way=True, planes=(REQUEST,),
                )
            )  # fmt: skip
    if _one_in(rng, 2):
        faults.append(_restart(rng, _within(rng, 30), _names(nodes)))
    return _roomy(scenario, rng, nodes, replicas, faults, lasts_s=45)


def healed_in_part(scenario: Scenario, rng: Random) -> Scenario:
    """Part the nodes into three, and let two of the sides meet again before the third."""
    nodes, replicas = _between(rng, 3, 6), _between(rng, 1, 2)
    sides = _sides(rng, nodes, 3)
    at_ns = WARM_UP_NS + _between(rng, 1, 5) * SECOND
    pairs = [(0, 1), (1, 2), (0, 2)]
    lasts = [_between(rng, 4, 30) * SECOND for _ in pairs]
    faults: list[f.Fault] = [
        f.Partition(at_ns=at_ns, lasts_ns=lasts_ns, left=sides[a], right=sides[b])
        for (a, b), lasts_ns in zip(pairs, lasts, strict=True)
    ]
    for _ in range(_between(rng, 0, 2)):
        faults.append(_restart(rng, at_ns + _between(rng, 1, 25) * SECOND, _names(nodes)))
    return _roomy(scenario, rng, nodes, replicas, faults, lasts_s=45)


def restarted_inside(scenario: Scenario, rng: Random) -> Scenario:
    """Cut the nodes in two and restart all of one side, or just some, before the cut heals.

    In half of the worlds those whom the others have for seeds are all down at once, so that nobody
    there remembers who is beyond the cut; and then one again, so that what it wrote is folded.
    """
    if _one_in(rng, 2):
        return _folded_inside(scenario, rng)
    nodes, replicas = _between(rng, 3, 5), _between(rng, 1, 2)
    sides = _sides(rng, nodes, 2)
    at_ns, lasts_s = WARM_UP_NS + _between(rng, 2, 6) * SECOND, _between(rng, 15, 40)
    faults: list[f.Fault] = [
        f.Partition(at_ns=at_ns, lasts_ns=lasts_s * SECOND, left=sides[0], right=sides[1])
    ]
    inside = [name for name in sides[0] if name.startswith("n")]
    for name in inside if _one_in(rng, 2) else inside[:1]:
        restart_at_ns = at_ns + _between(rng, 3, lasts_s - 10) * SECOND
        faults.append(_restart(rng, restart_at_ns, (name,)))
    scenario = _roomy(scenario, rng, nodes, replicas, faults, lasts_s=lasts_s + 20)
    workload = replace(scenario.workload, deletes=_between(rng, 0, 60))
    return replace(scenario, workload=workload, exchange_interval_ns=SECOND)


def _folded_inside(scenario: Scenario, rng: Random) -> Scenario:
    nodes, replicas = _between(rng, SEEDS_LISTED + 1, 5), _between(rng, 1, 2)
    seeds, others = _names(nodes)[:SEEDS_LISTED], _names(nodes)[SEEDS_LISTED:]
    cut_at_ns = WARM_UP_NS + _between(rng, 2, 6) * SECOND
    down_at_ns = cut_at_ns + _between(rng, 2, 5) * SECOND
    faults: list[f.Fault] = [
        f.Restart(
            at_ns=down_at_ns, lasts_ns=_between(rng, 100, 900) * MILLISECOND + index * SECOND,
            node=node, silent=_one_in(rng, 3),
        )
        for index, node in enumerate(seeds)
    ]  # fmt: skip
    again_at_ns = down_at_ns  # Who is back first has nobody but the others to be told of.
    for again in (seeds[:1], seeds) if _one_in(rng, 2) else (seeds[:1],):
        again_at_ns += _between(rng, 8, 12) * SECOND
        faults.append(_restart(rng, again_at_ns, again))
    lasts_s = (again_at_ns - cut_at_ns) // SECOND + _between(rng, 12, 20)
    faults.append(
        f.Partition(
            at_ns=cut_at_ns,
            lasts_ns=lasts_s * SECOND,
            left=(*seeds, "c0", "c2", "r0"),
            right=(*others, "c1", "c3", "r1"),
        )
    )
    # Until the world heals, or nearly: what is written behind hides what has got lost.
    more_s = (cut_at_ns - WARM_UP_NS) // SECOND + _between(rng, 0, 2)
    scenario = _roomy(scenario, rng, nodes, replicas, faults, lasts_s=lasts_s + more_s)
    workload = replace(
        scenario.workload, keys=_between(rng, 150, 300), deletes=_between(rng, 0, 60)
    )
    return replace(scenario, workload=workload, exchange_interval_ns=SECOND)


def forgotten(scenario: Scenario, rng: Random) -> Scenario:
    """Keep nodes apart for longer than members remember each other."""
    nodes, replicas = _between(rng, 2, 5), _between(rng, 1, 2)
    sides = _sides(rng, nodes, 2)
    forget_s, delay_s = _between(rng, 5, 15), _between(rng, 1, 5)
    lasts_s = delay_s + forget_s + _between(rng, 8, 25)
    at_ns = WARM_UP_NS + _between(rng, 2, 5) * SECOND
    faults: list[f.Fault] = [
        f.Partition(at_ns=at_ns, lasts_ns=lasts_s * SECOND, left=sides[0], right=sides[1])
    ]
    if _one_in(rng, 2):
        faults.append(_restart(rng, at_ns + _between(rng, 3, lasts_s) * SECOND, _names(nodes)))
    scenario = _roomy(scenario, rng, nodes, replicas, faults, lasts_s=lasts_s + 20)
    workload = replace(scenario.workload, deletes=_between(rng, 0, 60))
    return replace(
        scenario, workload=workload, forget_after_ns=forget_s * SECOND,
        rebalance_delay_ns=delay_s * SECOND, exchange_interval_ns=_between(rng, 1, 2) * SECOND,
    )  # fmt: skip


def much_to_catch_up(scenario: Scenario, rng: Random) -> Scenario:
    """Let a node be away from so many values that it needs seconds to get what it has missed.

    Much is deleted meanwhile, all is listed now and then, and in half of the worlds there is room
    for a few tombstones, so that the others have forgotten what the node would need to know.
    """
    nodes, replicas = _between(rng, 3, 4), _between(rng, 1, 2)
    away = f"n{_between(rng, 0, nodes - 1)}"
    others = tuple(name for name in _names(nodes) if name != away)
    at_ns, lasts_ns = WARM_UP_NS + 8 * SECOND, _between(rng, 5, 15) * SECOND
    cut = f.Partition(
        at_ns=at_ns, lasts_ns=lasts_ns, left=(away, "c0", "r0"),
        right=(*others, "c1", "c2", "c3", "r1"),
    )  # fmt: skip
    kinds: Sequence[f.Fault] = (
        cut,
        cut,
        f.Pause(at_ns=at_ns, lasts_ns=lasts_ns, node=away),
        f.Restart(at_ns=at_ns, lasts_ns=lasts_ns, node=away, silent=_one_in(rng, 2)),
        f.Crash(at_ns=at_ns, node=away, silent=_one_in(rng, 2)),
    )  # fmt: skip
    faults = [kinds[_between(rng, 0, len(kinds) - 1)]]
    scenario = _roomy(scenario, rng, nodes, replicas, faults, lasts_s=45)
    forgetful = _one_in(rng, 2)
    workload = replace(
        scenario.workload, keys=_between(rng, 150, 300), value_bytes=_between(rng, 4, 16) * KIB,
        pause_ns=_between(rng, 20, 50) * MILLISECOND, readers=2,
        deletes=_between(rng, 20, 60), replaces=_between(rng, 60, 120) if forgetful else 0,
        rare_permille=_between(rng, 40, 100),
    )  # fmt: skip
    if forgetful:
        few = Budgets(valueless_share=room_for(scenario, _between(rng, 2, 20)))
        scenario = replace(scenario, budgets=few)
    return replace(
        scenario, workload=workload, slots=(64, 256, 512)[_between(rng, 0, 2)],
        move_bytes_per_second=_between(rng, 1, 3) * 64 * KIB,
        exchange_interval_ns=_between(rng, 3, 10) * SECOND,
    )  # fmt: skip


def one_is_small(scenario: Scenario, rng: Random) -> Scenario:
    """Give one node or two too little memory beside others with room for all; restart and join."""
    nodes, replicas = _between(rng, 2, 4), _between(rng, 1, 2)
    names = [f"n{index}" for index in range(nodes + 2)]
    faults: list[f.Fault] = []
    small = _between(rng, 0, nodes - 1)
    for index in range(_between(rng, 2, 5)):
        at_ns = WARM_UP_NS + (6 + 7 * index) * SECOND
        if index < 2 and _one_in(rng, 2):
            faults.append(f.Join(at_ns=at_ns, node=names[nodes + index]))
            if _one_in(rng, 2):  # Who holds most is away as the slots change hands.
                away = names[(small + 1) % nodes]
                faults.append(f.Pause(at_ns=at_ns - 4 * SECOND, lasts_ns=7 * SECOND, node=away))
        else:
            faults.append(_restart(rng, at_ns, names[:nodes]))
    if _one_in(rng, 2):
        faults.append(_cut_off(rng, nodes))
    scenario = _roomy(scenario, rng, nodes, replicas, faults, lasts_s=45)
    limits = tuple(MIB if i in (small, nodes + 1) else 64 * MIB for i in range(nodes + 2))
    workload = replace(
        scenario.workload, keys=_between(rng, 60, 120), value_bytes=_between(rng, 40, 90) * KIB,
        pause_ns=_between(rng, 20, 50) * MILLISECOND,
    )  # fmt: skip
    budgets = Budgets(valueless_share=MIB // (_between(rng, 2, 40) * 256))
    return replace(
        scenario, workload=workload, memory_limits_bytes=limits, slots=(16, 64)[_one_in(rng, 2)],
        budgets=budgets if _one_in(rng, 2) else Budgets(),
    )  # fmt: skip


def narrow_links(scenario: Scenario, rng: Random) -> Scenario:
    """Links of one node, or what it reads, take seconds for what usually takes milliseconds."""
    nodes, replicas = _between(rng, 3, 4), _between(rng, 1, 2)
    faults: list[f.Fault] = [
        f.Narrow(
            at_ns=WARM_UP_NS + _between(rng, 0, 30) * SECOND,
            lasts_ns=_between(rng, 2, 15) * SECOND,
            node=_names(nodes)[_between(rng, 0, nodes - 1)],
            bytes_per_second=_between(rng, 32, 512) * KIB,
            only_reads=_one_in(rng, 3),
        )
        for _ in range(_between(rng, 1, 3))
    ]
    narrow = _roomy(scenario, rng, nodes, replicas, faults, lasts_s=45)
    return replace(narrow, workload=replace(narrow.workload, keys=16, value_bytes=8 * KIB))


def wrong_clocks(scenario: Scenario, rng: Random) -> Scenario:
    """Set clocks wrong by seconds to hours, let nodes come at very different times, and go.

    In half of the worlds one node begins, writes alone, and gets company.
    """
    replicas = _between(rng, 1, 2)
    nodes = 1 if _one_in(rng, 2) else _between(rng, 2, 4)
    faults: list[f.Fault] = []
    names = [f"n{index}" for index in range(nodes)]
    at_ns = WARM_UP_NS + SECOND
    for _ in range(_between(rng, 3, 7)):
        at_ns += _between(rng, 1_000, 9_000) * MILLISECOND
        node = names[_between(rng, 0, len(names) - 1)]
        if len(names) < 3 or _one_in(rng, 4):
            names.append(f"n{len(names)}")
            faults.append(f.Join(at_ns=at_ns, node=names[-1]))
        elif _one_in(rng, 8):
            faults.append(f.Leave(at_ns=at_ns, node=node))
        else:
            down_ns = 100 * MILLISECOND if _one_in(rng, 2) else _between(rng, 1, 9) * SECOND
            faults.append(f.Restart(at_ns=at_ns, lasts_ns=down_ns, node=node))
            if _one_in(rng, 3):  # Its clock is another one when it is back.
                by_ns = _error_ns(rng)
                faults.append(f.ClockStep(at_ns=at_ns - MILLISECOND, node=node, by_ns=by_ns))
    wrong = tuple((name, _error_ns(rng)) for name in names if name == "n0" or _one_in(rng, 3))
    workload = replace(
        scenario.workload, clients=_between(rng, 2, 5), keys=_between(rng, 24, 60),
        pause_ns=_between(rng, 30, 120) * MILLISECOND, w=(1, 2), ttl_ms=10_000, value_bytes=48,
        rare_permille=0, r=(), copies=(),
        clears_permille=10 if _one_in(rng, 3) else 0,
    )  # fmt: skip
    return replace(
        scenario, nodes=nodes, replicas=replicas, faults=tuple(faults), workload=workload,
        revive=(), memory_limits_bytes=(64 * MIB,), budgets=Budgets(), wrong_clocks=wrong,
        exchange_interval_ns=_between(rng, 3, 8) * SECOND,
        rebalance_delay_ns=(60 if _one_in(rng, 2) else 3) * SECOND,
    )  # fmt: skip


def crowds(scenario: Scenario, rng: Random) -> Scenario:
    """Let most calls be made by clients that have many at a time, in whatever else was drawn."""
    workload = replace(
        scenario.workload, clients=1, crowds=_between(rng, 1, 3), keys=_between(rng, 16, 60),
        pause_ns=_between(rng, 40, 300) * MILLISECOND, readers=0, rare_permille=0,
    )  # fmt: skip
    return replace(scenario, workload=workload)


def gray(scenario: Scenario, rng: Random) -> Scenario:
    """Let one node answer late for most of the run, over links that lose packets, and never die."""
    nodes = _between(rng, 3, 5)
    slow = f"n{_between(rng, 0, nodes - 1)}"
    at_ns, lasts_ns = WARM_UP_NS + _between(rng, 1, 4) * SECOND, 50 * SECOND
    faults: list[f.Fault] = [
        f.Delay(
            at_ns=at_ns, lasts_ns=lasts_ns, node=slow,
            extra_ns=_between(rng, 50, 150) * MILLISECOND,
        ),
        f.Loss(at_ns=at_ns, lasts_ns=lasts_ns, node=slow, permille=_between(rng, 0, 200)),
    ]  # fmt: skip
    scenario = _roomy(scenario, rng, nodes, _between(rng, 2, 3), faults, lasts_s=60)
    workload = replace(
        scenario.workload, w=(2, 2, 1), rare_permille=0, r=(), copies=(), crowds=0
    )  # fmt: skip
    links = LinkSettings(delay_ns=_between(rng, 100, 2_000) * MICROSECOND)
    return replace(scenario, workload=workload, links=links)


def strangers(scenario: Scenario, rng: Random) -> Scenario:
    """Give a node's name to a second machine, start nodes that nobody reaches, invent members."""
    nodes, replicas = _between(rng, 3, 4), _between(rng, 1, 2)
    faults: list[f.Fault] = [_restart(rng, _within(rng, 30), ("n0",))]
    kinds = ("twin", "unreached", "lies") if _one_in(rng, 2) else ("twin", "lies", "twin")
    for index, kind in enumerate(kinds):
        at_ns, lasts_ns = _within(rng, 25), _between(rng, 10, 16) * SECOND
        if kind == "twin":
            node = f"n{_between(rng, 1, nodes - 1)}"
            faults.append(f.Twin(at_ns=at_ns, lasts_ns=lasts_ns, node=node))
        elif kind == "unreached":
            faults.append(f.Unreached(at_ns=at_ns, lasts_ns=lasts_ns, node=f"n{90 + index}"))
        else:
            faults.append(f.Lies(at_ns=at_ns, count=_between(rng, 1, 40)))
    return _roomy(scenario, rng, nodes, replicas, faults, lasts_s=45)


def keyed(scenario: Scenario, rng: Random) -> Scenario:
    """Give every node and client a key; let a client claim to be a node, while some restart."""
    nodes, replicas = _between(rng, 3, 5), _between(rng, 1, 2)
    faults: list[f.Fault] = [_restart(rng, _within(rng, 30), _names(nodes)) for _ in range(2)]
    faults += [f.Forgery(at_ns=_within(rng, 40)) for _ in range(_between(rng, 2, 5))]
    faults.append(f.Lies(at_ns=_within(rng, 40), count=_between(rng, 1, 40)))
    if _one_in(rng, 2):
        one, other = _two(rng, _names(nodes))
        faults.append(
            f.Partition(
                at_ns=_within(rng, 30), lasts_ns=_between(rng, 1, 8) * SECOND,
                left=(one,), right=(other,),
            )
        )  # fmt: skip
    return replace(_roomy(scenario, rng, nodes, replicas, faults, lasts_s=45), keyed=True)


WORLDS: Mapping[str, World] = {
    world.__name__.replace("_", "-"): world
    for world in (
        cut_by_pieces, half_reached, healed_in_part, restarted_inside, forgotten,
        much_to_catch_up, narrow_links, one_is_small, wrong_clocks, crowds, gray,
        strangers, keyed,
    )
}  # fmt: skip

ODDS: tuple[tuple[str, str, int], ...] = (
    ("wrong-clocks", "askew", 10),
    ("narrow-links", "narrow", 12),
    ("gray", "gray", 20),
    ("one-is-small", "small", 12),
    ("strangers", "strangers", 16),
    ("cut-by-pieces", "cut", 16),
    ("half-reached", "reached", 16),
    ("healed-in-part", "healed", 16),
    ("forgotten", "forgotten", 12),
    ("restarted-inside", "inside", 16),
    ("much-to-catch-up", "much", 12),
    ("keyed", "keyed", 16),
)
"""(world, its random stream, drawn for one seed in so many), the first that is drawn; the others
are asked for by name."""


# ------------------------------------------------------------------ pieces


def _roomy(
    scenario: Scenario,
    rng: Random,
    nodes: int,
    replicas: int,
    faults: list[f.Fault],
    *,
    lasts_s: int,
) -> Scenario:
    """Return `scenario` with these faults alone, memory for everything, and eager readers."""
    workload = replace(
        scenario.workload, clients=4, readers=_between(rng, 1, 3), value_bytes=48, deletes=0,
        keys=_between(rng, 24, 80), pause_ns=_between(rng, 40, 120) * MILLISECOND,
        w=(2, 2, 1) if _one_in(rng, 2) else (1, replicas + 1, 0), clears_permille=0,
    )  # fmt: skip
    scenario = replace(
        scenario, nodes=nodes, replicas=replicas, workload=workload, revive=(),
        faults=tuple(sorted(faults, key=lambda fault: fault.at_ns)), faults_ns=lasts_s * SECOND,
        memory_limits_bytes=(64 * MIB,), budgets=Budgets(),
        exchange_interval_ns=(1 if _one_in(rng, 2) else _between(rng, 2, 5)) * SECOND,
        rebalance_delay_ns=(60 if _one_in(rng, 2) else _between(rng, 2, 5)) * SECOND,
    )  # fmt: skip
    if _one_in(rng, 2):
        links = LinkSettings(delay_ns=_between(rng, 1, 20) * MILLISECOND)
        scenario = replace(scenario, links=links)
    return scenario


def _names(nodes: int) -> tuple[str, ...]:
    return tuple(f"n{index}" for index in range(nodes))


def _within(rng: Random, seconds: int) -> int:
    return WARM_UP_NS + SECOND + int(rng.random() * seconds * SECOND)


def _two(rng: Random, names: Sequence[str]) -> tuple[str, str]:
    first = _between(rng, 0, len(names) - 1)
    second = (first + _between(rng, 1, len(names) - 1)) % len(names)
    return names[first], names[second]


def _planes(rng: Random) -> tuple[str, ...]:
    return (BOTH_PLANES, BOTH_PLANES, (REQUEST,), (GOSSIP,))[_between(rng, 0, 3)]


def _sides(rng: Random, nodes: int, count: int) -> list[tuple[str, ...]]:
    """Return nodes and clients in `count` sides; none is without a node if there are enough."""
    names = list(_names(nodes))
    rng.shuffle(names)
    sides = [names[index::count] for index in range(count)]
    for index, client in enumerate(("c0", "c1", "c2", "c3", "r0", "r1", "r2")):
        sides[index % count].append(client)
    return [tuple(side) for side in sides]


def _cut_off(rng: Random, nodes: int) -> f.Partition:
    """Return a partition of one node, with some clients, from all the others."""
    away = f"n{_between(rng, 0, nodes - 1)}"
    others = tuple(name for name in _names(nodes) if name != away)
    return f.Partition(
        at_ns=_within(rng, 25), lasts_ns=_between(rng, 3, 15) * SECOND,
        left=(away, "c0", "r0"), right=(*others, "c1", "c2", "c3", "r1"),
    )  # fmt: skip


def _restart(rng: Random, at_ns: int, names: Sequence[str]) -> f.Restart:
    return f.Restart(
        at_ns=at_ns, node=names[_between(rng, 0, len(names) - 1)], silent=_one_in(rng, 3),
        lasts_ns=_between(rng, 100, 6_000) * MILLISECOND,
    )  # fmt: skip


def _error_ns(rng: Random) -> int:
    """Return an error of a clock: mostly around minutes, from a second to some hours."""
    error_ms = _between(rng, 1_000, 2_000) << 2 * _between(rng, 0, 7)
    return MILLISECOND * (-error_ms if _one_in(rng, 2) else error_ms)


def _between(rng: Random, low: int, high: int) -> int:
    return low + int(rng.random() * (high - low + 1))


def _one_in(rng: Random, count: int) -> bool:
    return rng.random() * count < 1
