"""The blocking client over real sockets, against a peer that answers from a dict."""

from __future__ import annotations

import copy
import gc
import pickle
import random
import socket
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from dcc.client import pool as pools
from dcc.client.results import Entry
from dcc.client.sync import Client
from dcc.errors import (
    ClientClosed,
    MaybeStored,
    NodeUnavailable,
    OperationTimeout,
    WrongCluster,
)
from dcc.types import Now, Version
from dcc.units import SECOND
from dcc.wire.codec import Header
from dcc.wire.messages import (
    Code,
    ErrorReply,
    Get,
    GetMany,
    GetManyReply,
    Message,
    Outcome,
    Status,
    TopologyGet,
    Write,
    WriteMany,
    WriteManyReply,
)
from tests.support.client_peers import PeerThread
from tests.support.forks import in_child
from tests.support.processes import wait_until

pytestmark = pytest.mark.process


def silent_to(peer: PeerThread, *kinds: type[Message]) -> None:
    """Let a peer never answer messages of some kinds."""
    serve = peer.peer.serve

    def answer(header: Header, message: Message) -> list[Message]:
        return [] if isinstance(message, kinds) else serve(header, message)

    peer.peer.answer = answer


def closed_port() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{one.getsockname()[1]}"


def test_every_method_of_one_key_does_what_it_says() -> None:
    with PeerThread() as peer, Client(peer.address) as cache:
        version = cache.put("k", b"one", ttl=60)
        assert isinstance(version, Version)
        assert cache.get("k") == b"one"
        assert cache.get("absent") is None
        assert cache.get("absent", b"other") == b"other"
        assert "k" in cache
        assert "absent" not in cache
        assert cache.add("k", b"two") is False
        assert cache.add("new", b"two") is True
        third = cache.replace("k", bytearray(b"three"), w=2)
        assert isinstance(third, Version)
        assert third > version
        assert cache.replace("k", b"x", version=version) is None
        assert cache.replace("absent", b"x") is None
        assert cache.touch("k", 5) is True
        assert cache.touch("absent", None) is False
        assert cache.incr("n", 5, initial=10) == 15
        assert cache.decr("n", 20) == -5
        assert cache.incr("n", initial=None) == -4
        assert cache.incr("absent", initial=None) is None
        assert cache.decr("absent", initial=None) is None
        assert "absent" not in cache
        assert cache.delete("k", version=version) is False
        last = cache.put("k", b"four")
        assert cache.delete("k", version=last) is True
        assert cache.delete("k") is False


@pytest.mark.parametrize("verb", ["put", "add", "replace", "delete", "touch", "incr", "decr"])
def test_every_write_of_one_key_says_how_many_owners_must_have_it(verb: str) -> None:
    arguments = {"put": (b"v",), "add": (b"v",), "replace": (b"v",), "touch": (None,)}
    with PeerThread() as peer, Client(peer.address, w=2) as cache:
        cache.put("k", b"1")
        for wanted, travels in (("all", 255), ("quorum", 0), (3, 3)):
            getattr(cache, verb)("k", *arguments.get(verb, ()), w=wanted)
            assert peer.peer.asked[-1][1].w == travels  # type: ignore[union-attr]
            cache.put("k", b"1")
        getattr(cache, verb)("k", *arguments.get(verb, ()))
        assert peer.peer.asked[-1][1].w == 2, "the client's own"  # type: ignore[union-attr]
        with pytest.raises(ValueError, match="w: "):
            getattr(cache, verb)("k", *arguments.get(verb, ()), w=0)


def test_calls_of_many_keys_say_how_many_owners_they_want() -> None:
    with PeerThread() as peer, Client(peer.address) as cache:
        assert cache.put_many({"a": b"1", "b": b"2"}, w="quorum") == []
        assert peer.peer.asked[-1][1].w == 0  # type: ignore[union-attr]
        assert cache.get_many(["a", "b", "c", "a"], r="all") == {"a": b"1", "b": b"2"}
        reads = [message for _, message in peer.peer.asked if isinstance(message, Get)]
        assert sorted((one.key, one.r) for one in reads) == [(b"a", 255), (b"b", 255), (b"c", 255)]
        assert cache.delete_many(["a"], w=2) == 1
        assert peer.peer.asked[-1][1].w == 2  # type: ignore[union-attr]
        with pytest.raises(ValueError, match="r: "):
            cache.get_many([], r=0)
        with pytest.raises(ValueError, match="w: "):
            cache.put_many({}, w=0)


def test_a_read_of_many_takes_the_clients_own_r_unless_told_otherwise() -> None:
    with PeerThread() as peer, Client(peer.address, r=2) as cache:
        cache.put("a", b"1")
        assert cache.get_many(["a"]) == {"a": b"1"}
        assert cache.latencies()["get_many"].count == 1
        asked = peer.peer.asked[-1][1]
        assert isinstance(asked, Get)
        assert asked.r == 2
        assert cache.get_many(["a"], r=1) == {"a": b"1"}
        assert isinstance(peer.peer.asked[-1][1], GetMany)


@pytest.mark.parametrize(("ttl", "left"), [(60, 60), (None, None)])
def test_an_entry_tells_its_time_to_live(ttl: float | None, left: float | None) -> None:
    version = Version(1_000_000 << 16, 1, 1)
    expires_at = None if ttl is None else 1_000 + ttl
    entry = Entry(b"v", version, expires_at, 0.0, "a", True)
    assert entry.ttl == left
    if ttl is not None:
        assert replace(entry, age=20.5).ttl == pytest.approx(39.5)
        assert replace(entry, age=61.0).ttl == 0


def test_lookup_and_entry_tell_what_is_known() -> None:
    with PeerThread() as peer, Client(peer.address) as cache:
        peer.peer.at_ms = 100_000
        peer.peer.stamp = 98_000 << 16
        version = cache.put("k", b"v")
        found = cache.lookup("k")
        assert (found.status, found.value, found.version) == ("hit", b"v", version)
        assert found.confirmed
        assert found.node == "a"
        assert found.age == pytest.approx(2, abs=0.9)
        entry = cache.entry("k")
        assert entry is not None
        assert (entry.value, entry.version, entry.expires_at) == (b"v", version, None)
        missing = cache.lookup("absent")
        assert (missing.status, missing.value, missing.confirmed) == ("miss", None, True)
        assert cache.entry("absent") is None


def test_many_keys_large_values_and_a_scan() -> None:
    with PeerThread() as peer, Client(peer.address, timeout=10) as cache:
        values = {f"key:{n}": bytes([n % 256]) * (n * 20) for n in range(700)}
        assert cache.put_many(values) == []
        some = [*list(values)[:200], "absent", "key:1"]
        assert cache.get_many(some) == {key: values[key] for key in some if key in values}
        assert cache.get("key:699") == values["key:699"]
        assert sorted(cache.scan("key:1")) == sorted(k for k in values if k.startswith("key:1"))
        assert cache.delete_many(["key:1", "key:2", "absent"]) == 2
        cache.clear()
        assert list(cache.scan()) == []
        assert cache.get_many([]) == {}
        assert cache.put_many({}) == []
        assert cache.delete_many([]) == 0


def test_deleting_many_is_no_definite_failure_once_something_was_deleted() -> None:
    with PeerThread() as peer, Client(peer.address, timeout=0.3) as cache:
        cache.put("gone", b"")

        def answer(header: Header, message: Message) -> list[Message]:
            if isinstance(message, WriteMany):
                outcomes = [
                    Outcome.DONE if key == b"gone" else Outcome.ELSEWHERE
                    for key, _ in message.items
                ]
                return [WriteManyReply(outcomes=bytes(outcomes), stamp=9)]
            if isinstance(message, Write):
                return [ErrorReply(code=Code.NOT_READY, text="")]
            return peer.peer.serve(header, message)

        peer.peer.answer = answer
        with pytest.raises(NodeUnavailable) as caught:
            cache.delete_many(["gone", "left"])
        assert (caught.value.definite, caught.value.partial) == (False, ["left"])
        with pytest.raises(NodeUnavailable) as caught:
            cache.delete_many(["left"])
        assert (caught.value.definite, caught.value.partial) == (True, ["left"])


def test_the_cluster_is_described() -> None:
    with PeerThread() as peer, Client(peer.address) as cache:
        assert cache.replicas == 1
        topology = cache.topology()
        assert [(node.name, node.standing) for node in topology.nodes] == [("a", "alive")]
        assert topology.owners("k") == ("a",)
        stats = cache.stats()
        assert stats.nodes["a"].hits == stats.total.hits == 3
        assert stats.total.hit_ratio == 0.75


def test_one_str_is_not_taken_for_many_keys() -> None:
    with PeerThread() as peer, Client(peer.address) as cache:
        for call in (cache.get_many, cache.delete_many):
            with pytest.raises(TypeError):
                call("key")


@pytest.mark.parametrize(
    "call",
    [
        lambda cache: cache.get("k"),
        lambda cache: cache.put("k", b"v"),
        lambda cache: cache.get_many(["k", "l"]),
    ],
    ids=["get", "put", "get_many"],
)
def test_the_quick_answers_of_the_hot_path_tell_the_time(call: Callable[[Client], Any]) -> None:
    """Else only what took long does: by it the clock is off, and a clear takes what is younger."""
    with PeerThread() as peer, Client(peer.address) as cache:
        cache.put("k", b"v")
        core = cache._core
        peer.peer.at_ms = 1_700_000_000_000
        core._sample = (SECOND, time.monotonic_ns())
        call(cache)
        now = time.monotonic_ns()
        assert 0 <= core.cluster_ms(Now(now, now)) - peer.peer.at_ms <= 1_000


def test_a_late_reply_never_reaches_another_call_and_is_counted() -> None:
    with PeerThread() as peer, Client(peer.address, timeout=0.2) as cache:
        for n in range(20):
            cache.put(f"k{n}", b"%d" % n)
        for n in range(0, 20, 2):
            peer.withhold = 4
            with pytest.raises(OperationTimeout):
                cache.get(f"k{n}")
            peer.withhold = 0
            assert cache.get(f"k{n + 1}") == b"%d" % (n + 1)
        assert cache.counts()["late_reply"] >= 10


def test_a_reply_of_many_in_parts_or_late_is_put_right() -> None:
    with PeerThread() as peer, Client(peer.address, timeout=5) as cache:
        values = {f"k{n}": b"%d" % n for n in range(50)}
        cache.put_many(values)
        assert cache.get_many(values) == values
        serve, left = peer.peer.serve, [3]

        def answer(header: Header, message: Message) -> list[Message]:
            if not isinstance(message, GetMany) or not left[0]:
                return serve(header, message)
            left[0] -= 1
            statuses = bytes([Status.ELSEWHERE] * (len(message.keys) - 20))
            found = tuple(peer.peer.data[key] for key in message.keys[:20])
            return [
                GetManyReply(first=0, statuses=bytes(20), values=found, last=False),
                GetManyReply(first=20, statuses=statuses, values=(), last=True),
            ]

        peer.peer.answer = answer
        for _ in range(3):
            assert cache.get_many(values) == values
        assert left == [0]
        peer.withhold = 1
        assert cache.get_many(values) == values, "asked again when the first answer does not come"
        assert cache.get_many(values) == values


def test_a_node_that_is_gone_is_unavailable_soon_and_back_when_it_is() -> None:
    address = closed_port()
    with Client(address, timeout=0.5) as cache:
        begun = time.monotonic()
        with pytest.raises(NodeUnavailable):
            cache.get("k")
        assert time.monotonic() - begun < 2
        with pytest.raises(NodeUnavailable):
            cache.put("k", b"v")
        with pytest.raises(NodeUnavailable) as caught:
            cache.get_many(["a", "b"])
        assert caught.value.partial in ({}, None)


def test_one_dead_address_in_the_list_costs_nothing() -> None:
    with PeerThread() as peer:
        nodes = [closed_port(), closed_port(), peer.address]
        with Client(nodes) as cache:
            begun = time.monotonic()
            cache.put("k", b"v")
            assert time.monotonic() - begun < 0.9


def test_a_silent_node_ends_a_read_and_a_write_at_their_deadline() -> None:
    with PeerThread() as peer, Client(peer.address, timeout=0.3) as cache:
        cache.put("k", b"v")
        silent_to(peer, Get, Write)
        begun = time.monotonic()
        with pytest.raises(OperationTimeout) as read:
            cache.get("k")
        with pytest.raises(MaybeStored) as write:
            cache.put("k", b"w")
        assert 0.55 < time.monotonic() - begun < 3
        assert read.value.definite
        assert not write.value.definite


def test_a_node_of_another_cluster_is_named_as_such() -> None:
    with PeerThread(cluster="other") as peer:
        refuse_foreigners(peer)
        with Client(peer.address, timeout=0.5) as cache, pytest.raises(WrongCluster):
            cache.get("k")


def refuse_foreigners(peer: PeerThread) -> None:
    """Answer what another cluster's client sent as a node does: in the node's own name."""
    from dcc.wire.messages import Code, ErrorReply

    reply = peer.peer.encode(ErrorReply(code=Code.WRONG_CLUSTER, text="other"), 0)
    peer.peer.receive = lambda frames: [reply]


def test_garbage_from_a_node_changes_no_answer() -> None:
    draw = random.Random(7)
    with PeerThread() as peer, Client(peer.address) as cache:
        cache.put("k", b"value")

        def with_garbage(frames: list[bytes]) -> list[list[bytes]]:
            good = peer.peer.handle(frames)
            bad = [
                [draw.randbytes(draw.randrange(50)) for _ in range(draw.randrange(1, 4))],
                [good[0][0][: draw.randrange(8, len(good[0][0]))]],
                [good[0][0], b"x" * 5000, b""],
            ]
            return [*bad, *good]

        peer.peer.receive = with_garbage
        for _ in range(50):
            assert cache.get("k") == b"value"
            assert cache.get("absent") is None
            assert cache.get_many(["k", "absent"]) == {"k": b"value"}


def test_a_closed_client_says_so() -> None:
    with PeerThread() as peer:
        cache = Client(peer.address)
        cache.put("k", b"v")
        cache.close()
        cache.close()
        calls: list[Callable[[], Any]] = [
            lambda: cache.get("k"),
            lambda: cache.put("k", b"v"),
            lambda: cache.get_many([]),
            lambda: cache.put_many({}),
            lambda: list(cache.scan()),
            lambda: cache.replicas,
        ]
        for call in calls:
            with pytest.raises(ClientClosed) as closed:
                call()
            assert closed.value.definite
        assert "closed" in repr(cache)


def test_closing_ends_calls_that_wait_in_other_threads() -> None:
    with PeerThread() as peer:
        cache = Client(peer.address, timeout=60)
        cache.put("k", b"v")
        silent_to(peer, Get, Write, GetMany)
        with ThreadPoolExecutor(4) as threads:
            waiting: list[Future[Any]] = [
                threads.submit(cache.get, "k"),
                threads.submit(cache.put, "k", b"w"),
                threads.submit(cache.get_many, ["k"]),
            ]
            asked = len(peer.peer.asked)
            wait_until(lambda: len(peer.peer.asked) >= asked + 3)
            context = weakref.ref(cache._pool._context)
            begun = time.monotonic()
            cache.close()
            for one in waiting:
                with pytest.raises(ClientClosed) as closed:
                    one.result(10)
                assert not closed.value.definite, "the put may have been executed"
            assert time.monotonic() - begun < 5
        del waiting, one, closed  # The errors' tracebacks have the sockets, closed ones.
        gc.collect()
        assert context() is None, "libzmq's threads have ended"


def test_a_client_that_is_forgotten_closes_its_sockets() -> None:
    with PeerThread() as peer:
        cache = Client(peer.address)
        cache.put("k", b"v")
        gone = weakref.ref(cache)
        context, pool = weakref.ref(cache._pool._context), weakref.ref(cache._pool)
        del cache
        gc.collect()
        assert gone() is None
        assert context() is None, "libzmq's threads have ended"
        assert pool() is None


def test_pickling_or_copying_a_client_says_what_to_do() -> None:
    cache = Client("10.0.0.1:1,10.0.0.2:1")
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match=r"pass the addresses \(10.0.0.1:1,10.0.0.2:1\)"):
            attempt(cache)
    cache.close()


def test_more_threads_than_channels_wait_their_turn_or_time_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pools, "CHANNELS_MAX", 2)
    with PeerThread() as peer, Client(peer.address, timeout=5) as cache:
        for n in range(16):
            cache.put(f"k{n}", b"%d" % n)
        with ThreadPoolExecutor(16) as threads:
            found = list(threads.map(lambda n: cache.get(f"k{n % 16}"), range(400)))
        assert found == [b"%d" % (n % 16) for n in range(400)]
        assert cache._pool._made <= 2
    with PeerThread() as peer, Client(peer.address, timeout=0.3) as cache:
        cache.put("k", b"v")
        silent_to(peer, Get)
        with ThreadPoolExecutor(6) as threads:
            calls = [threads.submit(cache.get, "k") for _ in range(6)]
            for call in calls:
                with pytest.raises(OperationTimeout):
                    call.result(10)


def test_sixty_four_threads_with_forks_in_between_get_their_own_answers() -> None:
    """Values say which key they belong to; a reply that went astray would be seen."""
    with PeerThread() as peer, Client(peer.address, timeout=30) as cache:
        cache.put_many({f"k{n}": b"value of k%d" % n for n in range(64)})
        stop = threading.Event()

        def work(number: int) -> int:
            turns = 0
            while not stop.is_set() or turns < 5:
                key = f"k{(number * 7 + turns) % 64}"
                assert cache.get(key) == b"value of " + key.encode()
                if turns % 5 == number % 5:
                    keys = [f"k{(number + i) % 64}" for i in range(10)]
                    assert cache.get_many(keys) == {k: b"value of " + k.encode() for k in keys}
                    cache.put(key, b"value of " + key.encode())
                turns += 1
            return turns

        def child() -> bool:
            with ThreadPoolExecutor(4) as some:
                return list(some.map(lambda n: cache.get(f"k{n}"), range(40))) == [
                    b"value of k%d" % n for n in range(40)
                ]

        with ThreadPoolExecutor(64) as threads:
            running = [threads.submit(work, number) for number in range(64)]
            codes = [in_child(child) for _ in range(4)]
            stop.set()
            assert min(one.result(60) for one in running) >= 5
        assert codes == [0, 0, 0, 0]


def test_a_topology_refresh_rides_along_and_is_adopted() -> None:
    with PeerThread() as peer, Client(peer.address) as cache:
        cache.put("k", b"v")
        peer.peer.epoch = 2

        def adopted() -> bool:
            assert cache.get("k") == b"v"
            return cache._core.view is not None and cache._core.view.epoch == 2

        wait_until(adopted)
        asked = [one for one in peer.peer.asked if isinstance(one[1], TopologyGet)]
        assert len(asked) == 2
