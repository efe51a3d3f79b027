"""Tidying: letting go of what all holders know and nobody needs any more.

Three things grow without it: records without values (a tombstone hides an older value until every
holder has seen it), notes beyond gaps that no holder can fill any more (whoever wrote what is
missing is gone), and clock entries of boots that are gone.

Members that are down count, and removed ones too, until they are forgotten themselves: they may
come back with an older value that only such a record can hide, or with the very writes that are
missing here. So do former owners that have not released the slot.
"""

from __future__ import annotations

from dcc.replication.handover import NUDGE_NS
from dcc.replication.holdings import Holdings, Instant
from dcc.replication.sync import IN_SYNC, SyncTable

NUDGES_KEPT_NS = 10 * NUDGE_NS
"A former owner that has been silent for so long has released its slots, or is down."


class Tidying:
    """Looks through all owned slots once in an exchange interval."""

    def __init__(self, holdings: Holdings, sync: SyncTable) -> None:
        self._held, self._sync = holdings, sync
        self._missed_since: dict[int, int] = {}  # owned slots with gaps -> when first seen
        self.at = 0
        "When the next look is due, monotonic ns."

    def tick(self, now: Instant) -> None:
        """Forget what every holder has seen, and give up what none can have any more."""
        held = self._held
        if self.at > now.mono:
            return
        self.at = now.mono + held.config.exchange_interval_ns
        if not held.view.all_up:
            return
        for slot in held.view.owned:
            if held.store.needs_tidying(slot) and self._sync.unsynced(slot) is IN_SYNC:
                if not self._sync.nudged_since(slot, now.mono - NUDGES_KEPT_NS):
                    self._forget(slot)
                self._close_gaps(slot, now)

    def _forget(self, slot: int) -> None:
        """Forget the slot's records without values that every owner is known to have seen."""
        held = self._held
        owners = held.view.slots.owners(slot)
        others = [held.view.boots[key] for key in owners if key != held.key]
        held.store.forget_covered(slot, others)

    def _close_gaps(self, slot: int, now: Instant) -> None:
        """Give up writes that nobody has: all holders were pulled from since they were missed."""
        origins = self._held.store.gap_origins(slot)
        if not origins:
            self._missed_since.pop(slot, None)
            return
        since = self._missed_since.setdefault(slot, now.mono)
        owners = self._held.view.slots.owners(slot)
        holders = {*owners, *self._sync.nudgers(slot)} - {self._held.key}
        if since < now.mono and all(self._sync.last_pull(slot, key) > since for key in holders):
            for origin in origins:
                self._held.store.close_gaps(slot, origin)
