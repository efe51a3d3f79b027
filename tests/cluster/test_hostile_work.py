"""What one message makes a node do before anybody else has his turn is bounded by a constant."""

from __future__ import annotations

import pytest

from dcc.limits import BATCH_WRITES_MAX, SLOT_COUNT
from dcc.node.listings import SCAN_ENTRIES_MAX, SLOT_ENTRIES
from dcc.wire import messages as m
from tests.support.wired_cores import Cores


@pytest.fixture
def cores() -> Cores:
    made = Cores("a", replicas=0)
    made.settle()
    return made


def scanned(cores: Cores, slots: tuple[int, ...]) -> m.ScanReply:
    [reply] = cores.ask("a", m.Scan(slots=slots, prefix=b""))
    assert isinstance(reply, m.ScanReply)
    return reply


def test_a_scan_of_all_slots_ends_early_though_they_are_empty(cores: Cores) -> None:
    every = tuple(range(SLOT_COUNT))
    assert scanned(cores, every).done <= SCAN_ENTRIES_MAX // SLOT_ENTRIES + 1


def test_who_goes_on_finds_every_key(cores: Cores) -> None:
    keys = {b"key-%d" % number for number in range(100)}
    for key in keys:
        cores.put("a", key, b"v")
    left, found, replies = tuple(range(SLOT_COUNT)), set[bytes](), 0
    while left:
        reply = scanned(cores, left)
        assert reply.done > 0
        left, replies = left[reply.done :], replies + 1
        found.update(reply.keys)
    assert found == keys
    assert replies > 10


def test_more_writes_than_one_message_may_have_are_none(cores: Cores) -> None:
    """Each costs some 25 µs, in which nobody else has his turn."""
    items = tuple((b"key-%d" % number, b"v") for number in range(BATCH_WRITES_MAX + 1))
    assert cores.ask("a", m.WriteMany(op=m.Op.PUT, items=items)) == []
    assert cores["a"].stats(cores.now)["detail"]["dropped"] == {"malformed": 1}
    [reply] = cores.ask("a", m.WriteMany(op=m.Op.PUT, items=items[1:]))
    assert isinstance(reply, m.WriteManyReply)
