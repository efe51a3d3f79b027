"""Bytes to messages and back: the only place that meets a peer's bytes.

A message is one frame, and value frames behind it:

    8 bytes   b"dc", protocol version, 5 bytes of the cluster name's hash
    msgpack   [tag, sender, boot, epoch, hops, request, at, field, field, …]

What never changes is folded into the first 8 bytes, so that the wrong cluster and the wrong
version are known by one comparison. Decoding goes from cheap to dear: size, prefix, msgpack with
limits, header, tag, fields; any failure is a `PeerError` and nothing was allocated beyond a small
multiple of the frame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, fields, replace
from functools import partial
from operator import attrgetter
from typing import Any, NamedTuple

import msgpack
from xxhash import xxh3_64_digest

from dcc.errors import ForeignCluster, MalformedMessage, PeerError, UnsupportedVersion
from dcc.limits import (
    EXTRA_FRAMES_MAX,
    FRAME_BYTES_MAX,
    INLINE_VALUE_BYTES_MAX,
    VALUE_BYTES_MAX,
)
from dcc.types import NO_VERSION, PREV_UNKNOWN, Kind
from dcc.wire.messages import (
    TAG,
    WIRE,
    Code,
    ErrorReply,
    FetchReply,
    Message,
    PullReply,
    Replicate,
)
from dcc.wire.shapes import RECORD, Frames, ghost_of

MAGIC = b"dc"
PROTOCOL_VERSION = 1
PREFIX_BYTES = 8
HEADER_FIELDS = 7
"tag, sender, boot, epoch, hops, request, at: items of the array before the message's own."

ITEMS_MAX = 65_536
"Longest array in a frame."

UNWALKED_BYTES_MAX = 1_024
"Frames up to here are unpacked at once: nested headers in them claim less than 3 MB together."


class Header(NamedTuple):
    """What every message says of its sender and itself."""

    tag: int
    sender: int
    "Node key of the sender; for a client its random 64-bit id."
    boot: int
    "The sender's boot; a client draws one per process."
    epoch: int
    "Hash of the sender's placement inputs; 0 = a client that knows none yet."
    hops: int
    "0 from a client, 1 when forwarded by a node."
    request: int
    "The asker's number for the request; its answer repeats it. 0 where nothing is answered."
    at: int
    "Requests: deadline in cluster ms (0 = none). Answers and gossip: the sender's cluster ms."


def cluster_prefix(cluster: str) -> bytes:
    """Return the 8 bytes that open every frame of the cluster called `cluster`."""
    return MAGIC + bytes([PROTOCOL_VERSION]) + xxh3_64_digest(cluster.encode())[:5]


class _Layout:
    """How one class of message is taken apart and put together; built once at import.

    A message is filled through its slots' descriptors: the constructor of a frozen dataclass of
    eleven fields costs more than unpacking and checking all of them. What it would do is done.
    """

    def __init__(self, tag: int, cls: type[Any]) -> None:
        own = fields(cls)
        assert len(own) == len(cls.SHAPE), f"{cls.__name__}: one shape per field"
        self.tag, self.cls = tag, cls
        self.values_of = _getter([field.name for field in own])
        self.encoders = tuple(
            (i, shape.encode) for i, shape in enumerate(cls.SHAPE) if shape.encode
        )
        self.fields = tuple(
            (shape.decode, getattr(cls, field.name).__set__)
            for shape, field in zip(cls.SHAPE, own, strict=True)
        )
        self.required = sum(field.default is MISSING for field in own)
        self.defaults = tuple(field.default for field in own)
        self.fits = getattr(cls, "fits", None)

    def decode(self, items: list[Any], frames: Frames) -> Any:
        """Return the message in `items` behind the header; MalformedMessage if it is none.

        Fields that a newer sender appended are ignored, those that an older one does not know
        take their defaults.
        """
        raw = items[HEADER_FIELDS:]
        message = _new(self.cls)
        # zip stops at the shorter side.
        for (check, fill), item in zip(self.fields, raw, strict=False):
            fill(message, check(item, frames))
        if len(raw) < len(self.fields):
            self._default(message, len(raw))
        if self.fits and not self.fits(message):
            raise MalformedMessage(f"the fields of a {self.cls.__name__} contradict each other")
        return message

    def _default(self, message: Any, given: int) -> None:
        if given < self.required:
            raise MalformedMessage(f"{self.cls.__name__} with {given} fields")
        for i in range(given, len(self.fields)):
            self.fields[i][1](message, self.defaults[i])


_new = object.__new__
_new_header = partial(tuple.__new__, Header)


def _getter(names: list[str]) -> Callable[[Any], Any]:
    if len(names) > 1:
        return attrgetter(*names)
    return lambda message: tuple([getattr(message, name) for name in names])


_BY_TAG = {tag: _Layout(tag, cls) for tag, cls in WIRE.items()}
_BY_CLASS = {layout.cls: layout for layout in _BY_TAG.values()}


_RECORDS_AT = {
    TAG[cls]: HEADER_FIELDS + [field.name for field in fields(cls)].index("records")
    for cls in (FetchReply, Replicate, PullReply)
}
"Messages between nodes that carry records, and where in the array these stand."
STAND_IN = [b"-", int(Kind.EVICTED), b"", list(NO_VERSION), 0, PREV_UNKNOWN]


class Codec:
    """Encodes as one sender, decodes for one cluster. Holds no state that a message changes."""

    def __init__(self, cluster: str, *, sender: int, boot: int) -> None:
        self.prefix: bytes = cluster_prefix(cluster)
        self._sender, self._boot = sender, boot
        self._pack = msgpack.Packer(autoreset=True).pack

    def encode(
        self, message: Message, *, epoch: int = 0, hops: int = 0, request: int = 0, at: int = 0
    ) -> list[bytes]:
        """Return the frames of `message`: the first, and one for each large value."""
        layout = _BY_CLASS[type(message)]
        frames: Frames = []
        values = layout.values_of(message)
        if layout.encoders:
            values = list(values)
            for i, encode in layout.encoders:
                values[i] = encode(values[i], frames)
        packed = self._pack(
            (layout.tag, self._sender, self._boot, epoch, hops, request, at, *values)
        )
        return [self.prefix + packed, *frames]

    def relay(self, frames: Frames, *, epoch: int, hops: int, request: int) -> Frames:
        """Return an already checked message under this sender's header, its fields untouched."""
        items = unpack_items(frames[0])
        items[1:6] = (self._sender, self._boot, epoch, hops, request)
        return [self.prefix + self._pack(items), *frames[1:]]

    def decode(self, frames: Frames) -> tuple[Header, Message]:
        """Return header and message of `frames`.

        Raises:
            MalformedMessage, UnsupportedVersion, ForeignCluster: nothing else, for any bytes.
        """
        if len(frames) != 1 or len(frames[0]) > FRAME_BYTES_MAX:
            check_sizes(frames)
        first = frames[0]
        if not first.startswith(self.prefix):
            raise self._stranger(first)
        items = unpack_items(first)
        header = _header(items)
        layout = _BY_TAG.get(header.tag)
        if layout is None:
            raise MalformedMessage(f"unknown tag {header.tag}")
        message: Message = layout.decode(items, frames[1:])
        return header, message

    def salvage(self, frames: Frames) -> tuple[Header, Message, frozenset[int]]:
        """Return a message that `decode` refuses for single records of it, without those.

        Of such a record nothing is taken but that its version exists: in its place stands a ghost.
        The third item names these places. A node of another release may hold what this one cannot
        read, and one record must not keep all that travels with it from arriving.

        Raises:
            MalformedMessage: it is refused for anything else.
        """
        check_sizes(frames)
        self.check_prefix(frames[0])
        items = unpack_items(frames[0])
        header = _header(items)
        place = _RECORDS_AT.get(header.tag)
        if place is None or len(items) <= place or type(items[place]) is not list:
            raise MalformedMessage("no list of records")
        ghosts = {}
        for i, raw in enumerate(items[place]):
            try:
                RECORD.decode(raw, list(frames[1:]))
            except MalformedMessage:
                ghosts[i] = ghost_of(raw)
                items[place][i] = STAND_IN
        message: Any = _BY_TAG[header.tag].decode(items, frames[1:])
        records = [ghosts.get(i, record) for i, record in enumerate(message.records)]
        return header, replace(message, records=tuple(records)), frozenset(ghosts)

    def check_prefix(self, frame: bytes) -> None:
        """Raise the error that tells how the first 8 bytes differ, or return."""
        if not frame.startswith(self.prefix):
            raise self._stranger(frame)

    def _stranger(self, frame: bytes) -> PeerError:
        if len(frame) < PREFIX_BYTES or not frame.startswith(MAGIC):
            return MalformedMessage("not a dcc frame")
        if frame[2] != PROTOCOL_VERSION:
            return UnsupportedVersion(f"protocol version {frame[2]}, spoken is {PROTOCOL_VERSION}")
        return ForeignCluster(_refusal_in(frame) or "a frame of a cluster of another name")


def _refusal_in(frame: bytes) -> str:
    """Return what a node of another cluster says in `frame`, empty if it is no refusal.

    It names the cluster there. A stranger's text ends up in errors and logs, so it is held short.
    """
    if len(frame) > UNWALKED_BYTES_MAX:
        return ""
    try:
        items = unpack_items(frame)
        if items[:1] != [TAG[ErrorReply]]:
            return ""
        refusal: ErrorReply = _BY_TAG[TAG[ErrorReply]].decode(items, [])
    except MalformedMessage:
        return ""
    wrong = refusal.code is Code.WRONG_CLUSTER and refusal.text.isprintable()
    return refusal.text if wrong else ""


def check_sizes(frames: Frames) -> None:
    """Raise MalformedMessage unless count and length of `frames` are within the limits."""
    if not frames:
        raise MalformedMessage("no frame")
    if len(frames) > EXTRA_FRAMES_MAX + 1:
        raise MalformedMessage(f"{len(frames)} frames, at most {EXTRA_FRAMES_MAX + 1}")
    if len(frames[0]) > FRAME_BYTES_MAX:
        raise MalformedMessage(f"{len(frames[0])} bytes, at most {FRAME_BYTES_MAX}")
    for frame in frames[1:]:
        if not INLINE_VALUE_BYTES_MAX <= len(frame) <= VALUE_BYTES_MAX:
            raise MalformedMessage(f"a value frame of {len(frame)} bytes")


def unpack_items(frame: bytes) -> list[Any]:
    """Return the msgpack array behind the prefix; MalformedMessage for anything else.

    msgpack allocates an array when it meets its header. So that headers alone, nested a thousand
    deep, cannot claim gigabytes, a longer frame is walked first without building anything: every
    claimed item is then known to stand in the frame, at a byte or more each.
    """
    packed = frame[PREFIX_BYTES:]
    items_max = UNWALKED_BYTES_MAX
    try:
        if len(packed) > UNWALKED_BYTES_MAX:
            walker = msgpack.Unpacker(max_buffer_size=FRAME_BYTES_MAX)
            walker.feed(packed)
            walker.skip()
            items_max = ITEMS_MAX
        items = msgpack.unpackb(packed, max_array_len=items_max, max_map_len=0, max_ext_len=0)
    except (ValueError, msgpack.exceptions.UnpackException, RecursionError) as error:
        raise MalformedMessage("not the msgpack of a message") from error
    if type(items) is not list or len(items) < HEADER_FIELDS:
        raise MalformedMessage("not an array with a header")
    return items


def _header(items: list[Any]) -> Header:
    head = items[:HEADER_FIELDS]
    a, b, c, d, e, f, g = head
    # The upper bound is msgpack's own; comparing types also refuses booleans.
    whole = type(a) is type(b) is type(c) is type(d) is type(e) is type(f) is type(g) is int
    if not whole or min(head) < 0:
        raise MalformedMessage("a header field is not an unsigned integer")
    header: Header = _new_header(head)
    return header
