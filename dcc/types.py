"""Values that every layer shares: names, versions, records, members, settings, time.

They are named tuples because they travel: msgpack packs a tuple without a conversion.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from xxhash import xxh3_64_intdigest

NodeKey = int
"The 64-bit xxh3 hash of a node's name; its topic on the gossip plane."

Boot = int
"Start time in ms and 16 random bits: `start_ms << 16 | random`. One life of a process."

Stamp = int
"Hybrid logical time: cluster milliseconds << 16 | counter."

Origin = tuple[NodeKey, Boot]
"Who stamps: one life of one node. The unit of a slot clock."


def node_key(name: str) -> NodeKey:
    """Return the 64-bit key of a node called `name` (part of the protocol)."""
    return xxh3_64_intdigest(name.encode())


def topic_of(key: NodeKey) -> bytes:
    """Return the 8-byte gossip topic of the node `key`.

    Fixed width is a must: a ZeroMQ subscription is a prefix match.

    >>> len(topic_of(1))
    8
    """
    return key.to_bytes(8, "big")


TOPIC_ALL = b"\xff" * 8
"Gossip for every node. A node whose key equals it is refused at start."

CLIENTS = (1 << 64) - 2
"In the place of a node's key: for all clients. Likewise."


class Role(IntEnum):
    """What a key is for."""

    CLIENT = 0
    "Reads and writes data."
    ADMIN = 1
    "A client that may also change what the whole cluster shares."
    NODE = 2
    "Speaks as the member whose name its key is bound to, and as nobody else."


class Identity(NamedTuple):
    """Who is on a connection, as its key says. Where no keys are used there is none."""

    role: Role
    name: str
    node: NodeKey = 0
    "NODE: the member that it is; 0 for the others."
    read_only: bool = False
    prefixes: tuple[bytes, ...] = ()
    "Only keys that begin with one of these; empty: every key."

    @property
    def limited(self) -> bool:
        """Whether what it sends has to be looked at before a short path may answer it.

        It may not do all that a client may: it is bound to some keys, or a node, which makes no
        requests of its own.
        """
        return self.read_only or bool(self.prefixes) or self.role is Role.NODE


class Now(NamedTuple):
    """One reading of both clocks, taken once a turn by the shell or the simulator."""

    mono: int
    "Monotonic nanoseconds; deadlines and timers."

    wall: int
    "Nanoseconds since 1970 by the machine's clock; only the cluster clock looks at it."


class Trust(IntEnum):
    """How far cluster time is agreed upon; see `dcc.clock`."""

    FREE = 0
    "Nothing was stamped by it yet: it may step."
    ANCHORED = 1
    "It goes on as it is, until three clocks or more have been read."
    CONFIRMED = 2
    "More than half of three clocks or more agreed on it; own clocks count no more."


class Claim(NamedTuple):
    """What a member says of cluster time, relative to its own clock, in ms."""

    offset_ms: int
    "Cluster time minus the member's own clock, now."
    target_ms: int
    "Where the offset is being slewed to; the offset itself if it rests."
    trust: Trust
    ahead: bool
    "Its stamps lie in the future: others should stamp for it."


FREE_CLAIM = Claim(0, 0, Trust.FREE, False)

NOT_HEARD = -(1 << 63)
"In an `Ack` that answers no ping of the receiver's own."


class Version(NamedTuple):
    """What makes a write newest: a total order, larger wins.

    >>> Version(2, 1, 1) > Version(1, 9, 9)
    True
    >>> Version.parse(str(Version(65536, 10, 11))) == Version(65536, 10, 11)
    True
    """

    stamp: Stamp
    node: NodeKey
    boot: Boot

    def __str__(self) -> str:
        return f"{self.stamp:x}-{self.node:x}-{self.boot:x}"

    @classmethod
    def parse(cls, text: str) -> Version:
        """Return the version that `str()` printed; ValueError for any other text."""
        stamp, node, boot = (int(part, 16) for part in text.split("-"))
        return cls(stamp, node, boot)

    @property
    def origin(self) -> Origin:
        """The life of a node that stamped this version."""
        return (self.node, self.boot)


NO_VERSION = Version(0, 0, 0)
"Below every version; stands for absence on the wire."


class Kind(IntEnum):
    """What a record says of its key. Only VALUE has bytes; the others keep the version."""

    VALUE = 0
    TOMBSTONE = 1
    "Deleted by a client."
    EVICTED = 2
    "A ghost: this version is known here, its value was evicted (or never came)."
    EXPIRED = 3
    "Its time is over; must still hide older versions."


class Record(NamedTuple):
    """One version of one key, as it travels between nodes. Never changed on the way."""

    key: bytes
    kind: Kind
    value: bytes
    "Empty unless `kind` is VALUE."
    version: Version
    expires_at_ms: int
    "Cluster milliseconds; 0 = never."
    prev: Stamp
    "The stamp of this origin's previous write in the slot; 0 when there was none. -1: not said."


PREV_UNKNOWN = -1
"The sender's clock covers the record, so its predecessor no longer matters."


class Standing(IntEnum):
    """A member's standing. At one incarnation the larger wins: merging is `max`."""

    ALIVE = 0
    SUSPECT = 1
    DEAD = 2
    REMOVED = 3
    "Dead for longer than the rebalance delay: no longer in the ring."
    LEFT = 4


class Pace(IntEnum):
    """What one member thinks of how fast another one answers, relative to the others."""

    UNKNOWN = 0
    WELL = 1
    SLOW = 2


class Member(NamedTuple):
    """One row of the membership table, and a rumor when it travels."""

    name: str
    request: str
    "host:port of its ROUTER."
    gossip: str
    "host:port of its PUB."
    zone: str
    weight: float
    "Share of slots relative to others; > 0."
    boot: Boot
    incarnation: int
    "Starts at the start time in ms; raised only by the member itself."
    standing: Standing
    since_ms: int
    "Cluster milliseconds at which this standing was first claimed; retention counts from it."
    draining: bool
    "Leaving: owns no slot any more, still serves what it holds."
    accuser: NodeKey = 0
    "SUSPECT and DEAD: who claims it, so that independent accusers can be counted. 0 = nobody."
    filling: bool = False
    "New, and has not pulled all its slots yet: owns them, but leads none that another owner can."
    slow: bool = False
    "The others found it many times slower than the rest: it leads nothing that another owner can."
    stamps_above: Stamp = 0
    "All stamps of this life are larger; 0 = not known."

    @property
    def follows(self) -> bool:
        """Whether it comes behind the other owners in every route."""
        return self.filling or self.slow

    @property
    def key(self) -> NodeKey:
        """The node key, a hash of the name."""
        return node_key(self.name)

    @property
    def precedence(self) -> tuple[int, int]:
        """What merging compares: a higher incarnation wins, then the graver standing."""
        return (self.incarnation, self.standing)

    @property
    def in_ring(self) -> bool:
        """Down is not removed: ALIVE, SUSPECT and DEAD members keep their place."""
        return self.standing <= Standing.DEAD


class Settings(NamedTuple):
    """What the whole cluster shares; merged field by field, the larger stamp wins."""

    replicas: int
    "Copies beyond the primary, 0..REPLICAS_MAX."
    replicas_stamp: Stamp
    "When it was set; 0 = a node's own start option, not yet the cluster's word."
    cleared: Stamp
    "Versions at or below are absent everywhere; 0 = never cleared."

    def merge(self, other: Settings) -> Settings:
        """Return the join of both: commutative, associative, idempotent.

        Two start options that nobody has set yet join to the larger count of copies.

        >>> Settings(1, 5, 0).merge(Settings(2, 4, 9))
        Settings(replicas=1, replicas_stamp=5, cleared=9)
        """
        stamp, replicas = max(
            (self.replicas_stamp, self.replicas), (other.replicas_stamp, other.replicas)
        )
        return Settings(replicas, stamp, max(self.cleared, other.cleared))
