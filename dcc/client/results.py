"""What calls return: plain, frozen values with the field names that JSON and HTTP use too."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from typing import Any

from dcc.types import Version


@dataclass(frozen=True, slots=True)
class Lookup:
    """How a read ended, with everything that is known of the value."""

    status: str
    '"hit", "miss" (no holder has the key) or "unsure" (not found, but not every holder was asked).'
    value: bytes | None
    version: Version | None
    age: float | None
    """Seconds since a node stamped this version, by the cluster's clock; None without a value.

    It says how old the value is, not how far behind: a value that nobody changed is as old as its
    last write and yet the newest. A touch writes anew, so age starts over. As exact as the
    client's idea of cluster time: half a round trip, and never below 0.
    """
    confirmed: bool
    """No owner is known that may know better: a miss that was settled with every holder, or a hit
    that came through the primary or from a majority of the owners (`r`). False for "unsure", and
    for a hit that one replica gave alone."""
    expires_at: float | None
    "Seconds since 1970 by the cluster's clock; None = never, or no hit."
    node: str
    "Name of the node that answered."


@dataclass(frozen=True, slots=True)
class Entry:
    """A value with what the cluster knows of it."""

    value: bytes
    version: Version
    expires_at: float | None
    "Seconds since 1970 by the cluster's clock; None = never."
    age: float
    "Seconds since this version was stamped; see `Lookup.age`."
    node: str
    "Name of the node that answered."
    confirmed: bool
    "It came through the primary, or from a majority; see `Lookup.confirmed`."


@dataclass(frozen=True, slots=True)
class Convergence:
    """Whether the cluster has converged, by the word of one node that asked all the others."""

    converged: bool
    "One view, all copies in their places, nobody behind."
    under_replicated: int
    "Copies that are missing or not known to be complete, summed over all slots."
    reasons: tuple[str, ...]
    "What is not converged yet, for people; empty if converged."


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """One member of the cluster."""

    name: str
    request: str
    gossip: str
    zone: str
    weight: float
    standing: str
    '"alive", "suspect", "dead", "removed" or "left".'


@dataclass(frozen=True, slots=True)
class Topology:
    """The cluster as one node sees it."""

    epoch: int
    replicas: int
    nodes: tuple[NodeInfo, ...]
    _owners: Callable[[str], tuple[str, ...]] = field(repr=False, compare=False)

    def owners(self, key: str) -> tuple[str, ...]:
        """Return the names of the nodes that should hold `key`, the primary first."""
        return self._owners(key)


@dataclass(frozen=True, slots=True)
class NodeStats:
    """Statistics of one node, or the total of several. Counters count since its start."""

    hits: int = 0
    misses: int = 0
    hit_ratio: float = 0.0
    requests_per_second: dict[str, float] = field(default_factory=dict)
    "By command."
    latency_seconds: dict[str, dict[str, float]] = field(default_factory=dict)
    'By command: "p50", "p95", "p99". A total shows the worst node.'
    items: int = 0
    item_bytes: int = 0
    memory_limit_bytes: int = 0
    evicted: int = 0
    expired: int = 0
    replication_lag_seconds: float = 0.0
    health: Any = None
    loop_lag_seconds: float = 0.0
    members: dict[str, str] = field(default_factory=dict)
    "Name -> standing, as this node sees it."
    epoch: int = 0
    unsure: int = 0
    "Misses for which not every holder could be asked."
    ready: bool = False
    "Joined and serving. A total is ready when every node is."
    slots_ready: bool = False
    "In sync with every live holder of its slots as well."
    filling: bool = False
    "New: has not pulled all its slots yet, so others lead them."
    slow: bool = False
    "Many times slower than the others find each other, so that these lead its slots."
    up_seconds: float = 0.0
    sampled_reads: int = 0
    "Served values that were watched for newer versions: one in so many."
    stale_reads: int = 0
    "Those of them of which a newer version existed elsewhere as they were served."
    stale_read_ratio: float = 0.0
    detail: dict[str, Any] = field(default_factory=dict)
    "What the metrics endpoint shows beyond this; may change between versions."

    @classmethod
    def from_json(cls, text: bytes) -> NodeStats:
        """Return the statistics in a JSON object; fields it lacks keep their default.

        A field of another type than expected is left out too: a node of another version must
        not break the monitoring of a mixed cluster. ValueError if it is no JSON object.
        """
        try:
            found = json.loads(text)
        except RecursionError as error:
            raise ValueError("statistics are nested too deeply") from error
        if not isinstance(found, dict):
            raise ValueError("statistics are no JSON object")
        blank = cls()
        known = {one.name: getattr(blank, one.name) for one in fields(cls)}
        return cls(**{
            name: found[name]
            for name, default in known.items()
            if name in found and _fits(found[name], default)
        })  # fmt: skip

    @classmethod
    def total(cls, nodes: Iterable[NodeStats]) -> NodeStats:
        """Return the sum of counters and sizes, the worst of lags and latencies."""
        parts = list(nodes)
        hits, misses = sum(n.hits for n in parts), sum(n.misses for n in parts)
        sampled, stale = sum(n.sampled_reads for n in parts), sum(n.stale_reads for n in parts)
        epochs = {n.epoch for n in parts}
        return cls(
            hits=hits,
            misses=misses,
            hit_ratio=hits / (hits + misses) if hits + misses else 0.0,
            requests_per_second=_merged([n.requests_per_second for n in parts], sum),
            latency_seconds=_worst([n.latency_seconds for n in parts]),
            items=sum(n.items for n in parts),
            item_bytes=sum(n.item_bytes for n in parts),
            memory_limit_bytes=sum(n.memory_limit_bytes for n in parts),
            evicted=sum(n.evicted for n in parts),
            expired=sum(n.expired for n in parts),
            replication_lag_seconds=max((n.replication_lag_seconds for n in parts), default=0.0),
            loop_lag_seconds=max((n.loop_lag_seconds for n in parts), default=0.0),
            members={name: one for n in parts for name, one in sorted(n.members.items())},
            epoch=epochs.pop() if len(epochs) == 1 else 0,
            unsure=sum(n.unsure for n in parts),
            ready=bool(parts) and all(n.ready for n in parts),
            slots_ready=bool(parts) and all(n.slots_ready for n in parts),
            filling=any(n.filling for n in parts),
            slow=any(n.slow for n in parts),
            up_seconds=min((n.up_seconds for n in parts), default=0.0),
            sampled_reads=sampled,
            stale_reads=stale,
            stale_read_ratio=stale / sampled if sampled else 0.0,
        )


@dataclass(frozen=True, slots=True)
class ClusterStats:
    """Statistics of every node that answered, and their total."""

    nodes: dict[str, NodeStats]
    "By node name."
    total: NodeStats
    unreachable: dict[str, str] = field(default_factory=dict)
    "Members that did not answer in time: name -> reason."


def _fits(value: object, default: object) -> bool:
    if default is None:
        return True
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is type(default)


def _merged(
    tables: list[dict[str, float]], combine: Callable[[Iterable[float]], float]
) -> dict[str, float]:
    names = sorted({name for table in tables for name in table})
    return {name: combine([table[name] for table in tables if name in table]) for name in names}


def _worst(tables: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    commands = sorted({command for table in tables for command in table})
    return {
        command: _merged([table[command] for table in tables if command in table], max)
        for command in commands
    }
