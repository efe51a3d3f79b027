"""What other threads and signal handlers ask of a loop, without touching its core.

They leave a wish and write a byte to a socket pair that the loop polls. The statistics are asked
for likewise, and kept for a second.
"""

from __future__ import annotations

import socket as net
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeout
from queue import Empty, SimpleQueue
from typing import Any

from dcc.node import clocks
from dcc.units import SECOND

SNAPSHOT_AGE_NS = 1 * SECOND


class Wishes:
    """The wishes of one loop. `taken`, `answer`, `refuse` and `close` belong to its thread."""

    def __init__(self) -> None:
        self._inner, self._outer = net.socketpair()
        for end in (self._inner, self._outer):
            end.setblocking(False)
        self._wishes: SimpleQueue[str] = SimpleQueue()
        self._asked: SimpleQueue[Future[dict[str, Any]]] = SimpleQueue()
        self._snapshot: dict[str, Any] = {}
        self._snapshot_at = -SNAPSHOT_AGE_NS

    # ------------------------------------------------------------ for other threads

    def add(self, wish: str) -> None:
        """Leave a wish, and wake the loop."""
        self._wishes.put(wish)
        self.wake()

    def wake(self) -> None:
        """Make the loop turn."""
        try:
            self._outer.send(b"\0")
        except OSError:  # Full: it is awake already. Closed: it has ended.
            pass

    def snapshot(self, timeout_s: float, *, age_max_ns: int) -> dict[str, Any] | None:
        """Return the node's statistics, at most so old; None if the loop does not answer."""
        if clocks.mono_ns() - self._snapshot_at < age_max_ns:
            return self._snapshot
        asked: Future[dict[str, Any]] = Future()
        self._asked.put(asked)
        self.wake()
        try:
            return asked.result(timeout_s)
        except (FutureTimeout, CancelledError):
            asked.cancel()
            return None

    # ------------------------------------------------------------ for the loop

    def fileno(self) -> int:
        """Return the descriptor to poll."""
        return self._inner.fileno()

    def taken(self) -> list[str]:
        """Return and forget the wishes left up to now."""
        try:
            self._inner.recv(4096)
        except BlockingIOError:
            pass
        return drained(self._wishes)

    def answer(self, mono: int, figures: Callable[[], dict[str, Any]]) -> None:
        """Give the statistics of this turn to all that asked."""
        for asked in drained(self._asked):
            if mono != self._snapshot_at:
                self._snapshot, self._snapshot_at = figures(), mono
            try:
                asked.set_result(self._snapshot)
            except InvalidStateError:  # The thread that asked has given up.
                pass

    def refuse(self) -> None:
        """Let go of all that still ask: the loop has ended."""
        for asked in drained(self._asked):
            asked.cancel()

    def close(self) -> None:
        """Close the socket pair."""
        self._inner.close()
        self._outer.close()


def drained(queue: SimpleQueue[Any]) -> list[Any]:
    """Return and remove what is in a queue now."""
    items = []
    try:
        while True:
            items.append(queue.get_nowait())
    except Empty:
        return items
