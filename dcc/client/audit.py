"""Do the owners of each slot hold the same? Compared by what their data says, not their digests.

Every owner tells of each slot a hash over the values that a get would find, a digest of the
writes it has seen, and how many values it has evicted. Owners that saw the same writes hold the
same values, save those that one of them had no room for. Everything else is a fault, or a write
that is still on its way: whoever asks looks again at what differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import NamedTuple

from dcc.client.asks import Audited


class SlotAudit(NamedTuple):
    """What one owner says of one slot, read from the data itself."""

    content: int
    "Hash over key and version of every value that a get would find; 0 = none."
    seen: int
    "Digest of which writes it has seen."
    items: int
    ghosts: int
    "Versions whose value was evicted there."


@dataclass(slots=True)
class Audit:
    """All slots, each compared between its live owners. Counts are slots."""

    compared: int = 0
    "Slots of which at least two owners answered."
    alone: int = 0
    "Slots of which one owner answered only, so there was nothing to compare."
    equal: int = 0
    evicted: list[int] = field(default_factory=list)
    "Slots whose owners saw the same writes and differ by what was evicted."
    unexplained: list[int] = field(default_factory=list)
    "Slots whose owners saw the same writes and yet hold different values."
    behind: list[int] = field(default_factory=list)
    "Slots whose owners have not seen the same writes (yet)."
    unreachable: dict[str, str] = field(default_factory=dict)
    "Owners that are not alive or did not answer in time: name -> reason."

    @property
    def clean(self) -> bool:
        """Every owner answered, and nothing differs but by eviction."""
        return not (self.unexplained or self.behind or self.unreachable)

    def add(self, slot: int, answers: dict[str, SlotAudit]) -> None:
        """Count one slot."""
        ones = list(answers.values())
        if len(ones) < 2:
            self.alone += 1
            return
        self.compared += 1
        if len({(one.content, one.seen) for one in ones}) == 1:
            self.equal += 1
        elif len({one.seen for one in ones}) > 1:
            self.behind.append(slot)
        else:
            pairs = combinations(ones, 2)
            differ = [pair for pair in pairs if pair[0].content != pair[1].content]
            legal = all(_legal(one, other) for one, other in differ)
            (self.evicted if legal else self.unexplained).append(slot)

    def forget_differing(self) -> list[int]:
        """Return the slots that differ unexplained, to be looked at again, and forget them."""
        again = sorted([*self.behind, *self.unexplained])
        self.compared -= len(again)
        self.behind, self.unexplained = [], []
        return again

    def merge(self, other: Audit) -> None:
        """Add what was found of other slots."""
        for name in ("compared", "alone", "equal"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("evicted", "unexplained", "behind"):
            getattr(self, name).extend(getattr(other, name))
        self.unreachable |= other.unreachable


def _legal(one: SlotAudit, other: SlotAudit) -> bool:
    """Return whether two owners with equal knowledge may differ so by eviction.

    Whoever has fewer values must have evicted that many; with equally many, both lack one.
    """
    if one.items == other.items:
        return one.ghosts > 0 and other.ghosts > 0
    fewer, more = sorted((one, other), key=lambda audit: audit.items)
    return fewer.ghosts >= more.items - fewer.items


def compared(answers: Mapping[str, Audited | str]) -> Audit:
    """Return the comparison of what nodes say of their slots, two owners of a slot at a time."""
    unreachable = {name: why for name, why in sorted(answers.items()) if isinstance(why, str)}
    held: dict[int, dict[str, SlotAudit]] = {}
    for name, answer in sorted(answers.items()):
        if isinstance(answer, Audited):
            reply = answer.reply
            rows = zip(reply.content, reply.seen, reply.items, reply.ghosts, strict=True)
            for slot, row in zip(answer.slots, rows, strict=True):
                held.setdefault(slot, {})[name] = SlotAudit(*row)
    found = Audit(unreachable=unreachable)
    for slot in sorted(held):
        found.add(slot, held[slot])
    return found
