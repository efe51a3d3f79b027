"""Ends connections on which a message does not end, or that subscribe without end.

libzmq keeps a message until its last frame has come, and bounds neither their number nor their
bytes; of a subscriber it keeps every topic. It tells nobody of either, and has no call to end a
connection. So a thread looks at the process from outside: while it grows by more than 16 MiB in ten
seconds, and only then, the kernel is asked how many bytes have come in on each connection, and
libzmq by which connection each message came that the node was given. Then

- a connection on which more bytes came than one message may have, and none that ended, is ended;
- likewise one on which many small frames make the process grow by much more than came in at all;
- a subscriber is ended once it has sent more than a member's two topics take, whatever the process
  does.

What grows more slowly than that is not noticed.

What a flood took is freed by libzmq, but the C library keeps it; so that is asked to give it back.

An honest sender is hit if the node stands still for a moment while it has more on its way than one
message may have: its connection comes back by itself. Linux only; elsewhere nothing is looked at.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import zmq

from dcc.node.connections import Inbound, hang_up, inbound
from dcc.node.zap import Refusals
from dcc.units import KIB, MIB

LOOK_S = 0.05
RISE_BYTES = 16 * MIB
"Growth within `RISE_LOOKS` from which connections are looked at."
RISE_LOOKS = 200
QUIET_LOOKS = 40
"Without such growth connections are looked at no longer."
MESSAGE_BYTES_MAX = 32 * MIB
"What one message may have in all its frames: twice the largest value."
UNHEARD_LOOKS = 4
"Looks in a row at which nothing was heard of a connection: a node that is busy takes a turn."
AMPLIFIED = 8
"More than the smallest records make the process grow by; empty frames make it some 15 times."
AMPLIFIED_BYTES = 64 * MIB
SMALL_FRAMES_BYTES_MIN = 256 * KIB
"Of a connection that is ended because of many small frames."
SUBSCRIBERS_LOOKS = 20
"Subscribers are looked at once in so many looks whatever the process does: topics may come slowly."
SUBSCRIBED_BYTES_MAX = 4 * KIB
"A member sends a handshake and two topics: with keys some 600 bytes."
GIVE_BACK_LOOKS = 20
"From the end of a connection until libzmq has surely freed what had come by it."
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class _Seen:
    """What is known of one connection since it was first looked at."""

    def __init__(self, received: int) -> None:
        self.first = self.heard_at = received
        "Bytes received then, and by when a message of it was last heard."
        self.unheard = 0
        "Looks since."


class Floods:
    """Looks after the connections of one node, on a thread of its own."""

    def __init__(self, refusals: Refusals) -> None:
        self._refusals = refusals
        self.watching: bool = False
        "Whether `note` is to be called for each message."
        self._heard: set[int] = set()
        self._requests = self._gossip = 0
        self._resident: deque[int] = deque(maxlen=RISE_LOOKS)
        self._quiet = self._looks = 0
        self._began_bytes = 0
        self._seen: dict[tuple[int, str], _Seen] = {}
        self._give_back_in = 0
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dcc-floods", daemon=True)

    def start(self, requests: int, gossip: int) -> None:
        """Begin to look after what is accepted at these ports."""
        self._requests, self._gossip = requests, gossip
        if os.path.exists("/proc/self/statm"):
            self._thread.start()

    def close(self) -> None:
        """End the thread. Idempotent."""
        self._ends.set()
        if self._thread.is_alive():
            self._thread.join()

    def note(self, head: Any) -> None:
        """Note by which connection the message came that begins with this frame."""
        with suppress(zmq.ZMQError):
            self._heard.add(int(head.get(zmq.SRCFD)))

    # -------------------------------------------------------------- the thread

    def _run(self) -> None:
        with open("/proc/self/statm", "rb", buffering=0) as statm:
            while not self._ends.wait(LOOK_S):
                resident = int(os.pread(statm.fileno(), 128, 0).split()[1]) * PAGE_BYTES
                self.look(resident)

    def look(self, resident: int) -> None:
        """Look at all connections if the process, of so many bytes now, has grown fast."""
        if self._give_back_in:
            self._give_back_in -= 1
            if not self._give_back_in:
                _give_back()
        self._resident.append(resident)
        lowest = min(self._resident)
        self._quiet = 0 if resident - lowest > RISE_BYTES else self._quiet + 1
        self._looks += 1
        if self._quiet >= QUIET_LOOKS or (self._quiet and not self.watching):
            self.watching = False
            self._seen.clear()
            if self._looks % SUBSCRIBERS_LOOKS == 0:
                self._judge_subscribers(inbound((self._gossip,)))
            return
        if not self.watching:
            self.watching, self._began_bytes = True, lowest
        heard, self._heard = self._heard, set()
        self._judge_subscribers(inbound((self._gossip,)))
        self._judge(list(inbound((self._requests,))), heard, resident)

    def _judge_subscribers(self, connections: Iterator[Inbound]) -> None:
        for one in connections:
            if one.received > SUBSCRIBED_BYTES_MAX:
                self._end(one, "subscriptions")

    def _judge(self, connections: list[Inbound], heard: set[int], resident: int) -> None:
        unheard: list[tuple[int, Inbound]] = []
        received, present = 0, set()
        for one in connections:
            present.add((one.fd, one.peer))
            seen = self._seen.setdefault((one.fd, one.peer), _Seen(one.received))
            received += one.received - seen.first
            seen.unheard += 1
            if one.fd in heard:
                seen.heard_at, seen.unheard = one.received, 0
            elif seen.unheard > UNHEARD_LOOKS:
                unheard.append((one.received - seen.heard_at, one))
        self._seen = {key: seen for key, seen in self._seen.items() if key in present}
        grown = resident - self._began_bytes
        amplified = grown > AMPLIFIED_BYTES and grown > AMPLIFIED * received
        least = SMALL_FRAMES_BYTES_MIN if amplified else MESSAGE_BYTES_MAX
        size, most = max(unheard, default=(0, None), key=lambda one: one[0])
        if most is not None and size > least:
            self._end(most, "unending")

    def _end(self, one: Inbound, reason: str) -> None:
        hang_up(one.fd, frozenset({one.port}), reset=True)
        self._give_back_in = GIVE_BACK_LOOKS
        self._refusals.add(reason, one.peer.rpartition(":")[0], address=one.peer)


def _give_back() -> None:
    """Let the C library return what is free to the system, if it is one that can."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
