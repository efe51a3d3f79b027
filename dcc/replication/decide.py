"""What a write makes of the value it meets: the meaning of put, add, replace, delete, touch, incr.

Pure: the present entry in, the record to store (or none) out. The coordinator stamps it.
"""

from __future__ import annotations

from typing import NamedTuple

from dcc.store.entry import Entry
from dcc.types import NO_VERSION, PREV_UNKNOWN, Kind, Record
from dcc.wire.messages import Code, Op, Outcome, Write
from dcc.wire.shapes import MS_MAX

INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1
DIGITS_MAX = 20
"Of a counter as text: a 64-bit integer with its sign."


class Decision(NamedTuple):
    """What happens."""

    outcome: Outcome
    record: Record | None
    "To be stamped and stored; None = nothing is written."
    number: int = 0


class Refusal(NamedTuple):
    """The write cannot be carried out; nothing happened."""

    code: Code
    text: str


def decide(
    write: Write, entry: Entry | None, *, authoritative: bool, now_ms: int
) -> Decision | Refusal:
    """Return what `write` does when the key's live entry is `entry` (None = absent).

    `authoritative` says whether a miss is; only a delete cares, since it must reach a value that
    nobody could see just now.
    """
    if write.op is Op.PUT:
        return decide_put(write.key, write.value, write.ttl_ms, now_ms)
    expires_at_ms = now_ms + write.ttl_ms if write.ttl_ms else 0
    if expires_at_ms > MS_MAX:
        return NO_SUCH_TIME
    if write.op is Op.ADD:
        return _stored(write.key, write.value, expires_at_ms) if entry is None else NOTHING
    if write.op is Op.REPLACE:
        if entry is None or not _is_expected(write, entry):
            return NOTHING
        return _stored(write.key, write.value, expires_at_ms)
    if write.op is Op.DELETE:
        return _delete(write, entry, authoritative=authoritative)
    if write.op is Op.TOUCH:
        return _stored(write.key, entry.value, expires_at_ms) if entry is not None else NOTHING
    return _count(write, entry, expires_at_ms)


def decide_put(key: bytes, value: bytes, ttl_ms: int, now_ms: int) -> Decision | Refusal:
    """Return what a put does, whatever the key's entry is; without a `Write`, for many of them."""
    expires_at_ms = now_ms + ttl_ms if ttl_ms else 0
    return _stored(key, value, expires_at_ms) if expires_at_ms <= MS_MAX else NO_SUCH_TIME


NOTHING = Decision(Outcome.NOT_DONE, None)
NO_SUCH_TIME = Refusal(Code.MALFORMED, f"it would expire after {MS_MAX} ms, the last time there is")
"No other node could read the record."


def _stored(key: bytes, value: bytes, expires_at_ms: int, number: int = 0) -> Decision:
    record = Record(key, Kind.VALUE, value, NO_VERSION, expires_at_ms, PREV_UNKNOWN)
    return Decision(Outcome.DONE, record, number)


def _is_expected(write: Write, entry: Entry) -> bool:
    return write.expected in (NO_VERSION, entry.version)


def _delete(write: Write, entry: Entry | None, *, authoritative: bool) -> Decision:
    if entry is None and (authoritative or write.expected != NO_VERSION):
        return NOTHING  # A version that nobody can see is not the one that was named.
    if entry is not None and not _is_expected(write, entry):
        return NOTHING
    tombstone = Record(write.key, Kind.TOMBSTONE, b"", NO_VERSION, 0, PREV_UNKNOWN)
    return Decision(Outcome.NOT_DONE if entry is None else Outcome.DONE, tombstone)


def _count(write: Write, entry: Entry | None, expires_at_ms: int) -> Decision | Refusal:
    present = write.initial
    if entry is None and write.if_present:
        return NOTHING
    if entry is not None:
        expires_at_ms = entry.expires_at_ms
        number = _number(entry.value)
        if number is None:
            return Refusal(Code.NOT_A_NUMBER, "the value is not an ASCII integer of 64 bits")
        present = number
    result = present + write.delta
    if not INT64_MIN <= result <= INT64_MAX:
        return Refusal(Code.NOT_A_NUMBER, f"{result} does not fit 64 bits")
    return _stored(write.key, b"%d" % result, expires_at_ms, result)


def _number(value: bytes) -> int | None:
    digits = value[1:] if value[:1] in (b"-", b"+") else value
    if not digits.isdigit() or len(digits) > DIGITS_MAX:
        return None
    number = int(value)
    return number if INT64_MIN <= number <= INT64_MAX else None
