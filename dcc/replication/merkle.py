"""Merkle trees over what was seen: how two nodes learn in eight bytes that they agree.

One tree for each peer, over the slots that both own:

    root                     one hash over the groups; rides on every ping and ack
    128 groups               XOR of the leaves of the slots g, g + 128, …
    16,384 slots             leaf: hash of the slot's number and its digest (clock, notes)

The leaves are digests of what was *seen*, not of what is held, so that eviction and expiry change
nothing here. A group is an XOR, so a leaf is replaced in it by two operations, for each of the few
peers that share the slot, and the tree of a peer needs no more than its groups.

Leaves are brought up to date in pieces, when somebody asks: a node that is written to all the time
would hash for nothing, since roots differ anyway while writes are under way. Until a slot's turn
has come its group counts as *dirty*: it is told as 0, equal to nothing, and the root as not known.
So equal groups always speak of the present.

Source: R. Merkle, "A digital signature based on a conventional encryption function", CRYPTO '87,
for the tree; G. DeCandia et al., "Dynamo", SOSP 2007, section 4.7, for anti-entropy by it. XOR
would not do against an adversary that chooses leaves; a peer can lie about its root anyway.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from struct import Struct

from xxhash import xxh3_64_intdigest

from dcc.limits import GROUP_COUNT, SLOT_COUNT
from dcc.replication.holdings import Holdings
from dcc.types import NodeKey

REFRESH_SLOTS = 256
"Leaves recomputed in one piece: about two milliseconds."

NOT_KNOWN = 0
"A root or group that cannot be told now; equal to nothing."

NOTHING = 1
"Stands for a group without anything ever seen."

_LEAF = Struct("<HQ").pack
_GROUPS = Struct(f"<{GROUP_COUNT}Q").pack


class Trees:
    """The trees of one node, one for each member that owns a slot together with it."""

    def __init__(self, holdings: Holdings) -> None:
        self._held = holdings
        self._changed = holdings.store.changed
        "Slots whose leaves are to be recomputed: the store's own set, which we empty."
        self._groups: dict[NodeKey, array[int]] = {}
        self._leaves = array("Q", bytes(8 * SLOT_COUNT))
        self._sharers: list[tuple[NodeKey, ...]] = [()] * SLOT_COUNT
        "By slot: the peers whose trees have its leaf now."
        self._shared: dict[NodeKey, list[int]] = {}

    def pieces(self) -> int:
        """Return how many calls of `refresh` it takes to recompute each leaf that is old now."""
        return -(-len(self._changed) // REFRESH_SLOTS)

    def view_changed(self, slots: Iterable[int]) -> None:
        """Take note that the owners of `slots` have changed; forget members that are gone."""
        self._changed.update(slots)
        self._shared.clear()
        gone = self._groups.keys() - self._held.view.boots.keys()
        for key in sorted(gone):
            del self._groups[key]
        if gone:
            self._sharers = [
                tuple([key for key in sharers if key not in gone]) for sharers in self._sharers
            ]

    def refresh(self, limit: int = REFRESH_SLOTS) -> bool:
        """Recompute up to `limit` leaves; return whether all are up to date."""
        changed = self._changed
        for _ in range(min(limit, len(changed))):
            self._replace(changed.pop())
        return not changed

    def root(self, peer: NodeKey) -> int:
        """Return the root of the tree shared with `peer`; NOT_KNOWN while leaves are missing."""
        if not self.refresh():
            return NOT_KNOWN
        groups = self._groups.get(peer)
        return _root_of(groups) if groups is not None else NOTHING

    def groups(self, peer: NodeKey) -> tuple[int, ...]:
        """Return the groups of the tree shared with `peer`; NOT_KNOWN for those that are dirty."""
        known = self._groups.get(peer)
        groups = [one or NOTHING for one in known] if known else [NOTHING] * GROUP_COUNT
        for slot in self._changed:
            groups[slot % GROUP_COUNT] = NOT_KNOWN
        return tuple(groups)

    def shared(self, peer: NodeKey) -> list[int]:
        """Return the slots that this node and `peer` own, ascending. O(1) once computed.

        The first call after a change computes all peers' in one pass over the owned slots.
        """
        if not self._shared:
            owners, shared = self._held.view.slots.owners, self._shared
            for slot in self._held.view.owned:
                for key in owners(slot):
                    shared.setdefault(key, []).append(slot)
        return self._shared.get(peer, [])

    def check(self) -> None:
        """Assert that every tree is the XOR of its clean leaves. O(slots)."""
        expected: dict[NodeKey, list[int]] = {key: [0] * GROUP_COUNT for key in self._groups}
        for slot, sharers in enumerate(self._sharers):
            for key in sharers:
                expected[key][slot % GROUP_COUNT] ^= self._leaves[slot]
        assert {key: list(groups) for key, groups in self._groups.items()} == expected
        for slot in range(SLOT_COUNT):
            if slot not in self._changed:
                assert self._sharers[slot] == self._sharers_of(slot), "sharers as the view says"

    def _replace(self, slot: int) -> None:
        group = slot % GROUP_COUNT
        leaf = self._leaves[slot]
        for key in self._sharers[slot]:
            self._groups[key][group] ^= leaf
        sharers = self._sharers[slot] = self._sharers_of(slot)
        digest = self._held.digest(slot) if sharers else 0
        leaf = self._leaves[slot] = xxh3_64_intdigest(_LEAF(slot, digest)) if digest else 0
        for key in sharers:
            groups = self._groups.get(key)
            if groups is None:
                groups = self._groups[key] = array("Q", bytes(8 * GROUP_COUNT))
            groups[group] ^= leaf

    def _sharers_of(self, slot: int) -> tuple[NodeKey, ...]:
        view = self._held.view
        if not view.owns(slot):
            return ()
        return tuple([key for key in view.slots.owners(slot) if key != view.me])


def _root_of(groups: Iterable[int]) -> int:
    return xxh3_64_intdigest(_GROUPS(*groups)) or NOTHING


def differing(ours: Iterable[int], theirs: Iterable[int]) -> list[int]:
    """Return the numbers of the groups that differ or are not known at one of both.

    >>> differing((5, 0, 7), (5, 0, 8))
    [1, 2]
    """
    pairs = enumerate(zip(ours, theirs, strict=True))
    return [group for group, (a, b) in pairs if a != b or a == NOT_KNOWN]
