"""Judging a run: every checker over what the clients saw and what the nodes came to hold."""

from __future__ import annotations

from dcc.ring.hashing import slot_of
from dcc.types import Kind, NodeKey
from dcc.units import MILLISECOND, SECOND
from simulations.checkers import (
    acknowledgement,
    age,
    clearing,
    deadlines,
    gray,
    listing,
    made,
    outlived,
    provenance,
    sendings,
    survival,
)
from simulations.checkers.survival import COPY_NS
from simulations.clocks import EPOCH_NS
from simulations.faults import Drop, Fault, calm, until_ns
from simulations.history import Entry, History, Violation
from simulations.looking import JUDGED_WHERE_EVICTED, SLACK_NS, Looking
from simulations.observer import core_of

REDIAL_NS = 30 * SECOND
"A connection that was down is tried again after up to three times the longest back-off."


class Judge:
    """Judges one run that is over."""

    def __init__(self, looking: Looking, history: History) -> None:
        self._looking, self._history = looking, history
        self._scenario, self._world = looking.scenario, looking.world
        self._observer = looking.observer
        copies = (self._scenario.replicas, *self._scenario.workload.copies)
        self._fewest, self._most = min(copies), max(copies)

    def violations(self, *, rested: bool) -> list[Violation]:
        """Return every promise that was broken; `rested` says whether the run came to its end."""
        scenario, history = self._scenario, self._history
        observer, fewest = self._observer, self._fewest
        losses = [loss.at_ns for loss in self._world.losses]
        end_ns = self._world.now_ns
        slack_ns = SLACK_NS + 2 * scenario.clocks.offset_ns
        epoch_ns = EPOCH_NS + self._looking.timing.ahead_ms * MILLISECOND
        found = observer.sendings.violations + sendings.check_late(observer.answers.served_late)
        found += observer.violations + observer.monotony.violations + self._looking.untrue
        found += made.check(history, observer.asking.made_of_gone)
        found += deadlines.check(history, end_ns, 5 * MILLISECOND)
        found += gray.check(history, scenario.faults, fewest + 1)
        found += provenance.check(history, slack_ns)
        found += provenance.check_once(history, observer.versions_of)
        found += provenance.check_told(history, observer.versions_of)
        found += provenance.check_late(history, observer.versions_of, epoch_ns, slack_ns)
        if not scenario.may_evict or JUDGED_WHERE_EVICTED:
            found += survival.check_reads(
                history, losses, fewest, self._calm, slack_ns, observer.aside,
                may_evict=scenario.may_evict,
            )  # fmt: skip
        if not scenario.may_evict:
            found += listing.check(history, losses, fewest, self._calm, slack_ns, observer.aside)
        found += age.check(history, losses, fewest, self._calm, observer.aside)
        found += listing.check_deleted(history, losses, fewest, self._calm, observer.aside)
        found += acknowledgement.check(
            history, observer.versions_of, self._most, self._alive, self._connected
        )
        found += self._looking.timing.check(history, self._calm)
        found += clearing.check(history, self._calm)
        found += outlived.check(history)
        if rested:
            found += survival.check_rest(history, losses, fewest, self._kept, end_ns)
        return found

    def _calm(self, from_ns: int, to_ns: int) -> bool:
        """Whether nobody could be mistaken in an interval about who lives, nor copies be lost."""
        return calm(self._scenario.faults, from_ns, to_ns, self._over_ns)

    def _connected(self, from_ns: int, to_ns: int) -> bool:
        """Whether all links have been well for so long that every connection is open again."""
        return calm(
            self._scenario.faults, from_ns, to_ns, lambda fault: until_ns(fault) + REDIAL_NS
        )

    def _over_ns(self, fault: Fault) -> int:
        """Return when the consequences of a fault are over: all see all again, or have compared."""
        if isinstance(fault, Drop):
            return until_ns(fault) + self._scenario.exchange_interval_ns + COPY_NS
        return self._looking.agreed_ns(until_ns(fault)) + COPY_NS

    def _alive(self, from_ns: int, to_ns: int) -> set[NodeKey]:
        names = self._world.lives.throughout(from_ns, to_ns)
        return {self._world.nodes[name].key for name in names}

    def _kept(self, entry: Entry) -> bool:
        looking, living = self._looking, self._world.living()
        stores = [core_of(node).held.store for node in living]
        if any(entry.version.stamp <= store.cleared for store in stores):
            return True
        newest = looking.newest.get(entry.key)
        if newest is not None and newest.version >= entry.version:
            return True
        if newest is not None and looking.expected(newest).kind is Kind.VALUE:
            return False  # Whoever forgot the newer one brought the older one back.
        if self._is_at_hand(entry):
            return False
        forgettable = entry.key[:1] in b"xtp" or self._scenario.may_evict
        return forgettable and any(
            looking.covers(node.name, entry.key, entry.version) for node in living
        )

    def _is_at_hand(self, entry: Entry) -> bool:
        """Whether it must be held although memory is short.

        Somebody who evicted nothing in this life has had the value, and one of the owners has
        evicted nothing either: a slot is released to owners that hold what is in it.
        """
        looking, living = self._looking, self._world.living()
        ends = any(
            one.verb == "delete" and one.writes and one.key == entry.key for one in self._history
        )
        if not self._scenario.may_evict or ends or entry.key[:1] in b"xt":
            return False
        had = any(
            looking.kept_all(node.name) and self._observer.answers.has_held(node, entry.version)
            for node in living
        )
        slots = core_of(living[0]).held.view.slots
        owners = slots.owners(slot_of(entry.key))
        return had and any(node.key in owners and looking.kept_all(node.name) for node in living)
