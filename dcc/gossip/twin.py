"""Twins: whoever else runs under this node's own name, at another address.

**The first stays if it answers.** A node asks a twin that it hears of, three times, and ends if it
is answered. Who is asked answers only if the asker is to go, so at most one of two ever goes:

- who has not joined yet asks every twin before it joins, and goes if one answers. So a copied
  configuration fails by itself, however often it is started, and whatever its clock says;
- of two that have both joined, as on two sides of a cut, the later boot goes, unless the earlier
  one was silent or believed dead when the later one joined: then it has been replaced, and goes.

A twin that is silent is not there: the node has moved, or somebody has invented it. So a restart
at another address takes three time-outs longer while the old life is believed to be alive.

    heard of ──▶ asked ──answer──▶ displaced
                  │ three time-outs
                  ▼
                silent: not asked again; outbid if others believe it

A ping from a node that has not joined carries no row of it, which tells that to its twin.
"""

from __future__ import annotations

import random

from dcc.config import NodeConfig
from dcc.effects import Disconnect, Effect, Notify, Tell
from dcc.gossip.rows import notice
from dcc.gossip.table import Table, order_of
from dcc.types import Boot, Member, Standing
from dcc.units import NEVER
from dcc.wire.codec import Header
from dcc.wire.messages import Ack, Ping

TRIES = 3
"Pings to a twin, an ack time-out apart, before it counts as silent."
LIVES_MAX = 64
"Lives of twins that are remembered as gone, or as told of; the oldest are forgotten."


class Twins:
    """What one node knows of others under its own name, and the one that it is asking."""

    def __init__(self, table: Table, config: NodeConfig, rng: random.Random) -> None:
        self._table = table
        self._timeout_ns = config.ack_timeout_ns
        # Numbers that nobody can guess, drawn from a generator of their own.
        self._rng = random.Random(repr(rng.getstate()) + "twins")
        self._asked: Member | None = None
        self._seq = self._tries = 0
        self._next_at = NEVER
        self._outbids: Member | None = None
        "What others believe of a twin that is known to be gone, until the next tick."
        self._gone: dict[Boot, None] = {}
        "Lives that were silent when they were asked, or dead before this one joined."
        self._told: dict[Boot, None] = {}

    @property
    def asking(self) -> bool:
        """Whether a twin may still answer: until then a node does not join."""
        return self._asked is not None

    def hear(self, claim: Member, *, by_itself: bool, joined: bool) -> list[Effect] | None:
        """Take note of a claim about this node's name; None if it is not of a twin that lives.

        It is told by the twin itself, or by somebody else.
        """
        me = self._table.me
        if claim.boot == me.boot or claim.request == me.request:
            return None
        if claim.standing > Standing.SUSPECT:
            if not joined:
                _remember(self._gone, claim.boot)
            return None
        outbids, earlier = order_of(claim) > order_of(me), claim.boot < me.boot
        if claim.boot in self._gone and (earlier or not joined):
            self._outbids = claim if outbids else self._outbids
        elif self._asked is None and (earlier or outbids or not joined):
            self._asked, self._tries, self._next_at = claim, 0, 0
            self._seq = self._rng.getrandbits(62) | 1
        if not by_itself or claim.boot in self._told:
            return []
        _remember(self._told, claim.boot)
        return [conflict(claim, me, lost=False)]

    def owes_answer(self, header: Header, ping: Ping, *, joined: bool) -> bool:
        """Return whether a ping is to be answered: a twin's only if the twin is to go."""
        me = self._table.me
        if header.sender != me.key or header.boot == me.boot:
            return True
        later = header.boot > me.boot
        if not any(row.key == me.key for row in ping.rumors):
            return joined or later
        return joined and (later or header.boot in self._gone)

    def answered(self, header: Header, ack: Ack) -> Member | None:
        """Return the row of the twin whose answer this is: this node is to go."""
        twin = self._asked
        if twin is None or (ack.seq, header.boot) != (self._seq, twin.boot):
            return None
        self._asked, self._next_at = None, NEVER
        return twin

    def tick(self, now: int, *, joined: bool) -> tuple[list[Effect], Member | None]:
        """Return the question that is due, and the row of a twin that is found gone, if any."""
        silent, self._outbids = self._outbids, None
        twin = self._asked
        if twin is None or now < self._next_at:
            return [], silent
        if self._tries == TRIES:
            self._asked, self._next_at = None, NEVER
            _remember(self._gone, twin.boot)
            return [], twin
        # A new connection first: an old one may lead to an earlier life.
        effects: list[Effect] = [] if self._tries else [Disconnect(twin.request)]
        self._tries += 1
        self._next_at = now + self._timeout_ns
        me = self._table.me
        ping = Ping(seq=self._seq, target=me.key, rumors=(me,) if joined else ())
        return [*effects, Tell(twin.request, ping, self._seq)], silent

    def wake_at(self) -> int:
        """Return when `tick` has something to do, or NEVER."""
        return self._next_at if self._outbids is None else 0

    def check(self) -> None:
        """Assert the bounds, and that a question under way has a time."""
        assert len(self._gone) <= LIVES_MAX
        assert len(self._told) <= LIVES_MAX
        assert (self._asked is None) == (self._next_at == NEVER)


def conflict(theirs: Member, ours: Member, *, lost: bool) -> Notify:
    """Return the notice that two nodes run under one name."""
    return notice("name_conflict", theirs, theirs=theirs.request, ours=ours.request, lost=lost)


def _remember(lives: dict[Boot, None], boot: Boot) -> None:
    lives[boot] = None
    if len(lives) > LIVES_MAX:
        del lives[next(iter(lives))]
