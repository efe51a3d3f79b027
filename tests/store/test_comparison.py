"""What two holders of a slot have to tell each other, on stores of a few records."""

from __future__ import annotations

from dcc.store import Store
from dcc.store.doubt import NOTHING_OWED, Listing
from dcc.types import NO_VERSION, PREV_UNKNOWN, Version
from tests.store.test_store import ME, OTHER, SLOT, delete, make, put, value_of


def test_lacking_passes_on_the_predecessor_of_what_is_noted_only() -> None:
    store = make()
    for record in (put(5, b"a", prev=0), put(8, b"b", prev=6), put(9, b"c", prev=8)):
        store.apply(SLOT, record, 0)
    prevs = [r.prev for r in store.comparison.lacking(SLOT, {}, NO_VERSION)]
    assert prevs == [PREV_UNKNOWN, 6, 8]
    assert store.has_gaps(SLOT)
    store.merge_clock(SLOT, {OTHER: 6})
    assert store.clock(SLOT) == {OTHER: 9}
    assert not store.has_gaps(SLOT)
    assert {r.prev for r in store.comparison.lacking(SLOT, {}, NO_VERSION)} == {PREV_UNKNOWN}


def test_records_of_a_pull_that_broke_off_are_known_to_be_ahead() -> None:
    """Held without a clock that covers them: others must still be able to get them from here."""
    store = make()
    store.apply(SLOT, put(5), 0)
    assert store.clock(SLOT) == {}
    assert store.comparison.is_ahead(SLOT, {})
    assert [r.version.stamp for r in store.comparison.lacking(SLOT, {}, NO_VERSION)] == [5]
    assert not store.comparison.is_ahead(SLOT, {OTHER: 5})


def test_digests_tell_apart_nodes_that_hold_unlike_loose_writes() -> None:
    """Two pulls that broke off, at different records: one node has something for the other."""
    one, two = make(), make()
    assert one.comparison.digest(SLOT) == 0
    for stamp in (5, 9):
        one.apply(SLOT, put(stamp, b"%d" % stamp), 0)
    two.apply(SLOT, put(9, b"9"), 0)
    assert one.comparison.digest(SLOT) != two.comparison.digest(SLOT)
    two.apply(SLOT, put(5, b"5"), 0)
    assert one.comparison.digest(SLOT) == two.comparison.digest(SLOT)
    two.merge_clock(SLOT, {}, mark=3)
    assert one.comparison.digest(SLOT) == two.comparison.digest(SLOT), (
        "what one has forgotten is its own affair"
    )


def test_pulling_both_ways_makes_two_stores_equal_and_silent() -> None:
    one, two = make(), make()
    for n, store in enumerate((one, two)):
        last = 0
        for stamp in range(10 + n, 40, 2):
            record = put(stamp, b"%d" % (stamp % 5), b"%d" % stamp, origin=(n, 1), prev=last)
            store.write(SLOT, record, 0)
            last = stamp
    for asker, answerer in ((one, two), (two, one), (one, two)):
        clock = dict(answerer.clock(SLOT))
        for record in answerer.comparison.lacking(SLOT, asker.clock(SLOT), NO_VERSION):
            asker.apply(SLOT, record, 0)
        asker.merge_clock(SLOT, clock)
    assert one.clock(SLOT) == two.clock(SLOT)
    assert not one.comparison.is_ahead(SLOT, two.clock(SLOT))
    assert one.comparison.digest(SLOT) == two.comparison.digest(SLOT)
    assert [value_of(one, b"%d" % n) for n in range(5)] == [
        value_of(two, b"%d" % n) for n in range(5)
    ]
    assert value_of(one, b"4") == b"39"


# ------------------------------------------------------------------ one question, one answer


def noted_and_forgotten() -> Store:
    """Return a store with a clock, a note beyond a gap, a mark, and a grave."""
    store = make()
    store.apply(SLOT, put(5, b"a", prev=0), 0)
    store.apply(SLOT, put(9, b"b", prev=7), 0)
    store.apply(SLOT, delete(6, b"gone", prev=5), 0)
    store.forgetting.note_covered(SLOT, 3, {OTHER: 9})
    assert store.forgetting.forget_covered(SLOT, [3]) == 1
    store.merge_clock(SLOT, {}, mark=4)
    return store


def test_a_difference_is_what_all_questions_about_it_answer() -> None:
    store = noted_and_forgotten()
    for theirs in ({}, {OTHER: 5}, {OTHER: 9}):
        found = store.comparison.difference(SLOT, theirs)
        assert found.records == store.comparison.lacking(SLOT, theirs)
        assert (found.clock, found.spans) == (store.clock(SLOT), store.spans(SLOT))
        assert found.mark == store.mark(SLOT)
        ending = store.comparison.ending(SLOT, theirs, found)
        asker = make()
        asker.merge_clock(SLOT, theirs)
        holder = Listing(found.clock, found.spans, found.mark)
        assert bool(ending.listed) == asker.comparison.is_below(SLOT, holder)
        assert not store.comparison.is_below(SLOT, holder), (
            "nobody is below what it has seen itself"
        )
        assert ending.graves == store.graves.lacking(SLOT, theirs)


def test_who_has_seen_everything_and_is_owed_nothing_has_everything() -> None:
    store = noted_and_forgotten()
    clock, spans = store.clock(SLOT), store.spans(SLOT)
    assert store.comparison.has_everything(SLOT, clock, spans)
    assert not store.comparison.has_everything(SLOT, clock, [])
    assert not store.comparison.has_everything(SLOT, {OTHER: 5}, spans)
    other = make()
    other.merge_clock(SLOT, clock, mark=9)
    owed = other.comparison.owed(SLOT)
    assert owed != NOTHING_OWED
    assert not store.comparison.has_everything(SLOT, clock, spans, owed), "it was only told of it"


def test_a_value_is_gone_if_it_was_seen_here_and_its_end_was_forgotten() -> None:
    store = make()
    store.apply(SLOT, delete(6, prev=5), 0)
    store.merge_clock(SLOT, {OTHER: 6}, mark=6)
    version = Version(5, *OTHER)
    assert store.comparison.knows_gone(SLOT, version, {OTHER: 5})
    assert not store.comparison.knows_gone(SLOT, version, {OTHER: 6}), "merely evicted here"
    assert not store.comparison.knows_gone(SLOT, Version(7, *OTHER), {OTHER: 5})
    assert not store.comparison.knows_gone(SLOT, Version(5, *ME), {OTHER: 5})


def test_who_began_to_write_above_the_mark_hid_nothing_under_it() -> None:
    """A newcomer took over the mark 5 and wrote 9; who was away before lacks only the 9."""
    store = make()
    store.merge_clock(SLOT, {OTHER: 5}, mark=5)
    store.write(SLOT, put(9, b"new", origin=ME, prev=0), 0)
    away, version = {OTHER: 5}, Version(5, *OTHER)
    told = Listing(store.clock(SLOT), [], store.mark(SLOT))
    returned = make()
    returned.apply(SLOT, put(5, prev=0), 0)
    for births in ({}, {ME: 4}):
        store.comparison.births = returned.comparison.births = births
        assert not store.comparison.trusts(SLOT, away)
        assert store.comparison.knows_gone(SLOT, version, away)
        assert returned.comparison.is_below(SLOT, told)
    store.comparison.births = returned.comparison.births = {ME: 5}
    assert store.comparison.trusts(SLOT, away)
    assert not store.comparison.knows_gone(SLOT, version, away)
    assert not returned.comparison.is_below(SLOT, told)
    found = store.comparison.difference(SLOT, away)
    assert store.comparison.ending(SLOT, away, found).listed, "he may not know when ME began"
    vouching = Listing(away, [], 0)
    assert not vouching.vouches_for(told)
    assert vouching.vouches_for(told, {ME: 5})


def test_a_span_of_who_began_above_the_mark_hides_nothing_under_it() -> None:
    told = Listing({OTHER: 5}, [(ME, 2, 9)], 5)
    store = make()
    store.merge_clock(SLOT, {OTHER: 5})
    assert store.comparison.is_below(SLOT, told)
    store.comparison.births = {ME: 5}
    assert not store.comparison.is_below(SLOT, told)
