"""Three replicas of two slots under any schedule: what repair must never bring back.

Writes, deletions and expiries at any replica; messages lost, late, twice and out of order; pulls
that take their time; evictions, forgetting, folding, partitions, and crashes that lose memory.
A schedule is a list of steps, each possible in any state, so that one that fails can be cut down.
The steps of repair are those of `replication.exchange` and `replication.tidying`, on real stores.

After each step: repair has brought back nothing that the replica evicted, and no replica shows
what has expired, or a version older than one that its clock covers. At the end, with
everybody back and all pulls done: equal digests, and nobody shows a version while anybody alive
knows a newer one, deletions and expiries included.

Three causes that such schedules have shown and that are mended: spans of what was seen travelled
without the refill that belongs to them; a second late write below the mark replaced a ghost by a
value; and forgetting did not wait for an older write that was still on its way.

    DCC_SCHEDULES=20000 python -m pytest tests/store/test_schedules.py   # a soak
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from dcc.replication.answerer import answer_pull
from dcc.replication.claims import Claim, Claims
from dcc.replication.packing import pack_clock, unpack_clock, unpack_spans
from dcc.store import Applied, Store
from dcc.store import store as store_module
from dcc.store.doubt import NOTHING_OWED, Listing
from dcc.types import NO_VERSION, Kind, Origin, Record, Stamp, Version
from dcc.units import MIB
from dcc.wire.messages import Pull, PullReply
from dcc.wire.shapes import SlotAsk, SlotOwed

SCHEDULES = int(os.environ.get("DCC_SCHEDULES", "200"))
STEPS = 120
NODES = (1, 2, 3)
SLOTS = (3, 9)
KEYS = (b"a", b"b", b"c")
ENTRY_COST = 272
"More than a record without a value costs here."

Step = tuple[str, int, int, int]
"What happens, where, and two numbers that say to what."


@dataclass(frozen=True)
class Budget:
    valueless: int
    "Records without values that a replica has room for."
    notes: int


SANE = (Budget(1000, 64), Budget(8, 16))
ABSURD = (Budget(0, 64), Budget(1, 64), Budget(2, 2), Budget(1, 1), Budget(0, 1), Budget(1000, 1))


class Replica:
    """One life of a node."""

    def __init__(self, node: int, boot: int, budget: Budget) -> None:
        self.node, self.boot = node, boot
        self.store = Store(memory_limit_bytes=8 * MIB)
        self.store._memory.valueless_bytes_max = budget.valueless * ENTRY_COST
        self.in_sync: dict[int, int] = {}
        "Peer -> when the last complete pull from it began."
        self.pulled: dict[tuple[int, int], int] = {}
        "The same by slot and peer, whoever was reached since."
        self.owed_since: dict[int, int] = {}
        self.claims = Claims(8 * MIB)
        self.evicted: set[Version] = set()
        self.known: dict[tuple[int, bytes], Version] = {}
        "The newest version of a key that this life was ever given."
        self.missed_since: dict[int, int] = {}

    @property
    def origin(self) -> Origin:
        return (self.node, self.boot)

    def learn(self, slot: int, record: Record) -> None:
        name = (slot, record.key)
        self.known[name] = max(record.version, self.known.get(name, NO_VERSION))


@dataclass
class Flight:
    """A message on its way, between two lives."""

    source: Origin
    target: Origin
    slot: int = 0
    record: Record | None = None
    reply: PullReply | None = None
    began: int = 0
    owed: frozenset[int] = frozenset()


@dataclass
class World:
    """The replicas, the messages between them, and everything that was ever written."""

    budget: Budget
    now_ms: int = 1000
    turn: int = 0
    written: dict[tuple[int, bytes], list[Record]] = field(default_factory=dict)
    flights: list[Flight] = field(default_factory=list)
    apart: set[frozenset[int]] = field(default_factory=set)
    replicas: dict[int, Replica] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.boots = 0
        self.last: dict[int, Stamp] = {}
        for node in NODES:
            self.replicas[node] = self.fresh(node)

    def fresh(self, node: int) -> Replica:
        self.boots += 1
        return Replica(node, self.boots, self.budget)

    def linked(self, one: int, two: int) -> bool:
        return frozenset((one, two)) not in self.apart

    # ---------------------------------------------------------- steps

    def run(self, schedule: list[Step]) -> None:
        for what, where, one, two in schedule:
            self.turn += 1
            getattr(self, what)(self.replicas[where], one, two)
            self.check()

    def put(self, replica: Replica, key: int, ttl: int) -> None:
        self._write(replica, key, Kind.VALUE, (0, 0, 5, 40)[ttl % 4])

    def delete(self, replica: Replica, key: int, _: int) -> None:
        self._write(replica, key, Kind.TOMBSTONE, 0)

    def _write(self, replica: Replica, pick: int, kind: Kind, ttl: int) -> None:
        slot, key = SLOTS[pick % 2], KEYS[pick // 2 % len(KEYS)]
        store = replica.store
        held = store.peek(slot, key)
        # Clocks differ by less than two milliseconds, and a stamp exceeds all that is known here.
        floor = max(store.floor(slot), held.version.stamp if held else 0)
        stamp = max((self.now_ms + replica.node - 2) << 4, floor + 1)
        stamp = self.last[replica.node] = max(stamp, self.last.get(replica.node, 0) + 1)
        version = Version(stamp, *replica.origin)
        value = b"%d" % stamp if kind is Kind.VALUE else b""
        expires_at_ms = self.now_ms + ttl if ttl else 0
        prev = store.own_prev(slot, replica.origin)
        record = Record(key, kind, value, version, expires_at_ms, prev)
        assert store.write(slot, record, self.now_ms) is Applied.NEWER
        replica.learn(slot, record)
        self.written.setdefault((slot, key), []).append(record)
        for other in self.replicas.values():
            if other is not replica and self.linked(other.node, replica.node):
                self.flights.append(Flight(replica.origin, other.origin, slot, record))

    def deliver(self, _: Replica, pick: int, fate: int) -> None:
        """Some message arrives, is lost, or arrives and will again."""
        if not self.flights:
            return
        flight = self.flights.pop(pick % len(self.flights))
        target, source = self.replicas[flight.target[0]], self.replicas[flight.source[0]]
        if fate == 0 or not self.linked(target.node, source.node):
            return
        if flight.target != target.origin or flight.source != source.origin:
            return
        if fate == 1 and flight.record:
            self.flights.append(flight)
        if flight.record is not None:
            self.repair(target, flight.slot, flight.record)
        elif flight.reply is not None:
            self._take(target, source, flight.reply, flight.began, flight.owed)

    def deliver_all(self, replica: Replica, _one: int, _two: int) -> None:
        """All replication on its way to one replica arrives in order."""
        for flight in [f for f in self.flights if f.target == replica.origin and f.record]:
            self.deliver(replica, self.flights.index(flight), 2)

    def ask(self, replica: Replica, pick: int, _: int) -> None:
        """A pull is answered at once; the answer takes its time."""
        others = [r for r in self.replicas.values() if r is not replica]
        other = others[pick % len(others)]
        if not self.linked(other.node, replica.node):
            return
        self.flights = [
            f for f in self.flights
            if not (f.reply and (f.source, f.target) == (other.origin, replica.origin))
        ]  # fmt: skip
        reply, owed = self._answer(replica, other)
        began = self.turn
        self.flights.append(Flight(other.origin, replica.origin, 0, None, reply, began, owed))

    def pull(self, replica: Replica, pick: int, _: int) -> None:
        """A pull that is answered and taken within the turn."""
        others = [r for r in self.replicas.values() if r is not replica]
        other = others[pick % len(others)]
        if self.linked(other.node, replica.node):
            reply, owed = self._answer(replica, other)
            self._take(replica, other, reply, self.turn, owed)

    def _answer(self, asker: Replica, answerer: Replica) -> tuple[PullReply, frozenset[int]]:
        origins: dict[Origin, int] = {}
        asks: list[SlotAsk] = []
        owing: list[SlotOwed] = []
        for slot in SLOTS:
            owed = asker.store.comparison.owed(slot)
            if asker.pulled.get((slot, answerer.node), -1) >= asker.owed_since.get(slot, 0):
                owed = NOTHING_OWED
            if owed.high:
                owing.append(SlotOwed(slot, *owed))
            clock = pack_clock(asker.store.clock(slot), origins)
            asks.append(SlotAsk(slot, NO_VERSION, clock, asker.store.mark(slot)))
        for slot in SLOTS:
            answerer.store.forgetting.note_covered(slot, asker.boot, asker.store.clock(slot))
        pull = Pull(origins=tuple(origins), slots=tuple(asks), owed=tuple(owing))
        reply = answer_pull(answerer.store, pull)
        assert all(answer.complete for answer in reply.slots)
        return reply, frozenset(one.slot for one in owing)

    def _take(
        self, asker: Replica, answerer: Replica, reply: PullReply, began: int, owed: frozenset[int]
    ) -> None:
        slot_of = {record.version: slot for slot, record in self.records()}
        clocks = {one.slot: unpack_clock(one.clock, reply.origins) for one in reply.slots}
        for record in reply.records:
            slot = slot_of[record.version]
            self.repair(asker, slot, record, clocks[slot], owed=slot in owed)
        store = asker.store
        for answer in reply.slots:
            slot = answer.slot
            spans = unpack_spans(answer.spans, reply.origins)
            listing = Listing(clocks[slot], spans, answer.mark, answer.refill)
            if store.comparison.is_below(slot, listing) or store.comparison.misses(
                slot, listing.clock
            ):
                asker.claims.add(slot, answerer.node, Claim(listing, began, True))
            else:
                self._take_over(asker, slot, answerer.node, Claim(listing, began, True), 0)
        asker.in_sync[answerer.node] = began
        for slot in asker.claims.slots():
            self._settle(asker, slot)

    def _take_over(self, asker: Replica, slot: int, node: int, claim: Claim, mark: Stamp) -> None:
        asker.store.merge_clock(slot, claim.listing.clock, mark)
        asker.store.merge_spans(slot, claim.listing.spans)
        asker.pulled[slot, node] = claim.sent_at

    def _settle(self, asker: Replica, slot: int) -> None:
        """Take claims over once everybody who can be reached was pulled from or claims, too."""
        since = asker.claims.since(slot)
        for node in NODES:
            heard = asker.pulled.get((slot, node), -1) >= since or node in asker.claims.of(slot)
            if node != asker.node and self.linked(node, asker.node) and not heard:
                return
        store, claims = asker.store, asker.claims.take(slot)
        below = [
            node for node, claim in claims.items() if store.comparison.is_below(slot, claim.listing)
        ]
        if store.refill(slot, [claims[node].listing for node in below]):
            since = self.turn
        for node, claim in claims.items():
            self._take_over(asker, slot, node, claim, claim.listing.mark if node in below else 0)
        if store.comparison.owed(slot).high:
            asker.owed_since[slot] = since

    def records(self) -> Iterator[tuple[int, Record]]:
        for (slot, _key), records in self.written.items():
            for record in records:
                yield slot, record

    def repair(
        self, replica: Replica, slot: int, record: Record,
        sender: dict[Origin, Stamp] | None = None, *, owed: bool = False,
    ) -> None:  # fmt: skip
        """Apply what came from another node; it must not bring back what went here."""
        before = replica.store.peek(slot, record.key)
        shown = before is not None and before.kind is Kind.VALUE
        covered = replica.store.covers(slot, record.version)
        replica.store.apply(slot, record, self.now_ms, sender, owed=owed)
        after = replica.store.peek(slot, record.key)
        if after is not None and after.kind is Kind.VALUE and after.version == record.version:
            assert shown or not covered or owed, f"{replica.origin} took {record} again"
            back = record.version in replica.evicted and not shown
            assert not back, f"{replica.origin} evicted {record}"
        replica.learn(slot, record)

    def evict(self, replica: Replica, pick: int, _: int) -> None:
        slot, key = SLOTS[pick % 2], KEYS[pick // 2 % len(KEYS)]
        entry = replica.store.peek(slot, key)
        if entry is not None and entry.kind is Kind.VALUE:
            replica.evicted.add(entry.version)
            replica.store._memory.evict(entry)
            replica.store._memory.make_room()

    def wait(self, _: Replica, step: int, sweep: int) -> None:
        self.now_ms += 1 + step % 20
        for replica in self.replicas.values():
            if sweep % 2:
                # A sweep, without the expiry index's rounding.
                for slot, key in self.written:
                    replica.store.get(slot, key, self.now_ms)

    def part(self, replica: Replica, pick: int, _: int) -> None:
        other = NODES[pick % 3]
        if other != replica.node:
            self.apart.add(frozenset((other, replica.node)))

    def heal(self, _: Replica, _one: int, _two: int) -> None:
        """Those who were apart are alive to each other again: no longer in sync."""
        for pair in self.apart:
            one, two = (self.replicas[node] for node in sorted(pair))
            one.in_sync.pop(two.node, None)
            two.in_sync.pop(one.node, None)
        self.apart.clear()

    def crash(self, replica: Replica, _one: int, _two: int) -> None:
        self.replicas[replica.node] = self.fresh(replica.node)
        for other in self.replicas.values():
            other.in_sync.pop(replica.node, None)
            for slot in SLOTS:
                other.pulled.pop((slot, replica.node), None)

    def tidy(self, replica: Replica, fold: int, age: int) -> None:
        """Forget, close gaps and fold by the rules of `Tidying`."""
        others = [r for r in self.replicas.values() if r is not replica]
        if self.apart or any(other.node not in replica.in_sync for other in others):
            return
        store = replica.store
        for slot in SLOTS:
            store.forgetting.forget_covered(slot, [other.boot for other in others])
            gaps = store.gap_origins(slot)
            if not gaps:
                replica.missed_since.pop(slot, None)
            since = replica.missed_since.setdefault(slot, self.turn) if gaps else 0
            if gaps and all(replica.in_sync[other.node] > since for other in others):
                for origin in gaps:
                    store.close_gaps(slot, origin)
            self._fold(replica, slot, fold, age)

    def _fold(self, replica: Replica, slot: int, fold: int, age: int) -> None:
        """Fold what is gone, once all have seen it: ten rounds of pulls in the real thing."""
        live = {r.origin for r in self.replicas.values()}
        store = replica.store
        gone = [origin for origin in store.clock_origins() if origin not in live]
        clock = store.clock(slot)
        level = all(
            other.store.covers(slot, Version(clock.get(origin, 0), *origin))
            for other in self.replicas.values() for origin in gone
        )  # fmt: skip
        if fold % 2 and level:
            store.fold(slot, gone.__contains__, (self.now_ms - age) << 4)
            store.prune_clocks()

    # ---------------------------------------------------------- judging

    def check(self) -> None:
        for replica in self.replicas.values():
            for (slot, key), records in self.written.items():
                shown = self.shown(replica, slot, key)
                if shown is None:
                    continue
                newer = [r for r in records if r.version > shown]
                hidden = [r for r in newer if replica.store.covers(slot, r.version)]
                assert not hidden, f"{replica.origin} shows {key!r} {shown}, has seen {hidden}"
                known = replica.known[slot, key]
                assert known <= shown, f"{replica.origin} shows {key!r} {shown}, knew {known}"

    def shown(self, replica: Replica, slot: int, key: bytes) -> Version | None:
        entry = replica.store.peek(slot, key)
        if entry is None or entry.kind is not Kind.VALUE:
            return None
        if 0 < entry.expires_at_ms <= self.now_ms:
            return None
        return entry.version

    def finish(self) -> None:
        """Everybody is back and pulls from everybody: all agree, and nothing is left to tell."""
        self.heal(self.replicas[1], 0, 0)
        self.flights.clear()
        for _round in range(4):
            for node in NODES:
                for pick in range(2):
                    self.turn += 1
                    self.pull(self.replicas[node], pick, 0)
                    self.check()
            for node in NODES:
                # Notes that found no room elsewhere only go when their gaps are given up.
                self.tidy(self.replicas[node], 0, 0)
                self.check()
        for slot in SLOTS:
            digests = {r.store.comparison.digest(slot) for r in self.replicas.values()}
            assert len(digests) == 1, f"slot {slot}: {digests}"
        for slot, key in self.written:
            known = max(r.known.get((slot, key), NO_VERSION) for r in self.replicas.values())
            for replica in self.replicas.values():
                shown = self.shown(replica, slot, key)
                assert shown in (None, known), f"{replica.origin}: {key!r} {shown}, not {known}"
        self.replicas[NODES[self.turn % 3]].store.check()


WEIGHTS = {
    "put": 14, "delete": 6, "deliver": 20, "deliver_all": 2, "ask": 6, "pull": 6, "evict": 8,
    "wait": 8, "part": 2, "heal": 3, "crash": 2, "tidy": 8,
}  # fmt: skip


def schedule_of(seed: int) -> list[Step]:
    rng = random.Random(seed)
    names, weights = list(WEIGHTS), list(WEIGHTS.values())
    return [
        (name, rng.choice(NODES), rng.randrange(12), rng.randrange(12))
        for name in rng.choices(names, weights, k=STEPS)
    ]


def play(schedule: list[Step], budget: Budget, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "NOTES_MAX", budget.notes)
    world = World(budget)
    world.run(schedule)
    world.finish()


FOUND: dict[str, tuple[Budget, list[Step]]] = {
    "a tombstone seen beyond a gap was forgotten; the note travelled without a refill": (
        Budget(1, 64),
        [("put", 3, 3, 7), ("deliver", 1, 5, 5), ("crash", 1, 11, 5), ("delete", 3, 9, 4),
         ("deliver_all", 1, 1, 1), ("pull", 2, 4, 0)],
    ),
    "a tombstone was forgotten; late writes below the mark came, one replacing the other": (
        Budget(2, 2),
        [("put", 2, 2, 6), ("put", 1, 3, 8), ("wait", 1, 8, 10), ("put", 2, 3, 10),
         ("delete", 3, 3, 10), ("deliver_all", 3, 0, 9)],
    ),
    "a deletion was forgotten while an older write of one who knew of it was still on its way": (
        Budget(1000, 64),
        [("pull", 3, 0, 0), ("pull", 3, 1, 0), ("put", 1, 3, 0), ("deliver", 1, 0, 5),
         ("delete", 2, 3, 0), ("deliver", 1, 1, 5), ("deliver", 1, 1, 5), ("pull", 1, 1, 0),
         ("pull", 2, 1, 0), ("tidy", 3, 0, 0), ("deliver_all", 3, 0, 0)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("found", FOUND)
def test_what_was_found_once_stays_fixed(found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    budget, schedule = FOUND[found]
    play(schedule, budget, monkeypatch)


@pytest.mark.parametrize("budgets", [SANE, ABSURD], ids=["sane", "absurd"])
def test_repair_brings_nothing_back_under_any_schedule(
    budgets: tuple[Budget, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(SCHEDULES // 2):
        play(schedule_of(seed), budgets[seed % len(budgets)], monkeypatch)
