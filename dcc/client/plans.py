"""Which plan carries out which operation."""

from __future__ import annotations

from dcc.client.asks import Gather, Learn, ListKeys
from dcc.client.attempts import Attempts, Plan
from dcc.client.calls import Operation
from dcc.client.everywhere import AskAnyNode
from dcc.client.many import ChangeMany, GetEach, ReadEach, ReadMany
from dcc.client.reads import Read
from dcc.client.writes import Change
from dcc.wire.messages import (
    AuditGet,
    Clear,
    ConvergedGet,
    Get,
    GetMany,
    Inspect,
    Scan,
    SetReplicas,
    StatsGet,
    TopologyGet,
    Watch,
    Write,
    WriteMany,
)


def plan_of(call: Attempts, operation: Operation) -> Plan:
    """Return the plan for `operation`, bound to `call`."""
    match operation:
        case Get():
            return Read(call, operation.key, spread=operation.direct, r=operation.r)
        case Write():
            return Change(call, operation)
        case GetMany():
            return ReadMany(call, operation.keys)
        case GetEach():
            return ReadEach(call, operation)
        case WriteMany():
            return ChangeMany(call, operation)
        case Scan():
            return ListKeys(call, operation)
        case Clear() | SetReplicas() | ConvergedGet():
            return AskAnyNode(call, operation)
        case TopologyGet():
            return Learn(call)
        case StatsGet() | Inspect() | AuditGet() | Watch():
            return Gather(call, operation)
