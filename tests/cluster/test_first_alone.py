"""A read that knows nothing of its key asks the best holder alone, and the others only if need be.

Most reads at a node that has just taken over a slot are of that kind; see `benchmarks.moves`.
"""

from __future__ import annotations

import pytest

from dcc.replication.questions import SETTLE_NS
from dcc.ring.hashing import slot_of
from dcc.types import Kind, NodeKey, Record, Version, node_key
from dcc.units import MILLISECOND
from dcc.wire import messages as m
from tests.support.wired_cores import Cores

STAMPS_A_MS = 1 << 16
A, B, C = node_key("a"), node_key("b"), node_key("c")


class Asked:
    """Node a is in sync with nobody; who is asked for its key, and whose answers are lost."""

    def __init__(self, *mute: NodeKey) -> None:
        self.cores = Cores("a", "b", "c", replicas=2)
        self.cores.settle()
        self.key = self.cores.key_of("a", "b", "c")
        self.cores["a"].sync.standstill(self.cores.mono)
        self.fetched: list[NodeKey] = []
        self._mute = mute
        self.cores.lost = self._lost

    def _lost(self, source: NodeKey, to: NodeKey, message: m.Message) -> bool:
        if isinstance(message, m.Fetch):
            self.fetched.append(to)
        return source in self._mute and isinstance(message, m.FetchReply)

    def plant(self, name: str, value: bytes, *, age_ms: int, kind: Kind = Kind.VALUE) -> None:
        """Put a version at one node only, as if its copies had been lost."""
        cores = self.cores
        version = Version((cores.ms - age_ms) * STAMPS_A_MS, node_key("gone"), 9)
        record = Record(self.key, kind, value, version, 0, -1)
        cores[name].held.store.install(slot_of(self.key), record, cores.ms)

    def read(self) -> m.GetReply | None:
        """Return the answer, or None while there is none."""
        return self.cores.get("a", self.key)

    def answer(self) -> m.GetReply:
        """Wait for the answer of the read under way."""
        self.cores.until(lambda: bool(self.cores.replies), 1.0)
        reply = self.cores.replies[-1][1]
        assert isinstance(reply, m.GetReply)
        return reply


def test_a_value_of_the_best_holder_ends_the_read_and_nobody_else_is_asked() -> None:
    case = Asked()
    case.plant("b", b"v", age_ms=5_000)
    reply = case.read()
    assert reply is not None
    assert (reply.status, reply.value) == (m.Status.HIT, b"v")
    assert case.fetched == [B]
    assert case.cores.held("a", case.key) == b"v", "the next reader finds it here"


def test_without_a_value_there_the_others_are_asked_at_once() -> None:
    case = Asked()
    case.plant("c", b"v", age_ms=5_000)
    reply = case.read()
    assert reply is not None
    assert (reply.status, reply.value) == (m.Status.HIT, b"v")
    assert case.fetched == [B, C]


def test_absence_takes_the_word_of_all() -> None:
    case = Asked()
    reply = case.read()
    assert reply is not None
    assert reply.status is m.Status.MISS
    assert case.fetched == [B, C]


def test_a_silent_best_holder_delays_the_others_by_milliseconds() -> None:
    case = Asked(B)
    case.plant("c", b"v", age_ms=5_000)
    began = case.cores.mono
    assert case.read() is None
    assert case.fetched == [B]
    case.cores.until(lambda: C in case.fetched, 1.0)
    assert case.cores.mono - began <= SETTLE_NS + 10 * MILLISECOND
    assert case.answer().value == b"v"


def test_a_best_holder_that_cannot_be_sent_to_delays_nobody() -> None:
    case = Asked(B)
    case.plant("c", b"v", age_ms=5_000)
    core = case.cores["a"]
    assert case.read() is None
    (number,) = core.questions._open
    frames = core.codec.encode(m.Fetch(key=case.key), request=number)
    case.cores.carry("a", core.undeliverable(B, frames, case.cores.now))
    assert case.fetched == [B, C]
    assert case.answer().value == b"v"


@pytest.mark.parametrize("kind", [Kind.TOMBSTONE, Kind.EVICTED])
def test_a_best_holder_without_the_value_does_not_end_it(kind: Kind) -> None:
    case = Asked()
    case.plant("b", b"", age_ms=5_000, kind=kind)
    case.plant("c", b"newer", age_ms=4_000)
    reply = case.read()
    assert reply is not None
    assert (reply.status, reply.value) == (m.Status.HIT, b"newer")


def test_what_nobody_may_be_served_any_more_does_not_end_it() -> None:
    case = Asked()
    case.plant("b", b"cleared", age_ms=5_000)
    case.plant("c", b"newer", age_ms=3_000)
    case.cores["a"].held.store.clear((case.cores.ms - 4_000) * STAMPS_A_MS)
    reply = case.read()
    assert reply is not None
    assert (reply.status, reply.value) == (m.Status.HIT, b"newer")


def test_where_something_is_known_all_are_asked_together() -> None:
    """A ghost has been here: an older value elsewhere must not end the search for its own."""
    case = Asked()
    case.plant("a", b"", age_ms=4_000, kind=Kind.EVICTED)
    case.plant("b", b"older", age_ms=5_000)
    case.plant("c", b"newer", age_ms=4_000)
    reply = case.read()
    assert reply is not None
    assert (reply.status, reply.value) == (m.Status.HIT, b"newer")
