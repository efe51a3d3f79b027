"""Exceptions from signal handlers anywhere in a call, and clients that are closed in the middle."""

from __future__ import annotations

import gc
import os
import random
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from dcc.client.sync import Client
from dcc.errors import ClientClosed, DccError
from dcc.guard import Guard
from dcc.wire.messages import Get
from tests.client.test_shell import silent_to
from tests.support.client_peers import PeerThread
from tests.support.processes import wait_until
from tests.support.tracing import Interruption, Tracer, interrupt

pytestmark = pytest.mark.process


def in_thread(work: Callable[[], Any], timeout: float = 5) -> Any:
    """Return what `work` returns in another thread, or the error that it raises."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(work())
        except DccError as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(timeout)
    assert found, "it hangs"
    return found[0]


KEYS = [f"k{n}" for n in range(10)]
CALLS: dict[str, Callable[[Client], Any]] = {
    "get": lambda cache: cache.get("k1"),
    "put": lambda cache: cache.put("k1", b"v"),
    "get_many": lambda cache: cache.get_many(KEYS),
    "put_many": lambda cache: cache.put_many(dict.fromkeys(KEYS, b"v")),
}


STEPS = {"get": 1, "put": 3, "get_many": 1, "put_many": 13}
"Every so manieth instruction is tried: some calls have thousands."


def points(
    call: Callable[[], Any], run: Callable[[], Any], step: int
) -> Iterator[BaseException | None]:
    """Call again and again with `run` at one instruction after the other; yield how each ended."""
    for at in range(0, 1_000_000, step):
        tracer, error = Tracer(at, run), None
        try:
            with tracer:
                call()
        except (Interruption, DccError) as one:
            error = one
        yield error
        if tracer.left >= 0:
            return


@pytest.mark.parametrize("name", CALLS)
def test_an_exception_at_any_instruction_costs_no_channel(name: str) -> None:
    with PeerThread() as peer, Client(peer.address, timeout=5) as cache:
        cache.put_many(dict.fromkeys(KEYS, b"v"))
        call, kept = CALLS[name], []
        for error in points(lambda: call(cache), interrupt, STEPS[name]):
            kept.append(error)
            begun = time.monotonic()
            assert cache.get("k1") == b"v"
            assert time.monotonic() - begun < 1
        assert len(kept) > 200
        assert cache._pool._made < 20, "a few are kept by errors that are kept, and no more"
        assert in_thread(lambda: cache.get("k2")) == b"v"
        kept.clear()
        assert cache._pool._made <= 2


@pytest.mark.parametrize("name", CALLS)
def test_a_handler_may_call_the_client_at_any_instruction(name: str) -> None:
    with PeerThread() as peer, Client(peer.address, timeout=5) as cache:
        cache.put_many(dict.fromkeys(KEYS, b"v"))
        call = CALLS[name]
        for error in points(lambda: call(cache), lambda: call(cache), STEPS[name]):
            assert error is None
        assert cache._pool._made <= 3


@pytest.mark.parametrize("name", ["get", "put"])
def test_a_handler_may_close_the_client_at_any_instruction(name: str) -> None:
    with PeerThread() as peer:
        for at in range(0, 100_000, 7):
            cache = Client(peer.address, timeout=5)
            cache.put("k1", b"v")
            begun, tracer = time.monotonic(), Tracer(at, cache.close)
            try:
                with tracer:
                    CALLS[name](cache)
            except ClientClosed:
                pass
            assert time.monotonic() - begun < 1
            if tracer.left >= 0:
                return
            with pytest.raises(ClientClosed):
                cache.get("k1")


@pytest.fixture
def kept() -> Iterator[list[Interruption]]:
    """Errors that are kept, with all that their frames hold; behind the test it is given back."""
    errors: list[Interruption] = []
    before = len(os.listdir("/proc/self/fd"))
    yield errors
    errors.clear()
    gc.collect()
    wait_until(lambda: len(os.listdir("/proc/self/fd")) < before + 50, 10)


def test_a_first_call_may_be_interrupted_anywhere(kept: list[Interruption]) -> None:
    """Also: sockets that errors keep alive do not hold up the end."""
    with PeerThread() as peer:
        for at in range(0, 100_000, 11):
            cache, tracer = Client(peer.address, timeout=5), Tracer(at, interrupt)
            try:
                with tracer:
                    cache.put("k1", b"v")
            except Interruption as error:
                kept.append(error)
            begun = time.monotonic()
            assert cache.add("k2", b"v") in (True, False)
            cache.close()
            assert time.monotonic() - begun < 1.5
            if tracer.left >= 0:
                return


def test_a_handler_may_use_the_client_in_its_first_call() -> None:
    with PeerThread() as peer:
        for at in range(0, 100_000, 11):
            with Client(peer.address, timeout=5) as cache:
                tracer = Tracer(at, partial(cache.put, "k2", b"w"))
                with tracer:
                    cache.put("k1", b"v")
                if tracer.left >= 0:
                    return
                assert cache.get_many(["k1", "k2"]) == {"k1": b"v", "k2": b"w"}


def test_closing_may_be_interrupted_anywhere_and_done_again() -> None:
    with PeerThread() as peer:
        for at in range(100_000):
            cache, tracer = Client(peer.address, timeout=5), Tracer(at, interrupt)
            cache.put("k1", b"v")
            context = weakref.ref(cache._pool._context)
            try:
                with tracer:
                    cache.close()
            except Interruption:
                pass
            begun = time.monotonic()
            cache.close()
            assert time.monotonic() - begun < 1
            with pytest.raises(ClientClosed):
                cache.get("k1")
            assert context() is None, "libzmq's threads have ended"
            if tracer.left >= 0:
                return


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_alarms_at_random_instants_cost_no_channel() -> None:
    # Python loses what a handler raises in `__del__`, and only warns of it.
    armed = False

    def on_alarm(*_: object) -> None:
        nonlocal armed
        if armed:
            armed = False
            raise Interruption

    def call_on(call: Callable[[], Any]) -> None:
        # A function of its own: Python 3.13 lets what is raised in a loop's jump pass its `try`.
        while armed:
            call()

    draw = random.Random(3)
    before = signal.signal(signal.SIGALRM, on_alarm)
    gc.collect()
    gc.disable()  # What Python code raises while garbage is collected is lost.
    try:
        with PeerThread() as peer, Client(peer.address, timeout=5) as cache:
            cache.put_many(dict.fromkeys(KEYS, b"v"))
            for turn in range(2_000):
                call = CALLS[[*CALLS][turn % len(CALLS)]]
                try:
                    armed = True
                    signal.setitimer(signal.ITIMER_REAL, draw.uniform(1e-5, 2e-3))
                    call_on(partial(call, cache))
                except Interruption:
                    pass
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert cache._pool._made <= 2
            assert in_thread(lambda: cache.get("k1")) == b"v"
    finally:
        gc.enable()
        signal.signal(signal.SIGALRM, before)


def test_a_handler_that_closes_the_client_ends_the_call_that_it_interrupts() -> None:
    with PeerThread() as peer:
        cache = Client(peer.address, timeout=60)
        cache.put("k1", b"v")
        silent_to(peer, Get)
        before = signal.signal(signal.SIGALRM, lambda *_: cache.close())
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            begun = time.monotonic()
            with pytest.raises(ClientClosed) as closed:
                cache.get("k1")
            assert time.monotonic() - begun < 2
            assert not closed.value.definite
        finally:
            signal.signal(signal.SIGALRM, before)


def test_the_guard_gives_way_to_what_was_left_inside_and_lets_its_thread_in_again() -> None:
    guard = Guard()
    guard.__enter__()
    with guard:
        pass

    def enter() -> bool:
        with guard:
            return True

    assert in_thread(enter), "after a while"
    assert in_thread(enter, 0.2), "and then at once"
    guard.__exit__()
