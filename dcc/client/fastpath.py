"""The hot path: question and answer as bytes, without a message object in between.

Everything odd returns None and takes the ordinary path, which decodes again, so this file may be
terse but may not decide anything differently: it takes hits, misses and what became of a write from
nodes of the same epoch, in exactly the bytes that `Codec` reads and writes.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any, NamedTuple

import msgpack

from dcc.client.routing import View
from dcc.limits import (
    BATCH_BYTES,
    BATCH_KEYS_MAX,
    FRAME_BYTES_MAX,
    INLINE_VALUE_BYTES_MAX,
    KEY_BYTES_MAX,
)
from dcc.ring.hashing import slots_of
from dcc.types import Version
from dcc.wire.codec import HEADER_FIELDS, ITEMS_MAX, PREFIX_BYTES, Codec
from dcc.wire.messages import (
    TAG,
    Get,
    GetMany,
    GetManyReply,
    GetReply,
    Outcome,
    Status,
    Write,
    WriteReply,
)

GET, GET_REPLY = TAG[Get], TAG[GetReply]
GET_MANY, GET_MANY_REPLY = TAG[GetMany], TAG[GetManyReply]
WRITE, WRITE_REPLY = TAG[Write], TAG[WriteReply]
SETTLED = {int(one): one for one in (Outcome.DONE, Outcome.NOT_DONE)}
HIT, MISS, UNSURE = int(Status.HIT), int(Status.MISS), int(Status.UNSURE)
ITEMS = HEADER_FIELDS + len(GetReply.SHAPE)
"The last one, that the key is hot, is left out where it is not."
ITEMS_MANY = HEADER_FIELDS + len(GetManyReply.SHAPE)
"The last ones, stamps and hot keys, are left out where nothing was found or none is hot."
ITEMS_WRITTEN = HEADER_FIELDS + len(WriteReply.SHAPE)

ANSWER_BYTES_MAX = INLINE_VALUE_BYTES_MAX + 256
"A reply with the longest inline value is below; bounds what unpacking may allocate."

PLAIN_KEYS_MAX = min(BATCH_KEYS_MAX, 3 * BATCH_BYTES // (KEY_BYTES_MAX + 16))
"Keys of any length that surely fit one frame."

MS_MAX = 1 << 47
U64_MAX = (1 << 64) - 1
I64_MAX = (1 << 63) - 1


class Answer(NamedTuple):
    """A settled read."""

    value: bytes | None
    "None: absent."
    stamp: int
    "Of the value's version; 0 for a miss."
    hot: bool = False
    "So many read this key that its owners should be asked in turn."


class Hits(NamedTuple):
    """What a read of many keys has found; a list for each field, in one order."""

    keys: list[bytes]
    values: list[bytes]
    stamps: list[int]
    "Of the values' versions."
    hot: list[bytes]
    "Keys that so many read that their owners should be asked in turn."


class FastPath:
    """Asks and reads for one channel; not safe to share between threads."""

    def __init__(self, codec: Codec, *, sender: int, boot: int) -> None:
        self._prefix = codec.prefix
        self._sender, self._boot = sender, boot
        self._pack = msgpack.Packer(autoreset=True).pack
        self.at: Any = 0
        "Cluster ms at which the answer taken last was written; 0 = its node did not know."

    def question(
        self, key: bytes, epoch: int, request: int, at: int, direct: bool = False
    ) -> bytes:
        """Return the frame of a `Get`; the last fields, at their defaults, are left out."""
        items = (GET, self._sender, self._boot, epoch, 0, request, at, key, direct)
        packed: bytes = self._pack(items)
        return self._prefix + packed

    def change(self, write: Write, seen: int, epoch: int, request: int, at: int) -> bytes:
        """Return the frame of `write`, whose value must be inline, with `seen` as its own."""
        items = (
            WRITE, self._sender, self._boot, epoch, 0, request, at, write.op, write.key,
            write.value, write.ttl_ms, write.w, False, seen, write.expected, write.delta,
            write.initial, 0, write.if_present,
        )  # fmt: skip
        packed: bytes = self._pack(items)
        return self._prefix + packed

    def written(self, frame: bytes, request: int, epoch: int) -> WriteReply | None:
        """Return what `frame` says became of a write, or None: the ordinary path has to look."""
        items = self.unpack(frame, ANSWER_BYTES_MAX)
        if items is None or len(items) != ITEMS_WRITTEN:
            return None
        if items[5] != request or items[3] != epoch or items[0] != WRITE_REPLY:
            return None
        raw, version, number = items[HEADER_FIELDS:]
        if type(version) is not list or len(version) != 3:
            return None
        numbers = [*items[: HEADER_FIELDS + 1], *version]
        if set(map(type, numbers)) != {int} or type(number) is not int:
            return None
        if min(numbers) < 0 or number > I64_MAX:
            return None
        outcome = SETTLED.get(raw)
        if outcome is None:
            return None
        self.at = items[6]
        return WriteReply(outcome=outcome, version=Version(*version), number=number)

    def question_many(
        self, keys: list[bytes], epoch: int, request: int, at: int, direct: bool = False
    ) -> bytes:
        """Return the frame of a `GetMany`; `direct` at its default is left out."""
        items = (GET_MANY, self._sender, self._boot, epoch, 0, request, at, keys)
        packed: bytes = self._pack((*items, True) if direct else items)
        return self._prefix + packed

    def answer_many(self, frame: bytes, keys: list[bytes], request: int, epoch: int) -> Hits | None:
        """Return the hits in `frame`, or None: the ordinary path has to look.

        It must answer all of `keys` at once, with inline values.
        """
        items = self.unpack(frame)
        return self.many_in(items, keys, request, epoch) if items is not None else None

    def unpack(self, frame: bytes, bytes_max: int = FRAME_BYTES_MAX) -> list[Any] | None:
        """Return the array in `frame`, or None: the ordinary path has to look."""
        if len(frame) > bytes_max or not frame.startswith(self._prefix):
            return None
        try:
            items = msgpack.unpackb(frame[PREFIX_BYTES:], max_array_len=ITEMS_MAX)
        except (ValueError, TypeError, msgpack.exceptions.UnpackException):
            return None
        return items if type(items) is list else None

    def many_in(self, items: list[Any], keys: list[bytes], request: int, epoch: int) -> Hits | None:
        """Do what `answer_many` does with a frame that is unpacked already."""
        if len(items) != ITEMS_MANY:
            lacking = ITEMS_MANY - len(items)
            if lacking not in (1, 2):
                return None
            items = [*items, *([] for _ in range(lacking))]
        if items[5] != request or items[3] != epoch or items[0] != GET_MANY_REPLY:
            return None
        first, statuses, values, last, stamps, hot = items[HEADER_FIELDS:]
        header = items[: HEADER_FIELDS + 1]
        if set(map(type, header)) != {int} or min(header) < 0 or max(header) > U64_MAX:
            return None
        if first != 0 or last is not True or type(statuses) is not bytes:
            return None
        if len(statuses) != len(keys) or max(statuses, default=0) > UNSURE:
            return None
        if type(hot) is not list or (hot and set(map(type, hot)) != {bytes}):
            return None
        if hot and not set(keys).issuperset(hot):
            return None
        self.at = items[6]
        return _hits(keys, statuses, values, stamps, hot)

    def answer(self, frame: bytes, request: int, epoch: int) -> Answer | None:
        """Return the answer in `frame` to `request`, or None: the ordinary path has to look.

        Values in a frame of their own, too, are left to the ordinary path.
        """
        items = self.unpack(frame, ANSWER_BYTES_MAX)
        return self.one_in(items, request, epoch) if items is not None else None

    def one_in(self, items: list[Any], request: int, epoch: int) -> Answer | None:
        """Do what `answer` does with a frame that is unpacked already."""
        hot = False
        if len(items) == ITEMS:
            hot = items[-1]
            if type(hot) is not bool:
                return None
            items = items[:-1]
        if len(items) != ITEMS - 1:
            return None
        tag, sender, boot, of, hops, number, at, status, version, value, end = items
        if number != request or of != epoch or tag != GET_REPLY:
            return None
        if type(version) is not list or len(version) != 3 or type(value) is not bytes:
            return None
        stamp, node, life = version
        # True == 1 and 1.0 == 1 to Python, but not to the protocol. msgpack's end at 64 bits.
        if not (
            type(tag) is type(sender) is type(boot) is type(of) is type(hops) is type(number)
            is type(at) is type(status) is type(stamp) is type(node) is type(life) is type(end)
            is int
        ):  # fmt: skip
            return None
        if min(sender, boot, hops, at, stamp, node, life, end) < 0 or end > MS_MAX:
            return None
        self.at = at
        if status == HIT and len(value) < INLINE_VALUE_BYTES_MAX:
            return Answer(value, stamp, hot)
        return Answer(None, 0) if status == MISS else None


def plain_groups(
    view: View, sick: Container[str], keys: list[bytes]
) -> dict[str, list[bytes]] | None:
    """Return `keys` by their primaries' addresses, if all are well and one message does for each.

    None: the ordinary path has to group them.
    """
    slots = slots_of(keys)
    addresses = [view.primaries[slot] for slot in slots]
    distinct = dict.fromkeys(addresses)
    if None in distinct:
        addresses = [view.primary(slot) for slot in slots]
        distinct = dict.fromkeys(addresses)
    if len(keys) > PLAIN_KEYS_MAX or any(one is None or one in sick for one in distinct):
        return None
    if len(distinct) == 1:
        return {one: keys for one in distinct if one is not None}
    groups: dict[str, list[bytes]] = {one: [] for one in distinct if one is not None}
    for key, address in zip(keys, addresses, strict=True):
        assert address is not None
        groups[address].append(key)
    return groups


def _hits(
    keys: list[bytes], statuses: bytes, values: object, stamps: object, hot: list[bytes]
) -> Hits | None:
    if type(values) is not list or len(values) != statuses.count(HIT):
        return None
    if type(stamps) is not list or len(stamps) != len(values):
        return None
    if stamps and (set(map(type, stamps)) != {int} or min(stamps) < 0):
        return None
    if values and (
        set(map(type, values)) != {bytes} or max(map(len, values)) >= INLINE_VALUE_BYTES_MAX
    ):
        return None
    if len(values) == len(keys):
        return Hits(keys, values, stamps, hot)
    hits = [key for key, status in zip(keys, statuses, strict=True) if status == HIT]
    return Hits(hits, values, stamps, hot)
