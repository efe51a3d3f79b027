"""What keeps a near cache true: two threads that listen to the nodes, and the reads that fill it.

One thread asks every node, every two seconds, to tell of changes; by the way it learns who is there
and what time it is. The other one reads what the nodes tell. Both have connections of their own, so
both clients, the blocking one and that of asyncio, use them in the same way. They begin with the
first read that finds no copy, and anew in a child process; until the nodes have been heard, and
whenever they are not, no copy is served.
"""

from __future__ import annotations

import errno
import threading
import time
import weakref
from collections.abc import Sequence
from os import getpid

import zmq
from xxhash import xxh3_64_intdigest

from dcc import descriptors, green
from dcc.client.channel import Channel
from dcc.client.events import Events
from dcc.client.lending import Lender
from dcc.client.link import FILES_TO_START, NOBLOCK, read_clocks
from dcc.client.near import Near, NearCache, Read
from dcc.client.operations import Operations
from dcc.client.routing import View
from dcc.client.shared import Shared
from dcc.errors import DccError, PeerError
from dcc.guard import Guard
from dcc.resolve import Resolver
from dcc.types import CLIENTS, Now, Stamp, topic_of
from dcc.units import KIB
from dcc.wire.messages import Changes, GetReply, Status, Watch

ASK_SECONDS = 2.0
"A fifth of the time for which a node remembers that somebody listens."
POLL_MS = 50
"How often the listener looks whether the client was closed, or others are there."
_OPTIONS: tuple[tuple[int, int], ...] = (
    (zmq.LINGER, 0),
    (zmq.RCVHWM, 1_000),  # Beyond it the node drops, which is a gap.
    (zmq.MAXMSGSIZE, 16 * KIB),
    (zmq.TCP_KEEPALIVE, 1),
    (zmq.TCP_KEEPALIVE_IDLE, 1),
    (zmq.TCP_KEEPALIVE_INTVL, 1),
    (zmq.TCP_KEEPALIVE_CNT, 3),
    (zmq.RECONNECT_IVL, 200),
    (zmq.RECONNECT_IVL_MAX, 5_000),
)


class NearReads:
    """The near cache of one client with all that it needs; safe to share between threads."""

    def __init__(
        self, options: NearCache, addresses: tuple[str, ...], cluster: str, timeout_ns: int
    ) -> None:
        self.near: Near = Near(options, Guard())
        self.find = self.near.find
        self._nodes = addresses, cluster, timeout_ns
        self._listener: Listener | None = None
        self._process = 0
        self._closed = False

    def follow(self, core: Shared) -> None:
        """Drop each copy that is older than what the client of `core` writes or reads.

        And all of them when it routes by another epoch.
        """
        core.outlived.on_newer = self._outlived
        core.on_view = self._routed

    def begin(self) -> Read:
        """Return what is known as a read of a node begins; see that somebody listens."""
        if self._process != getpid() and not self._closed:
            self._process = getpid()
            self._listener = Listener(self.near, Lender(*self._nodes, Events()))
            weakref.finalize(self, Listener.stop, self._listener).atexit = False
        return self.near.begin()

    def fill(self, key: str, reply: GetReply, address: str, core: Shared, read: Read) -> None:
        """Keep what a read has brought from the node at `address`."""
        node = core.view.by_address.get(address) if core.view is not None else None
        if reply.status is not Status.HIT or node is None:
            return
        now = read_clocks()
        left_ms = reply.expires_at_ms - core.cluster_ms(now) if reply.expires_at_ms else None
        name = xxh3_64_intdigest(key.encode())
        stamp = reply.version.stamp
        self.near.fill(key, name, reply.value, stamp, left_ms, node.key, read, now.mono)

    def find_many(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Return the values of those of `keys` of which a copy may be served now."""
        mono = time.monotonic_ns()
        found = {key: self.find(key, mono) for key in keys}
        return {key: value for key, value in found.items() if value is not None}

    def close(self) -> None:
        """Serve nothing any more, and let the threads end."""
        self._closed = True
        if self._listener is not None and self._process == getpid():
            self._listener.stop()
        self.near.drop_all()

    def _routed(self, view: View) -> None:
        self.near.route(view.epoch)

    def _outlived(self, key: bytes, stamp: Stamp) -> None:
        if key:
            self.near.forget(xxh3_64_intdigest(key), stamp)
        else:
            self.near.drop_all()


class Listener:
    """The two threads. Daemons: they end with the process, or soon after `stop`."""

    def __init__(self, near: Near, lender: Lender) -> None:
        self._near, self._lender = near, lender
        self._stopped = threading.Event()
        self._resolver = Resolver()
        self._view: View | None = None
        self._publishers: set[str] = set()
        for work in (self._ask, self._listen):
            threading.Thread(target=work, name=f"dcc near {work.__name__[1:]}", daemon=True).start()

    def stop(self) -> None:
        """Let the threads end."""
        self._stopped.set()
        self._lender.close()

    def _ask(self) -> None:
        while not self._stopped.is_set():
            try:
                self._lender.borrow("other", _watched, None)
            except DccError:
                pass  # What is not told is not served.
            self._stopped.wait(ASK_SECONDS)

    def _listen(self) -> None:
        while not self._stopped.is_set():
            try:
                self._hear_all()
            except zmq.ZMQError:  # Without a descriptor: later, perhaps.
                self._stopped.wait(ASK_SECONDS)

    def _hear_all(self) -> None:
        if not descriptors.are_left(FILES_TO_START):
            raise zmq.ZMQError(errno.EMFILE)
        core = self._lender.pool().core
        codec, poll = core.new_codec(), green.poller()
        with zmq.Context() as context, context.socket(zmq.SUB) as sub:
            for option, value in _OPTIONS:
                sub.setsockopt(option, value)
            sub.setsockopt(zmq.SUBSCRIBE, topic_of(CLIENTS))
            self._publishers = set()
            while not self._stopped.is_set():
                self._follow(core.view, sub)
                if not poll([(sub, zmq.POLLIN)], POLL_MS):
                    continue
                frames = sub.recv_multipart(NOBLOCK)
                try:
                    header, message = codec.decode(frames[1:])
                except PeerError:
                    continue
                if isinstance(message, Changes) and header.at:
                    now = read_clocks()
                    self._near.hear(header, message, now.mono, core.cluster_ms(now))

    def _follow(self, view: View | None, sub: zmq.Socket[bytes]) -> None:
        """Listen to the members that there are; drop all copies when they have changed."""
        if view is None:
            return
        if view is not self._view:
            known, self._view = self._view, view
            if known is not None and (known.epoch, known.alive) != (view.epoch, view.alive):
                self._near.drop_all()
        wanted: set[str] = set()
        for member in view.members.values():
            try:
                self._resolver.look_up(member.gossip)
                wanted.update(self._resolver.addresses(member.gossip))
            except ValueError:
                continue
        for publisher in sorted(wanted - self._publishers):
            sub.setsockopt(zmq.IPV6, int(publisher.startswith("[")))
            sub.connect(f"tcp://{publisher}")
        for publisher in sorted(self._publishers - wanted):
            sub.disconnect(f"tcp://{publisher}")
        self._publishers = wanted


def _watched(channel: Channel, _what: None, now: Now) -> None:
    channel.run(channel.core.begin(Watch(), now, codec=channel.codec), now)


def near_reads(
    options: NearCache | None, operations: Operations, *, keyed: bool
) -> NearReads | None:
    """Return what keeps copies for a client, None if it wants none.

    Raises TypeError for other options, ValueError where nodes would tell it nothing.
    """
    if options is None:
        return None
    if not isinstance(options, NearCache):
        raise TypeError(f"near_cache: NearCache or None, got {type(options).__name__}")
    if keyed:
        raise ValueError("near_cache: nodes with keys tell clients nothing; leave out one of both")
    return NearReads(options, operations.addresses, operations.cluster, operations.timeout_ns)
