"""Keys that are hot: their reads go to all of their owners in turn, not to the primary alone.

A node says in the answer to a read that its key is hot (`dcc/replication/hot.py`). For `HOT_NS`
from then on, each get of that key asks the owner that this client has asked least for hot keys. So
what it reads of hot keys is spread evenly over all nodes, as far as their owners allow, whatever
the placement made of it.

Only owners are asked that are alive, have answered lately and are not known to be behind, as a
*holder*: a node that may have missed writes asks the others before it serves what it has, as for
every read. What is older than this client has written or read is refused (`outlived`). What others
wrote a moment ago may be missing, as with `read="any"`.

Bounded: `KEYS_MAX` keys; beyond that the one that was noted first goes. Counts begin anew after
`ROUND` reads, and a node that comes back is not flooded for longer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import AbstractContextManager

from dcc.client.routing import View
from dcc.ring.hashing import slot_of
from dcc.units import SECOND

HOT_NS = 10 * SECOND
"A node says it of one in eight answers, so a key that is still hot is noted anew long before."
KEYS_MAX = 1_024
"Some ten times as many as one node can find hot."
ROUND = 1_024


class Spreading:
    """The keys that one client knows to be hot. Looking takes no lock, changing the keys does."""

    __slots__ = ("_asked", "_lock", "_round", "enabled", "keys", "spread")

    def __init__(self, lock: AbstractContextManager[object]) -> None:
        self._lock = lock
        self.keys: dict[bytes, int] = {}
        "Key -> monotonic ns until which it counts as hot."
        self.enabled: bool = True
        self.spread: int = 0
        "Reads of hot keys so far; counted by who makes them."
        self._asked: dict[str, int] = {}
        "Address -> reads of hot keys that it was asked for in this round."
        self._round = 0

    def note(self, keys: Iterable[bytes], mono: int) -> None:
        """Note that a node called `keys` hot."""
        if not self.enabled:
            return
        with self._lock:
            for key in keys:
                self.keys.pop(key, None)
                self.keys[key] = mono + HOT_NS
                if len(self.keys) > KEYS_MAX:
                    del self.keys[next(iter(self.keys))]

    def owner(self, key: bytes, view: View, sick: Collection[str], mono: int) -> str | None:
        """Return whom to ask for `key`; None if it is not hot, or nobody is well. O(copies)."""
        until = self.keys.get(key)
        if until is None:
            return None
        if mono >= until:
            with self._lock:  # `note` must not lose the key that it is about to drop.
                if self.keys.get(key) == until:
                    del self.keys[key]
            return None
        asked, best, least = self._asked, None, 0
        for target in view.targets(slot_of(key)):
            if not target.owner or target.follows or target.address in sick:
                continue
            count = asked.get(target.address, 0)
            if best is None or count < least:
                best, least = target.address, count
        if best is None:
            return None
        self._round += 1
        if self._round >= ROUND:
            self._round, self._asked = 0, {}
        else:
            asked[best] = least + 1
        return best

    def counts(self) -> dict[str, int]:
        """Return what was counted, by the names of `counts()`; nothing if nothing was."""
        return {"spread_reads": self.spread} if self.spread else {}

    def regrouped(
        self, groups: dict[str, list[bytes]], view: View, sick: Collection[str], mono: int
    ) -> tuple[dict[str, list[bytes]], frozenset[str]]:
        """Return `groups` of keys by address with the hot ones spread, and who got any of them."""
        hot = self.keys
        spread: dict[str, list[bytes]] = {}
        kept: dict[str, list[bytes]] = {}
        for address, keys in groups.items():
            if hot.keys().isdisjoint(keys):
                kept[address] = keys
                continue
            kept[address] = []
            for key in keys:
                other = self.owner(key, view, sick, mono) if key in hot else None
                self.spread += other is not None
                if other is None or other == address:
                    kept[address].append(key)
                else:
                    spread.setdefault(other, []).append(key)
        for address, keys in spread.items():
            kept[address] = [*kept.get(address, ()), *keys]
        return {one: keys for one, keys in kept.items() if keys}, frozenset(spread)
