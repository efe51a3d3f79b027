"""The keywords of a node in a process as types: the command's options, and what is for tuning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict

Size = int | str
"Bytes, or a text like 64MiB."


class ClusterOptions(TypedDict, total=False):
    """What all nodes of a `LocalCluster` may be given alike."""

    gossip_bind: str
    advertise: str
    gossip_advertise: str
    seed: str | Sequence[str]
    expect: int
    name: str
    max_memory: Size
    eviction: Literal["lru", "lfu"]
    insecure: bool
    leave_timeout: float
    zone: str
    weight: float
    cluster: str
    keys: str
    rebalance_delay: float
    move_rate: Size
    move_share: int
    name_served: int

    rebalance_delay_ns: int
    leave_timeout_ns: int
    forget_after_ns: int
    protocol_period_ns: int
    ack_timeout_ns: int
    gossip_interval_ns: int
    push_pull_interval_ns: int
    reconnect_interval_ns: int
    found_alone_ns: int
    exchange_interval_ns: int
    request_timeout_ns: int
    max_skew_ms: int
    value_bytes_max: int
    pending_max: int
    queue_bytes_max: int


class NodeOptions(ClusterOptions, total=False):
    """What one `Node` may be given beside the address that it binds."""

    replicas: int
