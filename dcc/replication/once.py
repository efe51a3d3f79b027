"""Executes a repeated write once: the answers to the last requests of each client.

A client repeats a write that may have happened, to the same boot of the same node, under the same
request id. The first one is executed; a repetition gets the answer of the first, or takes its
place in waiting for it. Definite refusals are not remembered: nothing happened, so a repetition
may try again. Bounded: 1,024 requests a client, 4,096 clients, a minute. Of a client the number is
kept up to which requests fell out: a repetition below it may have been executed, and is answered
so. Likewise a repetition by a client of which nothing is known, once any client fell out.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from dcc.effects import Effect
from dcc.replication.holdings import Asker
from dcc.units import SECOND
from dcc.wire.messages import Code, ErrorReply, Message

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


@dataclass(slots=True)
class _Requests:
    table: OrderedDict[int, _Known] = field(default_factory=OrderedDict)
    floor: int = 0
    "Requests up to this number may have fallen out."


class Once:
    """The table of recent writes by client and request id."""

    def __init__(self) -> None:
        self._clients: OrderedDict[Client, _Requests] = OrderedDict()
        self._fell_out = False
        "Whether a client fell out: one that is not known may have been."
        self.repeated = 0

    def begin(
        self, client: Client, asker: Asker, mono: int, *, again: bool = False
    ) -> list[Effect] | None:
        """Return None for a new request, else the effects that serve its repetition.

        `again` says that the client has sent it before, which may not have arrived.
        """
        requests = self._clients.get(client)
        if requests is None:
            if again and self._fell_out:
                return [asker.answer(_forgotten())]
            requests = self._clients[client] = _Requests()
            if len(self._clients) > CLIENTS_MAX:
                self._clients.popitem(last=False)
                self._fell_out = True
        else:
            self._clients.move_to_end(client)
        known = requests.table.get(asker.request)
        if known is not None:
            self.repeated += 1
            known.asker = asker
            return [asker.answer(known.reply)] if known.reply else []
        if asker.request <= requests.floor:
            return [asker.answer(_forgotten())]
        requests.table[asker.request] = _Known(asker, mono)
        self._trim(requests, mono)
        return None

    def finish(self, client: Client, asker: Asker, reply: Message) -> Effect:
        """Remember the answer to a request and return the effect that sends it."""
        requests = self._clients.get(client)
        known = requests.table.get(asker.request) if requests else None
        if requests is None or known is None:
            return asker.answer(reply)
        if isinstance(reply, ErrorReply):
            del requests.table[asker.request]
        else:
            known.reply = reply
        return known.asker.answer(reply)

    def check(self) -> None:
        """Assert the limits."""
        assert len(self._clients) <= CLIENTS_MAX
        assert all(len(requests.table) <= REQUESTS_MAX for requests in self._clients.values())

    @staticmethod
    def _trim(requests: _Requests, mono: int) -> None:
        table = requests.table
        while len(table) > REQUESTS_MAX:
            requests.floor = max(requests.floor, table.popitem(last=False)[0])
        for _ in range(2):  # Two out for one in: old ones go without a sweep.
            oldest = next(iter(table.values()))
            if oldest.at > mono - KEEP_NS:
                break
            requests.floor = max(requests.floor, table.popitem(last=False)[0])


def _forgotten() -> ErrorReply:
    return ErrorReply(code=Code.MAYBE, text="too long ago: nobody remembers this write")
