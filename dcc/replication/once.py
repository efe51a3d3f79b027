"""Executes a repeated write once: the answers to the last requests of each client.

A client repeats a write that may have happened, to the same boot of the same node, under the same
request id. The first one is executed; a repetition gets the answer of the first, or takes its
place in waiting for it. Definite refusals are not remembered: nothing happened, so a repetition
may try again. Bounded: 1,024 requests a client, 4,096 clients, a minute; what falls out is at
least as old as twice the longest deadline in ordinary use.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from dcc.effects import Effect
from dcc.replication.holdings import Asker
from dcc.units import SECOND
from dcc.wire.messages import ErrorReply, Message

REQUESTS_MAX = 1_024
CLIENTS_MAX = 4_096
KEEP_NS = 60 * SECOND

Client = tuple[int, int]
"(sender, boot) of the envelope: one life of one client, or of a node that forwards."


@dataclass(slots=True)
class _Known:
    asker: Asker
    at: int
    reply: Message | None = None


class Once:
    """The table of recent writes by client and request id."""

    def __init__(self) -> None:
        self._clients: OrderedDict[Client, OrderedDict[int, _Known]] = OrderedDict()
        self.repeated = 0

    def begin(self, client: Client, asker: Asker, mono: int) -> list[Effect] | None:
        """Return None for a new request, else the effects that serve its repetition."""
        requests = self._clients.get(client)
        if requests is None:
            requests = self._clients[client] = OrderedDict()
            if len(self._clients) > CLIENTS_MAX:
                self._clients.popitem(last=False)
        else:
            self._clients.move_to_end(client)
        known = requests.get(asker.request)
        if known is not None:
            self.repeated += 1
            known.asker = asker
            return [asker.answer(known.reply)] if known.reply else []
        requests[asker.request] = _Known(asker, mono)
        self._trim(requests, mono)
        return None

    def finish(self, client: Client, asker: Asker, reply: Message) -> Effect:
        """Remember the answer to a request and return the effect that sends it."""
        requests = self._clients.get(client, OrderedDict())
        known = requests.get(asker.request)
        if known is None:
            return asker.answer(reply)
        if isinstance(reply, ErrorReply):
            del requests[asker.request]
        else:
            known.reply = reply
        return known.asker.answer(reply)

    def check(self) -> None:
        """Assert the limits."""
        assert len(self._clients) <= CLIENTS_MAX
        assert all(len(requests) <= REQUESTS_MAX for requests in self._clients.values())

    @staticmethod
    def _trim(requests: OrderedDict[int, _Known], mono: int) -> None:
        while len(requests) > REQUESTS_MAX:
            requests.popitem(last=False)
        for _ in range(2):  # Two out for one in: old ones go without a sweep.
            oldest = next(iter(requests.values()))
            if oldest.at > mono - KEEP_NS:
                break
            requests.popitem(last=False)
