"""Telling clients what has changed here, so that they may keep copies of what they read.

A client that keeps copies asks every node, again and again, to be told (`Watch`). As long as
anybody has asked within `KEPT_NS`, the node publishes on the gossip plane, under one topic for all
clients, the hash of each key that it now holds a newer version of, and the version's stamp: what it
wrote, what others sent, what a read or a repair brought. At least every `BEAT_MS` something is
published.

Changes are numbered, also those that nobody was told of. A client that sees a number which does not
follow the last one has missed something, and knows it with the next message.

Bounded: a turn that changes more keys than `CHANGES_MAX` publishes none of them, which is a gap. So
what waits for the end of a turn takes half a megabyte at most.
"""

from __future__ import annotations

from xxhash import xxh3_64_intdigest

from dcc.effects import Effect, Gossip
from dcc.replication.holdings import Holdings, Instant
from dcc.types import CLIENTS, Stamp
from dcc.units import MILLISECOND, NEVER, SECOND
from dcc.wire import messages as m

KEPT_NS = 10 * SECOND
BEAT_MS = 100
CHANGES_MAX = 4_096
EACH = 64
"Changes in one message, which stays below a gossip message's bound."


class Watchers:
    """What is to be told to clients that listen."""

    def __init__(self, held: Holdings) -> None:
        self._store = held.store
        self._store.tell(self.changed)
        self._number = 0
        "Changes so far."
        self._told = 0
        "The number of the first change that is not published."
        self._changes: list[tuple[bytes, Stamp]] = []
        self._until = 0
        self._beat_at = NEVER

    def __len__(self) -> int:
        """Return how many changes wait for the end of the turn."""
        return len(self._changes)

    def changed(self, key: bytes, stamp: Stamp) -> None:
        """Note that a newer version of `key` is held; O(1)."""
        self._number += 1
        if self._until and len(self._changes) < CHANGES_MAX:
            self._changes.append((key, stamp))

    def watch(self, mono: int) -> m.Watched:
        """Publish for some seconds from now on."""
        if not self._until:
            self._changes, self._told = [], self._number
        self._until = mono + KEPT_NS
        self._beat_at = min(self._beat_at, mono)
        return m.Watched(every_ms=BEAT_MS)

    def tick(self, now: Instant) -> list[Effect]:
        """Publish what has changed, or that nothing has."""
        if not self._until:
            return []
        if now.mono >= self._until:
            self._until, self._beat_at, self._changes = 0, NEVER, []
            return []
        if not self._changes and now.mono < self._beat_at:
            return []
        self._beat_at = now.mono + BEAT_MS * MILLISECOND
        changes, self._changes = self._changes, []
        if self._told + len(changes) != self._number:
            changes = []  # More than there was room for.
        messages = [
            self._message(self._told + at, changes[at : at + EACH])
            for at in range(0, len(changes), EACH)
        ]
        self._told = self._number
        return messages or [self._message(self._number, [])]

    def wake_at(self) -> int:
        """Return when something is to be published."""
        return self._beat_at

    def _message(self, number: int, changes: list[tuple[bytes, Stamp]]) -> Effect:
        message = m.Changes(
            number=number,
            keys=tuple([xxh3_64_intdigest(key) for key, _ in changes]),
            stamps=tuple([stamp for _, stamp in changes]),
            cleared=self._store.cleared,
        )
        return Gossip(CLIENTS, message)
