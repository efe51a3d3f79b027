"""Looking at a whole cluster: who holds what, and what is not as it should be once it rests.

Also used each time that a node says the cluster has converged, of those whom that node knows.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from dcc.ring.hashing import slot_of
from dcc.types import Kind, Record, Stamp, Version
from dcc.units import MILLISECOND, SECOND
from simulations.checkers import clearing, convergence, truth, views
from simulations.history import Entry, Violation
from simulations.observer import core_of, held_record
from simulations.processes import NodeProcess
from simulations.stage import Stage
from simulations.timing import Timing

SLACK_NS = 1_500 * MILLISECOND
"Cluster time may be off by `max_skew`, and a hit may be on its way for a call's time-out."

JUDGED_WHERE_EVICTED = True
"Whether misses and copies are judged where memory is short, of nodes that evicted nothing."

UNDER_WAY_NS = 3 * SECOND
"A node that says `converged` may wait so long for the copies of a write, and for the others' word."


class Looking:
    """What the nodes of one run hold, and the newest of it."""

    def __init__(self, stage: Stage) -> None:
        self.scenario = stage.scenario
        self.world, self.observer = stage.world, stage.observer
        self.keys = stage.scenario.workload.key_names()
        self.newest: dict[bytes, Record] = {}
        "Of each key, the newest record that anybody held since the faults ended."
        self._agreed: list[int] = []
        "When a look at all found that all who live have exactly each other for alive."
        self.timing = Timing(stage.world)
        self.untrue: list[Violation] = []
        "Where a node said that the cluster had converged and it had not."
        self.observer.on_converged = self._judge_converged

    def survey(self) -> dict[str, dict[bytes, Record]]:
        self.observer.now_ns = self.world.now_ns
        self.timing.sample()
        held = {node.name: self.observer.survey(node, self.keys) for node in self.world.living()}
        for node in self.world.living():
            self.observer.violations += views.check_derived(
                node.name, core_of(node), self.world.now_ns
            )
        if _all_see_all(self.world.living()):
            self._agreed.append(self.world.now_ns)
        if self.observer.on_held is not None:
            for records in held.values():
                for record in records.values():
                    self.note_newest(record)
        return held

    def note_all(self) -> None:
        """Note what the living hold, and what they held and may have forgotten since."""
        self.survey()
        for node in self.world.living():
            for key in self.keys:
                record = self.observer.newest(node, key)
                if record is not None:
                    self.note_newest(record)

    def note_newest(self, record: Record) -> None:
        known = self.newest.get(record.key)
        if known is None or known.version < record.version:
            self.newest[record.key] = record

    def unconverged(self) -> list[Violation]:
        """Return everything that is not as it should be at rest."""
        world = self.world
        held = self.survey()
        living = world.living()
        tables = {node.name: core_of(node).membership.members for node in living}
        missing = views.check(tables, {node.key: node.boot for node in living})
        missing += [
            Violation("ready", f"{node.name} is not ready", world.now_ns)
            for node in living
            if not core_of(node).slots_ready
        ]
        missing += [
            # When it leads again it compares first.
            Violation("a gray node is gone round", f"{node.name} is still slow", world.now_ns)
            for node in living
            if core_of(node).membership.me.slow
        ]
        if missing:
            return missing
        names = {node.key: node.name for node in living}
        slots = core_of(living[0]).held.view.slots
        owners = {key: [names[one] for one in slots.owners(slot_of(key)) if one in names]
                  for key in self.keys}  # fmt: skip
        wanted = {core_of(node).membership.settings.replicas for node in living}
        missing = [
            Violation("owners", f"{key.decode()} has owners {found}", world.now_ns)
            for key, found in owners.items()
            if len(wanted) > 1 or len(found) < min(len(living), max(wanted) + 1)
        ]
        cleared = max(core_of(node).held.store.cleared for node in living)
        missing += self._uncleared(living, cleared)
        expected = {key: self.expected(record) for key, record in self.newest.items()
                    if record.version.stamp > cleared}  # fmt: skip
        may_evict = self.scenario.may_evict
        missing += convergence.check(
            expected, owners, held, self.covers, may_evict=may_evict, kept_all=self.kept_all
        )
        return missing

    def _uncleared(self, living: list[NodeProcess], cleared: Stamp) -> list[Violation]:
        return [
            Violation(clearing.PROMISE, f"{node.name} has not heard of it", self.world.now_ns)
            for node in living
            if core_of(node).held.store.cleared != cleared
        ]

    def expected(self, record: Record) -> Record:
        now_ms = self.timing.now_ms()
        if 0 < record.expires_at_ms <= now_ms + SLACK_NS // MILLISECOND:
            return record._replace(kind=Kind.EXPIRED)
        meaning = self.observer.meanings.get(record.version)
        if record.kind is Kind.EVICTED and meaning is not None and not meaning.deleted:
            return record._replace(kind=Kind.VALUE)
        return record

    def agreed_ns(self, at_ns: int) -> int:
        """Return when all were first seen to have each other for alive, at `at_ns` or later."""
        later = bisect_left(self._agreed, at_ns)
        return self._agreed[later] if later < len(self._agreed) else self.world.now_ns

    def kept_all(self, name: str) -> bool:
        """Return whether a node has evicted nothing in its present life."""
        evicted = core_of(self.world.nodes[name]).held.store.evicted_total
        return JUDGED_WHERE_EVICTED and evicted == 0

    def covers(self, name: str, key: bytes, version: Version) -> bool:
        store = core_of(self.world.nodes[name]).held.store
        return bool(store.covers(slot_of(key), version))

    def check_last_read(self, entry: Entry) -> list[Violation]:
        newest = self.newest.get(entry.key)
        cleared = max(core_of(node).held.store.cleared for node in self.world.living())
        if newest is not None and newest.version.stamp <= cleared:
            newest = None
        expected = self.expected(newest) if newest is not None else None
        exists = expected is not None and expected.kind is Kind.VALUE
        if exists and expected is not None and entry.status == "hit":
            if entry.version == expected.version:
                return []
        elif (not exists or self.scenario.may_evict) and entry.status == "miss":
            return []
        text = f"newest is {expected and expected._replace(value=b'')}: {entry}"
        return [Violation("the last read finds the newest", text, self.world.now_ns)]

    # -------------------------------------------------------------- what nodes say

    def _judge_converged(self, teller: NodeProcess) -> None:
        """Compare with the truth that a node has just called the cluster converged.

        Of the members that it knows. What was written lately may be on its way.
        """
        view = core_of(teller).held.view
        members = [n for n in self.world.living() if view.boots.get(n.key) == n.boot]
        known_ns, written_ns = self.world.now_ns - UNDER_WAY_NS, self.observer.answers.written_ns
        names = {node.key: node.name for node in members}
        held: dict[str, dict[bytes, Record]] = {node.name: {} for node in members}
        expected: dict[bytes, Record] = {}
        owners: dict[bytes, Sequence[str]] = {}
        cleared = max(core_of(node).held.store.cleared for node in members)
        for key in self.keys:
            found = [(node.name, held_record(node, key)) for node in members]
            records = {name: record for name, record in found if record is not None}
            if not records:
                continue
            newest = max(records.values(), key=lambda record: record.version)
            if newest.version.stamp <= cleared or written_ns.get(newest.version, 0) > known_ns:
                continue
            expected[key] = self.expected(newest)
            owners[key] = [names[one] for one in view.slots.owners(slot_of(key)) if one in names]
            for name, record in records.items():
                held[name][key] = record
        self.untrue += truth.check(
            expected, owners, held, self.covers, teller.name, self.world.now_ns,
            may_evict=self.scenario.may_evict, kept_all=self.kept_all,
        )  # fmt: skip


def _all_see_all(living: Sequence[NodeProcess]) -> bool:
    lives = {node.key: node.boot for node in living}
    views = [core_of(node).held.view for node in living]
    return all(view.alive == lives.keys() and view.boots.items() >= lives.items() for view in views)
