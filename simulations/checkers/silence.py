"""Silence: once writes have stopped and all agree, repair carries no record any more (P-D4).

Stronger: what nodes then say to each other of their slots is "my root is this", and no more. No
clock and no digest of a slot travels, whatever was evicted, has expired or was deleted.
"""

from __future__ import annotations

from collections.abc import Mapping

from simulations.history import Violation

PROMISE = "repair falls silent"

LOUD = (
    "Replicate", "Pull", "PullReply", "Compare", "CompareReply", "Nudge", "Fetch", "FetchReply",
)  # fmt: skip
"Messages between nodes that say something of single slots or keys."


def check(records_repaired: int, at_ns: int) -> list[Violation]:
    """Return a violation if repair still sent records in a period in which nothing happened."""
    if records_repaired == 0:
        return []
    text = f"{records_repaired} records repaired among nodes that agree"
    return [Violation(PROMISE, text, at_ns)]


def check_traffic(sent: Mapping[str, int], at_ns: int) -> list[Violation]:
    """Return a violation if nodes that agree said more to each other than their roots.

    Args:
        sent: messages between nodes in a period in which nothing happened, by name.
    """
    loud = {name: count for name, count in sorted(sent.items()) if name in LOUD and count}
    return [Violation(PROMISE, f"{loud} among nodes that agree", at_ns)] if loud else []
