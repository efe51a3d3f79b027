"""The failure detector: pings one member per period and says who did not answer in any way.

One probe at a time. Its life, with t in units of (local health score + 1), and two more where the
target or this member is known to be slow (`pace`): to accuse it in vain would make all others ask
it for what it may have written meanwhile.

    ping ──ack──▶ fine (score - 1)
      │ ack_timeout · t
      ▼
    ping-req to k helpers, and a ping on the request plane, in parallel
      │ any ack ──▶ fine
      │ period · t
      ▼
    failed: the member is accused; score + missing nacks, or + 1 where no helper could be asked

Members are probed in the order of `probe_order`. A helper that hears nothing from the target says
so with a nack: if helpers fall silent too, the fault is likely here, and a higher score gives
everybody more time.

A helper that could relay an ack where the direct ping failed is asked again next time: across a
partition that is bridged by few members, three at random would mostly be the wrong ones.

Source: SWIM (Das, Gupta, Motivala, DSN 2002), indirect probing; Lifeguard (arXiv 1707.00788), Local
Health Aware Probe and Buddy System.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from dcc.config import NodeConfig
from dcc.deadlines import Deadlines
from dcc.effects import Effect, Gossip, Tell
from dcc.gossip.dissemination import RumorQueue, retransmit_limit
from dcc.gossip.gray import PaceJudge
from dcc.gossip.probe_order import ProbeOrder
from dcc.gossip.reached import Reached
from dcc.gossip.table import Table
from dcc.types import Member, NodeKey, Standing
from dcc.units import NEVER
from dcc.wire.messages import Ack, Nack, Ping, PingReq

HELPERS = 3
"k: members asked to ping in one's stead."

SLOW_STRETCH = 2
"Units of time more for a probe of a slow member, or by one."

SCORE_MAX = 7
"Local health is 0 (fine) to this."

CANDIDATES = 8
"Random members of which the helpers are those heard from last: they can surely be reached."

NACK_SHARE = 0.8
"A helper gives up after this share of the ack time-out, so that its nack is in time."

RELAYS_MAX = 1_024
"Pings under way for others; beyond it a ping-req is not served."


@dataclass(slots=True)
class _Probe:
    target: NodeKey
    seq: int
    incarnation: int
    began: int
    asked: int
    "When the target was asked last: the first ping may be what was lost."
    indirect_at: int
    ends_at: int
    helpers: list[NodeKey] = field(default_factory=list)
    nacks: set[NodeKey] = field(default_factory=set)
    acked: bool = False


class Prober:
    """Probes others, and answers and relays the probes of others."""

    def __init__(
        self,
        table: Table,
        rumors: RumorQueue,
        pace: PaceJudge,
        config: NodeConfig,
        rng: random.Random,
    ) -> None:
        self.score: int = 0
        self._table, self._rumors, self._pace, self._rng = table, rumors, pace, rng
        self._period_ns, self._ack_timeout_ns = config.protocol_period_ns, config.ack_timeout_ns
        # An ack for the former life of this node must not match a probe of this one.
        self._seq = rng.getrandbits(48)
        self._probe: _Probe | None = None
        self._probe_at = NEVER
        self._order = ProbeOrder(table, rng)
        self._relays: dict[int, tuple[NodeKey, int]] = {}
        self._relay_ends = Deadlines()
        self._bridges: dict[NodeKey, NodeKey] = {}
        self._last_bridge: NodeKey | None = None
        self._heard_at: dict[NodeKey, int] = {}
        self.reached: Reached = Reached(table)

    # -------------------------------------------------------------- probing others

    def start(self, now: int) -> None:
        """Begin to probe, at a random moment of the first period."""
        if self._probe_at == NEVER:
            self._probe_at = now + int(self._rng.random() * self._period_ns)

    def stop(self) -> None:
        """Probe no more; the probes of others are still answered."""
        self._probe, self._probe_at = None, NEVER

    def learned(self, key: NodeKey, now: int) -> None:
        """Take a new or returned member into the round, one period from now."""
        self._order.add(key, now + self._period_ns)

    def forget(self, key: NodeKey) -> None:
        """Remember nothing about a member whose row is gone."""
        self._bridges.pop(key, None)
        self._heard_at.pop(key, None)
        self.reached.forget(key)

    def heard(self, key: NodeKey, now: int, *, on_gossip: bool) -> None:
        """Take note that a packet of the member `key` arrived."""
        self._heard_at[key] = now
        if on_gossip:
            self.reached.answered(key)

    def worsen(self, by: int) -> None:
        """Change local health: positive when something speaks against this node."""
        self.score = min(SCORE_MAX, max(0, self.score + by))

    def tick(self, now: int) -> tuple[list[Effect], Member | None]:
        """Return what is due, and the row of a member whose probe failed at this moment."""
        effects: list[Effect] = []
        failed = None
        probe = self._probe
        if probe is not None and not probe.acked and now >= probe.ends_at:
            failed = self._verdict(probe)
        elif probe is not None and now >= probe.indirect_at:
            effects += self._ask_helpers(probe)
        if now >= self._probe_at:
            effects += self._begin(now)
        for seq in self._relay_ends.pop_due(now):
            asker, asked = self._relays.pop(seq)
            if self._table.is_peer(asker):
                effects.append(Gossip(asker, Nack(seq=asked)))
        return effects, failed

    def wake_at(self) -> int:
        """Return when the next of probe, indirect probe, verdict or nack is due."""
        at = min(self._probe_at, self._relay_ends.next_at())
        probe = self._probe
        if probe is not None and not probe.acked:
            at = min(at, probe.indirect_at, probe.ends_at)
        return at

    def _begin(self, now: int) -> list[Effect]:
        stretch = self.score + 1
        self._probe_at = now + self._period_ns * stretch
        self._probe = None
        target = self._order.next(now)
        if target is None:
            return []
        if self._table.me.slow or self._table.rows[target].slow:
            stretch += SLOW_STRETCH
            self._probe_at = now + self._period_ns * stretch
        seq = self._new_seq()
        self._probe = _Probe(
            target,
            seq,
            self._table.rows[target].incarnation,
            now,
            now,
            now + self._ack_timeout_ns * stretch,
            self._probe_at,
        )
        return [Gossip(target, self.ping(target, seq))]

    def _ask_helpers(self, probe: _Probe) -> list[Effect]:
        probe.asked, probe.indirect_at = probe.indirect_at, NEVER
        target = probe.target
        if probe.acked or not self._table.is_peer(target):
            return []
        effects: list[Effect] = [Tell(target, self._fallback_ping(target, probe.seq))]
        probe.helpers = self._choose_helpers(target)
        for helper in probe.helpers:
            message = PingReq(seq=probe.seq, target=target, rumors=self._riders(helper))
            effects.append(Gossip(helper, message))
        return effects

    def _choose_helpers(self, target: NodeKey) -> list[NodeKey]:
        alive = self._table.alive()
        bridge = self._bridges.get(target, self._last_bridge)
        chosen = [] if bridge is None or bridge == target or bridge not in alive else [bridge]
        more = self._table.some_peers(CANDIDATES, self._rng, (target, *chosen))
        # Stable sort: among members never heard from, the random order stays.
        more.sort(key=lambda key: self._heard_at.get(key, 0), reverse=True)
        return (chosen + [key for key in more if key in alive])[:HELPERS]

    def _verdict(self, probe: _Probe) -> Member | None:
        self._probe = None
        row = self._table.rows.get(probe.target)
        if row is None or row.standing > Standing.SUSPECT:
            return None
        missing = len(probe.helpers) - len(probe.nacks)
        self.worsen(missing if probe.helpers else 1)
        # A newer incarnation arrived meanwhile: that is a sign of life.
        return row if row.incarnation == probe.incarnation else None

    # -------------------------------------------------------------- answering and relaying

    def on_ping(self, sender: NodeKey, message: Ping) -> Ack | None:
        """Return the ack for a ping that is meant for this node, else None."""
        if message.target != self._table.key:
            return None
        return Ack(seq=message.seq, rumors=self._riders(sender))

    def on_ping_req(self, asker: NodeKey, message: PingReq, now: int) -> list[Effect]:
        """Ping the target in the asker's stead."""
        target = message.target
        if not self._table.is_peer(target):
            return [Gossip(asker, Nack(seq=message.seq))]
        if len(self._relays) >= RELAYS_MAX:
            return []
        seq = self._new_seq()
        self._relays[seq] = (asker, message.seq)
        self._relay_ends.set(seq, now + int(NACK_SHARE * self._ack_timeout_ns))
        return [Gossip(target, self.ping(target, seq))]

    def on_ack(self, sender: NodeKey, message: Ack, now: int) -> list[Effect]:
        """Count the ack for the running probe, or relay it to the member that asked for it."""
        relay = self._relays.pop(message.seq, None)
        if relay is not None:
            self._relay_ends.cancel(message.seq)
            asker, asked = relay
            if not self._table.is_peer(asker):
                return []
            return [Gossip(asker, Ack(seq=asked, rumors=self._riders(asker)))]
        probe = self._probe
        if probe is None or message.seq != probe.seq or probe.acked:
            return []
        if sender == probe.target:
            self._bridges.pop(sender, None)
        elif sender in probe.helpers:
            self._bridges[probe.target] = self._last_bridge = sender
        else:
            return []
        probe.acked = True
        self._pace.took(probe.target, now - probe.asked)
        self.reached.answered(probe.target)
        self.worsen(-1)
        usual_ns = self._period_ns * (self.score + 1)
        self._probe_at = min(self._probe_at, max(now, probe.began + usual_ns))
        return []

    def on_nack(self, sender: NodeKey, message: Nack) -> None:
        """Count a helper that is fine itself."""
        probe = self._probe
        if probe is not None and message.seq == probe.seq and sender in probe.helpers:
            probe.nacks.add(sender)

    def last_look(self, key: NodeKey) -> list[Effect]:
        """Ping a suspect on both planes and through helpers, who are told of the suspicion.

        The suspect's answer carries its refutation; a helper that knows of one already says so,
        since the suspicion is stale to it. So nobody dies because its refutation got lost.
        """
        seq = self._new_seq()
        effects: list[Effect] = [
            Gossip(key, self.ping(key, seq)),
            Tell(key, self._fallback_ping(key, seq)),
        ]
        accusation = self._table.rows[key]
        limit = retransmit_limit(self._table.size)
        for helper in self._choose_helpers(key):
            rumors = self._rumors.take(limit, first=(accusation,))
            effects.append(Gossip(helper, PingReq(seq=seq, target=key, rumors=rumors)))
        return effects

    def ping(self, target: NodeKey, seq: int) -> Ping:
        """Return a ping with its rumors; one to a suspect says so (the buddy rule)."""
        pace = self._pace.of(target)
        return Ping(seq=seq, target=target, rumors=self._riders(target), pace=pace)

    def _fallback_ping(self, target: NodeKey, seq: int) -> Ping:
        # A target that does not know this node (it restarted, or missed a rumor) cannot have
        # heard the ping on the gossip plane: so this one introduces its sender.
        return Ping(seq=seq, target=target, rumors=self._riders(target, self._table.me))

    def _riders(self, to: NodeKey, *before: Member) -> tuple[Member, ...]:
        row = self._table.rows.get(to)
        if row is not None and row.standing != Standing.ALIVE:
            before = (row, *before)
        return self._rumors.take(retransmit_limit(self._table.size), first=before)

    def _new_seq(self) -> int:
        self._seq += 1
        return self._seq

    def check(self) -> None:
        """Assert bounds, and that nobody is listed twice."""
        self._pace.check()
        assert 0 <= self.score <= SCORE_MAX
        self._order.check()
        assert len(self._relays) == len(self._relay_ends) <= RELAYS_MAX
