"""Names become numbers here, on threads of their own; libzmq is given numbers only.

libzmq would look a name up in its one I/O thread, which serves every socket of the process: a name
server that does not answer would stop them all. It would also take the first address only, and of
one family.

A `Resolver` never waits. `addresses` returns what is known; `look_up` asks anew, and the answer is
there later. A name is looked up by one thread at a time. Names whose last answer took long may have
half of the threads, so that a silent name server keeps no other name waiting. A failed look-up
keeps the addresses that were known before.

A `Dial` is the connection of one DEALER to an address that may be a name. It tries one number after
the other, each for a while, and looks the name up again when all were tried: a connection that is
lost may have to go elsewhere.
"""

from __future__ import annotations

import re
import socket as net
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache
from ipaddress import ip_address

import zmq

from dcc.guard import Guard
from dcc.keys import Keys, no_keys, present
from dcc.units import MILLISECOND, NEVER, SECOND

THREADS_MAX = 16
SLOW_THREADS_MAX = 8
"Of these at most for names whose last answer took `SLOW_NS`."
SLOW_NS = 1 * SECOND
PAUSE_NS = 1 * SECOND
"From an answer until the same name may be asked for again."
WAITING_MAX = 1_024
"Names waiting for a thread; beyond it a look-up is refused, and whoever needs it asks again."
NAMES_MAX = 8_192
"Names remembered; a full table forgets the one that was first asked for longest ago."
HOST_CHARS_MAX = 255
ADDRESSES_MAX = 16
"Addresses kept of one name."
PATIENCE_NS = 200 * MILLISECOND
"How long an address may take to connect before the next one of its name is tried."
PATIENCE_MAX_NS = 5 * SECOND
"The same in later rounds, which are more and more patient."
UNKNOWN_NS = 5 * MILLISECOND
"How soon a caller without a wake-up looks again whether a name is known."


def split(address: str) -> tuple[str, int]:
    """Return host and port of HOST:PORT; ValueError if it is none.

    >>> split("[::1]:6740")
    ('::1', 6740)
    """
    host, _, port = address.rpartition(":")
    if not 0 < len(host) <= HOST_CHARS_MAX or not re.fullmatch("[0-9]{1,5}", port):
        raise ValueError(f"'{address}' is not HOST:PORT")
    if int(port) > 65_535:
        raise ValueError(f"'{address}': there is no such port")
    bracketed = host.startswith("[") and host.endswith("]")
    if ":" in host and not bracketed:
        raise ValueError(f"'{address}': an IPv6 address needs brackets")
    return host[1:-1] if bracketed else host, int(port)


@lru_cache(NAMES_MAX)
def is_numeric(address: str) -> bool:
    """Return whether the host of `address` is an IP address; ValueError if it is no HOST:PORT."""
    try:
        ip_address(split(address)[0])
    except ValueError:
        split(address)
        return False
    return True


class _Name:
    """What is known of one name."""

    __slots__ = ("answered_at", "asked", "error", "found", "slow")

    def __init__(self) -> None:
        self.found: tuple[str, ...] = ()
        "IP addresses, in the order in which they are to be tried."
        self.error = ""
        self.slow = self.asked = False
        self.answered_at = -PAUSE_NS


class Resolver:
    """Looks names up without making anybody wait. Safe to use from any thread.

    `on_answer` is called on a thread of the resolver whenever an answer has come.
    """

    def __init__(self, on_answer: Callable[[], None] = lambda: None) -> None:
        self.on_answer = on_answer
        self._guard = Guard()
        self._names: dict[str, _Name] = {}
        self._quick: deque[str] = deque()
        self._slow: deque[str] = deque()
        self._threads: set[threading.Thread] = set()
        "Those that look names up, or are about to."
        self._slow_threads = 0

    def addresses(self, address: str) -> tuple[str, ...]:
        """Return the numeric HOST:PORT of all that is known behind `address`, best first.

        Nothing is known yet of a name that was never looked up. ValueError: no address at all.
        """
        if is_numeric(address):
            return (address,)
        host, port = split(address)
        name = self._names.get(host)
        return () if name is None else tuple(_join(found, port) for found in name.found)

    def failure(self, address: str) -> str:
        """Return why the last look-up of the name in `address` failed; empty if it did not."""
        name = self._names.get(split(address)[0])
        return "" if name is None else name.error

    def pending(self, address: str) -> bool:
        """Return whether the name in `address` is being looked up."""
        name = self._names.get(split(address)[0])
        return name is not None and name.asked

    def look_up(self, address: str) -> None:
        """Ask for the name in `address`, unless that is under way or was answered just now."""
        if is_numeric(address):
            return
        host = split(address)[0]
        with self._guard:
            name = self._names.get(host)
            if name is None:
                if len(self._names) >= NAMES_MAX:
                    del self._names[next(iter(self._names))]
                name = self._names[host] = _Name()
            if name.asked or time.monotonic_ns() - name.answered_at < PAUSE_NS:
                return
            if len(self._quick) + len(self._slow) >= WAITING_MAX:
                return
            (self._slow if name.slow else self._quick).append(host)
            self._start_thread()
            # Only now: if this is interrupted before, it is asked for again.
            name.asked = bool(self._threads)

    def _start_thread(self) -> None:
        self._threads = {one for one in self._threads if one.is_alive()}
        if len(self._threads) >= THREADS_MAX:
            return
        thread = threading.Thread(target=self._run, name="dcc-names", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # The process may have no more threads: those that run go on.
            return
        self._threads.add(thread)

    def _run(self) -> None:
        """Look names up until none waits that this thread may take."""
        while True:
            with self._guard:
                slow = not self._quick
                if slow and (not self._slow or self._slow_threads >= SLOW_THREADS_MAX):
                    self._threads.discard(threading.current_thread())
                    return
                host = (self._slow if slow else self._quick).popleft()
                self._slow_threads += slow
            began = time.monotonic_ns()
            found, error = _look_up(host)
            with self._guard:
                self._slow_threads -= slow
                self._answered(host, found, error, began)
            self.on_answer()

    def _answered(self, host: str, found: Sequence[str], error: str, began: int) -> None:
        name = self._names.get(host)
        if name is None:  # Forgotten meanwhile.
            return
        now = time.monotonic_ns()
        name.asked, name.answered_at, name.error = False, now, error
        name.slow = now - began >= SLOW_NS
        if found:
            name.found = tuple(found)


def _look_up(host: str) -> tuple[list[str], str]:
    """Return all addresses of `host`, of both families, or none and the reason. May take long."""
    try:
        found = net.getaddrinfo(host, None, type=net.SOCK_STREAM)
    except (OSError, ValueError) as error:  # A ValueError: what a peer calls its host is none.
        return [], (getattr(error, "strerror", None) or str(error)).lower()
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))[:ADDRESSES_MAX], ""


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Dial:
    """The connection of one DEALER to HOST:PORT. Of the thread that owns the socket.

    A numeric address is left to libzmq, which connects and reconnects by itself. Of a name one
    address at a time is connected to. While there is no connection `tend` is to be called, at
    `wake_at` at the latest: it goes on to the next address when the present one has had its time.

    With keys, `again` is to be called when the other side is no server of the key that it was taken
    for: there may be another one, and libzmq does not try again by itself.
    """

    __slots__ = (
        "_address", "_keys", "_patience_ns", "_resolver", "_socket", "_turn", "at", "moves_at",
        "named",
    )  # fmt: skip

    def __init__(
        self, socket: zmq.Socket[bytes], address: str, resolver: Resolver, keys: Keys = no_keys
    ) -> None:
        """Connect to what is known of `address`. ValueError or ZMQError: it is no address."""
        self._socket, self._address, self._resolver = socket, address, resolver
        self._keys, self._turn = keys, 0
        self._patience_ns = PATIENCE_NS
        self.named: bool = not is_numeric(address)
        "Whether the address is a name, so that `tend` has something to do."
        self.at: str = ""
        "The numeric address connected to; empty while none is known."
        self.moves_at = 0 if self.named else NEVER
        "When the present address has had its time."
        if self.named:
            resolver.look_up(address)  # What is known may be old.
        else:
            self._connect(address)

    def tend(self, now: int) -> bool:
        """Go on to another address if it is time; return whether one was tried first just now."""
        if not self.named:
            return False
        known = self._resolver.addresses(self._address)
        if not known:
            self._resolver.look_up(self._address)
            return False
        if self.at in known and now < self.moves_at:
            return False
        place = known.index(self.at) + 1 if self.at in known else 0
        if place == len(known):
            self._resolver.look_up(self._address)  # It may mean others by now.
            self._patience_ns = min(2 * self._patience_ns, PATIENCE_MAX_NS)
            place = 0
        self.moves_at = now + self._patience_ns
        if known[place] == self.at:
            return False
        self._disconnect()
        self._connect(known[place])
        return True

    def again(self) -> None:
        """Connect anew, with the newest keys, to the server of the next key that is trusted."""
        self._turn += 1
        if self.at:
            self._disconnect()
            self._connect(self.at)

    def wake_at(self, now: int) -> int:
        """Return when `tend` is due for a caller that is not told of answers."""
        return self.moves_at if self.at else now + UNKNOWN_NS

    def _disconnect(self) -> None:
        try:
            if self.at:
                self._socket.disconnect(f"tcp://{self.at}")
        except zmq.ZMQError:  # libzmq has given up by itself.
            pass

    def _connect(self, address: str) -> None:
        present(self._socket, self._keys(), self._turn)
        self._socket.setsockopt(zmq.IPV6, int(address.startswith("[")))
        self._socket.connect(f"tcp://{address}")
        self.at = address


def look_up_all(addresses: Sequence[str], timeout_s: float) -> dict[str, tuple[str, ...]]:
    """Return the numeric addresses behind each of `addresses`, () without an answer in time.

    Waits for them, `timeout_s` in all: for what must be known before anything begins.
    """
    answered = threading.Event()
    resolver = Resolver(answered.set)
    for address in addresses:
        resolver.look_up(address)
    deadline = time.monotonic() + timeout_s
    while True:
        answered.clear()
        if not any(map(resolver.pending, addresses)):
            break
        if not answered.wait(max(0.0, deadline - time.monotonic())):
            break
    return {address: resolver.addresses(address) for address in addresses}
