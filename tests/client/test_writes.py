"""Changing one key, driven by hand: what may have happened never gets a second coordinator."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcc.client.shared import ATTEMPT_MOST_NS
from dcc.errors import (
    ClockSkew,
    DccError,
    MaybeStored,
    NodeUnavailable,
    NotANumber,
    OperationTimeout,
    Overloaded,
    ProtocolError,
    QuorumNotReached,
    ValueTooLarge,
)
from dcc.types import NO_VERSION, Version
from dcc.units import MILLISECOND, SECOND
from dcc.wire.codec import Header
from dcc.wire.messages import (
    Clear,
    Code,
    ErrorReply,
    Get,
    GetReply,
    Message,
    Op,
    Outcome,
    Status,
    Write,
    WriteReply,
)
from tests.support.client_driver import TRIP_NS, Bench
from tests.support.client_peers import Answer, Peer

KEY = b"user:42"
PUT = Write(op=Op.PUT, key=KEY, value=b"v")


def answering(peer: Peer, *replies: Message) -> Answer:
    """Return an answer function that gives `replies` to writes in turn, then serves."""
    left = list(replies)

    def answer(header: Header, message: Message) -> list[Message]:
        if isinstance(message, Write) and left:
            return [left.pop(0)]
        return peer.serve(header, message)

    return answer


def refusal(code: Code, stamp: int = 0) -> ErrorReply:
    return ErrorReply(code=code, text="", stamp=stamp)


def test_a_write_goes_to_the_primary_and_returns_its_version() -> None:
    bench = Bench().learn()
    reply = bench.do(PUT)
    assert reply.outcome is Outcome.DONE
    [sent] = bench.asked(Write)
    assert sent.address == bench.order(KEY)[0]
    assert sent.message == PUT
    assert bench.core.seen == reply.version.stamp


def test_a_write_exceeds_everything_that_the_client_has_seen() -> None:
    bench = Bench().learn()
    bench.core.saw(1 << 40)
    bench.core.saw(5)
    assert bench.do(PUT).version.stamp > 1 << 40


def test_a_write_that_was_surely_not_sent_goes_to_the_next_owner() -> None:
    bench = Bench().learn()
    primary, second = bench.order(KEY)[:2]
    bench.down = {primary}
    begun = bench.mono
    assert bench.do(PUT).outcome is Outcome.DONE
    assert bench.mono - begun == TRIP_NS
    [sent] = bench.asked(Write)
    assert sent.address == second
    assert sent.message.direct is True


def test_a_write_without_an_answer_is_repeated_to_the_same_boot_and_ends_as_maybe_stored() -> None:
    bench = Bench().learn()
    primary = bench.order(KEY)[0]
    bench.mute = {primary}
    begun = bench.mono
    with pytest.raises(MaybeStored) as caught:
        bench.do(PUT)
    assert not caught.value.definite
    assert bench.mono - begun == SECOND
    sent = bench.asked(Write)
    assert len(sent) == 4
    assert {one.address for one in sent} == {primary}
    assert len({one.header.request for one in sent}) == 1
    assert [one.message.boot for one in sent] == [0, 7, 7, 7]


def test_the_next_write_goes_round_the_silent_node() -> None:
    bench = Bench().learn()
    primary, second = bench.order(KEY)[:2]
    bench.mute = {primary}
    with pytest.raises(MaybeStored):
        bench.do(PUT)
    bench.sent.clear()
    begun = bench.mono
    assert bench.do(PUT).outcome is Outcome.DONE
    assert bench.mono - begun == TRIP_NS
    assert [one.address for one in bench.asked(Write)] == [second]


def test_an_answer_to_a_repeated_write_counts() -> None:
    bench = Bench().learn()
    primary = bench.order(KEY)[0]
    bench.delay_ns[primary] = ATTEMPT_MOST_NS + 5 * MILLISECOND
    begun = bench.mono
    assert bench.do(PUT).outcome is Outcome.DONE
    assert bench.mono - begun == ATTEMPT_MOST_NS + 5 * MILLISECOND
    assert len(bench.asked(Write)) == 2


def test_a_repeat_that_cannot_be_sent_does_not_make_the_write_definite() -> None:
    bench = Bench().learn()
    primary = bench.order(KEY)[0]
    bench.mute = {primary}
    call = bench.core.begin(PUT, bench.now)
    bench.perform(call, call.start(bench.now))
    bench.down = {primary}
    while not call.done:
        bench.step(call)
    with pytest.raises(MaybeStored):
        call.outcome()
    assert {one.address for one in bench.asked(Write)} == {primary}


def test_a_refusal_of_a_repeat_leaves_the_write_indefinite() -> None:
    bench = Bench().learn()
    primary = bench.order(KEY)[0]
    peer = bench.peers[primary]
    count = [0]

    def answer(header: Header, message: Message) -> list[Message]:
        count[0] += 1
        return [] if count[0] == 1 else [refusal(Code.NOT_OWNER)]

    peer.answer = answer
    with pytest.raises(MaybeStored):
        bench.do(PUT)
    assert {one.address for one in bench.asked(Write)} == {primary}


def test_a_write_that_waits_for_acknowledgements_does_not_make_its_primary_look_silent() -> None:
    bench = Bench().learn()
    primary = bench.order(KEY)[0]
    bench.delay_ns[primary] = 600 * MILLISECOND
    assert bench.do(Write(op=Op.PUT, key=KEY, value=b"v", w=2)).outcome is Outcome.DONE
    assert not bench.core.health.sick


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (Code.QUORUM_NOT_REACHED, QuorumNotReached),
        (Code.NOT_A_NUMBER, NotANumber),
        (Code.VALUE_TOO_LARGE, ValueTooLarge),
        (Code.UNSUPPORTED_VERSION, ProtocolError),
        (Code.CLOCK_SKEW, ClockSkew),
        (Code.MAYBE, MaybeStored),
    ],
)
def test_a_refusal_is_its_own_error(code: Code, error: type[DccError]) -> None:
    bench = Bench().learn()
    peer = bench.peers[bench.order(KEY)[0]]
    peer.answer = answering(peer, refusal(code))
    with pytest.raises(error):
        bench.do(PUT)
    assert len(bench.asked(Write)) == 1


def test_clock_skew_makes_the_client_go_on_from_the_refusers_stamp() -> None:
    bench = Bench().learn()
    bench.core.saw((1 << 64) - 1)
    peer = bench.peers[bench.order(KEY)[0]]
    peer.answer = answering(peer, refusal(Code.CLOCK_SKEW, stamp=77))
    assert bench.do(PUT).version.stamp == 78
    assert [one.message.seen for one in bench.asked(Write)] == [(1 << 64) - 1, 77]


@pytest.mark.parametrize("cleared", [False, True])
def test_after_the_clusters_clock_went_back_own_writes_are_read(cleared: bool) -> None:
    bench = Bench().learn()
    future = 1 << 60
    for peer in bench.peers.values():
        peer.stamp = future
    bench.do(PUT)
    if cleared:
        bench.do(Clear())
    assert bench.core.outlived.known(KEY) > future
    for peer in bench.peers.values():
        peer.stamp = 80
        peer.answer = answering(peer, refusal(Code.CLOCK_SKEW, stamp=77))
    stamp = bench.do(PUT).version.stamp
    assert 77 < stamp < future
    found = bench.do(Get(key=KEY))
    assert (found.status, found.version.stamp) == (Status.HIT, stamp)
    assert bench.core.outlived.known(KEY) == stamp


def test_clock_skew_that_stays_is_told_after_two_corrections() -> None:
    bench = Bench().learn()
    for peer in bench.peers.values():
        peer.answer = lambda header, message: [refusal(Code.CLOCK_SKEW, stamp=77)]
    with pytest.raises(ClockSkew) as caught:
        bench.do(PUT)
    assert caught.value.definite
    assert len(bench.asked(Write)) == 3


def test_an_overloaded_node_is_asked_again_after_a_pause_under_a_new_id() -> None:
    bench = Bench().learn()
    primary = bench.order(KEY)[0]
    peer = bench.peers[primary]
    peer.answer = answering(peer, *[refusal(Code.OVERLOADED)] * 3)
    assert bench.do(PUT).outcome is Outcome.DONE
    sent = bench.asked(Write)
    assert {one.address for one in sent} == {primary}
    assert len({one.header.request for one in sent}) == 4
    assert all(b.at - a.at > 4 * MILLISECOND for a, b in itertools.pairwise(sent))


def test_a_node_that_stays_overloaded_is_told_as_such_and_nothing_was_stored() -> None:
    bench = Bench("a", replicas=0).learn()
    bench.peers["a:1"].answer = lambda header, message: [refusal(Code.OVERLOADED)]
    with pytest.raises(Overloaded) as caught:
        bench.do(PUT)
    assert caught.value.definite


@pytest.mark.parametrize("code", [Code.NOT_OWNER, Code.NOT_READY])
def test_a_node_that_does_not_hold_the_slot_is_followed_by_the_next(code: Code) -> None:
    bench = Bench().learn()
    primary, second = bench.order(KEY)[:2]
    peer = bench.peers[primary]
    peer.answer = answering(peer, refusal(code))
    assert bench.do(PUT).outcome is Outcome.DONE
    assert [one.address for one in bench.asked(Write)] == [primary, second]


def test_being_late_by_the_nodes_clock_is_corrected_and_else_a_definite_timeout() -> None:
    bench = Bench("a", replicas=0).learn()
    peer = bench.peers["a:1"]
    peer.answer = answering(peer, refusal(Code.TOO_LATE))
    bench.core.offset_ms -= 10_000
    assert bench.do(PUT).outcome is Outcome.DONE
    peer.answer = lambda header, message: [refusal(Code.TOO_LATE)]
    with pytest.raises(OperationTimeout) as caught:
        bench.do(PUT)
    assert caught.value.definite


def test_too_few_acknowledgements_are_never_a_silent_success() -> None:
    bench = Bench().learn()
    peer = bench.peers[bench.order(KEY)[0]]
    peer.answer = answering(peer, WriteReply(outcome=Outcome.MAYBE, version=Version(9, 9, 9)))
    with pytest.raises(MaybeStored):
        bench.do(PUT)


def test_a_reply_that_makes_no_sense_leaves_the_write_indefinite() -> None:
    bench = Bench().learn()
    peer = bench.peers[bench.order(KEY)[0]]
    miss = GetReply(status=Status.MISS, version=NO_VERSION, value=b"", expires_at_ms=0)
    peer.answer = answering(peer, miss)
    with pytest.raises(ProtocolError) as caught:
        bench.do(PUT)
    assert not caught.value.definite


def test_without_any_node_a_write_is_definitely_not_stored() -> None:
    bench = Bench().learn()
    bench.down = set(bench.peers)
    with pytest.raises(NodeUnavailable) as caught:
        bench.do(PUT)
    assert caught.value.definite


CODES = [
    Code.OVERLOADED,
    Code.NOT_OWNER,
    Code.NOT_READY,
    Code.TOO_LATE,
    Code.WRONG_CLUSTER,
    Code.QUORUM_NOT_REACHED,
    Code.MAYBE,
]
fates = st.sampled_from(["down", "mute", "serve", "lost", *CODES])


@settings(deadline=None, max_examples=80)
@given(schedule=st.lists(fates, min_size=1, max_size=12), seed=st.integers(0, 999))
def test_whatever_nodes_do_a_write_has_one_coordinator_and_an_honest_end(
    schedule: list[str | Code], seed: int
) -> None:
    """`lost`: executed, but the answer never comes. `mute`: not executed, no answer either."""
    bench = Bench("abcd", replicas=2).learn()
    bench.core.rng = random.Random(seed)
    left = list(schedule)
    executed: set[int] = set()
    unanswered: list[str] = []

    def answer_of(address: str) -> Answer:
        peer = bench.peers[address]

        def answer(header: Header, message: Message) -> list[Message]:
            if not isinstance(message, Write):
                return peer.serve(header, message)
            assert all(one == address for one in unanswered), "a second coordinator"
            fate = left.pop(0) if left else "serve"
            if fate in ("mute", "lost"):
                unanswered.append(address)
                executed.update({header.request} if fate == "lost" else ())
                return []
            if isinstance(fate, Code):
                return [refusal(fate)]
            executed.add(header.request)
            return peer.serve(header, message)

        return answer

    for address, peer in bench.peers.items():
        peer.answer = answer_of(address)
        bench.down |= {address} if left and left[0] == "down" and left.pop(0) else set()
    call = bench.core.begin(PUT, bench.now)
    refused: DccError | None = None
    try:
        bench.run(call)
    except DccError as error:
        refused = error
    assert call.done
    if refused is None:
        assert executed
    else:
        assert not (refused.definite and executed), "called definite, but it happened"
    assert len(executed) <= 1, "executed twice"


def test_a_get_between_writes_raises_what_was_seen() -> None:
    bench = Bench().learn()
    peer = bench.peers[bench.order(KEY)[0]]
    peer.data[KEY], peer.stamp = b"v", 1 << 30
    bench.do(Get(key=KEY))
    assert bench.core.seen == 1 << 30


def test_a_write_that_the_hot_path_has_sent_is_repeated_to_the_same_life_of_its_node() -> None:
    bench = Bench("ab", replicas=1).learn()
    primary = bench.order(KEY)[0]
    boot, seen = 6, 77  # Of the view by which it was sent; the node has restarted since.
    call = bench.core.resume_write(PUT, primary, 5, boot, seen, bench.now, bench.core.codec)
    assert bench.run(call).outcome is Outcome.DONE
    (repeated,) = bench.asked(Write)
    assert repeated.address == primary
    assert (repeated.header.request, repeated.message.boot, repeated.message.seen) == (
        5,
        boot,
        seen,
    )


def test_a_write_that_the_hot_path_has_sent_never_goes_to_another_node() -> None:
    bench = Bench("ab", replicas=1).learn()
    primary = bench.order(KEY)[0]
    bench.mute.add(primary)
    call = bench.core.resume_write(PUT, primary, 5, 7, 0, bench.now, bench.core.codec)
    with pytest.raises(MaybeStored):
        bench.run(call)
    assert {one.address for one in bench.asked(Write)} == {primary}
