"""How long frames are on the wire: links with a bandwidth, which their connections share.

A frame occupies its connection for its size divided by the rate of the link, and what is sent
behind it on the same connection waits. Connections between the same two processes share the link
in equal parts, as TCP's do about; a short message on another connection passes a long one.
"""

from __future__ import annotations

from collections.abc import Hashable

from dcc.units import SECOND

FRAMES_BYTES = 64
"What TCP, IP and ZMTP add to a message, roughly."


class Wires:
    """The bandwidth of every link, and until when each connection occupies its own."""

    def __init__(self, bytes_per_second: int = 0) -> None:
        self.bytes_per_second = bytes_per_second
        "Of every link in each direction; 0 = unbounded."
        self.narrow_out: dict[str, int] = {}
        self.narrow_in: dict[str, int] = {}
        "Process name → bytes per second that it sends or reads at most, by faults."
        self.sent_bytes: dict[tuple[str, str], int] = {}
        "By sender and receiver: all that was handed to the wire."
        self._busy: dict[tuple[str, str], dict[Hashable, int]] = {}

    def mend_all(self) -> None:
        """Take back what faults have narrowed."""
        self.narrow_out.clear()
        self.narrow_in.clear()

    def rate(self, sender: str, receiver: str) -> int:
        """Return bytes per second from one process to another; 0 = unbounded."""
        rates = (
            self.bytes_per_second, self.narrow_out.get(sender, 0), self.narrow_in.get(receiver, 0)
        )  # fmt: skip
        return min((rate for rate in rates if rate), default=0)

    def occupy(
        self, sender: str, receiver: str, connection: Hashable, size: int, now: int
    ) -> tuple[int, int]:
        """Return when a message of `size` bytes begins to leave, and when all of it has arrived."""
        link = (sender, receiver)
        self.sent_bytes[link] = self.sent_bytes.get(link, 0) + size
        rate = self.rate(sender, receiver)
        if not rate:
            return now, now
        busy = self._busy.setdefault(link, {})
        for other in [one for one, until in busy.items() if until <= now]:
            del busy[other]
        start = busy.pop(connection, now)
        shares = 1 + len(busy)
        end = busy[connection] = start + (size + FRAMES_BYTES) * shares * SECOND // rate
        return start, end
