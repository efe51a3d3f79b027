"""Slot clocks: they claim what was seen and nothing else, in whichever order it came."""

from __future__ import annotations

import itertools
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from dcc.store.clocks import Clocks
from dcc.store.coverage import Coverage
from dcc.store.notes import NOTES_MAX, UNBOUNDED, Interval
from dcc.types import Origin, Stamp, Version

A: Origin = (1, 10)
B: Origin = (2, 20)

Write = tuple[Origin, Stamp, Stamp]
"(origin, predecessor, stamp)"


def chain(origin: Origin, *stamps: Stamp) -> list[Write]:
    """Return the writes of one origin as it makes them."""
    return [(origin, prev, stamp) for prev, stamp in itertools.pairwise([0, *stamps])]


def version(write: Write) -> Version:
    return Version(write[2], *write[0])


SLOT = 7


def after(*writes: Write, notes_max: int = NOTES_MAX) -> Clocks:
    """Return clocks that have seen `writes`, all of one slot, in this order."""
    clocks = Clocks()
    for origin, prev, stamp in writes:
        if not clocks.witness(SLOT, origin, prev, stamp, notes_max):
            clocks.hold_loose(SLOT, origin, stamp)
    clocks.check()
    return clocks


def noted(clocks: Clocks) -> dict[Origin, list[Interval]]:
    return clocks._notes[SLOT]._spans if clocks.has_notes(SLOT) else {}


def loose(clocks: Clocks) -> dict[Origin, Stamp]:
    return clocks._notes[SLOT]._loose if clocks.has_notes(SLOT) else {}


WRITES = [*chain(A, *range(10, 90, 7)), *chain(B, *range(11, 60, 5))]
subsets = st.lists(st.sampled_from(WRITES), max_size=40)


@given(seen=subsets)
def test_a_clock_covers_exactly_what_was_seen(seen: list[Write]) -> None:
    clocks = after(*seen)
    covered = [w for w in WRITES if clocks.covers(SLOT, version(w))]
    assert covered == [w for w in WRITES if w in seen]


@given(seen=subsets, order=st.randoms(use_true_random=False))
def test_order_and_repetition_do_not_matter(seen: list[Write], order: random.Random) -> None:
    shuffled = seen + seen[: len(seen) // 2]
    order.shuffle(shuffled)
    one, other = after(*seen), after(*shuffled)
    assert one.clock(SLOT) == other.clock(SLOT)
    assert (noted(one), loose(one)) == (noted(other), loose(other))
    assert one.digest(SLOT) == other.digest(SLOT)


@given(seen=subsets, claimed=st.integers(0, len(WRITES)))
def test_a_merged_clock_covers_what_either_covered(seen: list[Write], claimed: int) -> None:
    clocks = after(*seen)
    clocks.merge(SLOT, after(*WRITES[:claimed]).clock(SLOT))
    clocks.check()
    known = [*WRITES[:claimed], *seen]
    covered = [w for w in WRITES if clocks.covers(SLOT, version(w))]
    assert covered == [w for w in WRITES if w in known]


@given(one=subsets, other=subsets)
def test_digests_are_equal_exactly_where_all_that_was_seen_is(
    one: list[Write], other: list[Write]
) -> None:
    same = set(one) == set(other)
    assert (after(*one).digest(SLOT) == after(*other).digest(SLOT)) == same


def test_a_digest_follows_every_change() -> None:
    clocks = Clocks()
    for n, write in enumerate(reversed(WRITES), start=1):
        clocks.witness(SLOT, *write, NOTES_MAX)
        assert clocks.digest(SLOT) == after(*WRITES[-n:]).digest(SLOT)
    before = clocks.digest(SLOT)
    clocks.merge(SLOT, {A: 1000})
    assert clocks.digest(SLOT) != before
    clocks.drop(SLOT)
    assert clocks.digest(SLOT) == 0


def test_the_digest_is_part_of_the_protocol() -> None:
    """Nodes of different releases and machines compare it."""
    first, second, third = chain(A, 5, 6, 9)
    assert Clocks().digest(SLOT) == 0
    assert after(first, second).digest(SLOT) == 0x103BE0CEB09981E3
    assert after(first, third).digest(SLOT) == 0x7E06DB15B85CAB4B


def test_all_writes_leave_no_note() -> None:
    clocks = after(*reversed(WRITES))
    assert clocks.clock(SLOT) == {A: 87, B: 56}
    assert not clocks.has_notes(SLOT)


def test_a_write_behind_a_gap_is_noted_and_absorbed_when_the_gap_is_filled() -> None:
    first, second, third = chain(A, 5, 6, 9)
    clocks = after(first, third)
    assert clocks.clock(SLOT) == {A: 5}
    assert noted(clocks) == {A: [(6, 9)]}
    clocks.witness(SLOT, *second, NOTES_MAX)
    assert clocks.clock(SLOT) == {A: 9}
    assert not clocks.has_notes(SLOT)


def test_notes_that_touch_are_one() -> None:
    writes = chain(A, 1, 2, 3, 4, 5)
    assert noted(after(writes[4], writes[2], writes[3])) == {A: [(2, 5)]}


def test_notes_are_bounded_and_what_finds_no_room_is_loose() -> None:
    writes = chain(A, *range(1, 1000))
    clocks = after(*writes[2::3])
    assert sum(map(len, noted(clocks).values())) == NOTES_MAX
    last = writes[2::3][-1][2]
    assert loose(clocks) == {A: last}
    assert not clocks.covers(SLOT, Version(last, *A))
    assert clocks.exceeds(SLOT, {A: last - 1})


def test_own_writes_are_noted_even_when_the_notes_are_full() -> None:
    strangers = chain(A, *range(1, 1000))[2::3]
    clocks = after(*strangers)
    for write in chain(B, 2000, 2001, 2002, 2003)[1:]:
        assert clocks.witness(SLOT, *write, UNBOUNDED)
    assert clocks.last(SLOT, B) == 2003
    assert noted(clocks)[B] == [(2000, 2003)]


def test_a_write_that_claims_to_precede_itself_advances_nothing() -> None:
    clocks = Clocks()
    assert not clocks.witness(SLOT, A, 9, 9, NOTES_MAX)
    assert not clocks.witness(SLOT, A, 12, 9, NOTES_MAX)
    assert clocks.clock(SLOT) == {}
    assert not clocks.has_notes(SLOT)


def test_a_clock_exceeds_another_by_clock_by_note_or_by_a_loose_write() -> None:
    first, _, third = chain(A, 5, 6, 9)
    assert after(first).exceeds(SLOT, {A: 4})
    assert not after(first).exceeds(SLOT, {A: 5})
    assert after(third).exceeds(SLOT, {A: 8})
    assert not after(third).exceeds(SLOT, {A: 9})
    clocks = Clocks()
    clocks.hold_loose(SLOT, A, 6)
    assert clocks.exceeds(SLOT, {A: 5})
    assert not clocks.exceeds(SLOT, {A: 6})
    assert not clocks.exceeds(SLOT + 1, {})


def test_a_merge_settles_what_was_loose() -> None:
    clocks = Clocks()
    clocks.hold_loose(SLOT, A, 6)
    clocks.merge(SLOT, {A: 5})
    assert loose(clocks) == {A: 6}
    clocks.merge(SLOT, {A: 6})
    assert not clocks.has_notes(SLOT)
    clocks.check()


def test_closing_gaps_advances_over_lost_writes_of_that_origin_only() -> None:
    a, b = chain(A, 1, 2, 3, 4, 5, 6), chain(B, 1, 2, 3)
    clocks = after(a[0], a[2], a[5], b[2])
    clocks.close_gaps(SLOT, A)
    clocks.check()
    assert clocks.clock(SLOT) == {A: 6}
    assert noted(clocks) == {B: [(2, 3)]}


@settings(max_examples=50)
@given(
    steps=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 4), st.booleans()), max_size=60)
)
def test_slots_do_not_know_of_each_other(steps: list[tuple[int, int, bool]]) -> None:
    """Rows are reused and columns are shared; a dictionary of dictionaries is the model."""
    clocks, model = Clocks(), dict[int, dict[Origin, Stamp]]()
    for n, (slot, node, drop) in enumerate(steps, start=1):
        if drop:
            clocks.drop(slot)
            model.pop(slot, None)
        else:
            clocks.merge(slot, {(node, 1): n})
            model.setdefault(slot, {})[(node, 1)] = n
        clocks.check()
    assert {slot: clocks.clock(slot) for slot in clocks.slots()} == model


@settings(max_examples=50)
@given(data=st.data())
def test_a_snapshot_is_covered_once_every_holder_was_heard_covering_it(
    data: st.DataObject,
) -> None:
    """Holders of a slot that is always written never agree; they pass the snapshot in turn."""
    coverage = Coverage({A: 5, B: 7})
    own = {A: 9, B: 9}
    clocks = st.fixed_dictionaries({A: st.integers(3, 9), B: st.integers(5, 9)})
    latest: dict[int, dict[Origin, Stamp]] = {}
    for peer in data.draw(st.lists(st.integers(1, 3), max_size=12)):
        latest[peer] = data.draw(clocks)
        coverage.note(peer, latest[peer], own)
        covering = [p for p in (1, 2, 3) if p in latest and latest[p][A] >= 5 and latest[p][B] >= 7]
        assert coverage.by_all([1, 2, 3], own) == (covering == [1, 2, 3])


def test_a_snapshot_waits_for_what_a_holder_had_seen_when_it_first_covered_it() -> None:
    coverage = Coverage({A: 10})
    coverage.note(1, {A: 10, B: 7}, {A: 10})
    coverage.note(1, {A: 10, B: 9}, {A: 10})
    assert not coverage.by_all([1], {A: 10, B: 6})
    assert coverage.by_all([1], {A: 10, B: 7})
    assert coverage.growth_bytes() > 0
    coverage.note(1, {A: 10, B: 9}, {A: 10, B: 9})
    assert coverage.by_all([1], {A: 10})
    assert coverage.growth_bytes() < 0


def test_writes_younger_than_what_is_to_be_forgotten_need_not_have_been_seen() -> None:
    coverage = Coverage({A: 10})
    coverage.note(1, {A: 30, B: 20}, {A: 10, B: 12})
    assert coverage.by_all([1], {A: 10, B: 12})
