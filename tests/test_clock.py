"""Cluster time: whose clock counts, and what a stamp is above."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dcc.clock import WINDOW_NS, ClusterClock
from dcc.node import loop
from dcc.types import Now
from dcc.units import MILLISECOND, SECOND

START_MS = 1_700_000_000_000
BOOT = START_MS << 16


def clock(ahead_ms: int = 0) -> ClusterClock:
    return ClusterClock(Now(0, (START_MS + ahead_ms) * MILLISECOND), max_skew_ms=500)


def test_a_wrong_clock_follows_the_majority() -> None:
    wrong = clock(ahead_ms=5_000)
    wrong.observe(1, BOOT, START_MS, 0)
    wrong.observe(2, BOOT, START_MS + 10, 0)
    assert wrong.cluster_ms(0) == START_MS + 10


def test_two_nodes_agree_whoever_is_wrong() -> None:
    one, two = clock(), clock(ahead_ms=49_000)
    one.observe(2, two.own_ms(0) << 16, two.own_ms(0), 0)
    two.observe(1, one.own_ms(0) << 16, one.own_ms(0), 0)
    assert one.cluster_ms(0) == two.cluster_ms(0)


@pytest.mark.parametrize("ahead_ms", [-60_000, 60_000])
def test_of_two_nodes_the_one_that_has_been_up_for_longer_is_followed(ahead_ms: int) -> None:
    up_ns = 60 * SECOND
    elder = clock()
    younger = ClusterClock(Now(up_ns, (START_MS + ahead_ms) * MILLISECOND + up_ns), max_skew_ms=500)
    later = up_ns + SECOND
    boot = younger.own_ms(up_ns) << 16
    elder.observe(2, boot, younger.own_ms(later), later)
    younger.observe(1, BOOT, elder.own_ms(later), later)
    assert elder.cluster_ms(later) == younger.cluster_ms(later) == elder.own_ms(later)


def test_another_boot_is_another_clock() -> None:
    right = clock()
    right.observe(2, BOOT, START_MS, 0)
    right.observe(3, BOOT, START_MS, 0)
    later_ms = START_MS + 1_000
    right.observe(2, (later_ms - 60_000) << 16, later_ms - 60_000, SECOND)
    assert right.skews_ms()[2] == -60_000, "not the best of what its former life said"


def test_a_node_left_alone_keeps_the_offset_it_had() -> None:
    wrong = clock(ahead_ms=5_000)
    for member in (1, 2):
        wrong.observe(member, BOOT, START_MS, 0)
    for member in (1, 2):
        wrong.forget(member)
    assert wrong.cluster_ms(0) == START_MS


def test_messages_that_were_read_late_do_not_move_the_clock() -> None:
    """A loop that stood still for 700 ms reads everything in its inbox as that much too old."""
    right = clock()
    for member in (1, 2):
        right.observe(member, BOOT, START_MS, 0)
        right.observe(member, BOOT, START_MS + 10, 710 * MILLISECOND)
    assert right.cluster_ms(SECOND) == START_MS + 1_000


def test_a_clock_that_really_goes_slow_is_believed_after_two_windows() -> None:
    right = clock()
    for second in range(0, 45, 5):
        for member in (1, 2):
            slow = START_MS + second * 1_000 - (800 if second else 0)
            right.observe(member, BOOT, slow, second * SECOND)
    assert 2 * WINDOW_NS < 40 * SECOND
    assert right.offset_ms == -800


def test_a_node_that_reads_everything_late_does_not_call_all_clocks_slow() -> None:
    """Seed 394: 48 ms for each message made an inbox of seconds, and writes were stamped late."""
    busy = clock()
    for second in range(0, 45, 5):
        for member in (1, 2):
            then = START_MS + second * 1_000 - (2_400 if second else 0)
            busy.observe(member, BOOT, then, second * SECOND, late=second > 0)
    assert busy.offset_ms == 0
    for second in range(45, 80, 5):
        for member in (1, 2):
            busy.observe(member, BOOT, START_MS + second * 1_000 - 300, second * SECOND)
    assert busy.offset_ms == -300, "once it keeps up again it believes what it reads"


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


def test_a_full_counter_carries_into_the_milliseconds() -> None:
    right = clock()
    right.witness((START_MS << 16) + 0xFFFF)
    assert right.next_stamp(START_MS) == (START_MS + 1) << 16


def test_stamps_beyond_the_skew_bound_are_refused() -> None:
    right = clock()
    assert not right.too_far_ahead((START_MS + 500) << 16, START_MS)
    assert right.too_far_ahead((START_MS + 501) << 16, START_MS)


def test_a_starting_node_is_settled_when_two_others_or_all_were_read() -> None:
    assert clock().settle(1)
    joining = clock()
    assert not joining.settle(5)
    joining.observe(1, BOOT, START_MS, 0)
    assert not joining.settle(5)
    joining.observe(2, BOOT, START_MS, 0)
    assert joining.settle(5)
    joining.forget(1)
    assert joining.settle(5)


def test_the_shells_clock_goes_on_while_the_machine_is_suspended() -> None:
    """In a time namespace whose boot-time clock is an hour ahead, as if it had slept that long."""
    look = "from dcc.node.loop import read_clocks; import time; "
    look += "print(read_clocks().mono - time.monotonic_ns())"
    space = ["unshare", "--user", "--map-root-user", "--time", "--boottime", "3600"]
    try:
        done = subprocess.run([*space, sys.executable, "-c", look], capture_output=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("no unshare here")
    if done.returncode != 0 and b"unshare" in done.stderr:
        pytest.skip("no time namespaces here")
    assert int(done.stdout) // SECOND in (3_599, 3_600)


@pytest.mark.parametrize("module", ["loop", "transport", "http"])
def test_no_part_of_the_shell_compares_times_of_two_clocks(module: str) -> None:
    """`time.monotonic_ns` stands still during a suspension; a mix would be hours apart."""
    text = (Path(loop.__file__).parent / f"{module}.py").read_text()
    assert "monotonic_ns()" not in text
    assert "time.monotonic()" not in text
    assert "import monotonic" not in text
