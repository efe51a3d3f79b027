"""Intake: how a record that another node sent is taken in, whichever way it came.

    its stamp is too far ahead of cluster time?    refused, and counted as `clock_skew`
    else    the cluster clock takes note of the stamp: what is written from now on lies above
            sent by its coordinator or in an exchange   `Store.apply`: not if it was seen before
            found by a question                         `Store.install`, if this node is to hold it

A stamp from the future would drag all later stamps along, and hide every write until then. The
caller that brought the record decides what follows from the refusal: the slot is pulled again, the
copy is not acknowledged, the answer does not count.
"""

from __future__ import annotations

from collections.abc import Callable

from dcc.clock import ClusterClock
from dcc.replication.view import View
from dcc.store.clocks import Clock
from dcc.store.store import Applied, Store
from dcc.types import Record, Stamp

CLOCK_SKEW = "clock_skew"
"The reason under which refusals are counted."


def uncounted(_reason: str) -> None:
    """Count nothing: for machines without a node around them."""


class Intake:
    """Takes in what other nodes send to one node."""

    def __init__(
        self, view: View, store: Store, clock: ClusterClock,
        refused: Callable[[str], None] = uncounted,
    ) -> None:  # fmt: skip
        self._view, self._store, self._clock = view, store, clock
        self._refused = refused

    def believes(self, stamp: Stamp, now_ms: int) -> bool:
        """Return whether something stamped so may be taken in; a refusal is counted."""
        if self._clock.too_far_ahead(stamp, now_ms):
            self._refused(CLOCK_SKEW)
            return False
        return True

    def apply(
        self, slot: int, record: Record, now_ms: int, sender: Clock | None = None, *,
        owed: bool = False, asked: Clock | None = None,
    ) -> Applied | None:  # fmt: skip
        """Take a record that a node sent on its own account; None = refused, nothing changed.

        `sender`, `owed` and `asked` are those of `Store.apply`.
        """
        if not self.believes(record.version.stamp, now_ms):
            return None
        self._clock.witness(record.version.stamp)
        return self._store.apply(slot, record, now_ms, sender, owed=owed, asked=asked)

    def install(self, slot: int, record: Record, now_ms: int) -> None:
        """Take a record that a question found and that the caller knows to be believed.

        Where this node is not to hold the slot, only the cluster clock takes note of it.
        """
        self._clock.witness(record.version.stamp)
        if self._view.holds(slot):
            self._store.install(slot, record, now_ms)
