"""Sockets of one caller at a time: sends, polls and receives itself, without a thread of its own.

A `Channel` has one DEALER per node address, opened when first needed. It belongs to the one caller
that borrowed it. Replies carry the request's id; what a former call no longer waits for is dropped
when it comes and counted.

It is *at rest* when no call is under way on it. A call that is interrupted, by an exception from a
signal handler at whatever bytecode, leaves it otherwise, and it is not used again: half a message
may be on its sockets.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from typing import Any, Protocol

import zmq

from dcc import green
from dcc.client.calls import Call
from dcc.client.core import ClientCore
from dcc.client.events import Events
from dcc.client.fastpath import FastPath
from dcc.client.link import DRAIN_MAX, Link, open_link, read_clocks, why_not
from dcc.effects import Effect, Notify, Send
from dcc.errors import ClientClosed
from dcc.keys import Keys
from dcc.resolve import Resolver
from dcc.types import Now
from dcc.units import MILLISECOND, NEVER, SECOND
from dcc.wire.codec import Codec

OWED_NS = 2 * SECOND
"How long a channel looks for late answers, which tell that a silent node is back."

LOOK_MS = 100
"How often at least a call looks whether the client was closed."


class Owner(Protocol):
    """What the channels of one client have in common; the pool, which lends them."""

    core: ClientCore
    closed: bool
    resolver: Resolver
    events: Events
    keys: Keys

    def socket(self) -> zmq.Socket[bytes]: ...


class Channel:
    """Carries out the effects of one call at a time. Not safe to share between threads."""

    def __init__(self, pool: Owner) -> None:
        core = pool.core
        self.core: ClientCore = core
        self._pool = pool
        self.lent = False
        "Whether a caller has it, who gives it back."
        self.at_rest: bool = True
        self.poll: green.Poll = green.poller()
        self.codec: Codec = core.new_codec()
        self.fast: FastPath = FastPath(self.codec, sender=core.client_id, boot=core.boot)
        self.links: dict[str, Link] = {}
        self.owed: set[str] = set()
        "Addresses whose late answers are worth looking for."
        self._active: set[str] = set()

    def run(self, call: Call, now: Now) -> Any:
        """Start `call` and drive it to its end; return its result or raise its error."""
        self.at_rest = False
        self._collect(now)
        return self._drive(call, call.start(now), now)

    def resume(
        self, call: Call, addresses: Iterable[str], arrived: list[tuple[str, list[bytes]]], now: Now
    ) -> Any:
        """Drive a call that goes on where a hot path stands to its end."""
        self._active.update(addresses)
        effects = call.start(now)
        for address, frames in arrived:
            effects += call.receive(address, frames, now)
        return self._drive(call, effects, now)

    def is_ready(self, address: str) -> bool:
        """Return whether a message to `address` can be sent at once."""
        link = self.links.get(address)
        return link is not None and link.connected and not link.queue

    def close(self) -> None:
        """Close all sockets."""
        for link in self.links.values():
            link.close()
        self.links.clear()

    def tidy(self, sockets_max: int) -> None:
        """Close sockets to addresses that are no member's any more, and those beyond a bound."""
        view = self.core.view
        known = {*view.by_address, *self.core.nodes} if view is not None else set(self.links)
        surplus = [address for address in self.links if address not in known]
        surplus += list(self.links)[: max(0, len(self.links) - sockets_max)]
        for address in surplus:
            self.owed.discard(address)
            link = self.links.pop(address, None)
            if link is not None:
                link.close()

    def _drive(self, call: Call, effects: list[Effect], now: Now) -> Any:
        """Drive a call that was started to its end; return its result or raise its error."""
        self._perform(call, effects, now)
        while not call.done:
            self._wait(min(call.wake_at(), self._give_up_at(now.mono)) - now.mono)
            if self._pool.closed:
                raise _closed_meanwhile()
            now = read_clocks()
            self._receive(call, now)
            self._flush(call, now)
            if call.wake_at() <= now.mono:
                self._perform(call, call.tick(now), now)
        self._part(call, now)
        self.at_rest = True
        return call.outcome()

    def _link(self, address: str, now: int) -> Link | None:
        """Return the link to an address, None if there can be none."""
        link = self.links.get(address)
        if link is None:
            try:
                socket = self._pool.socket()
                rng = self.core.rng
                pool = self._pool
                link = open_link(socket, address, pool.resolver, rng, now, pool.keys)
                self.links[address] = link
            except (zmq.ZMQError, ValueError):  # Out of descriptors; or no address at all.
                self._pool.events.note("not_opened", {"address": address})
        return link

    def _perform(self, call: Call, effects: list[Effect], now: Now) -> None:
        work = deque(effects)
        while work:
            effect = work.popleft()
            if isinstance(effect, Notify):
                self._pool.events.note(effect.event, effect.fields)
            elif isinstance(effect, Send):
                assert isinstance(effect.to, str)
                if not self._send(effect.to, effect.frames, now.mono):
                    why = self._why(effect.to)
                    work.extend(call.undeliverable(effect.to, now, effect.frames, why))

    def _send(self, address: str, frames: list[bytes], now: int) -> bool:
        link = self._link(address, now)
        if link is None:
            return False
        if not link.queue and link.send(frames):
            self._active.add(address)
            return True
        link.tend(now)
        if link.connected or now >= link.give_up_at:
            return False
        link.queue.append(frames)
        self._active.add(address)
        return True

    def _why(self, address: str) -> str:
        """Return why nothing can be sent to `address`, for the text of an error."""
        return why_not(self.links.get(address), address, self._pool.resolver)

    def _give_up_at(self, now: int) -> int:
        """Return when the first connection that is waited for has had its time."""
        waiting = [self.links[one] for one in self._active if self.links[one].queue]
        return min(
            (min(link.give_up_at, link.dial.wake_at(now)) for link in waiting), default=NEVER
        )

    def _flush(self, call: Call, now: Now) -> None:
        """Send what waited for a connection that is there now; give up where none came."""
        for address in sorted(one for one in self._active if self.links[one].queue):
            link = self.links[address]
            while link.queue and link.send(link.queue[0]):
                link.queue.popleft()
            if link.queue:
                link.tend(now.mono)
            if link.queue and (link.connected or now.mono >= link.give_up_at):
                refused, link.queue = link.queue, deque()
                for frames in refused:
                    why = self._why(address)
                    self._perform(call, call.undeliverable(address, now, frames, why), now)

    def _wait(self, ns: int) -> None:
        polled = [
            (link.socket, zmq.POLLIN | zmq.POLLOUT if link.queue else zmq.POLLIN)
            for link in [self.links[address] for address in sorted(self._active)]
        ]
        milliseconds = min(max(0, -(-ns // MILLISECOND)), LOOK_MS)
        if polled:
            self.poll(polled, milliseconds)
        else:
            time.sleep(milliseconds / 1000)

    def _receive(self, call: Call, now: Now) -> None:
        for address in sorted(self._active):
            link = self.links[address]
            for _ in range(DRAIN_MAX):
                if call.done or (frames := link.receive()) is None:
                    break
                self._perform(call, call.receive(address, frames, now), now)

    def _part(self, call: Call, now: Now) -> None:
        """Leave the sockets to the next call; remember who still owes an answer."""
        core = self.core
        late = dict.fromkeys(core.chores.addresses(), NEVER) | call.attempts.outstanding()
        for address in sorted(self._active):
            link = self.links[address]
            # A call leaves nothing behind, but a refresh may take its time to go out.
            link.queue = deque(frames for frames in link.queue if core.chores.owns(frames))
            if address in late:
                link.owed_since = min(link.owed_since, late[address])
                link.owed_until = now.mono + OWED_NS
                self.owed.add(address)
        self._active.clear()

    def _collect(self, now: Now) -> None:
        """Take late answers, which are dropped and counted, but tell that their node lives."""
        core = self.core
        for address in sorted(self.owed):
            link = self.links[address]
            while link.queue and link.send(link.queue[0]):
                link.queue.popleft()
            if link.queue:
                link.tend(now.mono)
            while (frames := link.receive()) is not None:
                link.owed_since = NEVER
                for effect in core.receive(address, frames, now):
                    assert isinstance(effect, Notify)
                    self._pool.events.note(effect.event, effect.fields)
            if link.owed_since < NEVER and core.overdue(address, link.owed_since, now):
                link.owed_since = NEVER
            waited_for = (
                link.owed_since < NEVER
                or address in core.health.sick
                or address in core.chores.addresses()
            )
            if now.mono >= link.owed_until or not waited_for:
                self.owed.discard(address)
                link.owed_since = NEVER
                link.queue.clear()


def _closed_meanwhile() -> ClientClosed:
    error = ClientClosed("the client was closed during the call")
    error.definite = False
    return error
