"""Settling: when the clock of a holder is taken over, and what that holder may not have told.

A slot came whole: every record that the holder has and this node had not seen is here. Then its
clock is taken over at once, unless the holder has forgotten something that this node has not seen.
In that case it is a *claim* (`claims` has a drawing), which waits until the others were heard. What
is covered afterwards without having been received is *owed* (`dcc.store.doubt`), and all holders
are asked for it.
"""

from __future__ import annotations

from dcc.replication.agenda import MUTE_NS, Agenda
from dcc.replication.claims import Claim, Claims
from dcc.replication.holdings import Holdings, Instant
from dcc.replication.sync import SyncTable
from dcc.store.clocks import BASE
from dcc.types import NodeKey, Stamp
from dcc.units import NEVER, SECOND

CLAIMS_NS = 1 * SECOND
"How often claims that wait are looked at without an event: somebody may have fallen silent."


class Settling:
    """Takes over what other holders say to have seen."""

    def __init__(self, holdings: Holdings, sync: SyncTable, agenda: Agenda) -> None:
        self._held, self._sync, self._agenda = holdings, sync, agenda
        self.claims: Claims = Claims(holdings.config.claims_bytes_max)
        self.at: int = NEVER
        "When claims that wait are looked at again, monotonic ns."

    def came_whole(self, slot: int, peer: NodeKey, claim: Claim, now: Instant) -> None:
        """All that `peer` has of `slot` came: take its clock over, now or after the others'."""
        comparison, listing = self._held.store.comparison, claim.listing
        if comparison.is_below(slot, listing) or comparison.misses(slot, listing.clock):
            self.claims.add(slot, peer, claim)
            self._want(slot, self.unheard(slot, now))
            self.at = min(self.at, now.mono + CLAIMS_NS)
        else:
            self._take_over(slot, peer, claim, 0)
        self.settle(slot, now)

    def equal(self, slot: int, peer: NodeKey, sent_at: int, now: Instant) -> None:
        """`peer` has seen the same of `slot` as this node, in answer to a question of `sent_at`."""
        self._sync.pulled(slot, peer, sent_at)
        self.settle(slot, now)

    def doubted(self, slot: int, now: Instant) -> None:
        """A write was not taken: it may be hidden by what somebody forgot whose mark came here.

        Holders that know better say so.
        """
        self._sync.owed(slot, now.mono)
        self._want_owed(slot)

    def settle_all(self, now: Instant) -> None:
        """Settle all claims that can be, and ask for those that cannot."""
        for slot in self.claims.slots():
            self.settle(slot, now)
        for slot in self.claims.slots():
            self._want(slot, self.unheard(slot, now))
        self.at = now.mono + CLAIMS_NS if len(self.claims) else NEVER

    def settle(self, slot: int, now: Instant) -> None:
        """Take over all that is claimed of a slot, once every other holder was pulled from."""
        if slot not in self.claims or self.unheard(slot, now):
            return
        store, sync = self._held.store, self._sync
        since, claims = self.claims.since(slot), self.claims.take(slot)
        is_below = store.comparison.is_below
        below = [peer for peer, one in claims.items() if is_below(slot, one.listing)]
        if store.refill(slot, [claims[peer].listing for peer in below]):
            since = now.mono  # Somebody may know better of what is gone: all are asked again.
        for peer, claim in claims.items():
            self._take_over(slot, peer, claim, claim.listing.mark if peer in below else 0)
        if store.comparison.owed(slot).high:
            sync.owed(slot, since)
            self._want_owed(slot)

    def unheard(self, slot: int, now: Instant) -> list[NodeKey]:
        """Return the holders of a slot with claims that are still to be pulled from."""
        since, claimed = self.claims.since(slot), self.claims.of(slot)
        peers = self._agenda.peers
        return [
            peer
            for peer in self._sync.holders(slot)
            if peer in peers
            and peer not in claimed
            and self._sync.last_pull(slot, peer) < since
            and peers[peer].silent_since + MUTE_NS > now.mono
        ]

    # -------------------------------------------------------------- inside

    def _take_over(self, slot: int, peer: NodeKey, claim: Claim, mark: Stamp) -> None:
        """Become the maximum of both: everything came, but for what is hidden under `mark`."""
        store, listing = self._held.store, claim.listing
        # Nobody knows more of this node's own writes than it does, unless it was told a lie: what
        # it writes from now on must not lie below that.
        self._held.clock.witness(max(listing.clock.get(self._held.origin, 0), mark))
        base, clock = store.comparison.base(slot), listing.clock
        if not claim.same_view:  # A member that only one of the two sees did not agree.
            clock = {origin: stamp for origin, stamp in clock.items() if origin != BASE}
        store.merge_clock(slot, clock, mark)
        if store.comparison.base(slot) > base:
            self._held.unasked.bound(slot)
        store.merge_spans(slot, listing.spans)
        if claim.same_view and peer in self._agenda.peers:
            self._agenda.peers[peer].wanted.pop(slot, None)
            self._sync.pulled(slot, peer, claim.sent_at)

    def _want_owed(self, slot: int) -> None:
        peers, owes = self._agenda.peers, self._sync.owes
        holders = self._sync.holders(slot)
        self._want(slot, [peer for peer in holders if peer in peers and owes(slot, peer)])

    def _want(self, slot: int, holders: list[NodeKey]) -> None:
        for peer in holders:
            self._agenda.peers[peer].wanted[slot] = None
