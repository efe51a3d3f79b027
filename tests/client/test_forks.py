"""Clients that are used before a fork: the child has connections of its own, whoever forks."""

from __future__ import annotations

import gc
import multiprocessing
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from dcc.client.sync import Client
from dcc.errors import ClientClosed
from tests.support.client_peers import PeerThread
from tests.support.forks import in_child

pytestmark = [
    pytest.mark.process,
    # Newer Pythons warn of forking with threads, which is what is tested here.
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]


def works(cache: Client) -> bool:
    return cache.get("k") == b"v" and cache.put("child", b"c") is not None


def test_a_child_and_its_parent_go_on_side_by_side() -> None:
    with PeerThread() as peer, Client(peer.address) as cache:
        cache.put("k", b"v")
        parent, pool = cache._core.client_id, cache._pool
        for _ in range(3):
            assert in_child(lambda: works(cache)) == 0
            assert in_child(lambda: cache._core.client_id != parent) == 0
            assert in_child(lambda: works(cache) and cache._pool is not pool) == 0
            assert cache.get("child") == b"c"
            assert cache._pool is pool
            assert pool._made == 1


def test_a_child_may_close_or_forget_what_it_inherited() -> None:
    with PeerThread() as peer:
        cache = Client(peer.address)
        cache.put("k", b"v")

        def close() -> bool:
            cache.close()
            try:
                cache.get("k")
            except ClientClosed:
                return True
            return False

        def use_and_close() -> bool:
            return works(cache) and close()

        def forget() -> bool:
            nonlocal cache
            del cache
            gc.collect()
            return True

        for work in (close, use_and_close, forget):
            assert in_child(work) == 0
            assert cache.get("k") == b"v"
        cache.close()
        assert in_child(close) == 0, "and a closed one is closed in the child, too"


def test_grandchildren_have_connections_of_their_own() -> None:
    with PeerThread() as peer, Client(peer.address) as cache:
        cache.put("k", b"v")

        def child() -> bool:
            return works(cache) and in_child(lambda: works(cache)) == 0 and works(cache)

        assert in_child(child) == 0
        assert works(cache)


def test_threads_of_a_child_share_one_pool() -> None:
    with PeerThread() as peer, Client(peer.address, timeout=10) as cache:
        cache.put("k", b"v")
        start = threading.Barrier(8)

        def all_at_once() -> bool:
            found: list[object] = []

            def first_call() -> None:
                start.wait(10)
                found.append((cache.get("k"), cache._pool))

            threads = [threading.Thread(target=first_call) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(20)
            return len(found) == 8 and len(set(found)) == 1

        assert in_child(all_at_once) == 0


def test_a_fork_while_other_threads_are_in_calls() -> None:
    with PeerThread() as peer, Client(peer.address, timeout=10) as cache:
        cache.put("k", b"v")
        stop = threading.Event()

        def work() -> int:
            turns = 0
            while not stop.is_set():
                turns += works(cache)
            return turns

        with ThreadPoolExecutor(4) as threads:
            running = [threads.submit(work) for _ in range(4)]
            try:
                codes = [in_child(lambda: works(cache)) for _ in range(20)]
            finally:
                stop.set()
            assert codes == [0] * 20
            assert all(one.result(20) for one in running)


def test_workers_of_multiprocessing_use_a_client_of_before() -> None:
    context = multiprocessing.get_context("fork")
    with PeerThread() as peer, Client(peer.address) as cache:
        cache.put("k", b"v")

        def work(number: int) -> None:
            for turn in range(50):
                cache.put(f"{number}:{turn}", b"v")

        workers = [context.Process(target=work, args=(number,)) for number in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(20)
            assert worker.exitcode == 0
        keys = [f"{number}:{turn}" for number in range(4) for turn in range(50)]
        assert len(cache.get_many(keys)) == 200


def test_a_prefork_server_without_hooks_answers_every_request() -> None:
    with PeerThread() as peer:
        argv = [sys.executable, "-m", "tests.support.prefork_server", peer.address]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=100, check=False)
        assert (done.returncode, done.stdout) == (0, "right\n"), done.stderr
