"""The hot path of a get: question and answer as bytes, without a message object in between.

Everything odd returns None and takes the ordinary path, which decodes again, so this file may be
terse but may not decide anything differently: it takes a hit or an authoritative miss from a node
of the same epoch, in exactly the bytes that `Codec` reads and writes.
"""

from __future__ import annotations

from typing import NamedTuple

import msgpack

from dcc.limits import INLINE_VALUE_BYTES_MAX
from dcc.wire.codec import HEADER_FIELDS, PREFIX_BYTES, Codec
from dcc.wire.messages import TAG, Get, GetReply, Status

GET, GET_REPLY = TAG[Get], TAG[GetReply]
HIT, MISS = int(Status.HIT), int(Status.MISS)
ITEMS = HEADER_FIELDS + len(GetReply.SHAPE)
VERSION = HEADER_FIELDS + 1
"Where the version stands; all before it are integers."

FRAME_BYTES_MAX = INLINE_VALUE_BYTES_MAX + 256
"A reply with the longest inline value is below; bounds what unpacking may allocate."

MS_MAX = 1 << 47
U64_MAX = (1 << 64) - 1


class Answer(NamedTuple):
    """A settled read."""

    value: bytes | None
    "None: absent."
    stamp: int
    "Of the value's version; 0 for a miss."


class FastPath:
    """Asks and reads for one channel; not safe to share between threads."""

    def __init__(self, codec: Codec, *, sender: int, boot: int) -> None:
        self._prefix = codec.prefix
        self._sender, self._boot = sender, boot
        self._pack = msgpack.Packer(autoreset=True).pack

    def question(self, key: bytes, epoch: int, request: int, at: int) -> bytes:
        """Return the frame of `Get(key=key)`."""
        items = (GET, self._sender, self._boot, epoch, 0, request, at, key, False)
        packed: bytes = self._pack(items)
        return self._prefix + packed

    def answer(self, frame: bytes, request: int, epoch: int) -> Answer | None:
        """Return the answer in `frame` to `request`, or None: the ordinary path has to look.

        Values in a frame of their own, too, are left to the ordinary path.
        """
        if len(frame) > FRAME_BYTES_MAX or not frame.startswith(self._prefix):
            return None
        try:
            items = msgpack.unpackb(frame[PREFIX_BYTES:])
        except (ValueError, TypeError, msgpack.exceptions.UnpackException):
            return None
        if type(items) is not list or len(items) != ITEMS or type(items[VERSION]) is not list:
            return None
        if items[5] != request or items[3] != epoch or items[0] != GET_REPLY:
            return None
        status, version, value, end = items[HEADER_FIELDS:]
        numbers = [*items[:VERSION], *version, end]
        # True == 1 and 1.0 == 1 to Python, but not to the protocol.
        if len(version) != 3 or set(map(type, numbers)) != {int} or type(value) is not bytes:
            return None
        if min(numbers) < 0 or max(numbers) > U64_MAX or end > MS_MAX:
            return None
        if status == HIT and len(value) < INLINE_VALUE_BYTES_MAX:
            return Answer(value, version[0])
        return Answer(None, 0) if status == MISS else None
