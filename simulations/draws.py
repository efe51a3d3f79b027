"""How a scenario is drawn from a seed.

Swarm testing: the options themselves are drawn, so that each seed explores another kind of world
(two nodes or six, no copies or three, a clean network or a lossy one), and faults of one kind can
be frequent in one run and absent in the next. Most scenarios are then given a twist (`twists`)
that makes something rare likely, and some a world (`worlds`) that asks one question.

Source: Groce et al., "Swarm testing", ISSTA 2012, for leaving features out at random.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

from dcc.units import KIB, MIB, MICROSECOND, MILLISECOND, SECOND
from simulations import faults as f
from simulations.network import BOTH_PLANES, GOSSIP, REQUEST, LinkSettings
from simulations.scenario import FAULTS_NS, WARM_UP_NS, Scenario
from simulations.twists import twisted
from simulations.workload import WorkloadSettings
from simulations.world import ClockSettings
from simulations.worlds import in_world


def draw_scenario(seed: int, world: str = "") -> Scenario:
    """Return the scenario of a seed: always the same one; in the world of that name, if given."""
    return in_world(_with_idlers(_with_rare_calls(draw_twisted(seed))), world)


def draw_twisted(seed: int) -> Scenario:
    """Return the scenario of a seed with its twist, as it was before there were worlds."""
    return twisted(draw_plain(seed))


def _with_rare_calls(scenario: Scenario) -> Scenario:
    """Let clients of every second scenario do what `operations` lists, and ask for quorums."""
    rng = Random(f"{scenario.seed}/rare")
    if not _one_in(rng, 2):
        return scenario
    copies = tuple(_between(rng, 0, 3) for _ in range(3)) if _one_in(rng, 4) else ()
    workload = replace(
        scenario.workload, rare_permille=_between(rng, 20, 200),
        r=(1, 1, 0, 2) if _one_in(rng, 2) else (), copies=copies,
    )  # fmt: skip
    return replace(scenario, workload=workload)


def _with_idlers(scenario: Scenario) -> Scenario:
    """Give every fourth scenario clients that seldom call, and so may not know who stands still."""
    rng = Random(f"{scenario.seed}/idlers")
    if not _one_in(rng, 4):
        return scenario
    workload = replace(scenario.workload, idlers=_between(rng, 2, 8))
    return replace(scenario, workload=workload)


def draw_plain(seed: int) -> Scenario:
    """Return the scenario of a seed without a twist."""
    rng = Random(f"{seed}/scenario")
    nodes = _between(rng, 2, 6)
    replicas = _between(rng, 0, 3)
    pressed = _one_in(rng, 5)
    faults = draw_faults(rng, nodes, FAULTS_NS)
    dead = sorted({fault.node for fault in faults if isinstance(fault, f.Crash)})
    return Scenario(
        seed=seed,
        nodes=nodes,
        replicas=replicas,
        rebalance_delay_ns=_between(rng, 1, 10) * SECOND,
        exchange_interval_ns=_between(rng, 1, 10) * SECOND,
        push_pull_interval_ns=_between(rng, 5, 30) * SECOND,
        memory_limits_bytes=(1 * MIB if pressed else 64 * MIB,),
        eviction="lfu" if _one_in(rng, 2) else "lru",
        zones=_between(rng, 1, 2),
        links=_draw_links(rng),
        clocks=ClockSettings(
            offset_ns=_between(rng, 0, 100) * MILLISECOND, drift_ppm=_between(rng, 0, 100)
        ),
        workload=_draw_workload(rng, replicas, pressed=pressed),
        faults=faults,
        revive=tuple(name for name in dead if _one_in(rng, 2)),
    )


def _between(rng: Random, low: int, high: int) -> int:
    return low + int(rng.random() * (high - low + 1))


def _one_in(rng: Random, count: int) -> bool:
    return rng.random() * count < 1


def _draw_links(rng: Random) -> LinkSettings:
    return LinkSettings(
        delay_ns=_between(rng, 50, 2_000) * MICROSECOND,
        jitter_ns=_between(rng, 0, 5_000) * MICROSECOND,
        spike_permille=_between(rng, 0, 20) if _one_in(rng, 2) else 0,
        loss_permille=_between(rng, 0, 100) if _one_in(rng, 2) else 0,
        duplicate_permille=_between(rng, 0, 50) if _one_in(rng, 2) else 0,
    )


def _draw_workload(rng: Random, replicas: int, *, pressed: bool) -> WorkloadSettings:
    w = tuple(_between(rng, 1, min(3, replicas + 1)) for _ in range(2))
    return WorkloadSettings(
        clients=_between(rng, 1, 4),
        keys=_between(rng, 8, 40),
        pause_ns=_between(rng, 50, 400) * MILLISECOND,
        value_bytes=256 * KIB if pressed else 8 * KIB if _one_in(rng, 4) else 48,
        w=(*w, 0, 255) if _one_in(rng, 3) else w,
    )


def draw_faults(rng: Random, nodes: int, lasts_ns: int) -> tuple[f.Fault, ...]:
    """Return faults that begin and end within `lasts_ns` behind the warm-up, in order."""
    kinds = [kind for kind in KINDS if _one_in(rng, 2)]
    count = _between(rng, 0, 8)
    joined = [nodes]
    drawn = [
        kinds[int(rng.random() * len(kinds))](rng, nodes, lasts_ns, joined)
        for _ in range(count if kinds else 0)
    ]
    return tuple(sorted(drawn, key=lambda fault: fault.at_ns))


def _time(rng: Random, lasts_ns: int) -> tuple[int, int]:
    """Return when a fault begins and how long it lasts: mostly seconds, sometimes long."""
    at = int(rng.random() * lasts_ns)
    longest = 30 * SECOND if _one_in(rng, 4) else 8 * SECOND
    return WARM_UP_NS + at, min(_between(rng, 10 * MILLISECOND, longest), lasts_ns - at)


def _node(rng: Random, nodes: int) -> str:
    return f"n{int(rng.random() * nodes)}"


def _partition(rng: Random, nodes: int, lasts_ns: int, _joined: list[int]) -> f.Fault:
    at, lasts = _time(rng, lasts_ns)
    everybody = [f"n{i}" for i in range(nodes)] + [f"c{i}" for i in range(4)]
    sides = [int(rng.random() * 5) for _ in everybody]
    left = tuple(name for name, side in zip(everybody, sides, strict=True) if side < 2)
    right = tuple(name for name, side in zip(everybody, sides, strict=True) if 2 <= side < 4)
    planes = (BOTH_PLANES, BOTH_PLANES, (GOSSIP,), (REQUEST,))[_between(rng, 0, 3)]
    return f.Partition(
        at_ns=at, lasts_ns=lasts, left=left, right=right, one_way=_one_in(rng, 4), planes=planes
    )


def _crash(rng: Random, nodes: int, lasts_ns: int, _joined: list[int]) -> f.Fault:
    at, _ = _time(rng, lasts_ns)
    return f.Crash(at_ns=at, node=_node(rng, nodes), silent=_one_in(rng, 2))


def _restart(rng: Random, nodes: int, lasts_ns: int, _joined: list[int]) -> f.Fault:
    at, lasts = _time(rng, lasts_ns)
    lasts = lasts if _one_in(rng, 2) else 100 * MILLISECOND
    echo = _between(rng, 1, 40) if _one_in(rng, 2) else 0
    return f.Restart(
        at_ns=at, node=_node(rng, nodes), lasts_ns=lasts, silent=_one_in(rng, 2), echo=echo
    )


def _pause(rng: Random, nodes: int, lasts_ns: int, _joined: list[int]) -> f.Fault:
    at, lasts = _time(rng, lasts_ns)
    return f.Pause(at_ns=at, lasts_ns=lasts, node=_node(rng, nodes))


def _slow(rng: Random, nodes: int, lasts_ns: int, _joined: list[int]) -> f.Fault:
    at, lasts = _time(rng, lasts_ns)
    cost = _between(rng, 1, 50) * MILLISECOND
    return f.Slow(at_ns=at, lasts_ns=lasts, node=_node(rng, nodes), message_ns=cost)


def _loss(rng: Random, nodes: int, lasts_ns: int, _joined: list[int]) -> f.Fault:
    at, lasts = _time(rng, lasts_ns)
    permille = _between(rng, 50, 900)
    return f.Loss(at_ns=at, lasts_ns=lasts, node=_node(rng, nodes), permille=permille)


def _delay(rng: Random, nodes: int, lasts_ns: int, _joined: list[int]) -> f.Fault:
    at, lasts = _time(rng, lasts_ns)
    extra = _between(rng, 1, 800) * MILLISECOND
    return f.Delay(at_ns=at, lasts_ns=lasts, node=_node(rng, nodes), extra_ns=extra)


def _corrupt(rng: Random, _nodes: int, lasts_ns: int, _joined: list[int]) -> f.Fault:
    at, lasts = _time(rng, lasts_ns)
    return f.Corrupt(at_ns=at, lasts_ns=lasts, permille=_between(rng, 1, 100))


def _clock_step(rng: Random, nodes: int, lasts_ns: int, _joined: list[int]) -> f.Fault:
    at, _ = _time(rng, lasts_ns)
    by = _between(rng, -60_000, 60_000) if _one_in(rng, 3) else _between(rng, -400, 400)
    return f.ClockStep(at_ns=at, node=_node(rng, nodes), by_ns=by * MILLISECOND)


def _clock_drift(rng: Random, nodes: int, lasts_ns: int, _joined: list[int]) -> f.Fault:
    at, _ = _time(rng, lasts_ns)
    return f.ClockDrift(at_ns=at, node=_node(rng, nodes), ppm=_between(rng, -300, 300))


def _join(rng: Random, _nodes: int, lasts_ns: int, joined: list[int]) -> f.Fault:
    at, _ = _time(rng, lasts_ns)
    joined[0] += 1
    return f.Join(at_ns=at, node=f"n{joined[0] - 1}")


def _leave(rng: Random, nodes: int, lasts_ns: int, _joined: list[int]) -> f.Fault:
    at, _ = _time(rng, lasts_ns)
    return f.Leave(at_ns=at, node=_node(rng, nodes))


def _client_death(rng: Random, _nodes: int, lasts_ns: int, _joined: list[int]) -> f.Fault:
    at, _ = _time(rng, lasts_ns)
    return f.ClientDeath(at_ns=at, client=f"c{_between(rng, 0, 3)}")


KINDS = (
    _partition, _crash, _restart, _pause, _slow, _loss, _delay, _corrupt, _clock_step,
    _clock_drift, _join, _leave, _client_death,
)  # fmt: skip
