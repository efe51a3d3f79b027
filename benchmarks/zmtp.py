"""A DEALER on a plain TCP socket: ZMTP 3.0, NULL mechanism, one frame a message out.

For load generators. libzmq hands every message to a thread of its own and back, which on a small
machine costs more processor than what is to be measured; here a request is one `send` and a reply
one `recv` of the calling thread. Source: https://rfc.zeromq.org/spec/23/.
"""

from __future__ import annotations

import socket
import struct

MORE, LONG, COMMAND = 1, 2, 4
GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
READY = b"\x05READY" + b"\x0bSocket-Type" + struct.pack(">I", 6) + b"DEALER"
CHUNK = 1 << 18


class Dealer:
    """A connection to one ROUTER; `fileno` is readable when a reply may be there."""

    def __init__(self, address: str, timeout: float = 5.0) -> None:
        """Connect and shake hands; OSError if nobody is there or it speaks something else."""
        host, port = address.rsplit(":", 1)
        self._socket = socket.create_connection((host, int(port)), timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._got = bytearray()
        self._frames: list[bytes] = []
        self._socket.sendall(GREETING + self._frame(READY, COMMAND))
        while len(self._got) < len(GREETING):
            self._receive()
        if self._got[:1] != GREETING[:1] or self._got[12:16] != b"NULL":
            raise OSError(f"{address} does not speak ZMTP 3 with the NULL mechanism")
        del self._got[: len(GREETING)]
        self._socket.settimeout(None)  # With a time-out Python would wait whatever the flags say.

    def fileno(self) -> int:
        """Return the file descriptor, for `select`."""
        return self._socket.fileno()

    def send(self, frame: bytes) -> None:
        """Send a message of one frame; waits if the other side does not read."""
        self._socket.sendall(self._frame(frame, 0))

    def messages(self, *, wait: bool) -> list[list[bytes]]:
        """Return the messages that have arrived, each as its frames; `wait` for one at least."""
        found: list[list[bytes]] = []
        while True:
            found += self._parse()
            if found and wait:
                return found
            try:
                self._receive(0 if wait else socket.MSG_DONTWAIT)
            except BlockingIOError:
                return found

    def close(self) -> None:
        """Close the connection. Idempotent."""
        self._socket.close()

    def _receive(self, flags: int = 0) -> None:
        chunk = self._socket.recv(CHUNK, flags)
        if not chunk:
            raise ConnectionResetError("the node closed the connection")
        self._got += chunk

    def _parse(self) -> list[list[bytes]]:
        found, at = [], 0
        while (frame := self._next(at)) is not None:
            flags, begin, at = frame
            body = bytes(self._got[begin:at])
            if flags & COMMAND:
                if body.startswith(b"\x04PING"):
                    self._socket.sendall(self._frame(b"\x04PONG" + body[7:], COMMAND))
                continue
            self._frames.append(body)
            if not flags & MORE:
                found.append(self._frames)
                self._frames = []
        del self._got[:at]
        return found

    def _next(self, at: int) -> tuple[int, int, int] | None:
        """Return flags, begin and end of the frame at `at`; None if it is not there whole."""
        got = self._got
        head = 9 if len(got) > at and got[at] & LONG else 2
        if len(got) < at + head:
            return None
        size = int.from_bytes(got[at + 1 : at + head], "big")
        end = at + head + size
        return (got[at], at + head, end) if len(got) >= end else None

    @staticmethod
    def _frame(body: bytes, flags: int) -> bytes:
        if len(body) < 256:
            return bytes((flags, len(body))) + body
        return bytes((flags | LONG,)) + len(body).to_bytes(8, "big") + body
