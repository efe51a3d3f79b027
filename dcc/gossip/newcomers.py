"""Newcomers: members that others tell of are asked before they are believed.

A row that nobody here has heard of may be a lie, or a member that this node cannot reach; either
way, requests that the ring would send there are lost. So a node that has joined takes in a row
that is new to it only when its owner has answered a ping, sent to the very address that the row
names: directly, or, where no connection comes up, through members who know it. The answer carries
the ping's number, which nobody else can know. It must come from the boot that the row claims.

    heard ──▶ waiting ──turn comes──▶ asked by address ──answer──▶ a member
                                        │ ack_timeout
                                        ▼
                                      asked through three members ──answer──▶ a member
                                        │ 3 s in all
                                        ▼
                                      forgotten, until it is heard of again

At most `ASKED_AT_ONCE` are asked at the same time, so invented rows cost few connections and names
to look up; who speaks for itself goes first. A node that has not joined believes its seeds.

The same goes for members that are said to be elsewhere, or in another life. A life at another
address than the one that is believed, and later, is one of two things: the node has moved, or
another one was given its name. So the one that is believed is asked as well, and if it answers
nothing changes (`twin`).
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass

from dcc.config import NodeConfig
from dcc.effects import Disconnect, Effect, Tell
from dcc.gossip.rows import notice
from dcc.gossip.table import Table
from dcc.types import Boot, Member, NodeKey, Standing
from dcc.units import NEVER, SECOND
from dcc.wire.codec import Header
from dcc.wire.messages import Ack, Ping, PingReq

NEWCOMERS_MAX = 1_024
"Rows that wait for an answer; beyond it new ones are not looked at, and heard of again."
ASKED_AT_ONCE = 32
"Questions under way, each of which may cost a connection of its own."
HELPERS = 3
KEPT_NS = 3 * SECOND
"An answer that comes later than this, over the slowest of links, finds nobody who waits."


@dataclass(slots=True)
class _Newcomer:
    row: Member
    seq: int = 0
    asked_at: int = NEVER
    helped: bool = False
    rival: Member | None = None
    "Who is believed under this name, at another address, and stays if it answers."
    answered: bool = False


class Newcomers:
    """Rows that one node has heard of and not verified."""

    def __init__(self, table: Table, config: NodeConfig, rng: random.Random) -> None:
        self._table = table
        self._ack_timeout_ns = config.ack_timeout_ns
        # Numbers that nobody can guess, drawn from a generator of their own.
        self._rng = random.Random(repr(rng.getstate()))
        self._rows: dict[NodeKey, _Newcomer] = {}
        self._waiting: deque[NodeKey] = deque()
        self._asked: deque[NodeKey] = deque()
        "Those without helpers yet, the first asked first."
        self._looked_after: deque[NodeKey] = deque()
        "Those with helpers, the first asked first."
        self._moved: list[Member] = []
        "Those that answered and whose rivals had their time and did not."
        self._told: dict[NodeKey, Boot] = {}
        "The life in which it was told that a newcomer cannot be reached."

    def heard(self, row: Member, *, by_itself: bool) -> None:
        """Take note of a row that is not believed yet."""
        key = row.key
        known = self._rows.get(key)
        if known is not None:
            same = (row.boot, row.request) == (known.row.boot, known.row.request)
            # Whoever was asked already is heard out first.
            if row.precedence > known.row.precedence and (same or known.asked_at == NEVER):
                known.row = row
            return
        if len(self._rows) >= NEWCOMERS_MAX and not self._displaced_by(by_itself):
            return
        self._rows[key] = _Newcomer(row)
        if by_itself:
            self._waiting.appendleft(key)
        else:
            self._waiting.append(key)

    def proven(self, header: Header, ack: Ack) -> Member | None:
        """Return the row that an answer proves: of its sender, or of whom the sender has pinged."""
        known = self._rows.get(header.sender)
        if known is not None and known.asked_at != NEVER and known.seq == ack.seq:
            return self._answered(known, header.boot)
        if self._table.is_peer(header.sender):
            for key in self._looked_after:
                known = self._rows.get(key)
                if known is not None and known.helped and known.seq == ack.seq:
                    return self._rows.pop(key).row
        return None

    def tick(self, now: int) -> list[Effect]:
        """Return the questions that are due."""
        effects = self._expire(now)
        while self._asked and self._overdue(self._asked[0], now):
            effects += self._through_others(self._asked.popleft())
        while self._waiting and self._has_place:
            key = self._waiting.popleft()
            known = self._rows.get(key)
            if known is not None:
                known.seq, known.asked_at = self._rng.getrandbits(62) | 1, now
                known.rival = self._rival_of(known.row)
                self._asked.append(key)
                effects += self._ask(known)
        return effects

    def moved(self) -> list[Member]:
        """Return, once, the rows that `tick` has found proven: of nodes that have moved."""
        moved, self._moved = self._moved, []
        return moved

    def wake_at(self) -> int:
        """Return when the next question or its end is due, or NEVER."""
        if self._waiting and self._has_place:
            return 0
        at = NEVER
        if self._asked:
            at = self._asked_at(self._asked[0]) + self._ack_timeout_ns
        if self._looked_after:
            at = min(at, self._asked_at(self._looked_after[0]) + KEPT_NS)
        return at

    def check(self) -> None:
        """Assert the bounds, and that nobody is forgotten in between."""
        assert len(self._rows) <= NEWCOMERS_MAX
        assert len(self._asked) + len(self._looked_after) <= ASKED_AT_ONCE
        listed = {*self._waiting, *self._asked, *self._looked_after}
        assert set(self._rows) <= listed, "a newcomer that is never asked"

    # -------------------------------------------------------------- inside

    @property
    def _has_place(self) -> bool:
        return len(self._asked) + len(self._looked_after) < ASKED_AT_ONCE

    def _displaced_by(self, by_itself: bool) -> bool:
        """Make room for who speaks for itself by forgetting the last one heard of."""
        while by_itself and self._waiting:
            if self._rows.pop(self._waiting.pop(), None) is not None:
                return True
        return False

    def _asked_at(self, key: NodeKey) -> int:
        known = self._rows.get(key)
        return 0 if known is None or known.asked_at == NEVER else known.asked_at

    def _overdue(self, key: NodeKey, now: int) -> bool:
        return self._asked_at(key) + self._ack_timeout_ns <= now

    def _through_others(self, key: NodeKey) -> list[Effect]:
        known = self._rows.get(key)
        if known is None or known.asked_at == NEVER:
            return []
        if known.answered:
            self._moved.append(self._rows.pop(key).row)
            return []
        self._looked_after.append(key)
        known.helped = True
        # Others would ask the rival, in whom they believe.
        helpers = self._table.some_peers(0 if known.rival else HELPERS, self._rng, (key,))
        request = PingReq(seq=known.seq, target=key)
        return [*self._ask(known), *(Tell(helper, request) for helper in helpers)]

    def _ask(self, known: _Newcomer) -> list[Effect]:
        """Return the ping to the address that a row names, and its rival's, if any.

        Each on a new connection: an old one may lead to an earlier life, or be seconds from its
        next attempt, having found nobody there.
        """
        ping = Ping(seq=known.seq, target=known.row.key, rumors=(self._table.me,))
        effects: list[Effect] = []
        for row in (known.row, known.rival):
            if row is not None:
                effects += [Disconnect(row.request), Tell(row.request, ping, known.seq)]
        return effects

    def _rival_of(self, row: Member) -> Member | None:
        held = self._table.rows.get(row.key)
        if held is None or held.standing > Standing.SUSPECT or held.request == row.request:
            return None
        return held if held.boot < row.boot else None

    def _answered(self, known: _Newcomer, boot: Boot) -> Member | None:
        """Return the row that an answer by the life `boot` proves; forget it if its rival lives."""
        if known.rival is not None and boot == known.rival.boot:
            del self._rows[known.row.key]
        elif boot == known.row.boot:
            known.answered = True
            if known.rival is None or known.helped:
                return self._rows.pop(known.row.key).row
        return None

    def _expire(self, now: int) -> list[Effect]:
        """Give up who has not answered, and tell of it: what it advertises may be wrong."""
        effects: list[Effect] = []
        while self._looked_after and self._asked_at(self._looked_after[0]) + KEPT_NS <= now:
            key = self._looked_after.popleft()
            known = self._rows.get(key)
            if known is not None and known.asked_at + KEPT_NS <= now:
                row = self._rows.pop(key).row
                if self._told.get(key) != row.boot and len(self._told) < NEWCOMERS_MAX:
                    self._told[key] = row.boot
                    addresses = {"request": row.request, "gossip": row.gossip}
                    effects.append(notice("member_not_reached", row, **addresses))
        return effects
