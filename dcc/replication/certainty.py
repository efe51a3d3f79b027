"""Certainty: when a miss is authoritative, and when a hit may be served, in one place.

Code that answers a reader, decides a write or lists keys asks here, and adds nothing to the answer.
Two words are used for a key that was not found: the miss is *authoritative* if the key is certainly
nowhere, else it is *unsure*.

A key that is absent here (`of_absence`):

    this node          in sync with all   ghost of the     answer
                       live holders?      key to ask for?
    primary            yes                no               authoritative
    primary            no                 no               ask the holders not in sync
    not the primary    -                  no               ask the primary, then those not in sync
    any                -                  yes              ask every live holder
    no live owner      -                  -                unsure, whatever others say

    and in each row: a holder is down that may have the key, or this node is lone
                                                           unsure, whatever others say

After the holders that were asked have answered (`after`), the miss is judged again by what is known
then:

    all have answered   in one   the value held here   nobody is left to ask     answer
    in time?            ring?    is gone elsewhere?    by the table above?
    yes                 yes      no                    yes                       authoritative
    anything else                                                                unsure

A value that is held here (`of_hit`):

    behind?   in sync with all   did the reader come aside    answer
              live holders?      of a silent primary?
    no        -                  no                           serve it
    no        -                  yes                          ask the owners beside the primary
    yes       yes                as above                     as if it were not behind
    yes       no                 -                            ask the holders not in sync, and all
                                                              live owners: serve what is newest

In this table holders that have long been silent count as in sync, until they answer again.

The keys of a slot (`of_listing`): the list is authoritative where a miss of any key would be,
ghosts apart; it may be old where a hit would not be served at once.

*In sync* and *behind* are explained in `sync`, ghosts in `dcc.store.store`. A ghost is *barren*,
and nobody is asked for it again, once every holder has answered that it does not have the value.

**Lone.** A node without seeds founds a cluster of its own whenever it starts. It may have been
restarted so, and the cluster that it belongs to looks for it. Until it has met somebody, or the
others would have found it, none of its misses is authoritative.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from dcc.replication.holdings import Holdings
from dcc.replication.questions import Verdict
from dcc.replication.sync import IN_SYNC, Inquiry, SyncTable
from dcc.store.entry import BARREN
from dcc.types import NO_VERSION, Kind, NodeKey
from dcc.wire.messages import Op


class Listing(NamedTuple):
    """What a list of the keys held here of one slot is worth."""

    authoritative: bool
    "Whether a key that is not in it is certainly nowhere, ghosts apart."
    may_be_old: bool
    "Whether a key that is in it may have been deleted by others since."
    may_lack: bool
    "Whether a live holder may have a key that is not in it."


class Certainty:
    """What this node may say of a slot without asking, and whom it has to ask before."""

    def __init__(self, holdings: Holdings, sync: SyncTable) -> None:
        self._view, self._store, self._sync = holdings.view, holdings.store, sync
        self.lone = True
        """Whether this node has met nobody since it started, a short while ago; set by
        `dcc.node.lifecycle`."""

    # -------------------------------------------------------------- the questions

    def of_absence(self, slot: int, key: bytes, *, aside: bool = False) -> Inquiry:
        """Return whom to ask before `key`, absent here, may be called absent. Amortised O(1).

        With `aside` the reader found the primary silent.
        """
        inquiry = self._of_miss(slot, key)
        return inquiry.followed_by(self._may_know_newer(slot, aside=aside))

    def of_hit(self, slot: int, *, aside: bool = False) -> Inquiry:
        """Return whom to ask before a value of `slot` held here is served: nobody, as a rule.

        A node that has not caught up since it was away asks the peers whose writes it may have
        missed, and the other owners, which may have heard already from a peer that is silent. A
        reader that came `aside` of a silent primary may know of a write that only another owner
        acknowledged.
        """
        peers = self._may_know_newer(slot, aside=aside)
        return Inquiry(peers, decides=self._sync.unsynced(slot).decides) if peers else IN_SYNC

    def of_write(self, slot: int, op: Op, key: bytes) -> Inquiry:
        """Return whom to ask before a write is stamped.

        A put only has to exceed the versions that this node may have missed; the others are
        conditions, on a value that a primary gone silent, or whom it has told, may know better.
        """
        if op is Op.PUT:
            return self._sync.unsynced(slot)
        return self._of_miss(slot, key).followed_by(self._beside(slot))

    def of_quorum(self, slot: int, key: bytes) -> Inquiry:
        """Return peers that have to answer a read of several owners beside the quorum.

        An acknowledged write may be with a holder that this node is not in sync with.
        """
        entry = self._store.peek(slot, key)
        if entry is not None and entry.kind is Kind.VALUE:
            return self._sync.unsynced(slot)
        return self._of_miss(slot, key)

    def after(self, verdict: Verdict, slot: int, key: bytes) -> bool:
        """Return whether, after a question about `key`, a miss of it is authoritative.

        Judged by what is known now: since the question was put the ring may have changed, or an
        answer have told of a newer version whose value was evicted. A ghost of the key becomes
        barren if every holder has answered.
        """
        entry = self._store.peek(slot, key)
        if entry is not None and entry.kind is Kind.EVICTED and self._all_answered(slot, verdict):
            entry.asked |= BARREN
        if verdict.gone != NO_VERSION:
            return False
        inquiry = self._of_miss(slot, key)
        answered = all(peer in verdict.versions for peer in inquiry.peers)
        return verdict.decides and inquiry.decides and answered

    def of_listing(self, slot: int) -> Listing:
        """Return what a list of the keys held here of `slot` is worth. Amortised O(1)."""
        authoritative = self._view.is_primary(slot) and self._speaks_alone(slot)
        return Listing(authoritative, self.may_be_old(slot), not self.of_word(slot))

    def of_word(self, slot: int) -> bool:
        """Return whether this node's answer about `slot` counts where another node asks.

        Not if it is not in sync with a live holder: it may have forgotten what it acknowledged.
        """
        return not self._sync.unsynced(slot).peers

    # -------------------------------------------------------------- short forms

    def may_be_old(self, slot: int) -> bool:
        """Return whether others may have written `slot` without this node. Amortised O(1)."""
        return self._sync.behind and bool(self._sync.newer_at(slot))

    def any_may_be_old(self, slots: Iterable[int]) -> bool:
        """Return whether `may_be_old` is true of any of `slots`. O(1) unless behind."""
        return self._sync.behind and any(map(self.may_be_old, slots))

    def is_authoritative(self, slot: int, key: bytes) -> bool:
        """Return whether a miss of `key` is authoritative at once, on the primary. Amortised O(1).

        To be asked on the primary only. True only if `of_absence` names nobody and decides.
        """
        return self._speaks_alone(slot) and not self._is_ghost_to_ask_for(slot, key)

    # -------------------------------------------------------------- inside

    def _of_miss(self, slot: int, key: bytes) -> Inquiry:
        unsynced, view = self._sync.unsynced(slot), self._view
        decides = unsynced.decides and not self.lone
        if self._is_ghost_to_ask_for(slot, key):
            holders = self._sync.holders(slot)
            return Inquiry(tuple([p for p in holders if p in view.alive]), decides=decides)
        route = view.route(slot)
        if not route:
            return Inquiry(unsynced.peers, decides=False)
        if route[0] == view.me or route[0] in unsynced.peers:
            return Inquiry(unsynced.peers, decides=decides)
        return Inquiry((route[0], *unsynced.peers), decides=decides)

    def _may_know_newer(self, slot: int, *, aside: bool) -> tuple[NodeKey, ...]:
        """Return peers that may know a newer version than the one held here."""
        newer_at = self._sync.newer_at(slot)
        return newer_at or (self._beside(slot) if aside else ())

    def _beside(self, slot: int) -> tuple[NodeKey, ...]:
        """Return the live owners beside the primary and this node; nobody if that is this one."""
        route, me = self._view.route(slot), self._view.me
        return () if route[:1] == (me,) else tuple([peer for peer in route[1:] if peer != me])

    def _speaks_alone(self, slot: int) -> bool:
        """Return whether the primary, if that is this node, needs nobody to call a key absent."""
        return not self.lone and self._sync.unsynced(slot) is IN_SYNC

    def _is_ghost_to_ask_for(self, slot: int, key: bytes) -> bool:
        """Return whether somebody may have kept the value of `key`, which was evicted here."""
        entry = self._store.peek(slot, key)
        return entry is not None and entry.kind is Kind.EVICTED and not entry.asked & BARREN

    def _all_answered(self, slot: int, verdict: Verdict) -> bool:
        """Return whether every holder has answered; one that is down may have the value."""
        alive, sync = self._view.alive, self._sync
        holders = [peer for peer in sync.holders(slot) if peer in alive]
        decides = verdict.decides and sync.unsynced(slot).decides
        return decides and all(peer in verdict.versions for peer in holders)
