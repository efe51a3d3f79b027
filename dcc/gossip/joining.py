"""Seeds and founding: how a node finds its cluster, or decides that it is the first of one.

A node asks its seeds by address (push/pull), at once and then after growing random pauses, and has
joined when somebody answers who belongs to a founded cluster (`replicas_stamp` above 0). It founds
one itself

- at once, if it has no seeds, or none but itself;
- one period after it found another joining node, if no cluster answered meanwhile;
- after `found_alone_ns`, if it is among its own seeds and heard from nobody.

Several may found at once: founding writes the constant `FOUNDED_STAMP`, which beats a start option
and loses to every count that was set on purpose, and seeds that are not known as members are asked
again for ever, so that such clusters merge.

A seed may be this node under another address; an answer from itself tells.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from dcc.config import NodeConfig
from dcc.types import NodeKey
from dcc.units import MILLISECOND, NEVER, SECOND

FOUNDED_STAMP = 1
"`replicas_stamp` of a cluster whose count of copies is still its founder's start option."

ATTEMPT_SEEDS = 3
"Seeds asked in one attempt."

SILENT_PERIODS = 3
"A seed without an answer for this long is reported; a busy one takes about one."

FIRST_PAUSE_NS = 100 * MILLISECOND
LONGEST_PAUSE_NS = 5 * SECOND


@dataclass(slots=True)
class _Seed:
    address: str
    key: NodeKey | None = None
    "Of the node that answered there last; None = nobody ever did."
    silent_since: int = NEVER
    "When it was first asked without an answer since."
    reported: bool = False


class Seeds:
    """The seeds of one node, and its way into a cluster."""

    def __init__(self, config: NodeConfig, own_key: NodeKey, rng: random.Random) -> None:
        self._seeds = [_Seed(address) for address in dict.fromkeys(config.seeds)]
        self._own_address, self._own_key, self._rng = config.request, own_key, rng
        self._period_ns, self._found_alone_ns = config.protocol_period_ns, config.found_alone_ns
        self._pause_ns = FIRST_PAUSE_NS
        self._turn = 0
        self._alone_at = NEVER
        self._form_at = NEVER
        self.attempt_at: int = NEVER

    def start(self, now: int) -> None:
        """Begin to join. Founding is due at once if there is nobody to ask."""
        self._rng.shuffle(self._seeds)
        self.attempt_at = now
        others = [seed for seed in self._seeds if seed.address != self._own_address]
        self._alone_at = now if not others else now + self._found_alone_ns

    def stop(self) -> None:
        """The node has joined, or leaves: no further attempts."""
        self.attempt_at = self._alone_at = self._form_at = NEVER

    def attempt(self, now: int) -> list[str]:
        """Return the addresses to ask now, and plan the next attempt."""
        jitter = 0.5 + self._rng.random()
        self.attempt_at = now + int(self._pause_ns * jitter)
        self._pause_ns = min(2 * self._pause_ns, LONGEST_PAUSE_NS)
        return self.next_to_ask(ATTEMPT_SEEDS, frozenset(), frozenset(), now)

    def next_to_ask(
        self, count: int, addresses: frozenset[str], keys: frozenset[NodeKey], now: int
    ) -> list[str]:
        """Return up to `count` seeds in turn that are neither this node nor a known peer.

        Args:
            addresses: request addresses of peers.
            keys: keys of peers, for seeds that are known under another address.
        """
        chosen: list[str] = []
        for _ in range(len(self._seeds)):
            seed = self._seeds[self._turn % len(self._seeds)]
            self._turn += 1
            if seed.address in addresses or seed.key in keys:
                seed.silent_since = NEVER
            elif not self._is_me(seed):
                seed.silent_since = min(seed.silent_since, now)
                chosen.append(seed.address)
                if len(chosen) == count:
                    break
        return chosen

    def answered(self, address: str, key: NodeKey) -> None:
        """Take note of who answered at a seed's address."""
        for seed in self._seeds:
            if seed.address == address:
                seed.key, seed.silent_since, seed.reported = key, NEVER, False

    def newly_silent(self, now: int) -> list[str]:
        """Return seeds that have not answered for some periods; each once until it answers."""
        silent = [
            seed
            for seed in self._seeds
            if not seed.reported and now - seed.silent_since >= SILENT_PERIODS * self._period_ns
        ]
        for seed in silent:
            seed.reported = True
        return [seed.address for seed in silent]

    def found_joiner(self, now: int) -> None:
        """Another joining node was heard from: form a cluster with it, unless there is one."""
        self._form_at = min(self._form_at, now + self._period_ns)

    def postpone(self, now: int) -> None:
        """Found nothing for a period: somebody is still being asked."""
        later = now + self._period_ns
        self._alone_at = self._alone_at if self._alone_at == NEVER else max(self._alone_at, later)
        self._form_at = self._form_at if self._form_at == NEVER else max(self._form_at, later)

    def founds(self, now: int) -> bool:
        """Return whether this node is to found a cluster now."""
        return now >= self._founds_at()

    @property
    def only_me(self) -> bool:
        """Whether there are seeds, and all of them lead to this very node."""
        return bool(self._seeds) and all(self._is_me(seed) for seed in self._seeds)

    def next_at(self) -> int:
        """Return when the next attempt or the founding is due, or NEVER."""
        return min(self.attempt_at, self._founds_at())

    def _founds_at(self) -> int:
        if self._alone_at == NEVER:
            return self._form_at
        among = not self._seeds or any(self._is_me(seed) for seed in self._seeds)
        return min(self._form_at, self._alone_at) if among else self._form_at

    def _is_me(self, seed: _Seed) -> bool:
        return seed.address == self._own_address or seed.key == self._own_key
