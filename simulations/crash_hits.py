"""What a crash costs readers of a full cache: hits on the keys that the dead node led.

A read-through client draws keys by Zipf's law, reads each from the cluster and stores what it
misses, in a cluster whose memory has room for a share of all copies. Once the hit ratio is steady
one node dies; what it led is read once more, each key as often as it was drawn before, and counted
only where the cluster still has it: nothing is stored any more. The cluster is the production core
in virtual time (`stage`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate
from random import Random
from typing import NamedTuple

from dcc.config import NodeConfig
from dcc.node.core import NodeCore
from dcc.ring.hashing import slot_of
from dcc.types import Boot, NodeKey, Now, Standing
from dcc.units import KIB, MIB, SECOND
from dcc.wire.messages import Get, Status
from simulations.faults import Crash
from simulations.observer import core_of
from simulations.scenario import Scenario
from simulations.stage import Stage

NODES = 3
VALUE_BYTES = 1 * KIB
LIMIT_BYTES = 1 * MIB

KEYS = 2_000
"Copies of all of them would take 1.7 times the memory there is."

SKEW = 0.99
STEADY_SHARE = 0.25
"The last part of the reads before the crash, in which the healthy hit ratio is counted."


class Ratios(NamedTuple):
    """Hit ratios, 0..1."""

    healthy: float
    after_crash: float
    "Of reads of keys that the dead node led."


def measure(*, named: int, eviction: str, reads: int, seed: int) -> Ratios:
    """Return the hit ratios where nodes name at most `named` served keys a second."""
    scenario = Scenario(
        seed=seed, nodes=NODES, replicas=1, slots=512, memory_limits_bytes=(LIMIT_BYTES,),
        eviction=eviction, rebalance_delay_ns=600 * SECOND,
    )  # fmt: skip
    rng = Random(f"{seed}/reads")
    weights = list(accumulate((rank + 1) ** -SKEW for rank in range(KEYS)))
    drawn = rng.choices(range(KEYS), cum_weights=weights, k=reads)
    with Stage(scenario, _naming(named)) as stage:
        stage.warm_up()
        steady = reads - int(reads * STEADY_SHARE)
        hits = [_read_through(stage, key) for key in drawn]
        dead = stage.world.nodes["n0"].key
        led = Counter(key for key in drawn[steady:] if _leads(stage, dead, key))
        stage.world.schedule((Crash(at_ns=stage.world.now_ns, node="n0"),))
        view = core_of(stage.world.nodes["n1"]).membership
        while view.members[dead].standing is not Standing.DEAD:
            stage.play(SECOND)
        kept = sum(count for key, count in led.items() if _read(stage, key))
    return Ratios(sum(hits[steady:]) / (reads - steady), kept / led.total())


def _naming(named: int) -> Callable[..., NodeCore]:
    def make(config: NodeConfig, *, boot: Boot, rng: Random, now: Now) -> NodeCore:
        config = replace(config, named_keys_per_second=named)
        return NodeCore(config, boot=boot, rng=rng, now=now)

    return make


def _name(key: int) -> bytes:
    return b"key-%d" % key


def _leads(stage: Stage, node: NodeKey, key: int) -> bool:
    view = core_of(stage.world.nodes["n0"]).held.view
    return view.route(slot_of(_name(key)))[0] == node


def _read(stage: Stage, key: int) -> bool:
    return stage.call("c0", Get(key=_name(key))).status is Status.HIT


def _read_through(stage: Stage, key: int) -> bool:
    if _read(stage, key):
        return True
    stage.put("c0", _name(key), b"v" * VALUE_BYTES)
    return False
