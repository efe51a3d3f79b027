"""The hot path: a GET of one small frame, or of many keys, from request bytes to reply bytes.

A read after its deadline is dropped before anything is looked up (`lateness`), and so is a write of
one frame while many come late. Everything else,
and everything odd, returns None and takes the ordinary path, which decodes again; so this function
may be terse but may not decide anything differently. It answers a hit on the primary (or, where the
client wants any holder, on a holder) and an authoritative miss.
"""

from __future__ import annotations

from collections.abc import Callable

import msgpack

from dcc.limits import BATCH_BYTES, BATCH_KEYS_MAX, INLINE_VALUE_BYTES_MAX, KEY_BYTES_MAX
from dcc.node.machines import Machines
from dcc.replication.holdings import Instant
from dcc.replication.served import EVERY as NAMED
from dcc.replication.staleness import EVERY
from dcc.ring.hashing import slot_of, slots_of
from dcc.store.entry import Entry
from dcc.types import NO_VERSION, Now, Version
from dcc.wire.codec import HEADER_FIELDS, ITEMS_MAX, PREFIX_BYTES
from dcc.wire.messages import TAG, Get, GetMany, GetManyReply, GetReply, Status, Write

FRAME_BYTES = 1_024
"A GET of the longest key is below; bounds what unpacking a hostile frame may allocate."

WRITE_BYTES = INLINE_VALUE_BYTES_MAX + FRAME_BYTES
"A write above takes the ordinary path, too late or not."

MANY_BYTES = 64 * 1_024
"A GetMany above takes the ordinary path, which looks at its nesting first."

GET, GET_REPLY = TAG[Get], TAG[GetReply]
GET_MANY, GET_MANY_REPLY = TAG[GetMany], TAG[GetManyReply]
WRITE = TAG[Write]
ITEMS_MANY = HEADER_FIELDS + 1
"And one more: what is held, too, whoever leads it."
PLAIN, PLAIN_ONCE = [1, False], [1]
"The last fields of a GET, `r` and `aside`: one owner's word is enough. Left out: the same."
TAG_AT = PREFIX_BYTES + 1
"After the prefix and the array's header: a tag below 128 is one byte."
GET_BYTE, GET_MANY_BYTE = bytes([GET]), bytes([GET_MANY])
LONG_TAG_END = PREFIX_BYTES + 4
"Of 16 fields or more the array's header takes three bytes, of which the first says so."
LONG_WRITE = bytes([0xDC, WRITE])
HIT, MISS, ELSEWHERE = int(Status.HIT), int(Status.MISS), int(Status.ELSEWHERE)
DROPPED = b""
"Instead of a reply: nobody waits for it any more."


class FastPath:
    """Serves GETs for one node core, which opens its turns by `turn`."""

    def __init__(self, machines: Machines, turn: Callable[[Now], Instant]) -> None:
        self._turn = turn
        self._view, self._store = machines.held.view, machines.held.store
        self._certainty = machines.certainty
        self._counters, self._staleness = machines.counters, machines.staleness
        self._served = machines.hot.served
        self._commands = machines.counters.commands
        self._prefix = machines.codec.prefix
        self._pack = msgpack.Packer(autoreset=True).pack
        self._me, self._boot = machines.key, machines.boot
        self._now: Now | None = None
        self._at = Instant(0, 0)
        self._lateness = machines.lateness
        self._late_before = 0
        self._writes = machines.writes

    def serve(self, _route: bytes, frame: bytes, now: Now) -> bytes | None:
        """Return the reply's frame, `DROPPED`, or None: the ordinary path has to look at it."""
        if len(frame) > FRAME_BYTES or frame[TAG_AT : TAG_AT + 1] != GET_BYTE:
            return self._late_write(frame, now) if self._lateness.strained else None
        if not frame.startswith(self._prefix):
            return None
        try:
            items = msgpack.unpackb(frame[PREFIX_BYTES:])
            tag, _sender, _boot, _epoch, _hops, request, until, key, direct, *r = items
        except (ValueError, TypeError, msgpack.exceptions.UnpackException):
            return None
        if tag != GET or type(key) is not bytes or type(request) is not int:
            return None
        if type(until) is not int or until < 0:
            return None
        if r and r != PLAIN and r != PLAIN_ONCE:
            return None
        if not 0 < len(key) <= KEY_BYTES_MAX or not 0 <= request < 1 << 64:
            return None
        if now is not self._now:
            self._begin_turn(now)
        if until < self._late_before and until:
            return self._late(until)
        slot = slot_of(key)
        if self._certainty.may_be_old(slot):
            return None
        route = self._view.route(slot)
        if not route or (route[0] != self._me and not (direct is True and self._me in route)):
            return None
        entry = self._store.get(slot, key, self._at.ms)
        if entry is None:
            return self._miss(slot, key, request) if route[0] == self._me else None
        value = entry.value
        if len(value) >= INLINE_VALUE_BYTES_MAX:
            return None
        self._commands["get"] += 1
        self._counters.hits = hits = self._counters.hits + 1
        if not hits % EVERY:
            self._staleness.served(key, entry.version, self._at.ms)
        hot = not hits % NAMED and self._served(key)
        return self._reply(request, HIT, entry.version, value, entry.expires_at_ms, hot)

    def serve_many(self, frame: bytes, now: Now) -> bytes | None:
        """Return the reply to a `GetMany` that is answered here alone in one frame, or None."""
        if len(frame) > MANY_BYTES or frame[TAG_AT : TAG_AT + 1] != GET_MANY_BYTE:
            return None
        if not frame.startswith(self._prefix):
            return None
        try:
            # What hostile headers can make this allocate is bounded by the frame's own depth.
            items = msgpack.unpackb(frame[PREFIX_BYTES:], max_array_len=BATCH_KEYS_MAX)
        except (ValueError, TypeError, msgpack.exceptions.UnpackException):
            return None
        if type(items) is not list or items[0:1] != [GET_MANY]:
            return None
        direct = len(items) == ITEMS_MANY + 1 and items[ITEMS_MANY] is True
        if len(items) != ITEMS_MANY and not direct:
            return None
        keys, request, until = items[HEADER_FIELDS], items[5], items[6]
        if type(until) is not int or until < 0:
            return None
        if type(keys) is not list or type(request) is not int or not 0 <= request < 1 << 64:
            return None
        if not 0 < len(keys) <= BATCH_KEYS_MAX or set(map(type, keys)) != {bytes}:
            return None
        if min(map(len, keys)) == 0 or max(map(len, keys)) > KEY_BYTES_MAX:
            return None
        if now is not self._now:
            self._begin_turn(now)
        if until < self._late_before and until:
            return self._late(until)
        return self._many(keys, request, direct)

    def _late_write(self, frame: bytes, now: Now) -> bytes | None:
        """Return `DROPPED` for a write of one frame that is late while many are, else None."""
        if frame[PREFIX_BYTES:LONG_TAG_END:3] != LONG_WRITE or len(frame) > WRITE_BYTES:
            return None
        if not frame.startswith(self._prefix):
            return None
        try:
            items = msgpack.unpackb(frame[PREFIX_BYTES:], max_array_len=ITEMS_MAX)
            tag, _sender, _boot, _epoch, hops, _request, until, _op, _key, value, *_ = items
        except (ValueError, TypeError, msgpack.exceptions.UnpackException):
            return None
        # A forwarded one has somebody who waits for the answer, and the value may come behind.
        if tag != WRITE or hops != 0 or type(value) is not bytes or type(until) is not int:
            return None
        if now is not self._now:
            self._begin_turn(now)
        if not 0 < until < self._late_before:
            return None
        dropped = self._late(until)
        self._writes.too_late += dropped is not None
        return dropped

    def _begin_turn(self, now: Now) -> None:
        self._now, self._at = now, self._turn(now)
        self._late_before = self._lateness.before(self._at)

    def _late(self, until: int) -> bytes | None:
        dropped = self._lateness.drop(until, self._at)
        self._late_before = self._lateness.before(self._at)
        return DROPPED if dropped else None

    def _many(self, keys: list[bytes], request: int, direct: bool) -> bytes | None:
        me, ms = self._me, self._at.ms
        slots = slots_of(keys)
        if self._certainty.any_may_be_old(slots):
            return None
        led = self._view.all_primary(slots)
        if not led and not (direct and self._view.all_held(slots)):
            return None
        entries = self._store.get_many(slots, keys, ms)
        values = [entry.value for entry in entries if entry is not None]
        statuses = bytearray(len(keys))  # HIT is 0.
        if len(values) < len(keys):
            for i, entry in enumerate(entries):
                if entry is None:
                    if not led and not self._view.is_primary(slots[i]):
                        statuses[i] = ELSEWHERE
                    elif not self._certainty.is_authoritative(slots[i], keys[i]):
                        return None
                    else:
                        statuses[i] = MISS
        if values:
            lengths = list(map(len, values))
            if max(lengths) >= INLINE_VALUE_BYTES_MAX or sum(lengths) > BATCH_BYTES:
                return None
        self._commands["get_many"] += 1
        hot = self._sample(keys, entries, len(values))
        self._counters.hits += len(values)
        self._counters.misses += statuses.count(MISS)
        reply: tuple[object, ...] = (
            GET_MANY_REPLY, me, self._boot, self._view.slots.epoch, 0, request, ms,
            0, bytes(statuses), values, True,
        )  # fmt: skip
        if values:
            reply = (*reply, [entry.version[0] for entry in entries if entry is not None])
        if hot:
            reply = (*reply, hot)
        packed: bytes = self._pack(reply)
        return self._prefix + packed

    def _sample(self, keys: list[bytes], entries: list[Entry | None], hits: int) -> list[bytes]:
        """Remember one in `EVERY` of these hits, to see later whether it was stale, and name some.

        A key that was absent may be named as well: nobody has it to count a hit on. Returns those
        of the named that are hot.
        """
        if not hits:
            return []
        before = self._counters.hits
        served = self._served
        hot = [key for key in keys[NAMED - 1 - before % NAMED :: NAMED] if served(key)]
        first = EVERY - 1 - before % EVERY
        if first >= hits:
            return hot
        found = [(key, entry) for key, entry in zip(keys, entries, strict=True) if entry]
        for key, entry in found[first::EVERY]:
            self._staleness.served(key, entry.version, self._at.ms)
        return hot

    def _miss(self, slot: int, key: bytes, request: int) -> bytes | None:
        if not self._certainty.is_authoritative(slot, key):
            return None
        self._commands["get"] += 1
        self._counters.misses += 1
        return self._reply(request, MISS, NO_VERSION, b"", 0, False)

    def _reply(
        self,
        request: int,
        status: int,
        version: Version,
        value: bytes,
        expires_at_ms: int,
        hot: bool,
    ) -> bytes:
        reply: tuple[object, ...] = (
            GET_REPLY, self._me, self._boot, self._view.slots.epoch, 0, request, self._at.ms,
            status, version, value, expires_at_ms,
        )  # fmt: skip
        packed: bytes = self._pack((*reply, True) if hot else reply)
        return self._prefix + packed
