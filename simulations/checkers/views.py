"""Membership: after healing, all living nodes share one view, and nobody living is called dead."""

from __future__ import annotations

from collections.abc import Mapping

from dcc.types import Member, NodeKey, Standing
from simulations.history import Violation

PROMISE = "one view after healing"

View = Mapping[NodeKey, Member]


def check(views: Mapping[str, View], alive: Mapping[NodeKey, int]) -> list[Violation]:
    """Return where views differ from the truth; where none does, they are equal.

    Args:
        views: name of a living node → its member table.
        alive: key of every living node → its boot.
    """
    found: list[Violation] = []
    for name, view in sorted(views.items()):
        for key, boot in sorted(alive.items()):
            member = view.get(key)
            if member is None:
                found.append(Violation(PROMISE, f"{name} does not know member {key:x}"))
            elif member.standing is not Standing.ALIVE or member.boot != boot:
                text = f"{name} believes {member.name} {member.standing.name}, boot {member.boot:x}"
                found.append(Violation(PROMISE, text))
        for key, member in sorted(view.items()):
            if key not in alive and member.standing in (Standing.ALIVE, Standing.SUSPECT):
                found.append(Violation(PROMISE, f"{name} believes the dead {member.name} alive"))
    return found
