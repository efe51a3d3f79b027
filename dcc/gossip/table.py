"""The membership table of one node: rows, and who of them can be talked to.

A row is a `Member`; the row of a key is only ever replaced by one of higher precedence, so a view
is a join of everything that was heard and order and repetition do not matter. Beside the rows the
table keeps what would otherwise be searched for in every message: the peers (other members that
are ALIVE or SUSPECT) in a list for O(1) random choice, and the keys of those ALIVE.
"""

from __future__ import annotations

import random
from collections.abc import Container, KeysView

from dcc.limits import MEMBERS_MAX
from dcc.types import Member, NodeKey, Standing


class Table:
    """Rows by node key, this node's own among them."""

    def __init__(self, me: Member) -> None:
        self.key: NodeKey = me.key
        self.rows: dict[NodeKey, Member] = {self.key: me}
        self.changes: int = 0
        "Counts replaced rows; whoever derives something from the rows compares it."
        self.awaited: dict[str, NodeKey | None] = {}
        """Addresses of seeds of which no row was known since the start -> who answered there. They
        may be up behind a cut; they stand here for as long as members that are down are."""
        self._alive: dict[NodeKey, None] = {}
        self._peers: list[NodeKey] = []
        self._place: dict[NodeKey, int] = {}
        self.put(self.key, me)

    @property
    def me(self) -> Member:
        """This node's own row."""
        return self.rows[self.key]

    @property
    def size(self) -> int:
        """Members that are ALIVE or SUSPECT, this node counted: the n of all formulas."""
        return len(self._peers) + 1

    @property
    def peers(self) -> list[NodeKey]:
        """Other members that are ALIVE or SUSPECT, in no particular order. Not to be changed."""
        return self._peers

    def alive(self) -> KeysView[NodeKey]:
        """Return the keys of ALIVE members, in the order of becoming so; a live view."""
        return self._alive.keys()

    def put(self, key: NodeKey, row: Member) -> None:
        """Replace or add the row of `key`. O(1), or O(seeds) while any is awaited."""
        self.rows[key] = row
        for address in [a for a, who in self.awaited.items() if a == row.request or who == key]:
            del self.awaited[address]
        self.changes += 1
        if row.standing == Standing.ALIVE:
            self._alive[key] = None
        else:
            self._alive.pop(key, None)
        if row.standing > Standing.SUSPECT:
            self._leave_peers(key)
        elif key not in self._place and key != self.key:
            self._place[key] = len(self._peers)
            self._peers.append(key)

    def forget(self, key: NodeKey) -> None:
        """Remove the row of a member whose retention is over. O(1)."""
        assert key not in self._place, "a peer is never forgotten"
        assert key != self.key, "nobody forgets itself"
        del self.rows[key]
        self.changes += 1

    def answered(self, address: str, key: NodeKey) -> None:
        """Take note of who answered at an address: it may be an awaited seed's other name."""
        if address in self.awaited:
            self.awaited[address] = key
            if key in self.rows:
                self.put(key, self.rows[key])

    def await_nobody(self) -> None:
        """Stop waiting for seeds: members that are down for so long are forgotten, too."""
        self.awaited.clear()
        self.changes += 1

    def is_peer(self, key: NodeKey) -> bool:
        """Return whether `key` is another member, ALIVE or SUSPECT."""
        return key in self._place

    def some_peers(
        self, count: int, rng: random.Random, besides: Container[NodeKey] = ()
    ) -> list[NodeKey]:
        """Return up to `count` distinct random peers that are not in `besides`.

        O(count) expected: `besides` is small or `peers` is.
        """
        peers = self._peers
        if len(peers) <= 2 * count + 2:
            pool = [key for key in peers if key not in besides]
            return rng.sample(pool, min(count, len(pool)))
        found: list[NodeKey] = []
        for _ in range(8 * count):
            key = peers[int(rng.random() * len(peers))]
            if key not in found and key not in besides:
                found.append(key)
                if len(found) == count:
                    break
        return found

    def down(self) -> list[Member]:
        """Return the rows that are DEAD or REMOVED, the latest to die first. O(n)."""
        rows = [
            row for row in self.rows.values() if Standing.DEAD <= row.standing <= Standing.REMOVED
        ]
        return sorted(rows, key=lambda row: (row.since_ms, row.name), reverse=True)

    def gone(self, before_ms: int) -> list[NodeKey]:
        """Return the keys of those DEAD, REMOVED or LEFT whose standing dates from `before_ms`."""
        return [
            key
            for key, row in self.rows.items()
            if row.standing >= Standing.DEAD and row.since_ms <= before_ms and key != self.key
        ]

    @property
    def full(self) -> bool:
        """Whether no further row fits."""
        return len(self.rows) >= MEMBERS_MAX

    def oldest_gone(self) -> NodeKey | None:
        """Return the key of the DEAD, REMOVED or LEFT member of longest standing. O(n)."""
        rows = self.rows
        gone = self.gone(1 << 64)
        return min(gone, key=lambda key: (rows[key].since_ms, key)) if gone else None

    def check(self) -> None:
        """Assert that lists and rows agree, and the bound."""
        assert len(self.rows) <= MEMBERS_MAX
        assert all(row.key == key for key, row in self.rows.items())
        alive = {key for key, row in self.rows.items() if row.standing == Standing.ALIVE}
        assert set(self._alive) == alive
        peers = {key for key, row in self.rows.items() if row.standing <= Standing.SUSPECT}
        assert set(self._peers) == peers - {self.key}
        assert len(self._peers) == len(self._place)
        assert all(self._peers[place] == key for key, place in self._place.items())

    def _leave_peers(self, key: NodeKey) -> None:
        place = self._place.pop(key, None)
        if place is None:
            return
        last = self._peers.pop()
        if last != key:
            self._peers[place] = last
            self._place[last] = place


def order_of(row: Member) -> tuple[int, int, int, str]:
    """Return what merging compares: precedence, and a tie-break between two lives of one name."""
    return (row.incarnation, row.standing, row.boot, row.request)


def placement_of(row: Member) -> tuple[object, ...]:
    """Return what of a live member's row changes the ring or how it is reached."""
    return (row.boot, row.request, row.gossip, row.zone, row.weight, row.draining, row.follows)
