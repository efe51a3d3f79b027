"""The sockets and the loop over real loopback connections, under a core of a few lines."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import zmq

from dcc.effects import Connect, Disconnect, Effect, Notify, Publish, Send
from dcc.errors import ConfigError
from dcc.limits import EXTRA_FRAMES_MAX
from dcc.node import clocks
from dcc.node import transport as under_test
from dcc.node.binding import expand_seeds
from dcc.node.options import Address
from dcc.node.reception import SKIPPED_FRAMES_MAX
from dcc.node.transport import OPENING_NS, SEED_IDLE_NS, Transport
from dcc.types import TOPIC_ALL, Now, topic_of
from dcc.units import MILLISECOND, SECOND
from tests.support.processes import wait_until
from tests.support.stub_core import HERE, Harness

pytestmark = pytest.mark.process

NOBODY = "127.0.0.1:1"
"A port that refuses connections."


@pytest.fixture
def start() -> Iterator[Callable[[], Harness]]:
    started: list[Harness] = []

    def make() -> Harness:
        started.append(Harness())
        return started[-1]

    yield make
    for one in started:
        one.end()


@pytest.fixture
def dealer() -> Iterator[Callable[..., zmq.Socket[bytes]]]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    sockets = []

    def connect(address: object, routing_id: bytes = b"") -> zmq.Socket[bytes]:
        socket = context.socket(zmq.DEALER)
        if routing_id:
            socket.setsockopt(zmq.ROUTING_ID, routing_id)
        socket.setsockopt(zmq.IPV6, 1)
        socket.setsockopt(zmq.RCVTIMEO, 10_000)
        socket.connect(f"tcp://{address}")
        sockets.append(socket)
        return socket

    yield connect
    context.destroy(linger=0)


@pytest.fixture
def unbound() -> Iterator[Transport]:
    made = Transport(reconnect_ms=100)
    yield made
    made.close()


def test_requests_are_answered_to_who_sent_them(start: Any, dealer: Any) -> None:
    node = start()
    sockets = [dealer(node.request) for _ in range(3)]
    for i, socket in enumerate(sockets):
        for n in range(200):
            socket.send(b"get %d %d" % (i, n))
        socket.send_multipart([b"other", b"\0" * 100_000])
    for i, socket in enumerate(sockets):
        for n in range(200):
            assert socket.recv() == b"got %d %d" % (i, n)
        assert socket.recv_multipart() == [b"other", b"\0" * 100_000]


def test_a_first_request_is_taken_with_care_and_keeps_all_its_frames(
    start: Any, dealer: Any
) -> None:
    node = start()
    socket = dealer(node.request)
    socket.send_multipart([b"get a", b"extra"])
    assert socket.recv_multipart() == [b"get a", b"extra"]


@pytest.mark.parametrize("strays", [1, 2, 3, 4, 7])
def test_frames_behind_a_short_request_put_nobody_out_of_step(
    start: Any, dealer: Any, strays: int
) -> None:
    node = start()
    rude, polite = dealer(node.request), dealer(node.request)
    for socket in (rude, polite):
        socket.send(b"hello")
        assert socket.recv() == b"hello"
    for n in range(300):
        rude.send_multipart([b"get r", *[b"stray"] * strays])
        polite.send(b"get %d" % n)
    for n in range(300):
        assert polite.recv() == b"got %d" % n
        assert rude.recv() == b"got r"


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        # Whoever chose an id of its own is received with care: every message whole.
        (b"rude", [b"get r", b"rude"]),
        # One that looks like libzmq's own is trusted: its first frame is served, the rest ignored.
        (b"\0fake", [b"got r"]),
    ],
)
def test_a_stray_frame_that_names_its_sender_costs_nobody_a_message(
    start: Any, dealer: Any, name: bytes, answer: list[bytes]
) -> None:
    """The one frame that is taken for a routing id, and is one: whose sender chose it."""
    node = start()
    polite, rude = dealer(node.request), dealer(node.request, name)
    for socket in (rude, polite):
        socket.send(b"hello")
        assert socket.recv() == b"hello"
    for n in range(300):
        polite.send_multipart([b"set", b"%d" % n])
        for _ in range(3):  # So that its stray is followed by a message of its own, too.
            rude.send_multipart([b"get r", name])
    for n in range(300):
        assert polite.recv_multipart() == [b"set", b"%d" % n]
        for _ in range(3):
            assert rude.recv_multipart() == answer


def test_a_stray_frame_that_names_its_sender_costs_no_newcomer_its_first_message(
    start: Any, dealer: Any
) -> None:
    node = start()
    rude = dealer(node.request, b"rude")
    rude.send(b"hello")
    assert rude.recv() == b"hello"
    rude.send(b"hold")
    assert node.core.holding.wait(10)
    newcomers = [dealer(node.request) for _ in range(20)]
    for n in range(200):
        rude.send_multipart([b"get r", b"rude"])
        newcomers[n % 20].send_multipart([b"new", b"comer"])
    node.core.release.set()
    for newcomer in newcomers:
        for _ in range(10):
            assert newcomer.recv_multipart() == [b"new", b"comer"]


def test_an_oversized_message_is_cut_and_others_are_still_served(start: Any, dealer: Any) -> None:
    node = start()
    rude, polite = dealer(node.request), dealer(node.request)
    rude.send_multipart([b"x"] * (SKIPPED_FRAMES_MAX * 3 + EXTRA_FRAMES_MAX))
    rude.send(b"get on")
    polite.send(b"get me")
    assert polite.recv() == b"got me"
    assert len(rude.recv_multipart()) == EXTRA_FRAMES_MAX + 2
    assert rude.recv() == b"got on"


def test_gossip_reaches_its_topic_and_everybody_but_no_other(start: Any) -> None:
    node, other = start(), start()
    node.do(Connect(2, str(other.request), str(other.gossip)))
    wait_until(lambda: node.transport.connections)

    def published() -> bool:
        other.do(Publish(topic_of(3), b"not for you"), Publish(topic_of(1), b"for you"))
        return bool(node.core.gossip)

    wait_until(published)
    other.do(Publish(TOPIC_ALL, b"for all"))
    wait_until(lambda: [TOPIC_ALL, b"for all"] in node.core.gossip)
    assert [topic_of(1), b"for you"] in node.core.gossip
    assert all(payload != b"not for you" for _topic, payload in node.core.gossip)


def test_messages_to_a_peer_wait_for_its_new_connection_and_keep_their_order(start: Any) -> None:
    node, other = start(), start()
    sends = [Send(2, [b"n %d" % n, b"second"]) for n in range(20)]
    node.do(Connect(2, str(other.request), str(other.gossip)), *sends)
    wait_until(lambda: len(other.core.received) == 20)
    assert other.core.received == [send.frames for send in sends]
    assert node.core.undelivered == []


def test_a_send_to_a_peer_nobody_connected_to_is_undeliverable(start: Any) -> None:
    node = start()
    node.do(Send(7, [b"a"]))
    wait_until(lambda: node.core.undelivered)
    assert node.core.undelivered == [(7, [b"a"])]


def test_what_waits_for_a_peer_that_is_not_there_becomes_undeliverable(start: Any) -> None:
    node = start()
    began = time.monotonic_ns()
    node.do(Connect(2, NOBODY, NOBODY), Send(2, [b"a"]), Send(2, [b"b"]))
    wait_until(lambda: len(node.core.undelivered) == 2)
    assert node.core.undelivered == [(2, [b"a"]), (2, [b"b"])]
    assert OPENING_NS <= time.monotonic_ns() - began < 3 * SECOND
    node.do(Send(2, [b"c"]))
    wait_until(lambda: len(node.core.undelivered) == 3)


def test_what_waits_is_bounded_in_count_and_bytes(unbound: Transport) -> None:
    unbound.connect(2, NOBODY, NOBODY, 0)
    for _ in range(under_test.WAITING_MESSAGES_MAX + 3):
        unbound.send(2, [b"x"], 0)
    assert len(unbound.undelivered) == 3
    unbound.connect(3, NOBODY, NOBODY, 0)
    unbound.send(3, [b"x" * under_test.WAITING_BYTES_MAX], 0)
    unbound.send(3, [b"x"], 0)
    assert unbound.undelivered[3:] == [(3, [b"x"])]


def test_disconnecting_gives_back_what_waited(unbound: Transport) -> None:
    unbound.connect(2, NOBODY, NOBODY, 0)
    unbound.send(2, [b"x"], 0)
    unbound.disconnect(2)
    unbound.disconnect(2)
    assert unbound.undelivered == [(2, [b"x"])]
    assert unbound.connections == 0


def test_a_changed_address_reconnects_and_the_same_one_does_not(start: Any) -> None:
    node, old, new = start(), start(), start()
    node.do(Connect(2, str(old.request), str(old.gossip)), Send(2, [b"1"]))
    wait_until(lambda: old.core.received)
    node.do(Connect(2, str(old.request), str(old.gossip)), Send(2, [b"2"]))
    wait_until(lambda: len(old.core.received) == 2)
    node.do(Connect(2, str(new.request), str(new.gossip)), Send(2, [b"3"]))
    wait_until(lambda: new.core.received)
    assert node.transport.connections == 1

    def published() -> bool:
        old.do(Publish(TOPIC_ALL, b"old"))
        new.do(Publish(TOPIC_ALL, b"new"))
        return [TOPIC_ALL, b"new"] in node.core.gossip

    wait_until(published)
    assert [TOPIC_ALL, b"old"] not in node.core.gossip


def test_two_members_at_one_gossip_address_share_a_subscription(start: Any) -> None:
    node, other = start(), start()
    node.do(*(Connect(key, str(other.request), str(other.gossip)) for key in (2, 3)))
    node.do(Send(3, [b"x"]))
    wait_until(lambda: other.core.received)
    node.do(Disconnect(2))

    def published() -> bool:
        other.do(Publish(TOPIC_ALL, b"still"))
        return bool(node.core.gossip)

    wait_until(published)


def test_a_seed_is_asked_and_its_answer_taken_on_the_same_connection(start: Any) -> None:
    node, seed = start(), start()
    node.do(Send(str(seed.request), [b"join"]))
    wait_until(lambda: node.core.received)
    assert node.core.received == [[b"join"]]
    assert seed.core.received == [[b"join"]]


def test_a_seed_by_name_is_looked_up_and_asked(start: Any) -> None:
    node, seed = start(), start()
    name = f"localhost:{seed.request.port}"

    def asked() -> bool:
        node.do(Send(name, [b"join"]))
        return bool(node.core.received)

    wait_until(asked)
    assert all(to == name for to, _frames in node.core.undelivered)


def test_an_idle_seed_connection_is_closed(unbound: Transport) -> None:
    unbound.send(NOBODY, [b"join"], 0)
    unbound.upkeep(OPENING_NS + 1)
    assert unbound.undelivered == [(NOBODY, [b"join"])]
    assert unbound.connections == 1
    unbound.upkeep(SEED_IDLE_NS + 1)
    assert unbound.connections == 0


def test_seed_connections_are_bounded(unbound: Transport) -> None:
    for port in range(1, under_test.SEEDS_MAX + 10):
        unbound.send(f"127.0.0.1:{port}", [b"join"], 0)
    assert unbound.connections == under_test.SEEDS_MAX
    assert len(unbound.undelivered) == 9


@pytest.mark.parametrize("address", ["", ":", "nonsense", "host:99999", "a b:1", "\0:1", "::::"])
def test_an_address_that_is_none_is_undeliverable_and_harms_nobody(
    unbound: Transport, address: str
) -> None:
    unbound.connect(2, address, address, 0)
    unbound.send(2, [b"x"], 0)
    unbound.send(address, [b"y"], 0)
    unbound.upkeep(2 * SECOND)
    unbound.disconnect(2)
    assert len(unbound.undelivered) == 2


def test_a_bug_in_the_core_is_logged_once_counted_and_survived(start: Any, dealer: Any) -> None:
    node = start()
    socket = dealer(node.request)
    for _ in range(3):
        socket.send(b"bug")
        socket.send(b"get a")
        assert socket.recv() == b"got a"
    bugs = [fields for event, fields in node.events if event == "bug"]
    assert len(bugs) == 1
    assert "a bug in the core" in bugs[0]["traceback"]
    assert node.loop.bugs == 3


def test_a_tick_that_always_fails_does_not_take_the_whole_processor(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = start()

    def fail(now: Now) -> list[Effect]:
        raise RuntimeError("always")

    monkeypatch.setattr(node.core, "tick", fail)
    began = time.monotonic()
    node.core.next_tick = 0
    node.loop._wishes.wake()
    wait_until(lambda: node.loop.bugs >= 20)
    assert time.monotonic() - began > 0.15


def test_a_busy_request_plane_does_not_stop_gossip_ticks_or_wishes(start: Any, dealer: Any) -> None:
    node, other = start(), start()
    other.do(Connect(2, str(node.request), str(node.gossip)))
    wait_until(lambda: other.transport.connections)
    stop = threading.Event()

    def flood() -> None:
        socket = dealer(node.request)
        while not stop.is_set():
            for _ in range(100):
                socket.send(b"get x")
            for _ in range(100):
                socket.recv()

    flooding = threading.Thread(target=flood)
    flooding.start()
    try:
        node.do(Connect(3, str(other.request), str(other.gossip)))

        def published() -> bool:
            other.do(Publish(TOPIC_ALL, b"x"))
            return bool(node.core.gossip)

        wait_until(published)
        ticks = node.core.ticks
        node.do(Notify("hello", {"a": 1}))
        wait_until(lambda: node.core.ticks > ticks)
        assert ("hello", {"a": 1}) in node.events
        assert node.loop.snapshot(5.0) is not None
    finally:
        stop.set()
        flooding.join(10)


@pytest.fixture
def spending(monkeypatch: pytest.MonkeyPatch) -> Callable[[Harness], None]:
    """Let a node's clocks jump by what its core spends."""
    spent = [0]

    def spend(ms: int) -> None:
        spent[0] += ms * MILLISECOND

    def use(node: Harness) -> None:
        node.core.spend = spend

    monkeypatch.setattr(clocks, "mono_ns", lambda: time.monotonic_ns() + spent[0])
    return use


@pytest.mark.parametrize(("cost_ms", "at_most"), [(1, 10), (3, 4), (20, 1)])
def test_dear_requests_are_taken_for_ten_milliseconds_and_then_others_get_their_turn(
    start: Any, dealer: Any, spending: Callable[[Harness], None], cost_ms: int, at_most: int
) -> None:
    node = start()
    spending(node)
    node.core.always = node.core.next_tick = 0  # Every turn ends with a tick.
    socket = dealer(node.request)

    def longest_run() -> int:
        for _ in range(50):
            socket.send(b"spend %d" % cost_ms)
        for _ in range(50):
            assert socket.recv() == b"spend %d" % cost_ms
        runs = "".join(what[0] for what in node.core.order).split("t")
        return max(map(len, runs))

    # A slow machine may end a batch earlier, never later.
    wait_until(lambda: longest_run() >= min(at_most, 4))
    assert longest_run() <= at_most


def test_what_comes_behind_a_dear_request_is_judged_by_a_clock_read_after_it(
    start: Any, dealer: Any, spending: Callable[[Harness], None]
) -> None:
    node = start()
    spending(node)
    socket = dealer(node.request)
    for _ in range(200):
        socket.send(b"spend 3")
    for _ in range(200):
        socket.recv()
    times = [now.mono for now in node.core.times]
    assert min(after - before for before, after in pairwise(times)) >= 3 * MILLISECOND


def test_a_tick_is_told_a_time_after_all_that_its_turn_has_spent(
    start: Any, dealer: Any, spending: Callable[[Harness], None]
) -> None:
    """What a turn costs is counted by that, and pulls are paced by it."""
    node = start()
    spending(node)
    node.core.always = node.core.next_tick = 0
    socket = dealer(node.request)
    for _ in range(20):
        socket.send(b"spend 1")
        socket.recv()
        answered = node.core.ticks  # What is sent before the next tick may be of the same turn.
        wait_until(partial(lambda ticks: node.core.ticks > ticks + 1, answered))
    seen = list(zip(node.core.order, node.core.times, strict=False))
    turns = [pair for pair in pairwise(seen) if [what for what, _ in pair] == ["request", "tick"]]
    assert len(turns) == 20
    assert all(tick.mono - asked.mono >= MILLISECOND for (_, asked), (_, tick) in turns)


def test_a_snapshot_is_taken_in_the_loop_and_kept_for_a_second(start: Any) -> None:
    node = start()
    first = node.loop.snapshot(5.0)
    assert first is not None
    assert first["ticks"] == node.core.ticks
    assert first["shell"]["bugs"] == 0
    assert node.loop.snapshot(5.0) is first
    assert node.loop.snapshot(5.0, age_max_ns=0) is not first


def test_a_loop_that_ended_answers_nobody(start: Any) -> None:
    node = start()
    node.end()
    assert node.loop.snapshot(0.05, age_max_ns=0) is None
    node.loop.leave()


def test_leaving_ends_the_loop_once_the_core_has_left(start: Any) -> None:
    node = start()
    node.loop.leave()
    node.thread.join(10)
    assert not node.thread.is_alive()
    assert node.core.left


def test_ready_is_announced(start: Any) -> None:
    assert start().ready.wait(10)


def test_an_address_in_use_is_a_config_error(start: Any, unbound: Transport) -> None:
    node = start()
    with pytest.raises(ConfigError, match=r"--bind: cannot bind .*: address in use"):
        unbound.bind(node.request, HERE)


@pytest.mark.parametrize("address", ["192.0.2.1:0", "no-such-host.invalid:0"])
def test_an_address_of_no_interface_is_a_config_error(unbound: Transport, address: str) -> None:
    with pytest.raises(ConfigError, match="cannot bind"):
        unbound.bind(Address.parse(address), HERE)


def test_ipv6_works_where_the_machine_has_it(unbound: Transport, dealer: Any) -> None:
    try:
        request, _ = unbound.bind(Address("::1", 0), Address("::1", 0))
    except ConfigError:
        pytest.skip("no IPv6 loopback here")
    socket = dealer(request)
    socket.send(b"hello")
    assert unbound.router.recv_multipart()[1:] == [b"hello"]


def test_numeric_seeds_stay_and_names_are_added_with_their_addresses() -> None:
    seeds = [Address("127.0.0.1", 5), Address("localhost", 6), Address("nowhere.invalid", 7)]
    expanded = expand_seeds(seeds, ["127.0.0.1:9"])
    assert expanded[0] == "127.0.0.1:5"
    assert "127.0.0.1:6" in expanded
    assert expanded[-2:] == ("localhost:6", "nowhere.invalid:7")


def test_a_node_recognizes_itself_among_seeds_given_by_name() -> None:
    own = ["127.0.0.1:6"]
    assert "127.0.0.1:6" in expand_seeds([Address("localhost", 6)], own)
    assert expand_seeds([Address("127.0.0.1", 6)], own) == ("127.0.0.1:6",)
    assert expand_seeds([Address("localhost", 6)], ["localhost:6", "127.0.0.1:6"])[0] == (
        "localhost:6"
    )
