"""The connections that libzmq has accepted, as the kernel knows them.

libzmq neither lists its connections nor ends one. They are sockets of this process, so the kernel
is asked, by copies of their descriptors.
"""

from __future__ import annotations

import os
import socket as net
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

AT_ONCE = struct.pack("ii", 1, 0)
"Linger on, for no time: to close is to reset."
RECEIVED = struct.Struct("=128xQ")
"Where `tcp_info` has the bytes that were received, of Linux since 4.1."


class Inbound(NamedTuple):
    """One accepted connection."""

    fd: int
    port: int
    "Of this node."
    peer: str
    received: int
    "Bytes, since it was accepted."


def inbound(ports: tuple[int, ...]) -> Iterator[Inbound]:
    """Return the connections of this process that were accepted at these ports."""
    for name in os.listdir("/proc/self/fd"):
        connection = opened(int(name))
        if connection is None:
            continue
        with connection, suppress(OSError, ValueError):
            port = connection.getsockname()[1]
            if port in ports:
                host, far = connection.getpeername()[:2]
                info = connection.getsockopt(net.IPPROTO_TCP, net.TCP_INFO, RECEIVED.size)
                yield Inbound(int(name), port, f"{host}:{far}", *RECEIVED.unpack(info))


def opened(fd: int) -> net.socket | None:
    """Return a copy of the TCP socket behind a descriptor of libzmq's; None if it is none."""
    try:
        copy = os.dup(fd)
    except OSError:  # It has been closed meanwhile.
        return None
    try:
        connection = net.socket(fileno=copy)
    except OSError:
        os.close(copy)
        return None
    if connection.family in (net.AF_INET, net.AF_INET6):
        return connection
    connection.close()
    return None


def hang_up(fd: int, ports: frozenset[int], *, reset: bool = False) -> None:
    """End the connection to one of `ports` behind a descriptor of libzmq's, which has no call for
    that.

    libzmq finds it ended, and closes it. Should it have been closed already and opened anew for
    another peer that connected here, an innocent connection is lost, and comes back.

    `reset`: what is on its way is lost, and the peer learns at once, though its window is full.
    """
    connection = opened(fd)
    if connection is None:
        return
    with connection, suppress(OSError):
        if connection.getsockname()[1] in ports:
            if reset:
                connection.setsockopt(net.SOL_SOCKET, net.SO_LINGER, AT_ONCE)
            connection.shutdown(net.SHUT_RDWR)
