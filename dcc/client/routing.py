"""Where a key's requests go: one topology as slot -> addresses, and which addresses fail lately.

A `View` is made from one `Topology` answer and never changes, so threads swap it by assignment.
It computes a slot's order when the slot is first needed and keeps the primary's address, which
is all that the hot path looks up.

Targets of a key, best first: the live owners (with stand-ins in place of owners that are not
alive; the first is the primary), then live members near them in the order, then those not alive.
An owner that is asked because an earlier one was skipped is asked *directly*: it must not forward
to the node that was found silent. A member that is no owner is asked to forward, which helps
where this client cannot reach the owners but others can.

`Health` is this client's own experience and counts before the topology: an address that failed
is put behind all others until it answers anything, and is probed after growing pauses.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dcc.limits import SLOT_COUNT
from dcc.ring.hashing import slot_of
from dcc.ring.placement import place_of
from dcc.ring.slots import SlotMap
from dcc.types import Boot, Member, NodeKey, Settings, Standing
from dcc.units import NEVER, SECOND
from dcc.wire.messages import Topology

PROBE_FIRST_NS = 1 * SECOND
PROBE_MOST_NS = 4 * SECOND


class Target(NamedTuple):
    """Where one attempt goes."""

    address: str
    direct: bool
    "Ask it as a holder: it must not forward."
    owner: bool
    "A live owner or stand-in by the topology, so its word on a miss is worth asking."
    follows: bool = False
    "Has not got all of its copies yet, so it may have to ask others itself, or is slow."


class View:
    """One topology, ready for routing. Only its caches change after construction."""

    def __init__(self, topology: Topology, epoch: int) -> None:
        ring = [member for member in topology.members if member.in_ring]
        self.settings: Settings = topology.settings
        self.listed: tuple[Member, ...] = topology.members
        self.members: dict[NodeKey, Member] = {member.key: member for member in ring}
        self.alive: dict[NodeKey, str] = {
            m.key: m.request for m in ring if m.standing is Standing.ALIVE
        }
        self.by_address: dict[str, Member] = {member.request: member for member in ring}
        self.settled: bool = len(self.alive) == len(ring) and not any(m.draining for m in ring)
        self.slots: SlotMap = SlotMap(lazy=True)
        self.slots.update(
            [place_of(member) for member in self.members.values()], topology.settings.replicas
        )
        # The answerer's word where its list did not fit a frame; they are equal otherwise.
        self.epoch: int = epoch or self.slots.epoch
        self.primaries: list[str | None] = [None] * SLOT_COUNT
        self._targets: list[tuple[Target, ...] | None] = [None] * SLOT_COUNT

    def is_of(self, topology: Topology, epoch: int) -> bool:
        """Return whether a view made of these would be equal; 20 µs for 100 members."""
        return (
            epoch == self.epoch
            and topology.settings == self.settings
            and topology.members == self.listed
        )

    def primary(self, slot: int) -> str | None:
        """Return the address of the slot's first live owner; None in an empty ring. O(1) later."""
        address = self.primaries[slot]
        if address is None and self.alive:
            live = self.slots.route(slot, self.alive)
            if live:
                address = self.primaries[slot] = self.alive[live[0]]
        return address

    def targets(self, slot: int) -> tuple[Target, ...]:
        """Return where to ask for a key of `slot`, best first; each address once. O(1) later."""
        found = self._targets[slot]
        if found is None:
            found = self._targets[slot] = tuple(self._ranked(slot))
        return found

    def _ranked(self, slot: int) -> list[Target]:
        live = [key for key in self.slots.route(slot, self.alive) if key in self.alive]
        near = [key for key in self.slots.near(slot) if key not in live]
        found = [
            Target(self.alive[key], place > 0, True, self.members[key].follows)
            for place, key in enumerate(live)
        ]
        found += [
            Target(self.alive[key], self.members[key].draining, False)
            for key in near
            if key in self.alive
        ]
        gone = sorted((self.members[key].standing, i) for i, key in enumerate(near)
                      if key not in self.alive)  # fmt: skip
        found += [Target(self.members[near[i]].request, True, False) for _, i in gone]
        return found

    def owners(self, slot: int) -> tuple[Member, ...]:
        """Return the members that should hold `slot`, dead ones included, best first."""
        return tuple(self.members[key] for key in self.slots.owners(slot))

    def shares(self, slots: Iterable[int]) -> dict[Member, tuple[int, ...]]:
        """Return which of `slots` each live member owns; none for those without any."""
        shares: dict[NodeKey, list[int]] = {}
        for slot in slots:
            for key in self.slots.owners(slot):
                if key in self.alive:
                    shares.setdefault(key, []).append(slot)
        return {self.members[key]: tuple(mine) for key, mine in shares.items()}

    def copies(self) -> int:
        """Return how many owners a key is meant to have, the primary included."""
        return self.settings.replicas + 1

    def owners_of(self, key: bytes) -> tuple[Member, ...]:
        """Return the members that should hold `key`."""
        return self.owners(slot_of(key))

    def boot_of(self, address: str) -> Boot:
        """Return the boot of the node at `address`, 0 if the view does not have it."""
        member = self.by_address.get(address)
        return member.boot if member else 0

    def name_of(self, address: str) -> str:
        """Return the name of the node at `address`, or the address itself."""
        member = self.by_address.get(address)
        return member.name if member else address


class _Ailment(NamedTuple):
    boot: Boot
    pause_ns: int
    probe_at: int


class Health:
    """Addresses that were unreachable or silent, and when to probe them again."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.sick: dict[str, _Ailment] = {}

    def failed(self, address: str, boot: Boot, now: int) -> None:
        """Note that `address` failed; a repeated failure lengthens the pause to the next probe."""
        known = self.sick.get(address)
        if known is not None and now < known.probe_at:
            return  # Calls that ran side by side all fail at once: that is one failure.
        pause = min(known.pause_ns * 2, PROBE_MOST_NS) if known else PROBE_FIRST_NS
        self.sick[address] = _Ailment(boot, pause, now + self._jittered(pause))

    def answered(self, address: str) -> None:
        """Note that `address` answered: it is as good as any other again."""
        self.sick.pop(address, None)

    def probed(self, address: str, now: int) -> None:
        """Note that a probe is on its way; the next one waits longer."""
        known = self.sick.get(address)
        if known is not None:
            pause = min(known.pause_ns * 2, PROBE_MOST_NS)
            self.sick[address] = _Ailment(known.boot, pause, now + self._jittered(pause))

    def keep(self, view: View) -> None:
        """Forget addresses that are no member's any more, or another boot's."""
        for address, ailment in list(self.sick.items()):
            member = view.by_address.get(address)
            if member is None or member.boot != ailment.boot != 0:
                del self.sick[address]

    def probe_due(self, now: int) -> str | None:
        """Return the address whose probe is most overdue, or None."""
        due = [(a.probe_at, address) for address, a in self.sick.items() if a.probe_at <= now]
        return min(due)[1] if due else None

    def probe_at(self) -> int:
        """Return when the next probe is due, or NEVER."""
        return min((ailment.probe_at for ailment in self.sick.values()), default=NEVER)

    def sorted(self, targets: Sequence[Target]) -> list[Target]:
        """Return `targets` with sick ones last; whoever moved up past an owner is asked directly.

        >>> health = Health(random.Random(1))
        >>> health.failed("a:1", 0, now=0)
        >>> targets = [Target("a:1", False, True), Target("b:1", True, True)]
        >>> [target.address for target in health.sorted(targets)]
        ['b:1', 'a:1']
        """
        if not self.sick:
            return list(targets)
        well = [target for target in targets if target.address not in self.sick]
        return well + [target for target in targets if target.address in self.sick]

    def _jittered(self, pause_ns: int) -> int:
        return round(pause_ns * self._rng.uniform(0.75, 1.25))
