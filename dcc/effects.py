"""What a machine asks of the world. Returned, never carried out, by everything below the shell.

The machines (`gossip`, `replication`) speak in messages; the node and client cores turn them into
frames with the codec, so that shell and simulator only ever carry bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dcc.types import NodeKey

if TYPE_CHECKING:
    from dcc.wire.messages import Message


@dataclass(frozen=True, slots=True)
class Tell:
    """Send a message to a member on the request plane. Machines only."""

    to: NodeKey | str
    "A member's key, or host:port for a seed whose key nobody knows yet."
    message: Message
    request: int = 0
    "The request id for the header; an answer repeats the question's."
    bulk: bool = False
    "As in `Send`."


@dataclass(frozen=True, slots=True)
class Gossip:
    """Publish a message on the gossip plane under one member's topic. Machines only."""

    to: NodeKey
    message: Message


@dataclass(frozen=True, slots=True)
class Answer:
    """Send a message back through the ROUTER to the routing id it came from. Machines only."""

    route: bytes
    message: Message
    request: int = 0
    command: str = ""
    "What is answered, for the latency by command; empty = not counted."
    began_at: int = 0
    "Monotonic ns at which the request was taken in."


@dataclass(frozen=True, slots=True)
class Send:
    """Put frames on the DEALER to a node (key, or host:port of a seed)."""

    to: NodeKey | str
    frames: list[bytes]
    bulk: bool = False
    """On the second connection, for what may take seconds on a slow link: nothing small waits
    behind it. Each of the two keeps its order."""
    request: int = 0
    "A client's call: the number that the answer will repeat. 0 where no call waits for one."


@dataclass(frozen=True, slots=True)
class Publish:
    """Put [topic, payload] on this node's PUB."""

    topic: bytes
    payload: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer the client behind a ROUTER's routing id."""

    route: bytes
    frames: list[bytes]
    command: str = ""
    "As in `Answer`: the shell knows when the reply really goes out."
    began_at: int = 0


@dataclass(frozen=True, slots=True)
class Connect:
    """Open (or, when the addresses changed, reopen) DEALER and SUB to a member."""

    key: NodeKey
    request: str
    gossip: str


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Close DEALER and SUB to a member that is DEAD, REMOVED or LEFT, or what led to an address."""

    key: NodeKey | str


@dataclass(frozen=True, slots=True)
class Notify:
    """Something worth a log line, a metric or a simulator's check. Stable name, plain fields."""

    event: str
    fields: dict[str, Any]


Effect = Tell | Gossip | Answer | Send | Publish | Reply | Connect | Disconnect | Notify
