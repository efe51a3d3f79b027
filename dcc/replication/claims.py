"""Claims: what a holder says it has seen though it has forgotten some, until others are heard.

A node that is below another holder's forget mark cannot pull all that this holder's clock covers:
the holder may have evicted it, or forgotten what hides it. A third holder may still have it. So the
clock is not taken over at once. It waits, with the list of the holder's keys, until every other
live holder of the slot was pulled from, or has such a claim, too. Often this node is below nothing
then. If it still is, it drops what one list lacks and nobody vouches for, takes all the clocks over
with their marks, and from then on is *owed* what they cover and any other holder may still bring.

    asker              small (has forgotten)        large
      | Pull: {}            |                         |
      |-------------------->|                         |
      | {a: 9} mark 7, list |                         |
      |<--------------------| claim waits             |
      | Pull: {}                                      |
      |---------------------------------------------->|
      | x, y, z {a: 9} mark 0                         |
      |<----------------------------------------------| not below any more: nothing is dropped

Ends: holders are finitely many, a pull is answered whatever the answerer waits for itself, and
a member that is down or silent for long is not waited for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from dcc.store.doubt import Listing
from dcc.types import NodeKey


@dataclass(frozen=True, slots=True)
class Claim:
    """One holder's claim to a slot."""

    listing: Listing
    sent_at: int
    "When the pull was sent that it answers, monotonic ns."
    same_view: bool


class Claims:
    """The claims that wait, by slot and holder, within a budget in bytes."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._waiting: dict[int, dict[NodeKey, Claim]] = {}
        self.bytes_used: int = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, slot: int) -> bool:
        return slot in self._waiting

    @property
    def full(self) -> bool:
        """Whether no other slot is to be asked for before these are settled."""
        return self.bytes_used >= self._bytes_max

    def holds_back(self, slot: int, peer: NodeKey) -> bool:
        """Return whether `slot` is not to be asked of `peer`: for the others' sake, or for room."""
        return peer in self.of(slot) or (self.full and slot not in self)

    def slots(self) -> tuple[int, ...]:
        """Return the slots with claims, in order of arrival."""
        return tuple(self._waiting)

    def of(self, slot: int) -> Collection[NodeKey]:
        """Return whose claims to `slot` wait."""
        return self._waiting.get(slot, {}).keys()

    def since(self, slot: int) -> int:
        """Return since when, by the earliest claim to `slot`, others are to be asked."""
        return min(claim.sent_at for claim in self._waiting[slot].values())

    def add(self, slot: int, peer: NodeKey, claim: Claim) -> None:
        """Let a claim wait, instead of an earlier one of the same holder."""
        self._remove(slot, peer)
        self._waiting.setdefault(slot, {})[peer] = claim
        self.bytes_used += claim.listing.bytes_used()

    def take(self, slot: int) -> dict[NodeKey, Claim]:
        """Return the claims to `slot`, which wait no more."""
        claims = dict(self._waiting.get(slot, {}))
        for peer in claims:
            self._remove(slot, peer)
        return claims

    def drop(self, slots: Iterable[int]) -> None:
        """Drop all claims to `slots`. Those of a member that went down stay: what he said is true,
        and some of what he sent may have been forgotten here since."""
        for slot in slots if self._waiting else ():
            self.take(slot)

    def check(self) -> None:
        """Assert that the bytes are the sum."""
        found = [one for claims in self._waiting.values() for one in claims.values()]
        assert all(self._waiting.values()), "a slot without claims is not here"
        assert self.bytes_used == sum(one.listing.bytes_used() for one in found)

    def _remove(self, slot: int, peer: NodeKey) -> None:
        claims = self._waiting.get(slot, {})
        claim = claims.pop(peer, None)
        if claim is not None:
            self.bytes_used -= claim.listing.bytes_used()
            if not claims:
                del self._waiting[slot]
