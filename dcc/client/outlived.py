"""What a client has outlived: the newest stamp that it has written or read of each key.

A hit with an older stamp is none: the client has seen, or made, what replaced that value. So two
promises hold on hits, whatever fails: a client reads its own writes, and what it reads of a key
never goes back. Misses are allowed, because a cache may lose what it had.

*Who is compared with what.* A read goes by what was known when it began. A write or another read
that ended while it was under way, in another thread or task, has no order with it.

*Stamps, not versions.* Two versions of one stamp were written by two coordinators that did not
know of each other; neither outlives the other. A reply of many keys tells stamps alone.

*Bounded.* Keys that were written or read lately are in `_recent`. When that holds `KEYS_MAX` keys
it becomes `_before`, and what was there is forgotten; a key that is asked for there moves back. So
at least the last `KEYS_MAX` keys are known, never more than twice as many, and a look-up is one
look into a dictionary for a key in use.

*A clock that went back.* A node that refuses a stamp as too far ahead says its own. Stamps above
that one are forgotten, because newer values have lower ones from then on.

*A clear* that every node has confirmed outlives all keys: no hit may be at its stamp or below.

Source: Terry et al., "Session guarantees for weakly consistent replicated data", PDIS 1994.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager

from dcc.types import Stamp

KEYS_MAX = 16_384
"Some 3 MB with keys of 40 bytes; twice that at most."


class Outlived:
    """The newest known stamp of each key. Reading takes no lock, noting does."""

    __slots__ = ("_before", "_floor", "_keys_max", "_lock", "_recent", "forgets", "on_newer")

    def __init__(self, lock: AbstractContextManager[object], keys_max: int = KEYS_MAX) -> None:
        self._lock, self._keys_max = lock, keys_max
        self._recent: dict[bytes, Stamp] = {}
        self._before: dict[bytes, Stamp] = {}
        self._floor: Stamp = 0
        "The first stamp above the last clear."
        self.forgets: int = 0
        "How often keys were forgotten because there were too many."
        self.on_newer: Callable[[bytes, Stamp], None] | None = None
        "Told of each key of which something newer is known now; of none: of all."

    def __len__(self) -> int:
        return len(self._recent) + len(self._before)

    def known(self, key: bytes) -> Stamp:
        """Return the newest stamp known of `key`; of one that is not known the floor of all."""
        stamp = self._recent.get(key)
        return self._older(key) if stamp is None else stamp

    def note(self, key: bytes, stamp: Stamp) -> None:
        """Note that a version of `key` with that stamp was written or read; 0 tells nothing."""
        if stamp:
            with self._lock:
                self._note(key, stamp)

    def admits(self, keys: Sequence[bytes], stamps: list[Stamp]) -> bool:
        """Return whether no hit is older than known; if so all are noted."""
        if list(map(self._recent.get, keys)) == stamps:
            return True
        known = self.known
        pairs = list(zip(keys, stamps, strict=True))
        if any(stamp < known(key) for key, stamp in pairs):
            return False
        self.note_all(pairs)
        return True

    def note_all(self, pairs: Iterable[tuple[bytes, Stamp]]) -> None:
        """Note the stamp of each key; 0 tells nothing."""
        with self._lock:
            for key, stamp in pairs:
                if stamp:
                    self._note(key, stamp)

    def cleared(self, stamp: Stamp) -> None:
        """Note a clear that everybody has confirmed: what is not above its stamp is gone."""
        with self._lock:
            self._floor = floor = max(self._floor, stamp + 1)
            self._before = {key: one for key, one in self._before.items() if one >= floor}
            self._recent = {key: one for key, one in self._recent.items() if one >= floor}
            if self.on_newer is not None:
                self.on_newer(b"", stamp)

    def forget_above(self, stamp: Stamp) -> None:
        """Forget stamps above that, and a clear above it: the cluster's clock went back to it."""
        with self._lock:
            if self._floor > stamp + 1:
                self._floor = 0
            self._before = {key: one for key, one in self._before.items() if one <= stamp}
            self._recent = {key: one for key, one in self._recent.items() if one <= stamp}
            if self.on_newer is not None:
                self.on_newer(b"", stamp)

    def heir(self, lock: AbstractContextManager[object]) -> Outlived:
        """Return the same knowledge under another lock, for a child process."""
        heir = Outlived(lock, self._keys_max)
        heir._recent, heir._before = dict(self._recent), dict(self._before)
        heir._floor, heir.on_newer = self._floor, self.on_newer
        return heir

    def _older(self, key: bytes) -> Stamp:
        stamp = self._before.get(key)
        if stamp is None:
            return self._floor
        self.note(key, stamp)
        return stamp

    def _note(self, key: bytes, stamp: Stamp) -> None:
        recent = self._recent
        known = recent.get(key)
        if known is None:
            known = self._before.get(key, self._floor)
            if len(recent) >= self._keys_max:
                self.forgets += bool(self._before)
                # In this order: who looks without the lock finds every key in one of the two.
                self._before = recent
                self._recent = recent = {}
        recent[key] = max(known, stamp)
        if self.on_newer is not None and stamp > known:
            self.on_newer(key, stamp)
