"""Deadlines: every call ends by its deadline, one way or another."""

from __future__ import annotations

from simulations.history import End, History, Violation

PROMISE = "every call ends by its deadline"


def check(history: History, end_ns: int, slack_ns: int) -> list[Violation]:
    """Return calls that ended late, or never although the run went on long enough.

    Args:
        slack_ns: for the client's clock, which may run slow.
    """
    found: list[Violation] = []
    for entry in history:
        ended_ns = end_ns if entry.end is End.OPEN else entry.ended_ns
        if ended_ns > entry.deadline_ns + slack_ns:
            found.append(Violation(PROMISE, str(entry), entry.deadline_ns))
    return found
