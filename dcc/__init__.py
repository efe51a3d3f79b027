"""dcc: a distributed, eventually consistent cache for Python services, peer to peer over ZeroMQ."""

from dcc.client.results import ClusterStats, Entry, Lookup, NodeInfo, NodeStats, Topology
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

__version__ = "0.1.0"

__all__ = [
    "AuthenticationFailed",
    "Client",
    "ClientClosed",
    "ClockSkew",
    "ClusterStats",
    "ConfigError",
    "DccError",
    "Entry",
    "InvalidKey",
    "Lookup",
    "MaybeStored",
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
