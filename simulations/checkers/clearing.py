"""Clearing: once a clear is acknowledged everywhere, nobody finds what was written before it."""

from __future__ import annotations

from collections.abc import Callable

from simulations.history import End, History, Violation

PROMISE = "clear holds"


def check(history: History, calm: Callable[[int, int], bool]) -> list[Violation]:
    """Return reads that found what an earlier clear had made absent.

    Args:
        calm: whether nothing worse than loss of memory happened in an interval: a node that was
            thought dead is not waited for.
    """
    clears = [entry for entry in history if entry.verb == "clear" and entry.end is End.OK]
    return [
        Violation(PROMISE, f"{read} although {clear}", read.ended_ns)
        for read in history
        if read.verb == "get" and read.found is not None
        for clear in clears
        if clear.ended_ns < read.invoked_ns and read.version < clear.version
        if calm(clear.invoked_ns, read.ended_ns)
    ]
