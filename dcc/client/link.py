"""One DEALER to one node address, with what waits for its connection.

With IMMEDIATE a DEALER without a connection refuses messages instead of keeping them for a node
that may be gone: that is how a call knows that a message surely was not sent. A socket that was
just opened is given `CONNECT_NS` to connect; one that was connected and is not any more refuses at
once.

A node may refuse a client's key, or have another one than the client trusts. Then libzmq gives up,
and the link connects anew: keys change while all runs.
"""

from __future__ import annotations

import random
import time
from collections import deque

import zmq

from dcc.client.outcomes import Barred
from dcc.handshakes import Handshake
from dcc.keys import Keys, no_keys
from dcc.limits import VALUE_BYTES_MAX
from dcc.resolve import Dial, Resolver
from dcc.sending import send
from dcc.types import Now
from dcc.units import MILLISECOND, NEVER

NOBLOCK, NOBLOCK_MORE = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE)
"Plain ints: an enum member costs a conversion on every call."

CONNECT_NS = 200 * MILLISECOND

AGAIN_NS = 50 * MILLISECOND
"From a handshake that failed for the keys until the next one."

DRAIN_MAX = 64
"Messages taken from one socket before the others have their turn."

FILES_TO_START = 16
"Descriptors that libzmq's threads and a first socket take."

# One table, each with its reason.
_OPTIONS: tuple[tuple[int, int], ...] = (
    (zmq.LINGER, 0),  # closing never waits for a node that is gone
    (zmq.IMMEDIATE, 1),  # no connection: refuse, do not keep messages
    (zmq.SNDHWM, 1000),  # one call has few messages on their way; this only bounds memory
    (zmq.RCVHWM, 1000),
    (zmq.MAXMSGSIZE, VALUE_BYTES_MAX),  # a larger frame is nothing that dcc sends
    (zmq.TCP_KEEPALIVE, 1),  # the kernel's; libzmq's heartbeats can abort the process
    (zmq.TCP_KEEPALIVE_IDLE, 1),  # something is always on its way, to be acknowledged by TCP
    (zmq.TCP_KEEPALIVE_INTVL, 1),
    (zmq.TCP_KEEPALIVE_CNT, 3),
    (zmq.TCP_MAXRT, 3000),  # notice a silently cut connection in seconds, not hours
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
        "_again_at", "connected", "dial", "give_up_at", "handshake", "owed_since", "owed_until",
        "poll_list", "queue", "socket",
    )  # fmt: skip

    def __init__(
        self, socket: zmq.Socket[bytes], dial: Dial, handshake: Handshake, now: int
    ) -> None:
        self.socket: zmq.Socket[bytes] = socket
        self.dial: Dial = dial
        self.handshake: Handshake = handshake
        self._again_at = 0
        self.poll_list: list[tuple[zmq.Socket[bytes], int]] = [(socket, zmq.POLLIN)]
        "For the hot path, which waits for this socket only."
        self.connected: bool = False
        "A message was accepted once; from then on a refusal means that the connection is lost."
        self.give_up_at: int = now + CONNECT_NS
        self.owed_since: int = NEVER
        "When the question was sent whose answer is still to come; NEVER once that was judged."
        self.owed_until: int = 0
        "A late answer may come until then."
        self.queue: deque[list[bytes]] = deque()
        self.tend(now)

    def tend(self, now: int) -> None:
        """Without a connection: go on to another address of the name, which has its time, too."""
        self.handshake.hear()
        if self.handshake.is_over and now >= self._again_at:
            self._again_at = now + AGAIN_NS
            self.dial.again()
        if self.dial.tend(now):
            self.give_up_at = now + CONNECT_NS

    def close(self) -> None:
        """Close the socket; what is not sent is lost."""
        self.handshake.close()
        self.socket.close(0)

    def send(self, frames: list[bytes]) -> bool:
        """Return whether the message was taken; false: surely not sent."""
        socket = self.socket
        try:
            for frame in frames[:-1]:
                send(socket, frame, NOBLOCK_MORE)
            send(socket, frames[-1], NOBLOCK)
        except zmq.Again:
            return False
        if not self.connected:
            self.connected = True
            self.handshake.has_connected()
        return True

    def receive(self) -> list[bytes] | None:
        """Return the next message's frames, or None if there is none now."""
        try:
            frame = self.socket.recv(NOBLOCK)
        except zmq.Again:
            return None
        return self.rest([frame])

    def rest(self, frames: list[bytes]) -> list[bytes]:
        """Return `frames`, the beginning of a message, with the message's other frames."""
        socket = self.socket
        while socket.getsockopt(zmq.RCVMORE):
            frames.append(socket.recv(NOBLOCK))
        return frames


def open_link(
    socket: zmq.Socket[bytes],
    address: str,
    resolver: Resolver,
    rng: random.Random,
    now: int,
    keys: Keys = no_keys,
) -> Link:
    """Set a new DEALER's options and let it connect; it is closed if that fails.

    Raises ZMQError or ValueError: it is no address.
    """
    handshake = None
    try:
        for option, value in _OPTIONS:
            socket.setsockopt(option, value)
        # libzmq adds no jitter of its own: a thousand clients would come back in step.
        socket.setsockopt(zmq.RECONNECT_IVL, rng.randrange(100, 300))
        handshake = Handshake(socket, keyed=keys() is not None)
        return Link(socket, Dial(socket, address, resolver, keys), handshake, now)
    except BaseException:
        if handshake is not None:
            handshake.close()
        socket.close(0)
        raise


def why_not(link: Link | None, address: str, resolver: Resolver) -> str:
    """Return why nothing can be sent to `address` by its link, for the text of an error."""
    if link is None:
        return "no socket could be opened"
    if link.dial.named and not link.dial.at:
        return resolver.failure(address) or "its name is not known yet"
    barred = link.handshake.barred()
    return Barred(barred) if barred else "no connection"
