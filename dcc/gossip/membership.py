"""Membership: who is there, as one node believes it.

What it is made of stands in `parts`. What a message does is decided in `hearing`, how a claim
changes the table in `claims`, what this node says of itself in `own`. This module is the machine
around them: it passes on messages and time, and says when the next turn is due.

    ALIVE ──failed probe──▶ SUSPECT ──time-out──▶ DEAD ──rebalance_delay──▶ REMOVED
      ▲                        │                   │                          │
      └────── the member raises its incarnation ───┴──────────────────────────┘
    LEFT: said by the member itself. DEAD, REMOVED and LEFT are forgotten after `forget_after`.

**Own time.** All deadlines are in a time that stands still while the node does (`standstill`, and
any turn that comes much too late), so a node that wakes judges nobody by what it did not hear.

Source: SWIM (Das, Gupta, Motivala, DSN 2002), suspicion and incarnation numbers; Lifeguard
(arXiv 1707.00788); differences to hashicorp/memberlist are listed in `docs/membership.md`.
"""

from __future__ import annotations

import random
from collections.abc import KeysView

from dcc.config import NodeConfig
from dcc.effects import Effect
from dcc.gossip.claims import Claims
from dcc.gossip.dissemination import retransmit_limit
from dcc.gossip.hearing import Hearing
from dcc.gossip.own import OwnRow
from dcc.gossip.parts import Parts
from dcc.gossip.rows import notice
from dcc.types import Member, NodeKey, Settings, Stamp, Standing
from dcc.units import NEVER
from dcc.wire.codec import Header
from dcc.wire.messages import Message, PushPull, PushPullReply


class Membership:
    """One node's membership machine: messages and time in, effects out."""

    def __init__(
        self,
        me: Member,
        config: NodeConfig,
        *,
        rng: random.Random,
        settings: Settings,
        now: int,
        cluster_ms: int,
    ) -> None:
        parts = Parts(me, config, rng=rng, settings=settings, now=now, cluster_ms=cluster_ms)
        self._config, self._time, self._table = config, parts.time, parts.table
        self.awaited: dict[str, NodeKey | None] = parts.table.awaited
        "Addresses of seeds that this node has not met since it started. To read only."
        self._rumors, self._spreading = parts.rumors, parts.spreading
        self._prober, self._push_puller = parts.prober, parts.push_puller
        self._seeds, self._newcomers, self._twins = parts.seeds, parts.newcomers, parts.twins
        self._own = OwnRow(parts)
        self._claims = Claims(parts, self._own)
        self._hearing = Hearing(parts, self._own, self._claims)
        self._sweep_at = NEVER
        self._left_at = NEVER

    # -------------------------------------------------------------- what is known

    @property
    def me(self) -> Member:
        """This node's own row, as it is gossiped."""
        return self._table.me

    @property
    def settings(self) -> Settings:
        """What all members share, as far as this node has heard."""
        return self._spreading.settings

    @property
    def joined(self) -> bool:
        """Whether this node is a member of a founded cluster."""
        return self._own.joined

    @property
    def displaced(self) -> bool:
        """Whether a node that was here first has this one's name: this one has fallen silent."""
        return self._own.displaced

    @property
    def members(self) -> dict[NodeKey, Member]:
        """All rows by node key: self, and the dead and left until they are forgotten.

        The table itself: read it, do not change it.
        """
        return self._table.rows

    @property
    def changes(self) -> int:
        """A count that grows with every change of a row."""
        return self._table.changes

    @property
    def score(self) -> int:
        """Local health: 0 is fine, 7 is as bad as it is counted."""
        return self._prober.score

    def alive(self) -> KeysView[NodeKey]:
        """Return the keys of members that are ALIVE, self included: a live, ordered view."""
        return self._table.alive()

    def unreached(self) -> list[Member]:
        """Return the members that failed this node's probe and never answered one. O(n)."""
        return self._prober.reached.never()

    def gone(self, now: int) -> bool:
        """Return whether this node has left and the others have had the time to hear of it."""
        return self._time.to_own(now) >= self._left_at

    # -------------------------------------------------------------- what the node core calls

    def start(self, now: int, cluster_ms: int) -> list[Effect]:
        """Begin to join; a node without seeds founds a cluster at once."""
        self._turn(now, cluster_ms)
        self._seeds.start(self._time.now)
        self._sweep_at = self._time.now + self._config.reconnect_interval_ns
        return self.tick(now, cluster_ms)

    def receive(
        self,
        header: Header,
        message: Message,
        now: int,
        cluster_ms: int,
        *,
        request_plane: bool,
        route: bytes,
    ) -> list[Effect]:
        """Take one membership message; O(its rumors). Others are ignored."""
        if self.displaced:
            return []
        self._turn(now, cluster_ms)
        if isinstance(message, PushPull):
            effects = self._hearing.push_pull(header, message, route)
        elif isinstance(message, PushPullReply):
            effects = self._hearing.push_pull_reply(header, message)
        else:
            effects = self._hearing.gossip(header, message, request_plane, route)
        self._time.due = max(self._time.now, self._next_at())
        return effects

    def tick(self, now: int, cluster_ms: int) -> list[Effect]:
        """Return what is due at `now`."""
        if self.displaced:
            return []
        self._turn(now, cluster_ms)
        effects: list[Effect] = []
        if self._twins.asking and not self.joined:
            self._seeds.postpone(self._time.now)
        if self._seeds.founds(self._time.now) and not self.joined:
            effects += self._own.found()
        if self.joined:
            effects += self._claims.judge() + self._spreading.tick()
        effects += self._own.look_at_twins()
        effects += self._push_puller.tick(self._time.now, self.settings)
        effects += self._newcomers.tick(self._time.now)
        for moved in self._newcomers.moved():
            effects += self._claims.believe(moved)
        if self._time.now >= self._sweep_at:
            self._sweep_at = self._time.now + self._config.reconnect_interval_ns
            self._claims.forget()
        self._time.due = max(self._time.now, self._next_at())
        return effects

    def wake_at(self) -> int:
        """Return the monotonic ns at which `tick` is due next, or NEVER."""
        return self._time.to_mono(self._next_at())

    def standstill(self, gap_ns: int, now: int) -> None:
        """Shift all deadlines: this node stood still for `gap_ns`, up to `now`.

        To be called before anything that arrived meanwhile is handed in. Sleep until the time
        that `wake_at` asked for is none, so a call too many does no harm.
        """
        self._woke(self._time.standstill(gap_ns, now))

    def drain(self, now: int, cluster_ms: int) -> list[Effect]:
        """Return the first step of leaving: owning nothing, under a new incarnation."""
        self._turn(now, cluster_ms)
        return self._own.announce(draining=True)

    def filled(self, now: int, cluster_ms: int, *, stamps_above: Stamp) -> list[Effect]:
        """Tell the others that this node has pulled all its slots, under a new incarnation."""
        self._turn(now, cluster_ms)
        return self._own.announce(filling=False, stamps_above=stamps_above)

    def leave(self, now: int, cluster_ms: int) -> list[Effect]:
        """Return the second step of leaving: LEFT, told to the others until `gone`."""
        self._turn(now, cluster_ms)
        if self._own.has_left:
            return []
        self._own.renew(standing=Standing.LEFT)
        self._prober.stop()
        self._push_puller.stop()
        self._seeds.stop()
        rounds = retransmit_limit(self._table.size) if self._table.peers else 0
        self._left_at = self._time.now + rounds * self._config.gossip_interval_ns
        self._time.due = max(self._time.now, self._next_at())
        return [notice("member_left", self.me)]

    def change_settings(self, settings: Settings, now: int) -> list[Effect]:
        """Merge `settings` into the cluster's and gossip what changed."""
        self._turn(now, self._time.cluster_ms)
        return self._spreading.merge(settings)

    def offer_view(self, key: NodeKey, now: int, cluster_ms: int) -> list[Effect]:
        """Return a push/pull with a member whose placement epoch differs from this node's."""
        self._turn(now, cluster_ms)
        if not self._table.is_peer(key):
            return []
        return [self._push_puller.swap_with(key, self.settings)]

    def check(self) -> None:
        """Assert all invariants. O(n)."""
        told_of = (self._table, self._rumors, self._newcomers, self._twins)
        for part in (*told_of, self._prober, self._push_puller, self._claims):
            part.check()
        assert self.me.standing in (Standing.ALIVE, Standing.LEFT)

    # -------------------------------------------------------------- time

    def _turn(self, now: int, cluster_ms: int) -> None:
        self._time.cluster_ms = cluster_ms
        self._woke(self._time.advance(now))

    def _woke(self, slept_ns: int) -> None:
        """Doubt oneself after a standstill of a period or more."""
        if slept_ns >= self._config.protocol_period_ns and self.joined and not self._own.has_left:
            self._prober.worsen(1)
            self._push_puller.assert_self(self._time.now)

    def _next_at(self) -> int:
        if self.displaced:
            return NEVER
        asked_at = min(self._newcomers.wake_at(), self._twins.wake_at())
        at = min(self._push_puller.wake_at(), asked_at, self._sweep_at)
        if self._time.now < self._left_at:
            at = min(at, self._left_at)
        if not self.joined:
            return at
        return min(at, self._spreading.wake_at(), self._claims.wake_at())
