"""dcc: a distributed, eventually consistent cache for Python services, peer to peer over ZeroMQ."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dcc.client.audit import Audit
from dcc.client.near import NearCache
from dcc.client.results import (
    ClusterStats,
    Convergence,
    Entry,
    HotKey,
    Latency,
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
    NotAllowed,
    NotANumber,
    NotMade,
    OperationTimeout,
    Overloaded,
    ProtocolError,
    QuorumNotReached,
    SessionLapsed,
    ValueTooLarge,
    WrongCluster,
    WrongLoop,
)
from dcc.types import Version

if TYPE_CHECKING:
    from dcc.client.async_client import AsyncClient
    from dcc.contrib.async_cache import AsyncCache
    from dcc.contrib.cache import Cache
    from dcc.local import LocalCluster, Node

__version__ = "0.1.0"

__all__ = [
    "AsyncCache",
    "AsyncClient",
    "Audit",
    "AuthenticationFailed",
    "Cache",
    "Client",
    "ClientClosed",
    "ClockSkew",
    "ClusterStats",
    "ConfigError",
    "Convergence",
    "DccError",
    "Entry",
    "InvalidKey",
    "Latency",
    "LocalCluster",
    "Lookup",
    "MaybeStored",
    "NearCache",
    "Node",
    "HotKey",
    "NodeInfo",
    "NodeStats",
    "NodeUnavailable",
    "NotANumber",
    "NotAllowed",
    "NotMade",
    "OperationTimeout",
    "Overloaded",
    "ProtocolError",
    "QuorumNotReached",
    "SessionLapsed",
    "Topology",
    "ValueTooLarge",
    "Version",
    "WrongCluster",
    "WrongLoop",
    "__version__",
]


_LATER = {
    "AsyncCache": "dcc.contrib.async_cache",
    "AsyncClient": "dcc.client.async_client",
    "Cache": "dcc.contrib.cache",
    "LocalCluster": "dcc.local",
    "Node": "dcc.local",
}
"""Loaded when first named: a process that is only a client need not load the node's parts, one that
blocks has no use for asyncio (50 ms), and the caches are written with the names above."""


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module 'dcc' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
