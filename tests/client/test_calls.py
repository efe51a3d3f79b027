"""What a client's options and methods put on the wire, over real sockets."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

import dcc
from dcc.client.arguments import Quorum
from dcc.client.hedging import REVIEWED_EVERY
from dcc.client.sync import Client
from dcc.ring.hashing import slot_of
from dcc.types import NO_VERSION, Settings
from dcc.wire.codec import Header
from dcc.wire.messages import (
    Code,
    ConvergedGet,
    ConvergedReply,
    ErrorReply,
    Get,
    GetReply,
    Message,
    SetReplicas,
    SettingsReply,
    Status,
    Write,
    WriteMany,
)
from tests.support.client_peers import PeerThread

pytestmark = pytest.mark.process


@pytest.fixture
def peer() -> Iterator[PeerThread]:
    with PeerThread() as one:
        yield one


def asked(peer: PeerThread, *kinds: type[Message]) -> list[Any]:
    """Return the messages of some kinds that reached the peer."""
    return [message for _, message in peer.peer.asked if isinstance(message, kinds)]


@pytest.mark.parametrize(("w", "wire"), [(2, 2), ("quorum", 0), ("all", 255)])
def test_a_clients_own_w_counts_for_every_call_that_writes(
    peer: PeerThread, w: Quorum, wire: int
) -> None:
    with Client(peer.address, w=w) as cache:
        cache.put("k", b"1")
        cache.add("k", b"1")
        cache.replace("k", b"1")
        cache.touch("k", 5)
        cache.incr("k")
        cache.decr("k")
        cache.delete("k")
        cache.put_many({"k": b"1"})
        cache.delete_many(["k"])
        sent = asked(peer, Write, WriteMany)
        assert len(sent) == 9
        assert {message.w for message in sent} == {wire}
        cache.put("k", b"1", w=1)
        assert asked(peer, Write)[-1].w == 1


def test_r_is_the_clients_own_or_the_calls(peer: PeerThread) -> None:
    with Client(peer.address, r="quorum") as cache:
        cache.get("k")
        cache.lookup("k")
        cache.entry("k")
        _ = "k" in cache
        cache.get("k", r=1)
        cache.get("k", r="all")
        cache.lookup("k", r=3)
        assert [message.r for message in asked(peer, Get)] == [0, 0, 0, 0, 1, 255, 3]
        wrong: Any
        for wrong in (0, 11, "most"):
            with pytest.raises(ValueError, match="r: "):
                cache.get("k", r=wrong)


def test_too_few_owners_for_a_read_are_said_to_be_too_few(peer: PeerThread) -> None:
    refusal = ErrorReply(code=Code.QUORUM_NOT_REACHED, text="r = 3, live owners 1")
    serve = peer.peer.serve

    def answer(header: Header, message: Message) -> list[Message]:
        return [refusal] if isinstance(message, Get) else serve(header, message)

    peer.peer.answer = answer
    with Client(peer.address, r=3) as cache:
        for read in (cache.get, cache.lookup, cache.entry):
            with pytest.raises(dcc.QuorumNotReached, match="live owners 1"):
                read("k")


def test_every_end_of_a_lookup_says_how_sure_it_is(peer: PeerThread) -> None:
    with Client(peer.address) as cache:
        version = cache.put("k", b"v", ttl=60)
        hit, miss = cache.lookup("k"), cache.lookup("absent")
        assert (hit.status, hit.confirmed, hit.version, hit.node) == ("hit", True, version, "a")
        assert hit.age is not None
        assert (miss.status, miss.confirmed, miss.node) == ("miss", True, "a")
        reply = GetReply(status=Status.UNSURE, version=NO_VERSION, value=b"", expires_at_ms=0)
        peer.peer.answer = lambda header, message: [reply]
        unsure = cache.lookup("k")
        assert (unsure.status, unsure.confirmed, unsure.node) == ("unsure", False, "a")
        for found in (miss, unsure):
            assert (found.value, found.version, found.age, found.expires_at) == (None,) * 4


def test_the_number_of_copies_is_set_and_then_shown(peer: PeerThread) -> None:
    with Client(peer.address) as cache:
        assert cache.replicas == 1
        cache.set_replicas(3)
        assert cache.replicas == 3
        for wrong in (-1, 10):
            with pytest.raises(ValueError, match=r"0\.\.9"):
                cache.set_replicas(wrong)
        for wrong_type in (True, None, "2"):
            with pytest.raises(TypeError):
                cache.set_replicas(wrong_type)  # type: ignore[arg-type]  # the point of the test
        assert len(asked(peer, SetReplicas)) == 1
        half = SettingsReply(settings=Settings(2, 1, 0), everywhere=False)
        peer.peer.answer = lambda header, message: [half]
        with pytest.raises(dcc.MaybeStored):
            cache.set_replicas(2)


def test_convergence_says_what_is_missing(peer: PeerThread) -> None:
    with Client(peer.address) as cache:
        assert cache.converged() is True
        serve = peer.peer.serve
        reply = ConvergedReply(converged=False, under_replicated=7, reasons=("b is behind",))

        def answer(header: Header, message: Message) -> list[Message]:
            return [reply] if isinstance(message, ConvergedGet) else serve(header, message)

        peer.peer.answer = answer
        assert cache.converged() is False
        assert cache.convergence() == dcc.Convergence(False, 7, ("b is behind",))
    with Client("127.0.0.1:1", timeout=0.2) as nobody, pytest.raises(dcc.NodeUnavailable):
        nobody.converged()


# ------------------------------------------------------------------ hedges


@pytest.fixture
def pair() -> Iterator[tuple[PeerThread, PeerThread]]:
    with PeerThread("a") as a, PeerThread("b") as b:
        members = (a.peer.members[0], b.peer.members[0])
        a.peer.members = b.peer.members = members
        yield a, b


def hedged(cache: Client) -> int:
    """Return how often the client has hedged; a busy machine may make it do so any time."""
    return cache.counts().get("hedged", 0)


def owned_by(cache: Client, name: str) -> str:
    """Return a key whose primary is `name`."""
    topology = cache.topology()
    return next(k for k in map(str, range(1000)) if topology.owners(k)[0] == name)


def test_a_get_of_a_node_that_stops_is_answered_by_the_other_before_it_counts_as_silent(
    pair: tuple[PeerThread, PeerThread],
) -> None:
    a, b = pair
    with Client([a.address, b.address], timeout=5) as cache:
        key = owned_by(cache, "a")
        for one in pair:
            one.peer.data[key.encode()] = b"v"
        for _ in range(4 * REVIEWED_EVERY):
            assert cache.get(key) == b"v"
        delay = cache._core.hedging.delay_ns / 1e9
        assert delay < 0.2, "a loopback answers sooner"
        serve, before = a.peer.serve, hedged(cache)
        a.peer.answer = lambda header, message: (
            [] if isinstance(message, Get) else serve(header, message)
        )
        begun = time.monotonic()
        assert cache.get(key) == b"v"
        took = time.monotonic() - begun
        assert hedged(cache) == before + 1
        assert asked(b, Get)[-1] == Get(key=key.encode(), direct=True, aside=True)
        assert took >= delay
        assert a.address not in cache._core.health.sick, "its time was not over yet"


def test_a_node_that_stops_is_asked_last_after_one_get_that_another_answered(
    pair: tuple[PeerThread, PeerThread],
) -> None:
    a, b = pair
    with Client([a.address, b.address], timeout=5) as cache:
        theirs, other = owned_by(cache, "a"), owned_by(cache, "b")
        for one in pair:
            one.peer.data.update({theirs.encode(): b"v", other.encode(): b"v"})
        for _ in range(4 * REVIEWED_EVERY):
            cache.get(theirs)
        before = hedged(cache)
        a.peer.answer = lambda header, message: []
        assert cache.get(theirs) == b"v"
        assert hedged(cache) == before + 1
        deadline = time.monotonic() + 20
        while a.address not in cache._core.health.sick:
            assert cache.get(other) == b"v"
            assert time.monotonic() < deadline
        a.peer.answer = a.peer.serve
        while a.address in cache._core.health.sick:
            assert cache.get(other) == b"v"
            assert time.monotonic() < deadline, "it answers again, and is found out"


def test_a_get_that_was_hedged_leaves_nothing_behind_for_the_next(
    pair: tuple[PeerThread, PeerThread],
) -> None:
    """A primary that is a little late each time: its answers never reach another key's get."""
    a, b = pair
    with Client([a.address, b.address], timeout=5) as cache:
        keys = [k for k in map(str, range(200)) if cache.topology().owners(k)[0] == "a"][:40]
        for one in pair:
            one.peer.data.update({k.encode(): k.encode() for k in keys})
        for key in keys:
            assert cache.get(key) == key.encode()
        serve = a.peer.serve

        def late(header: Header, message: Message) -> list[Message]:
            if isinstance(message, Get) and slot_of(message.key) % 3 == 0:
                time.sleep(0.02)  # Being late is what is tested.
            return serve(header, message)

        a.peer.answer = late
        for _ in range(3):
            for key in keys:
                assert cache.get(key) == key.encode()
        assert hedged(cache) > 0
        assert a.address not in cache._core.health.sick
