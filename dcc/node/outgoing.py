"""Messages of one node core on their way out: which time they carry, and that they can be read.

Membership carries the machine's own clock, from which others make cluster time; everything else
carries cluster time. A frame that is longer than anybody would read is a refusal instead: the
asker learns that there is no answer, and does not wait for what every reader would drop.
"""

from __future__ import annotations

from dataclasses import replace

from dcc.effects import Answer, Gossip, Notify, Tell
from dcc.limits import FRAME_BYTES_MAX
from dcc.node.machines import Machines
from dcc.replication.holdings import Instant
from dcc.types import NodeKey
from dcc.wire import messages as m
from dcc.wire.codec import unpack_items

MEMBERSHIP = (m.Ping, m.Ack, m.PingReq, m.Nack, m.Rumors, m.PushPull, m.PushPullReply)


class Outgoing:
    """Makes frames of one core's messages."""

    def __init__(self, machines: Machines) -> None:
        self._machines = machines

    def frames(self, to: NodeKey | str, effect: Tell | Answer | Gossip, at: Instant) -> list[bytes]:
        """Return the frames of a message, with what the core adds to it for the receiver `to`.

        Members tell each other their own clocks; all others learn cluster time, once it is known.
        """
        machines, message, request = self._machines, effect.message, 0
        if isinstance(effect, Gossip):
            message = self._with_root(effect.to, message)
        else:
            request = effect.request
        if isinstance(message, MEMBERSHIP):
            message = machines.timekeeper.dressed(to, message, at)
            time = machines.clock.own_ms(at.mono)
        else:
            time = at.ms if machines.clock.settled else 0
        epoch = machines.held.view.epoch_for(to)
        frames = machines.codec.encode(message, epoch=epoch, request=request, at=time)
        if isinstance(effect, Gossip) or len(frames[0]) <= FRAME_BYTES_MAX:
            return frames
        machines.counters.drop("oversized")
        fields = {"reason": "oversized", "text": type(message).__name__}
        machines.notices.append(Notify("message_dropped", fields))
        refusal = m.ErrorReply(code=m.Code.OVERLOADED, text="the answer does not fit a frame")
        return machines.codec.encode(refusal, epoch=epoch, request=request, at=time)

    def _with_root(self, to: NodeKey, message: m.Message) -> m.Message:
        """Let pings and acks say what this node has seen of the slots shared with `to`."""
        if isinstance(message, m.Ping | m.Ack) and to in self._machines.held.view.boots:
            return replace(message, root=self._machines.exchange.trees.root(to))
        return message

    def unsent(self, frames: list[bytes]) -> list[bytes]:
        """Return a refusal for a client that has too many replies unread."""
        machines, request = self._machines, unpack_items(frames[0])[5]
        machines.counters.refuse("overloaded")
        refusal = m.ErrorReply(code=m.Code.OVERLOADED, text="too many replies are not read yet")
        return machines.codec.encode(refusal, epoch=machines.held.view.epoch, request=request)
