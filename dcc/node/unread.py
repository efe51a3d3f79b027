"""Replies that clients have not taken yet, in bytes.

libzmq queues what a client does not read, and bounds that in messages, not in bytes: a thousand
replies of 16 MiB. It tells when it has let go of a frame that it was lent (a tracker), which is
when the kernel has it or the connection is gone. So large replies are lent and tracked. Small ones
are copied, which is cheaper; of these the one that brings a client's sum to `MARK_BYTES` is
tracked, and since replies go out in order, it stands for all before it. The short path's replies of
single small values are not counted; their number is what bounds them, to 4 MiB a client.

A client that has a quarter of the budget unread gets no more large replies, but refusals, and so
does everybody while the whole of it is unread. A reply to a client that has nothing unread may be
larger than its share, so that every value can be read.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Protocol

from dcc.units import KIB, MIB

LARGE_BYTES = 4 * KIB
"Smaller replies are never refused: a refusal is no smaller."
MARK_BYTES = 64 * KIB
CLIENT_SHARE = 4
"One client may have one part in this many of the budget unread."
CLIENTS_MAX = 65_536
"Clients whose copied replies are summed up; libzmq tells nobody when one has gone."


class Tracker(Protocol):
    """What libzmq's binding returns for a frame that was lent."""

    @property
    def done(self) -> bool: ...


@dataclass(slots=True)
class _Client:
    bytes: int = 0
    "Tracked and not done."
    copied: int = 0
    "Copied since the last one that was tracked."
    sent: deque[tuple[Tracker, int]] | None = None
    "None while nothing is tracked: an empty deque has 600 bytes, and most clients have gone."


class Unread:
    """The books of one ROUTER's replies."""

    def __init__(self, bytes_max: int = 32 * MIB) -> None:
        self.bytes_max = bytes_max
        self.bytes_used: int = 0
        self._clients: dict[bytes, _Client] = {}

    def admits(self, route: bytes, size: int) -> bool:
        """Return whether a reply of `size` bytes may be queued for the client at `route`."""
        if size < LARGE_BYTES or not self.bytes_used:
            return True
        client = self._clients.get(route)
        if client is not None and client.bytes:
            self._settle(client)
            if client.bytes and client.bytes + size > self.bytes_max // CLIENT_SHARE:
                return False
        if self.bytes_used + size > self.bytes_max:
            self.look()
        return not self.bytes_used or self.bytes_used + size <= self.bytes_max

    def tracks(self, route: bytes, size: int) -> bool:
        """Return whether the next reply, of `size` bytes, is to be tracked."""
        client = self._clients.get(route)
        return size + (client.copied if client else 0) >= MARK_BYTES

    def sent(self, route: bytes, size: int, tracker: Tracker | None) -> None:
        """Note a reply that libzmq has taken; `tracker` if it was to be tracked."""
        client = self._clients.get(route)
        if client is None:
            if len(self._clients) >= CLIENTS_MAX:
                self._drop_settled()
            client = self._clients[route] = _Client()
        if tracker is None:
            client.copied += size
            return
        size += client.copied
        client.copied = 0
        client.bytes += size
        self.bytes_used += size
        if client.sent is None:
            client.sent = deque()
        client.sent.append((tracker, size))

    def look(self) -> int:
        """Take out what has gone since, and return what is left. O(clients with unread replies)."""
        for client in self._clients.values():
            if client.bytes:
                self._settle(client)
        return self.bytes_used

    def _settle(self, client: _Client) -> None:
        while client.sent and client.sent[0][0].done:
            size = client.sent.popleft()[1]
            client.bytes -= size
            self.bytes_used -= size
        client.sent = client.sent or None

    def _drop_settled(self) -> None:
        self.look()
        self._clients = {route: one for route, one in self._clients.items() if one.bytes}
