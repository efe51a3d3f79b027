"""One read: a hit, an authoritative miss, or an unsure miss.

A hit is what is held here. A miss is authoritative only at the primary, in sync with every other
holder, and for a key that has no ghost which was not asked about. Any other miss asks: the
holders this node is not in sync with, the primary at least; for a ghost everybody who may have
kept the value. When all have answered the miss is authoritative after all, else it is unsure.
What is found is installed, so the next reader finds it here.
"""

from __future__ import annotations

from typing import NamedTuple

from dcc.effects import Effect
from dcc.replication.holdings import Asker, Holdings, Instant
from dcc.replication.questions import Questions, Verdict
from dcc.replication.sync import IN_SYNC, SyncTable
from dcc.ring.hashing import slot_of
from dcc.types import NO_VERSION, Kind, NodeKey, Record, Version
from dcc.wire.messages import GetReply, Status


class Doubt(NamedTuple):
    """What stands between a local miss and certainty."""

    ask: tuple[NodeKey, ...]
    settles: bool
    "Whether all answers together would make the miss authoritative."


CERTAIN = Doubt((), True)


class _Waiting(NamedTuple):
    asker: Asker
    slot: int
    key: bytes
    settles: bool


class Reads:
    """Answers reads from the store, and asks around where that is not enough."""

    def __init__(self, holdings: Holdings, sync: SyncTable, questions: Questions) -> None:
        self._held, self._sync, self._questions = holdings, sync, questions
        self._waiting: dict[int, _Waiting] = {}
        self.hits = self.misses = self.unsure = self.read_repairs = 0

    def doubt(self, slot: int, key: bytes) -> Doubt:
        """Return whom to ask before `key`, absent here, may be called absent."""
        held = self._held
        unsynced = self._sync.unsynced(slot)
        route = held.view.route(slot)
        entry = held.store.peek(slot, key)
        if entry is not None and entry.kind is Kind.EVICTED and not entry.asked:
            alive = held.view.alive
            ask = tuple(peer for peer in self._sync.holders(slot) if peer in alive)
            return Doubt(ask, unsynced.settles)
        if route[:1] == (held.key,):
            return CERTAIN if unsynced is IN_SYNC else Doubt(unsynced.ask, unsynced.settles)
        if not route:
            return Doubt(unsynced.ask, False)
        primary = () if route[0] in unsynced.ask else route[:1]
        return Doubt((*primary, *unsynced.ask), unsynced.settles)

    def get(self, asker: Asker, key: bytes, now: Instant) -> list[Effect]:
        """Answer one GET, now or after asking others."""
        slot = slot_of(key)
        entry = self._held.store.get(slot, key, now.ms)
        if entry is not None:
            self.hits += 1
            return [asker.answer(_hit(entry.version, entry.value, entry.expires_at_ms))]
        doubt = self.doubt(slot, key)
        if not doubt.ask:
            return [asker.answer(self._miss(certain=doubt.settles))]
        number, effects = self._questions.ask(key, doubt.ask, now)
        self._waiting[number] = _Waiting(asker, slot, key, doubt.settles)
        return effects

    def resume(self, verdict: Verdict, now: Instant) -> list[Effect]:
        """Finish the read whose question has ended; nothing if it is not one of reads."""
        waiting = self._waiting.pop(verdict.question, None)
        if waiting is None:
            return []
        record = self.best(waiting.slot, waiting.key, verdict, now)
        if record is not None:
            self.hits += 1
            self.read_repairs += 1
            reply = _hit(record.version, record.value, record.expires_at_ms)
        else:
            reply = self._miss(certain=verdict.answered and waiting.settles)
        return [waiting.asker.answer(reply)]

    def best(self, slot: int, key: bytes, verdict: Verdict, now: Instant) -> Record | None:
        """Return the newest live value known after a verdict; None = absent.

        Marks a ghost as asked about when everybody has answered.
        """
        store = self._held.store
        entry = store.get(slot, key, now.ms)
        if entry is not None:
            return Record(key, entry.kind, entry.value, entry.version, entry.expires_at_ms, -1)
        held = store.peek(slot, key)
        if held is not None and held.kind is Kind.EVICTED and verdict.answered:
            held.asked = True
        newest = verdict.newest
        if newest is None or newest.kind is not Kind.VALUE:
            return None
        # Not held here: this node coordinates for others, or had no room for it.
        expired = 0 < newest.expires_at_ms <= now.ms
        outdated = held is not None and held.version > newest.version
        cleared = newest.version.stamp <= store.cleared
        return None if expired or outdated or cleared else newest

    def _miss(self, *, certain: bool) -> GetReply:
        if certain:
            self.misses += 1
        else:
            self.unsure += 1
        status = Status.MISS if certain else Status.UNSURE
        return GetReply(status=status, version=NO_VERSION, value=b"", expires_at_ms=0)


def _hit(version: Version, value: bytes, expires_at_ms: int) -> GetReply:
    return GetReply(status=Status.HIT, version=version, value=value, expires_at_ms=expires_at_ms)
