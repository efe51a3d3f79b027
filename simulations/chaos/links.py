"""What is done to the packets of some places: run in the router, it delays, loses and narrows.

    python -m simulations.chaos.links        one JSON object a line on standard input

Packets of a place with a bad link are routed into a tun device, which this program reads: it holds
each packet for as long as the links of both its ends say, or drops it, and writes it back; from
there it goes its ordinary way. Others' packets never come here. A line has the bad links, all of
them: `{"10.77.1.1": {"delay_s": 0.1, "loss": 0.05, "bytes_per_s": 0}}`.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import socket
import struct
import sys
import time
from dataclasses import dataclass
from heapq import heappop, heappush
from random import Random
from typing import Any

DEVICE = "bad"
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
PACKET_BYTES_MAX = 65_536
QUEUE_SECONDS = 1.0
"A narrow link drops what would wait for longer."
HELD_MAX = 20_000


@dataclass
class Link:
    """One place's link, the same both ways."""

    delay_s: float = 0.0
    loss: float = 0.0
    "Share of the packets."
    bytes_per_s: int = 0
    "0 = as many as there are."
    free_at: float = 0.0

    def takes(self, size: int, now: float, rng: Random) -> float:
        """Return for how long a packet is held, in seconds; below 0 = it is lost."""
        if self.loss and rng.random() < self.loss:
            return -1.0
        if not self.bytes_per_s:
            return self.delay_s
        if self.free_at > now + QUEUE_SECONDS:
            return -1.0
        self.free_at = max(self.free_at, now) + size / self.bytes_per_s
        return self.free_at - now + self.delay_s


class Router:
    """Holds packets, and lets them go when they are due."""

    def __init__(self, tun: int, seed: int) -> None:
        self._tun, self._rng = tun, Random(seed)
        self._links: dict[bytes, Link] = {}
        self._held: list[tuple[float, int, bytes]] = []
        self._count = 0

    def set(self, links: dict[str, dict[str, Any]]) -> None:
        """From now on these links are bad, and no other."""
        self._links = {socket.inet_aton(name): Link(**link) for name, link in links.items()}

    def take(self, packet: bytes) -> None:
        """Hold a packet, or drop it."""
        now, held_s = time.monotonic(), 0.0
        for end in (packet[12:16], packet[16:20]):
            link = self._links.get(end)
            if link is not None:
                takes_s = link.takes(len(packet), now, self._rng)
                if takes_s < 0:
                    return
                held_s += takes_s
        if len(self._held) < HELD_MAX:
            self._count += 1
            heappush(self._held, (now + held_s, self._count, packet))

    def release(self) -> float | None:
        """Let go what is due; return the seconds until the next is, None for never."""
        now = time.monotonic()
        while self._held and self._held[0][0] <= now:
            try:
                os.write(self._tun, heappop(self._held)[2])
            except OSError:
                pass  # Its way is blocked: it is lost.
        return self._held[0][0] - now if self._held else None


def open_tun() -> int:
    """Return a new tun device."""
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), IFF_TUN | IFF_NO_PI))
    return tun


def main() -> None:
    """Route until standard input ends."""
    tun = open_tun()
    router = Router(tun, seed=1)
    print("here", flush=True)
    unread = b""
    while True:
        ready, _, _ = select.select([tun, 0], [], [], router.release())
        if tun in ready:
            try:
                for _ in range(64):
                    router.take(os.read(tun, PACKET_BYTES_MAX))
            except BlockingIOError:
                pass
        if 0 in ready:
            got = os.read(0, 65_536)
            if not got:
                sys.exit(0)
            *lines, unread = (unread + got).split(b"\n")
            for line in lines:
                router.set(json.loads(line))


if __name__ == "__main__":
    main()
