"""How dcc's own figures change as a cluster grows: more keys, more nodes, more copies."""

from __future__ import annotations

import statistics
from contextlib import ExitStack

from benchmarks.peers.processes import dcc_cluster, worker
from benchmarks.peers.worker import Work

SIZE = 100
NODES = (1, 3, 5)
COPIES = (0, 1, 2)
KEYS = (10_000, 100_000, 1_000_000)
KEYS_SHORT = (10_000, 100_000)


def growth(rounds: int, count: int, short: bool) -> dict[str, dict[str, float]]:
    """Return the p50 of a get and a put in µs for each step; `short` leaves a million keys out."""
    found: dict[str, dict[str, float]] = {}
    for keys in KEYS_SHORT if short else KEYS:
        found[f"{keys:,} keys"] = step(rounds, count, keys=keys)
    for nodes in NODES[1:]:
        found[f"{nodes} nodes"] = step(rounds, count, nodes=nodes)
    for copies in COPIES[1:]:
        found[f"3 nodes, {copies} copies"] = step(rounds, count, nodes=3, replicas=copies)
    return found


def step(
    rounds: int, count: int, *, keys: int = KEYS[0], nodes: int = 1, replicas: int = 0
) -> dict[str, float]:
    """Measure one cluster."""
    with ExitStack() as stack:
        server = dcc_cluster(stack, nodes, replicas)
        client = worker(stack, "dcc", server, [])
        assert client is not None
        client.pin("pinned")
        client.measure(Work("fill", SIZE, keys, 1, 1))
        return {
            kind: statistics.median(
                client.measure(Work(kind, SIZE, keys, 1, count))[0].us for _ in range(rounds)
            )
            for kind in ("get", "put")
        }
