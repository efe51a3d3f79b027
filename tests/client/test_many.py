"""Many keys, driven by hand: one message per node, and a way round every node that fails."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcc.client.groups import CHUNK_BYTES, WRITE_CHUNK_KEYS, item_chunks
from dcc.client.shared import ATTEMPT_MOST_NS
from dcc.errors import MaybeStored, NodeUnavailable, Overloaded
from dcc.limits import EXTRA_FRAMES_MAX, FRAME_BYTES_MAX, INLINE_VALUE_BYTES_MAX
from dcc.types import NO_VERSION
from dcc.units import SECOND
from dcc.wire.codec import Codec, Header
from dcc.wire.messages import (
    Code,
    ErrorReply,
    Get,
    GetMany,
    GetManyReply,
    GetReply,
    Message,
    Op,
    Outcome,
    Status,
    Write,
    WriteMany,
    WriteManyReply,
)
from tests.support.client_driver import TRIP_NS, Bench
from tests.support.client_peers import Peer

KEYS = tuple(b"key:%d" % number for number in range(200))
VALUES = {key: b"value of " + key for key in KEYS}


def filled(names: str = "abc", **options: int) -> Bench:
    bench = Bench(names, **options).learn()
    for peer in bench.peers.values():
        peer.data.update(VALUES)
    return bench


def put_many(keys: Iterable[bytes] = KEYS, *, w: int = 1) -> WriteMany:
    return WriteMany(op=Op.PUT, items=tuple((key, VALUES[key]) for key in keys), w=w)


def stored(bench: Bench) -> dict[bytes, bytes]:
    return {key: value for peer in bench.peers.values() for key, value in peer.data.items()}


def test_many_keys_cost_one_message_and_one_round_trip_per_node() -> None:
    bench = filled()
    begun = bench.mono
    assert bench.do(GetMany(keys=(*KEYS, b"absent"))) == VALUES
    assert bench.mono - begun == TRIP_NS
    assert sorted(sent.address for sent in bench.sent) == ["a:1", "b:1", "c:1"]
    for sent in bench.asked(GetMany):
        assert all(bench.order(key)[0] == sent.address for key in sent.message.keys)


def test_a_split_answer_is_put_together() -> None:
    bench = filled("a", replicas=0)

    def answer(header: Header, message: Message) -> list[Message]:
        assert isinstance(message, GetMany)
        cuts = [(0, 70), (70, 150), (150, len(message.keys))]
        return [
            GetManyReply(
                first=low,
                statuses=bytes([Status.HIT]) * (high - low),
                values=tuple(VALUES[key] for key in message.keys[low:high]),
                last=high == len(message.keys),
            )
            for low, high in cuts
        ]

    bench.peers["a:1"].answer = answer
    assert bench.do(GetMany(keys=KEYS)) == VALUES


def test_keys_that_a_node_cannot_speak_for_alone_are_asked_singly() -> None:
    bench = filled("a", replicas=0)
    peer = bench.peers["a:1"]

    def answer(header: Header, message: Message) -> list[Message]:
        if isinstance(message, GetMany):
            statuses = bytes([Status.ELSEWHERE, Status.UNSURE]) + bytes(len(message.keys) - 2)
            values = tuple(VALUES[key] for key in message.keys[2:])
            return [GetManyReply(first=0, statuses=statuses, values=values, last=True)]
        return peer.serve(header, message)

    peer.answer = answer
    found = bench.do(GetMany(keys=KEYS))
    assert [sent.message for sent in bench.asked(Get)] == [Get(key=KEYS[0])]
    assert found == {key: value for key, value in VALUES.items() if key != KEYS[1]}


def test_keys_that_are_unsure_to_a_node_that_sees_another_ring_are_asked_singly() -> None:
    bench = filled()
    peer = bench.peers["a:1"]
    peer.data.clear()
    peer.epoch = 4711

    def answer(header: Header, message: Message) -> list[Message]:
        if isinstance(message, GetMany):
            statuses = bytes([Status.UNSURE]) * len(message.keys)
            return [GetManyReply(first=0, statuses=statuses, values=(), last=True)]
        return [GetReply(status=Status.UNSURE, version=NO_VERSION, value=b"", expires_at_ms=0)]

    peer.answer = answer
    assert bench.do(GetMany(keys=KEYS)) == VALUES


@pytest.mark.parametrize(
    "reply",
    [
        GetManyReply(first=0, statuses=b"\0\0", values=(b"one",), last=True),
        GetManyReply(first=190, statuses=b"\1" * 20, values=(), last=True),
        GetManyReply(first=0, statuses=b"", values=(), last=True),
        ErrorReply(code=Code.OVERLOADED, text=""),
    ],
)
def test_an_answer_that_does_not_fit_the_question_costs_no_key(reply: Message) -> None:
    bench = filled("a", replicas=0)
    peer = bench.peers["a:1"]
    left = [reply]

    def answer(header: Header, message: Message) -> list[Message]:
        if isinstance(message, GetMany) and left:
            return [left.pop()]
        return peer.serve(header, message)

    peer.answer = answer
    assert bench.do(GetMany(keys=KEYS)) == VALUES


def test_the_keys_of_a_node_that_is_gone_are_read_elsewhere_at_once() -> None:
    bench = filled()
    bench.down = {"a:1"}
    begun = bench.mono
    assert bench.do(GetMany(keys=KEYS)) == VALUES
    assert bench.mono - begun <= 2 * TRIP_NS
    assert len(bench.sent) < 8, "still in few messages"


def test_the_keys_of_a_silent_node_are_read_elsewhere_after_one_attempt() -> None:
    bench = filled()
    bench.mute = {"a:1"}
    begun = bench.mono
    assert bench.do(GetMany(keys=KEYS)) == VALUES
    assert bench.mono - begun <= ATTEMPT_MOST_NS + 2 * TRIP_NS


def test_a_node_whose_answer_comes_in_parts_after_it_fell_silent_is_silent_once() -> None:
    bench = filled()
    bench.mute.update(bench.peers)
    call = bench.core.begin(GetMany(keys=KEYS), bench.now)
    bench.perform(call, call.start(bench.now))
    (question, *_) = bench.asked(GetMany)
    while question.address not in bench.core.health.sick:
        bench.step(call)
    peer, key = bench.peers[question.address], question.message.keys[0]
    part = GetManyReply(first=0, statuses=b"\0", values=(VALUES[key],), last=False)
    frames = peer.encode(part, question.header.request)
    bench.perform(call, call.receive(question.address, frames, bench.now))
    while not call.done:
        bench.step(call)
    with pytest.raises(NodeUnavailable) as caught:
        call.outcome()
    assert caught.value.partial == {key: VALUES[key]}


def test_keys_that_nobody_answers_for_are_missing_and_the_rest_is_partial() -> None:
    bench = filled(replicas=0)
    bench.mute = {"a:1"}
    lonely = {key for key in KEYS if bench.order(key)[0] == "a:1"}
    for address in ("b:1", "c:1"):
        peer = bench.peers[address]

        def answer(header: Header, message: Message, peer: Peer = peer) -> list[Message]:
            asked = message.keys if isinstance(message, GetMany) else ()
            if isinstance(message, Get) or lonely & set(asked):
                return [ErrorReply(code=Code.NOT_READY, text="")]
            return peer.serve(header, message)

        peer.answer = answer
    begun = bench.mono
    with pytest.raises(NodeUnavailable) as caught:
        bench.do(GetMany(keys=KEYS))
    assert bench.mono - begun == SECOND
    assert caught.value.partial == {k: v for k, v in VALUES.items() if k not in lonely}


def test_a_put_of_many_stores_all_in_one_message_per_node() -> None:
    bench = Bench().learn()
    written = bench.do(put_many())
    assert (written.done, written.failed) == (200, ())
    assert stored(bench) == VALUES
    assert len(bench.sent) == 3


def test_a_delete_of_many_counts_those_that_were_there() -> None:
    bench = filled("a", replicas=0)
    items = tuple((key, b"") for key in (*KEYS[:50], b"absent"))
    assert bench.do(WriteMany(op=Op.DELETE, items=items)).done == 50


def test_writes_to_a_node_that_is_gone_go_to_the_next_owner() -> None:
    bench = Bench().learn()
    bench.down = {"a:1"}
    written = bench.do(put_many())
    assert (written.done, written.failed) == (200, ())
    assert stored(bench) == VALUES
    assert not bench.peers["a:1"].data


def test_writes_that_a_node_leaves_undone_are_written_singly() -> None:
    bench = Bench("a", replicas=0).learn()
    peer = bench.peers["a:1"]

    def answer(header: Header, message: Message) -> list[Message]:
        if isinstance(message, WriteMany):
            outcomes = bytes([Outcome.ELSEWHERE] * len(message.items))
            return [WriteManyReply(outcomes=outcomes, stamp=3)]
        return peer.serve(header, message)

    peer.answer = answer
    written = bench.do(put_many())
    assert (written.done, written.failed) == (200, ())
    assert len(bench.asked(Write)) == 200


def test_writes_to_a_silent_node_are_repeated_there_and_fail_as_maybe() -> None:
    bench = Bench().learn()
    bench.mute = {"a:1"}
    theirs = tuple(key for key in KEYS if bench.order(key)[0] == "a:1")
    written = bench.do(put_many())
    assert written.failed == theirs
    assert written.maybe == set(theirs)
    assert written.done == 200 - len(theirs)
    sent = [one for one in bench.asked(WriteMany) if one.address == "a:1"]
    assert len(sent) == 4
    assert len({one.header.request for one in sent}) == 1
    assert [one.message.boot for one in sent] == [0, 7, 7, 7]
    others = {key for one in bench.sent if one.address != "a:1" for key in _keys_of(one.message)}
    assert not others & set(theirs), "never a second coordinator"


def _keys_of(message: Message) -> list[bytes]:
    return [key for key, _ in message.items] if isinstance(message, WriteMany) else []


def test_what_was_not_sent_yet_when_a_node_fell_silent_goes_elsewhere() -> None:
    bench = Bench("ab").learn()
    values = dict.fromkeys(KEYS, b"x" * 4000)
    bench.mute = {"a:1"}
    written = bench.do(WriteMany(op=Op.PUT, items=tuple(values.items())))
    theirs = [key for key in KEYS if bench.order(key)[0] == "a:1"]
    assert 0 < len(written.failed) < len(theirs)
    assert written.done + len(written.failed) == 200


def test_fewer_owners_than_asked_for_is_a_failure_of_that_key() -> None:
    bench = Bench("a", replicas=0).learn()

    def answer(header: Header, message: Message) -> list[Message]:
        assert isinstance(message, WriteMany)
        outcomes = bytes([Outcome.MAYBE]) + bytes(len(message.items) - 1)
        return [WriteManyReply(outcomes=outcomes, stamp=3)]

    bench.peers["a:1"].answer = answer
    written = bench.do(put_many(w=2))
    assert written.failed == KEYS[:1]
    assert written.maybe == {KEYS[0]}


def test_writes_that_everybody_refuses_fail_definitely() -> None:
    bench = Bench("a", replicas=0).learn()
    bench.peers["a:1"].answer = lambda header, message: [ErrorReply(code=Code.OVERLOADED, text="")]
    written = bench.do(put_many(KEYS[:3]))
    assert written.failed == KEYS[:3]
    assert not written.maybe
    assert isinstance(written.error, Overloaded)


def test_a_refusal_of_a_repeated_batch_leaves_it_indefinite() -> None:
    bench = Bench("a", replicas=0).learn()
    count = [0]

    def answer(header: Header, message: Message) -> list[Message]:
        count[0] += 1
        return [] if count[0] == 1 else [ErrorReply(code=Code.OVERLOADED, text="")]

    bench.peers["a:1"].answer = answer
    written = bench.do(put_many(KEYS[:3]))
    assert written.maybe == set(KEYS[:3])


def test_the_end_of_a_single_write_inside_many_keeps_its_honesty() -> None:
    bench = Bench("a", replicas=0).learn()
    peer = bench.peers["a:1"]

    def answer(header: Header, message: Message) -> list[Message]:
        if isinstance(message, WriteMany):
            outcomes = bytes([Outcome.ELSEWHERE] * len(message.items))
            return [WriteManyReply(outcomes=outcomes, stamp=3)]
        if isinstance(message, Write) and message.key == KEYS[1]:
            return []
        return peer.serve(header, message)

    peer.answer = answer
    written = bench.do(put_many(KEYS[:3]))
    assert written.failed == (KEYS[1],)
    assert written.maybe == {KEYS[1]}
    assert isinstance(written.error, MaybeStored)


sizes = st.one_of(
    st.integers(0, 200),
    st.integers(INLINE_VALUE_BYTES_MAX - 2, INLINE_VALUE_BYTES_MAX + 2),
    st.sampled_from([70_000]),
)


@settings(deadline=None, max_examples=60)
@given(lengths=st.lists(sizes, max_size=400), repeat=st.integers(1, 12))
def test_chunks_fit_a_frame_and_lose_nothing(lengths: list[int], repeat: int) -> None:
    values = {b"%d" % n: bytes(size) for n, size in enumerate(lengths * repeat)}
    chunks = list(item_chunks(list(values), values))
    assert [key for chunk in chunks for key in chunk] == list(values)
    codec = Codec("dcc", sender=(1 << 64) - 1, boot=(1 << 64) - 1)
    for chunk in chunks:
        items = tuple((key, values[key]) for key in chunk)
        frames = codec.encode(WriteMany(op=Op.PUT, items=items), request=(1 << 64) - 1)
        assert len(frames[0]) <= FRAME_BYTES_MAX
        assert len(frames) - 1 <= EXTRA_FRAMES_MAX
        assert len(chunk) <= WRITE_CHUNK_KEYS
    assert CHUNK_BYTES < FRAME_BYTES_MAX


# ------------------------------------------------------------------ very many


MANY = {b"many:%d" % number: bytes(100) for number in range(5_000)}
PUT_MANY = WriteMany(op=Op.PUT, items=tuple(MANY.items()))


def under_way(bench: Bench) -> int:
    """Return the largest number of writes that one node ever had to answer at a time."""
    most = 0
    for sent in bench.asked(WriteMany):
        trip = bench.delay_ns.get(sent.address, TRIP_NS)
        others = [
            one
            for one in bench.asked(WriteMany)
            if one.address == sent.address and sent.at - trip < one.at <= sent.at
        ]
        most = max(most, len(others))
    return most


def test_a_node_has_two_small_messages_of_writes_at_a_time() -> None:
    bench = Bench().learn()
    assert bench.do(PUT_MANY).done == 5_000
    chunks = [sent.message for sent in bench.asked(WriteMany)]
    assert max(len(_keys_of(chunk)) for chunk in chunks) == WRITE_CHUNK_KEYS
    assert under_way(bench) == 2


def slow(bench: Bench, address: str, each_ns: int) -> None:
    """Let a node work on one message after the other, each for so long."""
    peer, free_at = bench.peers[address], [0]

    def answer(header: Header, message: Message) -> list[Message]:
        if isinstance(message, WriteMany):
            free_at[0] = max(free_at[0], bench.mono) + each_ns
            bench.delay_ns[address] = free_at[0] - bench.mono
        return peer.serve(header, message)

    peer.answer = answer


def test_a_node_that_is_slow_but_gets_on_is_neither_asked_twice_nor_given_up() -> None:
    bench = Bench("a", replicas=0, timeout_ns=20 * SECOND).learn()
    slow(bench, "a:1", ATTEMPT_MOST_NS * 3 // 4)
    assert bench.do(PUT_MANY).failed == ()
    assert len(bench.asked(WriteMany)) == -(-5_000 // WRITE_CHUNK_KEYS)
    assert not bench.asked(Write)
    assert not bench.core.health.sick


def test_what_fails_is_what_was_not_answered_and_what_was_not_sent_is_definite() -> None:
    bench = Bench("a", replicas=0).learn()
    slow(bench, "a:1", ATTEMPT_MOST_NS * 3 // 4)
    written = bench.do(PUT_MANY)
    assert written.done + len(written.failed) == 5_000
    # 750 of 1,000 ms were enough for five; the sixth and seventh are on their way.
    assert written.done == 5 * WRITE_CHUNK_KEYS
    assert written.failed == tuple(MANY)[written.done :]
    assert len(written.maybe) == 2 * WRITE_CHUNK_KEYS
    assert written.maybe == set(written.failed[: 2 * WRITE_CHUNK_KEYS])


def test_a_node_that_falls_silent_with_two_messages_keeps_both_and_loses_the_rest() -> None:
    bench = Bench("abc", replicas=1, timeout_ns=2 * SECOND).learn()
    theirs = [key for key in MANY if bench.order(key)[0] == "a:1"]
    bench.mute = {"a:1"}
    written = bench.do(PUT_MANY)
    assert written.failed == tuple(theirs[: 2 * WRITE_CHUNK_KEYS])
    assert written.maybe == set(written.failed)
    assert not written.maybe & set(stored(bench)), "never a second coordinator"


def test_acknowledgements_that_take_long_do_not_scatter_the_keys() -> None:
    bench = Bench("a", replicas=0, timeout_ns=20 * SECOND).learn()
    bench.delay_ns["a:1"] = 3 * ATTEMPT_MOST_NS
    request = WriteMany(op=Op.PUT, items=PUT_MANY.items[:2_000], w=2)
    assert bench.do(request).done == 2_000
    assert not bench.asked(Write), "not one by one"
