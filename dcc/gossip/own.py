"""This node's own row: what it says of itself, and how it answers what others say of it.

Nobody else raises this node's incarnation. An accusation, or what was said of an earlier boot whose
clock was ahead, is refuted by a row one incarnation above it. Whoever speaks in this node's name
from another place is a twin (`twin`): the one that was there first stays.
"""

from __future__ import annotations

from typing import Any

from dcc.effects import Effect
from dcc.gossip.parts import Parts
from dcc.gossip.rows import notice
from dcc.gossip.table import order_of
from dcc.gossip.twin import conflict
from dcc.types import Member, NodeKey, Standing


class OwnRow:
    """One node as a member: its row, whether it has joined, whether it gave its name up."""

    def __init__(self, parts: Parts) -> None:
        self.joined: bool = False
        self.displaced: bool = False
        "Another node that was here first has this one's name: this one has fallen silent."
        self._table, self._rumors, self._time = parts.table, parts.rumors, parts.time
        self._spreading, self._prober = parts.spreading, parts.prober
        self._push_puller, self._seeds, self._twins = parts.push_puller, parts.seeds, parts.twins

    @property
    def row(self) -> Member:
        """The row, as it is gossiped."""
        return self._table.me

    @property
    def has_left(self) -> bool:
        """Whether this node has said that it left."""
        return self.row.standing == Standing.LEFT

    def announce(self, **changes: Any) -> list[Effect]:
        """Change the row under a new incarnation, so that all take it over."""
        self.renew(incarnation=self.row.incarnation + 1, **changes)
        return [notice("member_updated", self.row)]

    def renew(self, **changes: Any) -> None:
        """Change the row and gossip it."""
        me = self.row._replace(since_ms=self._time.cluster_ms, **changes)
        self._table.put(me.key, me)
        self._rumors.put(me.key, me)

    # -------------------------------------------------------------- joining

    def found(self) -> list[Effect]:
        """Be the first member of a cluster."""
        self._spreading.found()
        # There is nothing to pull, and others may know the row as it was.
        effects = self.announce(filling=False) if self.row.filling else []
        self._begin()
        if self._seeds.only_me:  # Legal, and what one copied name for all nodes looks like.
            effects.append(notice("seeds_are_this_node", self.row, request=self.row.request))
        return [*effects, notice("cluster_founded", self.row)]

    def join(self) -> list[Effect]:
        """Be a member of the cluster that has answered."""
        self._begin()
        return [notice("joined", self.row, members=self._table.size)]

    def _begin(self) -> None:
        self.joined = True
        self._seeds.stop()
        self._prober.start(self._time.now)
        self._push_puller.start(self._time.now)
        self._rumors.put(self.row.key, self.row)

    # -------------------------------------------------------------- what others say

    def hear(self, claim: Member, newer: list[Member], sender: NodeKey) -> list[Effect]:
        """Take a claim about this node; append its row to `newer` if the claim is stale."""
        me = self.row
        stale = order_of(claim) <= order_of(me)
        if stale and claim.incarnation < me.incarnation:
            newer.append(me)
        if self.has_left:
            return []
        of_twin = self._twins.hear(claim, by_itself=sender == me.key, joined=self.joined)
        if of_twin is not None or stale:
            return of_twin or []
        self._prober.worsen(1)
        return self.refute(claim)

    def refute(self, claim: Member) -> list[Effect]:
        """Answer an accusation, or what was said of an earlier boot, whose clock was ahead."""
        self.renew(incarnation=claim.incarnation + 1)
        if claim.standing >= Standing.DEAD:
            # Those who believe it no longer listen; tell them by address.
            self._push_puller.assert_self(self._time.now)
        return [notice("refuted", self.row, accused=claim.standing.name.lower())]

    def look_at_twins(self) -> list[Effect]:
        """Ask a twin that was heard of; outbid one that is not there, or go on joining."""
        effects, silent = self._twins.tick(self._time.now, joined=self.joined)
        if silent is not None and not self.joined:
            self._seeds.attempt_at = self._time.now
        if silent is not None and order_of(silent) > order_of(self.row):
            effects += self.refute(silent)
        return effects

    def give_way(self, twin: Member) -> list[Effect]:
        """Fall silent: `twin` was here first."""
        self.displaced, self.joined = True, False
        return [conflict(twin, self.row, lost=True)]
