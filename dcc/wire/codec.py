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

from dataclasses import MISSING, fields
from operator import attrgetter
from typing import Any, NamedTuple

import msgpack
from xxhash import xxh3_64_digest

from dcc.errors import ForeignCluster, MalformedMessage, UnsupportedVersion
from dcc.limits import (
    EXTRA_FRAMES_MAX,
    FRAME_BYTES_MAX,
    INLINE_VALUE_BYTES_MAX,
    VALUE_BYTES_MAX,
)
from dcc.wire.messages import TAG, WIRE, Message
from dcc.wire.shapes import Frames

MAGIC = b"dc"
PROTOCOL_VERSION = 1
PREFIX_BYTES = 8
HEADER_FIELDS = 7
"tag, sender, boot, epoch, hops, request, at: items of the array before the message's own."

ITEMS_MAX = 65_536
"Longest array or map in a frame: bounds what a hostile header can make msgpack allocate."

U64_MAX = (1 << 64) - 1


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


def _names(cls: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(cls))


def _getter(cls: type[Any]) -> Any:
    names = _names(cls)
    if len(names) > 1:
        return attrgetter(*names)
    return lambda message: tuple(getattr(message, name) for name in names)


def _required(cls: type[Any]) -> int:
    return sum(field.default is MISSING for field in fields(cls))


_FIELDS_OF = {cls: _getter(cls) for cls in TAG}
_ENCODERS = {
    cls: tuple((i, shape.encode) for i, shape in enumerate(cls.SHAPE) if shape.encode)
    for cls in TAG
}
_DECODERS = {
    tag: (cls, tuple(zip(_names(cls), cls.SHAPE, strict=True)), _required(cls))
    for tag, cls in WIRE.items()
}


class Codec:
    """Encodes as one sender, decodes for one cluster. Holds no state that a message changes."""

    def __init__(self, cluster: str, *, sender: int, boot: int) -> None:
        self.prefix = cluster_prefix(cluster)
        self._sender, self._boot = sender, boot
        self._pack = msgpack.Packer(autoreset=True).pack

    def encode(
        self, message: Message, *, epoch: int = 0, hops: int = 0, request: int = 0, at: int = 0
    ) -> list[bytes]:
        """Return the frames of `message`: the first, and one for each large value."""
        cls = type(message)
        frames: Frames = []
        values = _FIELDS_OF[cls](message)
        if _ENCODERS[cls]:
            values = list(values)
            for i, encode in _ENCODERS[cls]:
                values[i] = encode(values[i], frames)
        packed = self._pack((TAG[cls], self._sender, self._boot, epoch, hops, request, at, *values))
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
        if not frames:
            raise MalformedMessage("no frame")
        check_sizes(frames)
        self.check_prefix(frames[0])
        items = unpack_items(frames[0])
        header = _header(items)
        return header, _message(header.tag, items, frames[1:])

    def check_prefix(self, frame: bytes) -> None:
        """Raise the error that tells how the first 8 bytes differ, or return."""
        if frame.startswith(self.prefix):
            return
        if len(frame) < PREFIX_BYTES or not frame.startswith(MAGIC):
            raise MalformedMessage("not a dcc frame")
        if frame[2] != PROTOCOL_VERSION:
            raise UnsupportedVersion(f"protocol version {frame[2]}, spoken is {PROTOCOL_VERSION}")
        raise ForeignCluster("a frame of a cluster of another name")


def check_sizes(frames: Frames) -> None:
    """Raise MalformedMessage unless count and length of `frames` are within the limits."""
    if len(frames) > EXTRA_FRAMES_MAX + 1:
        raise MalformedMessage(f"{len(frames)} frames, at most {EXTRA_FRAMES_MAX + 1}")
    if len(frames[0]) > FRAME_BYTES_MAX:
        raise MalformedMessage(f"{len(frames[0])} bytes, at most {FRAME_BYTES_MAX}")
    for frame in frames[1:]:
        if not INLINE_VALUE_BYTES_MAX <= len(frame) <= VALUE_BYTES_MAX:
            raise MalformedMessage(f"a value frame of {len(frame)} bytes")


def unpack_items(frame: bytes) -> list[Any]:
    """Return the msgpack array behind the prefix; MalformedMessage for anything else."""
    try:
        items = msgpack.unpackb(
            frame[PREFIX_BYTES:], max_array_len=ITEMS_MAX, max_map_len=0, max_ext_len=0
        )
    except (ValueError, msgpack.exceptions.UnpackException, RecursionError) as error:
        raise MalformedMessage("not the msgpack of a message") from error
    if type(items) is not list or len(items) < HEADER_FIELDS:
        raise MalformedMessage("not an array with a header")
    return items


def _header(items: list[Any]) -> Header:
    for item in items[:HEADER_FIELDS]:
        if type(item) is not int or not 0 <= item <= U64_MAX:
            raise MalformedMessage("a header field is not an unsigned integer")
    return Header(*items[:HEADER_FIELDS])


def _message(tag: int, items: list[Any], frames: Frames) -> Message:
    if tag not in _DECODERS:
        raise MalformedMessage(f"unknown tag {tag}")
    cls, shapes, required = _DECODERS[tag]
    raw = items[HEADER_FIELDS:]
    if len(raw) < required:
        raise MalformedMessage(f"{cls.__name__} with {len(raw)} fields, needs {required}")
    # zip stops at the shorter side: fields that a newer sender appended are ignored, fields that
    # an older one does not know take their defaults.
    values = {
        name: shape.decode(one, frames) for (name, shape), one in zip(shapes, raw, strict=False)
    }
    made: Message = cls(**values)
    return made
