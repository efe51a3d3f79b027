"""The audit: what this node really holds of some slots, read from the data itself.

An oracle for people and tests, no part of the protocol: two holders of a slot that have seen the
same and evicted nothing hold the same content. Reading is done in pieces of a few milliseconds
between which the node serves, so the slots of one answer are not of one moment.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from xxhash import xxh3_64_intdigest

from dcc.effects import Effect
from dcc.replication.holdings import Asker, Instant
from dcc.store.clocks import digest_of
from dcc.store.store import Store
from dcc.types import Kind, Stamp
from dcc.units import NEVER
from dcc.wire.messages import AuditReply

AUDIT_SLOTS_MAX = 2_048
"In one question."

AUDITS_MAX = 16
"Questions at once; more are refused."

ENTRIES_PER_TURN = 2_000
"About four milliseconds of reading."


class SlotContent(NamedTuple):
    """What a node holds of one slot."""

    content: int
    seen: int
    items: int
    ghosts: int
    forgotten: int


def content_of(store: Store, slot: int, now_ms: int, above: Stamp = 0) -> SlotContent:
    """Return digests and counts of what is stamped above in a slot, as in `AuditReply`.

    O(n log n) for n entries in it.
    """
    table, above = store.tables[slot], max(above, store.cleared)
    words: list[tuple[int, int, int, int]] = sorted(
        (xxh3_64_intdigest(key), *table[key].version)
        for key in store.keys(slot, now_ms)
        if table[key].version.stamp > above
    )
    content = digest_of([word for item in words for word in item]) if words else 0
    ghosts = sum(
        entry.kind is Kind.EVICTED and entry.version.stamp > above for entry in table.values()
    )
    mark = store.evicted_marks[slot]
    forgotten = mark if mark > store.cleared else 0
    return SlotContent(content, store.comparison.digest(slot), len(words), ghosts, forgotten)


@dataclass(slots=True)
class _Audit:
    asker: Asker
    slots: tuple[int, ...]
    above: tuple[Stamp, ...]
    found: list[SlotContent] = field(default_factory=list)


class Audits:
    """The audits of one node that are not read to their end yet."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._open: list[_Audit] = []

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, asker: Asker, slots: tuple[int, ...], above: tuple[Stamp, ...] = ()) -> None:
        """Read `slots` in the next turns, of each what is stamped `above` alone, and answer."""
        assert len(self._open) < AUDITS_MAX
        assert len(slots) <= AUDIT_SLOTS_MAX
        self._open.append(_Audit(asker, slots, above or (0,) * len(slots)))

    def tick(self, now: Instant) -> list[Effect]:
        """Go on reading the oldest audit."""
        if not self._open:
            return []
        audit, met = self._open[0], 0
        while len(audit.found) < len(audit.slots) and met < ENTRIES_PER_TURN:
            number = len(audit.found)
            slot, above = audit.slots[number], audit.above[number]
            audit.found.append(content_of(self._store, slot, now.ms, above))
            met += 1 + len(self._store.tables[slot])
        if len(audit.found) < len(audit.slots):
            return []
        del self._open[0]
        return [audit.asker.answer(_reply(audit.found))]

    def wake_at(self) -> int:
        """Return 0 while there is something to read."""
        return 0 if self._open else NEVER


def _reply(found: list[SlotContent]) -> AuditReply:
    return AuditReply(
        content=tuple([one.content for one in found]),
        seen=tuple([one.seen for one in found]),
        items=tuple([one.items for one in found]),
        ghosts=tuple([one.ghosts for one in found]),
        forgotten=tuple([one.forgotten for one in found]),
    )
