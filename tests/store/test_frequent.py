"""What is met most often: no count is too low, and what is frequent is surely watched."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from dcc.store.frequent import SpaceSaving

items = st.lists(st.integers(0, 12).map(lambda n: b"%d" % n), max_size=200)


@given(stream=items, places=st.integers(1, 9))
def test_counts_are_never_too_low_and_too_high_by_their_error_at_most(
    stream: list[bytes], places: int
) -> None:
    met, exact = SpaceSaving(places), Counter(stream)
    for item in stream:
        met.count(item)
        met.check()
    top = met.top(places)
    assert met.total == len(stream)
    for one in top:
        assert one.times - one.error <= exact[one.item] <= one.times
        assert one.error <= len(stream) // places
    assert [one.times for one in top] == sorted((one.times for one in top), reverse=True)
    surely = {item for item, times in exact.items() if times > len(stream) / places}
    assert surely <= {one.item for one in top}


@given(stream=items, more=items, places=st.integers(1, 9))
def test_what_was_met_before_a_fading_weighs_half(
    stream: list[bytes], more: list[bytes], places: int
) -> None:
    met = SpaceSaving(places)
    for item in stream:
        met.count(item)
    before = {one.item: one.times for one in met.top(places)}
    met.fade()
    met.check()
    assert {one.item: one.times for one in met.top(places)} == {
        item: times // 2 for item, times in before.items() if times > 1
    }
    for item in more:
        met.count(item)
        met.check()


def test_what_is_never_met_again_is_forgotten() -> None:
    met = SpaceSaving(8)
    for n in range(1_000):
        met.count(b"%d" % (n % 5))
    for _ in range(9):
        met.fade()
    assert met.top(8) == []
    assert met.total <= 1
