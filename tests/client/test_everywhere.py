"""Clear, the number of copies and convergence: asked of any node, driven by hand."""

from __future__ import annotations

import pytest

from dcc.client.shared import ATTEMPT_MOST_NS
from dcc.errors import (
    ClockSkew,
    MaybeStored,
    NodeUnavailable,
    OperationTimeout,
    Overloaded,
    ProtocolError,
)
from dcc.types import Settings
from dcc.units import MILLISECOND, SECOND
from dcc.wire.codec import Header
from dcc.wire.messages import (
    Clear,
    ClearReply,
    Code,
    ConvergedGet,
    ConvergedReply,
    ErrorReply,
    Message,
    SetReplicas,
    SettingsReply,
    TopologyGet,
)
from tests.support.client_driver import START_MS, TRIP_NS, Bench
from tests.support.client_peers import Peer

Question = Clear | SetReplicas | ConvergedGet
CHANGES: list[Question] = [Clear(), SetReplicas(replicas=2)]
QUESTIONS: list[Question] = [*CHANGES, ConvergedGet()]


@pytest.mark.parametrize("question", QUESTIONS)
def test_one_node_is_asked_and_answers_for_all(question: Question) -> None:
    bench = Bench().learn()
    bench.do(question)
    assert len(bench.asked(type(question))) == 1


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_silent_node_is_followed_by_another(question: Question) -> None:
    bench = Bench().learn()
    bench.mute = {"a:1", "b:1"}
    begun = bench.mono
    bench.do(question)
    assert bench.mono - begun <= 2 * ATTEMPT_MOST_NS + TRIP_NS
    assert not bench.core.health.sick, "it may rightly take its time"


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("code", [Code.NOT_READY, Code.OVERLOADED, Code.TOO_LATE])
def test_a_definite_refusal_is_followed_by_another_node(question: Question, code: Code) -> None:
    bench = Bench().learn()
    refusals = [ErrorReply(code=code, text="")] * 2
    for peer in bench.peers.values():

        def answer(header: Header, message: Message, peer: Peer = peer) -> list[Message]:
            if isinstance(message, type(question)) and refusals:
                return [refusals.pop()]
            return peer.serve(header, message)

        peer.answer = answer
    bench.do(question)
    assert len(bench.asked(type(question))) == 3


@pytest.mark.parametrize("question", CHANGES)
def test_a_change_without_an_answer_is_indefinite(question: Question) -> None:
    bench = Bench().learn()
    bench.mute = set(bench.peers)
    with pytest.raises(MaybeStored):
        bench.do(question)


@pytest.mark.parametrize("question", CHANGES)
def test_a_refusal_leaves_a_change_open_while_a_node_asked_before_is_silent(
    question: Question,
) -> None:
    bench = Bench().learn()
    bench.mute = {"a:1", "b:1"}
    for peer in bench.peers.values():
        peer.answer = lambda _header, _message: [ErrorReply(code=Code.MALFORMED, text="no")]
    with pytest.raises(MaybeStored):
        bench.do(question)
    assert len(bench.asked(type(question))) > 1


def test_a_question_without_an_answer_is_a_timeout() -> None:
    bench = Bench().learn()
    bench.mute = set(bench.peers)
    with pytest.raises(OperationTimeout) as caught:
        bench.do(ConvergedGet())
    assert caught.value.definite


@pytest.mark.parametrize("question", QUESTIONS)
def test_nobody_there_is_unavailable(question: Question) -> None:
    bench = Bench().learn()
    bench.down = set(bench.peers)
    with pytest.raises(NodeUnavailable):
        bench.do(question)


@pytest.mark.parametrize("question", QUESTIONS)
def test_what_everybody_refuses_is_told_at_the_deadline(question: Question) -> None:
    bench = Bench().learn()
    for peer in bench.peers.values():
        peer.answer = lambda header, message: [ErrorReply(code=Code.OVERLOADED, text="")]
    with pytest.raises(Overloaded):
        bench.do(question)
    assert len(bench.sent) < 60, "with growing pauses"


@pytest.mark.parametrize("question", QUESTIONS)
def test_an_answer_to_another_question_is_a_protocol_error(question: Question) -> None:
    bench = Bench().learn()
    wrong = ConvergedReply(converged=True, under_replicated=0, reasons=())
    reply = wrong if question in CHANGES else ClearReply(stamp=1, everywhere=True)
    for peer in bench.peers.values():
        peer.answer = lambda header, message: [reply]
    with pytest.raises(ProtocolError):
        bench.do(question)


def test_a_change_that_not_everybody_confirmed_is_indefinite() -> None:
    bench = Bench().learn()
    replies: dict[type, Message] = {
        Clear: ClearReply(stamp=9, everywhere=False),
        SetReplicas: SettingsReply(settings=Settings(2, 1, 0), everywhere=False),
    }
    for peer in bench.peers.values():
        peer.answer = lambda header, message: [replies[type(message)]]
    for question in CHANGES:
        with pytest.raises(MaybeStored):
            bench.do(question)


def issued_ms(bench: Bench) -> list[int]:
    """Return the time that each `Clear` sent so far names."""
    return [sent.message.issued_ms for sent in bench.asked(Clear)]


def test_a_clear_names_the_cluster_time_at_which_the_call_began() -> None:
    bench = Bench().learn()
    bench.mute = {"a:1", "b:1"}
    begun = bench.mono
    bench.do(Clear())
    issued = set(issued_ms(bench))
    assert len(issued) == 1, "a node that is asked later is told the same"
    assert issued.pop() == pytest.approx(START_MS + begun // MILLISECOND, abs=2)


def test_a_clear_names_the_same_to_each_node_whatever_is_learned_meanwhile() -> None:
    """By it they give a repeated clear one stamp, which covers nothing that came later."""
    bench = Bench().learn()

    for peer in bench.peers.values():

        def answer(header: Header, message: Message, peer: Peer = peer) -> list[Message]:
            bench.core.saw(bench.core.seen + 5)
            bench.core.offset_ms += 100
            return [] if len(bench.asked(Clear)) < 2 else peer.serve(header, message)

        peer.answer = answer
    bench.do(Clear())
    sent = [one.message for one in bench.asked(Clear)]
    assert len(sent) == 2
    assert sent[0] == sent[1]


def test_a_client_that_has_just_begun_learns_the_time_before_it_clears() -> None:
    bench = Bench()
    bench.do(Clear())
    assert issued_ms(bench) == [pytest.approx(START_MS + bench.mono // MILLISECOND, abs=4)]


def test_a_clear_without_any_time_says_so() -> None:
    bench = Bench().learn()
    bench.core._clock_known = False
    bench.do(Clear())
    assert issued_ms(bench)[0] == 0


@pytest.mark.parametrize("question", CHANGES)
def test_a_refusal_for_being_late_corrects_the_time_of_a_change(question: Question) -> None:
    """As after the machine slept: its monotonic clock stood still, so all is late."""
    bench = Bench().learn()
    bench.core.offset_ms -= 3_600_000
    for peer in bench.peers.values():

        def answer(header: Header, message: Message, peer: Peer = peer) -> list[Message]:
            now_ms = START_MS + bench.mono // MILLISECOND
            if isinstance(message, type(question)) and header.at < now_ms:
                return [ErrorReply(code=Code.TOO_LATE, text="read too late")]
            return peer.serve(header, message)

        peer.answer = answer
    began = bench.mono
    bench.do(question)
    sent = [one.message for one in bench.asked(type(question))]
    assert len(sent) == 2
    issued = [one.issued_ms for one in sent if isinstance(one, Clear | SetReplicas)]
    assert issued[1] == pytest.approx(START_MS + began // MILLISECOND, abs=3)


def test_a_clear_goes_on_from_the_stamp_of_a_node_that_finds_its_own_ahead() -> None:
    bench = Bench().learn()
    bench.core.saw((1 << 64) - 1)
    for peer in bench.peers.values():

        def answer(header: Header, message: Message, peer: Peer = peer) -> list[Message]:
            if isinstance(message, Clear) and message.seen > 77:
                return [ErrorReply(code=Code.CLOCK_SKEW, text="ahead", stamp=77)]
            return peer.serve(header, message)

        peer.answer = answer
    bench.do(Clear())
    assert [one.message.seen for one in bench.asked(Clear)] == [(1 << 64) - 1, 77]


def test_a_clear_that_is_refused_for_its_stamp_again_and_again_is_told_so() -> None:
    bench = Bench().learn()
    for peer in bench.peers.values():
        peer.answer = lambda header, message: [
            ErrorReply(code=Code.CLOCK_SKEW, text="ahead", stamp=77)
        ]
    with pytest.raises(ClockSkew):
        bench.do(Clear())
    assert len(bench.asked(Clear)) == 3


def test_after_a_change_of_the_copies_the_client_looks_at_the_ring_again() -> None:
    bench = Bench().learn()
    bench.do(SetReplicas(replicas=2))
    bench.wait(2 * SECOND)
    bench.do(ConvergedGet())
    assert len(bench.asked(TopologyGet)) == 1
