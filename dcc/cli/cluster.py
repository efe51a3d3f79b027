"""Commands about the cluster: status, members, ring, stats, hotkeys."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from dcc.cli import tables
from dcc.cli.verdict import Verdict, verdict
from dcc.errors import NodeUnavailable, OperationTimeout
from dcc.figures import BY_PATH, at

if TYPE_CHECKING:
    from dcc import Client, ClusterStats, NodeInfo, NodeStats, Topology
    from dcc.client.results import Convergence

OK, DEGRADED = 0, 1

BESIDE = (
    "recent_writes", "waiting_values", "found_values", "replication_queues", "claims", "replies",
)  # fmt: skip
"Rows of a node's books that count towards its limit and are not the data."

READS = ("hits", "misses", "unsure", "hit_ratio")
DATA = (
    "items", "bytes_used", "memory_limit_bytes", "evicted", "expired", "ghosts", "tombstones",
)  # fmt: skip
TIMES = ("replication_lag_seconds", "loop_lag_seconds", "up_seconds")
"Figures of `dcc.figures` that `dcc stats` prints, a line of each."

Row = tuple[str, ...]


def status(client: Client, options: argparse.Namespace) -> int:
    """Print the verdict, a row for each node, what is wrong and what to do next."""
    topology, found, convergence = client.topology(), client.stats(), _convergence(client)
    judged = verdict(topology, found, convergence, cluster=options.cluster)
    if options.json:
        tables.show_json(
            {"healthy": judged.healthy, "verdict": judged.line, "problems": judged.problems}
            | {"convergence": asdict(convergence) if convergence else None}
            | {"topology": topology_fields(topology), "stats": stats_fields(found)}
        )
    else:
        tables.show(_status_text(topology, found, judged))
    return OK if judged.healthy else DEGRADED


def _convergence(client: Client) -> Convergence | None:
    try:
        return client.convergence()
    except (NodeUnavailable, OperationTimeout):
        return None


def _status_text(topology: Topology, found: ClusterStats, judged: Verdict) -> str:
    heading = ("NODE", "STATE", "ZONE", "OWNS", "ITEMS", "MEMORY", "HITS", "OPS/S", "LAG", "UP")
    rows: list[Row] = [heading]
    for node in _by_name(topology):
        mine = found.nodes.get(node.name)
        if node.standing in ("left", "removed") and mine is None:
            continue
        rows.append((node.name, node.standing, node.zone, *_figures(mine)))
    parts = [judged.line, judged.copies, "", tables.table(rows, left=3)]
    if judged.problems:
        parts += ["", *[f"- {problem}" for problem in judged.problems], f"next: {judged.next}"]
    return "\n".join(parts)


def _figures(mine: NodeStats | None) -> Row:
    if mine is None:
        return ("?",) * 7
    owned = mine.detail.get("owned_ratio")
    return (
        tables.share(owned) if isinstance(owned, int | float) else "?",
        tables.amount(mine.items),
        f"{tables.size(mine.bytes_used)}/{tables.size(mine.memory_limit_bytes)}",
        tables.share(mine.hit_ratio) if mine.hits + mine.misses + mine.unsure else "-",
        tables.amount(sum(mine.requests_per_second.values())),
        tables.span(mine.replication_lag_seconds),
        tables.span(mine.up_seconds),
    )


def members(client: Client, options: argparse.Namespace) -> int:
    """Print all members that some node knows; exit code 1 if one that belongs is not alive."""
    topology = client.topology()
    if options.json:
        tables.show_json(topology_fields(topology))
    else:
        rows: list[Row] = [("NODE", "STATE", "ZONE", "WEIGHT", "REQUEST", "GOSSIP")]
        for node in _by_name(topology):
            row = (node.name, node.standing, node.zone, f"{node.weight:g}")
            rows.append((*row, node.request, node.gossip))
        tables.show(tables.table(rows, left=6, width=120))
    missing = [node for node in topology.nodes if node.standing in ("suspect", "dead")]
    return DEGRADED if missing else OK


def ring(client: Client, options: argparse.Namespace) -> int:
    """Print the owners of the keys given, the primary first; without keys, each node's share."""
    topology = client.topology()
    if options.key:
        owners = {key: topology.owners(key) for key in options.key}
        if options.json:
            tables.show_json({"epoch": topology.epoch, "owners": owners})
        else:
            rows: list[Row] = [("KEY", "OWNERS, THE PRIMARY FIRST")]
            rows += [(key, "  ".join(names)) for key, names in owners.items()]
            tables.show(tables.table(rows, left=2, width=120))
        return OK
    found = client.stats()
    shares = {name: mine.detail.get("owned_ratio") for name, mine in found.nodes.items()}
    if options.json:
        fields = topology_fields(topology)
        fields["owned_ratio"] = shares
        tables.show_json(fields)
        return OK
    tables.show(f"epoch {topology.epoch:016x}, replicas {topology.replicas}")
    rows = [("NODE", "STATE", "ZONE", "WEIGHT", "OWNS")]
    for node in _by_name(topology):
        owned = shares.get(node.name)
        text = tables.share(owned) if isinstance(owned, int | float) else "?"
        rows.append((node.name, node.standing, node.zone, f"{node.weight:g}", text))
    tables.show(tables.table(rows, left=3))
    return OK


def stats(client: Client, options: argparse.Namespace) -> int:
    """Print counters and latencies of every node and their total; 1 if one did not answer."""
    found = client.stats()
    if options.json:
        tables.show_json(stats_fields(found))
    else:
        columns = [*found.nodes.items(), ("total", found.total)]
        for name, mine in columns:
            tables.show(_node_text(name, mine))
        for name, why in found.unreachable.items():
            tables.show(f"{name}: {why}")
    return DEGRADED if found.unreachable else OK


def hotkeys(client: Client, options: argparse.Namespace) -> int:
    """Print the keys that are read most; 1 if a node did not answer."""
    if options.most < 1:
        raise ValueError(f"--most: above 0, got {options.most}")
    stats = client.stats(hot_keys=True)
    found = stats.hot_keys(options.most)
    if options.json:
        fields = {"keys": [asdict(one) for one in found], "unreachable": stats.unreachable}
        tables.show_json(fields)
    else:
        rows: list[Row] = [("KEY", "READS A SECOND", "SPREAD", "NODES")]
        for one in found:
            nodes = sorted(one.nodes.items(), key=lambda pair: (-pair[1], pair[0]))
            parts = " ".join(f"{name} {one.nodes[name] / one.rate:.0%}" for name, _ in nodes)
            rows.append(
                (name_of(one.key), tables.amount(one.rate), "yes" if one.hot else "no", parts)
            )
        tables.show(tables.table(rows, width=100) if found else "no key is read much")
        for name, why in stats.unreachable.items():
            tables.show(f"{name}: {why}")
    return DEGRADED if stats.unreachable else OK


def name_of(key: str) -> str:
    r"""Return `key` as a terminal may show it.

    >>> print(name_of("motd"), name_of("\x1b[2J"))
    motd '\x1b[2J'
    """
    return key if key.isprintable() else ascii(key)


def _node_text(name: str, mine: NodeStats) -> str:
    lines = [name, _line(mine, READS), _line(mine, DATA), *_beside(mine), _line(mine, TIMES)]
    rates = {command for command, rate in mine.requests_per_second.items() if rate}
    commands = sorted(rates | set(mine.latency_seconds))
    rows: list[Row] = [("  COMMAND", "PER SECOND", "P50", "P95", "P99")]
    for command in commands:
        rate = tables.amount(mine.requests_per_second.get(command, 0.0))
        latency = mine.latency_seconds.get(command, {})
        quantiles = [latency.get(one) for one in ("p50", "p95", "p99")]
        spans = ["-" if one is None else tables.span(one) for one in quantiles]
        rows.append((f"  {command}", rate, *spans))
    return "\n".join([*lines, *([tables.table(rows)] if commands else [])])


def _line(mine: NodeStats, paths: Sequence[str]) -> str:
    """Return some figures, each with its name, in the form that its unit asks for."""
    known = asdict(mine)
    parts = [tables.figure(BY_PATH[path], at(known, path)) for path in paths]
    return "  " + ", ".join(parts)


def _beside(mine: NodeStats) -> list[str]:
    """Return what takes memory within the limit beside the data, the largest first."""
    rows = mine.detail.get("memory_bytes")
    bounds = mine.detail.get("memory_bound_bytes")
    if not isinstance(rows, dict) or not isinstance(bounds, dict):
        return []
    beside = [(size, name) for name, size in rows.items() if name in BESIDE and size]
    texts = [
        f"{name.replace('_', ' ')} {tables.size(size)} of {tables.size(bounds[name])}"
        for size, name in sorted(beside, reverse=True)
    ]
    return [f"  beside the data: {', '.join(texts)}"] if texts else []


def _by_name(topology: Topology) -> list[NodeInfo]:
    return sorted(topology.nodes, key=lambda node: node.name)


def topology_fields(topology: Topology) -> dict[str, Any]:
    """Return a topology as JSON shows it."""
    return {
        "epoch": topology.epoch,
        "replicas": topology.replicas,
        "nodes": [asdict(node) for node in topology.nodes],
    }


def stats_fields(found: ClusterStats) -> dict[str, Any]:
    """Return statistics as JSON shows them."""
    return asdict(found)
