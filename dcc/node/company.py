"""Whether a node is in the company it should be in: as many as expected, and reached by them.

A node whose advertised address leads nowhere can join, since it is the one that asks; but nobody
can ask it, so it is found dead again and again. So it is *reached* only once a member has sent it
something of its own accord, on a connection to the advertised address. Until then it is not ready
and takes the lead of nothing. That its gossip is heard is told by an ack on the gossip plane; while
that is missing the other plane fills in, so it has some periods before it counts.

A node that was told how many members to expect (`--expect`) is not ready before it has seen as many
at once. Without that, and with no seeds but itself, it can only warn: a cluster of one is legal.
"""

from __future__ import annotations

from dcc.effects import Effect, Notify
from dcc.node.machines import Machines
from dcc.replication.holdings import Instant
from dcc.units import NEVER
from dcc.wire.codec import Header
from dcc.wire.messages import Ack, Message, PushPull

GRACE_PERIODS = 5
"How long others have to reach a node that has joined before it says that they do not."


class Company:
    """What one node core knows of how the others see it."""

    def __init__(self, machines: Machines) -> None:
        self._machines = machines
        self._complete = machines.config.expect <= 1
        "As many members as expected were there at once."
        self._reached = self._gossip_heard = False
        self._met_at, self._looked_at = NEVER, 0
        "Since when there are others; when that was looked at last."
        self._told: list[str] = []

    def heard(self, header: Header, message: Message, route: bytes, *, request_plane: bool) -> None:
        """Take note of what a member's message says about the way to this node.

        With a `route` it came by a connection to this node's advertised address, unless it is a
        question to an address that stood in a list of seeds.
        """
        if self._reached and self._gossip_heard:
            return
        machines = self._machines
        if header.sender == machines.key or header.sender not in machines.membership.members:
            return
        if not request_plane:
            self._gossip_heard = self._gossip_heard or isinstance(message, Ack)
        elif route and not (isinstance(message, PushPull) and message.joining):
            self._reached = True

    @property
    def reached(self) -> bool:
        """Whether others can send to this node, as far as there are any."""
        return self._reached or self._alone

    @property
    def _alone(self) -> bool:
        """Whether there is no other member, be it one that is believed dead."""
        machines = self._machines
        return len(machines.membership.alive()) <= 1 and len(machines.held.view.boots) <= 1

    def lacks(self) -> list[str]:
        """Return what keeps this node from being ready, one line each."""
        machines, reasons = self._machines, []
        if not self._complete:
            there = len(machines.membership.alive())
            reasons.append(f"{there} of {machines.config.expect} expected members are there")
        if not self.reached:
            reasons.append(f"no member has reached this node at {machines.config.request}")
        if self._unheard():
            reasons.append(f"no member hears the gossip of this node at {machines.config.gossip}")
        return reasons

    def tick(self, at: Instant, *, in_service: bool) -> list[Effect]:
        """Look which members are there; tell what is lacking for long, and when it no longer is."""
        if self._complete and self._reached and self._gossip_heard and not self._told:
            return []  # Each of these stays: nothing can be lacking any more.
        machines = self._machines
        alive, expected = len(machines.membership.alive()), machines.config.expect
        self._complete = self._complete or (machines.membership.joined and alive >= expected)
        self._looked_at = at.mono
        self._met_at = NEVER if self._alone else min(self._met_at, at.mono)
        lacks = self.lacks() if in_service and self._grace_over(at.mono) else []
        if lacks == self._told:
            return []
        self._told = lacks
        if not lacks:
            return [Notify("company_complete", {"members": alive})]
        fields = {
            "reasons": lacks, "request": machines.config.request, "gossip": machines.config.gossip,
            "hint": "is what it advertises reachable from the others, and do its seeds name them?",
        }  # fmt: skip
        return [Notify("not_ready", fields)]

    def _unheard(self) -> bool:
        return not (self._gossip_heard or self._alone) and self._waited(self._looked_at)

    def _grace_over(self, mono: int) -> bool:
        since = self._met_at if self._complete else self._machines.started_at
        return mono - since >= GRACE_PERIODS * self._machines.config.protocol_period_ns

    def _waited(self, mono: int) -> bool:
        return mono - self._met_at >= GRACE_PERIODS * self._machines.config.protocol_period_ns
