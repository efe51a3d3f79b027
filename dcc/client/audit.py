"""Do the owners of each slot hold the same? Compared by what their data says, not their digests.

Every owner tells of each slot a hash over the values that a get would find, a digest of the
writes it has seen, and how many values it has evicted. Owners that saw the same writes hold the
same values, save those that one of them had no room for. Everything else is a fault, or a write
that is still on its way: whoever asks looks again at what differs.

In a full cluster owners forget in time what they have evicted. What is stamped up to the last of
that cannot be told from what is missing. So where it would explain a difference the second look is
at what is stamped above it alone: a value missing there is a fault, and what is older is not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import NamedTuple

from dcc.client.asks import Audited
from dcc.types import Stamp

STAMP_MAX = (1 << 64) - 1


class SlotAudit(NamedTuple):
    """What one owner says of one slot, read from the data itself."""

    content: int
    "Hash over key and version of every value that a get would find; 0 = none."
    seen: int
    "Digest of which writes it has seen."
    items: int
    ghosts: int
    "Versions whose value was evicted there."
    forgotten: Stamp = 0
    "Up to which it may be forgotten there what was evicted; 0 = nothing is."


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
    unknown: list[int] = field(default_factory=list)
    "Slots that differ by values so old that it is forgotten whether they were evicted."
    behind: list[int] = field(default_factory=list)
    "Slots whose owners have not seen the same writes (yet)."
    unreachable: dict[str, str] = field(default_factory=dict)
    "Owners that are not alive or did not answer in time: name -> reason."
    _marks: dict[int, Stamp] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def clean(self) -> bool:
        """Every owner answered, and nothing differs but by eviction, as far as can be known."""
        return not (self.unexplained or self.behind or self.unreachable)

    def add(self, slot: int, answers: dict[str, SlotAudit], above: Stamp = 0) -> None:
        """Count one slot, of which all told what is stamped `above` alone."""
        ones = list(answers.values())
        if len(ones) < 2:
            self.alone += 1
            return
        self.compared += 1
        mark = max([one.forgotten for one in ones])
        pairs = combinations(ones, 2)
        differ = [pair for pair in pairs if pair[0].content != pair[1].content]
        if len({one.seen for one in ones}) > 1:
            self.behind.append(slot)
        elif not all(_legal(one, other) for one, other in differ):
            (self.unknown if mark > above else self.unexplained).append(slot)
            self._marks[slot] = mark
        elif above:
            self.unknown.append(slot)
        elif differ:
            self.evicted.append(slot)
        else:
            self.equal += 1

    def forget_differing(self) -> dict[int, Stamp]:
        """Return the slots that differ unexplained, to be looked at again, and forget them.

        With each the stamp above which all that its owners evicted is known to them.
        """
        again = {slot: self._marks.get(slot, 0) for slot in self.behind}
        again |= {slot: self._marks[slot] for slot in (*self.unexplained, *self.unknown)}
        self.compared -= len(again)
        self.behind, self.unexplained, self.unknown = [], [], []
        self._marks.clear()
        return again

    def merge(self, other: Audit) -> None:
        """Add what was found of other slots."""
        for name in ("compared", "alone", "equal"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("evicted", "unexplained", "unknown", "behind"):
            getattr(self, name).extend(getattr(other, name))
        self._marks |= other._marks
        self.unreachable |= other.unreachable


def _legal(one: SlotAudit, other: SlotAudit) -> bool:
    """Return whether two owners with equal knowledge may differ so by eviction.

    Whoever has fewer values must have evicted that many; with equally many, both lack one.
    """
    if one.items == other.items:
        return one.ghosts > 0 and other.ghosts > 0
    fewer, more = sorted((one, other), key=lambda audit: audit.items)
    return fewer.ghosts >= more.items - fewer.items


def compared(answers: Mapping[str, Audited | str], above: Mapping[int, Stamp]) -> Audit:
    """Return the comparison of what nodes say of their slots, two owners of a slot at a time."""
    unreachable = {name: why for name, why in sorted(answers.items()) if isinstance(why, str)}
    held: dict[int, dict[str, SlotAudit]] = {}
    for name, answer in sorted(answers.items()):
        if isinstance(answer, Audited):
            reply = answer.reply
            # Who does not tell what it has forgotten may have forgotten anything.
            marks = reply.forgotten or (STAMP_MAX,) * len(reply.content)
            rows = zip(reply.content, reply.seen, reply.items, reply.ghosts, marks, strict=True)
            for slot, row in zip(answer.slots, rows, strict=True):
                held.setdefault(slot, {})[name] = SlotAudit(*row)
    found = Audit(unreachable=unreachable)
    for slot in sorted(held):
        found.add(slot, held[slot], above.get(slot, 0))
    return found
