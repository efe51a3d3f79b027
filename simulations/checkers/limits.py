"""Limits: a store never holds more bytes than it was given."""

from __future__ import annotations

from collections.abc import Mapping

from simulations.history import Violation

PROMISE = "limits hold"


def check(
    bytes_held: Mapping[str, int], limit_bytes: Mapping[str, int], at_ns: int
) -> list[Violation]:
    """Return the nodes above their own limit."""
    return [
        Violation(PROMISE, f"{node} holds {held} bytes, limit {limit_bytes[node]}", at_ns)
        for node, held in sorted(bytes_held.items())
        if held > limit_bytes[node]
    ]
