"""A circuit breaker: once a whole cluster is silent, calls fail at once until a probe is answered.

Without it each call of a service waits for its whole time-out while a cluster stands still, and
the service stands still with it. The rules:

- It opens when a call ends without an answer, and no other call has had one since that call
  began: one slow answer beside many good ones opens nothing.
- While it is open no call is made but the probes, in the background, one every half second.
- The first answer closes it.
"""

from __future__ import annotations

from dcc.units import MILLISECOND, SECOND

PROBE_EVERY_NS = 500 * MILLISECOND
BURST_ENDS_NS = 10 * SECOND
"So long without a failure, and the next one is worth a line in the log again."


class Breaker:
    """The state of one cluster as one process meets it; times are monotonic nanoseconds.

    >>> breaker = Breaker()
    >>> breaker.failed(began_at=5), breaker.open
    (True, True)
    >>> breaker.answered(now=20), breaker.open
    (True, False)
    >>> breaker.failed(began_at=15), breaker.open
    (False, False)
    """

    __slots__ = ("_answered_at", "open", "opened")

    def __init__(self) -> None:
        self.open: bool = False
        self.opened: int = 0
        "How often it has opened."
        self._answered_at = -1

    def answered(self, now: int) -> bool:
        """Note an answer, whatever it says; return whether this has closed it."""
        self._answered_at = now
        was_open, self.open = self.open, False
        return was_open

    def failed(self, began_at: int) -> bool:
        """Note a call that ended without an answer; return whether this has opened it."""
        if self.open or self._answered_at >= began_at:
            return False
        self.open = True
        self.opened += 1
        return True


class Bursts:
    """Says which failure is the first of a burst.

    >>> bursts = Bursts()
    >>> [bursts.first(at * SECOND) for at in (1, 2, 11, 30)]
    [True, False, False, True]
    """

    __slots__ = ("_last_at",)

    def __init__(self) -> None:
        self._last_at: int | None = None

    def first(self, now: int) -> bool:
        """Note a failure; return whether none came before it for ten seconds."""
        last, self._last_at = self._last_at, now
        return last is None or now - last >= BURST_ENDS_NS
