"""All sockets of a node: its connections, and what became of each send.

A node binds one ROUTER (requests, of clients and peers alike) and one PUB (gossip); it reads one
SUB that is connected to every member's PUB, and writes one DEALER for each member's ROUTER. What
may take seconds on a slow link (`Send.bulk`) goes over a second DEALER, opened when first needed,
so that nothing small waits for it. What peers answer comes in on the ROUTER, so a peer's DEALER
is never read. The exception are seeds: while their key is unknown they are asked on a DEALER of
their own, which brings the answer and is closed when nobody uses it any more.

Members and seeds may be known by names; what is connected to are numbers (see `dcc.resolve`). A
member's DEALER is connected to one address of its name at a time, SUB to all of them: gossip that
comes twice does no harm.

When the process is about to run out of descriptors, nobody new is listened to until there are some
again (`descriptors.Listeners`). Connections that exist go on.

Nothing here waits. A send that libzmq refuses (EAGAIN: no connection or its queue is full) is
kept for a second if the connection was only just opened, since a handshake takes a moment;
otherwise it is put on `undelivered`, from where the loop tells the core. To the core
the network is lossy anyway. The caller is one thread, because ZeroMQ's sockets bear no more.

PUB, not XPUB: an XPUB must be read, or its subscription events pile up without bound.
"""

from __future__ import annotations

import socket as net
from collections import deque
from collections.abc import Callable
from typing import Any

import zmq

from dcc import descriptors
from dcc.errors import ConfigError
from dcc.handshakes import Handshake, Watch
from dcc.node import binding
from dcc.node.floods import Floods
from dcc.node.options import Address
from dcc.node.security import Closed, Open
from dcc.node.sockets import DEALER, PUB, ROUTER, SUB, put, put_tracked
from dcc.node.subscriptions import Subscriptions
from dcc.node.unread import Unread
from dcc.node.zap import GOSSIP, REQUESTS
from dcc.resolve import Dial, Resolver, is_numeric
from dcc.types import TOPIC_ALL, NodeKey
from dcc.units import MIB, MILLISECOND, NEVER, SECOND

IN, OUT = int(zmq.POLLIN), int(zmq.POLLOUT)

Pollables = list[tuple[Any, int]]
"Sockets or file descriptors, and what to wait for."

OPENING_NS = 1 * SECOND
"How long a new connection may take before a send on it has failed."
CLOSELY_NS = 100 * MILLISECOND
CLOSELY_FOR_NS = 60 * SECOND
"The same after descriptors had run out: whatever took them may do so again."
WAITING_MESSAGES_MAX = 256
WAITING_BYTES_MAX = 1 * MIB
"""What is kept for one connection in that time: a join's view, the first replication batches, or
one larger message."""
SEED_IDLE_NS = 5 * SECOND
"A seed's DEALER that carried nothing for this long is closed; longer than any answer takes."
SEEDS_MAX = 64
"Seed connections at once; a DNS name with more addresses is asked at the first ones."
DRAWN_BYTES = 5
"A routing id that libzmq draws: a zero byte, which clients must not choose, and 32 random bits."
ANSWERED_MAX = 65_536
"Routing ids remembered; libzmq tells nobody when one has gone."
LOOK_NS = 1 * SECOND
"How often connections to names, and the descriptors that are left, are looked after."
AGAIN_NS = 3 * SECOND
"With keys: a socket without a connection for this long is replaced. A slow one takes time, too."
CHANGING_NS = 300 * MILLISECOND
"The same while servers may have either of two keys."
FILES_PER_MEMBER = 7
"""File descriptors that one member costs: two DEALERs and their mailboxes, their connections each
way, and gossip's."""
FILES_OWN = 64
FILES_TO_START = 48
"What libzmq's threads, the first sockets, the reserve and some connections take."


class Peer:
    """One DEALER: to a member, or to a seed whose key nobody knows yet."""

    __slots__ = (
        "address", "dial", "gossip", "handshake", "lost_since", "named", "opened_at", "publishers",
        "socket", "used_at", "waiting", "waiting_bytes",
    )  # fmt: skip

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        dial: Dial,
        address: str,
        gossip: str,
        now: int,
        handshake: Handshake | None = None,
    ) -> None:
        self.socket: Any = socket
        self.dial: Dial = dial
        self.address: str = address
        self.gossip: str = gossip
        self.named: bool = dial.named or not _is_number(gossip)
        self.publishers: tuple[str, ...] = ()
        "Where SUB is connected to because of this member."
        self.opened_at: int = now
        self.used_at: int = now
        self.handshake: Handshake | None = handshake
        "Of a seed: why it cannot be reached, for the log."
        self.lost_since: int = NEVER
        "With keys: since when no connection was seen."
        self.waiting: deque[list[bytes]] = deque()
        self.waiting_bytes: int = 0

    def close(self) -> None:
        """Close what belongs to it; what is not sent is lost."""
        if self.handshake is not None:
            self.handshake.close()
        self.socket.close(0)


class Transport:
    """The sockets of one node. Times are monotonic nanoseconds; of one thread only.

    `reconnect_ms` is the first pause before a lost connection is tried again, drawn once per
    process: libzmq has no jitter of its own, and a whole cluster must not come back in step.
    """

    def __init__(self, *, reconnect_ms: int, security: Open | Closed | None = None) -> None:
        assert 100 <= reconnect_ms <= 300
        self.security: Open | Closed = security or Open()
        self.files_max: int = descriptors.raise_limit()
        if not descriptors.are_left(FILES_TO_START):
            raise ConfigError(
                f"fewer than {FILES_TO_START} file descriptors are left of {self.files_max}; "
                "raise ulimit -n"
            )
        self.floods: Floods = Floods(self.security.refusals)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, 16_384)  # The default of 1,023 ends a mesh of as many.
        self._connecting = {zmq.RECONNECT_IVL: reconnect_ms}
        self.security.start(self._context)
        self.router: Any = self._open(zmq.ROUTER, ROUTER | self.security.serving(REQUESTS))
        self.router.copy_threshold = 0  # What is to be lent is lent, whatever its size.
        self.unread: Unread = Unread()
        self._pub = self._open(zmq.PUB, PUB | self.security.serving(GOSSIP))
        self.sub: Any = self._open(zmq.SUB, SUB | self._connecting)
        self._resolver = Resolver()
        self.subscriptions: Subscriptions = Subscriptions(self.sub, self.security, self._resolver)
        self._accepting = [Watch(self.router), Watch(self._pub)]
        "Tell of those that could not connect here."
        self._peers: dict[NodeKey, Peer] = {}
        self._bulk: dict[NodeKey, Peer] = {}
        "Second connections to members, for what is large."
        self._seeds: dict[str, Peer] = {}
        self._unopened: dict[NodeKey, tuple[str, str]] = {}
        "Members for whose DEALER there was no descriptor."
        self._listeners = descriptors.Listeners()
        self._requested_at: list[net.socket] = []
        self._subscribed_at: list[net.socket] = []
        "Where ROUTER and PUB accept from; of those in `_listeners`."
        self._look_closely_until = 0
        self.look_at: int = 0
        "When `look` is due."
        self._always: Pollables = [(self.sub, IN), (self.router, IN)]
        self._pollables: Pollables | None = None
        self.undelivered: list[tuple[NodeKey | str, list[bytes]]] = []
        "Sends that failed so that surely nothing arrived; the loop empties it."
        self.answered: set[bytes] = set()
        "Routing ids that libzmq drew and a reply went to, so they are no peer's invention."
        self.strays = 0
        "Further frames of messages that should have had one."
        self.replies_lost: int = 0
        "Replies to clients that are gone or do not read."
        self.sends_lost: int = 0

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
        bound = []
        planes = (
            (self.router, request, "bind", self._requested_at),
            (self._pub, gossip, "gossip-bind", self._subscribed_at),
        )
        for socket, address, option, places in planes:
            taken, listeners = binding.bind(socket, address, option)
            bound.append(taken)
            self._listeners.add(listeners)
            places += listeners
        self.security.ports = frozenset({bound[0].port})
        self.floods.start(bound[0].port, bound[1].port)
        return bound[0], bound[1]

    def subscribe(self, topic: bytes) -> None:
        """Take gossip for this node's `topic`, and for everybody."""
        self.sub.setsockopt(zmq.SUBSCRIBE, topic)
        self.sub.setsockopt(zmq.SUBSCRIBE, TOPIC_ALL)

    def close(self) -> None:
        """Close every socket at once; what is not sent yet is lost. Idempotent."""
        self.floods.close()
        # Before the authenticator, which says who may connect.
        for socket in (self.router, self._pub):
            socket.close(0)
        self.security.close()
        self._context.destroy(linger=0)
        self._listeners.close()

    def connect(self, key: NodeKey, request: str, gossip: str, now: int) -> None:
        """Open DEALER and SUB to a member, or reopen those whose address changed."""
        peer = self._peers.get(key)
        if peer is not None and (peer.address, peer.gossip) == (request, gossip):
            return
        self.disconnect(key)
        if not self._admits(key):  # It would hear all that members hear.
            return
        peer = self._open_peer(request, gossip, now)
        if peer is not None:
            self._peers[key] = peer
            self.subscriptions.follow(peer)
        elif not descriptors.are_left(FILES_PER_MEMBER):
            self._unopened[key] = (request, gossip)

    def disconnect(self, key: NodeKey | str) -> None:
        """Close DEALERs and SUB to a member, or the DEALERs to an address, if they are open."""
        if isinstance(key, str):
            for address in self._resolver.addresses(key) if _is_dialable(key) else ():
                if address in self._seeds:
                    self._close_seed(address)
            return
        bulk = self._bulk.pop(key, None)
        if bulk is not None:
            bulk.close()
            self._give_up(key, bulk)
        self._unopened.pop(key, None)
        peer = self._peers.pop(key, None)
        if peer is None:
            return
        peer.close()
        self.subscriptions.leave(peer)
        self._give_up(key, peer)

    def _open_peer(
        self, address: str, gossip: str, now: int, *, listen: bool = False
    ) -> Peer | None:
        handshake = None
        try:
            socket = self._open(zmq.DEALER, DEALER | self._connecting)
        except zmq.ZMQError:  # No descriptor left: the member counts as unreachable.
            self.sends_lost += 1
            return None
        try:
            handshake = Handshake(socket, keyed=self.security.keyed) if listen else None
            dial = Dial(socket, address, self._resolver, self.security.credentials)
        except (zmq.ZMQError, ValueError):
            # What a peer calls its address may be no address at all.
            if handshake is not None:
                handshake.close()
            socket.close(0)
            return None
        dial.tend(now)
        self._pollables = None
        return Peer(socket, dial, address, gossip, now, handshake)

    @property
    def connections(self) -> int:
        """DEALERs that are open."""
        return len(self._peers) + len(self._bulk) + len(self._seeds)

    @property
    def files_short(self) -> bool:
        """True if the members connected to could exhaust the process's file descriptors."""
        return len(self._peers) * FILES_PER_MEMBER + FILES_OWN > self.files_max

    # ------------------------------------------------------------ sending

    def send(self, to: NodeKey | str, frames: list[bytes], now: int, *, bulk: bool = False) -> None:
        """Send to a member or a seed; a failure puts it on `undelivered`."""
        if isinstance(to, str):
            self._send_to_seed(to, frames, now)
            return
        peer = self._peers.get(to)
        if bulk and peer is not None:
            peer = self._bulk.get(to) or self._open_bulk(to, peer.address, now)
        if peer is None or not self._offer(peer, frames, now):
            self._lost(to, frames)

    def _open_bulk(self, key: NodeKey, address: str, now: int) -> Peer | None:
        peer = self._open_peer(address, "", now)
        if peer is not None:
            self._bulk[key] = peer
        return peer

    def _send_to_seed(self, to: str, frames: list[bytes], now: int) -> None:
        try:
            addresses = self._resolver.addresses(to)
            self._resolver.look_up(to)  # The answer will be there at the next attempt.
        except ValueError:  # What a peer calls its address may be no address at all.
            addresses = ()
        sent = False
        for address in addresses:
            seed = self._seed(address, now)
            sent = (seed is not None and self._offer(seed, frames, now)) or sent
        if not sent:
            self._lost(to, frames)

    def _seed(self, address: str, now: int) -> Peer | None:
        seed = self._seeds.get(address)
        if seed is None and self._has_place(now):
            seed = self._open_peer(address, "", now, listen=True)
            if seed is not None:
                self._seeds[address] = seed
        return seed

    def _has_place(self, now: int) -> bool:
        """Return whether there may be one more seed; the one not used for longest gives way."""
        if len(self._seeds) >= SEEDS_MAX:
            oldest = min(self._seeds, key=lambda address: self._seeds[address].used_at)
            if now - self._seeds[oldest].used_at > OPENING_NS:
                self._close_seed(oldest)
        return len(self._seeds) < SEEDS_MAX

    def _close_seed(self, address: str) -> None:
        seed = self._seeds.pop(address)
        seed.close()
        self._give_up(address, seed)

    def _offer(self, peer: Peer, frames: list[bytes], now: int) -> bool:
        """Send or keep `frames`; False if neither is possible."""
        peer.used_at = now
        if not peer.waiting and put(peer.socket, frames):
            return True
        size = sum(map(len, frames))
        if (
            now - peer.opened_at > OPENING_NS
            or len(peer.waiting) >= WAITING_MESSAGES_MAX
            or (peer.waiting and peer.waiting_bytes + size > WAITING_BYTES_MAX)
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
        put(self._pub, [topic, payload])

    def reply(self, route: bytes, frames: list[bytes]) -> bool:
        """Answer the client behind `route`; one that is gone is counted.

        False if it has so much unread that this reply must not be queued.
        """
        size = sum(map(len, frames))
        if not self.unread.admits(route, size):
            return False
        tracked = self.unread.tracks(route, size)
        tracker = put_tracked(self.router, [route, *frames]) if tracked else None
        if tracker is None and (tracked or not put(self.router, [route, *frames])):
            self.replies_lost += 1
            return True
        self.unread.sent(route, size, tracker)
        # An id that its client chose could stand in a frame of it and be taken for a routing id.
        if len(route) == DRAWN_BYTES and route[0] == 0:
            if len(self.answered) >= ANSWERED_MAX:  # Most are gone; the others come back at once.
                self.answered.clear()
            self.answered.add(route)
        return True

    def enforce(self) -> None:
        """End all connections with those whose keys are not allowed any more."""
        self.security.hang_up()
        for node in [key for key in self._peers if not self._admits(key)]:
            self.disconnect(node)
        changes = self.security.changes()
        if changes.server:
            self._rebind(self.router, self._requested_at, REQUESTS)
        if changes.server or changes.nodes_removed:  # Only libzmq knows the subscribers.
            self._rebind(self._pub, self._subscribed_at, GOSSIP)
        if changes.own:
            for peer in (*self._peers.values(), *self._bulk.values(), *self._seeds.values()):
                peer.dial.again()
            self.subscriptions.again()

    def _admits(self, node: NodeKey) -> bool:
        return self.security.nodes is None or node in self.security.nodes

    def _rebind(
        self, socket: zmq.Socket[bytes], listeners: list[net.socket], domain: bytes
    ) -> None:
        """End all connections to `socket`, and go on with the present key of the servers."""
        for option, value in self.security.serving(domain).items():
            socket.setsockopt(option, value)
        binding.rebind(socket, listeners)

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
            for peer in (*self._peers.values(), *self._bulk.values()):
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
        for key, peer in (*self._peers.items(), *self._bulk.items()):
            if peer.waiting:
                self._retry(key, peer, now)
        for address, seed in list(self._seeds.items()):
            if seed.waiting:
                self._retry(address, seed, now)
            elif now - seed.used_at > SEED_IDLE_NS:
                self._close_seed(address)

    def on_names(self, wake: Callable[[], None]) -> None:
        """Have `wake` called, by another thread, whenever `names_answered` has something to do."""
        self._resolver.on_answer = wake

    def names_answered(self, now: int) -> None:
        """Connect to what names mean now, where there is no connection."""
        for peer in self._peers.values():
            if peer.named:
                lost = self._redial(peer, now)
                self.subscriptions.follow(
                    peer, anew=lost
                )  # A member that moved did so with its gossip.
        for bulk in self._bulk.values():
            if bulk.dial.named:
                self._redial(bulk, now)

    def _redial(self, peer: Peer, now: int) -> bool:
        """Return whether the connection is lost; if so, dial what its name means now."""
        lost = not int(peer.socket.getsockopt(zmq.EVENTS)) & OUT
        if lost:
            peer.dial.tend(now)
        return lost

    def look(self, now: int) -> bool:
        """Look after names and descriptors; return whether these have just run out."""
        closely = now <= self._look_closely_until or self.security.changing
        self.look_at = now + (CLOSELY_NS if closely else LOOK_NS)
        self.names_answered(now)
        self._look_at_handshakes(now)
        short = self._listeners.look()
        if short:
            self._look_closely_until = now + CLOSELY_FOR_NS
        if self._unopened and descriptors.are_left(FILES_PER_MEMBER):
            for key, (request, gossip) in list(self._unopened.items()):
                self.connect(key, request, gossip, now)
        return short

    def _look_at_handshakes(self, now: int) -> None:
        """Hear which connections were turned away; libzmq does not try again by itself."""
        for watch in self._accepting:
            self.security.turned_away(watch.failures())
        for address, seed in self._seeds.items():
            if seed.handshake is not None:
                seed.handshake.hear()
                if why := seed.handshake.barred():
                    self.security.refusals.add("by_seed", address, text=why)
        self.subscriptions.look()
        if self.security.keyed:
            patience_ns = CHANGING_NS if self.security.changing else AGAIN_NS
            for peer in (*self._peers.values(), *self._bulk.values(), *self._seeds.values()):
                self._dial_again(peer, now, patience_ns)

    def _dial_again(self, peer: Peer, now: int, patience_ns: int) -> None:
        """Connect again where there has been no connection for a while."""
        if int(peer.socket.getsockopt(zmq.EVENTS)) & OUT:
            peer.lost_since = NEVER
        elif peer.lost_since == NEVER:
            peer.lost_since = now
        elif now - peer.lost_since >= patience_ns:
            peer.lost_since = now
            peer.dial.again()

    @property
    def deaf(self) -> bool:
        """Whether nobody new is listened to, because descriptors have run out."""
        return self._listeners.deaf

    @property
    def idle(self) -> bool:
        """True if `upkeep` has nothing to do until the next send."""
        return self._pollables is not None and len(self._pollables) == len(self._always)

    def _retry(self, to: NodeKey | str, peer: Peer, now: int) -> None:
        peer.dial.tend(now)
        while peer.waiting and put(peer.socket, peer.waiting[0]):
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


def _is_dialable(address: str) -> bool:
    """Return whether an address is one: what a peer calls so may be none at all."""
    try:
        is_numeric(address)
    except ValueError:
        return False
    return True


def _is_number(gossip: str) -> bool:
    """Return whether there is nothing to look up in a gossip address."""
    try:
        return not gossip or is_numeric(gossip)
    except ValueError:  # What a peer calls its address may be no address at all.
        return True
