"""A scenario: everything that decides a run, as one value. `draws` draws one from a seed."""

from __future__ import annotations

from dataclasses import dataclass, field

from dcc.config import NodeConfig
from dcc.units import MIB, SECOND
from simulations import faults as f
from simulations.budgets import Budgets
from simulations.network import LinkSettings
from simulations.workload import WorkloadSettings
from simulations.world import ClockSettings

WARM_UP_NS = 12 * SECOND
"Nodes start, join and get ready; then clients and faults begin."
FAULTS_NS = 60 * SECOND
LIVENESS_NS = 120 * SECOND
SEEDS_LISTED = 3
"Every node is given the first three as seeds, itself among them."


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One run, to the last draw."""

    seed: int
    nodes: int = 4
    replicas: int = 1
    slots: int = 64
    rebalance_delay_ns: int = 5 * SECOND
    exchange_interval_ns: int = 5 * SECOND
    push_pull_interval_ns: int = 30 * SECOND
    forget_after_ns: int = 24 * 3600 * SECOND
    move_bytes_per_second: int = 16 * MIB
    memory_limits_bytes: tuple[int, ...] = (64 * MIB,)
    "Of the nodes in turn, round and round: one for all, or unequal ones."
    eviction: str = "lru"
    zones: int = 1
    links: LinkSettings = field(default_factory=LinkSettings)
    clocks: ClockSettings = field(default_factory=ClockSettings)
    wrong_clocks: tuple[tuple[str, int], ...] = ()
    "Nodes whose machine's wall clock is so many ns ahead of where it would be."
    budgets: Budgets = field(default_factory=Budgets)
    keyed: bool = False
    "Every node and client has a key, so nodes know who sent each request."
    workload: WorkloadSettings = field(default_factory=WorkloadSettings)
    faults: tuple[f.Fault, ...] = ()
    "Times count from the beginning of the world; faults begin after the warm-up."
    revive: tuple[str, ...] = ()
    "Dead nodes that start again when the world heals."
    faults_ns: int = FAULTS_NS
    liveness_ns: int = LIVENESS_NS
    check_every: int = 100

    def names(self) -> list[str]:
        """Return the names of the first nodes."""
        return [f"n{index}" for index in range(self.nodes)]

    def node_config(
        self, name: str, request: str, gossip: str, seeds: tuple[str, ...]
    ) -> NodeConfig:
        """Return the configuration of one node."""
        index, limits = int(name[1:]), self.memory_limits_bytes
        zone = f"z{index % self.zones}" if self.zones > 1 else ""
        return NodeConfig(
            name=name,
            request=request,
            gossip=gossip,
            seeds=seeds,
            zone=zone,
            replicas=self.replicas,
            memory_limit_bytes=limits[index % len(limits)],
            queue_bytes_max=self.budgets.queue_bytes_max,
            eviction=self.eviction,
            rebalance_delay_ns=self.rebalance_delay_ns,
            exchange_interval_ns=self.exchange_interval_ns,
            push_pull_interval_ns=self.push_pull_interval_ns,
            forget_after_ns=self.forget_after_ns,
            move_bytes_per_second=self.move_bytes_per_second,
            leave_timeout_ns=f.LEAVE_TIMEOUT_NS,
        )

    @property
    def may_evict(self) -> bool:
        """Values may be given up for want of room, or of knowledge what was deleted."""
        return min(self.memory_limits_bytes) < 16 * MIB or self.budgets.forgetful
