"""What comes too late, or too early, is refused for certain: nothing of it has happened."""

from __future__ import annotations

import pytest

from dcc.replication.questions import QUESTION_NS
from dcc.ring.hashing import slot_of
from dcc.types import Kind, NodeKey, Record, Version
from dcc.units import MILLISECOND, SECOND
from dcc.wire.messages import (
    Clear,
    ClearReply,
    Code,
    ErrorReply,
    Message,
    Op,
    Outcome,
    Ping,
    Replicate,
    ReplicateAck,
    Write,
    WriteMany,
    WriteReply,
)
from tests.support.wired_cores import Cores

QUESTION_MS = QUESTION_NS // MILLISECOND


def code_of(replies: list[Message]) -> Code:
    assert len(replies) == 1
    assert isinstance(replies[0], ErrorReply), replies
    return replies[0].code


@pytest.fixture
def pair() -> Cores:
    cores = Cores("a", "b", replicas=1)
    cores.settle()
    return cores


def test_a_clear_read_after_its_deadline_is_refused_and_clears_nothing(pair: Cores) -> None:
    key = pair.key_of("a", "b")
    pair.put("a", key, b"kept", w=2)
    assert code_of(pair.ask("a", Clear(seen=0, issued_ms=0), at=pair.ms - 1)) is Code.TOO_LATE
    pair.run(1)
    assert pair.held("a", key) == pair.held("b", key) == b"kept"


def test_a_clear_read_at_its_deadline_clears(pair: Cores) -> None:
    key = pair.key_of("a", "b")
    pair.put("a", key, b"gone", w=2)
    replies = pair.ask("a", Clear(seen=0, issued_ms=0), at=pair.ms)
    assert [type(reply) for reply in replies] == [ClearReply]
    assert pair.held("a", key) is pair.held("b", key) is None


@pytest.mark.parametrize(
    "message",
    [
        Write(op=Op.PUT, key=b"k", value=b"v", direct=True),
        WriteMany(op=Op.PUT, items=((b"k", b"v"), (b"l", b"v"))),
    ],
)
def test_a_write_read_after_its_deadline_is_refused_and_writes_nothing(
    pair: Cores, message: Message
) -> None:
    for name in ("a", "b"):
        assert code_of(pair.ask(name, message, at=pair.ms - 1)) is Code.TOO_LATE
    pair.run(1)
    for name in ("a", "b"):
        assert pair.held(name, b"k") is pair.held(name, b"l") is None
    assert pair.ask("a", message, at=pair.ms), "in time it is done"
    pair.run(1)
    assert b"v" in (pair.held("a", b"k"), pair.held("b", b"k"))


def test_a_repeated_write_gets_the_first_answer_and_is_not_executed_again(pair: Cores) -> None:
    key = pair.key_of("a", "b")
    add = Write(op=Op.INCR, key=key, delta=5)
    first = pair.ask("a", add, request=4711)
    again = pair.ask("a", add, request=4711)
    assert [type(reply) for reply in first] == [WriteReply]
    assert again == first
    assert pair.held("a", key) == b"5"
    assert pair.ask("a", add, request=4712) != first
    assert pair.held("a", key) == b"10"


@pytest.mark.parametrize("kind", [Replicate, ReplicateAck])
def test_a_write_that_wants_two_owners_is_answered_when_two_have_it(
    pair: Cores, kind: type[Message]
) -> None:
    key = pair.key_of("a", "b")
    pair.lost = lambda _source, _to, message: isinstance(message, kind)
    before = len(pair.replies)
    pair.ask("a", Write(op=Op.PUT, key=key, value=b"v", w=2), at=pair.ms + 5_000)
    pair.run(0.5)
    assert len(pair.replies) == before, "one of the two has not said that it has the write"
    pair.lost = lambda _source, _to, _message: False
    pair.until(lambda: len(pair.replies) > before, 3)
    reply = pair.replies[-1][1]
    assert isinstance(reply, WriteReply)
    assert reply.outcome is Outcome.DONE
    assert pair.held("b", key) == b"v"


@pytest.fixture
def doubtful(pair: Cores) -> Cores:
    """Node a stood still, and nothing that it asks b arrives: its writes wait for a question."""
    a, b = pair["a"].key, pair["b"].key
    pair.lost = lambda source, to, _message: (source, to) == (a, b)
    pair.step(2 * SECOND)
    return pair


def undecided(cores: Cores, *, at: int = 0, w: int = 1) -> bytes:
    """Return the key of a write at a that waits for a question."""
    key = cores.key_of("a", "b")
    assert cores.ask("a", Write(op=Op.PUT, key=key, value=b"v", w=w), at=at) == []
    assert len(cores["a"].questions) == 1
    return key


def answers(cores: Cores) -> list[Message]:
    """Let the question end; return what clients were answered meanwhile."""
    before = len(cores.replies)
    cores.run((QUESTION_MS + 50) / 1000)
    assert len(cores["a"].questions) == 0
    return [message for _name, message in cores.replies[before:]]


def test_a_write_that_waited_for_a_question_is_executed_within_its_deadline(
    doubtful: Cores,
) -> None:
    key = undecided(doubtful, at=doubtful.ms + 2 * QUESTION_MS)
    (reply,) = answers(doubtful)
    assert isinstance(reply, WriteReply)
    assert reply.outcome is Outcome.DONE
    assert doubtful.held("a", key) == b"v"


def test_a_write_whose_deadline_passed_undecided_is_refused_as_too_late(doubtful: Cores) -> None:
    key = undecided(doubtful, at=doubtful.ms + QUESTION_MS // 2)
    assert code_of(answers(doubtful)) is Code.TOO_LATE
    assert doubtful.held("a", key) is None


def test_a_write_whose_slot_was_lost_undecided_is_refused_by_the_former_owner(
    doubtful: Cores,
) -> None:
    key = undecided(doubtful)
    doubtful.carry("a", doubtful["a"].leave(doubtful.now))
    assert code_of(answers(doubtful)) is Code.NOT_OWNER
    assert doubtful.held("a", key) is None


def test_a_write_whose_quorum_became_impossible_undecided_is_refused(doubtful: Cores) -> None:
    a, b = doubtful["a"], doubtful["b"]
    doubtful.carry("b", b.leave(doubtful.now))
    doubtful.until(lambda: a.membership.members[b.key].draining)
    key = undecided(doubtful, w=2)  # a has heard of it, and takes the new view at its next tick
    assert code_of(answers(doubtful)) is Code.QUORUM_NOT_REACHED
    assert doubtful.held("a", key) is None


def test_a_write_of_a_key_that_another_holder_has_from_the_future_is_refused(pair: Cores) -> None:
    a, b, key = pair["a"], pair["b"], pair.key_of("a", "b")
    version = Version((pair.ms + 60_000) << 16, b.key, b.boot)
    b.held.store.install(slot_of(key), Record(key, Kind.VALUE, b"later", version, 0, -1), pair.ms)
    a.sync.standstill(pair.mono + 1)
    assert code_of(pair.put("a", key, b"v")) is Code.CLOCK_SKEW
    assert pair.held("a", key) is None, "a stamp below the other one would have lost to it later"


def test_a_node_that_has_no_stamp_yet_refuses_one_from_the_future_by_the_present_one() -> None:
    cores = Cores("a", replicas=0)
    cores.settle()
    key, clock = cores.key_of("a"), cores["a"].held.clock
    assert clock.last == 0
    write = Write(op=Op.PUT, key=key, value=b"v", seen=(cores.ms + 3_600_000) << 16)
    (reply,) = cores.ask("a", write)
    assert code_of([reply]) is Code.CLOCK_SKEW
    assert isinstance(reply, ErrorReply)
    assert reply.stamp == clock.agreed_ms(cores.ms) << 16
    (clear,) = cores.ask("a", Clear(seen=write.seen))
    assert isinstance(clear, ErrorReply)
    assert clear.stamp == reply.stamp


def test_a_node_that_does_not_know_the_time_yet_refuses_writes_and_clears() -> None:
    cores = Cores("a", "b", replicas=1)
    cores.until(lambda: cores["b"].membership.joined)
    cores.settle()
    key = cores.key_of("a", "b")
    cores.put("a", key, b"kept")
    late = cores.add("c")
    cores.stopped = {"a", "b"}
    assert late.membership.joined, "the first answer of a seed is no reading of its clock"
    assert not late.machines.serving
    put = Write(op=Op.PUT, key=b"k", value=b"v", direct=True)
    many = WriteMany(op=Op.PUT, items=((b"k", b"v"),))
    for message in (put, many, Clear(seen=0, issued_ms=0)):
        assert code_of(cores.ask("c", message)) is Code.NOT_READY
    cores.stopped = set()
    cores.settle()
    assert cores.held("a", key) == b"kept"
    assert isinstance(cores.put("c", cores.key_of("c", "a"), b"v")[0], WriteReply)


def test_a_record_refused_for_skew_is_fetched_once_time_has_caught_up(pair: Cores) -> None:
    """A turn that lasted long judges healthy records by an old time."""
    a, b = pair["a"], pair["b"]
    key = pair.key_of("b", "a")
    caught: list[Replicate] = []

    def lost(source: NodeKey, _to: NodeKey, message: Message) -> bool:
        if source == b.key and isinstance(message, Replicate):
            caught.append(message)
        return bool(caught)

    stale = pair.now
    pair.run(0.7)
    pair.lost = lost
    pair.put("b", key, b"v")
    pair.until(lambda: bool(caught), 1)
    assert [record.key for record in caught[0].records] == [key]
    frames = b.codec.encode(caught[0], epoch=b.held.view.epoch)
    pair.lost = lambda _source, _to, message: isinstance(message, Replicate | Ping)
    pair.carry("a", a.receive(b"\1b", frames, stale))
    assert a.counters.dropped["clock_skew"] == 1
    assert pair.held("a", key) is None
    pair.until(lambda: pair.held("a", key) == b"v", 1)
