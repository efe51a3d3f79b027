"""What each key entitles to, at a node with keys. Without keys nobody is told apart.

    node     every message, in its own name alone: the name is bound to the key
    admin    requests, and changes of what the whole cluster shares
    client   requests; some only for reading, or for keys with certain beginnings

Only nodes pass a client's request on, and the node that the client is connected to has looked at
it. So only a node may send what was passed on, and a node sends no other requests. Nor may a client
use the key of a node, absent or not, for its own id: answers to writes are remembered by it.
"""

from __future__ import annotations

from dcc.effects import Answer, Effect, Notify
from dcc.node.machines import Machines
from dcc.node.routes import Sender
from dcc.types import Identity, NodeKey, Role
from dcc.wire import messages as m
from dcc.wire.codec import Header

TOLD_MAX = 1_024
"Refusals that are logged, each once; the others are counted only."

REQUESTS = (Sender.CLIENT, Sender.ADMIN)
CHANGING = (m.Write, m.WriteMany)
BEYOND = "the key begins with none of the texts that this client is bound to"
UNBOUND = (m.AuditGet,)
"Requests about keys that they do not name."


class Rights:
    """Judges by its sender whether a message may be looked at."""

    def __init__(self, machines: Machines) -> None:
        self._machines = machines
        self._told: set[tuple[str, str]] = set()

    def refusal(self, who: Identity, sender: Sender, header: Header, message: m.Message) -> str:
        """Return why `who` may not send `message`; empty if it may."""
        if who.role is Role.NODE:
            return self._refusal_of_node(who, sender, header)
        if header.hops or sender not in REQUESTS:
            return "only nodes may send this"
        if self._is_node(header.sender):
            return "the client's id is a node's"
        if sender is Sender.ADMIN and who.role is not Role.ADMIN:
            return "only administrators may change what the cluster shares"
        if who.read_only and isinstance(message, CHANGING):
            return "this key is for reading only"
        return "" if not who.prefixes or _within(who.prefixes, message) else BEYOND

    def _refusal_of_node(self, who: Identity, sender: Sender, header: Header) -> str:
        if header.sender != who.node:
            return "a node speaks in its own name only"
        if sender in REQUESTS and not header.hops:
            return "a node passes requests on, and makes none"
        return ""

    def _is_node(self, sender: NodeKey) -> bool:
        """Return whether this is a member, or a node that may become one (again)."""
        machines = self._machines
        return sender in machines.membership.members or sender in (machines.access.nodes or ())

    def refuse(
        self, who: Identity, why: str, route: bytes, header: Header, message: m.Message
    ) -> list[Effect]:
        """Return the answer to what was refused. Counts it; tells it once of each key and kind."""
        self._machines.counters.drop("not_allowed")
        self._machines.counters.refuse("not_allowed")
        effects: list[Effect] = []
        if who.role is not Role.NODE:  # A node does not read what comes back on this way.
            reply = m.ErrorReply(code=m.Code.NOT_ALLOWED, text=f"{who.name}: {why}")
            effects.append(Answer(route, reply, header.request))
        kind = type(message).__name__
        if (who.name, kind) not in self._told and len(self._told) < TOLD_MAX:
            self._told.add((who.name, kind))
            fields = {"who": who.name, "role": who.role.name.lower(), "message": kind, "text": why}
            effects.append(Notify("not_allowed", fields))
        return effects


def _within(prefixes: tuple[bytes, ...], message: m.Message) -> bool:
    """Return whether `message` is about keys with these beginnings only."""
    match message:
        case m.Get() | m.Write() | m.Inspect():
            return message.key.startswith(prefixes)
        case m.GetMany():
            return all(key.startswith(prefixes) for key in message.keys)
        case m.WriteMany():
            return all(key.startswith(prefixes) for key, _ in message.items)
        case m.Scan():
            return message.prefix.startswith(prefixes)
        case m.StatsGet():
            return not message.hot_keys
    return not isinstance(message, UNBOUND)
