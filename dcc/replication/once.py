"""Executes a repeated write once: the answers to the last requests of each client.

A client repeats a write that may have happened, to the same boot of the same node, under the same
request id. The first one is executed; a repetition gets the answer of the first, or takes its
place in waiting for it. Definite refusals are not remembered: nothing happened, so a repetition
may try again.

Bounded in time, in number and in bytes. All requests stand in one table in the order in which they
came, so the oldest are found without a search: `tick` lets go of those that are a minute old,
of any client, and what exceeds the budget in bytes goes at once. A client keeps at most 1,024
requests, so that a busy one does not drive out the others'. For each client the table keeps the
highest number that fell out: a repetition at or below it may have been executed, and is answered
so. The same goes for a repetition by an unknown client, once any client fell out.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from dataclasses import dataclass, field

from dcc.effects import Effect
from dcc.replication.holdings import Asker
from dcc.units import MIB, NEVER, SECOND
from dcc.wire.messages import Code, ErrorReply, Message, WriteManyReply

REQUESTS_MAX = 1_024
CLIENTS_MAX = 4_096
KEEP_NS = 60 * SECOND
EXPIRED_PER_TICK = 2_000
"Some two milliseconds of work; what is left is due at once."

REQUEST_BYTES = 512
"One request as CPython lays it out: place in the table, asker and answer; measured by a test."
STAMP_BYTES = 40
"One stamp of an answer to many: an int and its place in the tuple."
CLIENT_BYTES = 500
"What stays of a client whose requests all fell out."
CLIENTS_SHARE = 4
"What stays of clients may take one part in this many of the budget: requests are worth more."

Client = tuple[int, int]
"(sender, boot) of the envelope: one boot of one client, or of a node that forwards."


@dataclass(slots=True)
class _Known:
    asker: Asker | None
    "The asker that waits for the answer; None once it was given."
    at: int
    reply: Message | None = None
    bytes: int = REQUEST_BYTES


@dataclass(slots=True)
class _Requests:
    table: array[int] = field(default_factory=lambda: array("Q"))
    "Numbers of its requests as they came, those that were refused since included."
    floor: int = 0
    "Requests up to this number may have fallen out."


class Once:
    """The table of recent writes by client and request id."""

    def __init__(self, bytes_max: int = 16 * MIB) -> None:
        self.bytes_max = bytes_max
        self._clients_max = min(CLIENTS_MAX, max(1, bytes_max // CLIENTS_SHARE // CLIENT_BYTES))
        self.bytes_used: int = 0
        self._known: OrderedDict[tuple[Client, int], _Known] = OrderedDict()  # oldest first
        self._clients: OrderedDict[Client, _Requests] = OrderedDict()  # least recently heard first
        self._fell_out = False
        "Whether a client fell out: one that is not known may have been."
        self.repeated: int = 0

    def __len__(self) -> int:
        return len(self._known)

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
            self.bytes_used += CLIENT_BYTES
        else:
            self._clients.move_to_end(client)
        known = self._known.get((client, asker.request))
        if known is not None:
            self.repeated += 1
            if known.reply:
                return [asker.answer(known.reply)]
            known.asker = asker
            return []
        if asker.request <= requests.floor:
            return [asker.answer(_forgotten())]
        self._known[client, asker.request] = _Known(asker, mono)
        self.bytes_used += REQUEST_BYTES
        requests.table.append(asker.request)
        if len(requests.table) > REQUESTS_MAX:
            self._forget(client, requests.table[0])
        self._fit()
        return None

    def finish(self, client: Client, asker: Asker, reply: Message) -> Effect:
        """Remember the answer to a request and return the effect that sends it."""
        known = self._known.get((client, asker.request))
        if known is None or known.asker is None:
            return asker.answer(reply)
        effect = known.asker.answer(reply)
        if isinstance(reply, ErrorReply):
            del self._known[client, asker.request]
            self.bytes_used -= known.bytes
        else:
            known.asker, known.reply = None, reply
            if isinstance(reply, WriteManyReply):
                size = len(reply.outcomes) + STAMP_BYTES * len(reply.stamps)
                known.bytes += size
                self.bytes_used += size
                self._fit()
        return effect

    def tick(self, mono: int) -> None:
        """Let go of requests whose minute is over; the others stay in the order of time."""
        for _ in range(EXPIRED_PER_TICK):
            if self.wake_at() > mono:
                return
            self._forget(*next(iter(self._known)))

    def wake_at(self) -> int:
        """Return when the oldest request has been kept for long enough."""
        if not self._known:
            return NEVER
        return next(iter(self._known.values())).at + KEEP_NS

    def age_ns(self, mono: int) -> int:
        """Return for how long the oldest request has been kept; 0 if there is none. O(1)."""
        return mono - next(iter(self._known.values())).at if self._known else 0

    def check(self) -> None:
        """Assert the limits and the sums."""
        assert self.bytes_used <= self.bytes_max, "recent writes keep to their bytes"
        assert len(self._clients) <= self._clients_max
        assert all(len(one.table) <= REQUESTS_MAX for one in self._clients.values())
        assert all(client in self._clients for client, _request in self._known)
        requests = sum(known.bytes for known in self._known.values())
        assert self.bytes_used == requests + CLIENT_BYTES * len(self._clients)
        times = [known.at for known in self._known.values()]
        assert times == sorted(times), "the table is ordered by time"

    # -------------------------------------------------------------- inside

    def _fit(self) -> None:
        """Let the clients not heard for longest go, then the oldest requests, until all fits."""
        while len(self._clients) > self._clients_max:
            client, requests = self._clients.popitem(last=False)
            self.bytes_used -= CLIENT_BYTES
            self._fell_out = True
            for request in requests.table:
                self._remove(client, request)
        while self.bytes_used > self.bytes_max and self._known:
            self._forget(*next(iter(self._known)))

    def _forget(self, client: Client, request: int) -> None:
        """Let go of a request and of what its client sent before, which were refused."""
        requests = self._clients[client]
        gone = requests.table.index(request) + 1
        requests.floor = max(requests.floor, *requests.table[:gone])
        for number in requests.table[:gone]:
            self._remove(client, number)
        del requests.table[:gone]

    def _remove(self, client: Client, request: int) -> None:
        known = self._known.pop((client, request), None)
        if known is not None:
            self.bytes_used -= known.bytes


def _forgotten() -> ErrorReply:
    return ErrorReply(code=Code.MAYBE, text="too long ago: nobody remembers this write")
