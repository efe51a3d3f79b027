"""Processes in which gevent or eventlet has put greenlets in the place of threads.

There a blocking call of a library in C stops everybody. libzmq's sockets have a descriptor that
says when to look at them again, so what waits for them can wait as the process waits for everything
else: by its `select`, which lets other greenlets run.
"""

from __future__ import annotations

import _thread
import select
import sys
import time
from collections.abc import Callable, Sequence
from types import BuiltinFunctionType
from typing import Any

import zmq
from zmq.backend import zmq_poll

Pollables = Sequence[tuple[Any, int]]
Poll = Callable[[Pollables, int], Sequence[object]]
"Waits so many milliseconds at most until a socket is ready, and returns those that are."

_GEVENT_PARTS = ("socket", "select", "thread", "time")


def poller() -> Poll:
    """Return how to wait for sockets here and now."""
    gevent = sys.modules.get("gevent.monkey")
    if gevent is not None and any(map(gevent.is_module_patched, _GEVENT_PARTS)):
        # Also where `select` itself was left out.
        from gevent.select import select as wait

        return _by(wait)
    if type(select.select) is not BuiltinFunctionType:
        return _by(select.select)
    return zmq_poll


def threads_are_green() -> bool:
    """Return whether a new thread would be a greenlet, which runs only while others wait."""
    return type(_thread.start_new_thread) is not BuiltinFunctionType


def _by(wait: Callable[..., Any]) -> Poll:
    """Return a poll that waits by a `select` of greenlets."""

    def poll(sockets: Pollables, timeout_ms: int) -> Sequence[object]:
        deadline = time.monotonic() + timeout_ms / 1000
        while True:
            # The descriptor tells of news only. Whoever has looked at the events has had them.
            ready = [(one, got) for one, of in sockets if (got := one.getsockopt(zmq.EVENTS) & of)]
            left = deadline - time.monotonic()
            if ready or left <= 0:
                return ready
            wait([one.getsockopt(zmq.FD) for one, _ in sockets], [], [], left)

    return poll
