"""What every message of a peer passes before its handler: is the sender one, is it sifted?

Requests of clients have a gate of their own (`admission`); `routes` says which message takes which.
"""

from __future__ import annotations

from typing import Any

from dcc.effects import Effect, Notify
from dcc.node.company import Company
from dcc.node.door import Door
from dcc.node.machines import Machines
from dcc.node.routes import Handler
from dcc.node.views import Views
from dcc.replication.holdings import Instant
from dcc.wire import messages as m
from dcc.wire.codec import Header

WITH_RECORDS = (m.Replicate, m.PullReply, m.FetchReply)
"What brings other nodes' versions."

WITH_CLOCKS: tuple[type[Any], ...] = (m.Pull, m.PullReply)
"What brings slots' clocks."

WITH_SLOTS = (m.Compare, m.Nudge, m.Pull)
"What costs work for each slot that it names."


class MemberGate:
    """Lets in what members of this node's ring send, in the boots that the ring knows."""

    def __init__(self, machines: Machines, door: Door, views: Views) -> None:
        self._machines, self._door, self._views = machines, door, views

    def admit(self, header: Header, message: Any, handler: Handler, at: Instant) -> list[Effect]:
        """Hand a message to its handler, or drop it. A peer with another view is offered ours."""
        machines, door = self._machines, self._door
        view = machines.held.view
        boot = view.boots.get(header.sender)
        if boot is None or boot != header.boot or header.sender == machines.key:
            return [self._drop("unknown_sender" if boot is None else "other_boot", header)]
        if isinstance(message, WITH_RECORDS) and not machines.clock.knows(header.sender):
            # By a wrong clock it would take values for expired, or stamps for the future's.
            dropped = self._drop("time_unknown", header)
            return [dropped, *machines.timekeeper.ask(header.sender)]
        if isinstance(message, WITH_SLOTS) and not door.once(message):
            return [self._drop("malformed", header)]
        if isinstance(message, WITH_RECORDS):
            message = door.readable(header, message)
            machines.staleness.arrived(message.records)
        if isinstance(message, WITH_CLOCKS):
            message = door.in_time(message, at)
        effects = handler(header, message, at)
        if header.epoch != view.epoch:
            effects = effects + self._views.offer(header.sender, at)
        return effects

    def _drop(self, reason: str, header: Header) -> Effect:
        self._machines.counters.drop(reason)
        return Notify("message_dropped", {"reason": reason, "sender": header.sender})


class AnybodyGate:
    """Lets in membership, on both planes: from nodes that are no members yet, too.

    Here it is decided which clocks count; `gossip` decides what a claim changes.
    """

    def __init__(self, machines: Machines, door: Door, company: Company) -> None:
        self._machines, self._door, self._company = machines, door, company

    def admit(
        self,
        header: Header,
        message: m.Message,
        handler: Handler,
        at: Instant,
        *,
        request_plane: bool,
        route: bytes,
    ) -> list[Effect]:
        """Hand a message to its handler, without what it claims of the future."""
        machines, door = self._machines, self._door
        if not machines.access.admits(header.sender):
            machines.counters.drop("unknown_node")
            return [Notify("message_dropped", {"reason": "unknown_node", "sender": header.sender})]
        message = machines.access.admitted(message)
        known = door.knows_clock(header, at)
        machines.timekeeper.observe(header, message, at, known=known)
        if isinstance(message, m.Ping | m.Ack) and header.epoch == machines.held.view.epoch:
            machines.exchange.root_heard(header.sender, message.root, at)
        self._company.heard(header, message, route, request_plane=request_plane)
        believed = door.believed(header, message, at)
        effects = handler(
            header, believed, at.mono, at.ms, request_plane=request_plane, route=route
        )
        if not known and isinstance(message, m.Ack):  # The answer by which it became a member.
            known = door.knows_clock(header, at)
            machines.timekeeper.observe(header, message, at, known=known)
        return effects
