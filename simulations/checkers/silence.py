"""Silence: once writes have stopped and all agree, repair carries no record any more (P-D4)."""

from __future__ import annotations

from simulations.history import Violation

PROMISE = "repair falls silent"


def check(records_repaired: int, at_ns: int) -> list[Violation]:
    """Return a violation if repair still sent records in a period in which nothing happened."""
    if records_repaired == 0:
        return []
    text = f"{records_repaired} records repaired among nodes that agree"
    return [Violation(PROMISE, text, at_ns)]
