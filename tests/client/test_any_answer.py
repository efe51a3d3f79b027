"""Whatever a node answers, a call ends as its caller is promised: a result or a `DccError`."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from dcc.client.calls import Operation
from dcc.client.sync import Client
from dcc.errors import DccError
from dcc.units import MILLISECOND, SECOND
from dcc.wire import messages as m
from dcc.wire.codec import Header
from tests.client.bench import Bench
from tests.client.peers import PeerThread
from tests.wire_samples import STRATEGIES, U64_MAX

OPERATIONS: list[Operation] = [
    m.Get(key=b"key"),
    m.Get(key=b"key", direct=True, r=2),
    m.Write(op=m.Op.PUT, key=b"key", value=b"v"),
    m.Write(op=m.Op.INCR, key=b"n", delta=1, w=2),
    m.GetMany(keys=(b"a", b"b", b"c")),
    m.WriteMany(op=m.Op.PUT, items=((b"a", b"1"), (b"b", b"2"))),
    m.TopologyGet(),
    m.StatsGet(),
    m.Scan(slots=tuple(range(64)), prefix=b""),
    m.Clear(),
    m.SetReplicas(replicas=2),
    m.Inspect(key=b"key"),
    m.ConvergedGet(),
    m.AuditGet(slots=(1, 2)),
]
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
    operations: list[Operation], said: list[tuple[m.Message, int, int]]
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
    for operation in operations:
        with contextlib.suppress(DccError):
            _run(bench, operation)


def _run(bench: Bench, operation: Operation) -> None:
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
    call.outcome()


def _perform(bench: Bench, call: Any, effects: list[Any]) -> None:
    """Like the bench's own, where addresses may be any that an answer named."""
    for effect in effects:
        if hasattr(effect, "to") and effect.to not in bench.peers:
            _perform(bench, call, call.undeliverable(effect.to, bench.now, effect.frames))
        else:
            bench.perform(call, [effect])


@pytest.mark.parametrize("at", [U64_MAX, 1 << 63, (1 << 47) + 1])
def test_one_reply_with_an_impossible_time_costs_nothing(at: int) -> None:
    bench = Bench().learn()
    for peer in bench.peers.values():

        def receive(frames: list[bytes], peer: Any = peer) -> list[list[bytes]]:
            peer.at_ms = at
            replies: list[list[bytes]] = type(peer).handle(peer, frames)
            return replies

        peer.receive = receive
    for _ in range(3):
        bench.do(m.Get(key=b"k"))
        bench.do(m.Write(op=m.Op.PUT, key=b"k", value=b"v"))
        bench.do(m.Clear())
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
