"""Membership: who is there, as one node believes it.

Composes the table (`table`), the failure detector (`probe`), the suspicions (`suspicion`), the
rumors (`dissemination`) and the swapping of views (`pushpull`, `joining`). This module holds the
rules by which a claim changes the table; all others only say when and to whom.

    ALIVE ──failed probe──▶ SUSPECT ──time-out──▶ DEAD ──rebalance_delay──▶ REMOVED
      ▲                        │                   │                          │
      └────── the member raises its incarnation ───┴──────────────────────────┘
    LEFT: said by the member itself. DEAD, REMOVED and LEFT are forgotten after `forget_after`.

**One order.** A claim about a member is its whole row. It replaces the row held if its
(incarnation, standing) is larger, so views are joins: repeats and reorderings are free, and all
nodes that heard the same claims agree. Only the member itself raises its incarnation. It does so
to refute: to max(own, accused) + 1, whatever plane the accusation came by.

**Not at one stroke.** A claim that somebody is DEAD or REMOVED, about a member believed ALIVE
here, only makes it SUSPECT, for two periods and a last look. Without it the healing of a partition
would first kill everybody: each side brings the other a list of its dead, valid at the incarnation
they still have. In a crash everybody has suspected the member long before, and the claim counts at
once.

**Stale claims are answered** with the row held, unless it is still being gossiped: a member that
restarts with an incarnation too low learns so and refutes.

**Own time.** All deadlines are in a time that stands still while the node does (`standstill`, and
any turn that comes much too late), so a node that wakes judges nobody by what it did not hear.

Source: SWIM (Das, Gupta, Motivala, DSN 2002), suspicion and incarnation numbers; Lifeguard
(arXiv 1707.00788); differences to hashicorp/memberlist are listed in `docs/membership.md`.
"""

from __future__ import annotations

import random
from collections.abc import KeysView, Sequence
from typing import Any

from dcc.config import NodeConfig
from dcc.deadlines import Deadlines
from dcc.effects import Answer, Effect, Gossip, Notify, Tell
from dcc.gossip.dissemination import RumorQueue, fit, retransmit_limit
from dcc.gossip.gray import PaceJudge
from dcc.gossip.joining import FOUNDED_STAMP, Seeds
from dcc.gossip.links import Links
from dcc.gossip.newcomers import Newcomers
from dcc.gossip.owntime import OwnTime
from dcc.gossip.probe import Prober
from dcc.gossip.pushpull import PushPuller
from dcc.gossip.rows import EVENTS, changed, dated, dropped, moves, notice
from dcc.gossip.suspicion import Suspicions
from dcc.gossip.table import Table, order_of
from dcc.gossip.twin import Twins, conflict
from dcc.limits import GOSSIP_BYTES_MAX
from dcc.types import Member, NodeKey, Settings, Standing
from dcc.units import MILLISECOND, NEVER
from dcc.wire.codec import Header
from dcc.wire.messages import (
    Ack,
    Message,
    Nack,
    Ping,
    PingReq,
    PushPull,
    PushPullReply,
    Rumors,
)

FANOUT = 3
"Members gossiped to in each gossip interval."

AHEAD_MAX_MS = 60_000
"A claim of death from further in the future is dated back to this: retention must end."

ALIVE, SUSPECT, DEAD, REMOVED, LEFT = Standing


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
        self.settings = settings
        self.joined = False
        self.displaced = False
        "Another node that was here first has this one's name: this one has fallen silent."
        self._config = config
        self._forget_ms = config.forget_after_ns // MILLISECOND
        self._table = Table(me)
        self.awaited = self._table.awaited
        "Addresses of seeds that this node has not met since it started. To read only."
        self._rumors = RumorQueue()
        self._pace = PaceJudge()
        self._prober = Prober(self._table, self._rumors, self._pace, config, rng)
        self._suspicions = Suspicions(
            period_ns=config.protocol_period_ns, ack_timeout_ns=config.ack_timeout_ns
        )
        self._seeds = Seeds(config, self._table.key, rng)
        self._push_puller = PushPuller(self._table, self._seeds, config, rng)
        self._removals = Deadlines()
        self._links = Links()
        self._newcomers = Newcomers(self._table, config, rng)
        self._twins = Twins(self._table, config, rng)
        self._told: dict[NodeKey, int] = {}
        self._rng = rng
        self._settings_left = 0
        self._gossip_at = 0
        self._sweep_at = NEVER
        self._left_at = NEVER
        self._time = OwnTime(now, late_max_ns=config.ack_timeout_ns // 2)
        self._cluster_ms = cluster_ms

    # -------------------------------------------------------------- what is known

    @property
    def me(self) -> Member:
        """This node's own row, as it is gossiped."""
        return self._table.me

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
        return self._prober.unreached()

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
            effects = self._on_push_pull(header, message, route)
        elif isinstance(message, PushPullReply):
            effects = self._on_push_pull_reply(header, message)
        else:
            effects = self._on_gossip(header, message, request_plane, route)
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
            effects += self._found()
        if self.joined:
            effects += self._judge() + self._gossip()
        effects += self._look_at_twins()
        effects += self._push_puller.tick(self._time.now, self.settings)
        effects += self._newcomers.tick(self._time.now)
        for moved in self._newcomers.moved():
            effects += self._believe(moved)
        if self._time.now >= self._sweep_at:
            self._sweep_at = self._time.now + self._config.reconnect_interval_ns
            self._forget()
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
        return self._announce(draining=True)

    def filled(self, now: int, cluster_ms: int) -> list[Effect]:
        """Tell the others that this node has pulled all its slots, under a new incarnation."""
        self._turn(now, cluster_ms)
        return self._announce(filling=False)

    def leave(self, now: int, cluster_ms: int) -> list[Effect]:
        """Return the second step of leaving: LEFT, told to the others until `gone`."""
        self._turn(now, cluster_ms)
        if self.me.standing == LEFT:
            return []
        self._renew(standing=LEFT)
        self._prober.stop()
        self._push_puller.stop()
        self._seeds.stop()
        rounds = retransmit_limit(self._table.size) if self._table.peers else 0
        self._left_at = self._time.now + rounds * self._config.gossip_interval_ns
        self._time.due = max(self._time.now, self._next_at())
        return [notice("member_left", self.me)]

    def change_settings(self, settings: Settings, now: int) -> list[Effect]:
        """Merge `settings` into the cluster's and gossip what changed."""
        self._turn(now, self._cluster_ms)
        return self._merge_settings(settings)

    def offer_view(self, key: NodeKey, now: int, cluster_ms: int) -> list[Effect]:
        """Return a push/pull with a member whose placement epoch differs from this node's."""
        self._turn(now, cluster_ms)
        if not self._table.is_peer(key):
            return []
        return [self._push_puller.swap_with(key, self.settings)]

    def check(self) -> None:
        """Assert all invariants. O(n)."""
        told_of = (self._table, self._rumors, self._newcomers, self._twins)
        for part in (*told_of, self._prober, self._suspicions, self._push_puller, self._removals):
            part.check()
        rows = self._table.rows
        for key, row in rows.items():
            assert (key in self._suspicions) == (row.standing == SUSPECT and key != self.me.key)
            assert key in self._removals or row.standing != DEAD
        assert self._links.keys == set(self._table.peers)
        assert self.me.standing in (ALIVE, LEFT)

    # -------------------------------------------------------------- time

    def _turn(self, now: int, cluster_ms: int) -> None:
        self._cluster_ms = cluster_ms
        self._woke(self._time.advance(now))

    def _woke(self, slept_ns: int) -> None:
        """Doubt oneself after a standstill of a period or more."""
        if slept_ns >= self._config.protocol_period_ns and self.joined and self.me.standing != LEFT:
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
        if self._rumors or self._settings_left:
            at = min(at, self._gossip_at)
        return min(at, self._prober.wake_at(), self._suspicions.next_at(), self._removals.next_at())

    # -------------------------------------------------------------- messages

    def _on_gossip(
        self, header: Header, message: Message, request_plane: bool, route: bytes
    ) -> list[Effect]:
        sender = header.sender
        row = self._table.rows.get(sender)
        if isinstance(message, Ack):
            if sender == self._table.key and (twin := self._twins.answered(header, message)):
                return self._give_way(twin)
            if proven := self._newcomers.proven(header, message):
                return self._believe(proven)
        if request_plane and isinstance(message, Ping) and header.request:
            return self._asked_by_address(header, message, route)
        if row is None and request_plane and isinstance(message, Ping):
            return self._introduced(header, message)
        if row is None or sender == self._table.key:
            return [dropped(header, "unknown_sender")]
        if header.boot < row.boot:
            return [dropped(header, "earlier_boot")]
        self._prober.heard(sender, self._time.now, on_gossip=not request_plane)
        effects: list[Effect] = []
        if isinstance(message, Ping | Ack | PingReq | Rumors):
            effects += self._hear_rumors(message.rumors, sender, isinstance(message, PingReq))
        if isinstance(message, Ping):
            self._pace.heard(sender, message.pace, self._time.now)
            ack = self._prober.on_ping(sender, message)
            if ack is not None and self._table.rows[sender].standing != LEFT:
                effects.append(self._toward(sender, ack, request_plane))
            return effects
        if isinstance(message, Ack):
            effects += self._prober.on_ack(sender, message, self._time.now)
        elif isinstance(message, Nack):
            self._prober.on_nack(sender, message)
        elif isinstance(message, PingReq):
            if self._table.is_peer(sender):
                effects += self._prober.on_ping_req(sender, message, self._time.now)
        elif isinstance(message, Rumors):
            effects += self._merge_settings(message.settings)
        return effects + self._tell_it_is_dead(sender)

    def _asked_by_address(self, header: Header, message: Ping, route: bytes) -> list[Effect]:
        """Answer who asks whether this node is where others say, on the connection it came by."""
        effects = self._hear_rumors(message.rumors, header.sender, False)
        ack = self._prober.on_ping(header.sender, message)
        owed = self._twins.owes_answer(header, message, joined=self.joined)
        if ack is not None and owed and self.me.standing != LEFT:
            effects.append(Answer(route, ack, header.request))
        return effects

    def _introduced(self, header: Header, message: Ping) -> list[Effect]:
        """Take a fallback ping of a member unknown here, which carries its row."""
        if not any(claim.key == header.sender for claim in message.rumors):
            return [dropped(header, "unknown_sender")]
        effects = self._hear_rumors(message.rumors, header.sender, False)
        # It knows this node, so it already listens; the way back by DEALER is only being opened.
        ack = self._prober.on_ping(header.sender, message)
        return effects if ack is None else [*effects, Gossip(header.sender, ack)]

    def _toward(self, key: NodeKey, message: Ack, request_plane: bool) -> Effect:
        # Somebody believed dead has no DEALER here, but may well listen to this node's PUB.
        if request_plane and self._table.is_peer(key):
            return Tell(key, message)
        return Gossip(key, message)

    def _tell_it_is_dead(self, sender: NodeKey) -> list[Effect]:
        """Return the accusation for a sender that is believed down; at most one a period."""
        row = self._table.rows[sender]
        if not DEAD <= row.standing <= REMOVED:
            return []
        if self._time.now < self._told.get(sender, 0):
            return []
        self._told[sender] = self._time.now + self._config.protocol_period_ns
        return [Gossip(sender, Rumors(rumors=(row,), settings=self.settings))]

    def _hear_rumors(
        self, claims: Sequence[Member], sender: NodeKey, about_to_judge: bool
    ) -> list[Effect]:
        effects: list[Effect] = []
        newer: list[Member] = []
        for claim in claims:
            effects += self._hear(claim, newer, sender)
        if not about_to_judge:
            # What is still being gossiped reaches the sender without an answer.
            newer = [row for row in newer if row.key not in self._rumors]
        if newer and self._table.is_peer(sender):
            rows = fit(newer, GOSSIP_BYTES_MAX // 2)
            effects.append(Gossip(sender, Rumors(rumors=rows, settings=self.settings)))
        return effects

    def _on_push_pull(self, header: Header, message: PushPull, route: bytes) -> list[Effect]:
        effects: list[Effect] = []
        mine = header.sender == self.me.key and header.boot == self.me.boot
        if not mine:
            effects += self._hear_view(header, message.members, message.settings)
        if self._push_puller.serves(self._time.now):
            effects += self._push_puller.answer(header, message, route, self.settings)
        return effects

    def _on_push_pull_reply(self, header: Header, message: PushPullReply) -> list[Effect]:
        mine = header.sender == self.me.key
        if mine and header.boot != self.me.boot:  # A twin, and no seed that leads to this node.
            return self._hear_view(header, message.members, message.settings)
        self._push_puller.on_reply(header.sender, header.request, message)
        if mine:
            return []
        before = self._table.changes
        effects = self._hear_view(header, message.members, message.settings)
        self._push_puller.learned(self._table.changes > before, self._time.now)
        return effects

    def _hear_view(
        self, header: Header, members: Sequence[Member], settings: Settings
    ) -> list[Effect]:
        effects: list[Effect] = []
        for claim in members:
            effects += self._hear(claim, [], header.sender)
        effects += self._merge_settings(settings)
        if not self.joined and self.me.standing != LEFT and not self._twins.asking:
            if settings.replicas_stamp > 0:
                effects += self._join()
            elif self._table.peers:
                self._seeds.found_joiner(self._time.now)
        return effects

    # -------------------------------------------------------------- claims

    def _hear(self, claim: Member, newer: list[Member], sender: NodeKey) -> list[Effect]:
        """Merge one claim; append the row held to `newer` if the claim was stale."""
        key = claim.key
        if key == self._table.key:
            return self._hear_of_me(claim, newer, sender)
        held = self._table.rows.get(key)
        if self.joined and moves(held, claim):
            self._newcomers.heard(claim, by_itself=sender == key)
            return []
        return self._merge(key, held, claim, newer)

    def _merge(
        self, key: NodeKey, held: Member | None, claim: Member, newer: list[Member]
    ) -> list[Effect]:
        claim = dated(claim, self._cluster_ms + AHEAD_MAX_MS)
        if held is None:
            return self._admit(key, claim)
        if claim == held:
            return []
        if order_of(claim) > order_of(held):
            return self._accept(key, held, claim)
        if claim.precedence == held.precedence:
            self._repeated(key, held, claim)
        else:
            newer.append(held)
        return []

    def _believe(self, claim: Member) -> list[Effect]:
        """Take in a row whose owner has answered where it says."""
        return self._merge(claim.key, self._table.rows.get(claim.key), claim, [])

    def _admit(self, key: NodeKey, claim: Member) -> list[Effect]:
        if claim.standing >= DEAD and claim.since_ms + self._forget_ms <= self._cluster_ms:
            return []
        effects: list[Effect] = []
        if self._table.full:
            oldest = self._table.oldest_gone()
            if oldest is None or claim.standing >= DEAD:
                return [notice("member_refused", claim)]
            self._forget_member(oldest)
        if claim.standing <= SUSPECT:
            effects.append(notice("member_joined", claim))
        self._set(key, claim)
        effects += self._links.follow(key, claim)
        if claim.standing != ALIVE:
            effects.append(notice(EVENTS[claim.standing], claim))
        return effects

    def _accept(self, key: NodeKey, held: Member, claim: Member) -> list[Effect]:
        if DEAD <= claim.standing <= REMOVED and held.standing <= SUSPECT:
            if held.standing == ALIVE:
                row = claim._replace(standing=SUSPECT, since_ms=self._cluster_ms)
                effects = self._change(key, held, row)
                self._suspicions.called_dead(key, self._time.now)
                return effects
            if not self._suspicions.called_dead(key, self._time.now):
                return []
        return self._change(key, held, claim)

    def _repeated(self, key: NodeKey, held: Member, claim: Member) -> None:
        """The same incarnation and standing again: another accuser, or another date."""
        if held.standing == SUSPECT:
            if self._suspicions.confirm(key, claim.accuser, self._time.now):
                self._rumors.put(key, claim)
        elif held.standing >= DEAD and claim.since_ms < held.since_ms:
            # Several may declare the same death; the earliest date ends retention for all.
            self._table.put(key, held._replace(since_ms=claim.since_ms))

    def _hear_of_me(self, claim: Member, newer: list[Member], sender: NodeKey) -> list[Effect]:
        me = self.me
        stale = order_of(claim) <= order_of(me)
        if stale and claim.incarnation < me.incarnation:
            newer.append(me)
        if me.standing == LEFT:
            return []
        of_twin = self._twins.hear(claim, by_itself=sender == me.key, joined=self.joined)
        if of_twin is not None or stale:
            return of_twin or []
        self._prober.worsen(1)
        return self._refute(claim)

    def _refute(self, claim: Member) -> list[Effect]:
        """Answer an accusation, or what was said of an earlier life, whose clock was ahead."""
        self._renew(incarnation=claim.incarnation + 1)
        if claim.standing >= DEAD:
            # Those who believe it no longer listen; tell them by address.
            self._push_puller.assert_self(self._time.now)
        return [notice("refuted", self.me, accused=claim.standing.name.lower())]

    def _look_at_twins(self) -> list[Effect]:
        """Ask a twin that was heard of; outbid one that is not there, or go on joining."""
        effects, silent = self._twins.tick(self._time.now, joined=self.joined)
        if silent is not None and not self.joined:
            self._seeds.attempt_at = self._time.now
        if silent is not None and order_of(silent) > order_of(self.me):
            effects += self._refute(silent)
        return effects

    def _give_way(self, twin: Member) -> list[Effect]:
        self.displaced, self.joined = True, False
        return [conflict(twin, self.me, lost=True)]

    # -------------------------------------------------------------- changing rows

    def _change(self, key: NodeKey, held: Member, row: Member) -> list[Effect]:
        self._set(key, row)
        return [*self._links.follow(key, row), *changed(held, row)]

    def _set(self, key: NodeKey, row: Member) -> None:
        """Put a row of another member, with its timers and its rumor."""
        self._table.put(key, row)
        if self.joined:
            # Before joining there is nobody who does not know.
            self._rumors.put(key, row)
        self._suspicions.cancel(key)
        self._removals.cancel(key)
        if row.standing <= SUSPECT:
            self._prober.learned(key, self._time.now)
        else:
            self._pace.forget(key)
        if row.standing == SUSPECT:
            self._suspicions.start(key, row.accuser, self._table.size, self._time.now)
        elif row.standing == DEAD:
            self._removals.set(key, self._time.now + self._config.rebalance_delay_ns)

    def _announce(self, **changes: Any) -> list[Effect]:
        """Change this node's own row under a new incarnation, so that all take it over."""
        self._renew(incarnation=self.me.incarnation + 1, **changes)
        return [notice("member_updated", self.me)]

    def _renew(self, **changes: Any) -> None:
        """Change this node's own row and gossip it."""
        me = self.me._replace(since_ms=self._cluster_ms, **changes)
        self._table.put(me.key, me)
        self._rumors.put(me.key, me)

    def _forget(self) -> None:
        """Drop the rows whose retention ended: an absolute time, so that none comes back."""
        for key in self._table.gone(self._cluster_ms - self._forget_ms):
            self._forget_member(key)

    def _forget_member(self, key: NodeKey) -> None:
        self._table.forget(key)
        self._rumors.drop(key)
        self._removals.cancel(key)
        self._prober.forget(key)
        self._told.pop(key, None)

    # -------------------------------------------------------------- what time brings

    def _judge(self) -> list[Effect]:
        """Return the effects of probes, suspicions and rebalance delays that came due."""
        effects: list[Effect] = []
        if self._time.now >= self._prober.wake_at():
            more, failed = self._prober.tick(self._time.now)
            effects += more
            if failed is not None:
                effects += self._accuse(failed)
        if self._time.now >= self._suspicions.next_at():
            for key in self._suspicions.pop_looks(self._time.now):
                effects += self._prober.last_look(key)
            for key in self._suspicions.pop_ended(self._time.now):
                effects += self._declare_dead(key)
        slow = self._pace.is_slow(self.alive(), self._time.now, slow=self.me.slow)
        if slow != self.me.slow and self.me.standing == ALIVE:
            effects += self._announce(slow=slow)
        for key in self._removals.pop_due(self._time.now):
            row = self._table.rows[key]
            effects += self._change(key, row, row._replace(standing=REMOVED))
        return effects

    def _accuse(self, row: Member) -> list[Effect]:
        accusation = row._replace(
            standing=SUSPECT, since_ms=self._cluster_ms, accuser=self._table.key
        )
        effects = self._prober.never_reached(row)
        if row.standing == ALIVE:
            return self._change(row.key, row, accusation) + effects
        self._repeated(row.key, row, accusation)
        return effects

    def _declare_dead(self, key: NodeKey) -> list[Effect]:
        held = self._table.rows[key]
        row = held._replace(standing=DEAD, since_ms=self._cluster_ms, accuser=self._table.key)
        # If it lives after all it still listens to this node, and refutes.
        tell = Gossip(key, Rumors(rumors=(row,), settings=self.settings))
        return [*self._change(key, held, row), tell]

    def _gossip(self) -> list[Effect]:
        if self._time.now < self._gossip_at or not (self._rumors or self._settings_left):
            return []
        self._gossip_at = self._time.now + self._config.gossip_interval_ns
        limit = retransmit_limit(self._table.size)
        effects: list[Effect] = []
        for key in self._table.some_peers(FANOUT, self._rng):
            if not (self._rumors or self._settings_left):
                break
            row = self._table.rows[key]
            rumors = self._rumors.take(limit, first=(row,) if row.standing == SUSPECT else ())
            self._settings_left = max(0, self._settings_left - 1)
            effects.append(Gossip(key, Rumors(rumors=rumors, settings=self.settings)))
        if not self._table.peers:
            # Alone: nobody to tell; who joins gets the whole view.
            self._settings_left = 0
            self._rumors.clear()
        return effects

    # -------------------------------------------------------------- joining, settings

    def _found(self) -> list[Effect]:
        stamp = max(FOUNDED_STAMP, self.settings.replicas_stamp)
        self.settings = self.settings._replace(replicas_stamp=stamp)
        # There is nothing to pull, and others may know the row as it was.
        effects = self._announce(filling=False) if self.me.filling else []
        self._begin()
        if self._seeds.only_me:  # Legal, and what one copied name for all nodes looks like.
            effects.append(notice("seeds_are_this_node", self.me, request=self.me.request))
        return [*effects, notice("cluster_founded", self.me)]

    def _join(self) -> list[Effect]:
        self._begin()
        return [notice("joined", self.me, members=self._table.size)]

    def _begin(self) -> None:
        self.joined = True
        self._seeds.stop()
        self._prober.start(self._time.now)
        self._push_puller.start(self._time.now)
        self._rumors.put(self.me.key, self.me)

    def _merge_settings(self, settings: Settings) -> list[Effect]:
        merged = self.settings.merge(settings)
        if merged == self.settings:
            return []
        self.settings = merged
        self._settings_left = retransmit_limit(self._table.size)
        return [Notify("settings_changed", merged._asdict())]
