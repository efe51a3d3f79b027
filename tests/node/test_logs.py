"""Log lines: never in the loop's way, thinned in bursts, one JSON object or one line each."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from dcc.node.logs import BURST, EVENTS_MAX, LINES_MAX, Thinner, Writer, level_of
from dcc.units import SECOND
from tests.support.processes import wait_until


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    for fd in (read, write):
        try:
            os.close(fd)
        except OSError:
            pass


def test_lines_arrive_in_order(pipe: tuple[int, int]) -> None:
    read, write = pipe
    writer = Writer()
    for n in range(100):
        writer.write(write, f"line {n}")
    writer.close()
    assert os.read(read, 1 << 16).split(b"\n")[:-1] == [b"line %d" % n for n in range(100)]


def test_a_full_pipe_drops_lines_and_counts_them_and_never_blocks(pipe: tuple[int, int]) -> None:
    read, write = pipe
    writer = Writer()
    began = time.monotonic()
    for _ in range(LINES_MAX * 2):
        writer.write(write, "x" * 1_000)
    assert time.monotonic() - began < 5
    assert LINES_MAX // 2 < writer.dropped <= LINES_MAX
    writer.close(timeout_s=0.1)
    os.close(read)
    wait_until(lambda: not writer._thread.is_alive())


def test_a_reader_that_is_gone_harms_nobody(pipe: tuple[int, int]) -> None:
    read, write = pipe
    os.close(read)
    writer = Writer()
    writer.write(write, "to nobody")
    writer.write(write, "nor this")
    writer.close()
    assert not writer._thread.is_alive()


def test_a_burst_is_thinned_and_the_next_line_says_by_how_much() -> None:
    thin = Thinner()
    assert [thin("a", 0) for _ in range(BURST + 5)] == [0] * BURST + [None] * 5
    assert thin("b", 0) == 0
    assert thin("a", SECOND - 1) is None
    assert thin("a", SECOND) == 6
    assert thin("a", SECOND) == 0


def test_event_names_are_bounded() -> None:
    thin = Thinner()
    for n in range(EVENTS_MAX):
        assert thin(n, 0) == 0
    assert thin("one more", 0) is None
    assert thin(5, 0) == 0


def test_strangers_are_worth_a_warning_and_garbage_is_not() -> None:
    assert level_of("message_dropped", {"reason": "foreign_cluster"}) == "warning"
    assert level_of("message_dropped", {"reason": "malformed"}) == "debug"
    assert level_of("member_dead", {}) == "warning"
    assert level_of("view_changed", {}) == "info"
