"""Members that are still to be asked about slots folded, or with gaps closed, without them.

The base of a clock says of all origins without an entry: what they wrote up to here was seen, or is
to be ignored. That is true for the members that were there when it was made. A member may come
that was not: from a cut in which all others were restarted, or after it was forgotten. Nobody here
has seen anything of what it holds, whatever the base says.

So for each member the slots are kept that were bound without it: all there are when it becomes
known, and while it is down those that are bound then. About these it is asked with a clock that
claims nothing but this node's own writes, whatever the digests say, and what it tells is taken
though the clock covers it. (Its entries may be another member's by now that met it sooner: that
one sends the clock, but not the records that the base seems to cover.)
Until it has answered, the slot is *put aside*: its digest equals nobody's, and its base is told to
nobody: it would be taken for a promise that it is not.

A newcomer that has seen nothing of a slot has answered with that.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from dcc.replication.view import View
from dcc.store.clocks import BASE, Clock
from dcc.store.store import Store
from dcc.types import NodeKey, Origin, Stamp

NONE: frozenset[int] = frozenset()

FIRST: Stamp = 1
"A stamp below all that were ever made."


class Unasked:
    """The slots that were bound without a member, by member."""

    def __init__(self, view: View, store: Store, me: Origin) -> None:
        self._view, self._store, self._me = view, store, me
        self._slots: dict[NodeKey, set[int]] = {}
        self._known: frozenset[NodeKey] = frozenset()
        self._closed: set[int] = set()
        "Slots in which gaps were closed: an entry there covers what nobody has seen."
        self.aside: set[int] = set()
        "Owned slots about which a live member is still to be asked."

    # -------------------------------------------------------------- events

    def view_changed(self) -> None:
        """Note members that became known, were forgotten, rose or fell. O(slots) if any did."""
        remembered = self._view.remembered
        new, gone = remembered - self._known, self._known - remembered
        self._known = remembered
        for key in sorted(gone):
            self._slots.pop(key, None)
        bound = self._closed.union(self._store.comparison.based()) if new else NONE
        for key in sorted(new) if bound else ():
            self._slots[key] = set(bound)
        self._put_aside()

    def bound(self, slot: int, *, closed: bool = False) -> None:
        """The slot's base has risen, or a gap in its clock was `closed`: members down did not
        agree.

        Those that are up did: only a node in sync with all folds a slot, and a base that is put
        aside is told to nobody. O(members that are down).
        """
        if closed:
            self._closed.add(slot)
        for key in sorted(self._view.down):
            self._slots.setdefault(key, set()).add(slot)

    def asked(self, slot: int, key: NodeKey) -> None:
        """All that `key` holds of the slot came, or it has seen nothing of it. O(members)."""
        slots = self._slots.get(key)
        if slots is None or slot not in slots:
            return
        slots.discard(slot)
        if not slots:
            del self._slots[key]
        if slot in self.aside and not self.holders(slot):
            self.aside.discard(slot)
            self._store.changed.add(slot)

    def dropped(self, slot: int) -> None:
        """The slot was released: nothing binds anybody in it."""
        self._closed.discard(slot)
        for key in [key for key, slots in self._slots.items() if slot in slots]:
            self.asked(slot, key)

    # -------------------------------------------------------------- asking

    @property
    def total(self) -> int:
        """Slots to be asked about, member by member. O(members)."""
        return sum(map(len, self._slots.values())) + len(self._closed)

    def of(self, key: NodeKey) -> AbstractSet[int]:
        """Return the slots about which `key` is still to be asked, whoever owns them now."""
        return self._slots.get(key, NONE)

    def holders(self, slot: int) -> list[NodeKey]:
        """Return the live members that are still to be asked about the slot, ascending.

        O(members that are still to be asked about any).
        """
        alive = self._view.alive
        return sorted([key for key, slots in self._slots.items() if slot in slots and key in alive])

    def clock_for(self, slot: int, key: NodeKey) -> Clock:
        """Return the clock to ask `key` with: of own writes alone, as long as it is unasked.

        It is never empty then: an empty one is an answer.
        """
        clock = self._store.clock(slot)
        if slot not in self.of(key):
            return clock
        mine = clock.get(self._me, 0)
        return {BASE: FIRST, self._me: mine} if mine else {BASE: FIRST}

    def told(self, slot: int) -> Clock:
        """Return the slot's clock as others may know it: without its base while put aside."""
        clock = self._store.clock(slot)
        if slot not in self.aside:
            return clock
        return {origin: stamp for origin, stamp in clock.items() if origin != BASE}

    # -------------------------------------------------------------- inside

    def _put_aside(self) -> None:
        owns, alive = self._view.owns, self._view.alive
        aside = {
            slot
            for key, slots in self._slots.items()
            if key in alive
            for slot in slots
            if owns(slot)
        }
        self._store.changed.update(aside ^ self.aside)
        self.aside = aside

    def check(self) -> None:
        """Assert that only members are waited for, each for something."""
        assert self._slots.keys() <= self._known
        assert all(self._slots.values()), "a member that was asked about everything is not here"
