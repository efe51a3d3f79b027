"""The ring against its definition, written down a second time without any shortcut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal, localcontext
from functools import cache
from random import Random
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from dcc.limits import SLOT_COUNT
from dcc.ring import hashing, placement, slots
from dcc.ring.hashing import slot_of
from dcc.ring.placement import Place, epoch_of
from dcc.ring.slots import SlotMap
from dcc.types import node_key
from tests.support.paths import ROOT

SOME_SLOTS = range(0, SLOT_COUNT, 1021)


def named(count: int, *, zones: int = 1, weights: Sequence[float] = (1.0,)) -> list[Place]:
    """Return members node-0, node-1, ... with zones and weights dealt in turn."""
    return [
        Place(node_key(f"node-{i}"), i + 1, weights[i % len(weights)], f"z{i % zones}", False)
        for i in range(count)
    ]


def mapped(places: Sequence[Place], replicas: int, *, lazy: bool = False) -> SlotMap:
    ring = SlotMap(lazy=lazy)
    ring.update(places, replicas)
    return ring


@pytest.fixture
def few_slots(monkeypatch: pytest.MonkeyPatch) -> int:
    """Shrink the table, so that it can be rebuilt many times; return its number of slots."""
    monkeypatch.setattr(slots, "SLOT_COUNT", 256)
    monkeypatch.setattr(hashing, "_SLOTS", hashing._SLOTS[:256])
    return 256


def drained(place: Place) -> Place:
    return place._replace(draining=True)


# --- The definition ---------------------------------------------------------------------------


@cache
def table_entry(cell: int) -> int:
    if cell == 1024:
        return table_entry(1023) + 2 * 2**23
    with localcontext(prec=40):
        return int((-(1 - Decimal(cell) / 1024).ln() * 2**23).to_integral_value())


def cost_by_definition(place: Place, slot: int, *, weighted: bool) -> float:
    draw = xxh3_64_intdigest(slot.to_bytes(2, "big"), seed=place.key)
    if not weighted:
        return draw
    cell, fine = draw // 2**54, draw // 2**28 % 2**26
    low, high = table_entry(cell), table_entry(cell + 1)
    return (low * 2**26 + (high - low) * fine) / place.weight


def order_by_definition(places: Sequence[Place], slot: int) -> tuple[int, ...]:
    weighted = len({place.weight for place in places}) > 1
    cost = {p.key: (cost_by_definition(p, slot, weighted=weighted), p.key) for p in places}

    def rank(place: Place) -> tuple[int, tuple[float, int]]:
        ahead = [
            other
            for other in places
            if other.zone == place.zone and not other.draining and cost[other.key] < cost[place.key]
        ]
        return len(ahead), cost[place.key]

    return tuple(place.key for place in sorted(places, key=rank))


def route_by_definition(
    ring: SlotMap, places: Sequence[Place], slot: int, alive: set[int]
) -> set[int]:
    draining = {place.key for place in places if place.draining}
    order, owners = ring.order(slot), ring.owners(slot)
    reserve = [key for key in order if key not in draining and key not in owners]
    targets = set(owners) & alive
    for owner in owners:
        if owner not in alive:
            stand_in = next((key for key in reserve if key in alive), None)
            if stand_in is not None:
                targets.add(stand_in)
                reserve.remove(stand_in)
    return targets


PLACES = st.lists(
    st.builds(
        Place,
        key=st.integers(0, 2**64 - 1),
        boot=st.integers(0, 2**64 - 1),
        weight=st.sampled_from([0.25, 1.0, 1.0, 3.0]),
        zone=st.sampled_from(["", "a", "b", "ü"]),
        draining=st.sampled_from([False, False, False, True]),
        follows=st.sampled_from([False, False, False, True]),
    ),
    max_size=24,
    unique_by=lambda place: place.key,
)


@settings(deadline=None, max_examples=60)
@given(places=PLACES, replicas=st.integers(0, 4), lazy_slot=st.integers(0, SLOT_COUNT - 1))
def test_order_owners_and_near_are_as_defined(
    places: list[Place], replicas: int, lazy_slot: int
) -> None:
    ring = mapped(places, replicas, lazy=True)
    draining = {place.key for place in places if place.draining}
    for slot in [*SOME_SLOTS, lazy_slot]:
        order = order_by_definition(places, slot)
        owners = [key for key in order if key not in draining][: replicas + 1]
        end = order.index(owners[-1]) + 1 if owners else replicas + 1
        assert ring.order(slot) == order
        assert ring.owners(slot) == tuple(owners)
        assert ring.near(slot) == order[: end + 3]


@settings(deadline=None, max_examples=60)
@given(places=PLACES, replicas=st.integers(0, 4), data=st.data())
def test_stand_ins_are_the_next_live_members_of_the_order(
    places: list[Place], replicas: int, data: st.DataObject
) -> None:
    ring = mapped(places, replicas, lazy=True)
    keys = [place.key for place in places]
    follows = {place.key for place in places if place.follows}
    alive = {key for key in keys if data.draw(st.booleans())}
    for slot in SOME_SLOTS:
        targets = route_by_definition(ring, places, slot, alive)
        expected = [k for k in ring.order(slot) if k in targets]
        late = [k for k in expected if k in follows and k in ring.owners(slot)]
        early = [k for k in expected if k in ring.owners(slot) and k not in late]
        stand_ins = [k for k in expected if k not in ring.owners(slot)]
        assert ring.route(slot, alive) == (*early, *late, *stand_ins)
        assert set(ring.route(slot, set(keys))) == set(ring.owners(slot))
        assert ring.primary(slot, alive) == next(iter(ring.route(slot, alive)), None)


@pytest.mark.parametrize(("count", "zones", "replicas"), [(9, 1, 0), (40, 1, 2), (60, 3, 2)])
@pytest.mark.parametrize("weights", [(1.0,), (1.0, 2.0)])
def test_a_lazy_map_answers_as_an_eager_one(
    count: int, zones: int, replicas: int, weights: tuple[float, ...], few_slots: int
) -> None:
    places = named(count, zones=zones, weights=weights)
    eager, lazy = mapped(places, replicas), mapped(places, replicas, lazy=True)
    assert eager.epoch == lazy.epoch
    for slot in range(few_slots):
        # Whole orders sort everything; near sets of many members only the cheapest.
        assert eager.near(slot) == lazy.near(slot) == lazy.order(slot)[: replicas + 4]


# --- Updates ----------------------------------------------------------------------------------


def picture(ring: SlotMap, count: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    return [(ring.near(slot), ring.owners(slot)) for slot in range(count)]


def changed(places: list[Place], rng: Random) -> list[Place]:
    """Return the members after one to three joins, leaves or changed fields."""
    after = list(places)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        what = rng.randrange(7)
        at = rng.randrange(len(after)) if after else 0
        if what < 2 or not after:
            zone = rng.choice(sorted({place.zone for place in places} or {""}))
            after.append(Place(rng.getrandbits(64), 1, 1.0, zone, False))
        elif what == 2:
            del after[at]
        elif what == 3:
            after[at] = after[at]._replace(draining=not after[at].draining)
        elif what == 4:
            after[at] = after[at]._replace(weight=rng.choice([1.0, 1.0, 2.0]))
        elif what == 5:
            after[at] = after[at]._replace(follows=not after[at].follows)
        else:
            after[at] = after[at]._replace(zone=rng.choice("abc"), boot=rng.getrandbits(40))
    return after


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("count", "zones"), [(1, "a"), (8, "ab"), (15, "abcdefghijklmno"), (40, "a"), (40, "aaaaaaab")]
)
def test_an_updated_map_equals_a_new_one_and_reports_exactly_what_changed(
    seed: int, count: int, zones: str, few_slots: int
) -> None:
    rng = Random(seed)
    places = [p._replace(zone=zones[i % len(zones)]) for i, p in enumerate(named(count))]
    replicas = rng.randrange(4)
    ring = mapped(places, replicas)
    before = picture(ring, few_slots)
    for _ in range(6):
        places = changed(places, rng)
        rng.shuffle(places)
        reported = list(ring.update(places, replicas))
        after = picture(ring, few_slots)
        assert after == picture(mapped(places, replicas), few_slots)
        assert reported == [slot for slot in range(few_slots) if before[slot] != after[slot]]
        before = after


@pytest.mark.parametrize("small", range(8))
def test_a_join_in_a_small_zone_can_enter_a_slot_whatever_its_cost(
    small: int, few_slots: int
) -> None:
    places = named(48)
    places = [p._replace(zone="small") for p in places[:small]] + places[small:]
    ring = mapped(places, 3)
    for number in (100, 101):
        places.append(Place(node_key(f"node-{number}"), 1, 1.0, "small", False))
        ring.update(places, 3)
        assert picture(ring, few_slots) == picture(mapped(places, 3), few_slots)


@pytest.mark.parametrize("came", [1, 2, 5, 12, 25])
def test_a_map_that_grew_equals_a_new_one(came: int, few_slots: int) -> None:
    places = named(25 + came)
    for present in range(25):  # Few members, too: then everybody is near.
        ring = mapped(places[:present], 2)
        ring.update(places[: present + came], 2)
        assert picture(ring, few_slots) == picture(mapped(places[: present + came], 2), few_slots)


def test_an_update_after_the_last_unequal_weight_has_gone_equals_a_new_map(few_slots: int) -> None:
    places = named(41)
    ring = mapped([places[0]._replace(weight=2.0), *places[1:40]], 2)
    for present in (places[1:40], places[1:]):
        ring.update(present, 2)
        assert picture(ring, few_slots) == picture(mapped(present, 2), few_slots)


def test_the_number_of_copies_can_change_and_slots_are_reported() -> None:
    places = named(4)
    ring = mapped(places, 1)
    assert list(ring.update(places, 2)) == list(range(SLOT_COUNT))
    assert picture(ring, SLOT_COUNT) == picture(mapped(places, 2), SLOT_COUNT)
    assert list(ring.update([], 2)) == list(range(SLOT_COUNT))
    assert (ring.near(0), ring.owners(0), ring.route(0, {1}), ring.order(0)) == ((), (), (), ())


def test_a_new_boot_changes_the_epoch_but_no_slot() -> None:
    places = named(5)
    ring, lazy = mapped(places, 1), mapped(places, 1, lazy=True)
    epoch = ring.epoch
    places[2] = places[2]._replace(boot=77)
    assert list(ring.update(places, 1)) == list(lazy.update(places, 1)) == []
    assert ring.epoch == lazy.epoch != epoch


def test_a_lazy_map_forgets_what_it_computed_before_an_update() -> None:
    places = named(6)
    lazy = mapped(places[:5], 1, lazy=True)
    stale = [lazy.near(slot) + lazy.order(slot) for slot in SOME_SLOTS]
    assert len(lazy.update(places, 1)) == SLOT_COUNT
    fresh = [lazy.near(slot) + lazy.order(slot) for slot in SOME_SLOTS]
    eager = mapped(places, 1)
    assert fresh == [eager.near(slot) + eager.order(slot) for slot in SOME_SLOTS]
    assert fresh != stale


def test_one_join_among_a_hundred_computes_few_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    places = named(101)
    ring = mapped(places[:100], 2)
    computed: list[int] = []
    compute = placement.Ranking.nears

    def counted(self: placement.Ranking, wanted: Sequence[int]) -> object:
        computed.extend(wanted)
        return compute(self, wanted)

    monkeypatch.setattr(placement.Ranking, "nears", counted)
    ring.update(places, 2)
    assert len(computed) < SLOT_COUNT * 6 / 100 * 1.2
    computed.clear()
    ring.update(places[1:], 2)
    assert len(computed) < SLOT_COUNT * 6 / 100 * 1.2


def test_whole_orders_are_kept_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "ORDER_ENTRIES_MAX", 30)
    places = named(10)
    ring = mapped(places, 1, lazy=True)
    for slot in SOME_SLOTS:
        assert ring.order(slot) == ring.order(slot) == order_by_definition(places, slot)
        assert len(ring._orders) <= 3


def test_a_repeated_key_or_an_impossible_count_of_copies_is_refused() -> None:
    places = named(2)
    with pytest.raises(AssertionError, match="every key once"):
        SlotMap().update([*places, places[0]._replace(boot=9)], 1)
    with pytest.raises(AssertionError, match="replicas 10"):
        SlotMap().update(places, 10)


# --- Movement ---------------------------------------------------------------------------------


@pytest.mark.parametrize("zones", [1, 2, 3, 5, 12])
@pytest.mark.parametrize("weights", [(1.0,), (1.0, 2.0, 0.5)])
def test_only_copies_of_the_node_that_came_or_went_move(
    zones: int, weights: tuple[float, ...]
) -> None:
    places = named(12, zones=zones, weights=weights)
    whole = mapped(places, 2, lazy=True)
    for left in (places[0], places[7]):
        rest = mapped([place for place in places if place != left], 2, lazy=True)
        for slot in range(0, SLOT_COUNT, 37):
            with_it, without = whole.order(slot), rest.order(slot)
            for copies in range(1, 6):
                held, kept = set(with_it[:copies]), set(without[:copies])
                assert held - {left.key} <= kept
                assert held == kept or left.key in held


@pytest.mark.parametrize("zones", [1, 2, 4])
def test_nothing_moves_a_second_time_when_a_draining_node_has_left(zones: int) -> None:
    places = named(12, zones=zones)
    draining = mapped([drained(places[0]), *places[1:]], 2, lazy=True)
    gone = mapped(places[1:], 2, lazy=True)
    before = mapped(places, 2, lazy=True)
    for slot in range(0, SLOT_COUNT, 37):
        assert draining.owners(slot) == gone.owners(slot)
        assert draining.order(slot).index(places[0].key) == before.order(slot).index(places[0].key)
        assert set(before.owners(slot)) <= set(draining.near(slot))


def test_a_weight_moves_copies_from_or_to_its_node_only() -> None:
    places = named(9, weights=(1.0, 2.0, 0.5))
    heavier = [places[0]._replace(weight=3.0), *places[1:]]
    before, after = mapped(places, 1, lazy=True), mapped(heavier, 1, lazy=True)
    for slot in range(0, SLOT_COUNT, 37):
        came = set(after.owners(slot)) - set(before.owners(slot))
        assert came <= {places[0].key}


# --- Draining, zones, weights, balance --------------------------------------------------------


def test_a_lone_draining_member_owns_nothing_but_is_near() -> None:
    (place,) = named(1)
    ring = mapped([drained(place)], 2)
    assert (ring.owners(5), ring.route(5, {place.key})) == ((), ())
    assert ring.near(5) == ring.order(5) == (place.key,)


def test_without_any_live_member_there_is_no_route() -> None:
    ring = mapped(named(8), 2)
    assert ring.route(3, ()) == ()
    assert ring.primary(3, ()) is None


@pytest.mark.parametrize("zones", [2, 3, 5])
def test_copies_go_to_different_zones_as_evenly_as_there_are_zones(zones: int) -> None:
    places = named(20, zones=zones)
    zone_of = {place.key: place.zone for place in places}
    ring = mapped(places, 4, lazy=True)
    for slot in SOME_SLOTS:
        held = Counter(zone_of[key] for key in ring.owners(slot))
        assert len(held) == min(zones, 5)
        assert max(held.values()) - min(held.values()) <= 1


def test_the_primary_does_not_depend_on_zones() -> None:
    places = named(20, zones=3)
    flat = [place._replace(zone="") for place in places]
    zoned, plain = mapped(places, 2, lazy=True), mapped(flat, 2, lazy=True)
    assert [zoned.order(s)[0] for s in SOME_SLOTS] == [plain.order(s)[0] for s in SOME_SLOTS]


def test_primaries_are_shared_in_proportion_to_weights() -> None:
    weights = (1.0, 2.0, 4.0, 0.125)
    places = named(4, weights=weights)
    ring = mapped(places, 0)
    held = Counter(ring.owners(slot)[0] for slot in range(SLOT_COUNT))
    for place in places:
        expected = SLOT_COUNT * place.weight / sum(weights)
        assert held[place.key] == pytest.approx(expected, abs=4 * expected**0.5)


def test_extreme_weights_still_give_one_order_of_everybody() -> None:
    places = [
        Place(key, 1, weight, "", False) for key, weight in ((9, 5e-324), (3, 1e6), (4, 5e-324))
    ]
    ring = mapped(places, 1)
    assert all(ring.order(slot) == ring.near(slot) == (3, 4, 9) for slot in SOME_SLOTS)


def test_equal_weights_give_the_order_of_plain_draws_also_beside_other_weights() -> None:
    places = named(20)
    plain = mapped(places, 2, lazy=True)
    heavy = mapped([place._replace(weight=7.5) for place in places], 2, lazy=True)
    other = Place(1, 1, 2.0, "z0", False)
    mixed = mapped([*places, other], 2, lazy=True)
    for slot in range(0, SLOT_COUNT, 37):
        assert heavy.order(slot) == plain.order(slot)
        assert tuple(k for k in mixed.order(slot) if k != other.key) == plain.order(slot)


@pytest.mark.parametrize(("count", "limit", "sets"), [(10, 1.06, 5), (100, 1.15, 3)])
def test_three_copies_are_balanced(count: int, limit: float, sets: int) -> None:
    worst = []
    for seed in range(sets):
        rng = Random(seed)
        ring = mapped([Place(rng.getrandbits(64), 1, 1.0, "", False) for _ in range(count)], 2)
        held = Counter(key for slot in range(SLOT_COUNT) for key in ring.owners(slot))
        worst.append(max(held.values()) * count / (3 * SLOT_COUNT))
    assert median(worst) <= limit


# --- What is frozen ---------------------------------------------------------------------------


def test_no_entry_of_the_table_of_logarithms_is_near_enough_to_a_half_to_round_otherwise() -> None:
    with localcontext(prec=40):
        for cell in range(1024):
            exact = -(1 - Decimal(cell) / 1024).ln() * 2**23
            assert abs(exact % 1 - Decimal("0.5")) > Decimal(2) ** -20
    assert [table_entry(cell) for cell in range(1025)] == placement._ENTRIES


def test_the_epoch_depends_on_every_input_and_on_no_sequence() -> None:
    places = named(3, zones=2)
    epochs = [mapped(places, 1, lazy=True).epoch, mapped(places, 2, lazy=True).epoch]
    for field in (
        {"key": 5},
        {"boot": 99},
        {"weight": 2.0},
        {"zone": "x"},
        {"draining": True},
        {"follows": True},
    ):
        other = [places[0]._replace(**field), *places[1:]]
        epochs.append(mapped(other, 1, lazy=True).epoch)
    assert len(set(epochs)) == len(epochs)
    assert 0 not in epochs
    assert mapped(places[::-1], 1, lazy=True).epoch == epochs[0]
    assert SlotMap().epoch == mapped([], 3).epoch == epoch_of([], 3) == 0


def test_slots_of_keys_are_frozen() -> None:
    keys = (b"a", b"user:42", "schlüssel".encode(), b"x" * 512)
    assert [slot_of(key) for key in keys] == [3615, 13482, 8414, 10854]


def shape(places: Sequence[Place]) -> list[str]:
    """Return the orders of four slots, each member by the last digit of its name."""
    names = {node_key(f"node-{i}"): str(i) for i in range(7)}
    ring = mapped(places, 1, lazy=True)
    return ["".join(names[key] for key in ring.order(slot)) for slot in (0, 1, 8191, 16383)]


def test_orders_are_frozen() -> None:
    zoned = named(7, zones=3)
    assert shape(named(7)) == ["5613042", "0162435", "5036421", "5236041"]
    assert shape(zoned) == ["5613420", "0126453", "5043216", "5342610"]
    assert shape(named(7, weights=(1.0, 2.0, 4.0))) == ["5162340", "0124563", "5204361", "5234601"]
    assert shape([drained(zoned[0]), *zoned[1:]]) == ["5613420", "0162435", "5034621", "5342610"]


def rows(columns: int) -> list[list[str]]:
    """Return the rows of all tables with so many columns in the page on placement."""
    page = (ROOT / "docs" / "placement.md").read_text("utf-8")
    cells = [[c.strip() for c in line.split("|")[1:-1]] for line in page.splitlines()]
    return [row for row in cells if len(row) == columns]


def test_the_vectors_on_the_page_are_right() -> None:
    nodes = [row for row in rows(4) if row[0].startswith("node-")]
    assert len(nodes) == 3
    for name, key, draw, exponential in nodes:
        (number,) = hashing.slot_draws(0, [node_key(name)])
        assert (f"{node_key(name):016x}", f"{number:016x}") == (key, draw)
        assert placement.weigh([number], [1.0]) == [int(exponential)]
    keys = [row for row in rows(2) if row[1].isdigit()]
    assert len(keys) == 3
    assert all(slot_of(key.encode()) == int(slot) for key, slot in keys)
    zoned = named(7, zones=3)
    assert [row[1:] for row in rows(5) if row[1].isdigit()] == [
        shape(named(7)),
        shape(zoned),
        shape(named(7, weights=(1.0, 2.0, 4.0))),
        shape([drained(zoned[0]), *zoned[1:]]),
    ]
    assert epoch_of([Place(1, 2, 1.0, "a", False)], 1) == 0xA4C29AC3EB4616BE


def digest(places: Sequence[Place]) -> tuple[int, int]:
    """Return a hash of all near sets, and the epoch."""
    ring = mapped(places, 2)
    nears = b"".join(
        b"".join(key.to_bytes(8, "big") for key in ring.near(slot)) for slot in range(SLOT_COUNT)
    )
    return xxh3_64_intdigest(nears), ring.epoch


def test_whole_tables_and_epochs_are_frozen() -> None:
    assert digest(named(7)) == (0x428580D23BCFABB8, 0xB666B97504D66B9B)
    assert digest(named(40, zones=3, weights=(1.0, 2.0, 0.3))) == (
        0x06248DDE36E5F6E2,
        0x324137FD7E5E0922,
    )
