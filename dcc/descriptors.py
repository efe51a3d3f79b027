"""File descriptors of this process: how many are left, and a few in reserve.

libzmq ends the whole process if its first socket finds no descriptor for its threads, and its
accepting side spins when there is none for a new connection. So whoever opens sockets asks here
first, and whoever listens stops before the last descriptor is gone.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import socket as net
import struct
import sys

SPARE = 8
"With fewer left no connection is accepted any more."
RESERVE = 16
"Held for nothing, and let go then: for members that come back, a probe, a scrape."
BACKLOG = 1_024
"A join storm or a client restart connects hundreds at once."
QUEUED_MAX = 4_096
"Connections turned away at once; more than any backlog."
OUT = (errno.EMFILE, errno.ENFILE)
SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27
"Linux's numbers, which Python's `socket` has no names for."
UNLIMITED = 1 << 20


def limit() -> int:
    """Return how many descriptors this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return UNLIMITED if soft == resource.RLIM_INFINITY else soft


def backlog() -> int:
    """Return how many connections may wait to be accepted.

    Where descriptors are few, no more than the reserve has room for: libzmq spins for as long as
    one waits that it has no descriptor for.
    """
    return BACKLOG if limit() > 8 * BACKLOG else RESERVE - 1  # The system lets one more wait.


def raise_limit() -> int:
    """Raise this process's soft limit of descriptors to the hard one; return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and soft < hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError):  # Some systems cap it below what they report.
            pass
    return limit()


def are_left(count: int) -> bool:
    """Return whether `count` more descriptors can be had now. Takes them for a moment."""
    taken: list[int] = []
    try:
        for _ in range(count):
            taken.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return False
    finally:
        for fd in taken:
            os.close(fd)
    return True


class Reserve:
    """Descriptors that are held for nothing, until there are no others."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._held: list[int] = []
        self.refill()

    def refill(self) -> bool:
        """Hold the whole reserve again; return whether there was enough for it."""
        try:
            while len(self._held) < self._count:
                self._held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            return False
        return True

    def release_one(self) -> bool:
        """Let go of one; return whether there was one."""
        if self._held:
            os.close(self._held.pop())
            return True
        return False

    def release(self) -> None:
        """Let go of the reserve, for what must be opened now. Idempotent."""
        while self._held:
            os.close(self._held.pop())


class Listeners:
    """The listening sockets of a node, which stop listening while descriptors are short.

    libzmq accepts from them. If it cannot, it finds out again and again, with a whole processor;
    and if it is told to stop, it closes all connections that were ever accepted. So it is left
    alone, and the system is told to ignore whoever connects (where it can be: on Linux). Who is in
    the queue already is turned away.
    """

    def __init__(self) -> None:
        self._sockets: list[net.socket] = []
        self._reserve = Reserve(RESERVE)
        self.deaf: bool = False
        "Whether nobody new is listened to."

    def add(self, listeners: list[net.socket]) -> None:
        """Look after these, too."""
        self._sockets += listeners

    def look(self) -> bool:
        """Stop listening, or begin again, as it is time to; return whether it just stopped."""
        if self.deaf:
            if are_left(RESERVE + 2 * SPARE) and self._reserve.refill():
                self.deaf = False
                self._ignore(False)
            return False
        if are_left(SPARE):
            return False
        self.deaf = True
        self._ignore(True)
        for listener in self._sockets:
            self._turn_away(listener)
        self._reserve.release()
        return True

    def close(self) -> None:
        """Give everything back. Idempotent."""
        while self._sockets:
            self._sockets.pop().close()
        self._reserve.release()

    def _ignore(self, ignored: bool) -> None:
        for listener in self._sockets:
            if sys.platform == "linux":
                if ignored:
                    listener.setsockopt(net.SOL_SOCKET, SO_ATTACH_FILTER, _nothing_passes())
                else:
                    listener.setsockopt(net.SOL_SOCKET, SO_DETACH_FILTER, 0)

    def _turn_away(self, listener: net.socket) -> None:
        """Accept and close what is queued, which takes one descriptor at a time."""
        for _ in range(QUEUED_MAX):
            try:
                listener.accept()[0].close()
            except OSError as error:
                if error.errno in OUT and self._reserve.release_one():
                    continue
                return


def _nothing_passes() -> bytes:
    """Return a socket filter of one instruction: no byte of any packet is let through."""
    return struct.pack("HL", 1, ctypes.addressof(_RETURN_0))


_RETURN_0 = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
"""`ret 0` of the kernel's socket filters."""
