"""The asyncio client: what the blocking one promises, and what only a loop can ask of it."""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import gc
import os
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import dcc
from dcc import AsyncClient
from dcc.client.dispatch import Dispatcher
from dcc.errors import (
    ClientClosed,
    MaybeStored,
    NodeUnavailable,
    OperationTimeout,
    Overloaded,
    WrongLoop,
)
from dcc.wire.messages import Get, GetMany, Message, TopologyGet, Write, WriteMany
from tests.client import test_shell, test_with_cluster
from tests.client.test_shell import closed_port, silent_to
from tests.support.async_as_blocking import Blocking
from tests.support.client_peers import PeerThread
from tests.support.forks import in_child

pytestmark = pytest.mark.process


def dispatcher_of(client: AsyncClient) -> Dispatcher:
    assert client._driver is not None
    return client._driver.dispatcher


def asked(peer: PeerThread, *kinds: type[Message]) -> list[Message]:
    """Return what a peer was asked of some kinds, and forget it."""
    found = [message for _, message in peer.peer.asked if isinstance(message, kinds)]
    peer.peer.asked.clear()
    return found


# ------------------------------------------------------------------ what both clients promise


@pytest.mark.parametrize(
    "test",
    [
        test_shell.test_every_method_of_one_key_does_what_it_says,
        test_shell.test_calls_of_many_keys_say_how_many_owners_they_want,
        test_shell.test_a_read_of_many_takes_the_clients_own_r_unless_told_otherwise,
        test_shell.test_lookup_and_entry_tell_what_is_known,
        test_shell.test_many_keys_large_values_and_a_scan,
        test_shell.test_deleting_many_is_no_definite_failure_once_something_was_deleted,
        test_shell.test_the_cluster_is_described,
        test_shell.test_one_str_is_not_taken_for_many_keys,
        test_shell.test_a_late_reply_never_reaches_another_call_and_is_counted,
        test_shell.test_a_reply_of_many_in_parts_or_late_is_put_right,
        test_shell.test_a_node_that_is_gone_is_unavailable_soon_and_back_when_it_is,
        test_shell.test_one_dead_address_in_the_list_costs_nothing,
        test_shell.test_a_silent_node_ends_a_read_and_a_write_at_their_deadline,
        test_shell.test_a_node_of_another_cluster_is_named_as_such,
        test_shell.test_garbage_from_a_node_changes_no_answer,
        test_shell.test_a_closed_client_says_so,
        test_shell.test_a_topology_refresh_rides_along_and_is_adopted,
    ],
    ids=lambda test: test.__name__,
)
def test_as_the_blocking_client(test: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Blocking] = []

    def client(*nodes: Any, **options: Any) -> Blocking:
        made.append(Blocking(*nodes, **options))
        return made[-1]

    monkeypatch.setattr(test_shell, "Client", client)
    test()
    assert made, "what was tested is the client of asyncio"
    for one in made:
        if not one.loop.is_closed():
            one.end()


class Clients:
    """A cluster whose clients are of the asyncio kind."""

    def __init__(self, cluster: dcc.LocalCluster) -> None:
        self.addresses = [node.address for node in cluster.nodes]
        self.made: list[Blocking] = []

    def client(self, **options: Any) -> Blocking:
        self.made.append(Blocking(self.addresses, **options))
        return self.made[-1]


@pytest.fixture(scope="module")
def cluster() -> Iterator[dcc.LocalCluster]:
    with dcc.LocalCluster(3, replicas=1) as running:
        yield running


@pytest.mark.parametrize(
    "test",
    [
        test_with_cluster.test_every_call_does_what_it_says,
        test_with_cluster.test_any_owner_answers_and_the_owners_are_known,
        test_with_cluster.test_the_number_of_copies_changes_while_keys_are_read_and_quorums_follow_it,
        test_with_cluster.test_what_a_large_put_of_many_does_not_get_done_it_names,
        test_with_cluster.test_after_a_clear_what_was_written_since_stays,
    ],
    ids=lambda test: test.__name__,
)
def test_as_the_blocking_client_with_nodes(
    test: Callable[[Any], None], cluster: dcc.LocalCluster
) -> None:
    clients = Clients(cluster)
    try:
        test(clients)
        assert clients.made, "what was tested is the client of asyncio"
    finally:
        for one in clients.made:
            one.end()


# ------------------------------------------------------------------ calls of one turn


async def test_gets_of_one_turn_travel_together_and_a_lone_one_alone() -> None:
    with PeerThread() as peer:
        async with AsyncClient(peer.address) as cache:
            await asyncio.gather(*[cache.put(f"k{n}", b"%d" % n) for n in range(50)])
            assert [type(one) for one in asked(peer, Write, WriteMany)] == [WriteMany]
            found = await asyncio.gather(*[cache.get(f"k{n}", b"none") for n in range(60)])
            assert found == [b"%d" % n for n in range(50)] + [b"none"] * 10
            assert [type(one) for one in asked(peer, Get, GetMany)] == [GetMany]
            assert await cache.get("k7") == b"7"
            assert await cache.put("k7", b"new")
            kinds = [type(one) for one in asked(peer, Get, GetMany, Write, WriteMany)]
            assert kinds == [Get, Write]


async def test_every_put_of_a_turn_gets_its_own_version(cluster: dcc.LocalCluster) -> None:
    async with AsyncClient(node.address for node in cluster.nodes) as cache:
        keys = [f"version:{n}" for n in range(200)]
        versions = await asyncio.gather(*[cache.put(key, b"v") for key in keys])
        entries = await asyncio.gather(*[cache.entry(key) for key in keys])
        assert [one.version if one else None for one in entries] == versions
        assert len(set(versions)) == len(keys)


async def test_puts_of_one_key_in_one_turn_keep_their_order(cluster: dcc.LocalCluster) -> None:
    async with AsyncClient(node.address for node in cluster.nodes) as cache:
        for _ in range(20):
            versions = await asyncio.gather(*[cache.put("same", b"%d" % n) for n in range(5)])
            assert versions == sorted(versions)
            assert await cache.get("same") == b"4"


async def test_puts_that_differ_in_ttl_or_w_each_get_what_they_ask_for(
    cluster: dcc.LocalCluster,
) -> None:
    async with AsyncClient(node.address for node in cluster.nodes) as cache:
        await asyncio.gather(
            *[cache.put(f"ttl:{n}", b"v", ttl=100 if n % 2 else None) for n in range(20)],
            *[cache.put(f"w:{n}", b"v", w="all") for n in range(5)],
        )
        entries = await asyncio.gather(*[cache.entry(f"ttl:{n}") for n in range(20)])
        assert [bool(one and one.expires_at) for one in entries] == [False, True] * 10


async def test_an_error_belongs_to_its_own_call(cluster: dcc.LocalCluster) -> None:
    async with AsyncClient((node.address for node in cluster.nodes), timeout=5) as cache:
        calls = [cache.put(f"own:{n}", b"v", w=3 if n == 3 else 1) for n in range(6)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        failed = [n for n, one in enumerate(outcomes) if isinstance(one, BaseException)]
        assert failed == [3]
        assert isinstance(outcomes[3], dcc.QuorumNotReached)
        large = await asyncio.gather(
            cache.put("own:small", b"v"), cache.put("own:large", b"x" * 9_000_000)
        )
        assert len(set(large)) == 2
        assert await cache.get("own:large") == b"x" * 9_000_000


async def test_values_of_all_sizes_come_back_through_shared_messages(
    cluster: dcc.LocalCluster,
) -> None:
    async with AsyncClient((node.address for node in cluster.nodes), timeout=10) as cache:
        values = {f"size:{n}": bytes([n % 256]) * (n * 97) for n in range(600)}
        await asyncio.gather(*[cache.put(key, value) for key, value in values.items()])
        found = await asyncio.gather(*[cache.get(key) for key in [*values, *values]])
        assert found == [*values.values(), *values.values()]
        dispatcher_of(cache).check()


async def test_the_topology_is_asked_for_once_however_many_calls_wait() -> None:
    with PeerThread() as peer:
        async with AsyncClient(peer.address) as cache:
            await asyncio.gather(*[cache.incr(f"n{n}") for n in range(500)])
            assert len(asked(peer, TopologyGet)) == 1


# ------------------------------------------------------------------ cancelled, late, too many


async def test_what_is_cancelled_in_its_turn_is_never_sent() -> None:
    with PeerThread() as peer:
        async with AsyncClient(peer.address) as cache:
            await cache.put("k", b"v")
            tasks = [asyncio.ensure_future(cache.put(f"no{n}", b"")) for n in range(3)]
            kept = asyncio.ensure_future(cache.get("k"))
            await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            assert await kept == b"v"
            assert peer.peer.data.keys() == {b"k"}
            dispatcher_of(cache).check()


async def test_a_cancelled_call_harms_no_other_of_its_message() -> None:
    with PeerThread() as peer:
        async with AsyncClient(peer.address, timeout=5) as cache:
            await asyncio.gather(*[cache.put(f"k{n}", b"%d" % n) for n in range(20)])
            peer.withhold = 1
            tasks = [asyncio.ensure_future(cache.get(f"k{n}")) for n in range(20)]
            await asyncio.sleep(0.05)
            for task in tasks[::2]:
                task.cancel()
            peer.withhold = 0
            assert await cache.get("absent") is None
            assert await asyncio.gather(*tasks[1::2]) == [b"%d" % n for n in range(1, 20, 2)]
            assert all(task.cancelled() for task in tasks[::2])
            dispatcher_of(cache).check()


async def test_a_time_out_of_the_callers_own_leaves_nothing_behind() -> None:
    with PeerThread() as peer:
        async with AsyncClient(peer.address, timeout=0.6) as cache:
            await cache.put("k", b"v")
            silent_to(peer, Get, Write)
            for call in (lambda: cache.get("k"), lambda: cache.put("k", b"w")):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(call(), 0.02)
            dispatcher = dispatcher_of(cache)
            begun = time.monotonic()
            while dispatcher.in_flight:
                assert time.monotonic() - begun < 2, "a call that nobody waits for ends soon"
                await asyncio.sleep(0.01)
            dispatcher.check()


async def test_many_silent_calls_time_out_at_their_deadline_each_with_an_error_of_its_own() -> None:
    with PeerThread() as peer:
        async with AsyncClient(peer.address, timeout=0.5) as cache:
            await cache.put("k", b"v")
            silent_to(peer, Get, GetMany, Write, WriteMany)
            begun = time.monotonic()
            reads = [cache.get(f"k{n}") for n in range(50)]
            writes = [cache.put(f"k{n}", b"") for n in range(50)]
            outcomes = await asyncio.gather(*reads, *writes, return_exceptions=True)
            assert 0.45 < time.monotonic() - begun < 2
            assert {type(one) for one in outcomes[:50]} == {OperationTimeout}
            assert {type(one) for one in outcomes[50:]} == {MaybeStored}
            assert len({id(one) for one in outcomes}) == 100
            dispatcher_of(cache).check()


async def test_more_calls_than_may_be_in_flight_wait_their_turn_or_are_refused() -> None:
    with PeerThread() as peer:
        async with AsyncClient(peer.address, timeout=5, in_flight=10) as cache:
            await cache.put("k", b"v")
            found = await asyncio.gather(*[cache.get("k") for _ in range(1000)])
            assert found == [b"v"] * 1000
            largest = max(len(one.keys) for one in asked(peer, GetMany) if isinstance(one, GetMany))
            assert largest <= 10
        async with AsyncClient(peer.address, timeout=0.4, in_flight=2) as cache:
            await cache.put("k", b"v")
            silent_to(peer, Write)
            calls = [cache.incr("k") for _ in range(5)]
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(one) for one in outcomes] == [MaybeStored] * 2 + [Overloaded] * 3
            refused = outcomes[4]
            assert isinstance(refused, Overloaded)
            assert refused.definite
            dispatcher_of(cache).check()


async def test_without_a_node_calls_fail_soon_and_go_on_when_it_is_there() -> None:
    address = closed_port()
    async with AsyncClient(address, timeout=0.5) as cache:
        begun = time.monotonic()
        outcomes = await asyncio.gather(
            *[cache.get(f"k{n}") for n in range(100)], return_exceptions=True
        )
        assert {type(one) for one in outcomes} == {NodeUnavailable}
        assert time.monotonic() - begun < 2


# ------------------------------------------------------------------ loops, forks, the end


def test_another_loop_is_refused_by_an_error_that_says_so() -> None:
    with PeerThread() as peer:
        cache = AsyncClient(peer.address)
        first = asyncio.new_event_loop()
        first.run_until_complete(cache.put("k", b"v"))
        calls: list[Callable[[], Any]] = [
            lambda: cache.get("k"),
            lambda: cache.put("k", b"w"),
            lambda: cache.get_many(["k"]),
            cache.aclose,
        ]
        for call in calls:
            with pytest.raises(WrongLoop, match="another event loop") as refused:
                asyncio.run(call())
            assert refused.value.definite
            assert isinstance(refused.value, RuntimeError)
        assert first.run_until_complete(cache.get("k")) == b"v"
        first.run_until_complete(cache.aclose())
        first.close()


def test_a_client_whose_loop_is_closed_can_still_be_closed() -> None:
    with PeerThread() as peer:
        cache = AsyncClient(peer.address)
        asyncio.run(cache.put("k", b"v"))
        with pytest.raises(WrongLoop):
            asyncio.run(cache.get("k"))
        asyncio.run(cache.aclose())
        with pytest.raises(ClientClosed):
            asyncio.run(cache.get("k"))


def test_after_a_fork_the_child_is_told_and_the_parent_goes_on() -> None:
    with PeerThread() as peer:
        unused = AsyncClient(peer.address)

        async def parent() -> None:
            async with AsyncClient(peer.address) as cache:
                await cache.put("k", b"v")

                def child() -> bool:
                    try:
                        asyncio.run(cache.get("k"))
                    except WrongLoop as error:
                        asyncio.run(cache.aclose())
                        return "fork" in str(error) and asyncio.run(unused.get("k")) == b"v"
                    return False

                assert in_child(child) == 0
                assert await cache.get("k") == b"v"

        asyncio.run(parent())


def test_after_a_fork_without_pythons_hooks_the_child_is_told_even_on_the_same_loop() -> None:
    with PeerThread() as peer:
        loop = asyncio.new_event_loop()
        cache = AsyncClient(peer.address)
        loop.run_until_complete(cache.put("k", b"v"))
        pid = ctypes.PyDLL(None).fork()
        if pid == 0:
            code = 1
            try:
                loop.run_until_complete(cache.get("k"))
            except WrongLoop:
                loop.run_until_complete(cache.aclose())
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert loop.run_until_complete(cache.get("k")) == b"v"
        loop.run_until_complete(cache.aclose())
        loop.close()


async def test_closing_ends_calls_that_wait() -> None:
    with PeerThread() as peer:
        cache = AsyncClient(peer.address, timeout=60)
        await cache.put("k", b"v")
        silent_to(peer, Get, GetMany, Write, WriteMany)
        calls = [cache.get("k"), cache.put("k", b"w"), *[cache.get(f"k{n}") for n in range(9)]]
        tasks = [asyncio.ensure_future(call) for call in calls]
        await asyncio.sleep(0.05)
        unsent = asyncio.ensure_future(cache.get("k"))
        await asyncio.sleep(0)
        await cache.aclose()
        await cache.aclose()
        outcomes = await asyncio.gather(*tasks, unsent, return_exceptions=True)
        assert {type(one) for one in outcomes} == {ClientClosed}
        definite = [one.definite for one in outcomes if isinstance(one, ClientClosed)]
        assert definite == [False] * len(tasks) + [True]


def test_a_client_that_is_forgotten_closes_its_sockets() -> None:
    with PeerThread() as peer:

        async def forgetful() -> Any:
            cache = AsyncClient(peer.address)
            await cache.put("k", b"v")
            assert cache._driver is not None
            context = cache._driver._context
            del cache
            gc.collect()
            await asyncio.sleep(0)
            return context

        assert asyncio.run(forgetful()).closed


async def test_the_context_of_a_caller_is_not_kept() -> None:
    class Session:
        pass

    variable: contextvars.ContextVar[Session] = contextvars.ContextVar("session")

    async def request(cache: AsyncClient) -> weakref.ref[Session]:
        session = Session()
        variable.set(session)
        await cache.put("k", b"v")
        await asyncio.gather(*[cache.get(f"k{n}") for n in range(9)])
        return weakref.ref(session)

    with PeerThread() as peer:
        async with AsyncClient(peer.address) as cache:
            session = await asyncio.ensure_future(request(cache))
            await asyncio.sleep(0)
            gc.collect()
            assert session() is None


async def test_opening_and_closing_leaves_no_descriptor() -> None:
    with PeerThread() as peer:

        def descriptors() -> int:
            return len(os.listdir("/proc/self/fd"))

        async def once() -> None:
            async with AsyncClient(peer.address) as cache:
                await asyncio.gather(*[cache.get(f"k{n}") for n in range(10)])

        await once()
        before = descriptors()
        for _ in range(20):
            await once()
        assert descriptors() <= before + 2


def test_the_options_are_checked() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for wrong in ({"in_flight": 0}, {"timeout": 0}, {"read": "some"}, {"cluster": ""}):
            with pytest.raises(ValueError):
                AsyncClient("127.0.0.1:1", **wrong)
        with pytest.raises(TypeError):
            AsyncClient("127.0.0.1:1", in_flight=True)
