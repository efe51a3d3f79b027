"""Requests after their deadline: refused at first, dropped when there are many, never served."""

from __future__ import annotations

import pytest

from dcc.limits import INLINE_VALUE_BYTES_MAX
from dcc.node.lateness import MARGIN_MS, TOLD_MAX
from dcc.ring.hashing import slot_of
from dcc.wire.messages import (
    Code,
    ErrorReply,
    Get,
    GetMany,
    GetManyReply,
    GetReply,
    Message,
    Op,
    Write,
    WriteMany,
)
from tests.support.wired_cores import Cores


def settled() -> Cores:
    cores = Cores("a", "b", replicas=1)
    cores.settle()
    cores.put("a", KEY, b"v")
    return cores


KEY = b"k"
READS = [Get(key=KEY), Get(key=KEY, direct=True), Get(key=KEY, r=255), GetMany(keys=(KEY,))]


def code(answers: list[Message]) -> list[Code | str]:
    return [a.code if isinstance(a, ErrorReply) else type(a).__name__ for a in answers]


@pytest.mark.parametrize("read", READS, ids=str)
def test_a_read_behind_its_deadline_is_refused(read: Message) -> None:
    cores = settled()
    assert code(cores.ask("a", read, at=cores.ms - 1)) == [Code.TOO_LATE]
    assert code(cores.ask("b", read, at=cores.ms - 1)) == [Code.TOO_LATE]


def test_a_read_without_a_deadline_or_before_it_is_served() -> None:
    cores = settled()
    primary = next(n for n in "ab" if cores[n].held.view.is_primary(slot_of(KEY)))
    for at in (0, cores.ms, cores.ms + 1):
        assert code(cores.ask(primary, Get(key=KEY), at=at)) == [GetReply.__name__]
        assert code(cores.ask(primary, GetMany(keys=(KEY,)), at=at)) == [GetManyReply.__name__]


def test_many_late_reads_are_dropped_and_those_that_would_be_late_with_them() -> None:
    cores = settled()
    primary = next(n for n in "ab" if cores[n].held.view.is_primary(slot_of(KEY)))
    answers = [cores.ask(primary, Get(key=KEY), at=cores.ms - 1) for _ in range(TOLD_MAX + 50)]
    assert sum(map(len, answers)) == TOLD_MAX
    assert cores.ask(primary, Get(key=KEY), at=cores.ms + MARGIN_MS - 1) == []
    assert code(cores.ask(primary, Get(key=KEY), at=cores.ms + MARGIN_MS)) == ["GetReply"]
    assert cores[primary].lateness.refused == TOLD_MAX + 51
    cores.run(1.1)
    assert code(cores.ask(primary, Get(key=KEY), at=cores.ms + 1)) == ["GetReply"]


def test_many_late_writes_are_dropped_and_none_is_carried_out() -> None:
    cores = settled()
    primary = next(n for n in "ab" if cores[n].held.view.is_primary(slot_of(KEY)))
    late = Write(op=Op.PUT, key=KEY, value=b"late")
    answers = [cores.ask(primary, late, at=cores.ms - 1) for _ in range(TOLD_MAX + 50)]
    assert [code(one) for one in answers[:TOLD_MAX]] == [[Code.TOO_LATE]] * TOLD_MAX
    assert answers[TOLD_MAX:] == [[]] * 50
    assert cores[primary].writes.too_late == TOLD_MAX + 50
    assert cores.held(primary, KEY) == b"v"
    # Nearly late: nobody would wait for the answer. The next has time enough.
    assert cores.ask(primary, late, at=cores.ms + MARGIN_MS - 1) == []
    assert code(cores.ask(primary, late, at=cores.ms + MARGIN_MS)) == ["WriteReply"]


def test_late_writes_that_are_large_or_many_are_told_each() -> None:
    cores = settled()
    primary = next(n for n in "ab" if cores[n].held.view.is_primary(slot_of(KEY)))
    for _ in range(TOLD_MAX):
        cores.ask(primary, Get(key=KEY), at=cores.ms - 1)
    large = Write(op=Op.PUT, key=KEY, value=bytes(INLINE_VALUE_BYTES_MAX))
    many = WriteMany(op=Op.PUT, items=((KEY, b"late"),))
    for write in (large, many):
        assert code(cores.ask(primary, write, at=cores.ms - 1)) == [Code.TOO_LATE]
    assert cores.held(primary, KEY) == b"v"
