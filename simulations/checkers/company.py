"""Company: who may be a member, and which of two nodes of one name.

Judged once a second of machines that are no part of the cluster: one that was given the name of a
node that lives, one whose advertised address leads nowhere, and rows that somebody has invented.
"""

from __future__ import annotations

from collections.abc import Iterable

from dcc.types import Member, NodeKey, Standing
from simulations.history import Violation

FIRST_STAYS = "the first of a name stays"
REACHED = "who cannot be reached is not ready"
ANSWERED = "who never answered is no member"


def check_names(
    second: str, *, seconds: float, patience_s: float, first_lives: bool, at_ns: int
) -> list[Violation]:
    """Return that a second node of a name runs `seconds` after its start, beside the first."""
    if not first_lives or seconds < patience_s:
        return []
    text = f"{second} runs for {seconds:.1f} s beside the first node of its name"
    return [Violation(FIRST_STAYS, text, at_ns)]


def check_displaced(displaced: Iterable[str], at_ns: int) -> list[Violation]:
    """Return the nodes that gave way although they were there first."""
    return [Violation(FIRST_STAYS, f"{name} gave way to a later one", at_ns) for name in displaced]


def check_reached(name: str, *, ready: bool, at_ns: int) -> list[Violation]:
    """Return that a node says it is ready to which nobody can send."""
    return [Violation(REACHED, f"{name} is ready", at_ns)] if ready else []


def check_members(
    name: str, rows: Iterable[Member], invented: frozenset[NodeKey], at_ns: int
) -> list[Violation]:
    """Return the invented rows that a node takes for members."""
    return [
        Violation(ANSWERED, f"{name} believes {row.name} {row.standing.name}", at_ns)
        for row in rows
        if row.key in invented and row.standing <= Standing.SUSPECT
    ]
