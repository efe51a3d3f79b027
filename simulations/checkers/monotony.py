"""Monotony: at one life of one node, a key's version never falls, and what was given up stays so.

A key may vanish (a record without a value is forgotten once everybody has seen it), but never
come back with an older value: that is how the deleted and the expired return. (It may come back as
an older tombstone or ghost, when the newer one was forgotten for want of room: absent is absent.)
Only a node that released the slot to its owners begins anew, which its slot clock tells. And repair
must not bring a value back that this node evicted (P-D3); a read may.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dcc.types import NO_VERSION, Kind, Record, Version
from simulations.history import Violation

PROMISE = "a version never falls"


Place = tuple[str, int, bytes]
"Node, its life, key."


class Monotony:
    """Remembers the newest version of every key at every life of every node."""

    def __init__(self) -> None:
        self._newest: dict[Place, Version] = {}
        self.violations: list[Violation] = []

    def newest(self, place: Place) -> Version:
        """Return the newest version that this life held, as far as observed; else NO_VERSION."""
        return self._newest.get(place, NO_VERSION)

    def observe(
        self,
        place: Place,
        record: Record | None,
        covers: Callable[[Version], bool],
        at_ns: int,
    ) -> None:
        """Note what a life of a node holds of a key now.

        Args:
            covers: whether its clock says that it has seen a version; if not, it let go of all.
        """
        newest = self._newest.get(place, NO_VERSION)
        if record is None:
            if newest is not NO_VERSION and not covers(newest):
                del self._newest[place]
            return
        if record.version < newest and covers(newest):
            if record.kind is Kind.VALUE:
                what = f"{place[2].decode()} at {place[0]} falls from {newest} to {record.version}"
                self.violations.append(Violation(PROMISE, what, at_ns))
            return
        if record.version != newest:
            self._newest[place] = record.version


def check_repair(
    node: str,
    before: Sequence[Record | None],
    after: Sequence[Record | None],
    at_ns: int,
    evicted: Callable[[Version], bool],
) -> list[Violation]:
    """Return values that one message of replication or repair brought back to a node.

    Args:
        before, after: what the node held of the message's keys.
        evicted: whether the node itself evicted a version in this life; it may also have only
            heard that there is one, or have doubted it.
    """
    return [
        Violation("repair undoes no eviction", f"{old.key.decode()} {old.version} at {node}", at_ns)
        for old, new in zip(before, after, strict=True)
        if old is not None and new is not None
        if old.kind is not Kind.VALUE and new.kind is Kind.VALUE and old.version == new.version
        if evicted(old.version)
    ]
