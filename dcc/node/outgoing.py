"""Messages of one node core on their way out: which time they carry, and that they can be read.

Membership carries the machine's own clock, from which others make cluster time; everything else
carries cluster time. A frame that is longer than anybody would read is a refusal instead: who asked
learns that there is no answer, and does not wait for what every reader would drop.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from dcc.effects import Answer, Gossip, Notify, Tell
from dcc.limits import FRAME_BYTES_MAX
from dcc.replication.holdings import Instant
from dcc.types import NodeKey
from dcc.wire import messages as m
from dcc.wire.codec import unpack_items

if TYPE_CHECKING:
    from dcc.node.core import NodeCore

MEMBERSHIP = (m.Ping, m.Ack, m.PingReq, m.Nack, m.Rumors, m.PushPull, m.PushPullReply)


class Outgoing:
    """Makes frames of one core's messages."""

    def __init__(self, core: NodeCore) -> None:
        self._core = core

    def frames(self, to: NodeKey | str, effect: Tell | Answer | Gossip, at: Instant) -> list[bytes]:
        """Return the frames of a message, with what the core adds to it for the receiver `to`.

        Members tell each other their own clocks; all others learn cluster time, once it is known.
        """
        core, message, request = self._core, effect.message, 0
        if isinstance(effect, Gossip):
            message = self._with_root(effect.to, message)
        else:
            request = effect.request
        if isinstance(message, MEMBERSHIP):
            message = core.timekeeper.dressed(to, message, at)
            time = core.clock.own_ms(at.mono)
        else:
            time = at.ms if core.clock.settled else 0
        epoch = core.held.view.epoch_for(to)
        frames = core.codec.encode(message, epoch=epoch, request=request, at=time)
        if isinstance(effect, Gossip) or len(frames[0]) <= FRAME_BYTES_MAX:
            return frames
        core.counters.drop("oversized")
        fields = {"reason": "oversized", "text": type(message).__name__}
        core.notices.append(Notify("message_dropped", fields))
        refusal = m.ErrorReply(code=m.Code.OVERLOADED, text="the answer does not fit a frame")
        return core.codec.encode(refusal, epoch=epoch, request=request, at=time)

    def _with_root(self, to: NodeKey, message: m.Message) -> m.Message:
        """Let pings and acks say what this node has seen of the slots shared with `to`."""
        if isinstance(message, m.Ping | m.Ack) and to in self._core.held.view.boots:
            return replace(message, root=self._core.exchange.trees.root(to))
        return message

    def unsent(self, frames: list[bytes]) -> list[bytes]:
        """Return a refusal for a client that has too many replies unread."""
        core, request = self._core, unpack_items(frames[0])[5]
        core.counters.refuse("overloaded")
        refusal = m.ErrorReply(code=m.Code.OVERLOADED, text="too many replies are not read yet")
        return core.codec.encode(refusal, epoch=core.held.view.epoch, request=request)
