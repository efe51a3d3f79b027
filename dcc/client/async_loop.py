"""Sockets and timers of an asyncio client: one DEALER for each node under the loop's reader.

libzmq's descriptor tells edges, not levels: it becomes readable when something may have changed,
and every look at the socket, a send too, may use the edge up. So a socket is drained whenever its
descriptor is readable, and looked at again after every send and every bounded drain.

Everything here runs on the loop's thread. The dispatcher decides; this file carries out.

A child process may have been made without Python's hooks, by whatever holds the interpreter. So
the process is looked at whenever a turn begins or a callback comes, and no socket is touched in
another one than the client's own.
"""

from __future__ import annotations

import asyncio
import contextvars
import errno
import os
from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import Any

import zmq
from zmq.backend import zmq_poll

from dcc import descriptors
from dcc.client.calls import Operation
from dcc.client.core import ClientCore
from dcc.client.dispatch import Dispatcher
from dcc.client.events import Events
from dcc.client.flights import Turn
from dcc.client.link import DRAIN_MAX, FILES_TO_START, Link, open_link, read_clocks, why_not
from dcc.effects import Effect, Notify, Send
from dcc.errors import WrongLoop
from dcc.keys import Keys, no_keys
from dcc.resolve import Resolver
from dcc.types import Now
from dcc.units import NEVER, SECOND
from dcc.wire.messages import Write

CATCH_UP_MAX = 100
"Times a wire is drained before time is allowed to pass: thousands of messages, but not endless."


MESSAGES_EACH = 4
"For each call that may be under way: its own, and what those that gave up have left."


class Wire:
    """The connection to one node, and what waits for it to be made."""

    __slots__ = ("address", "fd", "link", "queue")

    def __init__(self, address: str, link: Link) -> None:
        self.address: str = address
        self.link: Link = link
        self.fd: int = int(link.socket.getsockopt(zmq.FD))
        self.queue: deque[Send] = deque()

    def is_readable(self) -> bool:
        """Return whether there is a message."""
        return bool(zmq_poll(self.link.poll_list, 0))


class LoopDriver:
    """Drives the dispatcher of one client on one event loop."""

    def __init__(
        self,
        core: ClientCore,
        loop: asyncio.AbstractEventLoop,
        in_flight_max: int,
        events: Events,
        keys: Keys = no_keys,
    ) -> None:
        self.loop = loop
        self._keys = keys
        self.core = core
        self.dispatcher: Dispatcher = Dispatcher(core, in_flight_max)
        self.events = events
        self.closed: bool = False
        self._pid = os.getpid()
        self._resolver = Resolver()
        self._context: zmq.Context[Any] | None = None
        self._wires: dict[str, Wire] = {}
        self._touched: dict[str, Wire] = {}
        "Wires that something was sent on since they were last looked at."
        self._nothing = contextvars.Context()
        "Callbacks run in it: a caller's context variables are not kept alive by what lasts longer."
        self._messages_max = MESSAGES_EACH * in_flight_max
        self._view: object = None
        "The topology for which wires that lead nowhere were last closed."
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = NEVER

    # -------------------------------------------------------------- calls

    def get(self, key: bytes) -> asyncio.Future[Any]:
        """Return the future of a plain get: the value, None or a `DccError`."""
        turn = self.dispatcher.turn() or self._begin_turn()
        future = self.loop.create_future()
        turn.keys.append(key)
        turn.readers.append(future)
        return future

    def put(self, write: Write) -> asyncio.Future[Any]:
        """Return the future of a put: the version or a `DccError`."""
        turn = self.dispatcher.turn() or self._begin_turn()
        future = self.loop.create_future()
        turn.writes.append((write, future))
        return future

    def call(self, operation: Operation) -> asyncio.Future[Any]:
        """Return the future of any operation: the `Call` that has ended, or a `DccError`."""
        turn = self.dispatcher.turn() or self._begin_turn()
        future = self.loop.create_future()
        turn.operations.append((operation, future))
        return future

    def close(self) -> None:
        """End all calls with `ClientClosed`, and close all sockets. May be repeated."""
        if not self._is_here():
            return
        self.closed = True
        if not self.loop.is_closed():
            self.dispatcher.close()
        if self._timer is not None:
            self._timer.cancel()
        self._close_wires(list(self._wires.values()))
        if self._context is not None:
            self._context.term()

    # -------------------------------------------------------------- the loop's callbacks

    def _is_here(self) -> bool:
        """Return whether the sockets are open, and this process's own."""
        return not self.closed and os.getpid() == self._pid

    def _begin_turn(self) -> Turn:
        if not self._is_here():
            raise WrongLoop("this client was used before a fork; make one in the child process")
        self.loop.call_soon(self._flush, context=self._nothing)
        return self.dispatcher.begin_turn(read_clocks().mono)

    def _flush(self) -> None:
        if self._is_here():
            now = read_clocks()
            self._carry_out(self.dispatcher.flush(now), now)
            self._look_after(now)

    def _readable(self, wire: Wire) -> None:
        """Drain a wire, a bounded number of messages at a time."""
        if not self._is_here() or self._wires.get(wire.address) is not wire:
            return
        now = read_clocks()
        self._drain(wire, now)
        self._look_after(now)

    def _on_time(self) -> None:
        """Do what is due; what has come in meanwhile counts first, however late this loop is."""
        self._timer, self._timer_at = None, NEVER
        if not self._is_here():
            return
        now = read_clocks()
        for wire in list(self._wires.values()):
            for _ in range(CATCH_UP_MAX):
                if not self._drain(wire, now):
                    break
        self._carry_out(self.dispatcher.tick(now), now)
        for wire in list(self._wires.values()):
            if wire.queue:
                self._send_queued(wire, now)
        self._tidy()
        self._look_after(now)

    # -------------------------------------------------------------- receiving and sending

    def _drain(self, wire: Wire, now: Now) -> bool:
        """Take some messages; true if there may be more."""
        link, dispatcher = wire.link, self.dispatcher
        for _ in range(DRAIN_MAX):
            frames = link.receive()
            if frames is None:
                break
            self._carry_out(dispatcher.receive(wire.address, frames, now), now)
            if not wire.is_readable():
                break
        else:
            self._touched[wire.address] = wire
            return True
        if wire.queue:
            self._send_queued(wire, now)
        return False

    def _look_after(self, now: Now) -> None:
        """See to what sends may have hidden, and set the timer."""
        if self._touched:
            touched, self._touched = self._touched, {}
            for wire in touched.values():
                if wire.is_readable() or wire.queue:
                    self.loop.call_soon(self._readable, wire, context=self._nothing)
        due = min(self.dispatcher.wake_at(), self._wires_due(now.mono))
        if due < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = due
            delay_s = max(0, due - now.mono) / SECOND
            self._timer = self.loop.call_later(delay_s, self._on_time, context=self._nothing)

    def _carry_out(self, effects: list[Effect], now: Now) -> None:
        if not effects:
            return
        work = deque(effects)
        while work:
            effect = work.popleft()
            if isinstance(effect, Send):
                if not self._send(effect, now.mono):
                    work.extend(self._undeliverable(effect, now))
            elif isinstance(effect, Notify):
                self.events.note(effect.event, effect.fields)

    def _send(self, send: Send, now: int) -> bool:
        """Return whether the message was sent, or may yet be; false: surely not sent."""
        assert isinstance(send.to, str)
        wire = self._wires.get(send.to) or self._open(send.to, now)
        if wire is None:
            return False
        link = wire.link
        if not wire.queue and link.send(send.frames):
            self._touched[wire.address] = wire
            return True
        link.tend(now)
        if link.connected or now >= link.give_up_at:
            return False
        wire.queue.append(send)
        self._touched[wire.address] = wire
        return True

    def _send_queued(self, wire: Wire, now: Now) -> None:
        """Send what waited for a connection that is there now; give up where none came."""
        link, queue = wire.link, wire.queue
        while queue and link.send(queue[0].frames):
            queue.popleft()
            self._touched[wire.address] = wire
        if queue:
            link.tend(now.mono)
        if queue and (link.connected or now.mono >= link.give_up_at):
            wire.queue = deque()
            for send in queue:
                self._carry_out(self._undeliverable(send, now), now)

    def _undeliverable(self, send: Send, now: Now) -> list[Effect]:
        address = str(send.to)
        wire = self._wires.get(address)
        why = why_not(wire.link if wire is not None else None, address, self._resolver)
        return self.dispatcher.undeliverable(send, now, why)

    def _wires_due(self, now: int) -> int:
        """Return when the first connection that is waited for has had its time."""
        return min(
            (
                min(wire.link.give_up_at, wire.link.dial.wake_at(now))
                for wire in self._wires.values()
                if wire.queue
            ),
            default=NEVER,
        )

    # -------------------------------------------------------------- wires

    def _open(self, address: str, now: int) -> Wire | None:
        """Return a new wire to an address, None if there can be none."""
        try:
            socket = self._contexts().socket(zmq.DEALER)
            link = open_link(socket, address, self._resolver, self.core.rng, now, self._keys)
            # All calls share the socket: that it is full shall not look like a lost connection.
            socket.setsockopt(zmq.SNDHWM, self._messages_max)
            wire = Wire(address, link)
        except (zmq.ZMQError, ValueError):
            self.events.note("not_opened", {"address": address})
            return None
        self._wires[address] = wire
        self._add_reader(wire)
        return wire

    def _add_reader(self, wire: Wire) -> None:
        # A copy of the present context goes with it. Callbacks run in the empty one already.
        add = partial(self.loop.add_reader, wire.fd, self._readable, wire)
        contextvars.Context().run(add)

    def _contexts(self) -> zmq.Context[Any]:
        if self._context is None:
            # libzmq ends the process if it finds no descriptors for its threads.
            if not descriptors.are_left(FILES_TO_START):
                raise zmq.ZMQError(errno.EMFILE)
            self._context = zmq.Context()
            self._context.set(zmq.MAX_SOCKETS, 4096)
        return self._context

    def _tidy(self) -> None:
        """Close wires to addresses that are no member's any more."""
        view = self.core.view
        if view is None or view is self._view:
            return
        self._view = view
        known = {*view.by_address, *self.core.nodes}
        self._close_wires([one for one in self._wires.values() if one.address not in known])

    def _close_wires(self, wires: Iterable[Wire]) -> None:
        for wire in wires:
            del self._wires[wire.address]
            self._touched.pop(wire.address, None)
            if not self.loop.is_closed():
                self.loop.remove_reader(wire.fd)
            wire.link.close()
