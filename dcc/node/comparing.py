"""The messages of the exchange, handed to the machine that decides about each.

Nothing is decided here: each handler takes from the header what the exchange needs (who asks, under
which number, in which ring) and leaves out slots whose clocks lie ahead of time. Methods of the
exchange are looked up at each message, so that a test or a planted bug may replace them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dcc.effects import Effect
from dcc.node.door import Door
from dcc.replication.exchange import Exchange
from dcc.replication.holdings import Instant
from dcc.wire import messages as m
from dcc.wire.codec import Header

Handler = Callable[[Header, Any, Instant], list[Effect]]


class Comparing:
    """Routes the exchange's messages of one node core."""

    def __init__(self, exchange: Exchange, door: Door) -> None:
        self._exchange, self._door = exchange, door

    def table(self) -> dict[type, Handler]:
        """Return who handles which message."""
        return {
            m.Pull: self._pull,
            m.PullReply: self._pull_reply,
            m.Compare: self._compare,
            m.CompareReply: self._compare_reply,
            m.CompareRoot: self._compare_root,
            m.CompareRootReply: self._compare_root_reply,
            m.Nudge: self._nudge,
        }

    def _pull(self, header: Header, message: m.Pull, at: Instant) -> list[Effect]:
        message, answerer = self._door.in_time(message, at), self._exchange.answerer
        return answerer.receive_pull(header.sender, header.request, header.epoch, message, at)

    def _pull_reply(self, header: Header, message: m.PullReply, at: Instant) -> list[Effect]:
        message, exchange = self._door.in_time(message, at), self._exchange
        return exchange.receive_reply(header.sender, header.request, header.epoch, message, at)

    def _compare(self, header: Header, message: m.Compare, at: Instant) -> list[Effect]:
        answerer = self._exchange.answerer
        return answerer.receive_compare(header.sender, header.request, header.epoch, message, at)

    def _compare_reply(self, header: Header, message: m.CompareReply, at: Instant) -> list[Effect]:
        exchange = self._exchange
        return exchange.receive_comparison(header.sender, header.request, header.epoch, message, at)

    def _compare_root(self, header: Header, message: m.CompareRoot, at: Instant) -> list[Effect]:
        answerer = self._exchange.answerer
        return answerer.receive_root(header.sender, header.request, header.epoch, message, at)

    def _compare_root_reply(
        self, header: Header, message: m.CompareRootReply, at: Instant
    ) -> list[Effect]:
        exchange = self._exchange
        return exchange.receive_roots(header.sender, header.request, header.epoch, message, at)

    def _nudge(self, header: Header, message: m.Nudge, at: Instant) -> list[Effect]:
        self._exchange.agenda.nudged(header.sender, message.slots, at)
        return []
