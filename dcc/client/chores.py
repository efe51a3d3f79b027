"""Chores: refreshes of the topology, and probes of sick addresses, that ride along with calls.

Both are the same message. There is one at a time, and at most one a second, so a cluster in trouble
is not stormed by its clients. A refresh is wanted when a reply's epoch differs from the known one,
when a node failed, every two seconds while somebody is not well, and every thirty otherwise.

Methods that are called with the lock held say so; they take none.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

from dcc.client.routing import Health, View
from dcc.types import Now
from dcc.units import NEVER, SECOND

CHORE_SPACING_NS = 1 * SECOND
REFRESH_TROUBLED_NS = 2 * SECOND
REFRESH_CALM_NS = 30 * SECOND


class _Chore(NamedTuple):
    request: int
    address: str
    frames: list[bytes]
    sent_at: int

    @property
    def expires_at(self) -> int:
        return self.sent_at + CHORE_SPACING_NS


class Chores:
    """The chore of one client that is under way, and when the next one is due."""

    def __init__(
        self,
        health: Health,
        rng: random.Random,
        lock: AbstractContextManager[object],
    ) -> None:
        self.due_at: int = NEVER
        "When there is something to do, at the earliest."
        self._health, self._rng, self._lock = health, rng, lock
        self._provisional = False
        "The topology in use is that of a node that was not ready: others may know better."
        self._chore: _Chore | None = None
        self._sent_at = -CHORE_SPACING_NS
        self._refreshed_at = 0
        self._probe_last = False

    # -------------------------------------------------------------- what is due

    def whom_to_ask(self, view: View | None, nodes: Sequence[str], now: Now) -> str:
        """Return the address that a chore is due for, "" if none is. With the lock held.

        Of the configured `nodes` too if nobody of the ring is known to answer.
        """
        chore = self._chore
        if chore is not None and now.mono >= chore.expires_at:
            # Not the node's failure: perhaps no call came by to carry the message, or the answer.
            self._chore = None
            self.due_at = self._next_at(now.mono)
        if now.mono < self.due_at or self._chore is not None:
            return ""
        return self._choose(view, nodes, now.mono)

    def sent(self, request: int, address: str, frames: list[bytes], now: Now) -> None:
        """Note the chore that is sent now. With the lock held."""
        self._chore = _Chore(request, address, frames, now.mono)
        self._sent_at = now.mono
        self.due_at = self._chore.expires_at

    def want(self, now: Now) -> None:
        """Have a chore due as soon as the limit allows."""
        with self._lock:
            if self._chore is None:
                self.due_at = min(self.due_at, self._next_at(now.mono))

    def refreshed(self, view: View, now: Now, *, ready: bool) -> None:
        """Plan the next refresh: `view` is new, told by a node that is `ready`. Lock held."""
        self._provisional, self._refreshed_at = not ready, now.mono
        self._plan(view, now.mono)

    # -------------------------------------------------------------- what became of one

    def answered(self, request: int, address: str, view: View | None, now: Now) -> int | None:
        """End the chore if this answers it, and return when it was sent; else None."""
        chore = self._chore
        if chore is None or chore.request != request or chore.address != address:
            return None
        with self._lock:
            self._chore = None
            self._plan(view, now.mono)
        return chore.sent_at

    def undeliverable(self, frames: list[bytes]) -> str:
        """End the chore if these are its frames, and return whom it was for; else ""."""
        chore = self._chore
        if chore is None or chore.frames is not frames:
            return ""
        with self._lock:
            self._chore = None
        return chore.address

    def forget(self, address: str) -> None:
        """End the chore that `address` was asked for, if it was: it is none of the cluster's."""
        if self._chore is not None and self._chore.address == address:
            with self._lock:
                self._chore = None

    def owns(self, frames: list[bytes]) -> bool:
        """Return whether `frames` are those of the chore that is on its way."""
        return self._chore is not None and self._chore.frames is frames

    def addresses(self) -> set[str]:
        """Return who owes the answer to a chore: nobody or one address."""
        return {self._chore.address} if self._chore is not None else set()

    def check(self) -> None:
        """Assert that a chore under way ends."""
        assert self._chore is None or self.due_at <= self._chore.expires_at

    # -------------------------------------------------------------- inside

    def _choose(self, view: View | None, nodes: Sequence[str], now: int) -> str:
        """Return whom to ask: an overdue sick address every other time, else anybody well."""
        probe = self._health.probe_due(now)
        if probe is not None and not self._probe_last:
            self._probe_last = True
            self._health.probed(probe, now)
            return probe
        self._probe_last = False
        sick = self._health.sick
        known = set(view.alive.values()) if view is not None else set()
        if self._provisional or sick.keys() >= known:
            known.update(nodes)
        well = [address for address in sorted(known) if address not in sick]
        return self._rng.choice(well or sorted(known))

    def _next_at(self, now: int) -> int:
        spacing = round(CHORE_SPACING_NS * self._rng.uniform(1.0, 1.25))
        return max(now, self._sent_at + spacing)

    def _plan(self, view: View | None, now: int) -> None:
        troubled = self._provisional or bool(self._health.sick)
        troubled = troubled or view is None or not view.settled
        pause = REFRESH_TROUBLED_NS if troubled else REFRESH_CALM_NS
        due = self._refreshed_at + round(pause * self._rng.uniform(1.0, 1.25))
        self.due_at = max(min(due, self._health.probe_at()), self._next_at(now))
        if self._chore is not None:
            self.due_at = min(self.due_at, self._chore.expires_at)
