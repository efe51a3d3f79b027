"""What is to be compared with one member, and how far that has come.

An exchange with a peer goes through stages; each is narrower than the one before it.

    stage     while                      question                      its answer leads to
    ROOT      a descent is wanted        CompareRoot: is all equal?    DIGESTS of the slots in the
                                                                       groups that differ, or CALM
    DIGESTS   slots are wanted           Compare: which are equal?     CLOCKS of those that differ,
                                                                       or CALM
    CLOCKS    slots are known to differ  Pull: what have I not seen?   CLOCKS until all has come
    CALM      nothing is wanted          none

Where several are true what is known to differ comes first, then the descent.

`Wants.stage` is the one place that says which it is. It follows from what is wanted, so no event
can leave it wrong: a new view adds a descent, a gap adds a slot, and the stage is what remains.
While all slots of CLOCKS are being pulled from others, digests of further slots are compared.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from dcc.units import NEVER

DESCENTS_MAX = 3
"Roots compared in vain, the views being unequal, before the slots are compared one by one."


class Stage(Enum):
    """How far the comparison with a member has come."""

    CALM = "calm"
    ROOT = "root"
    DIGESTS = "digests"
    CLOCKS = "clocks"


@dataclass(slots=True)
class Wants:
    """What is to be compared with, and pulled from, one member."""

    wanted: dict[int, None] = field(default_factory=dict)
    "Slots worth comparing, in order of arrival."
    differ: dict[int, None] = field(default_factory=dict)
    "Slots that the peer is known to see differently, in order of arrival."
    gaps: dict[int, int] = field(default_factory=dict)
    "Slot -> when to look again."
    refused: set[int] = field(default_factory=set)
    "Those of them to be pulled in any case."
    silent_since: int = NEVER
    "When the first question was put that nothing has answered since."
    not_before: int = 0
    in_vain: int = 0
    "Questions whose answers came from another view, since one came from the same."
    round_at: int = 0
    "When the roots are compared again, whatever was heard."
    descents: int = 0
    "Tries left to begin at the root, before slots are compared; 0 = none is wanted."
    doubted: bool = False
    "The descent follows from a root heard on gossip."
    doubt_at: int = NEVER
    "When a difference of roots is looked into."
    calm_until: int = 0

    @property
    def stage(self) -> Stage:
        """What comes next."""
        if self.differ:
            return Stage.CLOCKS
        if self.descents:
            return Stage.ROOT
        return Stage.DIGESTS if self.wanted else Stage.CALM

    def want(self, slots: Iterable[int]) -> None:
        """Compare `slots`, too."""
        self.wanted.update(dict.fromkeys(slots))

    def descend(self, *, doubted: bool = False) -> None:
        """Begin at the root, before slots are compared one by one."""
        self.descents, self.doubted = DESCENTS_MAX, doubted

    def again(self, slot: int, at: int) -> None:
        """Pull a slot again, `at` the earliest."""
        self.wanted.pop(slot, None)
        self.gaps[slot] = at
        self.refused.add(slot)

    def check(self) -> None:
        """Assert what every stage takes for granted."""
        assert 0 <= self.descents <= DESCENTS_MAX
        assert self.refused <= self.gaps.keys()
