"""Mutual exclusion that neither a signal handler nor an interruption can turn into a hang.

A handler runs between any two bytecodes of the main thread. It may call what it has interrupted,
which would wait for its own thread's lock; and it may raise just after a lock was taken, which then
is held for ever. Threads that are stopped from outside do the same to others.
"""

from __future__ import annotations

import threading

WAIT_S = 0.25
"Nobody is inside for long. Whoever has waited this long takes it that nobody will come out."


class Guard:
    """Keeps threads apart for a few instructions; re-entrant. To be used by `with`.

    It protects figures that may be a little wrong, not memory: after `WAIT_S` it gives way.
    """

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        while not self._lock.acquire(timeout=WAIT_S):
            self._lock = threading.RLock()

    def __exit__(self, *_error: object) -> None:
        try:
            self._lock.release()
        except RuntimeError:  # Another one was put in its place meanwhile.
            pass
