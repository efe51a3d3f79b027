"""How a node reads the other members' clocks, and tells them what it believes.

Every ping and ack carries what its sender claims of cluster time, and an ack what the ping's clock
looked like when it came. A node that starts pings those it has not heard of, until it knows enough
to stamp; then what the members tell each other anyhow is all there is. The rules are `dcc.clock`'s.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dcc.clock import ClusterClock
from dcc.config import NodeConfig
from dcc.effects import Effect, Tell
from dcc.gossip.membership import Membership
from dcc.node.plausible import plausible
from dcc.replication.holdings import Instant
from dcc.types import NOT_HEARD, NodeKey
from dcc.units import MILLISECOND, SECOND
from dcc.wire.codec import Header
from dcc.wire.messages import Ack, Message, Ping, PushPullReply

ASK_PAUSE_NS = 100 * MILLISECOND
ASKED = 5
"Members asked for the time at once while a node starts."

LOOK_PAUSE_NS = 1 * SECOND
"Between two looks at the others' times."

SLEW_PAUSE_NS = 100 * MILLISECOND
"Between two steps of a correction, each less than a hundredth of a second."


class Timekeeper:
    """Keeps one node's `ClusterClock` in touch with the other members."""

    def __init__(self, clock: ClusterClock, membership: Membership, config: NodeConfig) -> None:
        self._clock, self._membership, self._config = clock, membership, config
        self._key = membership.me.key
        self._next_at = 0
        self._echo: tuple[NodeKey, int] | None = None
        "The sender of the ping that is being answered, and this node's clock minus its clock."

    def observe(self, header: Header, message: Message, at: Instant, *, known: bool) -> None:
        """Read a membership message's clock, if it is `known` to be a live member's."""
        self._echo = None
        if not header.at or not known:
            return
        claim, heard = None, None
        if isinstance(message, Ping):
            claim = message.clock
            self._echo = (header.sender, self._clock.own_ms(at.mono) - header.at)
        elif isinstance(message, Ack):
            claim = message.clock
            heard = None if message.heard_ms == NOT_HEARD else message.heard_ms
        self._clock.observe(
            header.sender, header.boot, header.at, at.mono, claim=claim, heard_ms=heard
        )

    def dressed(self, to: NodeKey | str, message: Message, at: Instant) -> Message:
        """Return a message that leaves with this node's claim, where there is a place for it."""
        if not isinstance(message, Ping | Ack | PushPullReply):
            return message
        claim = self._clock.claim(at.ms)
        if isinstance(message, Ack) and self._echo is not None and self._echo[0] == to:
            return replace(message, clock=claim, heard_ms=self._echo[1])
        return replace(message, clock=claim)

    def believed(self, header: Header, message: Message, at: Instant) -> Any:
        """Return `message` without settings from the future; itself if it has none.

        A node that does not know the time yet has to go by its own clock and by the sender's.
        """
        now_ms = self._clock.agreed_ms(at.ms)
        if not self._clock.settled:
            claimed_ms = message.clock.offset_ms if isinstance(message, PushPullReply) else 0
            now_ms = max(self._clock.own_ms(at.mono), header.at, header.at + claimed_ms)
        return plausible(message, self._membership.settings, now_ms + self._config.max_skew_ms)

    def tick(self, at: Instant) -> list[Effect]:
        """Ask some members for their time until this node knows it; then keep up with them."""
        if self._next_at > at.mono or not self._membership.joined:
            return []
        clock = self._clock
        others = self._membership.alive() - {self._key}
        if clock.settle(others, at.mono):
            clock.follow(at.mono)
            self._next_at = at.mono + (SLEW_PAUSE_NS if clock.moving else LOOK_PAUSE_NS)
            return []
        self._next_at = at.mono + ASK_PAUSE_NS
        return [effect for key in clock.unheard(others)[:ASKED] for effect in self.ask(key)]

    def ask(self, key: NodeKey) -> list[Effect]:
        """Ask one member for its time: something came from it that cannot be judged without."""
        return [Tell(key, Ping(seq=0, target=key))]

    def wake_at(self) -> int:
        """Return when `tick` has something to do, in a node that has joined."""
        return self._next_at
