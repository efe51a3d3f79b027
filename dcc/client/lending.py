"""Lends a client's channels: a pool for each process, and nothing is lost by an interruption.

A child process has connections and an identity of its own. It never touches its parent's: libzmq's
threads are not there any more, and its sockets would answer to two processes. That it is a child
shows when a channel is borrowed, from the process id: some servers fork without running Python's
hooks.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from os import getpid
from typing import TypeVar

from dcc.client.channel import Channel
from dcc.client.core import ClientCore
from dcc.client.events import Events
from dcc.client.link import read_clocks
from dcc.client.pool import Pool
from dcc.errors import DccError
from dcc.guard import Guard
from dcc.keys import Keys, no_keys
from dcc.types import Now
from dcc.units import MILLISECOND

T = TypeVar("T")
What = TypeVar("What")

_INHERITED: list[Pool] = []
"Of processes that are this one's ancestors; kept for ever, since collecting them would close them."


class Lender:
    """The pools of one client by process id. Safe to share between threads, and across forks."""

    def __init__(
        self,
        nodes: tuple[str, ...],
        cluster: str,
        timeout_ns: int,
        events: Events,
        keys: Keys = no_keys,
    ) -> None:
        client_id, boot = _identity()
        core = ClientCore(
            nodes,
            cluster=cluster,
            client_id=client_id,
            boot=boot,
            rng=random.Random(client_id),
            timeout_ns=timeout_ns,
            lock=Guard(),
        )
        self.closed: bool = False
        self._timeout_ns = timeout_ns
        self._pools = {getpid(): Pool(core, events, keys)}

    def pool(self) -> Pool:
        """Return this process's pool."""
        return self._pools.get(getpid()) or self._succeed()

    def borrow(self, command: str, use: Callable[[Channel, What, Now], T], what: What) -> T:
        """Return what `use` makes of a channel that nobody else has, of `what`, and of the time.

        How long that took is counted for `command`, as is the error that it ends with.
        """
        pool = self._pools.get(getpid()) or self._succeed()
        now = read_clocks()
        channel = None
        try:
            channel = pool.take(now.mono + self._timeout_ns)
            channel.lent = True
            result = use(channel, what, now)
            pool.give(channel)
            pool.core.timings.observe(command, time.monotonic_ns() - now.mono)
            return result
        except BaseException as error:
            if channel is not None and channel.lent:
                pool.give(channel)
            if isinstance(error, DccError):
                pool.core.timings.observe(command, time.monotonic_ns() - now.mono)
                pool.events.failed(error)
            raise

    def close(self) -> None:
        """Close the pool of this process. May be repeated."""
        self.closed = True
        for process, pool in list(self._pools.items()):
            if process == getpid():
                pool.close()
            else:
                _INHERITED.append(pool)

    def _succeed(self) -> Pool:
        """Return the pool of a process that was forked from one that had another."""
        parent = list(self._pools.values())[-1]
        fresh = Pool(parent.core.heir(*_identity(), Guard()), parent.events.heir(), parent.keys)
        # Several threads may come here at once; one of their pools stays.
        pool = self._pools.setdefault(getpid(), fresh)
        if self.closed:
            pool.close()
        return pool


def _identity() -> tuple[int, int]:
    """Return a random client id and a boot."""
    client_id = int.from_bytes(os.urandom(8), "big") or 1
    boot = (time.time_ns() // MILLISECOND << 16) | int.from_bytes(os.urandom(2), "big")
    return client_id, boot
