"""What a node core is told once at its start; everything tunable, with units and ranges.

The shell builds it from options, environment and file (`dcc.node.options`), the simulator draws
it from a seed. `check` runs at construction, so an impossible configuration cannot exist.
"""

from __future__ import annotations

from dataclasses import dataclass

from dcc.errors import ConfigError
from dcc.limits import (
    BATCH_KEYS_MAX,
    MEMBERS_MAX,
    NAME_BYTES_MAX,
    REPLICAS_MAX,
    VALUE_BYTES_MAX,
)
from dcc.units import KIB, MIB, MILLISECOND, SECOND

EVICTION_POLICIES = ("lru", "lfu")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """Settings of one node for its whole life."""

    name: str
    "1..128 bytes; default of the command: host:port of the advertised request address."
    request: str
    "Advertised host:port of the ROUTER."
    gossip: str
    "Advertised host:port of the PUB."
    seeds: tuple[str, ...] = ()
    "Request addresses, already resolved."
    cluster: str = "dcc"
    zone: str = ""
    weight: float = 1.0
    replicas: int = 1
    "Copies beyond the primary, if this node founds the cluster."
    memory_limit_bytes: int = 256 * MIB
    value_bytes_max: int = VALUE_BYTES_MAX
    eviction: str = "lru"

    rebalance_delay_ns: int = 60 * SECOND
    "How long a dead member keeps its place in the ring."
    leave_timeout_ns: int = 30 * SECOND
    forget_after_ns: int = 24 * 3600 * SECOND
    "How long the dead and the left are remembered."

    protocol_period_ns: int = 1 * SECOND
    "SWIM's period; also the loop gap that counts as a standstill."
    ack_timeout_ns: int = 500 * MILLISECOND
    gossip_interval_ns: int = 200 * MILLISECOND
    push_pull_interval_ns: int = 30 * SECOND
    reconnect_interval_ns: int = 10 * SECOND
    "Between attempts to push/pull with members believed dead."
    found_alone_ns: int = 5 * SECOND
    "A node that is among its own seeds and hears nobody founds the cluster after this."

    expect: int = 1
    "Members that must be there at once before this node first calls itself ready."

    exchange_interval_ns: int = 60 * SECOND
    "Every pair of holders compares its clocks at least this often."
    move_bytes_per_second: int = 16 * MIB
    "What this node takes from others at most, so that it serves meanwhile."
    move_share_percent: int = 5
    "How much of its loop's time that may cost while clients are served; see `replication.pace`."
    named_keys_per_second: int = 1_000
    "Keys served here that are named to their other owners at most; 0 = none."
    request_timeout_ns: int = 1 * SECOND
    "Deadline of a node's own question to a peer when the client set none."
    max_skew_ms: int = 500
    "Stamps further ahead of cluster time are refused."
    pending_max: int = 10_000
    "Requests waiting for other nodes; beyond it `Overloaded`."
    queue_bytes_max: int = 16 * MIB
    "Bytes waiting for one peer; beyond it the peer is behind and the exchange fills the gap."

    @property
    def remembered_bytes_max(self) -> int:
        """What the table of recent writes may take: a sixteenth of the memory limit."""
        return self.memory_limit_bytes // 16

    @property
    def waiting_bytes_max(self) -> int:
        """What requests that wait for other nodes may hold: an eighth; beyond it `Overloaded`."""
        return self.memory_limit_bytes // 8

    @property
    def queues_bytes_max(self) -> int:
        """What all queues to peers may hold together: a quarter."""
        return self.memory_limit_bytes // 4

    @property
    def claims_bytes_max(self) -> int:
        """What lists of holders that have forgotten may take while others are asked: a 32nd."""
        return self.memory_limit_bytes // 32

    @property
    def replies_bytes_max(self) -> int:
        """What replies that clients have not read yet may hold: an eighth."""
        return self.memory_limit_bytes // 8

    def __post_init__(self) -> None:
        _check(0 < len(self.name.encode()) <= NAME_BYTES_MAX, f"name: 1..{NAME_BYTES_MAX} bytes")
        _check(self.name.isprintable(), "name: printable characters only")
        _check(len(self.zone.encode()) <= NAME_BYTES_MAX, f"zone: at most {NAME_BYTES_MAX} bytes")
        _check(self.zone.isprintable(), "zone: printable characters only")
        _check(0 < len(self.cluster.encode()) <= NAME_BYTES_MAX, "cluster: 1..128 bytes")
        _check(0 <= self.replicas <= REPLICAS_MAX, f"replicas: 0..{REPLICAS_MAX}")
        _check(1 <= self.expect <= MEMBERS_MAX, f"expect: 1..{MEMBERS_MAX}")
        _check(0 < self.weight <= 1e6, "weight: above 0, at most 1e6")
        _check(self.memory_limit_bytes >= 1 * MIB, "max-memory: at least 1 MiB")
        _check(0 < self.value_bytes_max <= VALUE_BYTES_MAX, "value_bytes_max: 1..16 MiB")
        _check(self.eviction in EVICTION_POLICIES, f"eviction: one of {EVICTION_POLICIES}")
        _check(0 < self.ack_timeout_ns < self.protocol_period_ns, "ack_timeout < protocol_period")
        _check(self.move_bytes_per_second >= 64 * KIB, "move-rate: at least 64 KiB per second")
        _check(1 <= self.move_share_percent <= 100, "move-share: 1..100 percent")
        _check(0 <= self.named_keys_per_second <= BATCH_KEYS_MAX, "name-served: 0..4,096 keys")
        _check(self.rebalance_delay_ns >= 0, "rebalance_delay: 0 or more")


def _check(holds: bool, text: str) -> None:
    if not holds:
        raise ConfigError(text)
