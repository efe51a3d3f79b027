"""Tidying: letting go of what all holders know and nobody needs any more.

Three things grow without it: records without values (a tombstone hides an older value until every
holder has seen it), notes beyond gaps that no holder can fill any more (the node that wrote what is
missing is gone), and clock entries of boots that are gone.

Members that are down count, and removed ones too, until they are forgotten themselves: they may
come back with an older value that only such a record can hide, or with the very writes that are
missing here. So do former owners that have not released the slot, and seeds that this node has
never met since it started.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from dcc.clock import COUNTER_BITS
from dcc.replication.handover import NUDGE_MOST_NS
from dcc.replication.holdings import Holdings, Instant
from dcc.replication.sync import IN_SYNC, SyncTable
from dcc.types import Origin, Stamp
from dcc.units import MILLISECOND

SLOTS_PER_TURN = 2_048
"Bounds the work of one turn to about two milliseconds."

CALM_ROUNDS = 2
"Exchange intervals for which every member must have been up before anything is folded."

Edge = tuple[Origin, Stamp]

FOLD_AFTER_ROUNDS = 10
"Exchange intervals after its last write before a boot that is gone loses its clock entries."

NUDGES_KEPT_NS = 5 * NUDGE_MOST_NS
"A former owner that has been silent for this long has released its slots, or is down."


class Tidying:
    """Looks through all owned slots once in an exchange interval, in pieces."""

    def __init__(self, holdings: Holdings, sync: SyncTable) -> None:
        self._held, self._sync = holdings, sync
        self._missed: dict[int, tuple[int, set[Edge]]] = {}
        "Owned slots with gaps -> when these were first seen, and the gaps' upper edges."
        self._rest: Iterator[int] = iter(())
        self._fold = False
        "Whether anything of a boot that is gone is left in the clocks."
        self.at: int = 0
        "When the next look is due, monotonic ns; 0 = go on with this one."
        self._next_at = 0

    def tick(self, now: Instant) -> None:
        """Forget what every holder has seen, and give up what none can have any more."""
        if self.at > now.mono:
            return
        if self.at or not self._next_at:
            self._begin(now)
        seen = 0
        for slot in islice(self._rest, SLOTS_PER_TURN):
            seen += 1
            self._tidy(slot, now)
        if seen < SLOTS_PER_TURN:
            self.at = self._next_at
            if self._fold:
                self._held.store.prune_clocks()

    def _begin(self, now: Instant) -> None:
        held = self._held
        self.at, self._next_at = 0, now.mono + held.config.exchange_interval_ns
        self._rest = iter(held.view.owned)
        # A member that has just come back may bring what the others did not see of such a boot.
        calm_ns = now.mono - held.view.complete_since
        settled = calm_ns >= CALM_ROUNDS * held.config.exchange_interval_ns
        self._fold = settled and any(map(self._is_gone, held.store.clock_origins()))

    def _tidy(self, slot: int, now: Instant) -> None:
        held, sync = self._held, self._sync
        if not held.view.complete or not (self._fold or held.store.forgetting.needs_tidying(slot)):
            return
        if not held.view.owns(slot) or sync.unsynced(slot) is not IN_SYNC:
            return
        released = not sync.nudged_since(slot, now.mono - NUDGES_KEPT_NS)
        if released:
            self._forget(slot)
        self._close_gaps(slot, now)
        if released and self._fold and self._pulled_lately(slot, now):
            age_ms = FOLD_AFTER_ROUNDS * held.config.exchange_interval_ns // MILLISECOND
            if held.store.fold(slot, self._is_gone, max(now.ms - age_ms, 0) << COUNTER_BITS):
                held.unasked.bound(slot)

    def _pulled_lately(self, slot: int, now: Instant) -> bool:
        """Return whether all that such a boot wrote has had the time to come here, and came."""
        held = self._held
        rounds_ns = (FOLD_AFTER_ROUNDS - 1) * held.config.exchange_interval_ns
        others = [key for key in held.view.slots.owners(slot) if key != held.key]
        pulls = [self._sync.last_pull(slot, key) for key in others]
        return not held.store.has_gaps(slot) and all(at > now.mono - rounds_ns for at in pulls)

    def _is_gone(self, origin: Origin) -> bool:
        return self._held.view.boots.get(origin[0]) != origin[1]

    def _forget(self, slot: int) -> None:
        """Forget the slot's records without values that every owner is known to have seen."""
        held = self._held
        owners = held.view.slots.owners(slot)
        others = [held.view.boots[key] for key in owners if key != held.key]
        held.store.forgetting.forget_covered(slot, others)

    def _close_gaps(self, slot: int, now: Instant) -> None:
        """Give up writes that nobody has: all holders were pulled from since they were missed."""
        origins = self._held.store.gap_origins(slot)
        if not origins:
            self._missed.pop(slot, None)
            return
        # By its upper edge a gap is known from one that came later: once filled, none recurs.
        edges = {(origin, low) for origin, low, _ in self._held.store.spans(slot)}
        since, known = self._missed.get(slot, (now.mono, edges))
        if not edges <= known:
            since = now.mono
        self._missed[slot] = (since, edges)
        owners = self._held.view.slots.owners(slot)
        # The node that announced it long ago has released it, and nobody pulls from there any more.
        lately = self._sync.nudgers(slot, now.mono - NUDGES_KEPT_NS)
        holders = {*owners, *lately} - {self._held.key}
        if since < now.mono and all(self._sync.last_pull(slot, key) > since for key in holders):
            for origin in origins:
                self._held.store.close_gaps(slot, origin)
            self._held.unasked.bound(slot, closed=True)
