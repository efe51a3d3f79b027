"""Why connections do not come about: what libzmq's monitor says of handshakes that failed.

libzmq tells nobody else. After some failures it does not even try again: whoever was refused, or
met a peer of the other kind (with keys, without), must connect anew by itself.
"""

from __future__ import annotations

import errno
import itertools
import socket as net
import struct
from enum import Enum
from typing import NamedTuple

import zmq

NOBLOCK = int(zmq.NOBLOCK)
EVENTS = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)
_EVENT = struct.Struct("=HI")
_NUMBERS = itertools.count()
_GREETING = b"\xff" + bytes(8) + b"\x7f\3"
"The beginning of ZMTP's greeting: signature, and the version up to which nothing else is said."
_MECHANISM = slice(12, 32)
"Its place in the greeting."
_GREETING_BYTES = 64


class Why(Enum):
    """Why a handshake failed, as far as this side can tell."""

    REFUSED = "refused"
    "The other side knows this one's key, and does not want it; or this side refused the other's."
    MIXED = "mixed"
    "One side uses keys, the other one none."
    GARBLED = "garbled"
    "On the accepting side: it was not encrypted for this server's key."
    CLOSED = "closed"
    "The other side ended the connection: perhaps for a wrong key of the server, or as it is MIXED."
    SILENT = "silent"
    "Too slow, or anything else."


class Failure(NamedTuple):
    """One handshake that failed."""

    why: Why
    address: str
    "HOST:PORT connected to or, on the accepting side, of this side."


class Watch:
    """Hears of the failed handshakes of one socket. Of the thread that owns the socket."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        """Begin to listen; before the socket connects or binds. ZMQError without descriptors."""
        place = f"inproc://dcc-handshakes-{next(_NUMBERS)}"
        self.socket: zmq.Socket[bytes] = socket.context.socket(zmq.PAIR, type(socket))
        try:
            # libzmq's I/O thread would wait for a reader of a full queue.
            self.socket.setsockopt(zmq.RCVHWM, 0)
            self.socket.setsockopt(zmq.LINGER, 0)
            socket.monitor(place, int(EVENTS))
            self.socket.connect(place)
        except BaseException:
            self.socket.close(0)
            raise

    def failures(self) -> list[Failure]:
        """Return what has failed since the last call."""
        found = []
        try:
            while True:
                event, address = self.socket.recv_multipart(NOBLOCK)
                number, value = _EVENT.unpack(event)
                found.append(Failure(_why(number, value), address.decode().removeprefix("tcp://")))
        except zmq.Again:
            return found

    def close(self) -> None:
        """Listen no more."""
        self.socket.close(0)


class Probe:
    """Asks one address whether it uses keys. Never waits: `mechanism` is to be called again.

    Of two libzmq sockets with different mechanisms, the first to notice closes the connection, and
    the other one may never learn why. So this one sends its mechanism only once it has the other
    side's: then both know.
    """

    def __init__(self, address: str, own: str) -> None:
        """Begin to connect to a numeric HOST:PORT. OSError without a descriptor.

        `own` is the mechanism to tell the other side, if it is not the same.
        """
        self._own = own
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        self._socket = net.socket(net.AF_INET6 if ":" in host else net.AF_INET)
        self._socket.setblocking(False)
        self._socket.connect_ex((host, int(port)))
        self._asked = False
        self._got = b""

    def mechanism(self) -> str | None:
        """Return "NULL" or "CURVE"; None while it is not known, or if it never will be."""
        try:
            if not self._asked:
                self._socket.send(_GREETING)
                self._asked = True
            self._got += self._socket.recv(_GREETING_BYTES - len(self._got))
            if len(self._got) < _GREETING_BYTES:
                return None
            found = self._got[_MECHANISM].rstrip(b"\0").decode("ascii", "replace")
            if found != self._own:
                rest = b"\0" + self._own.encode().ljust(20, b"\0")
                self._socket.send(rest.ljust(_GREETING_BYTES - len(_GREETING), b"\0"))
        except OSError:  # Not yet, or never.
            return None
        return found

    def close(self) -> None:
        """Give the descriptor back. Idempotent."""
        self._socket.close()


class Handshake:
    """Why one DEALER does not connect, as far as keys are in the way. Of its own thread.

    `hear` is to be called while there is no connection.
    """

    __slots__ = ("_closed", "_keyed", "_mechanism", "_probe", "_socket", "_watch", "why")

    def __init__(self, socket: zmq.Socket[bytes], *, keyed: bool) -> None:
        """Begin to listen; before the socket connects. ZMQError without descriptors."""
        self._socket, self._keyed = socket, keyed
        self._watch: Watch | None = Watch(socket)
        self._probe: Probe | None = None
        self._closed = 0
        self._mechanism = ""
        "What the other side says that it uses, once it was asked."
        self.why: Why | None = None
        "Why the last handshake failed; None after one that did not."

    def hear(self) -> None:
        """Learn why handshakes have failed."""
        for failure in self._watch.failures() if self._watch is not None else ():
            if failure.why is Why.CLOSED:
                self.why = self.why or Why.CLOSED
                self._closed += 1
            else:
                self.why = failure.why
            if failure.why in (Why.CLOSED, Why.MIXED) and self._probe is None:
                self._probe = Probe(failure.address, "CURVE" if self._keyed else "NULL")
        if self._probe is not None and not self._mechanism:
            self._mechanism = self._probe.mechanism() or ""
            if self._mechanism:
                self._probe.close()
        if self._mechanism and (self._mechanism == "CURVE") is not self._keyed:
            self.why = Why.MIXED

    @property
    def is_over(self) -> bool:
        """Whether libzmq does not try again by itself, or would with a key that is wrong."""
        return self.why in (Why.REFUSED, Why.MIXED) or (self.why is Why.CLOSED and self._keyed)

    def barred(self) -> str:
        """Return what keys have to do with it, as the end of a sentence about the other side."""
        if self.why is Why.REFUSED:
            return "it refuses this key"
        if self.why is Why.MIXED and self._keyed:
            return "it uses no keys, and this side does"
        if self.why is Why.MIXED:
            return "it lets in only whoever has a key, and none is used here (the option `keys`)"
        if self.why is Why.CLOSED and self._mechanism == "CURVE" and self._closed > 1:
            return "it serves with another key than those that are trusted here"
        return ""

    def has_connected(self) -> None:
        """Forget what has failed. Without keys there is nothing more to hear."""
        self.why, self._closed, self._mechanism = None, 0, ""
        if not self._keyed:
            self._socket.disable_monitor()
            self.close()

    def close(self) -> None:
        """Give what was opened back. Idempotent."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        if self._probe is not None:
            self._probe.close()
            self._probe = None


def _why(event: int, value: int) -> Why:
    if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
        return Why.REFUSED
    if event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
        mixed = value == zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH
        return Why.MIXED if mixed else Why.GARBLED
    return Why.CLOSED if value in (errno.EPIPE, errno.ECONNRESET) else Why.SILENT
