"""Whatever a node answers, a call ends as its caller is promised: a result or a `DccError`."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from dcc.client.calls import Operation
from dcc.client.many import Written
from dcc.client.routing import View
from dcc.client.sync import Client
from dcc.errors import DccError
from dcc.units import MILLISECOND, SECOND
from dcc.wire import messages as m
from dcc.wire.codec import Header
from tests.support.client_driver import TRIP_NS, Bench
from tests.support.client_peers import PeerThread
from tests.support.wire_samples import STRATEGIES, U64_MAX

OPERATIONS: list[tuple[Operation, type[Any]]] = [
    (m.Get(key=b"key"), m.GetReply),
    (m.Get(key=b"key", direct=True, r=2), m.GetReply),
    (m.Write(op=m.Op.PUT, key=b"key", value=b"v"), m.WriteReply),
    (m.Write(op=m.Op.INCR, key=b"n", delta=1, w=2), m.WriteReply),
    (m.GetMany(keys=(b"a", b"b", b"c")), dict),
    (m.WriteMany(op=m.Op.PUT, items=((b"a", b"1"), (b"b", b"2"))), Written),
    (m.TopologyGet(), View),
    (m.StatsGet(), dict),
    (m.Scan(slots=tuple(range(64)), prefix=b""), list),
    (m.Clear(), m.ClearReply),
    (m.SetReplicas(replicas=2), m.SettingsReply),
    (m.Inspect(key=b"key"), dict),
    (m.ConvergedGet(), m.ConvergedReply),
    (m.AuditGet(slots=(1, 2)), dict),
]
"What is asked, and what a result of it is."
REPLIES = [cls for cls in m.WIRE.values() if cls.__name__.endswith("Reply") or cls is m.Topology]
answers = st.tuples(
    st.one_of([STRATEGIES[cls] for cls in REPLIES]),
    st.sampled_from([0, 1, 1_000_000, (1 << 47) - 1, 1 << 47, U64_MAX]),
    st.sampled_from([0, 1, 2, U64_MAX]),
)


@settings(deadline=None, max_examples=150, phases=[Phase.explicit, Phase.generate])
@given(
    operations=st.lists(st.sampled_from(OPERATIONS), min_size=1, max_size=4),
    said=st.lists(answers, max_size=5),
)
def test_any_valid_answers_end_every_call_with_a_result_or_an_error_of_ours(
    operations: list[tuple[Operation, type[Any]]], said: list[tuple[m.Message, int, int]]
) -> None:
    bench = Bench(timeout_ns=300 * MILLISECOND)
    if len(said) % 2:
        bench.learn()
    left = list(said)
    for peer in bench.peers.values():

        def receive(frames: list[bytes], peer: Any = peer) -> list[list[bytes]]:
            if not left:
                replies: list[list[bytes]] = type(peer).handle(peer, frames)
                return replies
            header = peer.codec.decode(frames)[0]
            message, at, epoch = left.pop()
            return [peer.codec.encode(message, epoch=epoch, request=header.request, at=at)]

        peer.receive = receive
    for operation, result in operations:
        assert isinstance(_ended(bench, operation), (result, DccError))


def _ended(bench: Bench, operation: Operation) -> object:
    """Return the result of a call, or its error if it is one of ours."""
    call = bench.core.begin(operation, bench.now)
    _perform(bench, call, call.start(bench.now))
    steps = 0
    while not call.done:
        steps += 1
        assert steps < 2_000, "it turns in circles"
        arrival = min(bench.inbox)[0] if bench.inbox else call.wake_at()
        bench.mono = max(bench.mono, min(arrival, call.wake_at()))
        if bench.inbox and arrival <= bench.mono:
            bench.inbox.sort()
            _, _, address, frames = bench.inbox.pop(0)
            _perform(bench, call, call.receive(address, frames, bench.now))
        if call.wake_at() <= bench.mono:
            _perform(bench, call, call.tick(bench.now))
        bench.core.check()
    try:
        outcome: object = call.outcome()
    except DccError as error:
        return error
    return outcome


def _perform(bench: Bench, call: Any, effects: list[Any]) -> None:
    """Like the bench's own, where addresses may be any that an answer named."""
    for effect in effects:
        if hasattr(effect, "to") and effect.to not in bench.peers:
            _perform(bench, call, call.undeliverable(effect.to, bench.now, effect.frames))
        else:
            bench.perform(call, [effect])


@pytest.mark.parametrize("at", [U64_MAX, 1 << 63, (1 << 47) + 1])
def test_replies_with_an_impossible_time_cost_nothing(at: int) -> None:
    bench = Bench().learn()
    for peer in bench.peers.values():

        def receive(frames: list[bytes], peer: Any = peer) -> list[list[bytes]]:
            peer.at_ms = at
            replies: list[list[bytes]] = type(peer).handle(peer, frames)
            return replies

        peer.receive = receive
    for _ in range(3):
        # Behind a silence a write asks its node for a word first, whatever time it tells.
        assert bench.do(m.Write(op=m.Op.PUT, key=b"k", value=b"u")).outcome is m.Outcome.DONE
        began = bench.mono
        assert bench.do(m.Write(op=m.Op.PUT, key=b"k", value=b"v")).outcome is m.Outcome.DONE
        assert bench.do(m.Get(key=b"k")).value == b"v"
        assert bench.do(m.Clear()).everywhere
        assert bench.mono - began == 3 * TRIP_NS, "nothing is asked twice"
        bench.mono += 20 * SECOND


def test_statistics_nested_without_end_are_told_as_unreadable() -> None:
    def answer(header: Header, message: m.Message) -> list[m.Message]:
        if isinstance(message, m.StatsGet):
            return [m.StatsReply(stats=b"[" * 100_000)]
        return peer.peer.serve(header, message)

    with PeerThread() as peer, Client(peer.address, timeout=5) as cache:
        peer.peer.answer = answer
        assert list(cache.stats().unreachable.values()) == [
            "sent statistics that are no JSON object"
        ]


def test_keys_that_are_no_text_are_left_out_of_a_scan() -> None:
    with PeerThread() as peer, Client(peer.address, timeout=5) as cache:
        peer.peer.data = {b"\xff\xfe": b"1", b"good": b"2"}
        assert list(cache.scan()) == ["good"]
