"""The rules by which a claim about a member changes the table.

**One order.** A claim about a member is its whole row. It replaces the row held if its
(incarnation, standing) is larger, so views are joins: repeats and reorderings are free, and all
nodes that heard the same claims agree.

**Not at one stroke.** A claim that somebody is DEAD or REMOVED, about a member believed ALIVE
here, only makes it SUSPECT, for two periods and a last look. Without it the healing of a partition
would first kill everybody: each side brings the other a list of its dead, valid at the incarnation
they still have. In a crash everybody has suspected the member long before, and the claim counts at
once.

**Stale claims** are handed back with the row held, for their sender to learn of.

A row and all that follows from it (timers, rumor, link) are changed together, in one place.
"""

from __future__ import annotations

from dcc.deadlines import Deadlines
from dcc.effects import Effect, Gossip
from dcc.gossip.links import Links
from dcc.gossip.own import OwnRow
from dcc.gossip.parts import Parts
from dcc.gossip.rows import EVENTS, changed, dated, moves, notice
from dcc.gossip.suspicion import Suspicions
from dcc.gossip.table import order_of
from dcc.types import Member, NodeKey, Standing
from dcc.units import MILLISECOND
from dcc.wire.messages import Rumors

AHEAD_MAX_MS = 60_000
"A claim of death from further in the future is dated back to this: retention must end."

ALIVE, SUSPECT, DEAD, REMOVED, LEFT = Standing


class Claims:
    """Merges claims into one node's table, and makes its own when time brings them."""

    def __init__(self, parts: Parts, own: OwnRow) -> None:
        self._own, self._config, self._time = own, parts.config, parts.time
        self._table, self._rumors, self._spreading = parts.table, parts.rumors, parts.spreading
        self._prober, self._pace, self._newcomers = parts.prober, parts.pace, parts.newcomers
        config = parts.config
        self._forget_ms = config.forget_after_ns // MILLISECOND
        self._suspicions = Suspicions(
            period_ns=config.protocol_period_ns, ack_timeout_ns=config.ack_timeout_ns
        )
        self._removals = Deadlines()
        self._links = Links()
        self._told: dict[NodeKey, int] = {}
        "Until when a member that is believed down is not told so again."

    # -------------------------------------------------------------- what is heard

    def hear(self, claim: Member, newer: list[Member], sender: NodeKey) -> list[Effect]:
        """Merge one claim; append the row held to `newer` if the claim was stale."""
        key = claim.key
        if key == self._table.key:
            return self._own.hear(claim, newer, sender)
        held = self._table.rows.get(key)
        if self._own.joined and moves(held, claim):
            self._newcomers.heard(claim, by_itself=sender == key)
            return []
        return self._merge(key, held, claim, newer)

    def believe(self, claim: Member) -> list[Effect]:
        """Take in a row whose owner has answered where it says."""
        return self._merge(claim.key, self._table.rows.get(claim.key), claim, [])

    def tell_it_is_dead(self, sender: NodeKey) -> list[Effect]:
        """Return the accusation for a sender that is believed down; at most one a period."""
        row = self._table.rows[sender]
        if not DEAD <= row.standing <= REMOVED:
            return []
        if self._time.now < self._told.get(sender, 0):
            return []
        self._told[sender] = self._time.now + self._config.protocol_period_ns
        return [Gossip(sender, Rumors(rumors=(row,), settings=self._spreading.settings))]

    def _merge(
        self, key: NodeKey, held: Member | None, claim: Member, newer: list[Member]
    ) -> list[Effect]:
        claim = dated(claim, self._time.cluster_ms + AHEAD_MAX_MS)
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

    def _admit(self, key: NodeKey, claim: Member) -> list[Effect]:
        if claim.standing >= DEAD and claim.since_ms + self._forget_ms <= self._time.cluster_ms:
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
                row = claim._replace(standing=SUSPECT, since_ms=self._time.cluster_ms)
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

    # -------------------------------------------------------------- what time brings

    def judge(self) -> list[Effect]:
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
        me = self._own.row
        slow = self._pace.is_slow(self._table.alive(), self._time.now, slow=me.slow)
        if slow != me.slow and me.standing == ALIVE:
            effects += self._own.announce(slow=slow)
        for key in self._removals.pop_due(self._time.now):
            row = self._table.rows[key]
            effects += self._change(key, row, row._replace(standing=REMOVED))
        return effects

    def wake_at(self) -> int:
        """Return the own time at which `judge` has something to do."""
        judged_at = min(self._suspicions.next_at(), self._removals.next_at())
        return min(self._prober.wake_at(), judged_at)

    def forget(self) -> None:
        """Drop the rows whose retention ended: an absolute time, so that none comes back."""
        for key in self._table.gone(self._time.cluster_ms - self._forget_ms):
            self._forget_member(key)

    def _accuse(self, row: Member) -> list[Effect]:
        accusation = row._replace(
            standing=SUSPECT, since_ms=self._time.cluster_ms, accuser=self._table.key
        )
        effects = self._prober.reached.failed(row)
        if row.standing == ALIVE:
            return self._change(row.key, row, accusation) + effects
        self._repeated(row.key, row, accusation)
        return effects

    def _declare_dead(self, key: NodeKey) -> list[Effect]:
        held = self._table.rows[key]
        row = held._replace(standing=DEAD, since_ms=self._time.cluster_ms, accuser=self._table.key)
        # If it lives after all it still listens to this node, and refutes.
        tell = Gossip(key, Rumors(rumors=(row,), settings=self._spreading.settings))
        return [*self._change(key, held, row), tell]

    # -------------------------------------------------------------- changing rows

    def _change(self, key: NodeKey, held: Member, row: Member) -> list[Effect]:
        self._set(key, row)
        return [*self._links.follow(key, row), *changed(held, row)]

    def _set(self, key: NodeKey, row: Member) -> None:
        """Put a row of another member, with its timers and its rumor."""
        self._table.put(key, row)
        if self._own.joined:
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

    def _forget_member(self, key: NodeKey) -> None:
        self._table.forget(key)
        self._rumors.drop(key)
        self._removals.cancel(key)
        self._prober.forget(key)
        self._told.pop(key, None)

    def check(self) -> None:
        """Assert that rows, timers and links belong together. O(n)."""
        self._suspicions.check()
        self._removals.check()
        for key, row in self._table.rows.items():
            suspect = row.standing == SUSPECT and key != self._table.key
            assert (key in self._suspicions) == suspect
            assert key in self._removals or row.standing != DEAD
        assert self._links.keys == set(self._table.peers)
