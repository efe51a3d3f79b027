"""Asking one node after the other, in rounds: what several plans have in common.

A node that could not be reached is followed by the next at once, a silent one by the next as
well while its answer still counts. When everybody was asked in vain the plan pauses, longer each
time, and starts over with the topology as it then is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from dcc.client.attempts import Attempt, Attempts
from dcc.client.outcomes import nobody
from dcc.errors import DccError
from dcc.types import Now
from dcc.units import MILLISECOND, NEVER

PAUSE_FIRST_NS = 10 * MILLISECOND
PAUSE_MOST_NS = 160 * MILLISECOND


class Rounds:
    """Growing, random pauses between rounds over all targets."""

    def __init__(self, call: Attempts) -> None:
        self._call = call
        self._pause_ns = PAUSE_FIRST_NS

    def next_at(self, now: Now) -> int:
        """Return when the next round begins."""
        pause = round(self._pause_ns * self._call.core.rng.uniform(0.5, 1.5))
        self._pause_ns = min(self._pause_ns * 2, PAUSE_MOST_NS)
        return now.mono + pause


class OneByOne(ABC):
    """The common part of the plans that ask one node after the other.

    They say whom to ask next (`_next`), how a round begins (`_begin_round`), and what an answer
    means.
    """

    def __init__(self, call: Attempts) -> None:
        self.wake_at: int = NEVER
        self.done: bool = False
        self.result: Any = None
        self.error: DccError | None = None
        self._call = call
        self._refusal: DccError | None = None
        "The last one, which is told if nobody does better."
        self._rounds = Rounds(call)

    def undeliverable(self, attempt: Attempt, now: Now) -> None:
        """Ask the next at once."""
        self._next(now)

    def silent(self, attempt: Attempt, now: Now) -> None:
        """Ask the next as well."""
        self._next(now)

    def tick(self, now: Now) -> None:
        """Begin the next round when its time has come."""
        if now.mono >= self.wake_at:
            self.wake_at = NEVER
            self._begin_round(now)

    @abstractmethod
    def _next(self, now: Now) -> None:
        """Ask the next node of this round."""

    @abstractmethod
    def _begin_round(self, now: Now) -> None:
        """Begin a round with the nodes that may live."""

    def _nodes(self) -> list[str]:
        """Return the addresses of all nodes that may live, in random order, sick ones last."""
        core = self._call.core
        view = core.view
        known = sorted(view.alive.values()) if view is not None else []
        core.rng.shuffle(known)
        return sorted(known, key=core.health.sick.__contains__)

    def _nobody(self) -> DccError:
        """Return why an operation that changes nothing ended without an answer."""
        return nobody(self._refusal, self._call.tried, sent=self._call.waiting(self) > 0)

    def _finish(self, result: object) -> None:
        if not self.done:
            self.done, self.result = True, result

    def _fail(self, error: DccError) -> None:
        if not self.done:
            self.done, self.error = True, error
