"""A near cache: copies of values in the client's own process, and when they may be served.

A copy is as good as a read of the node that it came from, at most `BOUND_MS` ago. That node tells
of each key of which it holds a newer version (`Changes`, on the gossip plane), numbers what it
tells, and says something every tenth of a second. So each node has a *stream*, and each copy
belongs to one:

- **A change** drops the copies that are older, and is remembered: a read that was under way
  meanwhile brings nothing older into the cache.
- **A gap** in the numbers, another life of the node, a new address of it: something was missed, so
  all copies of its stream are dropped.
- **Silence.** Copies are served only while the last message was written at most `BOUND_MS` ago, by
  cluster time. So it does not matter for how long a notice, or the gap that it left, is on its way.
  What comes after a silence drops the stream's copies: its node may have stood still.
- **Another view**: other nodes lead now. Each message of a node has the epoch of its view. When
  that changes, the stream's copies are dropped; when the client routes by another epoch, all are.
  A copy is kept only from a node of the epoch that the client routes by: a node of another epoch
  asks the new leader, and hears of no change there.
- **Own writes and newer reads** drop a copy before their call ends (`outlived`).

A read notes how often anything was dropped as it begins; if that has changed when it ends, its
value is not kept. Nor is it if so much was told meanwhile that some of it is forgotten. Copies end
with their ttl, and after `max_age`.

*Eviction.* New copies stand in a short queue; those that were hit in it go on to the long one, the
others go. A scan passes through the short queue and leaves the long one alone. What fell out of the
short queue lately, and is read again, goes to the long one at once.

Source: Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023, for the queues.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

from dcc.client.outlived import Outlived
from dcc.types import Boot, NodeKey, Stamp
from dcc.units import MIB, MILLISECOND, SECOND
from dcc.wire.codec import Header
from dcc.wire.messages import Changes

BOUND_MS = 250
"Two and a half beats of a node."
SHORT_SHARE = 10
"The short queue has one part in so many."
ENTRY_BYTES = 600
"What a copy takes beside its key and value: its slots in five tables, and the numbers."
WHOLE_PARTS = 8
"A value that takes more than one part in so many is not kept."


@dataclass(frozen=True, slots=True, kw_only=True)
class NearCache:
    """How large a near cache is, and for how long it keeps a copy.

    >>> NearCache(max_age=0)
    Traceback (most recent call last):
    ValueError: max_age: seconds above 0, got 0
    """

    max_entries: int = 10_000
    max_bytes: int = 64 * MIB
    max_age: float = 60.0
    "Seconds."

    def __post_init__(self) -> None:
        for name in ("max_entries", "max_bytes", "max_age"):
            value = getattr(self, name)
            number = int | float if name == "max_age" else int
            if isinstance(value, bool) or not isinstance(value, number):
                raise TypeError(f"{name}: a number, got {type(value).__name__}")
            if not 0 < value < float("inf"):
                what = "seconds above 0" if name == "max_age" else "above 0"
                raise ValueError(f"{name}: {what}, got {value}")


class Stream:
    """What one node tells, as far as it has come."""

    __slots__ = ("boot", "epoch", "expected", "generation", "good_until")

    def __init__(self) -> None:
        self.boot: Boot = 0
        self.epoch: int = 0
        "Of the view that the node has."
        self.expected: int = -1
        "The number that follows; -1: nothing was heard."
        self.good_until: int = 0
        "Monotonic ns."
        self.generation: int = 0
        "Copies of an earlier one are not served."


class Copy:
    """A value with all that decides whether it may be served."""

    __slots__ = (
        "filled_at",
        "generation",
        "name",
        "size",
        "stamp",
        "stream",
        "until",
        "used",
        "value",
    )

    def __init__(
        self,
        name: int,
        value: bytes,
        stamp: Stamp,
        stream: Stream,
        filled_at: int,
        until: int,
        size: int,
    ) -> None:
        self.name: int = name
        self.value: bytes = value
        self.stamp: Stamp = stamp
        self.stream: Stream = stream
        self.generation: int = stream.generation
        self.filled_at: int = filled_at
        self.until: int = until
        self.size: int = size
        self.used: bool = False


class Read(NamedTuple):
    """A read that may bring a copy: what is known as it begins."""

    drops: int
    forgets: int


class Near:
    """The copies of one client. Looking takes no lock, everything else does."""

    def __init__(
        self, options: NearCache, lock: AbstractContextManager[object] | None = None
    ) -> None:
        self.options = options
        self.hits: int = 0
        self.misses: int = 0
        self.invalidations: int = 0
        self.gaps: int = 0
        self.drops: int = 0
        self.age_ns: int = 0
        "Of all copies that were served, together."
        self.bytes_used: int = 0
        self._lock = lock or nullcontext()
        self._max_age_ns = round(options.max_age * SECOND)
        self._copies: dict[str, Copy] = {}
        self._names: dict[int, str] = {}
        "Hash of a key -> the key, of all copies."
        self._short: OrderedDict[str, None] = OrderedDict()
        self._long: OrderedDict[str, None] = OrderedDict()
        self._gone: OrderedDict[str, None] = OrderedDict()
        "Keys that have left the short queue lately."
        self._streams: dict[NodeKey, Stream] = {}
        self._epoch: int = 0
        "Of the view that the client routes by; 0: of none."
        self._noticed: Outlived = Outlived(nullcontext())
        "Hashes of keys, as bytes -> the newest stamp that anybody told."

    def __len__(self) -> int:
        return len(self._copies)

    # -------------------------------------------------------------- reading

    def find(self, key: str, mono: int) -> bytes | None:
        """Return the value of `key` if a copy may be served now."""
        copy = self._copies.get(key)
        if copy is None:
            self.misses += 1
            return None
        stream = copy.stream
        if mono >= stream.good_until or mono >= copy.until or copy.generation != stream.generation:
            self.misses += 1
            return None
        copy.used = True
        self.hits += 1
        self.age_ns += mono - copy.filled_at
        return copy.value

    def begin(self) -> Read:
        """Note what is known as a read of a node begins."""
        return Read(self.drops, self._noticed.forgets)

    def fill(
        self,
        key: str,
        name: int,
        value: bytes,
        stamp: Stamp,
        left_ms: int | None,
        node: NodeKey,
        read: Read,
        mono: int,
    ) -> None:
        """Keep what a read has brought from `node`, unless that may be old by now.

        Args:
            name: hash of the key, as nodes tell it.
            left_ms: until it expires; None = never.
        """
        with self._lock:
            stream = self._streams.get(node)
            if stream is None or mono >= stream.good_until or stream.epoch != self._epoch:
                return
            if read != self.begin():
                return
            if stamp < self._noticed.known(name.to_bytes(8, "big")):
                return
            size = ENTRY_BYTES + 2 * len(key) + len(value)
            if size * WHOLE_PARTS > self.options.max_bytes or self._names.get(name, key) != key:
                return
            held = self._copies.get(key)
            if held is not None and held.generation == stream.generation and held.stamp > stamp:
                return
            again = held is not None or key in self._gone
            if held is not None:
                self._remove(key)
            keep_ns = self._max_age_ns
            if left_ms is not None:
                keep_ns = min(keep_ns, left_ms * MILLISECOND)
            if keep_ns <= 0:
                return
            self._copies[key] = Copy(name, value, stamp, stream, mono, mono + keep_ns, size)
            self._names[name] = key
            self.bytes_used += size
            self._gone.pop(key, None)
            (self._long if again else self._short)[key] = None
            self._make_room()

    # -------------------------------------------------------------- what nodes tell

    def hear(self, header: Header, told: Changes, mono: int, now_ms: int) -> None:
        """Take what a node tells; `now_ms` is cluster time."""
        with self._lock:
            stream = self._streams.setdefault(header.sender, Stream())
            silent = mono >= stream.good_until > 0
            if header.boot != stream.boot or told.number > stream.expected or silent:
                if stream.expected >= 0:
                    self.gaps += 1
                self._drop(stream)
                stream.boot, stream.epoch = header.boot, header.epoch
                stream.expected = told.number
            if header.epoch != stream.epoch:
                self._drop(stream)
                stream.epoch = header.epoch
            stream.expected = max(stream.expected, told.number + len(told.keys))
            for name, stamp in zip(told.keys, told.stamps, strict=True):
                self._told(name, stamp)
            if told.cleared:
                self._clear(told.cleared)
            late_ms = max(0, now_ms - header.at)
            good_until = mono + (BOUND_MS - late_ms) * MILLISECOND
            stream.good_until = max(stream.good_until, good_until)

    def forget(self, name: int, stamp: Stamp) -> None:
        """Drop a copy that is older than what this client has written or read."""
        with self._lock:
            self._told(name, stamp)

    def route(self, epoch: int) -> None:
        """Note of which epoch the view is that the client routes by; drop all if it is another."""
        with self._lock:
            if epoch != self._epoch:
                self._epoch = epoch
                self._drop_all()

    def drop_all(self) -> None:
        """Drop everything: other nodes lead now."""
        with self._lock:
            self._drop_all()

    def counts(self) -> dict[str, int]:
        """Return what was counted, by the names of `counts()`."""
        return {
            "near_hits": self.hits,
            "near_misses": self.misses,
            "near_invalidations": self.invalidations,
            "near_gaps": self.gaps,
            "near_drops": self.drops,
            "near_entries": len(self._copies),
            "near_bytes": self.bytes_used,
            "near_age_ms": self.age_ns // MILLISECOND // max(1, self.hits),
        }

    def check(self) -> None:
        """Assert the invariants: every copy is in one queue, counted, and within the bounds."""
        assert self._short.keys() | self._long.keys() == self._copies.keys()
        assert len(self._short) + len(self._long) == len(self._copies) == len(self._names)
        assert self.bytes_used == sum(copy.size for copy in self._copies.values())
        assert len(self._copies) <= self.options.max_entries
        assert self.bytes_used <= self.options.max_bytes
        assert len(self._gone) <= self.options.max_entries

    # -------------------------------------------------------------- inside

    def _told(self, name: int, stamp: Stamp) -> None:
        self._noticed.note(name.to_bytes(8, "big"), stamp)
        key = self._names.get(name)
        if key is not None and self._copies[key].stamp < stamp:
            self._remove(key)
            self.invalidations += 1

    def _clear(self, cleared: Stamp) -> None:
        if cleared >= self._noticed.known(b""):
            self._noticed.cleared(cleared)
            for key in [key for key, copy in self._copies.items() if copy.stamp <= cleared]:
                self._remove(key)

    def _drop_all(self) -> None:
        self.drops += 1  # Also of reads under way from nodes that were not heard yet.
        for stream in self._streams.values():
            self._end(stream)
        for key in list(self._copies):
            self._remove(key)

    def _drop(self, stream: Stream) -> None:
        """Serve no copy of `stream` that is there, or on its way, any more."""
        self._end(stream)
        for key in [key for key, copy in self._copies.items() if copy.stream is stream]:
            self._remove(key)

    def _end(self, stream: Stream) -> None:
        stream.generation += 1
        stream.good_until = 0
        self.drops += 1

    def _remove(self, key: str) -> None:
        copy = self._copies.pop(key)
        del self._names[copy.name]
        self.bytes_used -= copy.size
        self._short.pop(key, None)
        self._long.pop(key, None)

    def _make_room(self) -> None:
        options = self.options
        while len(self._copies) > options.max_entries or self.bytes_used > options.max_bytes:
            if self._short and len(self._short) * SHORT_SHARE >= len(self._copies):
                self._leave_short()
            else:
                self._leave_long()

    def _leave_short(self) -> None:
        key, _ = self._short.popitem(last=False)
        copy = self._copies[key]
        if copy.used:
            copy.used = False
            self._long[key] = None
            return
        self._remove(key)
        self._gone[key] = None
        if len(self._gone) > self.options.max_entries:
            self._gone.popitem(last=False)

    def _leave_long(self) -> None:
        key, _ = (self._long or self._short).popitem(last=False)
        copy = self._copies[key]
        if copy.used:
            copy.used = False
            self._long[key] = None
        else:
            self._remove(key)
