"""Cluster time: whose clock counts, and what a stamp is above."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dcc.clock import APART_NS, SETTLE_NS, ClusterClock
from dcc.node import loop
from dcc.types import FREE_CLAIM, Claim, Now, Trust
from dcc.units import MILLISECOND, SECOND

START_MS = 1_700_000_000_000
BOOT = START_MS << 16


FREE, ANCHORED, CONFIRMED = Trust


def clock(ahead_ms: int = 0) -> ClusterClock:
    return ClusterClock(Now(0, (START_MS + ahead_ms) * MILLISECOND), max_skew_ms=500)


def hear(
    one: ClusterClock,
    member: int,
    ahead_ms: int,
    at: int = 0,
    *,
    offset_ms: int = 0,
    target_ms: int | None = None,
    trust: Trust = FREE,
    trip_ms: int = 0,
) -> None:
    """Let `one` hear a member whose own clock is `ahead_ms` of the right time.

    Args:
        trip_ms: each way.
    """
    claim = Claim(offset_ms, offset_ms if target_ms is None else target_ms, trust, False)
    right = START_MS + at // MILLISECOND + ahead_ms
    heard_ms = right - one.own_ms(at) + trip_ms
    one.observe(member, BOOT, right - trip_ms, at, claim=claim, heard_ms=heard_ms)


def agreed(one: ClusterClock, at: int = 0) -> int:
    """Return cluster time at `at`, minus the right time."""
    return one.agreed_ms(one.cluster_ms(at)) - START_MS - at // MILLISECOND


def anchored(ahead_ms: int, *others_ms: int) -> ClusterClock:
    """Return a clock that has stamped, beside members whose own clocks are that much ahead."""
    one = clock(ahead_ms)
    for member, other_ms in enumerate(others_ms, start=1):
        hear(one, member, other_ms)
    assert one.settle(range(1, len(others_ms) + 1), 0)
    one.next_stamp(one.cluster_ms(0))
    return one


# ------------------------------------------------------------------ before the first stamp


def test_a_wrong_clock_follows_the_majority() -> None:
    wrong = clock(ahead_ms=5_000)
    hear(wrong, 1, 0)
    hear(wrong, 2, 10)
    assert agreed(wrong) == 10


def test_two_nodes_agree_whoever_is_wrong() -> None:
    one, two = clock(), clock(ahead_ms=49_000)
    hear(one, 2, 49_000)
    hear(two, 1, 0)
    assert agreed(one) == agreed(two) == 0


@pytest.mark.parametrize("ahead_ms", [-3_600_000, 1_000, 120_000])
def test_a_node_that_starts_takes_over_the_time_of_those_who_have_stamped(ahead_ms: int) -> None:
    late = clock()
    hear(late, 1, 0, offset_ms=ahead_ms, trust=ANCHORED)
    hear(late, 2, 70_000, offset_ms=ahead_ms - 70_000, trust=ANCHORED)
    hear(late, 3, 0)
    assert late.settle((1, 2, 3, 4), 0)
    assert agreed(late) == ahead_ms
    assert late.trust is ANCHORED


def test_a_node_that_starts_goes_along_with_a_correction_under_way() -> None:
    late = clock(ahead_ms=300)
    hear(late, 1, 0, offset_ms=120_000, target_ms=0, trust=CONFIRMED)
    assert late.settle((1,), 0)
    late.follow(0)
    late.follow(120 * SECOND)
    assert agreed(late, 120 * SECOND) == 110_000
    assert late.trust is CONFIRMED


def test_another_boot_is_another_clock() -> None:
    right = clock()
    hear(right, 2, 0)
    right.observe(2, BOOT + 1, START_MS + 1_000 - 60_000, SECOND)
    assert right.skews_ms()[2] == -60_000, "not the best of what its former life said"


def test_time_on_the_way_cancels_out() -> None:
    right = clock()
    for member in (1, 2):
        hear(right, member, 40, trip_ms=300)
    assert agreed(right) == 40


def test_a_node_alone_knows_the_time_at_once() -> None:
    assert clock().settle((), 0)


def test_a_starting_node_waits_for_all_unless_two_who_have_stamped_agree() -> None:
    joining = clock()
    assert not joining.settle((1, 2, 3), 0)
    hear(joining, 1, 0)
    hear(joining, 2, 0)
    assert not joining.settle((1, 2, 3), SECOND), "the third may be the only one to know"
    assert joining.unheard((1, 2, 3)) == [3]
    assert joining.settle((1, 2, 3), SETTLE_NS), "nobody waits for the silent for ever"


def test_word_that_was_long_on_its_way_does_not_set_the_time_of_who_starts() -> None:
    joining = clock()
    held_back = Claim(0, 0, ANCHORED, ahead=False)
    joining.observe(1, BOOT, joining.own_ms(0) - 740, 0, claim=held_back)
    hear(joining, 2, 0, trust=ANCHORED)
    assert not joining.settle((1, 2), 0), "they seem to disagree"
    assert joining.unheard((1, 2)) == [1]
    assert joining.settle((1, 2), SETTLE_NS), "nobody waits for the silent for ever"
    assert agreed(joining) == 0
    hear(joining, 1, 0, trust=ANCHORED)
    assert agreed(joining) == 0


def test_one_who_has_stamped_is_not_enough_among_many() -> None:
    joining = clock()
    hear(joining, 1, 0, offset_ms=9_000, trust=ANCHORED)
    assert not joining.settle((1, 2, 3), 0)


# ------------------------------------------------------------------ once something was stamped


@pytest.mark.parametrize("wrong_ms", [-3_600_000, -1_000, 1_000, 120_000])
def test_whoever_goes_the_time_stays(wrong_ms: int) -> None:
    right = anchored(0, wrong_ms, 0)
    assert right.trust is CONFIRMED
    right.forget(2)
    for second in range(1, 60):
        hear(right, 1, wrong_ms, second * SECOND, offset_ms=-wrong_ms, trust=CONFIRMED)
        right.follow(second * SECOND)
        assert agreed(right, second * SECOND) == 0
    right.forget(1)
    right.follow(60 * SECOND)
    assert agreed(right, 60 * SECOND) == 0


def test_own_clocks_of_those_who_come_count_no_more_once_three_had_agreed() -> None:
    right = anchored(0, 0, 0)
    for member in range(3, 9):
        hear(right, member, 120_000)
    for second in range(1, 30):
        right.follow(second * SECOND)
    assert agreed(right, 29 * SECOND) == 0


@pytest.mark.parametrize("wrong_ms", [-120_000, 120_000])
def test_a_founder_with_a_wrong_clock_is_corrected_by_a_twelfth(wrong_ms: int) -> None:
    founder = anchored(wrong_ms)
    assert founder.trust is ANCHORED
    for member in (1, 2):
        hear(founder, member, 0, offset_ms=wrong_ms, trust=ANCHORED)
    founder.follow(0)
    assert founder.trust is CONFIRMED
    for member in (1, 2):
        hear(founder, member, 0, offset_ms=wrong_ms, target_ms=0, trust=CONFIRMED)
    before = founder.cluster_ms(0)
    for tenth in range(1, 600):
        now = tenth * SECOND // 10
        founder.follow(now)
        assert abs(founder.cluster_ms(now) - before - 100) <= 9, "it never steps"
        before = founder.cluster_ms(now)
    assert abs(agreed(founder, 60 * SECOND)) == pytest.approx(120_000 - 5_000, abs=150)


def test_two_clocks_do_not_correct_each_other() -> None:
    founder = anchored(120_000)
    hear(founder, 1, 0, offset_ms=120_000, trust=ANCHORED)
    for second in range(60):
        founder.follow(second * SECOND)
    assert agreed(founder, 60 * SECOND) == 120_000


def test_one_member_that_claims_anything_moves_nothing() -> None:
    right = anchored(0, 0, 0)
    for second in range(60):
        now = second * SECOND
        hear(right, 1, 0, now, trust=CONFIRMED)
        hear(right, 2, 86_400_000, now, offset_ms=86_400_000, trust=CONFIRMED)
        right.follow(now)
        assert agreed(right, now) == 0
        assert right.cluster_ms(now) == START_MS + second * 1_000


def test_who_is_corrected_is_not_set_back_by_what_others_said_before() -> None:
    """They may have agreed to the correction behind their last word, or not: the next one tells."""
    founder = anchored(120_000)
    for member in (1, 2):
        hear(founder, member, 0, offset_ms=120_000, trust=ANCHORED)
    for second in range(7):
        founder.follow(second * SECOND)
        assert founder.trust is CONFIRMED
        assert abs(agreed(founder, second * SECOND) - 120_000 + second * 1_000 // 12) <= 1
    for member in (1, 2):
        hear(founder, member, 0, 6 * SECOND, offset_ms=120_000, trust=ANCHORED)
    founder.follow(6 * SECOND)
    assert agreed(founder, 6 * SECOND) == 120_000


def test_who_meets_a_majority_that_is_ahead_stamps_by_it_and_expires_nothing() -> None:
    behind = anchored(-120_000)
    before = behind.cluster_ms(0)
    for member in (1, 2):
        hear(behind, member, 0, trust=CONFIRMED)
    behind.follow(0)
    assert agreed(behind) == 0
    assert behind.cluster_ms(0) == before, "what expires goes by the earlier time"
    assert behind.next_stamp(before) == START_MS << 16
    assert not behind.too_far_ahead((START_MS + 500) << 16, before)
    behind.follow(12 * SECOND)
    assert behind.cluster_ms(12 * SECOND) == before + 13_000, "it catches up by a twelfth"


def test_who_meets_a_majority_that_is_behind_steps_back_and_leaves_stamping_to_others() -> None:
    ahead = anchored(120_000)
    for member in (1, 2):
        hear(ahead, member, 0, trust=CONFIRMED)
    ahead.follow(0)
    now_ms = ahead.cluster_ms(0)
    assert now_ms == START_MS
    assert ahead.is_ahead(now_ms)
    assert ahead.claim(now_ms).ahead
    assert ahead.next_stamp(now_ms) > (START_MS + 119_000) << 16, "no stamp goes back"
    assert not ahead.is_ahead(now_ms + 120_000)


def test_of_two_that_have_stamped_the_slower_is_followed_if_it_stays_there() -> None:
    ahead, behind = anchored(60_000), anchored(0)
    for second in range(5):
        now = second * SECOND
        hear(ahead, 2, 0, now, trust=ANCHORED)
        hear(behind, 1, 60_000, now, trust=ANCHORED)
        ahead.follow(now)
        behind.follow(now)
        assert ahead.cluster_ms(now) == behind.cluster_ms(now), "nothing expires by the faster"
        assert agreed(behind, now) == 0
        assert agreed(ahead, now) == (60_000 if now < APART_NS else 0)


def test_messages_that_are_long_under_way_move_nothing() -> None:
    """A loop that stands still for 700 ms reads everything in its inbox as that much too old."""
    right = anchored(0, 0, 0)
    for second in range(1, 60):
        for member in (1, 2):
            hear(right, member, 0, second * SECOND, trust=CONFIRMED, trip_ms=700)
        right.follow(second * SECOND)
        assert agreed(right, second * SECOND) == 0


@pytest.mark.parametrize("drifted_ms", [-800, 800])
def test_a_clock_that_drifted_is_brought_back_to_the_others(drifted_ms: int) -> None:
    right = anchored(0, 0, 0)
    for second in range(1, 45):
        for member in (1, 2):
            hear(right, member, drifted_ms, second * SECOND, trust=CONFIRMED)
        right.follow(second * SECOND)
    assert agreed(right, 44 * SECOND) == drifted_ms


def test_clocks_that_nothing_can_show_are_not_read() -> None:
    right = clock()
    for at_ms in (0, 1 << 47, (1 << 64) - 1):
        right.observe(1, BOOT, at_ms, 0, claim=FREE_CLAIM)
    assert right.skews_ms() == {}


# ------------------------------------------------------------------ stamps


def test_steps_of_the_wall_clock_after_the_start_have_no_effect() -> None:
    right = clock()
    assert right.cluster_ms(3 * SECOND) == START_MS + 3_000


def test_a_stamp_exceeds_the_last_one_what_was_seen_and_the_time() -> None:
    right = clock()
    first = right.next_stamp(START_MS)
    assert first == START_MS << 16
    assert right.next_stamp(START_MS) == first + 1
    assert right.next_stamp(START_MS, seen=first + 9) == first + 10
    right.witness(first + 20)
    assert right.next_stamp(START_MS) == first + 21


def test_what_all_own_stamps_exceed_is_fixed_by_the_first() -> None:
    right = clock()
    seen = (START_MS << 16) + 7
    right.witness(seen)
    assert right.above == seen
    first = right.next_stamp(START_MS)
    right.witness(first + 20)
    assert right.next_stamp(START_MS) > first > right.above == seen


def test_a_full_counter_carries_into_the_milliseconds() -> None:
    right = clock()
    right.witness((START_MS << 16) + 0xFFFF)
    assert right.next_stamp(START_MS) == (START_MS + 1) << 16


def test_stamps_beyond_the_skew_bound_are_refused() -> None:
    right = clock()
    assert not right.too_far_ahead((START_MS + 500) << 16, START_MS)
    assert right.too_far_ahead((START_MS + 501) << 16, START_MS)


def test_a_refuser_names_a_stamp_from_which_its_asker_can_go_on() -> None:
    fresh = clock()
    assert fresh.last == 0
    assert fresh.present(START_MS) == START_MS << 16
    fresh.witness((START_MS + 400) << 16)
    assert fresh.present(START_MS) == (START_MS + 400) << 16
    fresh.witness((START_MS + 90_000) << 16)
    assert not fresh.too_far_ahead(fresh.present(START_MS), START_MS)


def test_the_shells_clock_goes_on_while_the_machine_is_suspended() -> None:
    """In a time namespace whose boot-time clock is an hour ahead, as if it had slept that long."""
    look = "from dcc.node.clocks import read_clocks; import time; "
    look += "print(read_clocks().mono - time.monotonic_ns())"
    space = ["unshare", "--user", "--map-root-user", "--time", "--boottime", "3600"]
    try:
        done = subprocess.run([*space, sys.executable, "-c", look], capture_output=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("no unshare here")
    if done.returncode != 0 and b"unshare" in done.stderr:
        pytest.skip("no time namespaces here")
    assert int(done.stdout) // SECOND in (3_599, 3_600)


@pytest.mark.parametrize("module", ["loop", "reception", "wishes", "transport", "http"])
def test_no_part_of_the_shell_compares_times_of_two_clocks(module: str) -> None:
    """`time.monotonic_ns` stands still during a suspension; a mix would be hours apart."""
    text = (Path(loop.__file__).parent / f"{module}.py").read_text()
    assert "monotonic_ns()" not in text
    assert "time.monotonic()" not in text
    assert "import monotonic" not in text
