"""What a membership message does: who may say it, what is heard from it, what it is answered with.

Rows are handed to `claims`, answers to probes to `probe`, views to `pushpull`.

**Stale claims are answered** with the row held, unless it is still being gossiped: a member that
restarts with an incarnation too low learns so and refutes.
"""

from __future__ import annotations

from collections.abc import Sequence

from dcc.effects import Answer, Effect, Gossip, Tell
from dcc.gossip.claims import Claims
from dcc.gossip.dissemination import fit
from dcc.gossip.own import OwnRow
from dcc.gossip.parts import Parts
from dcc.gossip.rows import dropped
from dcc.limits import GOSSIP_BYTES_MAX
from dcc.types import Member, NodeKey, Settings, Standing
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


class Hearing:
    """Takes the messages of one node's membership in."""

    def __init__(self, parts: Parts, own: OwnRow, claims: Claims) -> None:
        self._own, self._claims, self._time = own, claims, parts.time
        self._table, self._rumors, self._spreading = parts.table, parts.rumors, parts.spreading
        self._prober, self._pace, self._newcomers = parts.prober, parts.pace, parts.newcomers
        self._push_puller, self._seeds, self._twins = parts.push_puller, parts.seeds, parts.twins

    def gossip(
        self, header: Header, message: Message, request_plane: bool, route: bytes
    ) -> list[Effect]:
        """Take a message of either plane that is none of a push/pull."""
        sender = header.sender
        row = self._table.rows.get(sender)
        if isinstance(message, Ack):
            if sender == self._table.key and (twin := self._twins.answered(header, message)):
                return self._own.give_way(twin)
            if proven := self._newcomers.proven(header, message):
                return self._claims.believe(proven)
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
            if ack is not None and self._table.rows[sender].standing != Standing.LEFT:
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
            effects += self._spreading.merge(message.settings)
        return effects + self._claims.tell_it_is_dead(sender)

    def _asked_by_address(self, header: Header, message: Ping, route: bytes) -> list[Effect]:
        """Answer who asks whether this node is where others say, on the connection it came by."""
        effects = self._hear_rumors(message.rumors, header.sender, False)
        ack = self._prober.on_ping(header.sender, message)
        owed = self._twins.owes_answer(header, message, joined=self._own.joined)
        if ack is not None and owed and not self._own.has_left:
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

    def _hear_rumors(
        self, claims: Sequence[Member], sender: NodeKey, about_to_judge: bool
    ) -> list[Effect]:
        effects: list[Effect] = []
        newer: list[Member] = []
        for claim in claims:
            effects += self._claims.hear(claim, newer, sender)
        if not about_to_judge:
            # What is still being gossiped reaches the sender without an answer.
            newer = [row for row in newer if row.key not in self._rumors]
        if newer and self._table.is_peer(sender):
            rows = fit(newer, GOSSIP_BYTES_MAX // 2)
            effects.append(Gossip(sender, Rumors(rumors=rows, settings=self._spreading.settings)))
        return effects

    def push_pull(self, header: Header, message: PushPull, route: bytes) -> list[Effect]:
        """Take a whole view, and answer with this node's."""
        effects: list[Effect] = []
        mine = header.sender == self._own.row.key and header.boot == self._own.row.boot
        if not mine:
            effects += self._hear_view(header, message.members, message.settings)
        if self._push_puller.serves(self._time.now):
            effects += self._push_puller.answer(header, message, route, self._spreading.settings)
        return effects

    def push_pull_reply(self, header: Header, message: PushPullReply) -> list[Effect]:
        """Take the view that this node has asked for."""
        mine = header.sender == self._own.row.key
        if mine and header.boot != self._own.row.boot:
            # A twin, and no seed that leads to this node.
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
            effects += self._claims.hear(claim, [], header.sender)
        effects += self._spreading.merge(settings)
        if not self._own.joined and not self._own.has_left and not self._twins.asking:
            if settings.replicas_stamp > 0:
                effects += self._own.join()
            elif self._table.peers:
                self._seeds.found_joiner(self._time.now)
        return effects
