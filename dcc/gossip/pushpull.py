"""Push/pull: whole views swapped with one member, on the request plane.

Gossip is fast and may lose; push/pull is what makes views converge for certain. A node swaps views

- with a random peer every `push_pull_interval_ns` (longer above 32 members); sooner while that
  brings news, as after joining or the healing of a partition, when rumors are many;
- by address with members that it believes dead, every `reconnect_interval_ns`: the latest to die,
  one at random, and a seed. That is how the sides of a partition find each other again however
  long it lasted: one contact suffices, gossip does the rest;
- by address with seeds that are not members, every 30 s, so that clusters merge. One of which no
  row was known since the start is *awaited*: nothing is forgotten behind its back, for as long as
  members that are down are remembered;
- by address with three peers when others may think it dead: after a standstill, or when it had to
  refute that. Repeated each period until an answer shows it alive.

Asked by address, a node answers on the connection the question came by (`joining`): the asker may
be unknown here, or believed dead, and then there is no connection the other way.

How many are served is bounded, so that a hundred nodes joining at one seed cost it little at a
time; who gets no answer asks again.

Source: hashicorp/memberlist, push/pull and `pushPullScale`; the reconnect loop is dcc's own.
"""

from __future__ import annotations

import random
from math import ceil, log2

from dcc.config import NodeConfig
from dcc.effects import Answer, Effect, Notify, Tell
from dcc.gossip.dissemination import fit
from dcc.gossip.joining import Seeds
from dcc.gossip.table import Table
from dcc.limits import FRAME_BYTES_MAX
from dcc.types import Member, NodeKey, Settings
from dcc.units import NEVER
from dcc.wire.codec import Header
from dcc.wire.messages import PushPull, PushPullReply

VIEW_BYTES = FRAME_BYTES_MAX * 3 // 4
"Rows in one push/pull; about 1,700. Larger views travel in random parts."

SCALE_FROM = 32
"Members above which push/pull becomes rarer; memberlist's."

SERVED_PER_GOSSIP_INTERVAL = 16
"Push/pulls answered in one gossip interval."

ASKED_MAX = 256
"Questions by address whose answers are still awaited."

NEWS_PERIODS = 2
"Pause after a push/pull that brought news; doubles with each that does not."

ASSERT_PEERS = 3
ASSERT_ROUNDS = 10
"Rounds of telling peers that one is alive; then the ordinary push/pull must do."


def interval_ns(base_ns: int, members: int) -> int:
    """Return the time between two push/pulls of one member.

    >>> [interval_ns(30, n) for n in (3, 32, 33, 65, 128)]
    [30, 30, 60, 90, 90]
    """
    if members <= SCALE_FROM:
        return base_ns
    return base_ns * (ceil(log2(members) - log2(SCALE_FROM)) + 1)


class PushPuller:
    """Decides when to swap views with whom."""

    def __init__(self, table: Table, seeds: Seeds, config: NodeConfig, rng: random.Random) -> None:
        self._table, self._seeds, self._rng = table, seeds, rng
        self._interval_ns = config.push_pull_interval_ns
        self._reconnect_ns = config.reconnect_interval_ns
        self._gossip_ns = config.gossip_interval_ns
        self._period_ns = config.protocol_period_ns
        self._request = rng.getrandbits(48)
        self._asked: dict[int, str] = {}
        self._forget_after_ns, self._expected_until = config.forget_after_ns, NEVER
        table.awaited.update(dict.fromkeys(a for a in config.seeds if a != table.me.request))
        self._push_pull_at = self._reconnect_at = self._seeds_at = self._assert_at = NEVER
        self._assert_rounds = 0
        self._pause_ns = NEWS_PERIODS * self._period_ns
        self._served_since, self._served = 0, 0

    # -------------------------------------------------------------- asking

    def start(self, now: int) -> None:
        """Begin the rounds of a node that has joined, at random moments."""
        self._push_pull_at = now + int((0.5 + self._rng.random()) * self._pause_ns)
        self._reconnect_at = now + int(self._rng.random() * self._reconnect_ns)
        self._seeds_at = now + int(self._rng.random() * self._interval_ns)
        self._expected_until = now + self._forget_after_ns

    def stop(self) -> None:
        """Ask nobody any more; questions are still answered."""
        self._push_pull_at = self._reconnect_at = self._seeds_at = self._assert_at = NEVER

    def assert_self(self, now: int) -> None:
        """Tell some peers at once that this node is alive, until one agrees."""
        self._assert_at, self._assert_rounds = now, ASSERT_ROUNDS

    def tick(self, now: int, settings: Settings) -> list[Effect]:
        """Return the questions that are due, and which seeds fell silent."""
        effects: list[Effect] = []
        if now >= self._seeds.attempt_at:
            effects += self._ask(self._seeds.attempt(now), settings)
            effects += self._silent_seeds(now)
        if now >= self._assert_at:
            effects += self._assert(now, settings)
        if now >= self._push_pull_at:
            self._pause_ns = min(
                2 * self._pause_ns, interval_ns(self._interval_ns, self._table.size)
            )
            self._push_pull_at = now + int((0.75 + 0.5 * self._rng.random()) * self._pause_ns)
            for key in self._table.some_peers(1, self._rng):
                effects.append(Tell(key, self._message(settings, by_address=False)))
        if now >= self._reconnect_at:
            self._reconnect_at = now + self._reconnect_ns
            effects += self._ask(self._to_reconnect(now), settings)
        if now >= self._expected_until:
            self._expected_until = NEVER
            self._table.await_nobody()
        if now >= self._seeds_at:
            self._seeds_at = now + self._interval_ns
            effects += self._ask(self._missing_seeds(ASSERT_PEERS, now), settings)
            effects += self._silent_seeds(now)
        return effects

    def wake_at(self) -> int:
        """Return when the next question is due, or NEVER."""
        return min(
            self._push_pull_at,
            self._reconnect_at,
            self._expected_until,
            self._seeds_at,
            self._assert_at,
            self._seeds.next_at(),
        )

    def learned(self, news: bool, now: int) -> None:
        """Take note of whether an answer brought news: then more may be missing."""
        if news and self._push_pull_at != NEVER:
            self._pause_ns = NEWS_PERIODS * self._period_ns
            self._push_pull_at = min(
                self._push_pull_at, now + int((0.5 + self._rng.random()) * self._pause_ns)
            )

    def _assert(self, now: int, settings: Settings) -> list[Effect]:
        self._assert_rounds -= 1
        self._assert_at = now + self._period_ns if self._assert_rounds else NEVER
        keys = self._table.some_peers(ASSERT_PEERS, self._rng)
        return self._ask([self._table.rows[key].request for key in keys], settings)

    def _to_reconnect(self, now: int) -> list[str]:
        down = self._table.down()
        if not down:
            return []
        chosen = [down[0].request, self._rng.choice(down).request, *self._missing_seeds(1, now)]
        return list(dict.fromkeys(chosen))

    def _missing_seeds(self, count: int, now: int) -> list[str]:
        rows, peers = self._table.rows, self._table.peers
        addresses = frozenset(rows[key].request for key in peers)
        return self._seeds.next_to_ask(count, addresses, frozenset(peers), now)

    def _silent_seeds(self, now: int) -> list[Effect]:
        silent = self._seeds.newly_silent(now)
        return [Notify("seed_unreachable", {"seed": address}) for address in silent]

    def _ask(self, addresses: list[str], settings: Settings) -> list[Effect]:
        effects: list[Effect] = []
        own = self._table.me.request
        for address in addresses:
            if address == own:
                continue
            self._request += 1
            self._asked[self._request] = address
            if len(self._asked) > ASKED_MAX:
                del self._asked[next(iter(self._asked))]
            message = self._message(settings, by_address=True)
            effects.append(Tell(address, message, self._request))
        return effects

    def swap_with(self, key: NodeKey, settings: Settings) -> Effect:
        """Return the offer of this node's view to one peer."""
        return Tell(key, self._message(settings, by_address=False))

    def _message(self, settings: Settings, *, by_address: bool) -> PushPull:
        return PushPull(members=self.view(), settings=settings, joining=by_address)

    # -------------------------------------------------------------- answering

    def serves(self, now: int) -> bool:
        """Return whether one more question may be answered now, and count it."""
        if now - self._served_since >= self._gossip_ns:
            self._served_since, self._served = now, 0
        self._served += 1
        return self._served <= SERVED_PER_GOSSIP_INTERVAL

    def answer(
        self, header: Header, message: PushPull, route: bytes, settings: Settings
    ) -> list[Effect]:
        """Return the answer to a push/pull, as of now, by the way that leads to the asker."""
        reply = PushPullReply(members=self.view(), settings=settings)
        if message.joining:
            return [Answer(route, reply, header.request)]
        # The connection may lead to another life than the one that asks, at another address.
        peer = self._table.rows[header.sender] if self._table.is_peer(header.sender) else None
        if peer is not None and peer.boot == header.boot:
            return [Tell(header.sender, reply, header.request)]
        if message.members and message.members[0].request != self._table.me.request:
            return [Tell(message.members[0].request, reply, header.request)]
        return []

    def view(self) -> tuple[Member, ...]:
        """Return this node's row, then the peers', then the others', as many as fit.

        Those that may not fit are behind a random starting point, so that no row is always the
        one left out. O(n).
        """
        rows, me = self._table.rows, self._table.key
        peers = [key for key in rows if self._table.is_peer(key)]
        others = [key for key in rows if key != me and not self._table.is_peer(key)]
        members = [rows[me]]
        for keys in (peers, others):
            start = int(self._rng.random() * len(keys))
            members += [rows[key] for key in keys[start:] + keys[:start]]
        return fit(members, VIEW_BYTES)

    def on_reply(self, sender: NodeKey, request: int, message: PushPullReply) -> None:
        """Take note of which seed answered, and of whether the sender believes us alive."""
        address = self._asked.pop(request, None)
        if address is not None:
            self._seeds.answered(address, sender)
            self._table.answered(address, sender)
        me = self._table.me
        if any(row == me for row in message.members):
            self._assert_at = NEVER

    def check(self) -> None:
        """Assert the bounds."""
        assert len(self._asked) <= ASKED_MAX
