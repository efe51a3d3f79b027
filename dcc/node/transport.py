"""All sockets of a node: who is connected to whom, and what became of a send.

A node binds one ROUTER (requests, of clients and peers alike) and one PUB (gossip); it reads one
SUB that is connected to every member's PUB, and writes one DEALER for each member's ROUTER. What
peers answer comes in on the ROUTER, so a peer's DEALER is never read. The exception are seeds:
while their key is unknown they are asked on a DEALER of their own, which brings the answer and is
closed when nobody uses it any more.

Nothing here waits. A send that libzmq refuses (EAGAIN: no connection or its queue is full) is
kept for a second if the connection was only just opened, since a handshake takes a moment;
otherwise it is put on `undelivered`, from where the loop tells the core. To the core
the network is lossy anyway. The caller is one thread, because ZeroMQ's sockets bear no more.

PUB, not XPUB: an XPUB must be read, or its subscription events pile up without bound.
"""

from __future__ import annotations

import errno
import resource
import socket as net
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from queue import Empty, SimpleQueue
from typing import Any

import zmq

from dcc.errors import ConfigError
from dcc.limits import VALUE_BYTES_MAX
from dcc.node.options import Address
from dcc.types import TOPIC_ALL, NodeKey
from dcc.units import KIB, MIB, SECOND

NOBLOCK = int(zmq.NOBLOCK)
"Plain ints: an enum member costs a conversion on every call."
NOBLOCK_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)
IN, OUT = int(zmq.POLLIN), int(zmq.POLLOUT)

Pollables = list[tuple[Any, int]]
"Sockets or file descriptors, and what to wait for."

OPENING_NS = 1 * SECOND
"How long a new connection may take before a send on it has failed."
WAITING_MESSAGES_MAX = 256
WAITING_BYTES_MAX = 1 * MIB
"What is kept for one connection in that time; a join's view, or the first replication batches."
SEED_IDLE_NS = 5 * SECOND
"A seed's DEALER that carried nothing for so long is closed; longer than any answer takes."
SEEDS_MAX = 64
"Seed connections at once; a DNS name with more addresses is asked at the first ones."
DRAWN_BYTES = 5
"A routing id that libzmq draws: a zero byte, which clients must not choose, and 32 random bits."
ANSWERED_MAX = 65_536
"Routing ids remembered; libzmq tells nobody when one has gone."
RESOLVE_TIMEOUT_S = 2.0
"Bound of a DNS look-up at start."
SHARED_BYTES_MIN = 32 * KIB
"Frames from here on are sent without a copy: below, the bookkeeping costs more than memcpy."
FILES_PER_MEMBER = 4
"File descriptors that one member costs: DEALER and its mailbox, and a connection each way."
FILES_OWN = 64

# Every option has a reason; what is not set here keeps libzmq's default (TCP_NODELAY is one).
COMMON = {
    zmq.LINGER: 0,  # Closing never waits for a peer that is gone.
    zmq.HEARTBEAT_IVL: 1_000,  # A cut cable is noticed in 3 s, not after TCP's 15 minutes.
    zmq.HEARTBEAT_TIMEOUT: 3_000,
    zmq.HEARTBEAT_TTL: 3_000,  # The other side drops us as fast, whatever its own settings.
    zmq.HANDSHAKE_IVL: 3_000,  # Whoever connects and stays silent does not keep a descriptor.
}
LISTENING = {
    zmq.BACKLOG: 1_024,  # A join storm or a client restart connects hundreds at once.
}
CONNECTING = {
    zmq.CONNECT_TIMEOUT: 2_000,  # The kernel's own is two minutes.
    zmq.RECONNECT_IVL_MAX: 5_000,  # Back off from a dead peer, yet be there soon when it is back.
}
ROUTER = COMMON | LISTENING | {
    zmq.ROUTER_MANDATORY: 1,  # A reply that nobody gets is an error here, not silence.
    zmq.MAXMSGSIZE: VALUE_BYTES_MAX,  # Checked by libzmq before it allocates; per frame.
    zmq.RCVHWM: 1_000,  # Per client; beyond it TCP holds the sender back.
    zmq.SNDHWM: 1_000,  # Per client; one that does not read its replies loses them.
}  # fmt: skip
DEALER = COMMON | CONNECTING | {
    zmq.IMMEDIATE: 1,  # Queue only to live connections: a send to nobody fails at once.
    zmq.MAXMSGSIZE: VALUE_BYTES_MAX,
    zmq.RCVHWM: 64,  # Only a seed's answers come in here.
    zmq.SNDHWM: 1_000,  # Replication has its own, smaller window; this is the last bound.
}  # fmt: skip
PUB = COMMON | LISTENING | {
    zmq.SNDHWM: 256,  # Gossip is soon stale; older is dropped for a slow subscriber.
}  # fmt: skip
SUB = COMMON | CONNECTING | {
    zmq.RCVHWM: 256,  # Per member, as above.
    zmq.MAXMSGSIZE: 16 * KIB,  # Gossip is at most 1,400 bytes today.
}  # fmt: skip


class Peer:
    """One DEALER: to a member, or to a seed whose key nobody knows yet."""

    __slots__ = ("address", "gossip", "opened_at", "socket", "used_at", "waiting", "waiting_bytes")

    def __init__(self, socket: zmq.Socket[bytes], address: str, gossip: str, now: int) -> None:
        self.socket, self.address, self.gossip = socket, address, gossip
        self.opened_at = self.used_at = now
        self.waiting: deque[list[bytes]] = deque()
        self.waiting_bytes = 0


class Transport:
    """The sockets of one node. Times are monotonic nanoseconds; of one thread only.

    `reconnect_ms` is the first pause before a lost connection is tried again, drawn once per
    process: libzmq has no jitter of its own, and a whole cluster must not come back in step.
    """

    def __init__(self, *, reconnect_ms: int) -> None:
        assert 100 <= reconnect_ms <= 300
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, 16_384)  # The default of 1,023 ends a mesh of as many.
        self._connecting = {zmq.RECONNECT_IVL: reconnect_ms}
        self.router = self._open(zmq.ROUTER, ROUTER)
        self._pub = self._open(zmq.PUB, PUB)
        self.sub = self._open(zmq.SUB, SUB | self._connecting)
        self._peers: dict[NodeKey, Peer] = {}
        self._seeds: dict[str, Peer] = {}
        self._publishers: dict[str, int] = {}
        "Gossip addresses that SUB is connected to, with the number of members there."
        self._names = _Names()
        self._always: Pollables = [(self.sub, IN), (self.router, IN)]
        self._pollables: Pollables | None = None
        self.undelivered: list[tuple[NodeKey | str, list[bytes]]] = []
        "Sends that failed, of which surely nothing arrived; the loop empties it."
        self.answered: set[bytes] = set()
        "Routing ids that libzmq drew and a reply went to, so they are no peer's invention."
        self.strays = 0
        "Frames behind a message that should have had one."
        self.replies_lost = 0
        "Replies to clients that are gone or do not read."
        self.sends_lost = 0
        self.files_max = raise_file_limit()

    # ------------------------------------------------------------ opening and closing

    def _open(self, kind: int, options: dict[zmq.SocketOption, int]) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        for option, value in options.items():
            socket.setsockopt(option, value)
        return socket

    def bind(self, request: Address, gossip: Address) -> tuple[Address, Address]:
        """Bind both planes and return the addresses with the ports in use.

        Raises:
            ConfigError: an address is in use or not this machine's. The transport must be closed.
        """
        return _bind(self.router, request, "bind"), _bind(self._pub, gossip, "gossip-bind")

    def subscribe(self, topic: bytes) -> None:
        """Take gossip for this node's `topic`, and for everybody."""
        self.sub.setsockopt(zmq.SUBSCRIBE, topic)
        self.sub.setsockopt(zmq.SUBSCRIBE, TOPIC_ALL)

    def close(self) -> None:
        """Close every socket at once; what is not sent yet is lost. Idempotent."""
        self._context.destroy(linger=0)

    def connect(self, key: NodeKey, request: str, gossip: str, now: int) -> None:
        """Open DEALER and SUB to a member, or reopen those whose address changed."""
        peer = self._peers.get(key)
        if peer is not None and (peer.address, peer.gossip) == (request, gossip):
            return
        self.disconnect(key)
        socket = self._dealer(request)
        if socket is None:
            return
        self._peers[key] = Peer(socket, request, gossip, now)
        self._subscribe(gossip)
        self._pollables = None

    def disconnect(self, key: NodeKey) -> None:
        """Close DEALER and SUB to a member, if they are open."""
        peer = self._peers.pop(key, None)
        if peer is None:
            return
        peer.socket.close(0)
        self._unsubscribe(peer.gossip)
        self._give_up(key, peer)

    def _dealer(self, address: str) -> zmq.Socket[bytes] | None:
        try:
            socket = self._open(zmq.DEALER, DEALER | self._connecting)
        except zmq.ZMQError:  # No descriptor left: the member counts as unreachable.
            self.sends_lost += 1
            return None
        try:
            _connect(socket, address)
        except (
            zmq.ZMQError,
            ValueError,
        ):  # What a peer calls its address may be no address at all.
            socket.close(0)
            return None
        return socket

    def _subscribe(self, gossip: str) -> None:
        """Connect SUB; libzmq would ignore a second connection to the same address."""
        self._publishers[gossip] = self._publishers.get(gossip, 0) + 1
        if self._publishers[gossip] == 1:
            try:
                _connect(self.sub, gossip)
            except (zmq.ZMQError, ValueError):
                self.sends_lost += 1

    def _unsubscribe(self, gossip: str) -> None:
        self._publishers[gossip] -= 1
        if not self._publishers[gossip]:
            del self._publishers[gossip]
            try:
                self.sub.disconnect(f"tcp://{gossip}")
            except zmq.ZMQError:  # It was never connected.
                pass

    @property
    def connections(self) -> int:
        """DEALERs that are open."""
        return len(self._peers) + len(self._seeds)

    @property
    def files_short(self) -> bool:
        """True if the members connected to could exhaust the process's file descriptors."""
        return len(self._peers) * FILES_PER_MEMBER + FILES_OWN > self.files_max

    # ------------------------------------------------------------ sending

    def send(self, to: NodeKey | str, frames: list[bytes], now: int) -> None:
        """Send to a member or a seed; a failure puts it on `undelivered`."""
        if isinstance(to, str):
            self._send_to_seed(to, frames, now)
            return
        peer = self._peers.get(to)
        if peer is None or not self._offer(peer, frames, now):
            self._lost(to, frames)

    def _send_to_seed(self, to: str, frames: list[bytes], now: int) -> None:
        addresses = self._names.addresses(to)
        if addresses is None:  # The answer of the DNS will be there at the next attempt.
            self._lost(to, frames)
            return
        sent = False
        for address in addresses:
            seed = self._seed(address, now)
            sent = (seed is not None and self._offer(seed, frames, now)) or sent
        if not sent:
            self._lost(to, frames)

    def _seed(self, address: str, now: int) -> Peer | None:
        seed = self._seeds.get(address)
        if seed is None and len(self._seeds) < SEEDS_MAX:
            socket = self._dealer(address)
            if socket is not None:
                seed = self._seeds[address] = Peer(socket, address, "", now)
                self._pollables = None
        return seed

    def _offer(self, peer: Peer, frames: list[bytes], now: int) -> bool:
        """Send or keep `frames`; False if neither is possible."""
        peer.used_at = now
        if not peer.waiting and _put(peer.socket, frames):
            return True
        size = sum(map(len, frames))
        if (
            now - peer.opened_at > OPENING_NS
            or len(peer.waiting) >= WAITING_MESSAGES_MAX
            or peer.waiting_bytes + size > WAITING_BYTES_MAX
        ):
            return False
        if not peer.waiting:
            self._pollables = None
        peer.waiting.append(frames)
        peer.waiting_bytes += size
        return True

    def _lost(self, to: NodeKey | str, frames: list[bytes]) -> None:
        self.sends_lost += 1
        self.undelivered.append((to, frames))

    def publish(self, topic: bytes, payload: bytes) -> None:
        """Put gossip on PUB; like a datagram it may be lost."""
        _put(self._pub, [topic, payload])

    def reply(self, route: bytes, frames: list[bytes]) -> None:
        """Answer the client behind `route`; one that is gone or does not read is counted."""
        if not _put(self.router, [route, *frames]):
            self.replies_lost += 1
            return
        # An id that its client chose could stand in a frame of it and be taken for a routing id.
        if len(route) == DRAWN_BYTES and route[0] == 0:
            if len(self.answered) >= ANSWERED_MAX:  # Most are gone; who is not comes back at once.
                self.answered.clear()
            self.answered.add(route)

    # ------------------------------------------------------------ the loop's part

    def watch(self, fd: int) -> None:
        """Let `pollables` include a file descriptor to read from."""
        self._always.append((fd, IN))
        self._pollables = None

    def pollables(self) -> Pollables:
        """Return what to poll: SUB and ROUTER first, seeds, and peers with messages waiting."""
        if self._pollables is None:
            self._pollables = self._always.copy()
            for seed in self._seeds.values():
                self._pollables.append((seed.socket, IN | OUT if seed.waiting else IN))
            for peer in self._peers.values():
                if peer.waiting:
                    self._pollables.append((peer.socket, OUT))
        return self._pollables

    @property
    def seed_sockets(self) -> list[tuple[str, zmq.Socket[bytes]]]:
        """Address and DEALER of each seed that may answer."""
        return [(address, seed.socket) for address, seed in self._seeds.items()]

    def heard(self, address: str, now: int) -> None:
        """Note that a seed answered: its connection is in use."""
        seed = self._seeds.get(address)
        if seed is not None:
            seed.used_at = now

    def upkeep(self, now: int) -> None:
        """Send what waits, give up what waited too long, close idle seeds. Once a turn."""
        for key, peer in self._peers.items():
            if peer.waiting:
                self._retry(key, peer, now)
        for address, seed in list(self._seeds.items()):
            if seed.waiting:
                self._retry(address, seed, now)
            elif now - seed.used_at > SEED_IDLE_NS:
                seed.socket.close(0)
                del self._seeds[address]
                self._pollables = None

    @property
    def idle(self) -> bool:
        """True if `upkeep` has nothing to do until the next send."""
        return self._pollables is not None and len(self._pollables) == len(self._always)

    def _retry(self, to: NodeKey | str, peer: Peer, now: int) -> None:
        while peer.waiting and _put(peer.socket, peer.waiting[0]):
            peer.waiting_bytes -= sum(map(len, peer.waiting.popleft()))
        if peer.waiting and now - peer.opened_at > OPENING_NS:
            self._give_up(to, peer)
        if not peer.waiting:
            self._pollables = None

    def _give_up(self, to: NodeKey | str, peer: Peer) -> None:
        for frames in peer.waiting:
            self._lost(to, frames)
        peer.waiting.clear()
        peer.waiting_bytes = 0
        self._pollables = None


def _put(socket: zmq.Socket[bytes], frames: Sequence[bytes]) -> bool:
    """Send a whole message without waiting; False if it was refused or dropped.

    If libzmq drops the connection between two frames it goes on to swallow the message's other
    frames, and must be given them: the next message would lose its head instead.
    """
    last = len(frames) - 1
    whole = True
    for i, frame in enumerate(frames):
        try:
            socket.send(
                frame, NOBLOCK if i == last else NOBLOCK_MORE, len(frame) < SHARED_BYTES_MIN
            )
        except zmq.ZMQError:
            if i == 0:
                return False
            whole = False
    return whole


def _connect(socket: zmq.Socket[bytes], address: str) -> None:
    host = Address.parse(address).host
    # Names may turn out to be IPv6; libzmq falls back where the machine has none.
    socket.setsockopt(zmq.IPV6, int(not host.replace(".", "").isdigit()))
    socket.connect(f"tcp://{address}")


def _bind(socket: zmq.Socket[bytes], address: Address, option: str) -> Address:
    try:
        numeric = _numeric(address)
        socket.setsockopt(zmq.IPV6, int(":" in numeric.host))
        port = str(numeric.port) if numeric.port else "*"
        host = f"[{numeric.host}]" if ":" in numeric.host else numeric.host
        socket.bind(f"tcp://{host}:{port}")
    except (zmq.ZMQError, OSError) as error:
        raise ConfigError(f"--{option}: cannot bind {address}: {_reason(error)}") from error
    endpoint = socket.getsockopt(zmq.LAST_ENDPOINT)
    assert isinstance(endpoint, bytes)
    bound = endpoint.decode().rstrip("\0")
    return Address(address.host, int(bound.rpartition(":")[2]))


def _numeric(address: Address) -> Address:
    """Return the address with a numeric host: libzmq binds no names."""
    if address.wildcard:
        return address
    family, _, _, _, found = net.getaddrinfo(address.host, address.port, type=net.SOCK_STREAM)[0]
    assert family in (net.AF_INET, net.AF_INET6)
    return Address(str(found[0]), address.port)


def _reason(error: OSError | zmq.ZMQError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "address in use"
    return (error.strerror or str(error)).lower()


def raise_file_limit() -> int:
    """Raise this process's soft limit of file descriptors to the hard one; return it.

    A mesh needs about four per member, and libzmq's accept side spins when there are none left.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and soft < hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (ValueError, OSError):  # Some systems cap it below what they report.
            pass
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft


# ---------------------------------------------------------------- names


def resolve(address: str) -> list[str]:
    """Return the numeric host:port of all addresses behind `address`, [] if there are none."""
    host, port = Address.parse(address)
    try:
        found = net.getaddrinfo(host, port, type=net.SOCK_STREAM)
    except OSError:
        return []
    return list(dict.fromkeys(str(Address(str(entry[4][0]), port)) for entry in found))


def numeric(address: str) -> bool:
    """True if `address` is an IP address and a port: nothing to look up."""
    host = Address.parse(address).host
    return ":" in host or host.replace(".", "").isdigit()


def expand_seeds(seeds: Iterable[Address], own: Sequence[str]) -> tuple[str, ...]:
    """Return the seeds for the core: numeric addresses first, then the names themselves.

    The numeric ones let the core see whether it is a seed itself: any of `own` is spelled like
    the first of them. The names stay, since the DNS may know more nodes by the next attempt.
    """
    names = [str(seed) for seed in seeds]
    looked_up = _lookup([name for name in names if not numeric(name)], RESOLVE_TIMEOUT_S)
    mine = set(own)
    for address in own:
        if not numeric(address) and address in names:
            mine.update(looked_up.get(address, ()))
    expanded = []
    for name in names:
        expanded += looked_up.get(name, [name])
    expanded = [own[0] if address in mine else address for address in expanded]
    return tuple(dict.fromkeys(expanded + [name for name in looked_up if name not in mine]))


def _lookup(names: Sequence[str], timeout_s: float) -> dict[str, list[str]]:
    """Resolve `names` side by side within `timeout_s`; a name without an answer yields []."""
    found: dict[str, list[str]] = {name: [] for name in names}
    threads = []
    for name in names:
        answers = found[name]
        work = threading.Thread(
            target=lambda name=name, answers=answers: answers.extend(resolve(name)), daemon=True
        )
        work.start()
        threads.append(work)
    for work in threads:
        work.join(timeout_s)
    return {name: list(answers) for name, answers in found.items()}


class _Names:
    """Looks seeds' names up in a thread of its own, so that a slow DNS never stops the loop."""

    def __init__(self) -> None:
        self._found: dict[str, list[str]] = {}
        self._pending: set[str] = set()
        self._answers: SimpleQueue[tuple[str, list[str]]] = SimpleQueue()

    def addresses(self, seed: str) -> list[str] | None:
        """Return the addresses known for `seed` and look it up again; None: not known yet."""
        try:
            if numeric(seed):
                return [seed]
        except ValueError:  # What a peer calls its address may be no address at all.
            return None
        self._take()
        if seed not in self._pending:
            self._pending.add(seed)
            threading.Thread(target=self._look_up, args=(seed,), daemon=True).start()
        return self._found.get(seed) or None

    def _look_up(self, seed: str) -> None:
        self._answers.put((seed, resolve(seed)))

    def _take(self) -> None:
        try:
            while True:
                seed, found = self._answers.get_nowait()
                self._pending.discard(seed)
                self._found[seed] = found
        except Empty:
            pass
