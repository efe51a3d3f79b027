"""Membership: after healing, all living nodes share one view, and nobody living is called dead.

Before that, too, what a node derives from its members is what they are, or about to be looked at.
"""

from __future__ import annotations

from collections.abc import Mapping

from dcc.node.core import NodeCore
from dcc.types import Member, NodeKey, Standing
from simulations.history import Violation

PROMISE = "one view after healing"
DERIVED = "the ring is laid over the members there are"

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


def check_derived(name: str, core: NodeCore, at_ns: int) -> list[Violation]:
    """Return where a node goes by members that it does not have any more."""
    members = core.membership.members
    if core.view_due or not core.membership.joined:
        return []
    up = (Standing.ALIVE, Standing.LEFT)
    all_up = all(member.standing in up for member in members.values())
    if core.held.view.all_up == all_up:
        return []
    text = f"{name} goes by {'all' if not all_up else 'not all'} members being up"
    return [Violation(DERIVED, text, at_ns)]
