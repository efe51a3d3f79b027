"""When the member table is laid over the ring again.

    change ──▶ due ──pause over──▶ taken ──▶ pause: 50 ms, or twice what it cost, 400 ms at most

A taking costs work for every slot that moves. The pause makes a storm of joins cost a few takings,
not one each, and leaves time for answers between them; a longer one would let writes run out of
their second. What a taking cost is read off the length of the turn in which it was done: the core
has no clock of its own.
"""

from __future__ import annotations

from dcc.gossip.membership import Membership
from dcc.units import MILLISECOND, NEVER

PAUSE_NS = 50 * MILLISECOND
PAUSES, PAUSE_MOST_NS = 2, 400 * MILLISECOND
"How many times as long as the taking the pause is, within a bound."


class ViewPace:
    """Knows whether the ring is older than the member table, and when it may be recomputed."""

    def __init__(self, membership: Membership) -> None:
        """Begin with a ring that was never made."""
        self._membership = membership
        self._dirty = True
        self._laid_over = (0, False)
        "What `_state` was when the ring was laid over the members last."
        self._not_before = 0
        self._costly = False
        "Slots were moved in the turn before, whose length tells what that cost."

    @property
    def due(self) -> bool:
        """Whether the members or settings have changed since the ring was laid over them."""
        return self._dirty or self._state() != self._laid_over

    def changed(self) -> None:
        """Settings have changed that the ring follows from."""
        self._dirty = True

    def turned(self, gap: int, now: int) -> None:
        """A turn begins at `now`, monotonic ns, `gap` after the one before."""
        if self._costly:
            self._costly = False
            self._not_before = max(self._not_before, now + min(PAUSES * gap, PAUSE_MOST_NS))

    def taken(self, now: int) -> None:
        """The ring is laid over the members at `now`."""
        self._dirty, self._laid_over = False, self._state()
        self._not_before = now + PAUSE_NS

    def moved(self) -> None:
        """The taking of this turn changed the ring."""
        self._costly = True

    def wake_at(self) -> int:
        """Return when the next taking may be done; NEVER if none is due."""
        return self._not_before if self.due else NEVER

    def _state(self) -> tuple[int, bool]:
        """Return what differs whenever the members do: also when one is only forgotten."""
        return self._membership.changes, self._membership.joined
