"""One key's record as a node holds it, and the chains that entries stand in.

There is one `Entry` for each key held, changed in place for as long as the key is known: a new
version, an eviction, an expiry only change its fields. Chains are doubly linked lists through
the entries themselves, so that joining, leaving and moving to the end allocate nothing and cost
the same however long the chain is; an ordered dictionary would cost 150 bytes more for each key.

An entry has two pairs of links. `older`/`newer` belong to the eviction policy while the entry has
a value and to the queue of records without values otherwise; `sooner`/`later` to the expiry index.
"""

from __future__ import annotations

from collections.abc import Iterator

from dcc.types import PREV_UNKNOWN, Kind, Record, Stamp, Version

BARREN, HEARD = 1, 2
DOUBTED = BARREN | HEARD


class Entry:
    """The newest version known of one key. Only the store changes it, except for `asked`."""

    __slots__ = (
        "asked", "expires_at_ms", "hits", "key", "kind", "later", "newer", "older", "prev",
        "rank", "slot", "sooner", "value", "version",
    )  # fmt: skip

    key: bytes
    slot: int
    kind: Kind
    value: bytes
    "Empty unless `kind` is VALUE."
    version: Version
    expires_at_ms: int
    "Cluster milliseconds; 0 = never."
    asked: int
    """Flags of a record without a value. BARREN: a ghost whose value no other holder has, not to be
    asked for again; up to the forget mark, of any kind: a newer version of the key may have been
    forgotten. HEARD: its value was never here, so it was not evicted here either, and a holder who
    has it gives it to this one, too."""
    prev: Stamp
    "As in the record, while the slot's clock did not cover it when it came; else PREV_UNKNOWN."
    hits: int
    "The policy's: hits not yet turned into rank."
    rank: int
    "The policy's: where the entry stands."
    older: Entry
    newer: Entry
    sooner: Entry
    later: Entry

    def __init__(
        self, key: bytes, slot: int, kind: Kind, value: bytes, version: Version,
        expires_at_ms: int, prev: Stamp,
    ) -> None:  # fmt: skip
        self.key = key
        self.slot = slot
        self.kind = kind
        self.value = value
        self.version = version
        self.expires_at_ms = expires_at_ms
        self.asked = 0
        self.prev = prev
        self.hits = 0
        self.rank = 0
        self.older = self.newer = self.sooner = self.later = NOWHERE

    def record(self, prev: Stamp = PREV_UNKNOWN) -> Record:
        """Return what travels to another node; `prev` as the sender can vouch for it."""
        return Record(self.key, self.kind, self.value, self.version, self.expires_at_ms, prev)

    def __repr__(self) -> str:
        return f"Entry({self.key!r}, {self.kind.name}, {self.version})"


def anchor() -> Entry:
    """Return an entry that is no record: the fixed point that closes a chain to a ring."""
    entry = Entry.__new__(Entry)
    entry.older = entry.newer = entry.sooner = entry.later = entry
    return entry


# What the links of an entry point to that stands in no chain. Not None, which every step along a
# chain would have to test for; not the entry itself, which would keep it alive as a cycle.
NOWHERE = anchor()


class Chain:
    """Entries in the order of arrival, by their `older`/`newer` links. All O(1) but iteration."""

    __slots__ = ("root",)

    def __init__(self) -> None:
        self.root: Entry = anchor()
        "Before the oldest and behind the newest."

    def append(self, entry: Entry) -> None:
        """Put an entry that stands in no chain at the newest end."""
        root = self.root
        newest = root.older
        newest.newer = root.older = entry
        entry.older = newest
        entry.newer = root

    def first(self) -> Entry | None:
        """Return the oldest entry, or None if there is none."""
        oldest = self.root.newer
        return None if oldest is self.root else oldest

    def __iter__(self) -> Iterator[Entry]:
        entry = self.root.newer
        while entry is not self.root:
            yield entry
            entry = entry.newer


def unlink(entry: Entry) -> None:
    """Take an entry out of whichever chain it stands in."""
    older, newer = entry.older, entry.newer
    assert newer is not NOWHERE, "only what stands in a chain can leave it"
    older.newer = newer
    newer.older = older
    entry.older = entry.newer = NOWHERE
