"""Records from the future are refused and counted, whichever way they come; others are taken."""

from __future__ import annotations

import pytest

from dcc.clock import COUNTER_BITS
from dcc.ring.hashing import slot_of
from dcc.types import Kind, NodeKey, Record, Version
from dcc.wire.messages import Fetch, FetchReply, Get, Message, PullReply, Replicate
from dcc.wire.shapes import SlotGraves
from tests.support.wired_cores import Cores

VALUE = b"from another node"


@pytest.fixture(scope="module")
def pair() -> Cores:
    cores = Cores("a", "b", replicas=1)
    cores.settle()
    return cores


def record_of(cores: Cores, key: bytes, *, ahead_ms: int) -> Record:
    """Return a record that "b" has stamped."""
    b = cores["b"]
    version = Version((cores.ms + ahead_ms) << COUNTER_BITS, b.key, b.boot)
    return Record(key, Kind.VALUE, VALUE, version, 0, -1)


def told(cores: Cores, message: Message, request: int = 0) -> None:
    """Let "a" receive a message of "b", and nothing that follows from it reach anybody."""
    a, b = cores["a"], cores["b"]
    frames = b.codec.encode(message, request=request, epoch=b.held.view.epoch, at=cores.ms)
    a.receive(b"\1b", frames, cores.now)


def by_replication(cores: Cores, record: Record) -> None:
    told(cores, Replicate(seq=1 << 40, records=(record,)))


def by_exchange(cores: Cores, record: Record) -> None:
    told(cores, PullReply(origins=(), slots=(), records=(record,)), request=1 << 40)


def by_question(cores: Cores, record: Record) -> None:
    cores["a"].sync.standstill(cores.mono)
    asked: list[int] = []

    def lost(source: NodeKey, _to: NodeKey, message: Message) -> bool:
        return source == cores["a"].key and isinstance(message, Fetch)

    cores.lost = lost
    cores.ask("a", Get(key=record.key))
    asked += cores["a"].questions._open
    cores.lost = lambda _a, _b, _message: False
    told(cores, FetchReply(records=(record,), sure=True), request=asked[-1])


WAYS = (by_replication, by_exchange, by_question)


@pytest.mark.parametrize("way", WAYS)
def test_a_record_from_the_future_is_refused_and_counted_whichever_way_it_comes(
    pair: Cores, way: type
) -> None:
    key, a = pair.fresh_key("a", "b"), pair["a"]
    before = a.counters.dropped.get("clock_skew", 0)
    record = record_of(pair, key, ahead_ms=60_000)
    way(pair, record)
    assert a.counters.dropped["clock_skew"] == before + 1
    assert pair.held("a", key) is None
    assert a.clock.last < record.version.stamp, "later stamps are not dragged along"


@pytest.mark.parametrize("way", WAYS)
def test_a_record_of_now_is_taken_and_later_stamps_lie_above_it(pair: Cores, way: type) -> None:
    key, a = pair.fresh_key("a", "b"), pair["a"]
    before = a.counters.dropped.get("clock_skew", 0)
    record = record_of(pair, key, ahead_ms=100)
    way(pair, record)
    assert a.counters.dropped.get("clock_skew", 0) == before
    assert pair.held("a", key) == VALUE
    assert a.clock.last >= record.version.stamp


def test_a_grave_from_the_future_is_refused_and_counted_too(pair: Cores) -> None:
    key, a = pair.fresh_key("a", "b"), pair["a"]
    slot, later = slot_of(key), record_of(pair, key, ahead_ms=60_000).version
    cores_before = a.counters.dropped.get("clock_skew", 0)
    reply = PullReply(origins=(), slots=(), records=(), buried=(SlotGraves(slot, (7, *later)),))
    a.exchange._bury(reply, a._at)
    assert a.counters.dropped["clock_skew"] == cores_before + 1
    assert a.held.store.graves.lacking(slot, {}) == []
