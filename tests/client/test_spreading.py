"""Reads of hot keys ask all owners in turn; driven by hand."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from dataclasses import replace

from dcc.client.routing import View
from dcc.client.spreading import HOT_NS, KEYS_MAX, ROUND, Spreading
from dcc.wire.messages import Get, GetReply, Status
from tests.support.client_driver import Bench

KEY = b"user:42"


def view_of(bench: Bench) -> View:
    view = bench.core.view
    assert view is not None
    return view


def test_the_owner_asked_least_is_next_and_the_sick_are_left_out() -> None:
    bench = Bench("abc", replicas=2).learn()
    view, hot = view_of(bench), Spreading(nullcontext())
    assert hot.owner(KEY, view, {}, 0) is None, "not hot"
    hot.note([KEY], mono=0)
    asked = Counter(hot.owner(KEY, view, {}, 1) for _ in range(30))
    assert asked == dict.fromkeys(bench.order(KEY), 10)
    sick = bench.order(KEY)[0]
    asked = Counter(hot.owner(KEY, view, {sick}, 1) for _ in range(20))
    assert asked == dict.fromkeys(bench.order(KEY)[1:], 10)
    assert hot.owner(KEY, view, set(bench.order(KEY)), 1) is None


def test_only_owners_are_asked() -> None:
    bench = Bench("abc", replicas=1).learn()
    view, hot = view_of(bench), Spreading(nullcontext())
    hot.note([KEY], mono=0)
    assert {hot.owner(KEY, view, {}, 1) for _ in range(9)} == set(bench.order(KEY)[:2])


def test_who_comes_back_is_not_flooded_for_longer_than_a_round() -> None:
    bench = Bench("ab", replicas=1).learn()
    view, hot = view_of(bench), Spreading(nullcontext())
    hot.note([KEY], mono=0)
    away, other = bench.order(KEY)
    for _ in range(10 * ROUND):
        assert hot.owner(KEY, view, {away}, 1) == other
    asked = Counter(hot.owner(KEY, view, {}, 1) for _ in range(2 * ROUND))
    assert asked[away] <= 3 * ROUND // 2


def test_a_key_is_hot_for_a_while_and_no_more_keys_are_kept_than_there_is_room_for() -> None:
    bench = Bench("ab", replicas=1).learn()
    view, hot = view_of(bench), Spreading(nullcontext())
    hot.note([KEY], mono=0)
    assert hot.owner(KEY, view, {}, HOT_NS - 1) is not None
    assert hot.owner(KEY, view, {}, HOT_NS) is None
    assert hot.keys == {}
    for n in range(KEYS_MAX + 10):
        hot.note([b"%d" % n], mono=0)
    assert len(hot.keys) == KEYS_MAX
    assert b"0" not in hot.keys
    hot.enabled = False
    hot.note([KEY], mono=0)
    assert KEY not in hot.keys


def test_of_many_keys_the_hot_ones_go_to_owners_in_turn_and_the_others_where_they_were() -> None:
    bench = Bench("abc", replicas=2).learn()
    view, hot = view_of(bench), Spreading(nullcontext())
    keys = [b"%d" % n for n in range(60)]
    groups: dict[str, list[bytes]] = {}
    for key in keys:
        groups.setdefault(bench.order(key)[0], []).append(key)
    assert hot.regrouped(groups, view, {}, 1) == (groups, frozenset())
    hot.note(keys[::2], mono=0)
    spread, holders = hot.regrouped(groups, view, {}, 1)
    assert sorted(key for group in spread.values() for key in group) == sorted(keys)
    for key in keys[1::2]:
        assert key in spread[bench.order(key)[0]]
    placed = Counter(one for one, group in spread.items() for key in group if key in hot.keys)
    assert placed == dict.fromkeys(bench.order(KEY), 10)
    assert hot.counts() == {"spread_reads": 30}
    moved = {one for one, group in spread.items() if not set(group) <= set(groups.get(one, ()))}
    assert holders == moved


def test_an_answer_notes_that_its_key_is_hot() -> None:
    bench = Bench("ab", replicas=1).learn()
    for peer in bench.peers.values():
        peer.data[KEY] = b"v"
    plain: GetReply = bench.do(Get(key=KEY))
    assert plain.status is Status.HIT
    assert bench.core.hot.keys == {}
    told = replace(plain, hot=True)
    bench.peers[bench.order(KEY)[0]].answer = lambda _header, _message: [told]
    assert bench.do(Get(key=KEY)) == told
    assert list(bench.core.hot.keys) == [KEY]


def test_a_key_that_another_thread_notes_anew_as_it_ends_stays_hot() -> None:
    class Between:
        """A lock whose holder before us has noted the key."""

        def __enter__(self) -> None:
            if hot is not None:
                hot.keys[KEY] = 2 * HOT_NS

        def __exit__(self, *_: object) -> None:
            pass

    hot: Spreading | None = None
    spreading = Spreading(Between())
    spreading.note([KEY], 0)
    hot = spreading
    view = view_of(Bench("ab", replicas=1).learn())
    assert hot.owner(KEY, view, (), HOT_NS) is None
    assert hot.keys == {KEY: 2 * HOT_NS}
