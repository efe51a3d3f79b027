"""What answers mean to a caller: from the protocol's messages to the values that calls return."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from dcc.client.arguments import key_bytes
from dcc.client.results import (
    ClusterStats,
    Convergence,
    Entry,
    Lookup,
    NodeInfo,
    NodeStats,
    Topology,
)
from dcc.client.routing import View
from dcc.types import Kind, Member, Record, Version
from dcc.wire.messages import ConvergedReply, GetReply, InspectReply, StatsReply, Status


def looked_up(reply: GetReply, node: str, confirmed: bool, now_ms: int) -> Lookup:
    """Return how a read ended that `node` answered; `now_ms` is cluster time."""
    if reply.status is not Status.HIT:
        status: Literal["miss", "unsure"] = "miss" if reply.status is Status.MISS else "unsure"
        return Lookup(status, None, None, None, confirmed, None, node)
    return Lookup(
        status="hit",
        value=reply.value,
        version=reply.version,
        age=_age(now_ms, reply.version),
        confirmed=confirmed,
        expires_at=_seconds(reply.expires_at_ms),
        node=node,
    )


def entry_of(found: Lookup) -> Entry | None:
    """Return a hit as an entry; None for everything else."""
    if found.value is None or found.version is None or found.age is None:
        return None
    return Entry(
        value=found.value,
        version=found.version,
        expires_at=found.expires_at,
        age=found.age,
        node=found.node,
        confirmed=found.confirmed,
    )


def inspected(name: str, answer: InspectReply | str, now_ms: int) -> Entry | str | None:
    """Return what `name` holds of a key: an entry, None, or a text that says what else."""
    if isinstance(answer, str):
        return answer
    if not answer.records:
        return None
    record: Record = answer.records[0]
    if record.kind is not Kind.VALUE:
        return f"{record.kind.name.lower()} {record.version}"
    return Entry(
        value=record.value,
        version=record.version,
        expires_at=_seconds(record.expires_at_ms),
        age=_age(now_ms, record.version),
        node=name,
        confirmed=answer.confirmed,
    )


def topology_of(view: View) -> Topology:
    """Return what a node sees, as callers see it."""
    return Topology(
        epoch=view.epoch,
        replicas=view.settings.replicas,
        nodes=tuple(map(info_of, view.listed)),
        _owners=lambda key: tuple(member.name for member in view.owners_of(key_bytes(key))),
    )


def info_of(member: Member) -> NodeInfo:
    """Return a member as callers see it."""
    return NodeInfo(
        name=member.name,
        request=member.request,
        gossip=member.gossip,
        zone=member.zone,
        weight=member.weight,
        standing=member.standing.name.lower(),
    )


def convergence_of(reply: ConvergedReply) -> Convergence:
    """Return whether the cluster has converged."""
    return Convergence(reply.converged, reply.under_replicated, reply.reasons)


def cluster_stats(answers: Mapping[str, StatsReply | str]) -> ClusterStats:
    """Return every node's statistics, their total, and why the others' are missing."""
    nodes: dict[str, NodeStats] = {}
    unreachable: dict[str, str] = {}
    for name, answer in sorted(answers.items()):
        if isinstance(answer, str):
            unreachable[name] = answer
            continue
        try:
            nodes[name] = NodeStats.from_json(answer.stats)
        except ValueError:
            unreachable[name] = "sent statistics that are no JSON object"
    return ClusterStats(nodes, NodeStats.total(nodes.values()), unreachable)


def _age(now_ms: int, version: Version) -> float:
    return max(0, now_ms - (version.stamp >> 16)) / 1000


def _seconds(ms: int) -> float | None:
    return ms / 1000 if ms else None
