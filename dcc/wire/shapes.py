"""Shapes: what one field of a message may be, checked before a message exists.

A shape turns what msgpack decoded into the field's value or raises `MalformedMessage`; it never
trusts a length or a type that a peer sent. Only shapes that can carry a value's bytes have an
encoder; all other fields are packed as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from functools import lru_cache, partial
from typing import Any, NamedTuple

from dcc.errors import MalformedMessage
from dcc.limits import (
    ADDRESS_BYTES_MAX,
    BATCH_KEYS_MAX,
    EXTRA_FRAMES_MAX,
    INLINE_VALUE_BYTES_MAX,
    KEY_BYTES_MAX,
    MEMBERS_MAX,
    NAME_BYTES_MAX,
    REPLICAS_MAX,
    SLOT_COUNT,
)
from dcc.types import (
    PREV_UNKNOWN,
    Claim,
    Kind,
    Member,
    Pace,
    Record,
    Settings,
    Standing,
    Trust,
    Version,
)

Frames = list[bytes]
"The value frames behind a message's first frame, in order. Decoding empties those it takes."

MS_MAX = 1 << 47
_KINDS = {int(kind): kind for kind in Kind}
_HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?\]|[A-Za-z0-9._-]+):[1-9][0-9]{0,4}")


class Shape(NamedTuple):
    """Decoder of one field and, where it can hold value bytes, its encoder."""

    decode: Callable[[Any, Frames], Any]
    encode: Callable[[Any, Frames], Any] | None = None
    plain: tuple[int, int] | None = None
    "Any bytes of these lengths, ends included, decode to themselves: many at once may be."


def malformed(what: str, got: object) -> MalformedMessage:
    """Return the error for a field that should have been `what`."""
    return MalformedMessage(f"expected {what}, got {type(got).__name__}")


def _int(low: int, high: int) -> Shape:
    def decode(raw: Any, _frames: Frames) -> int:
        # bool is an int to Python but not to other languages' msgpack.
        if type(raw) is not int or not low <= raw <= high:
            raise malformed(f"an integer {low}..{high}", raw)
        return raw

    return Shape(decode)


def _bytes(low: int, high: int) -> Shape:
    def decode(raw: Any, _frames: Frames) -> bytes:
        if type(raw) is not bytes or not low <= len(raw) <= high:
            raise malformed(f"{low}..{high} bytes", raw)
        return raw

    return Shape(decode, plain=(low, high))


def _text(low: int, high: int) -> Shape:
    def decode(raw: Any, _frames: Frames) -> str:
        if type(raw) is not str or not low <= len(raw.encode()) <= high:
            raise malformed(f"text of {low}..{high} bytes", raw)
        return raw

    return Shape(decode)


def _enum(kind: type[IntEnum]) -> Shape:
    members = {int(member): member for member in kind}

    def decode(raw: Any, _frames: Frames) -> IntEnum:
        member = members.get(raw) if type(raw) is int else None
        if member is None:
            raise malformed(kind.__name__, raw)
        return member

    return Shape(decode)


def _bool(raw: Any, _frames: Frames) -> bool:
    if type(raw) is not bool:
        raise malformed("a boolean", raw)
    return raw


def _weight(raw: Any, _frames: Frames) -> float:
    # Other languages' msgpack may write 1.0 as an integer.
    if type(raw) not in (float, int) or not 0.0 < raw <= 1e6:
        raise malformed("a weight above 0", raw)
    return float(raw)


def _label(low: int) -> Shape:
    text = _text(low, NAME_BYTES_MAX).decode

    def decode(raw: Any, frames: Frames) -> str:
        label: str = text(raw, frames)
        # Labels end up in logs, metrics and terminals.
        if not label.isprintable():
            raise malformed("printable text", raw)
        return label

    return Shape(decode)


@lru_cache(maxsize=MEMBERS_MAX)
def _is_address(text: str) -> bool:
    # Remembered: every gossip message names the same few members.
    fits = len(text) <= ADDRESS_BYTES_MAX and _HOST_PORT.fullmatch(text) is not None
    return fits and int(text.rpartition(":")[2]) <= 65_535


def _address(raw: Any, _frames: Frames) -> str:
    if type(raw) is not str or not _is_address(raw):
        raise malformed("host:port", raw)
    return raw


def _value_in(raw: Any, frames: Frames) -> bytes:
    if type(raw) is bytes and len(raw) < INLINE_VALUE_BYTES_MAX:
        return raw
    if type(raw) is int and 0 <= raw < len(frames) and frames[raw]:
        value = frames[raw]
        # Taken once: else a thousand records could name one large frame.
        frames[raw] = b""
        return value
    raise malformed("an inline value or the number of a frame", raw)


def _value_out(value: bytes, frames: Frames) -> bytes | int:
    if len(value) < INLINE_VALUE_BYTES_MAX:
        return value
    assert len(frames) < EXTRA_FRAMES_MAX, "batches are cut before they have too many frames"
    frames.append(value)
    return len(frames) - 1


def _u64(raw: Any, _frames: Frames) -> int:
    # msgpack has no integer above 64 bits.
    if type(raw) is not int or raw < 0:
        raise malformed("an unsigned integer", raw)
    return raw


U8 = _int(0, 255)
U32 = _int(0, (1 << 32) - 1)
U64 = Shape(_u64)
I64 = _int(-(1 << 63), (1 << 63) - 1)
MS = _int(0, MS_MAX)
"Milliseconds; a larger one would not fit a stamp."
SLOT = _int(0, SLOT_COUNT - 1)
BOOL = Shape(_bool)
WEIGHT = Shape(_weight)
KEY = _bytes(1, KEY_BYTES_MAX)
PREFIX = _bytes(0, KEY_BYTES_MAX)
TEXT = _text(0, 4096)
STATS_BYTES_MAX = 192 * 1024
BLOB = _bytes(0, STATS_BYTES_MAX)
FLAGS = _bytes(0, BATCH_KEYS_MAX)
VALUE = Shape(_value_in, _value_out, (0, INLINE_VALUE_BYTES_MAX - 1))
ADDRESS = Shape(_address)


def tuple_of(item: Shape, count_max: int) -> Shape:
    """Return the shape of 0..`count_max` items as a tuple."""

    def decode(raw: Any, frames: Frames) -> tuple[Any, ...]:
        if type(raw) is not list or len(raw) > count_max:
            raise malformed(f"a list of at most {count_max}", raw)
        if item.plain is not None and _all_plain(raw, *item.plain):
            return tuple(raw)
        one = item.decode
        return tuple([one(each, frames) for each in raw])

    def encode(values: tuple[Any, ...], frames: Frames) -> list[Any]:
        assert item.encode is not None
        return [item.encode(value, frames) for value in values]

    return Shape(decode, encode if item.encode else None)


def _all_plain(raw: list[Any], low: int, high: int) -> bool:
    # A tenth of the time that a call per item takes, which is most of a reply of many keys.
    if set(map(type, raw)) != {bytes}:
        return False
    lengths = list(map(len, raw))
    return low <= min(lengths) and max(lengths) <= high


def struct_of(make: type[tuple[Any, ...]], *items: Shape, later: tuple[object, ...] = ()) -> Shape:
    """Return the shape of a tuple of class `make` with these fields, or more at the end.

    `later` are the defaults of the last fields, which older peers do not send.
    """
    count, known = len(items), len(items) - len(later)
    decoders = [item.decode for item in items]
    new = partial(tuple.__new__, make)

    def decode(raw: Any, frames: Frames) -> Any:
        if type(raw) is not list or len(raw) < known:
            raise malformed(f"{known} fields", raw)
        found = [one(each, frames) for one, each in zip(decoders, raw, strict=False)]
        return new(found if len(found) == count else (*found, *later[len(found) - known :]))

    def encode(value: tuple[Any, ...], frames: Frames) -> list[Any]:
        return [
            item.encode(each, frames) if item.encode else each
            for item, each in zip(items, value, strict=True)
        ]

    return Shape(decode, encode if any(item.encode for item in items) else None)


def _version(raw: Any, _frames: Frames) -> Version:
    # struct_of(Version, U64, U64, U64) written out: every record and most messages have one.
    if type(raw) is list and len(raw) >= 3:
        stamp, node, boot = raw[:3]
        if type(stamp) is type(node) is type(boot) is int and min(stamp, node, boot) >= 0:
            return Version(stamp, node, boot)
    raise malformed("three unsigned integers", raw)


def _record(raw: Any, frames: Frames) -> Record:
    # Written out like _version: replication and exchange consist of records.
    if type(raw) is not list or len(raw) < 6:
        raise malformed("a record", raw)
    key, kind, value, version, expires_at_ms, prev = raw[:6]
    if type(key) is not bytes or not 0 < len(key) <= KEY_BYTES_MAX:
        raise malformed(f"a key of 1..{KEY_BYTES_MAX} bytes", key)
    if type(kind) is not int or kind not in _KINDS:
        raise malformed("a kind", kind)
    if type(value) is not bytes or len(value) >= INLINE_VALUE_BYTES_MAX:
        value = _value_in(value, frames)
    if kind and value:
        raise malformed("no value in a record of this kind", value)
    if type(expires_at_ms) is not int or not 0 <= expires_at_ms <= MS_MAX:
        raise malformed("milliseconds", expires_at_ms)
    if type(prev) is not int or prev < PREV_UNKNOWN:
        raise malformed("a stamp", prev)
    return Record(key, _KINDS[kind], value, _version(version, frames), expires_at_ms, prev)


def is_text(key: bytes) -> bool:
    """Return whether `key` is UTF-8, as every key that is stored must be."""
    if key.isascii():
        return True
    try:
        key.decode()
    except UnicodeDecodeError:
        return False
    return True


def ghost_of(raw: Any) -> Record:
    """Return what can be known of a record that is none: that its version of the key exists.

    MalformedMessage if not even that can be read.
    """
    if type(raw) is not list or len(raw) < 6:
        raise malformed("a record", raw)
    key: bytes = KEY.decode(raw[0], [])
    prev = raw[5] if type(raw[5]) is int and raw[5] >= PREV_UNKNOWN else PREV_UNKNOWN
    return Record(key, Kind.EVICTED, b"", _version(raw[3], []), 0, prev)


def _record_out(record: Record, frames: Frames) -> Sequence[Any]:
    if len(record.value) < INLINE_VALUE_BYTES_MAX:
        return record
    key, kind, value, *rest = record
    return [key, kind, _value_out(value, frames), *rest]


def spans_fit(origins: tuple[Any, ...], all_spans: Iterable[tuple[int, ...]]) -> bool:
    """Return whether flat `all_spans` are triples that index the table `origins`, low to high."""
    known = len(origins)
    return all(
        len(spans) % 3 == 0
        and max(spans[::3], default=-1) < known
        and all(low < high for low, high in zip(spans[1::3], spans[2::3], strict=True))
        for spans in all_spans
    )


def clocks_fit(origins: tuple[Any, ...], clocks: Iterable[tuple[int, ...]]) -> bool:
    """Return whether flat `clocks` are pairs and index only the table `origins`."""
    known = len(origins)
    return all(len(clock) % 2 == 0 and max(clock[::2], default=-1) < known for clock in clocks)


class SlotAsk(NamedTuple):
    """One slot of a `Pull`: what the asker has seen of it."""

    slot: int
    after: Version
    "Go on behind this version: the slot did not fit one frame. NO_VERSION to begin."
    clock: tuple[int, ...]
    "Flat pairs (index into the message's origins, stamp)."
    mark: int
    "The asker's forget mark, a stamp; 0 = none."
    spans: tuple[int, ...] = ()
    "What it has seen beyond gaps: flat triples (index, low, high), every write in (low, high]."


class SlotOwed(NamedTuple):
    """What the asker is owed of one slot, by a `Pull`: its clock covers values without its having
    them, since it took over the clock of somebody who had forgotten."""

    slot: int
    low: int
    "Values stamped up to here may have been evicted at the asker: they are not owed."
    high: int
    "Nor are those stamped later."
    held: int
    "A digest of the versions in between that the asker has, or has evicted."


class SlotGraves(NamedTuple):
    """Of one slot of a `PullReply`: records that were forgotten, and that the asker never saw."""

    slot: int
    graves: tuple[int, ...]
    """Flat quadruples (64-bit hash of the key, stamp, node, boot): whatever is older of the key is
    not to be kept."""


class SlotAnswer(NamedTuple):
    """One slot of a `PullReply`."""

    slot: int
    complete: bool
    "All that the asker lacks was sent, in this frame or earlier ones."
    clock: tuple[int, ...]
    "The answerer's clock as it was before the records of this frame were read."
    mark: int
    refill: tuple[int, ...]
    "Empty, or the 64-bit hashes of all keys held: what is not listed and covered is forgotten."
    spans: tuple[int, ...]
    """Flat triples (index into the message's origins, low, high): writes of that origin above low
    and up to high were all seen, though not those below."""


HASHES = tuple_of(U64, 24_576)
"As many as fit a frame."
PAIRS = tuple_of(U64, 4096)
"Flat pairs; that their number is even and their indexes lie in the table, the message checks."
ENUM = _enum
VERSION = Shape(_version)
ORIGIN = struct_of(tuple, U64, U64)
COPIES = _int(0, REPLICAS_MAX)
SETTINGS = struct_of(Settings, COPIES, U64, U64)
SHIFT = _int(-MS_MAX, MS_MAX)
"Milliseconds between two clocks."
CLAIM = struct_of(Claim, SHIFT, SHIFT, _enum(Trust), BOOL)
PACE = _enum(Pace)
RECORD = Shape(_record, _record_out)
NAME = _label(1)
ZONE = _label(0)
MEMBER = struct_of(
    Member, NAME, ADDRESS, ADDRESS, ZONE, WEIGHT, U64, U64,
    _enum(Standing), MS, BOOL, U64, BOOL, BOOL, U64, later=(False, 0),
)  # fmt: skip
MEMBERS = tuple_of(MEMBER, MEMBERS_MAX)
RECORDS = tuple_of(RECORD, BATCH_KEYS_MAX)
KEYS = tuple_of(KEY, BATCH_KEYS_MAX)
STAMPS = tuple_of(U64, BATCH_KEYS_MAX)
SLOTS = tuple_of(SLOT, SLOT_COUNT)
SLOT_ASK = struct_of(SlotAsk, SLOT, VERSION, PAIRS, U64, PAIRS)
SLOT_OWED = struct_of(SlotOwed, SLOT, U64, U64, U64)
GRAVES_MAX = 2_048
"Graves of one slot in one answer."
SLOT_GRAVES = struct_of(SlotGraves, SLOT, tuple_of(U64, 4 * GRAVES_MAX))
SLOT_ANSWER = struct_of(SlotAnswer, SLOT, BOOL, PAIRS, U64, HASHES, PAIRS)
ITEM = struct_of(tuple, KEY, VALUE)
