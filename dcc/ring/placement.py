"""Placement: the order of all members for each slot, by weighted, zone-aware rendezvous hashing.

Rendezvous hashing: every node has a pseudo-random *cost* for every slot, and a slot's order is its
nodes by rising cost. A node's cost depends on nobody else, so when a node comes or goes all others
keep their relative order: exactly the copies of that node move.

Weights: with equal weights the cost is the draw (`hashing`). Otherwise it is E(draw) / weight,
where E turns a uniform draw into an exponential one, E = -ln(1 - draw / 2**30): the smallest of
exponential draws with rates w_i is number i with probability w_i / sum(w). E is strictly
increasing, so for equal weights both rules give the same order. It is a table of 1,025 integers
with interpolation in integers, followed by one IEEE division: no two libraries agree on the last
bit of every logarithm, and every machine must compute the same order.

Zones: a node's *round* is the number of cheaper nodes in its own zone, and the order is by round
first, by cost within a round. So the first Z members are the cheapest of each of Z zones, the next
ones the second of each zone, and so on. The first k members still change by one node at most when
one node comes or goes, whatever k: what moves up within a zone was already there or is the one
newcomer. Without zones (or with one) the order is by cost alone.

    zone a: a1 a2 a3   zone b: b1   zone c: c1 c2          (1 = cheapest of its zone)
    round 0: a1 b1 c1 by cost | round 1: a2 c2 by cost | round 2: a3

Draining nodes are not counted in rounds: leaving them out of the order gives the order without
them, so nothing moves a second time when a draining node has left.

Source: Thaler and Ravishankar, "Using name-based mappings to increase hit rates", IEEE/ACM
Transactions on Networking 6(1), 1998 (highest random weight); the weights are the logarithmic
method of Schindelhauer and Schomaker, "Weighted distributed hash tables", SPAA 2005. Rounds of
zones are ours.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from struct import pack
from typing import NamedTuple

from xxhash import xxh3_64_intdigest

from dcc.ring.hashing import BLOCK_SLOTS, DRAW_BITS, block_draws, node_draws
from dcc.types import Boot, NodeKey

NEAR_EXTRA = 3
"Members after the owners that may hold copies, as stand-ins or former owners."

_CELL_BITS = 20
_CELLS = 1 << (DRAW_BITS - _CELL_BITS)
_CELL_MASK = (1 << _CELL_BITS) - 1
# The last cell's true end is infinite; two units keep the mean of an exponential draw's tail.
_EXPONENTIAL = [
    *(round(-math.log1p(-cell / _CELLS) * (1 << DRAW_BITS)) for cell in range(_CELLS)),
    round(math.log(_CELLS) * (1 << DRAW_BITS)) + (2 << DRAW_BITS),
]


class Place(NamedTuple):
    """What placement knows of one member; every field goes into the epoch."""

    key: NodeKey
    boot: Boot
    weight: float
    "Share relative to the others; finite, above 0."
    zone: str
    "Copies go to different zones where there are enough; the empty one is a zone like any other."
    draining: bool
    "Owns nothing, but keeps its position in every order."


def epoch_of(places: Sequence[Place], replicas: int) -> int:
    """Return the 64-bit hash of all placement inputs; 0 for no places, never 0 otherwise.

    `places` are sorted by key. The hashed bytes: `replicas` (1 byte), then for each place its key
    (8, big-endian like all), boot (8), weight (IEEE double), draining (1), the length of the zone
    in bytes (2) and the zone as UTF-8.
    """
    if not places:
        return 0
    parts = [pack(">B", replicas)]
    for key, boot, weight, zone, draining in places:
        name = zone.encode()
        parts.append(pack(">QQdBH", key, boot, weight, draining, len(name)) + name)
    return xxh3_64_intdigest(b"".join(parts)) or 1


def exponential(draw: int) -> int:
    """Return -ln(1 - draw / 2**30) in units of 2**-30, strictly increasing in `draw`.

    >>> exponential(0), exponential(1 << 29) / (1 << 30)
    (0, 0.6931471806019545)
    """
    cell = draw >> _CELL_BITS
    low = _EXPONENTIAL[cell]
    # Each step of the table is at least 2**20, so neighbouring draws stay apart.
    return low + ((_EXPONENTIAL[cell + 1] - low) * (draw & _CELL_MASK) >> _CELL_BITS)


class Ranked(NamedTuple):
    """One slot's order: positions in `Ranking.keys`, best first, and the cost of each position."""

    slot: int
    order: list[int]
    costs: Sequence[float]


class Ranking:
    """Ranks one set of places for any slot. Immutable, and holds no table of slots."""

    def __init__(self, places: Sequence[Place], replicas: int) -> None:
        """Prepare for `places`, sorted by key, each key once."""
        self.replicas = replicas
        self.keys: list[NodeKey] = [place.key for place in places]
        self.draining = frozenset(place.key for place in places if place.draining)
        self.weighted = len({place.weight for place in places}) > 1
        self.owner_count = min(replicas + 1, len(places) - len(self.draining))
        self._weights = [place.weight for place in places]
        self._drains = [place.draining for place in places]
        numbers = {zone: number for number, zone in enumerate(sorted({p.zone for p in places}))}
        self._zones = [numbers[place.zone] for place in places]
        self._zone_count = len(numbers)

    def rank(self, slots: Iterable[int]) -> Iterator[Ranked]:
        """Yield the order of each slot; cheapest when the slots ascend.

        Complexity: O(n log n) a slot for n places.
        """
        positions = range(len(self.keys))
        block, draws = -1, list[int]()
        for slot in slots:
            if slot // BLOCK_SLOTS != block:
                block = slot // BLOCK_SLOTS
                draws = block_draws(block, self.keys)
            costs: list[int] | list[float] = draws[slot % BLOCK_SLOTS :: BLOCK_SLOTS]
            if self.weighted:
                costs = [exponential(d) / w for d, w in zip(costs, self._weights, strict=True)]
            # Sorting is stable: of equal costs the smaller key comes first.
            order = sorted(positions, key=costs.__getitem__)
            if self._zone_count > 1:
                self._take_rounds(order)
            yield Ranked(slot, order, costs)

    def costs_of(self, place: Place) -> Sequence[float]:
        """Return the cost of one of the places for every slot."""
        draws = node_draws(place.key)
        return [exponential(d) / place.weight for d in draws] if self.weighted else draws

    def near(self, ranked: Ranked) -> tuple[NodeKey, ...]:
        """Return the members up to the last owner and the `NEAR_EXTRA` after it.

        Without any owner: the first replicas + 1 + NEAR_EXTRA.
        """
        count = self.replicas + 1
        if self.draining:
            owned = [at for at, index in enumerate(ranked.order) if not self._drains[index]]
            count = owned[self.owner_count - 1] + 1 if owned else count
        keys = self.keys
        return tuple([keys[index] for index in ranked.order[: count + NEAR_EXTRA]])

    def bound(self, ranked: Ranked, count: int) -> float:
        """Return the largest cost among the first `count` members, 0 if there are none."""
        costs = ranked.costs
        if self._zone_count == 1:
            return costs[ranked.order[count - 1]]
        return max([costs[index] for index in ranked.order[:count]], default=0)

    def owners(self, near: tuple[NodeKey, ...]) -> tuple[NodeKey, ...]:
        """Return the owners in a near set of this ranking."""
        if self.draining:
            near = tuple([key for key in near if key not in self.draining])
        return near[: self.owner_count]

    def _take_rounds(self, order: list[int]) -> None:
        """Sort an order by cost into one by round, then cost."""
        ahead = [0] * self._zone_count
        rounds = [0] * len(order)
        zones, drains = self._zones, self._drains
        for index in order:
            zone = zones[index]
            rounds[index] = ahead[zone]
            if not drains[index]:
                ahead[zone] += 1
        order.sort(key=rounds.__getitem__)
