"""The dispatcher driven by hand: who is silent when all calls share a connection, and who waits."""

from __future__ import annotations

import random
from typing import Any

import pytest

from dcc.client.core import ClientCore
from dcc.client.dispatch import Dispatcher
from dcc.client.shared import ATTEMPT_MOST_NS
from dcc.effects import Effect, Send
from dcc.errors import DccError, MaybeStored, Overloaded
from dcc.types import Now
from dcc.units import MILLISECOND, SECOND
from dcc.wire.codec import Header
from dcc.wire.messages import Get, GetMany, Message, Op, Write, WriteMany
from tests.support.client_peers import Peer, member

MANY = range(20)


class Caller:
    """Who waits for one call."""

    def __init__(self) -> None:
        self.outcomes: list[Any] = []

    def done(self) -> bool:
        """Return whether the call has ended."""
        return bool(self.outcomes)

    def set_result(self, result: Any, /) -> None:
        """Take the outcome."""
        self.outcomes.append(result)


class Hand:
    """A dispatcher, one peer, and what was sent; time passes when told."""

    def __init__(self, in_flight_max: int = 100) -> None:
        self.peer = Peer("a", "a:1")
        self.peer.members = (member("a", "a:1"),)
        self.mono = 5 * SECOND
        core = ClientCore(["a:1"], client_id=9, boot=1, rng=random.Random(1), timeout_ns=2 * SECOND)
        self.dispatcher = Dispatcher(core, in_flight_max)
        self.sent: list[tuple[Header, Message]] = []
        self.held: list[Send] = []
        "Questions that the peer has not looked at."
        self.get(b"known")
        self.answer()
        self.sent.clear()

    @property
    def now(self) -> Now:
        """Both clocks."""
        return Now(self.mono, self.mono)

    def take(self, effects: list[Effect]) -> None:
        """Note what is sent; the topology is told at once."""
        for effect in effects:
            if isinstance(effect, Send):
                self.sent.append(self.peer.codec.decode(effect.frames))
                self.held.append(effect)

    def get(self, *keys: bytes) -> list[Caller]:
        """Make gets in one turn."""
        turn, callers = self.dispatcher.begin_turn(self.mono), [Caller() for _ in keys]
        turn.keys += keys
        turn.readers += callers
        self.take(self.dispatcher.flush(self.now))
        return callers

    def put(self, *keys: bytes) -> list[Caller]:
        """Make puts in one turn."""
        turn, callers = self.dispatcher.begin_turn(self.mono), [Caller() for _ in keys]
        writes = [Write(op=Op.PUT, key=key, value=b"v") for key in keys]
        turn.writes += zip(writes, callers, strict=True)
        self.take(self.dispatcher.flush(self.now))
        return callers

    def answer(self, count: int = 1_000) -> None:
        """Let the peer answer so many of the questions, the oldest first."""
        while self.held and count:
            send, count = self.held.pop(0), count - 1
            for frames in self.peer.receive(send.frames):
                self.take(self.dispatcher.receive("a:1", frames, self.now))
        self.dispatcher.check()

    def wait(self, ns: int) -> None:
        """Let time pass, and do what comes due."""
        end = self.mono + ns
        while (due := self.dispatcher.wake_at()) <= end:
            self.mono = max(self.mono, due)
            self.take(self.dispatcher.tick(self.now))
            self.dispatcher.check()
        self.mono = end

    def kinds(self) -> list[type[Message]]:
        """Return what was sent since, and forget it."""
        kinds = [type(message) for _, message in self.sent]
        self.sent.clear()
        return kinds


@pytest.mark.parametrize("keys", [(b"k",), (b"k", b"l")])
def test_a_plain_answer_tells_the_time_as_any_other_does(keys: tuple[bytes, ...]) -> None:
    hand = Hand()
    core = hand.dispatcher.core
    core._sample = (SECOND, hand.mono)  # Whatever came first took its time.
    hand.peer.at_ms = 1_700_000_000_000
    hand.get(*keys)
    hand.answer()
    assert core.cluster_ms(hand.now) == hand.peer.at_ms


def test_a_node_that_gets_on_with_other_calls_is_asked_no_second_time() -> None:
    hand = Hand()
    first = hand.put(*[b"first:%d" % n for n in MANY])
    calls = [hand.put(*[b"k%d:%d" % (turn, n) for n in MANY]) for turn in range(3)]
    gets = hand.get(*[b"first:%d" % n for n in MANY])
    assert hand.kinds() == [WriteMany] * 4 + [GetMany]
    for _ in range(4):
        hand.wait(200 * MILLISECOND)
        hand.answer(1)
    assert hand.kinds() == [], "an answer every 200 ms is progress, though each waits 800 ms"
    assert all(caller.done() for callers in [first, *calls] for caller in callers)
    hand.answer()
    assert [caller.outcomes for caller in gets] == [[b"v"]] * len(MANY)
    assert "a:1" not in hand.dispatcher.core.health.sick


def test_a_single_question_that_was_lost_is_asked_again_after_half_the_time() -> None:
    hand = Hand()
    lost = hand.put(b"lost")
    hand.held.clear()
    for n in range(8):
        hand.put(b"k%d" % n)
        hand.wait(120 * MILLISECOND)
        hand.answer()
    assert not lost[0].done()
    assert hand.kinds() == [Write] * 9
    hand.put(b"one more")
    hand.answer()
    hand.wait(120 * MILLISECOND)
    assert hand.kinds() == [Write] * 2, "the last one, and the repetition"
    hand.answer()
    assert lost[0].done()


def test_a_node_that_answers_nobody_is_silent_after_an_attempt() -> None:
    hand = Hand()
    hand.get(*[b"k%d" % n for n in MANY])
    hand.wait(ATTEMPT_MOST_NS - 1)
    assert hand.kinds() == [GetMany]
    assert not hand.dispatcher.core.health.sick
    hand.wait(1)
    assert list(hand.dispatcher.core.health.sick) == ["a:1"]


def test_who_was_cancelled_still_shows_who_is_silent() -> None:
    hand = Hand()
    for caller in hand.get(b"a", b"b") + hand.put(b"c"):
        caller.set_result("cancelled")
    hand.wait(2 * ATTEMPT_MOST_NS)
    assert hand.dispatcher.in_flight == 0
    assert list(hand.dispatcher.core.health.sick) == ["a:1"]
    assert hand.kinds() == [GetMany, Write], "nothing was sent for them any more"


def test_calls_beyond_the_bound_wait_and_are_refused_in_time_and_definitely() -> None:
    hand = Hand(in_flight_max=3)
    callers = hand.put(*[b"k%d" % n for n in range(5)])
    hand.answer(1)
    assert [caller.done() for caller in callers] == [True] * 3 + [False] * 2
    hand.answer()
    assert all(caller.done() for caller in callers)
    callers = hand.put(*[b"k%d" % n for n in range(3)]) + hand.get(b"later")
    hand.wait(2 * SECOND)
    outcomes = [caller.outcomes[0] for caller in callers]
    assert [type(one) for one in outcomes] == [MaybeStored] * 3 + [Overloaded]
    assert isinstance(outcomes[3], DccError)
    assert outcomes[3].definite
    assert Get not in hand.kinds()
