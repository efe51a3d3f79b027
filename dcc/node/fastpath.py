"""The hot path: a GET of one small frame, from the request's bytes to the reply's bytes.

Everything else, and everything odd, returns None and takes the ordinary path, which decodes
again; so this function may be terse but may not decide anything differently. It answers a hit on
the primary (or, where the client wants any holder, on a holder) and an authoritative miss.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgpack

from dcc.limits import INLINE_VALUE_BYTES_MAX, KEY_BYTES_MAX
from dcc.replication.holdings import Instant
from dcc.replication.sync import IN_SYNC
from dcc.ring.hashing import slot_of
from dcc.types import NO_VERSION, Kind, Now, Version
from dcc.wire.codec import HEADER_FIELDS, PREFIX_BYTES
from dcc.wire.messages import TAG, Get, GetReply, Status

if TYPE_CHECKING:
    from dcc.node.core import NodeCore

FRAME_BYTES = 1_024
"A GET of the longest key is below; bounds what unpacking a hostile frame may allocate."

GET, GET_REPLY = TAG[Get], TAG[GetReply]
ITEMS = HEADER_FIELDS + 2
HIT, MISS = int(Status.HIT), int(Status.MISS)


class FastPath:
    """Serves GETs for one node core."""

    def __init__(self, core: NodeCore) -> None:
        self._core = core
        self._view, self._sync, self._store = core.held.view, core.sync, core.held.store
        self._counters = core.counters
        self._commands = core.counters.commands
        self._prefix = core.codec.prefix
        self._pack = msgpack.Packer(autoreset=True).pack
        self._me, self._boot = core.key, core.boot
        self._now: Now | None = None
        self._at = Instant(0, 0)

    def serve(self, _route: bytes, frame: bytes, now: Now) -> bytes | None:
        """Return the reply's frame, or None when the ordinary path has to look at it."""
        if len(frame) > FRAME_BYTES or not frame.startswith(self._prefix):
            return None
        try:
            items = msgpack.unpackb(frame[PREFIX_BYTES:])
            tag, _sender, _boot, _epoch, _hops, request, _at, key, direct = items
        except (ValueError, TypeError, msgpack.exceptions.UnpackException):
            return None
        if tag != GET or type(key) is not bytes or type(request) is not int:
            return None
        if not 0 < len(key) <= KEY_BYTES_MAX or not 0 <= request < 1 << 64:
            return None
        if now is not self._now:
            self._now, self._at = now, self._core.turn(now)
        slot = slot_of(key)
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
        self._counters.hits += 1
        return self._reply(request, HIT, entry.version, value, entry.expires_at_ms)

    def _miss(self, slot: int, key: bytes, request: int) -> bytes | None:
        if self._sync.unsynced(slot) is not IN_SYNC:
            return None
        entry = self._store.peek(slot, key)
        if entry is not None and entry.kind is Kind.EVICTED and not entry.asked:
            return None
        self._commands["get"] += 1
        self._counters.misses += 1
        return self._reply(request, MISS, NO_VERSION, b"", 0)

    def _reply(
        self, request: int, status: int, version: Version, value: bytes, expires_at_ms: int
    ) -> bytes:
        packed: bytes = self._pack(
            (
                GET_REPLY, self._me, self._boot, self._view.slots.epoch, 0, request, self._at.ms,
                status, version, value, expires_at_ms,
            )
        )  # fmt: skip
        return self._prefix + packed
