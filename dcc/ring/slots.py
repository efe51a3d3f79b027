"""The table of slots: who owns each, who is near it, and where a request goes.

The table keeps per slot its *near* set: the start of the order, up to the last owner and three
members more. It answers nearly every question; whole orders are computed when asked for and kept
within a bound. About 2 MB, whatever the number of members.

An update recomputes only slots that the change can reach. Nobody before a node in a slot's order
depends on it, so a node that is not near a slot can go without touching it. A node that comes can
enter a near set only by costing no more than the set's most expensive member, provided that its
zone already has as many undrained nodes as a near set may have; if not, its place is decided by
zones, not by cost, and every slot is computed. The filter may pass slots that do not change, never
miss one that does: the result is always what a new map would compute.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Sequence
from itertools import compress
from operator import ge

from dcc.limits import REPLICAS_MAX, SLOT_COUNT
from dcc.ring.placement import NEAR_EXTRA, Keys, Place, Ranking, epoch_of
from dcc.types import NodeKey

ORDER_ENTRIES_MAX = 2_000_000
"Node keys in whole orders kept, 16 MB: every slot at 100 members, 488 slots at 4,096."


class SlotMap:
    """Owners, neighbours and routes of every slot: a pure function of places and replicas.

    A lazy map computes a slot when it is first asked for: for a client, which needs few.
    """

    __slots__ = (
        "_bounds", "_following", "_lazy", "_near", "_orders", "_places", "_ranking", "epoch",
        "replicas",
    )  # fmt: skip

    def __init__(self, *, lazy: bool = False) -> None:
        """Start empty: epoch 0, nobody owns anything."""
        self.epoch: int = 0
        "64-bit hash of places and replicas; 0 while there are no places."
        self.replicas: int = 0
        "Copies beyond the primary."
        self._lazy = lazy
        self._places: dict[NodeKey, Place] = {}
        self._following: frozenset[NodeKey] = frozenset()
        self._ranking = Ranking([], 0)
        self._near: list[Keys | None] = [()] * SLOT_COUNT
        # Cost of the most expensive member of each near set; a lazy map needs none.
        self._bounds: list[float] = [] if lazy else [0] * SLOT_COUNT
        self._orders: dict[int, Keys] = {}

    def update(self, places: Iterable[Place], replicas: int) -> Sequence[int]:
        """Take over new places; return the slots whose owners or near set changed, ascending.

        A lazy map does not compare: it returns all slots, or none if nothing moved. Boots and
        `follows` move nothing; the latter changes routes.

        Complexity: about 2 ms and 15 µs for each slot that one node's coming or going can reach;
        at most as long as building the table from nothing, 0.2 to 0.4 s at 100 places.
        """
        assert 0 <= replicas <= REPLICAS_MAX, f"replicas {replicas}"
        table = sorted(places)
        fresh = {place.key: place for place in table}
        assert len(fresh) == len(table), "every key once"
        self.epoch = epoch_of(table, replicas)
        before, self._places = self._places, fresh
        self._following = frozenset([place.key for place in table if place.follows])
        gone = {key for key, place in before.items() if not _alike(place, fresh.get(key))}
        came = [place for place in table if not _alike(place, before.get(place.key))]
        if not gone and not came and replicas == self.replicas:
            return ()
        past, self._ranking = self._ranking, Ranking(table, replicas)
        self.replicas = replicas
        self._orders.clear()
        if self._lazy:
            self._near = [None] * SLOT_COUNT
            return range(SLOT_COUNT)
        slots = self._reach(gone, came, past)
        if gone or 2 * len(came) > len(table) or not self._grows_by_cost(past):
            return self._recompute(self._ranking.nears(slots), past)
        keys = tuple([place.key for place in came])
        return self._recompute(self._ranking.nears_grown(slots, self._near, keys), past)

    def owners(self, slot: int) -> Keys:
        """Return the first replicas + 1 members that are not draining; fewer if there are fewer."""
        return self._ranking.owners(self.near(slot))

    def near(self, slot: int) -> Keys:
        """Return the start of the order up to the last owner and the three members after it.

        Draining members keep their position in it. Without any owner: the first replicas + 4.
        """
        near = self._near[slot]
        if near is None:
            ((_, near, _),) = self._ranking.nears((slot,))
            self._near[slot] = near
        return near

    def order(self, slot: int) -> Keys:
        """Return all members, best first; draining ones keep their position.

        Complexity: O(1) once computed, O(n log n) for n members the first time.
        """
        order = self._orders.get(slot)
        if order is None:
            order = self._ranking.order(slot)
            if len(self._orders) * len(order) >= ORDER_ENTRIES_MAX:
                self._orders.clear()
            self._orders[slot] = order
        return order

    def route(self, slot: int, alive: Container[NodeKey]) -> Keys:
        """Return the live owners and a stand-in for every other owner; [0] is the primary.

        A stand-in is the next live member of the order that is not draining. The result keeps the
        order, but for owners that follow: they come behind the other owners. It is shorter
        where there are not enough such members; empty if there are none.
        """
        draining, wanted = self._ranking.draining, self._ranking.owner_count
        live = [key for key in self.near(slot) if key in alive and key not in draining]
        if len(live) < wanted:
            live = [key for key in self.order(slot) if key in alive and key not in draining]
        del live[wanted:]
        if not self._following.isdisjoint(live):
            owners = self.owners(slot)
            live.sort(key=lambda key: (key not in owners, key in owners and key in self._following))
        return tuple(live)

    def primary(self, slot: int, alive: Container[NodeKey]) -> NodeKey | None:
        """Return `route(slot, alive)[0]` without making the route; None if that is empty."""
        draining, following = self._ranking.draining, self._following
        for key in self.near(slot):
            if key in alive and key not in draining:
                if key in following:
                    break  # Another owner may come first.
                return key
        return next(iter(self.route(slot, alive)), None)

    def _reach(self, gone: set[NodeKey], came: list[Place], past: Ranking) -> Sequence[int]:
        """Return the slots, ascending, whose near set or owners the change may alter."""
        ranking = self._ranking
        size = self.replicas + 1 + NEAR_EXTRA
        new = {place.key for place in came}
        stayed = Counter(
            place.zone
            for place in self._places.values()
            if place.key not in new and not place.draining
        )
        if (
            self.replicas != past.replicas
            or ranking.weighted != past.weighted
            or any(stayed[place.zone] < size for place in came)
            # So many that nearly every slot is reached: looking costs more than it saves.
            or len(came) * size >= len(self._places)
        ):
            return range(SLOT_COUNT)
        reached = bytearray(SLOT_COUNT)
        if gone:
            for slot, near in enumerate(self._near):
                if near is None or not gone.isdisjoint(near):
                    reached[slot] = 1
        for place in came:
            for slot in compress(range(SLOT_COUNT), map(ge, self._bounds, ranking.costs_of(place))):
                reached[slot] = 1
        return list(compress(range(SLOT_COUNT), reached))

    def _grows_by_cost(self, past: Ranking) -> bool:
        """Return whether a near set follows from the one before and those that came."""
        return self.replicas == past.replicas and past.by_cost and self._ranking.by_cost

    def _recompute(self, fresh: Iterable[tuple[int, Keys, float]], past: Ranking) -> list[int]:
        """Fill in `fresh` slots, near sets and bounds; return the slots that differ from before."""
        ranking, nears, bounds = self._ranking, self._near, self._bounds
        # Otherwise the owners are the first of the near set, and comparing that is enough.
        compare_owners = past.draining != ranking.draining or past.replicas != ranking.replicas
        changed = []
        for slot, near, bound in fresh:
            old, nears[slot], bounds[slot] = nears[slot], near, bound
            assert old is not None
            if near != old or (compare_owners and ranking.owners(near) != past.owners(old)):
                changed.append(slot)
        return changed


def _alike(place: Place, other: Place | None) -> bool:
    # A new boot and following are another epoch, but move nothing.
    return other is not None and place == other._replace(boot=place.boot, follows=place.follows)
