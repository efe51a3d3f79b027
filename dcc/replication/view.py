"""One node's view of which member holds what: the slot map with the members' liveness laid over it.

The slot map is a pure function of the members in the ring; liveness only decides who stands in
for whom. Both change rarely and are asked on every request, so routes are kept per slot and
thrown away whole at a change.

The view also remembers *since when* it has been what it is, per slot and per member: that is
what "in sync" is measured against (see `sync`).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from itertools import compress
from typing import NamedTuple

from dcc.limits import SLOT_COUNT
from dcc.ring.placement import place_of
from dcc.ring.slots import SlotMap
from dcc.types import Boot, Member, NodeKey, Origin, Stamp, Standing


class ViewChange(NamedTuple):
    """What an update changed; all empty when nothing did."""

    slots: Sequence[int]
    "Slots whose owners or next three members changed, ascending."
    risen: tuple[NodeKey, ...]
    "Members alive now that were not before (or are in another boot), ascending."
    fallen: tuple[NodeKey, ...]
    "Members no longer alive, ascending."

    led: tuple[int, ...] = ()
    "Slots that this node has begun to lead, ascending."
    reordered: bool = False
    "Whether a member has come to follow, so that others lead its slots, or follows no more."
    met: tuple[NodeKey, ...] = ()
    """Members with data that were not alive for this node until now, as after a partition; members
    that fill have none, unless they joined others that did not see this node."""

    @property
    def missed(self) -> bool:
        """Whether others may have written what is not here: members met, or that led before."""
        return bool(self.met or self.led)

    @property
    def any(self) -> bool:
        """Whether anything changed."""
        return bool(self.slots or self.risen or self.fallen or self.reordered)


class View:
    """Placement and liveness as this node believes them."""

    def __init__(self, me: NodeKey) -> None:
        self.me = me
        self.slots: SlotMap = SlotMap()
        self.alive: frozenset[NodeKey] = frozenset((me,))
        self.boots: dict[NodeKey, Boot] = {}
        "Boot of every member in the ring."
        self.births: dict[Origin, Stamp] = {}
        "Above which stamp members of the table began to write, where they have said so."
        self.holder_since: array[int] = array("q", bytes(8 * SLOT_COUNT))
        "Monotonic ns of the last change of the slot's `near` members."
        self.alive_since: dict[NodeKey, int] = {}
        "Monotonic ns since when a member has been alive in its present boot."
        self.all_up: bool = True
        "Whether no remembered member is down, those removed from the ring included."
        self.awaiting: bool = False
        "Whether there may be members that were unknown so far; set before `update`."
        self.accused: bool = False
        "Whether others did not see this node, and it has met none of them yet; as the above."
        self.complete: bool = True
        "Whether besides nobody is awaited whom this node has not met since it started."
        self.complete_since: int = 0
        "Monotonic ns since when that has been so."
        self.remembered: frozenset[NodeKey] = frozenset()
        "All other members that have a row, whatever their standing."
        self.down: frozenset[NodeKey] = frozenset()
        "Those of them that are neither alive nor have left: they may come back with data."
        self.filling: frozenset[NodeKey] = frozenset()
        "Members that have not pulled all their slots yet."
        self.following: frozenset[NodeKey] = frozenset()
        "Members that come after the other owners: those filling, and those that are slow."
        self.slow: frozenset[NodeKey] = frozenset()
        "Those of them that the others found many times slower than the rest."
        self._draining: frozenset[NodeKey] = frozenset()
        self._full: tuple[NodeKey, ...] = ()
        "Members that are neither filling nor draining, ascending."
        self.owned: tuple[int, ...] = ()
        "Slots that this node owns, ascending."
        self._mine = bytearray(SLOT_COUNT)
        self._led = bytearray(SLOT_COUNT)
        self._routes: dict[int, tuple[NodeKey, ...]] = {}

    @property
    def epoch(self) -> int:
        """Hash of the placement inputs; comparable for equality only."""
        return self.slots.epoch

    def epoch_for(self, to: NodeKey | str) -> int:
        """Return the epoch that a message to `to` carries: 0, nobody's, to a member that is down.

        It lives, since it asks, and has refuted what is believed here or is about to. Until that
        was heard what is written here is not sent to it; so it must not take this view for its
        own, and be in sync by what it is told.
        """
        return 0 if to in self.boots and to not in self.alive else self.epoch

    @property
    def replicas(self) -> int:
        """Copies beyond the primary."""
        return self.slots.replicas

    def update(self, members: Mapping[NodeKey, Member], replicas: int, mono: int) -> ViewChange:
        """Take the merged member table; O(slots that changed), or O(members) when none did."""
        ring = {key: member for key, member in members.items() if member.in_ring}
        slots = self.slots.update([place_of(member) for member in ring.values()], replicas)
        filling = frozenset([key for key, member in ring.items() if member.filling])
        following = frozenset([key for key, member in ring.items() if member.follows])
        reordered = (filling, following) != (self.filling, self.following)
        self._draining = frozenset([key for key, member in ring.items() if member.draining])
        self._full = tuple(sorted(ring.keys() - filling - self._draining))
        self.filling, self.following = filling, following
        self.slow = frozenset([key for key, member in ring.items() if member.slow])
        for slot in slots:
            self.holder_since[slot] = mono
        if slots:
            self._take_owned(slots)
        all_up = all(m.standing in (Standing.ALIVE, Standing.LEFT) for m in members.values())
        complete = all_up and not self.awaiting
        if complete and not self.complete:
            self.complete_since = mono
        self.complete = complete
        self.all_up = all_up
        self.births = {
            (key, m.boot): m.stamps_above for key, m in members.items() if m.stamps_above
        }
        alive = {key: m.boot for key, m in ring.items() if m.standing is Standing.ALIVE}
        alive.setdefault(self.me, 0)
        risen = tuple(
            sorted(k for k, b in alive.items() if k not in self.alive or self.boots.get(k) != b)
        )
        fallen = tuple(sorted(self.alive - alive.keys()))
        self.boots = {key: member.boot for key, member in ring.items()}
        for key in risen:
            self.alive_since[key] = mono
        for key in fallen:
            self.alive_since.pop(key, None)
        self.alive = frozenset(alive)
        others = [(key, m) for key, m in members.items() if key != self.me]
        self.remembered = frozenset([key for key, _ in others])
        self.down = frozenset([
            key for key, m in others if key not in alive and m.standing is not Standing.LEFT
        ])  # fmt: skip
        met = tuple([k for k in risen if k != self.me and (self.accused or k not in filling)])
        self.accused = self.accused and not met
        change = ViewChange(slots, risen, fallen, reordered=reordered, met=met)
        if not change.any:
            return change
        self._routes = {}
        return change._replace(led=self._take_lead(mono))

    def former(self, slot: int) -> tuple[NodeKey, ...]:
        """Return the owners of `slot` if nobody were filling, except those already near it.

        Many members that come at once can push a former owner out of the near places. O(1) unless
        that many come to a cluster that has more full members than copies.
        """
        filling, wanted = self.filling, self.replicas + 1
        if not filling:
            return ()
        if len(self._full) <= wanted:  # Each of them owned everything.
            near = self.slots.near(slot)
            return tuple([key for key in self._full if key not in near])
        full = [key for key in self.slots.near(slot) if key not in filling]
        if len(full) - sum(key in self._draining for key in full) >= wanted:
            return ()
        owned = [k for k in self.slots.order(slot) if k not in filling and k not in self._draining]
        return tuple([key for key in owned[:wanted] if key not in full])

    def _take_lead(self, mono: int) -> tuple[int, ...]:
        """Return the slots that this node has just begun to lead.

        The primary before it may have stopped between one copy and the next, so a new primary is
        in sync with nobody until it has pulled again.
        """
        led, mine, me = self._led, self.owned, self.me
        primary, alive = self.slots.primary, self.alive
        leads = [primary(slot, alive) == me for slot in mine]
        new = tuple([s for s, lead in zip(mine, leads, strict=True) if lead and not led[s]])
        self._led = bytearray(SLOT_COUNT)
        for slot, lead in zip(mine, leads, strict=True):
            self._led[slot] = lead
        for slot in new:
            self.holder_since[slot] = mono
        return new

    def _take_owned(self, slots: Sequence[int]) -> None:
        owners, me, mine = self.slots.owners, self.me, self._mine
        for slot in slots:
            mine[slot] = me in owners(slot)
        self.owned = tuple(compress(range(SLOT_COUNT), mine))

    def route(self, slot: int) -> tuple[NodeKey, ...]:
        """Return the live targets of `slot`: owners, stand-ins for those down; [0] is primary.

        Empty when no member that may own slots is alive. Amortised O(1).
        """
        found = self._routes.get(slot)
        if found is None:
            found = self._routes[slot] = self.slots.route(slot, self.alive)
        return found

    def is_primary(self, slot: int) -> bool:
        """Return whether this node is the first live node of the slot's order."""
        return self.route(slot)[:1] == (self.me,)

    def all_primary(self, slots: Iterable[int]) -> bool:
        """Return whether this node is the primary of each of `slots`."""
        routes, route, me = self._routes, self.route, self.me
        for slot in slots:
            targets = routes.get(slot) or route(slot)
            if not targets or targets[0] != me:
                return False
        return True

    def all_held(self, slots: Iterable[int]) -> bool:
        """Return whether this node is one of the live targets of each of `slots`."""
        return all(self.me in self.route(slot) for slot in slots)

    def owns(self, slot: int) -> bool:
        """Return whether this node is an owner, alive or not being the question of others."""
        return bool(self._mine[slot])

    def holds(self, slot: int) -> bool:
        """Return whether this node is an owner or stands in for one."""
        return self.owns(slot) or self.me in self.route(slot)
