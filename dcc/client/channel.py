"""Sockets of one caller at a time, and the pool that lends them out.

A `Channel` has one DEALER per node address, opened when first needed. It belongs to the one
caller that borrowed it, so calls need no thread of their own and no hand-over: the caller sends,
polls and receives itself. Replies carry the request's id; what a former call no longer waits for
is dropped when it comes and counted.

With IMMEDIATE a DEALER without a connection refuses messages instead of keeping them for a node
that may be gone: that is how a call knows that a message surely was not sent. A socket that was
just opened is given `CONNECT_NS` to connect; one that was connected and is not any more refuses at
once.

The pool lends the channel that came back last (its connections are the warmest), makes new ones
up to a bound that keeps descriptors in check, and lets callers wait within their deadline beyond.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import Any

import zmq
from zmq.backend import zmq_poll

from dcc.client.calls import Call
from dcc.client.core import ClientCore
from dcc.client.fastpath import FastPath, plain_groups
from dcc.effects import Effect, Notify, Send
from dcc.errors import ClientClosed, NodeUnavailable, OperationTimeout
from dcc.limits import VALUE_BYTES_MAX
from dcc.ring.hashing import slot_of
from dcc.types import Now
from dcc.units import MILLISECOND, NEVER, SECOND
from dcc.wire.messages import Get, GetMany, GetReply, Status

CONNECT_NS = 200 * MILLISECOND
OWED_NS = 2 * SECOND
"How long a channel looks for late answers, which tell that a silent node is back."

CHANNELS_MAX = 128
SOCKETS_MAX = 480
"Of one client: a socket takes two descriptors, and 1,024 is a usual limit for a process."

DRAIN_MAX = 64
"Messages taken from one socket before the others have their turn."

# One table, each with its reason.
_OPTIONS: tuple[tuple[int, int], ...] = (
    (zmq.LINGER, 0),  # closing never waits for a node that is gone
    (zmq.IMMEDIATE, 1),  # no connection: refuse, do not keep messages
    (zmq.SNDHWM, 1000),  # one call has few messages on their way; this only bounds memory
    (zmq.RCVHWM, 1000),
    (zmq.MAXMSGSIZE, VALUE_BYTES_MAX),  # a larger frame is nothing that dcc sends
    (zmq.HEARTBEAT_IVL, 1000),  # notice a silently cut connection in seconds, not hours
    (zmq.HEARTBEAT_TIMEOUT, 3000),
    (zmq.HEARTBEAT_TTL, 3000),
    (zmq.HANDSHAKE_IVL, 3000),  # a stopped process accepts connections but never greets
    (zmq.CONNECT_TIMEOUT, 2000),
    (zmq.RECONNECT_IVL_MAX, 5000),
)


def read_clocks() -> Now:
    """Return both clocks as they are now."""
    return Now(time.monotonic_ns(), time.time_ns())


class Link:
    """One DEALER and what waits for its connection."""

    __slots__ = (
        "connected", "give_up_at", "owed_since", "owed_until", "poll_list", "queue", "socket",
    )  # fmt: skip

    def __init__(self, socket: zmq.Socket[bytes], now: int) -> None:
        self.socket = socket
        self.poll_list = [(socket, zmq.POLLIN)]
        "For the hot path, which waits for this socket only."
        self.connected = False
        "A message was accepted once; from then on a refusal means that the connection is lost."
        self.give_up_at = now + CONNECT_NS
        self.owed_since = NEVER
        "When the question was sent whose answer is still to come; NEVER once that was judged."
        self.owed_until = 0
        "A late answer may come until then."
        self.queue: deque[list[bytes]] = deque()

    def send(self, frames: list[bytes]) -> bool:
        """Return whether the message was taken; false: surely not sent."""
        socket = self.socket
        try:
            for frame in frames[:-1]:
                socket.send(frame, zmq.NOBLOCK | zmq.SNDMORE)
            socket.send(frames[-1], zmq.NOBLOCK)
        except zmq.Again:
            return False
        self.connected = True
        return True

    def receive(self) -> list[bytes] | None:
        """Return the next message's frames, or None if there is none now."""
        try:
            frame = self.socket.recv(zmq.NOBLOCK)
        except zmq.Again:
            return None
        return self.rest([frame])

    def rest(self, frames: list[bytes]) -> list[bytes]:
        """Return `frames`, the beginning of a message, with the message's other frames."""
        socket = self.socket
        while socket.getsockopt(zmq.RCVMORE):
            frames.append(socket.recv(zmq.NOBLOCK))
        return frames


def _value_of(reply: GetReply) -> bytes | None:
    return reply.value if reply.status is Status.HIT else None


class Channel:
    """Carries out the effects of one call at a time. Not safe to share between threads."""

    def __init__(self, context: zmq.Context[Any], core: ClientCore, pool: Pool) -> None:
        self._context, self._core, self._pool = context, core, pool
        self.codec = core.new_codec()
        self._fast = FastPath(self.codec, sender=core.client_id, boot=core.boot)
        self.links: dict[str, Link] = {}
        self.owed: set[str] = set()
        "Addresses whose late answers are worth looking for."
        self._active: set[str] = set()

    def run(self, call: Call, now: Now) -> Any:
        """Start `call` and drive it to its end; return its result or raise its error."""
        self._collect(now)
        return self.drive(call, call.start(now), now)

    def drive(self, call: Call, effects: list[Effect], now: Now) -> Any:
        """Drive a call that was started to its end; return its result or raise its error."""
        self._perform(call, effects, now)
        while not call.done:
            self._wait(min(call.wake_at(), self._give_up_at()) - now.mono)
            now = read_clocks()
            self._receive(call, now)
            self._flush(call, now)
            if call.wake_at() <= now.mono:
                self._perform(call, call.tick(now), now)
        self._part(call, now)
        return call.outcome()

    def get(self, key: bytes, now: Now) -> bytes | None:
        """Return the value of `key`, None if it is absent. The ordinary get takes no detour.

        What follows is one round of the call's own machine, unrolled for the case that all is
        well: the topology is known, the primary is connected and answers in time with a hit or
        an authoritative miss. At the first surprise the machine takes over where this stands.
        """
        core, mono = self._core, now.mono
        view = core.view
        if view is None or mono >= core.due_at or self.owed:
            return self._read(key, now)
        slot = slot_of(key)
        address = view.primaries[slot] or view.primary(slot)
        if address is None or address in core.health.sick:
            return self._read(key, now)
        link = self.links.get(address)
        if link is None or not link.connected or link.queue:
            return self._read(key, now)
        request, epoch = core.next_request(), view.epoch
        at = core.time_ms(mono + core.timeout_ns)
        try:
            link.socket.send(self._fast.question(key, epoch, request, at), zmq.NOBLOCK)
        except zmq.Again:
            return self._read(key, now)
        zmq_poll(link.poll_list, core.hedging.wait_ms)
        frames: list[bytes] | None = None
        try:
            frame = link.socket.recv(zmq.NOBLOCK)
        except zmq.Again:
            pass
        else:
            answer = self._fast.answer(frame, request, epoch)
            if answer is not None:
                core.lost = False
                core.heard_at[address] = mono
                core.hedging.answered(time.monotonic_ns() - mono)
                if answer.stamp > core.seen:
                    core.saw(answer.stamp)
                return answer.value
            frames = link.rest([frame])
        return self._go_on(key, address, request, frames, now)

    def _read(self, key: bytes, now: Now) -> bytes | None:
        reply = self.run(self._core.begin(Get(key=key), now, codec=self.codec), now)
        return _value_of(reply)

    def _go_on(
        self, key: bytes, address: str, request: int, frames: list[bytes] | None, sent: Now
    ) -> bytes | None:
        """Hand a get that was sent, and what came back if anything did, to an ordinary call."""
        call = self._core.resume(Get(key=key), [(address, request, [key])], sent, self.codec)
        arrived = [] if frames is None else [(address, frames)]
        return _value_of(self._resume(call, [address], arrived))

    def get_many(self, keys: Iterable[bytes], now: Now) -> dict[bytes, bytes]:
        """Return the hits among `keys`; like `get`, unrolled for the case that all is well."""
        core = self._core
        view = core.view
        keys = list(dict.fromkeys(keys))
        if view is None or now.mono >= core.due_at or self.owed:
            return self._read_many(keys, now)
        groups = plain_groups(view, core.health.sick, keys)
        if groups is None or not all(map(self._ready, groups)):
            return self._read_many(keys, now)
        at = core.time_ms(now.mono + core.timeout_ns)
        asked: dict[str, tuple[int, list[bytes]]] = {}
        for address, group in groups.items():
            request = core.next_request()
            question = self._fast.question_many(group, view.epoch, request, at)
            if not self.links[address].send([question]):
                break  # The ordinary path finds another way for what was not sent.
            asked[address] = (request, group)
        found, settled, arrived = self._gather(asked, view.epoch, now.mono)
        if len(settled) == len(groups):
            return found
        rest = [key for one, group in groups.items() if one not in settled for key in group]
        under_way = [(one, *asked[one]) for one in asked if one not in settled]
        call = core.resume(GetMany(keys=tuple(rest)), under_way, now, self.codec)
        try:
            found.update(self._resume(call, [one for one, _, _ in under_way], arrived))
        except NodeUnavailable as error:
            if isinstance(error.partial, dict):
                error.partial.update(found)
            raise
        return found

    def _gather(
        self, asked: dict[str, tuple[int, list[bytes]]], epoch: int, sent_at: int
    ) -> tuple[dict[bytes, bytes], set[str], list[tuple[str, list[bytes]]]]:
        """Return the hits, who has answered plainly, and what is not so plain.

        Waits for one attempt's time, or until the first odd message.
        """
        found: dict[bytes, bytes] = {}
        settled: set[str] = set()
        arrived: list[tuple[str, list[bytes]]] = []
        wait_ms = self._core.attempt_ms
        while len(settled) < len(asked) and not arrived:
            waiting = [one for one in asked if one not in settled]
            if not zmq_poll([(self.links[one].socket, zmq.POLLIN) for one in waiting], wait_ms):
                break
            for address in waiting:
                link = self.links[address]
                try:
                    frame = link.socket.recv(zmq.NOBLOCK)
                except zmq.Again:
                    continue
                request, keys = asked[address]
                hits = self._fast.answer_many(frame, keys, request, epoch)
                if hits is None:
                    arrived.append((address, link.rest([frame])))
                else:
                    found.update(hits)
                    settled.add(address)
                    self._core.heard_at[address] = sent_at
            passed_ms = (time.monotonic_ns() - sent_at) // MILLISECOND
            wait_ms = max(0, self._core.attempt_ms - passed_ms)
        if settled:
            self._core.lost = False
        return found, settled, arrived

    def _ready(self, address: str) -> bool:
        link = self.links.get(address)
        return link is not None and link.connected and not link.queue

    def _read_many(self, keys: Iterable[bytes], now: Now) -> dict[bytes, bytes]:
        call = self._core.begin(GetMany(keys=tuple(keys)), now, codec=self.codec)
        found: dict[bytes, bytes] = self.run(call, now)
        return found

    def _resume(
        self, call: Call, addresses: Iterable[str], arrived: list[tuple[str, list[bytes]]]
    ) -> Any:
        """Drive a call that goes on where a hot path stands to its end."""
        now = read_clocks()
        self._active.update(addresses)
        effects = call.start(now)
        for address, frames in arrived:
            effects += call.receive(address, frames, now)
        return self.drive(call, effects, now)

    def close(self) -> None:
        """Close all sockets."""
        for link in self.links.values():
            link.socket.close(0)
        self.links.clear()

    def tidy(self, sockets_max: int) -> None:
        """Close sockets to addresses that are no member's any more, and those beyond a bound."""
        view = self._core.view
        known = {*view.by_address, *self._core.nodes} if view is not None else set(self.links)
        surplus = [address for address in self.links if address not in known]
        surplus += list(self.links)[: max(0, len(self.links) - sockets_max)]
        for address in surplus:
            link = self.links.pop(address, None)
            if link is not None:
                link.socket.close(0)
                self.owed.discard(address)

    def _link(self, address: str, now: int) -> Link:
        link = self.links.get(address)
        if link is None:
            link = self.links[address] = Link(self._open(address), now)
        return link

    def _open(self, address: str) -> zmq.Socket[bytes]:
        socket: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        for option, value in _OPTIONS:
            socket.setsockopt(option, value)
        # libzmq adds no jitter of its own: a thousand clients would come back in step.
        socket.setsockopt(zmq.RECONNECT_IVL, random.randrange(100, 300))
        if address.startswith("["):
            socket.setsockopt(zmq.IPV6, 1)
        socket.connect(f"tcp://{address}")
        return socket

    def _perform(self, call: Call, effects: list[Effect], now: Now) -> None:
        work = deque(effects)
        while work:
            effect = work.popleft()
            if isinstance(effect, Notify):
                self._pool.count(effect.event)
            elif isinstance(effect, Send):
                assert isinstance(effect.to, str)
                if not self._send(effect.to, effect.frames, now.mono):
                    work.extend(call.undeliverable(effect.to, now, effect.frames))

    def _send(self, address: str, frames: list[bytes], now: int) -> bool:
        link = self._link(address, now)
        if not link.queue and link.send(frames):
            self._active.add(address)
            return True
        if link.connected or now >= link.give_up_at:
            return False
        link.queue.append(frames)
        self._active.add(address)
        return True

    def _give_up_at(self) -> int:
        """Return when the first connection that is waited for has had its time."""
        return min(
            (self.links[one].give_up_at for one in self._active if self.links[one].queue),
            default=NEVER,
        )

    def _flush(self, call: Call, now: Now) -> None:
        """Send what waited for a connection that is there now; give up where none came."""
        for address in sorted(one for one in self._active if self.links[one].queue):
            link = self.links[address]
            while link.queue and link.send(link.queue[0]):
                link.queue.popleft()
            if link.queue and (link.connected or now.mono >= link.give_up_at):
                refused, link.queue = link.queue, deque()
                for frames in refused:
                    self._perform(call, call.undeliverable(address, now, frames), now)

    def _wait(self, ns: int) -> None:
        polled = [
            (link.socket, zmq.POLLIN | zmq.POLLOUT if link.queue else zmq.POLLIN)
            for link in [self.links[address] for address in sorted(self._active)]
        ]
        milliseconds = max(0, -(-ns // MILLISECOND))
        if polled:
            zmq_poll(polled, milliseconds)
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
        core = self._core
        late = dict.fromkeys(core.chore_addresses(), NEVER) | call.outstanding()
        for address in sorted(self._active):
            link = self.links[address]
            # A call leaves nothing behind, but a refresh may take its time to go out.
            link.queue = deque(frames for frames in link.queue if core.is_chore(frames))
            if address in late:
                link.owed_since = min(link.owed_since, late[address])
                link.owed_until = now.mono + OWED_NS
                self.owed.add(address)
        self._active.clear()

    def _collect(self, now: Now) -> None:
        """Take late answers, which are dropped and counted, but tell that their node lives."""
        core = self._core
        for address in sorted(self.owed):
            link = self.links[address]
            while link.queue and link.send(link.queue[0]):
                link.queue.popleft()
            while (frames := link.receive()) is not None:
                link.owed_since = NEVER
                for effect in core.receive(address, frames, now):
                    assert isinstance(effect, Notify)
                    self._pool.count(effect.event)
            if link.owed_since < NEVER and core.overdue(address, link.owed_since, now):
                link.owed_since = NEVER
            waited_for = (
                link.owed_since < NEVER
                or address in core.health.sick
                or address in core.chore_addresses()
            )
            if now.mono >= link.owed_until or not waited_for:
                self.owed.discard(address)
                link.owed_since = NEVER
                link.queue.clear()


class Pool:
    """Lends channels, last in first out, at most so many."""

    def __init__(self, core: ClientCore) -> None:
        self._core = core
        self.counts: dict[str, int] = {}
        "What happened how often: events by name."
        self._context: zmq.Context[Any] = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, 4096)
        self._pid = os.getpid()
        self._idle: list[Channel] = []
        self._changed = threading.Condition()
        self._made = 0
        self._waiting = 0
        self._closed = False

    def count(self, event: str) -> None:
        """Note that `event` happened; a race between threads may lose one, no more."""
        self.counts[event] = self.counts.get(event, 0) + 1

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
        """Take a channel back."""
        if self._made > 1 or len(channel.links) > 1:
            self._trim(channel)
        self._idle.append(channel)
        # A caller that waits has said so before it looked at the list for the last time.
        if self._waiting or self._closed:
            self._give_slowly()

    def discard(self, channel: Channel) -> None:
        """Close a channel that was interrupted: a half message may be on its sockets."""
        channel.close()
        with self._changed:
            self._made -= 1
            self._changed.notify()

    def close(self) -> None:
        """Close all sockets. Calls in other threads end with ClientClosed."""
        if os.getpid() != self._pid:
            return  # A forked child must not touch its parent's sockets.
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._close_idle()
        # Returns once borrowed channels are closed too, by callers whom it wakes with ETERM.
        self._context.term()

    def _take_slowly(self, deadline: int) -> Channel:
        with self._changed:
            self._waiting += 1
            try:
                while True:
                    if self._closed:
                        raise ClientClosed("the client is closed")
                    if self._idle:
                        return self._idle.pop()
                    if self._made < self._channels_max():
                        self._made += 1
                        return Channel(self._context, self._core, self)
                    left = (deadline - time.monotonic_ns()) / SECOND
                    if left <= 0 or not self._changed.wait(left):
                        raise OperationTimeout("too many calls at a time; none ended in time")
            finally:
                self._waiting -= 1

    def _give_slowly(self) -> None:
        if self._closed:
            self._close_idle()
        with self._changed:
            self._changed.notify()

    def _close_idle(self) -> None:
        while True:
            try:
                channel = self._idle.pop()
            except IndexError:
                return
            channel.close()

    def _trim(self, channel: Channel) -> None:
        view = self._core.view
        if view is not None and len(channel.links) > len(view.members):
            channel.tidy(SOCKETS_MAX)

    def _channels_max(self) -> int:
        view = self._core.view
        nodes = len(view.members) if view is not None else len(self._core.nodes)
        return max(2, min(CHANNELS_MAX, SOCKETS_MAX // max(1, nodes)))
