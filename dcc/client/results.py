"""What calls return: plain, frozen values with the field names that JSON and HTTP use too."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from dcc.figures import total
from dcc.types import Version


@dataclass(frozen=True, slots=True)
class Lookup:
    """How a read ended, with everything that is known of the value."""

    status: Literal["hit", "miss", "unsure"]
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

    @property
    def ttl(self) -> float | None:
        """Seconds until it expired, when it was read, from 0; None = never. Does not count down."""
        if self.expires_at is None:
            return None
        read_at = (self.version.stamp >> 16) / 1000 + self.age
        return max(0.0, self.expires_at - read_at)


@dataclass(frozen=True, slots=True)
class Latency:
    """How long the calls of one command have taken, those that failed included."""

    count: int
    sum: float
    "Seconds, of all together."
    buckets: tuple[tuple[float, int], ...]
    "Upper bounds in seconds, ascending, each with the number of calls that took less."

    def quantile(self, q: float) -> float:
        """Return an upper bound of the q-quantile in seconds, at most twice its value.

        Infinity beyond the last bound, and 0.0 if nothing was counted.
        """
        if not self.count:
            return 0.0
        wanted = q * self.count
        return next((bound for bound, count in self.buckets if count >= wanted), float("inf"))


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
    """Statistics of one node, or the total of several: what a node tells, field by field.

    `docs/statistics.md` has every field's unit and meaning, and how a total combines it.
    """

    name: str = ""
    "Empty in a total."
    cluster: str = ""
    zone: str = ""
    hits: int = 0
    misses: int = 0
    unsure: int = 0
    hit_ratio: float = 0.0
    requests: dict[str, int] = field(default_factory=dict)
    "By command."
    requests_per_second: dict[str, float] = field(default_factory=dict)
    "By command."
    latency_seconds: dict[str, dict[str, float]] = field(default_factory=dict)
    'By command: "p50", "p95", "p99".'
    items: int = 0
    item_bytes: int = 0
    bytes_used: int = 0
    memory_limit_bytes: int = 0
    evicted: int = 0
    expired: int = 0
    ghosts: int = 0
    tombstones: int = 0
    replication_lag_seconds: float = 0.0
    sampled_reads: int = 0
    stale_reads: int = 0
    stale_read_ratio: float = 0.0
    health: Any = None
    '"standing", "score", "loop_lag_seconds".'
    loop_lag_seconds: float = 0.0
    members: dict[str, str] = field(default_factory=dict)
    "Name -> standing."
    epoch: int = 0
    replicas: int = 0
    ready: bool = False
    slots_ready: bool = False
    draining: bool = False
    filling: bool = False
    slow: bool = False
    up_seconds: float = 0.0
    detail: dict[str, Any] = field(default_factory=dict)
    "What metrics show beyond this; may change between versions."

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
        return cls._of(found)

    @classmethod
    def total(cls, nodes: Iterable[NodeStats]) -> NodeStats:
        """Return the figures of several nodes as one, each combined as `dcc.figures` says."""
        names = [one.name for one in fields(cls)]
        return cls._of(total([{name: getattr(n, name) for name in names} for n in nodes]))

    @classmethod
    def _of(cls, found: dict[str, Any]) -> NodeStats:
        blank = cls()
        known = {one.name: getattr(blank, one.name) for one in fields(cls)}
        return cls(**{
            name: found[name]
            for name, default in known.items()
            if name in found and _fits(found[name], default)
        })  # fmt: skip


@dataclass(frozen=True, slots=True)
class HotKey:
    """A key that is read much."""

    key: str
    rate: float
    "Reads that found it, a second, of all nodes together; an estimate from one read in eight."
    nodes: dict[str, float]
    "The same by the name of each node that has it among its own."
    hot: bool
    "Some node finds that it should be read of all its owners."


@dataclass(frozen=True, slots=True)
class ClusterStats:
    """Statistics of every node that answered, and their total."""

    nodes: dict[str, NodeStats]
    "By node name."
    total: NodeStats
    unreachable: dict[str, str] = field(default_factory=dict)
    "Members that did not answer in time: name -> reason."

    def hot_keys(self, most: int = 20) -> list[HotKey]:
        """Return the keys read most, the first first; none if they were not asked for.

        Each node tells its own fifty, so the sum of a key that is far behind there may lack some.
        """
        rates: dict[str, dict[str, float]] = {}
        hot: set[str] = set()
        for name, node in self.nodes.items():
            for key, rate, is_hot in _told_as_hottest(node):
                rates.setdefault(key, {})[name] = rate
                if is_hot:
                    hot.add(key)
        found = [HotKey(key, sum(by.values()), by, key in hot) for key, by in rates.items()]
        return sorted(found, key=lambda one: (-one.rate, one.key))[:most]


def _told_as_hottest(node: NodeStats) -> list[tuple[str, float, bool]]:
    """Return key, rate and hot of each key that `node` told; what is odd is left out."""
    told = node.detail.get("hottest")
    rows = told if isinstance(told, list) else []
    return [
        (row[0], float(row[1]), row[2])
        for row in rows
        if isinstance(row, list)
        and [type(one) for one in row] in ([str, float, bool], [str, int, bool])
        and row[1] > 0
    ]


def _fits(value: object, default: object) -> bool:
    if default is None:
        return True
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is type(default)
