"""The channels of one client in one process: lent to one caller at a time, last in first out.

The channel that came back last has the warmest connections. New ones are made up to a bound that
keeps descriptors in check; beyond it callers wait within their deadline.

*Nothing here is locked.* A signal handler may raise between any two bytecodes, or call the client
that it has interrupted; a lock would stay held, or wait for its own thread. So state changes by
single operations of lists and sets, which nothing comes between. A channel that is lost on its way
from the pool to its caller or back is collected like any other object, and the weak reference by
which it was counted goes with it.

*Closing waits for nobody.* Calls of other threads, and calls that the closing handler has
interrupted, find the pool closed, end, and close what they had. libzmq's context ends with the last
socket.
"""

from __future__ import annotations

import errno
import sys
import threading
import time
import weakref
from collections import deque
from typing import Any

import zmq

from dcc import descriptors
from dcc.client.channel import Channel
from dcc.client.core import ClientCore
from dcc.client.events import Events
from dcc.client.link import FILES_TO_START
from dcc.errors import ClientClosed, NodeUnavailable, OperationTimeout
from dcc.keys import Keys, no_keys
from dcc.resolve import Resolver
from dcc.units import SECOND

CHANNELS_MAX = 128
SOCKETS_MAX = 480
"Of one client: a socket takes two descriptors, and 1,024 is a usual limit for a process."

TURN_S = 0.1
"How soon a waiting caller looks by itself: whoever was to wake it may have been interrupted."


class Socket(zmq.Socket[bytes]):
    """A socket that is closed without a word if a call that was interrupted has lost it."""

    def __del__(self) -> None:
        if not self.closed:
            self.close(0)


class Context(zmq.Context[Any]):
    """libzmq's context, which ends without a word when the last of its sockets is gone."""

    def __del__(self) -> None:
        if not self.closed and not sys.is_finalizing():
            self.destroy(0)


class Pool:
    """Lends channels, at most so many."""

    def __init__(self, core: ClientCore, events: Events, keys: Keys = no_keys) -> None:
        self.core = core
        self.keys = keys
        self.events = events
        self.resolver: Resolver = Resolver()
        self.closed: bool = False
        try:
            self._context: Context | None = Context()
        except zmq.ZMQError as error:
            raise NodeUnavailable("there is no file descriptor left; raise ulimit -n") from error
        self._context.set(zmq.MAX_SOCKETS, 4096)
        self._begun = False
        "Whether libzmq has started its threads, which it does for the first socket."
        self._idle: list[Channel] = []
        self._all: set[weakref.ref[Channel]] = set()
        "Those that are not closed, and that somebody still has."
        self._waiting: deque[threading.Lock] = deque()
        "A held lock for each caller that waits; to release it wakes the caller."

    def socket(self) -> Socket:
        """Return a new DEALER.

        Raises ZMQError without descriptors for it and libzmq's threads: it would abort.
        """
        context = self._context
        if context is None:
            raise ClientClosed("the client is closed")
        if not self._begun:
            if not _can_begin():
                raise zmq.ZMQError(errno.EMFILE)
            self._begun = True
        socket: Socket = context.socket(zmq.DEALER, Socket)
        return socket

    def take(self, deadline: int) -> Channel:
        """Return a channel of the caller's own.

        Raises:
            OperationTimeout: none came free in time. Nothing was sent.
            ClientClosed: the pool is closed.
        """
        try:
            return self._idle.pop()
        except IndexError:
            return self._take_slowly(deadline)

    def give(self, channel: Channel) -> None:
        """Take a channel back; close it if it is not at rest."""
        if not channel.at_rest:
            self._discard(channel)
            return
        view = self.core.view
        if view is not None and len(channel.links) > len(view.members):
            channel.tidy(SOCKETS_MAX)
        channel.lent = False
        self._idle.append(channel)
        # Who waits, or closes, has said so before looking at the list for the last time.
        if self._waiting or self.closed:
            self._give_slowly()

    def close(self) -> None:
        """Close all sockets that are not lent. Calls that are under way end with ClientClosed."""
        self.closed = True
        self._close_idle()
        context, self._context = self._context, None
        # A socket refers to its context. With one left anywhere to end it would wait for that.
        unshared = object()
        if context is not None and sys.getrefcount(context) <= sys.getrefcount(unshared):
            context.term()

    @property
    def _made(self) -> int:
        """How many channels there are."""
        return len(self._all)

    def _take_slowly(self, deadline: int) -> Channel:
        # The channel is in no variable here: an exception that is kept would keep it.
        while True:
            if self.closed:
                raise ClientClosed("the client is closed")
            if len(self._all) < self._channels_max():
                self._make()
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
            try:
                if not self._idle:
                    left = (deadline - time.monotonic_ns()) / SECOND
                    if left <= 0:
                        raise OperationTimeout("too many calls at a time; none ended in time")
                    turn.acquire(timeout=min(left, TURN_S))
                return self._idle.pop()
            except IndexError:
                continue
            finally:
                self._leave(turn)

    def _make(self) -> None:
        """Make one more channel if there may be one, for whoever takes it first."""
        channel = Channel(self)
        self._all.add(weakref.ref(channel, self._all.discard))
        if len(self._all) <= self._channels_max():
            self._idle.append(channel)

    def _leave(self, turn: threading.Lock) -> None:
        try:
            self._waiting.remove(turn)
        except ValueError:
            # It was this caller's turn. It may have come for more than one channel.
            if self._idle:
                self._wake()

    def _wake(self) -> None:
        try:
            self._waiting.popleft().release()
        except IndexError:
            pass

    def _give_slowly(self) -> None:
        if self.closed:
            self._close_idle()
        self._wake()

    def _discard(self, channel: Channel) -> None:
        self._all.discard(weakref.ref(channel))
        channel.close()
        channel.lent = False
        self._wake()

    def _close_idle(self) -> None:
        while True:
            try:
                self._idle.pop().close()
            except IndexError:
                return

    def _channels_max(self) -> int:
        view = self.core.view
        nodes = len(view.members) if view is not None else len(self.core.nodes)
        return max(2, min(CHANNELS_MAX, SOCKETS_MAX // max(1, nodes)))


def _can_begin() -> bool:
    """Return whether descriptors are left for libzmq's threads.

    Another thread looks: a signal handler that raises would lose what the look takes for a moment.
    """
    found: list[bool] = []
    look = threading.Thread(
        target=lambda: found.append(descriptors.are_left(FILES_TO_START)), daemon=True
    )
    try:
        look.start()
    except RuntimeError:  # The interpreter is ending: there are no threads any more.
        return descriptors.are_left(FILES_TO_START)
    look.join()
    return found == [True]
