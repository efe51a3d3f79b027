"""Placement: the order of all members for each slot, by weighted, zone-aware rendezvous hashing.

Rendezvous hashing: every node has a pseudo-random *cost* for every slot, and a slot's order is its
nodes by rising cost. A node's cost depends on nobody else, so when a node comes or goes all others
keep their relative order: exactly the copies of that node move.

Weights: with equal weights the cost is the draw (`hashing`). Otherwise it is E(draw) / weight,
where E turns a uniform draw into an exponential one, E = -ln(1 - draw / 2**64): the smallest of
exponential draws with rates w_i is number i with probability w_i / sum(w). E rises with the draw,
so among equal weights both rules give the same order. E is a table of 1,025 integers with exact
interpolation, followed by one IEEE division: libraries differ in the last bit of a logarithm, but
every machine must compute the same order.

Zones: a node's *round* is the number of cheaper nodes in its own zone, and the order is by round
first, by cost within a round. So the first Z members are the cheapest of each of Z zones, the next
ones the second of each zone, and so on. The first k members still change by one node at most when
one node comes or goes, whatever k: what moves up within a zone was already there or is the one
newcomer. With one zone the order is by cost alone.

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
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from struct import pack
from typing import NamedTuple

from xxhash import xxh3_64_intdigest

from dcc.ring.hashing import node_draws, slot_draws
from dcc.types import Boot, Member, NodeKey

Keys = tuple[NodeKey, ...]

NEAR_EXTRA = 3
"Members after the owners that may hold copies, as stand-ins or former owners."

_CELLS = 1 << 10
_CELL_SHIFT = 64 - 10
_FINE_BITS = 26
_FINE_SHIFT = _CELL_SHIFT - _FINE_BITS
_FINE_MASK = (1 << _FINE_BITS) - 1
# In units of 2**-23, and so coarse that no library's last bits can change an entry (tested).
_ENTRIES = [round(-math.log1p(-cell / _CELLS) * (1 << 23)) for cell in range(_CELLS)]
# The last cell's true end is infinite; two more keep the mean of the exponential's tail.
_ENTRIES.append(_ENTRIES[-1] + (2 << 23))
# Floats, for Python is quicker with them; every sum and product of them stays an integer < 2**53.
_LOWS = [float(entry << _FINE_BITS) for entry in _ENTRIES]
_STEPS = [float(high - low) for low, high in pairwise(_ENTRIES)]


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
    follows: bool = False
    "Owns slots like any other, but comes behind the other owners in every route."


def place_of(member: Member) -> Place:
    """Return what placement knows of a member of the ring."""
    return Place(
        member.key, member.boot, member.weight, member.zone, member.draining, member.follows
    )


def epoch_of(places: Sequence[Place], replicas: int) -> int:
    """Return the 64-bit hash of all placement inputs; 0 for no places, never 0 otherwise.

    `places` are sorted by key. The hashed bytes: `replicas` (1 byte), then for each place its key
    (8, big-endian like all), boot (8), weight (IEEE double), flags (1: draining 1, follows 2), the
    length of the zone in bytes (2) and the zone as UTF-8.
    """
    if not places:
        return 0
    parts = [pack(">B", replicas)]
    for key, boot, weight, zone, draining, follows in places:
        name = zone.encode()
        parts.append(pack(">QQdBH", key, boot, weight, draining | follows << 1, len(name)) + name)
    return xxh3_64_intdigest(b"".join(parts)) or 1


class Ranking:
    """Ranks one set of places for any slot. Immutable, and holds no table of slots."""

    def __init__(self, places: Sequence[Place], replicas: int) -> None:
        """Prepare for `places`, sorted by key, each key once."""
        self.replicas = replicas
        self.keys: list[NodeKey] = [place.key for place in places]
        self.draining: frozenset[NodeKey] = frozenset(
            place.key for place in places if place.draining
        )
        self.weighted: bool = len({place.weight for place in places}) > 1
        self.owner_count: int = min(replicas + 1, len(places) - len(self.draining))
        self._weights = [place.weight for place in places]
        self._drains = [place.draining for place in places]
        zones = Counter(place.zone for place in places)
        numbers = {zone: number for number, zone in enumerate(zones)}
        self._zones = [numbers[place.zone] for place in places]
        self._zone_count = len(zones)
        sizes = list(zones.values())
        self._all = [len(places)] * (max(sizes, default=0) + 1)
        self._first = _quotas(sizes, replicas + 1 + NEAR_EXTRA)
        self._cut = self._sorting_cut(sizes)

    def order(self, slot: int) -> Keys:
        """Return all nodes, best first. Complexity: O(n log n) for n nodes."""
        # Sorting is stable: of equal costs the smaller key comes first.
        by_cost = sorted(range(len(self.keys)), key=self._costs(slot).__getitem__)
        return tuple([self.keys[position] for position in self._by_rounds(by_cost, self._all)])

    def nears(self, slots: Iterable[int]) -> Iterator[tuple[int, Keys, float]]:
        """Yield each slot, the start of its order that is near it, and the largest cost there.

        Near are the nodes up to the last owner and the `NEAR_EXTRA` after it; without any owner
        the first replicas + 1 + NEAR_EXTRA. Complexity: O(n log n) a slot for n nodes.
        """
        keys, positions, cut = self.keys, range(len(self.keys)), self._cut
        full = min(len(keys), self.replicas + 1 + NEAR_EXTRA)
        for slot in slots:
            costs = self._costs(slot)
            some = [at for at, cost in enumerate(costs) if cost < cut] if cut else positions
            near = self._near(sorted(some, key=costs.__getitem__))
            if cut and len(near) < full:
                near = self._near(sorted(positions, key=costs.__getitem__))
            if self._zone_count == 1:
                bound = costs[near[-1]]
            else:
                bound = max([costs[position] for position in near], default=0)
            yield slot, tuple([keys[position] for position in near]), bound

    @property
    def by_cost(self) -> bool:
        """Whether a near set is made of the cheapest: no zones, weights or draining nodes."""
        return self._zone_count == 1 and not self.weighted and not self.draining

    def nears_grown(
        self, slots: Iterable[int], nears: Sequence[Keys | None], came: Keys
    ) -> Iterator[tuple[int, Keys, float]]:
        """Yield what `nears` would, from the near sets before nodes came; only `by_cost`.

        Who was not near before cannot be near now. Complexity: O(m log m) a slot, where m is the
        size of its near set and the number of nodes that came.
        """
        full = min(len(self.keys), self.replicas + 1 + NEAR_EXTRA)
        for slot in slots:
            keys = (*(nears[slot] or ()), *came)
            # Of equal costs the smaller key comes first.
            cheapest = sorted(zip(slot_draws(slot, keys), keys, strict=True))[:full]
            yield slot, tuple([key for _, key in cheapest]), cheapest[-1][0]

    def owners(self, near: Keys) -> Keys:
        """Return the owners in a near set of this ranking."""
        if self.draining:
            near = tuple([key for key in near if key not in self.draining])
        return near[: self.owner_count]

    def costs_of(self, place: Place) -> Sequence[float]:
        """Return the cost of one of the places for every slot."""
        draws = node_draws(place.key)
        return weigh(draws, [place.weight] * len(draws)) if self.weighted else draws

    def _costs(self, slot: int) -> Sequence[float]:
        draws = slot_draws(slot, self.keys)
        return weigh(draws, self._weights) if self.weighted else draws

    def _near(self, by_cost: list[int]) -> list[int]:
        if not self.draining:
            return self._by_rounds(by_cost, self._first)[: self.replicas + 1 + NEAR_EXTRA]
        order = self._by_rounds(by_cost, self._all)
        owned = [at for at, position in enumerate(order) if not self._drains[position]]
        count = owned[self.owner_count - 1] + 1 if owned else self.replicas + 1
        return order[: count + NEAR_EXTRA]

    def _sorting_cut(self, sizes: list[int]) -> float:
        """Return a cost below which a near set nearly always lies; 0 if not worth looking.

        Most of building a table is sorting, and of many nodes only the cheapest matter.
        """
        # Each zone gives at most one node to each round. Twice that and three more are enough for
        # all but one slot in a hundred; those sort everything.
        share = (2 * len(self._first) + 3) / min(sizes, default=1)
        if share > 0.5 or self.draining:
            return 0
        if self.weighted:
            return share * 2.0**49 * len(self.keys) / sum(self._weights)
        return int(share * 2.0**64)

    def _by_rounds(self, by_cost: list[int], quotas: list[int]) -> list[int]:
        """Return the cheapest `quotas[r]` nodes of each round r, round by round, or more."""
        if self._zone_count == 1:
            return by_cost
        ahead = [0] * self._zone_count
        rounds: list[list[int]] = [[] for _ in quotas]
        missing = min(sum(quotas), len(by_cost))
        zones, drains = self._zones, self._drains
        for position in by_cost:
            zone = zones[position]
            turn = ahead[zone]
            if not drains[position]:
                ahead[zone] = turn + 1
            if turn < len(quotas) and len(rounds[turn]) < quotas[turn]:
                rounds[turn].append(position)
                missing -= 1
                if not missing:
                    break
        return [position for members in rounds for position in members]


def weigh(draws: Iterable[int], weights: Iterable[float]) -> list[float]:
    """Return the costs of draws for nodes of these weights: exponential draws / weight.

    The exponential draw -ln(1 - draw / 2**64) is in units of 2**-49, from the upper 36 bits.

    >>> [cost / (1 << 49) for cost in weigh([0, 1 << 63, 1 << 63], [1.0, 1.0, 2.0])]
    [0.0, 0.6931471824645996, 0.3465735912322998]
    """
    return [
        (_LOWS[cell := draw >> _CELL_SHIFT] + _STEPS[cell] * (draw >> _FINE_SHIFT & _FINE_MASK))
        / weight
        for draw, weight in zip(draws, weights, strict=True)
    ]


def _quotas(sizes: list[int], count: int) -> list[int]:
    """Return how many of the first `count` nodes are of each round, for zones of these sizes."""
    quotas: list[int] = []
    for turn in range(max(sizes, default=0)):
        if count <= 0:
            break
        quotas.append(min(count, sum(1 for size in sizes if size > turn)))
        count -= quotas[-1]
    return quotas
