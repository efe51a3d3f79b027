"""Limits: all that grows in a node, added up at every turn, keeps to what the node was given.

The books are the node's own (`dcc/node/footprint.py`), so a structure that grows has to stand in
them; that their figures are those of the process, a test with real processes tells.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dcc.node.footprint import Footprint, Row
from dcc.units import SECOND
from simulations.history import Violation

PROMISE = "limits hold"
LATE_NS = 5 * SECOND
"A node lets go of what is old when it has a turn for it."


def check(
    bytes_held: Mapping[str, int], limit_bytes: Mapping[str, int], at_ns: int
) -> list[Violation]:
    """Return the nodes above their own limit."""
    return [
        Violation(PROMISE, f"{node} holds {held} bytes, limit {limit_bytes[node]}", at_ns)
        for node, held in sorted(bytes_held.items())
        if held > limit_bytes[node]
    ]


def check_rows(node: str, rows: Iterable[Row], at_ns: int) -> list[Violation]:
    """Return what of one node is above its own bound."""
    return [
        Violation(PROMISE, f"{node}: {row.name} {row.used()} bytes, at most {row.bytes_max}", at_ns)
        for row in rows
        if row.used() > row.bytes_max
    ]


def check_remembered(node: str, oldest_ns: int, keep_ns: int, at_ns: int) -> list[Violation]:
    """Return that a recent write is remembered for longer than it should be."""
    if oldest_ns <= keep_ns + LATE_NS:
        return []
    text = f"{node}: a write is remembered after {oldest_ns / SECOND:.0f} s"
    return [Violation(PROMISE, text, at_ns)]


def check_node(node: str, footprint: Footprint, at_ns: int) -> list[Violation]:
    """Return everything of one node that is above a bound; O(rows), for every turn."""
    total = check({node: footprint.bytes_used}, {node: footprint.bytes_max}, at_ns)
    return total + check_rows(node, footprint.rows, at_ns)
