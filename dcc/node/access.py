"""What the shell knows of keys and tells the core, which has no files and no sockets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from dcc.types import Member, NodeKey
from dcc.wire.messages import Ack, Message, Ping, PingReq, PushPull, PushPullReply, Rumors


class Access:
    """Which nodes may be members, and how many were refused. Set by the shell."""

    def __init__(self) -> None:
        self.mode = "open"
        """"keys", "insecure" (none, and other machines can reach it) or "open" (none)."""
        self.nodes: frozenset[NodeKey] | None = None
        "Members' names by their keys, as far as keys are allowed; None without keys: everybody."
        self.refused: Callable[[], Mapping[str, int]] = dict
        "Tells the connections and messages that keys kept out, by reason."

    def admits(self, node: NodeKey) -> bool:
        """Return whether `node` may be a member."""
        return self.nodes is None or node in self.nodes

    def admitted(self, message: Message) -> Message:
        """Return `message` without rows of nodes that may not be members; itself if it has none."""
        if self.nodes is None:
            return message
        if isinstance(message, Ping | Ack | PingReq | Rumors):
            rumors = self._rows(message.rumors)
            return message if rumors is message.rumors else replace(message, rumors=rumors)
        if isinstance(message, PushPull | PushPullReply):
            members = self._rows(message.members)
            return message if members is message.members else replace(message, members=members)
        return message

    def _rows(self, rows: tuple[Member, ...]) -> tuple[Member, ...]:
        kept = tuple([row for row in rows if self.admits(row.key)])
        return rows if len(kept) == len(rows) else kept
