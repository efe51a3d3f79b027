"""Keys that this node served, named to their other owners, so that these do not evict what is hot.

Reads go to the primary. To the other owners a key that is read all the time looks like one that
nobody wants, and under memory pressure they evict it; when the primary dies its most popular keys
are gone. So a node remembers one in `EVERY` of its hits, each key once and at most `--name-served`
in a second, and tells the live owners of their slots once a second. An owner that hears of
a key that it holds counts one hit. Nothing is promised: a name that is lost costs nothing but that
hit, and naming changes no version, no clock and no digest.

Ends: what is named is forgotten here at once, and a name causes no answer.
"""

from __future__ import annotations

from dcc.effects import Effect, Tell
from dcc.limits import BATCH_BYTES, BATCH_KEYS_MAX
from dcc.replication.holdings import Holdings, Instant
from dcc.ring.hashing import slot_of
from dcc.types import NodeKey
from dcc.units import NEVER, SECOND
from dcc.wire.codec import Header
from dcc.wire.messages import Served

EVERY = 8
"One hit in this many is looked at: what is popular is met soon, and a read hardly notices."

INTERVAL_NS = 1 * SECOND
KEY_OVERHEAD_BYTES = 4


class ServedKeys:
    """What is to be named, and what was."""

    def __init__(self, holdings: Holdings) -> None:
        self._held = holdings
        self._room = min(holdings.config.named_keys_per_second, BATCH_KEYS_MAX)
        self._keys: dict[bytes, None] = {}
        self._at = NEVER
        self.heard: int = 0
        "Names heard of keys whose value is held here."

    def __len__(self) -> int:
        return len(self._keys)

    def served(self, key: bytes) -> None:
        """Remember a key that was served just now, if there is room; O(1)."""
        if len(self._keys) < self._room:
            self._keys[key] = None

    def tick(self, now: Instant) -> list[Effect]:
        """Name what was served to the other live owners, once a second."""
        if not self._keys:
            return []
        if self._at == NEVER:
            self._at = now.mono + INTERVAL_NS
        if now.mono < self._at:
            return []
        names: dict[NodeKey, list[bytes]] = {}
        for key in self._keys:
            for peer in self._held.view.route(slot_of(key)):
                if peer != self._held.key:
                    names.setdefault(peer, []).append(key)
        self._keys, self._at = {}, NEVER
        return [Tell(peer, Served(keys=_within(keys))) for peer, keys in sorted(names.items())]

    def heard_of(self, _header: Header, message: Served, now: Instant) -> list[Effect]:
        """Count a hit on each key whose value is held here."""
        store = self._held.store
        for key in message.keys:
            self.heard += store.get(slot_of(key), key, now.ms) is not None
        return []

    def wake_at(self) -> int:
        """Return when names are due; the tick after the first hit sets it."""
        return self._at


def _within(keys: list[bytes]) -> tuple[bytes, ...]:
    """Return as many of `keys` as fit one small frame."""
    size = 0
    for count, key in enumerate(keys):
        size += len(key) + KEY_OVERHEAD_BYTES
        if size > BATCH_BYTES:
            return tuple(keys[:count])
    return tuple(keys)
