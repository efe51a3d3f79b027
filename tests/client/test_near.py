"""The near cache by hand: what is kept, for how long, what makes it go, and how much it takes."""

from __future__ import annotations

import gc
import tracemalloc
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from dcc.client.near import BOUND_MS, ENTRY_BYTES, Near, NearCache
from dcc.client.outlived import KEYS_MAX
from dcc.units import MILLISECOND
from dcc.wire.codec import Header
from dcc.wire.messages import TAG, Changes

NODE, BOOT = 7, 1
START_MS = 1_000_000


def name(key: str) -> int:
    return xxh3_64_intdigest(key.encode())


class Hand:
    """A near cache, one node that tells what it is told to, and time that passes when told."""

    def __init__(self, **options: Any) -> None:
        self.near = Near(NearCache(**options))
        self.ms = START_MS
        self.number = 0
        self.beat()

    @property
    def mono(self) -> int:
        """Monotonic ns."""
        return self.ms * MILLISECOND

    def beat(
        self, *changes: tuple[str, int], late_ms: int = 0, lost: bool = False, **more: Any
    ) -> None:
        """Let the node tell of changes; the message was written `late_ms` ago, or is lost."""
        told = Changes(
            number=self.number, keys=tuple(name(key) for key, _ in changes),
            stamps=tuple(stamp for _, stamp in changes), cleared=more.get("cleared", 0),
        )  # fmt: skip
        self.number += len(changes)
        if not lost:
            node, boot = more.get("node", NODE), more.get("boot", BOOT)
            epoch = more.get("epoch", 0)
            header = Header(TAG[Changes], node, boot, epoch, 0, 0, self.ms - late_ms)
            self.near.hear(header, told, self.mono, self.ms)
        self.near.check()

    def fill(self, key: str, stamp: int = 5, *, value: bytes = b"v", **more: Any) -> None:
        """Let a read bring a value."""
        read = more.get("read") or self.near.begin()
        left_ms, node = more.get("left_ms"), more.get("node", NODE)
        self.near.fill(key, name(key), value, stamp, left_ms, node, read, self.mono)
        self.near.check()

    def has(self, key: str) -> bool:
        """Return whether a copy would be served."""
        return self.near.find(key, self.mono) is not None


def test_what_was_read_is_served_until_something_newer_is_told() -> None:
    hand = Hand()
    hand.fill("k", 5)
    assert hand.has("k")
    hand.beat(("k", 5), ("other", 9))
    assert hand.has("k"), "this version, and another key"
    hand.beat(("k", 6))
    assert not hand.has("k")
    assert hand.near.invalidations == 1


def test_a_read_that_was_under_way_brings_nothing_older_than_what_was_told() -> None:
    hand = Hand()
    read = hand.near.begin()
    hand.beat(("k", 6))
    hand.fill("k", 5, read=read)
    assert not hand.has("k")
    hand.fill("k", 6, read=read)
    assert hand.has("k")


def test_a_gap_drops_what_the_node_gave_and_what_is_under_way() -> None:
    hand = Hand()
    hand.beat(node=8)
    hand.fill("mine", 5)
    hand.fill("others", 5, node=8)
    read = hand.near.begin()
    hand.beat(("mine", 6), lost=True)
    assert hand.has("mine"), "nobody can know yet"
    hand.beat()
    assert not hand.has("mine")
    assert hand.has("others")
    hand.fill("late", 5, read=read)
    assert not hand.has("late")
    assert hand.near.gaps == 1


def test_silence_ends_what_may_be_served_and_drops_it() -> None:
    hand = Hand()
    hand.fill("k")
    hand.ms += BOUND_MS - 1
    assert hand.has("k")
    hand.ms += 1
    assert not hand.has("k")
    hand.beat()
    assert not hand.has("k"), "it may have stood still"
    hand.fill("k")
    assert hand.has("k")


def test_a_message_that_was_long_on_its_way_is_good_for_less() -> None:
    hand = Hand()
    hand.fill("k")
    hand.ms += BOUND_MS - 10
    hand.beat(late_ms=BOUND_MS - 20)
    assert hand.has("k")
    hand.ms += 20
    assert not hand.has("k")
    hand.beat(late_ms=BOUND_MS)
    hand.fill("k")
    assert not hand.has("k"), "what is so old says nothing of now"


def test_another_life_of_the_node_another_view_and_a_clear_drop_copies() -> None:
    hand = Hand()
    hand.fill("k")
    hand.beat(boot=BOOT + 1)
    assert not hand.has("k")
    hand.fill("k")
    hand.near.drop_all()
    assert not hand.has("k")
    hand.beat(boot=BOOT + 1)
    hand.fill("old", 5)
    hand.fill("new", 7)
    hand.beat(boot=BOOT + 1, cleared=6)
    assert (hand.has("old"), hand.has("new")) == (False, True)
    hand.fill("old", 6)
    assert not hand.has("old"), "nor does a read that was under way bring it"


def test_a_node_of_another_epoch_than_the_client_gives_nothing_to_keep() -> None:
    hand = Hand()
    hand.near.route(1)
    hand.beat(epoch=1)
    hand.beat(epoch=1, node=8)
    hand.fill("k")
    hand.fill("others", node=8)
    read = hand.near.begin()
    assert hand.has("k")
    hand.beat(epoch=2)
    assert (hand.has("k"), hand.has("others")) == (False, True), "another leads, who tells of it"
    hand.fill("k", read=read)
    hand.fill("k")
    assert not hand.has("k"), "this node asks others for what it had"
    read = hand.near.begin()
    hand.near.route(2)
    assert not hand.has("others"), "nobody asks that node any more"
    hand.fill("k", read=read)
    assert not hand.has("k"), "it was read by the view before"
    hand.beat(epoch=2)
    hand.beat(epoch=1, node=8)
    hand.fill("k")
    hand.fill("others", node=8)
    assert (hand.has("k"), hand.has("others")) == (True, False)
    hand.near.route(2)
    hand.beat(epoch=2)
    assert hand.has("k"), "nothing has changed"


def test_a_read_during_which_more_was_told_than_is_remembered_brings_nothing() -> None:
    hand = Hand()
    read = hand.near.begin()
    hand.beat(("k", 100))
    for first in range(0, 3 * KEYS_MAX, 64):
        hand.beat(*((f"other{number}", 100) for number in range(first, first + 64)))
    hand.fill("k", 50, read=read)
    assert not hand.has("k")
    hand.fill("k", 100)
    assert hand.has("k")


def test_messages_that_come_twice_or_overtaken_do_no_harm() -> None:
    hand = Hand()
    hand.fill("k")
    before = hand.near.gaps
    hand.beat()
    hand.beat()
    header = Header(TAG[Changes], NODE, BOOT, 0, 0, 0, hand.ms)
    hand.near.hear(header, Changes(number=0, keys=(), stamps=()), hand.mono, hand.ms)
    assert hand.has("k")
    assert hand.near.gaps == before


def test_copies_expire_and_age() -> None:
    hand = Hand(max_age=0.2)
    hand.fill("short", left_ms=50)
    hand.fill("long", left_ms=5_000)
    hand.fill("over", left_ms=0)
    assert (hand.has("short"), hand.has("long"), hand.has("over")) == (True, True, False)
    hand.ms += 50
    assert (hand.has("short"), hand.has("long")) == (False, True)
    hand.ms += 150
    assert not hand.has("long")


def test_a_node_that_tells_nothing_gives_nothing_to_keep() -> None:
    hand = Hand()
    hand.fill("k", node=99)
    assert not hand.has("k")


def test_it_is_bounded_in_entries_and_in_bytes() -> None:
    hand = Hand(max_entries=10, max_bytes=100_000)
    for number in range(100):
        hand.fill(f"k{number}")
    assert len(hand.near) == 10
    assert hand.near.bytes_used == sum(ENTRY_BYTES + 1 + 2 * len(f"k{n}") for n in range(90, 100))
    hand = Hand(max_bytes=100_000)
    for number in range(100):
        hand.fill(f"k{number}", value=bytes(9_000))
    assert 5 < len(hand.near) < 11
    hand.fill("large", value=bytes(20_000))
    assert not hand.has("large"), "it would displace too much"


def test_a_scan_does_not_flush_what_is_used() -> None:
    hand = Hand(max_entries=100)
    hot = [f"hot{number}" for number in range(50)]
    for _ in range(3):
        for key in hot:
            if not hand.has(key):
                hand.fill(key)
    for number in range(10_000):
        hand.fill(f"scan{number}")
        if number % 20 == 0:
            hand.has(hot[number // 20 % 50])
    assert sum(map(hand.has, hot)) >= 45


def test_what_was_written_here_goes_before_it_could_be_served() -> None:
    hand = Hand()
    hand.fill("k", 5)
    hand.near.forget(name("k"), 8)
    assert not hand.has("k")
    hand.fill("k", 7)
    assert not hand.has("k")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_entries": 0}, ValueError),
        ({"max_bytes": -1}, ValueError),
        ({"max_age": float("inf")}, ValueError),
        ({"max_entries": 1.5}, TypeError),
        ({"max_age": "60"}, TypeError),
    ],
)
def test_options_are_checked(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        NearCache(**options)


@given(seed=st.integers(0, 10_000))
def test_whatever_happens_no_copy_is_older_than_what_was_told_or_could_be_known(seed: int) -> None:
    """Against a model: what the node holds, and when each version came to be there."""
    rng, hand = Random(seed), Hand(max_entries=6)
    held = {f"k{n}": (1, START_MS) for n in range(8)}
    pending: list[tuple[str, int]] = []
    for _ in range(120):
        key = rng.choice(list(held))
        act = rng.random()
        if act < 0.25:
            held[key] = held[key][0] + 1, hand.ms
            pending.append((key, held[key][0]))
        elif act < 0.45:
            hand.beat(*pending, lost=rng.random() < 0.3)
            pending.clear()
        elif act < 0.6:
            hand.ms += rng.randrange(120)
        elif hand.near.find(key, hand.mono) is not None:
            stamp, since_ms = held[key]
            assert hand.near._copies[key].stamp == stamp or hand.ms - since_ms <= BOUND_MS
        else:
            hand.fill(key, held[key][0])
    assert hand.near.counts()["near_entries"] <= 6


@pytest.mark.parametrize("size", [10, 1_000])
def test_a_copy_takes_about_what_it_is_counted_as(size: int) -> None:
    hand, count = Hand(), 5_000
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(count):
            key, stamp, mono = f"key:{number}", (START_MS << 16) + number, hand.mono + number
            value = bytes(size - 1) + b"%d" % (number % 10)
            hand.near.fill(key, name(key), value, stamp, None, NODE, hand.near.begin(), mono)
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0] / count
    finally:
        tracemalloc.stop()
    counted = hand.near.bytes_used / count
    assert hand.near.counts()["near_entries"] == count
    assert 0.75 * counted < taken < 1.05 * counted
