"""Which peers may connect to a node with keys: the answers to libzmq's question (ZAP, RFC 27).

libzmq asks once for each connection, after CURVE has shown that the other side has the private key
to the public one that it names. The answer is kept with the connection: each of its messages
carries the key, as `User-Id`. So the peer is looked up for each message in a dictionary that is
swapped when the key files change. A key that is removed counts for nothing from then on, also on
connections that exist.

The thread answers, looks every 200 ms whether files came or went (and at each of them, where these
are not thousands), and touches nothing of the loop's but the queue of what the loop is to hear. A
bug does not end the thread: it is told, and the thread goes on. Should it end all the same, nobody
new is let in (`ZAP_ENFORCE_DOMAIN`).
"""

from __future__ import annotations

import socket as net
import threading
import time
from collections import Counter
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import zmq
from zmq.utils import z85

from dcc.errors import ConfigError
from dcc.keys import Directory
from dcc.types import Identity, NodeKey, Role
from dcc.units import MILLISECOND

REQUESTS, GOSSIP = b"requests", b"gossip"
"ZAP's domains, one for each plane: gossip is for nodes only."
PLACE = "inproc://zeromq.zap.01"
LOOK_MS = 200
LOOKING_PART = 50
"Part of the time that may go into looking at every single file."
CLOSE_S = 2.0
"How long `close` waits for the thread, which a file system that hangs may hold."
BUG_PAUSE_S = 0.05
SAID_MAX = 1_024
"Refusals of different peers that are logged; the others are counted only."

Told = tuple[str, dict[str, Any]]
"An event for the log and its fields."


class Refusals:
    """What was refused: counted, and told once of each peer. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self.told: SimpleQueue[Told] = SimpleQueue()
        "What is to be logged."
        self.on_news: Callable[[], None] = lambda: None
        "Called whenever something is to be logged."
        self._said: set[tuple[str, str]] = set()

    def add(self, reason: str, who: str, **fields: Any) -> None:
        """Count one; let it be logged if it is the first of its kind."""
        with self._lock:
            self._counts[reason] += 1
            if (reason, who) in self._said or len(self._said) >= SAID_MAX:
                return
            self._said.add((reason, who))
        self.tell("connection_refused", {"reason": reason, "who": who, **fields})

    def counts(self) -> dict[str, int]:
        """Return how many connections and messages were refused so far, by reason."""
        with self._lock:
            return dict(self._counts)

    def tell(self, event: str, fields: dict[str, Any]) -> None:
        """Let something be logged."""
        self.told.put((event, fields))
        self.on_news()

    def forget(self) -> None:
        """Tell everything once more: other keys are allowed now."""
        with self._lock:
            self._said = set()


class Authenticator:
    """Knows the allowed keys, and answers for one ZeroMQ context, on a thread of its own."""

    def __init__(self, directory: Directory, refusals: Refusals) -> None:
        """Read the files; ConfigError if that is not possible."""
        self._directory = directory
        self._signature = directory.signature(whole=True)
        self._glance = directory.glance()
        self._whole_due = 0
        self.allowed: dict[str, Identity] = directory.allowed()
        "By public key. Replaced as a whole, never changed."
        self.nodes: frozenset[NodeKey] = _nodes(self.allowed)
        self.refusals = refusals
        self._ending = False
        self._broken = ""
        "Why the files could not be read, until they can."
        self._failed = ""
        self._due = 0
        self._inner, self._outer = net.socketpair()
        self._outer.setblocking(False)
        self._thread: threading.Thread | None = None

    def start(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        """Begin to answer; before anything is bound."""
        socket = context.socket(zmq.ROUTER)
        socket.bind(PLACE)
        self._thread = threading.Thread(target=self._run, args=(socket,), name="dcc-zap")
        self._thread.daemon = True
        self._thread.start()

    def close(self) -> None:
        """End the thread. Idempotent."""
        if self._ending:
            return
        self._ending = True
        self.look()
        if self._thread is None:
            self._give_back()
        else:  # If it takes longer than this, it is a daemon, and gives all back later.
            self._thread.join(CLOSE_S)

    def _give_back(self) -> None:
        self._inner.close()
        self._outer.close()

    def look(self) -> None:
        """Look at the files now. From any thread, and from signal handlers."""
        try:
            self._outer.send(b"\0")
        except OSError:  # Full: it will look. Closed: it has ended.
            pass

    def node_keys(self) -> frozenset[str]:
        """Return the public keys of nodes."""
        return frozenset(key for key, who in self.allowed.items() if who.role is Role.NODE)

    # -------------------------------------------------------------- the thread

    def _run(self, socket: zmq.Socket[bytes]) -> None:
        try:
            while not self._ending:
                try:
                    self._turn(socket)
                except zmq.ContextTerminated:
                    return
                except Exception as error:
                    self._tell_failed(f"{type(error).__name__}: {error}")
                    time.sleep(BUG_PAUSE_S)
        finally:
            socket.close(0)
            self._give_back()

    def _turn(self, socket: zmq.Socket[bytes]) -> None:
        watched: list[tuple[Any, int]]
        watched = [(socket, zmq.POLLIN), (self._inner.fileno(), zmq.POLLIN)]
        ready: list[tuple[Any, int]] = zmq.zmq_poll(watched, LOOK_MS)
        for source, _ in ready:
            if source is socket:
                self._answer(socket)
            else:
                self._inner.recv(4096)
                self._due = self._whole_due = 0
        if time.monotonic_ns() >= self._due:
            self._due = time.monotonic_ns() + LOOK_MS * MILLISECOND
            self._read_again()

    def _answer(self, socket: zmq.Socket[bytes]) -> None:
        *envelope, version, request, domain, address, _, mechanism, key = socket.recv_multipart()
        status, text, who = b"400", b"not allowed", ""
        if version == b"1.0" and mechanism == b"CURVE" and len(key) == 32:
            who = z85.encode(key).decode()
            if self._admits(who, domain, address.decode(errors="replace")):
                status, text = b"200", b""
        socket.send_multipart([*envelope, version, request, status, text, who.encode(), b""])

    def _admits(self, key: str, domain: bytes, address: str) -> bool:
        found = self.allowed.get(key)
        if found is None:
            self.refusals.add("unknown_key", key, address=address)
        elif domain == GOSSIP and found.role is not Role.NODE:
            self.refusals.add("not_a_node", found.name, address=address)
        else:
            return True
        return False

    def _read_again(self) -> None:
        glance, now = self._directory.glance(), time.monotonic_ns()
        if glance == self._glance and now < self._whole_due:
            return
        self._glance = glance
        self._read_whole()
        # What was changed in place is found out later where there are thousands of files.
        self._whole_due = now + LOOKING_PART * (time.monotonic_ns() - now)

    def _read_whole(self) -> None:
        try:
            signature = self._directory.signature(whole=True)
            if signature == self._signature:
                self._broken = ""
                return
            allowed = self._directory.allowed()
        except ConfigError as error:  # The allowed stay allowed: half of a change is none.
            if str(error) != self._broken:
                self._broken = str(error)
                self.refusals.tell("keys_unreadable", {"text": self._broken})
            return
        added, removed = allowed.keys() - self.allowed.keys(), self.allowed.keys() - allowed.keys()
        names = {"added": added, "removed": removed}
        both = self.allowed | allowed
        fields = {word: sorted({both[key].name for key in keys}) for word, keys in names.items()}
        self.allowed, self.nodes = allowed, _nodes(allowed)
        self._signature, self._broken = signature, ""
        self.refusals.forget()
        self.refusals.tell("keys_read", fields)

    def _tell_failed(self, text: str) -> None:
        if text != self._failed:
            self._failed = text
            self.refusals.tell("keys_failed", {"text": text})


def _nodes(allowed: dict[str, Identity]) -> frozenset[NodeKey]:
    return frozenset(who.node for who in allowed.values() if who.role is Role.NODE)
