"""dcc: a distributed, eventually consistent cache for Python services, peer to peer over ZeroMQ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dcc.client.audit import Audit
from dcc.client.results import (
    ClusterStats,
    Convergence,
    Entry,
    Lookup,
    NodeInfo,
    NodeStats,
    Topology,
)
from dcc.client.sync import Client
from dcc.errors import (
    AuthenticationFailed,
    ClientClosed,
    ClockSkew,
    ConfigError,
    DccError,
    InvalidKey,
    MaybeStored,
    NodeUnavailable,
    NotANumber,
    OperationTimeout,
    Overloaded,
    ProtocolError,
    QuorumNotReached,
    SessionLapsed,
    ValueTooLarge,
    WrongCluster,
)
from dcc.types import Version

if TYPE_CHECKING:
    from dcc.local import LocalCluster, Node

__version__ = "0.1.0"

__all__ = [
    "Audit",
    "AuthenticationFailed",
    "Client",
    "ClientClosed",
    "ClockSkew",
    "ClusterStats",
    "ConfigError",
    "Convergence",
    "DccError",
    "Entry",
    "InvalidKey",
    "LocalCluster",
    "Lookup",
    "MaybeStored",
    "Node",
    "NodeInfo",
    "NodeStats",
    "NodeUnavailable",
    "NotANumber",
    "OperationTimeout",
    "Overloaded",
    "ProtocolError",
    "QuorumNotReached",
    "SessionLapsed",
    "Topology",
    "ValueTooLarge",
    "Version",
    "WrongCluster",
    "__version__",
]


def __getattr__(name: str) -> Any:
    # A process that is only a client need not load the node's parts.
    if name in ("LocalCluster", "Node"):
        from dcc import local

        return getattr(local, name)
    raise AttributeError(f"module 'dcc' has no attribute {name!r}")
