"""Handing slots over: what a node still holds though others own it now.

A former owner (or stand-in) of a slot keeps serving it, announces it to the owners (`Nudge`) again
and again, and releases it when what all present owners have said in comparisons or pulls covers
its own clock, at equal epochs. A hint, in the words of other systems, is such a slot: not a copy
kept aside, but the records themselves, wherever they were written.

Seeing is not having: an owner that took over the clock of a holder that had forgotten says so, and
as long as something here is owed to it (`Store.owes`) its word does not count.

A record that no clock covers (a read brought it here, its writer is gone) is told with the slot as
a span of its own, which the owners note like what lies beyond any other gap.

Ends: an owner that is nudged pulls the slot. A record that comes in later makes every owner's word
void, so nothing is released that one of them lacks.
"""

from __future__ import annotations

from collections.abc import Collection

from dcc.effects import Effect, Tell
from dcc.replication.holdings import Holdings, Instant
from dcc.types import NodeKey
from dcc.units import MILLISECOND, NEVER, SECOND
from dcc.wire.messages import Nudge

NUDGE_NS = 500 * MILLISECOND
NUDGE_MOST_NS = 2 * SECOND
NUDGE_SLOT_NS = 1 * MILLISECOND
"""Announcements come every half second, or this much later for each slot that they name: naming and
hearing one costs microseconds, and the owners have something to do until then."""


class Leftovers:
    """The slots held here that belong to others, and which owners have taken each over."""

    def __init__(self, holdings: Holdings) -> None:
        self._held = holdings
        self._slots: dict[int, set[NodeKey]] = {}  # slot -> owners that cover it
        self._nudge_at = NEVER
        self._found_at = 0
        self.hints: dict[NodeKey, int] = {}
        "How many slots each owner had still to take over when they were last announced."

    def __len__(self) -> int:
        return len(self._slots)

    def __contains__(self, slot: int) -> bool:
        return slot in self._slots

    def find(self, now: Instant) -> None:
        """Look for such slots after a change of the view; O(slots held)."""
        held = self._held
        owned = set(held.view.owned)
        others = [slot for slot in held.store.slots_held() if slot not in owned]
        found = [slot for slot in others if held.key not in held.view.route(slot)]
        # An owner that covered a slot may have restarted since: all are asked again.
        self._slots = {slot: set() for slot in found}
        self._nudge_at = now.mono if found else NEVER
        self._found_at = now.mono
        self.hints = {}

    def written(self, slot: int) -> None:
        """A record of `slot` was taken in: owners that covered it may not any more."""
        if not self._held.view.holds(slot):
            self._slots[slot] = set()
            self._nudge_at = 0  # The next tick.

    def covered(self, slot: int, peer: NodeKey, owners: Collection[NodeKey]) -> None:
        """The owner `peer` has seen all that is here of `slot`; release it if all have."""
        self._slots[slot].add(peer)
        if owners and self._slots[slot].issuperset(owners):
            self._held.store.drop_slot(slot)
            self._held.unasked.dropped(slot)
            del self._slots[slot]
            if not self._slots:
                self.hints = {}

    def tick(self, now: Instant) -> list[Effect]:
        """Announce what is left to the owners that have not covered it yet."""
        if self._nudge_at > now.mono:
            return []
        alive = self._held.view.alive
        pause = NUDGE_NS
        if now.mono >= self._found_at + NUDGE_MOST_NS:  # Before, some may have an older view.
            pause = min(max(NUDGE_NS, NUDGE_SLOT_NS * len(self._slots)), NUDGE_MOST_NS)
        self._nudge_at = now.mono + pause if self._slots else NEVER
        pending = self._pending()
        self.hints = {owner: len(slots) for owner, slots in pending.items()}
        return [
            Tell(owner, Nudge(slots=tuple(slots)))
            for owner, slots in pending.items()
            if owner in alive
        ]

    def _pending(self) -> dict[NodeKey, list[int]]:
        """Return the slots that each owner, alive or not, has still to take over, ascending."""
        owners_of = self._held.view.slots.owners
        todo: dict[NodeKey, list[int]] = {}
        for slot, covered in sorted(self._slots.items()):
            for owner in owners_of(slot):
                if owner not in covered:
                    todo.setdefault(owner, []).append(slot)
        return dict(sorted(todo.items()))

    def wake_at(self) -> int:
        """Return when the next announcement is due."""
        return self._nudge_at
