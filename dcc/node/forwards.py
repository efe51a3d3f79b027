"""Requests that reached the wrong node: sent on once, and the answers brought back."""

from __future__ import annotations

from typing import NamedTuple

from dcc.effects import Effect, Send
from dcc.replication.holdings import Asker, Holdings
from dcc.replication.once import Client
from dcc.types import NodeKey
from dcc.units import NEVER
from dcc.wire.codec import Codec
from dcc.wire.messages import Get, Write


class Forward(NamedTuple):
    """One request under way to the node that should have got it."""

    to: NodeKey
    "The node it was sent to: nobody else's answer counts."
    asker: Asker
    client: Client | None
    "Of a write, whose answer is remembered here as well; None for a read."
    message: Get | Write
    until: int

    @property
    def bytes(self) -> int:
        """Of the value that it keeps until it is answered."""
        return len(self.message.value) if isinstance(self.message, Write) else 0


class Forwards:
    """The table of forwarded requests, by this node's own request id."""

    def __init__(self, holdings: Holdings, codec: Codec) -> None:
        self._held, self._codec = holdings, codec
        self._open: dict[int, Forward] = {}
        self.count: int = 0
        self.bytes_used: int = 0
        "Of the values of all."

    def __len__(self) -> int:
        return len(self._open)

    def send(self, frames: list[bytes], forward: Forward) -> Effect:
        """Return the effect that hands the request's frames on, with one hop more."""
        number = self._held.next_request()
        self._open[number] = forward
        self.bytes_used += forward.bytes
        self.count += 1
        epoch = self._held.view.epoch
        return Send(forward.to, self._codec.relay(frames, epoch=epoch, hops=1, request=number))

    def take(self, number: int, peer: NodeKey) -> Forward | None:
        """Return and close the request `number` that `peer` was sent; None if it is none."""
        forward = self._open.get(number)
        if forward is None or forward.to != peer:
            return None
        self.bytes_used -= forward.bytes
        return self._open.pop(number)

    def tick(self, mono: int) -> None:
        """Let go of requests whose deadline is over: their clients have given up."""
        for number in [n for n, forward in self._open.items() if forward.until <= mono]:
            self.bytes_used -= self._open.pop(number).bytes

    def wake_at(self) -> int:
        """Return the earliest deadline."""
        return min((forward.until for forward in self._open.values()), default=NEVER)

    def check(self) -> None:
        """Assert that the bytes are those of the requests."""
        assert self.bytes_used == sum(forward.bytes for forward in self._open.values())
