"""Acknowledgement: with enough nodes alive and time to notice who is not, a write succeeds.

A write whose copy was on its way to a node that died must be sent to whoever stands in for it, or
its coordinator waits in vain and can only say "maybe". Judged of writes with a patient deadline,
whose coordinator lived on, while nothing but memory was lost.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from dcc.types import NodeKey, Version
from dcc.units import SECOND
from simulations.checkers.survival import copies
from simulations.history import End, History, Violation

PROMISE = "a write with enough nodes alive is acknowledged"

PATIENCE_NS = 6 * SECOND
"Twice and more what it takes to suspect a dead node, and to try the next."


def check(
    history: History,
    versions_of: Mapping[bytes, Sequence[Version]],
    replicas: int,
    alive: Callable[[int, int], Collection[NodeKey]],
    calm: Callable[[int, int], bool],
) -> list[Violation]:
    """Return writes that were executed, but never acknowledged by as many owners as asked for.

    Args:
        alive: which nodes lived throughout an interval.
        calm: whether nothing worse than loss of memory happened in an interval.
    """
    found: list[Violation] = []
    for entry in history:
        versions = versions_of.get(entry.value, ())
        if entry.end is not End.UNKNOWN or len(versions) != 1:
            continue
        if entry.ended_ns < entry.invoked_ns + PATIENCE_NS:
            continue
        living = alive(entry.invoked_ns, entry.ended_ns)
        enough = versions[0].node in living and len(living) >= copies(entry.w, replicas)
        if enough and calm(entry.invoked_ns, entry.ended_ns):
            text = f"{len(living)} nodes alive: {entry}"
            found.append(Violation(PROMISE, text, entry.ended_ns))
    return found
