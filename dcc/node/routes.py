"""Which peers may send which message to a node, and its handler: one table, no other dispatch.

A row names the sender class and the handler. The class decides which gate a message passes on its
way: what is checked of its sender, and what is sifted out of it.

    class     gate                 sender                               handler's arguments
    ANYBODY   gates.AnybodyGate    who reaches the node: a node that    header, message, time, plane
                                   joins is no member yet
    CLIENT    admission.Admission  a client, or the member that passes  request, message
                                   a client's request on
    ADMIN     admission.Admission  likewise; where keys are used, not every  request, message
                                   client may
    MEMBER    gates.MemberGate     a member of this node's ring, in     header, message, time
                                   the boot that the ring knows
    ASKED     none                 the node that was asked under this   header, message, time
                                   number: the handler compares both

At a node with keys each message on the request plane must first be one that its sender's key allows
(`rights`). The gossip plane carries what ANYBODY may send and nothing else. A message without a row
is dropped.

A handler is looked up at each message, so that a test or a planted bug may replace it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, NamedTuple

from dcc.effects import Effect
from dcc.node.administration import Administration
from dcc.node.converging import Converging
from dcc.node.copies import Copies
from dcc.node.listings import Listings
from dcc.node.machines import Machines
from dcc.node.outgoing import MEMBERSHIP
from dcc.node.requests import Requests
from dcc.node.views import Views
from dcc.wire import messages as m

Handler = Callable[..., list[Effect]]
"Its arguments depend on the sender class: see the table above."


class Sender(Enum):
    """Which peers may send a message."""

    ANYBODY = "anybody"
    CLIENT = "client"
    ADMIN = "admin"
    MEMBER = "member"
    ASKED = "asked"


class Row(NamedTuple):
    """What becomes of one kind of message."""

    sender: Sender
    handler: Callable[[], Handler]
    "Returns the handler as it is now."


def table(
    machines: Machines,
    requests: Requests,
    listings: Listings,
    administration: Administration,
    copies: Copies,
    views: Views,
    converging: Converging,
) -> Mapping[type[Any], Row]:
    """Return the rows of one node."""
    membership, exchange, changes = machines.membership, machines.exchange, machines.changes
    answerer, agenda, served = exchange.answerer, exchange.agenda, machines.served
    return {
        **dict.fromkeys(MEMBERSHIP, Row(Sender.ANYBODY, lambda: membership.receive)),
        m.Get: Row(Sender.CLIENT, lambda: requests.get),
        m.Write: Row(Sender.CLIENT, lambda: requests.write),
        m.WriteMany: Row(Sender.CLIENT, lambda: requests.write),
        m.GetMany: Row(Sender.CLIENT, lambda: listings.get_many),
        m.Scan: Row(Sender.CLIENT, lambda: listings.scan),
        m.Inspect: Row(Sender.CLIENT, lambda: listings.inspect),
        m.Watch: Row(Sender.CLIENT, lambda: administration.watch),
        m.TopologyGet: Row(Sender.CLIENT, lambda: administration.topology),
        m.StatsGet: Row(Sender.CLIENT, lambda: administration.stats),
        m.Clear: Row(Sender.ADMIN, lambda: administration.clear),
        m.SetReplicas: Row(Sender.ADMIN, lambda: administration.set_replicas),
        m.ConvergedGet: Row(Sender.CLIENT, lambda: administration.converged),
        m.AuditGet: Row(Sender.CLIENT, lambda: administration.audit),
        m.GetReply: Row(Sender.ASKED, lambda: requests.answered),
        m.WriteReply: Row(Sender.ASKED, lambda: requests.answered),
        m.ErrorReply: Row(Sender.ASKED, lambda: requests.answered),
        m.Fetch: Row(Sender.MEMBER, lambda: copies.fetch),
        m.FetchReply: Row(Sender.MEMBER, lambda: copies.fetch_reply),
        m.Replicate: Row(Sender.MEMBER, lambda: copies.replicate),
        m.ReplicateAck: Row(Sender.MEMBER, lambda: copies.replicate_ack),
        m.Served: Row(Sender.MEMBER, lambda: served.heard_of),
        m.Pull: Row(Sender.MEMBER, lambda: answerer.receive_pull),
        m.PullReply: Row(Sender.MEMBER, lambda: exchange.receive_reply),
        m.Compare: Row(Sender.MEMBER, lambda: answerer.receive_compare),
        m.CompareReply: Row(Sender.MEMBER, lambda: exchange.receive_comparison),
        m.CompareRoot: Row(Sender.MEMBER, lambda: answerer.receive_root),
        m.CompareRootReply: Row(Sender.MEMBER, lambda: exchange.receive_roots),
        m.Nudge: Row(Sender.MEMBER, lambda: agenda.nudged),
        m.SettingsUpdate: Row(Sender.MEMBER, lambda: views.settings_update),
        m.SettingsAck: Row(Sender.MEMBER, lambda: changes.acknowledged),
        m.StateGet: Row(Sender.MEMBER, lambda: converging.asked),
        m.State: Row(Sender.MEMBER, lambda: converging.told),
    }
