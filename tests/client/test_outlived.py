"""A client refuses what it has outlived: driven by hand, and over sockets for both clients."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcc import AsyncClient
from dcc.client.outlived import Outlived
from dcc.client.sync import Client
from dcc.types import NO_VERSION, Version
from dcc.wire.codec import Header
from dcc.wire.messages import (
    Clear,
    Get,
    GetMany,
    GetManyReply,
    GetReply,
    Message,
    Op,
    Status,
    Write,
    WriteMany,
)
from tests.support.async_as_blocking import Blocking
from tests.support.client_driver import TRIP_NS, Bench, OnceLock
from tests.support.client_peers import Peer, PeerThread
from tests.support.forks import in_child

KEY = b"user:42"
PUT = Write(op=Op.PUT, key=KEY, value=b"mine")


def holding(peer: Peer, stamps: dict[bytes, int], *, tells_stamps: bool = True) -> None:
    """Let a peer have these keys at these stamps, whatever is written to it; the value says it."""

    def value(key: bytes) -> bytes:
        return b"%s@%d" % (peer.name.encode(), stamps[key])

    def answer(header: Header, message: Message) -> list[Message]:
        if isinstance(message, Get):
            if message.key not in stamps:
                return [
                    GetReply(status=Status.MISS, version=NO_VERSION, value=b"", expires_at_ms=0)
                ]
            version = Version(stamps[message.key], 1, 7)
            hit = GetReply(
                status=Status.HIT, version=version, value=value(message.key), expires_at_ms=0
            )
            return [hit]
        if isinstance(message, GetMany):
            hits = [key for key in message.keys if key in stamps]
            statuses = bytes(0 if key in stamps else 1 for key in message.keys)
            told = tuple(stamps[key] for key in hits) if tells_stamps else ()
            reply = GetManyReply(
                first=0, statuses=statuses, values=tuple(map(value, hits)), last=True, stamps=told
            )
            return [reply]
        return peer.serve(header, message)

    peer.answer = answer


def bench_with(*stamps: int, names: str = "ab") -> Bench:
    """Return a bench whose owners of KEY have it at these stamps, the primary first."""
    bench = Bench(names).learn()
    for address, stamp in zip(bench.order(KEY), stamps, strict=False):
        holding(bench.peers[address], {KEY: stamp})
        bench.peers[address].stamp = 10
    return bench


def refused(bench: Bench) -> list[str]:
    return [e.fields["address"] for e in bench.events if e.event == "stale_refused"]


# ------------------------------------------------------------------ reads


def test_an_older_hit_is_none_and_the_next_owner_is_asked() -> None:
    bench = bench_with(5, 12)
    assert bench.do(PUT).version.stamp == 11
    primary, second = bench.order(KEY)[:2]
    found = bench.do(Get(key=KEY))
    assert (found.status, found.version.stamp) == (Status.HIT, 12)
    assert refused(bench) == [primary]
    last = bench.asked(Get)[-1]
    assert (last.address, last.message.direct) == (second, True)


def test_where_nobody_has_anything_newer_the_read_is_an_unsure_miss_at_once() -> None:
    bench = bench_with(5, 6)
    bench.do(PUT)
    begun = bench.mono
    assert bench.do(Get(key=KEY)).status is Status.UNSURE
    assert bench.mono - begun == 2 * TRIP_NS
    assert sorted(refused(bench)) == sorted(bench.order(KEY)[:2])


def test_what_was_read_once_is_not_followed_by_anything_older() -> None:
    bench = bench_with(9, 9)
    assert bench.do(Get(key=KEY)).version.stamp == 9
    for address in bench.order(KEY)[:2]:
        holding(bench.peers[address], {KEY: 8})
    assert bench.do(Get(key=KEY)).status is Status.UNSURE
    for address in bench.order(KEY)[:2]:
        holding(bench.peers[address], {KEY: 9})
    assert bench.do(Get(key=KEY)).status is Status.HIT


@pytest.mark.parametrize("op", [Op.DELETE, Op.TOUCH, Op.INCR, Op.REPLACE])
def test_whatever_was_written_outlives_what_was_there(op: Op) -> None:
    bench = bench_with(5, 5)
    for address in bench.order(KEY)[:2]:
        bench.peers[address].data[KEY] = b"1"
    bench.do(Write(op=op, key=KEY, value=b"2", delta=1))
    assert bench.do(Get(key=KEY)).status is Status.UNSURE


def test_a_miss_is_always_believed() -> None:
    bench = bench_with()
    bench.do(PUT)
    for peer in bench.peers.values():
        holding(peer, {})
    assert bench.do(Get(key=KEY)).status is Status.MISS
    assert refused(bench) == []


def test_a_write_that_ended_meanwhile_says_nothing_against_a_read_that_began_before() -> None:
    bench = bench_with(9, 9)
    reading = bench.core.begin(Get(key=KEY), bench.now)
    bench.core.outlived.note(KEY, 11)
    assert bench.run(reading).version.stamp == 9
    assert bench.do(Get(key=KEY)).status is Status.UNSURE


def test_stale_keys_of_many_are_asked_singly_of_others() -> None:
    bench = Bench("ab").learn()
    keys = tuple(b"%d" % number for number in range(20))
    bench.do(WriteMany(op=Op.PUT, items=tuple((key, b"v") for key in keys), versions=True))
    bench.sent.clear()
    for address, peer in bench.peers.items():
        # Each leads some keys, of which it has nothing new, and has copies of the others'.
        holding(peer, {key: 1 if bench.order(key)[0] == address else 99 for key in keys})
    found = bench.do(GetMany(keys=keys))
    assert {key: value[-3:] for key, value in found.items()} == dict.fromkeys(keys, b"@99")
    assert len(bench.asked(GetMany)) == 2
    assert Counter(refused(bench)) == Counter(bench.order(key)[0] for key in keys)


def test_a_node_that_tells_no_stamps_is_asked_singly_about_known_keys_only() -> None:
    bench = Bench("a", replicas=0).learn()
    holding(bench.peers["a:1"], {b"known": 5, b"other": 5}, tells_stamps=False)
    bench.core.outlived.note(b"known", 5)
    assert bench.do(GetMany(keys=(b"known", b"other"))) == {b"known": b"a@5", b"other": b"a@5"}
    assert [sent.message.key for sent in bench.asked(Get)] == [b"known"]


def test_what_was_read_of_many_counts() -> None:
    bench = bench_with(9, 9)
    bench.do(GetMany(keys=(KEY,)))
    assert bench.core.outlived.known(KEY) == 9
    assert bench.core.seen >= 9


def test_a_clear_outlives_all_keys() -> None:
    bench = bench_with(5, 5)
    assert bench.do(Get(key=KEY)).status is Status.HIT
    cleared = bench.do(Clear()).stamp
    assert bench.do(Get(key=KEY)).status is Status.UNSURE
    assert bench.core.outlived.known(b"never seen") == cleared + 1


# ------------------------------------------------------------------ the memory


def test_a_key_in_use_is_kept_and_the_number_of_keys_is_bounded() -> None:
    outlived = Outlived(OnceLock(), keys_max=10)
    outlived.note(b"used", 7)
    for number in range(1_000):
        outlived.note(b"%d" % number, 5)
        assert outlived.known(b"used") == 7
        assert len(outlived) <= 20
    assert all(outlived.known(b"%d" % number) == 5 for number in range(995, 1_000))
    assert outlived.known(b"0") == 0, "forgotten"


notes = st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c", b"d"]), st.integers(0, 9)))


@given(notes=notes, clear=st.integers(0, 9))
def test_the_newest_stamp_is_known_in_whatever_order_it_came(
    notes: list[tuple[bytes, int]], clear: int
) -> None:
    outlived = Outlived(nullcontext(), keys_max=4)
    newest: Counter[bytes] = Counter()
    for key, stamp in notes:
        outlived.note(key, stamp)
        newest[key] = max(newest[key], stamp)
    assert {key: outlived.known(key) for key in newest} == newest
    outlived.cleared(clear)
    for key in (*newest, b"other"):
        assert outlived.known(key) == max(newest[key] if newest[key] > clear else 0, clear + 1)


@given(notes=notes, asked=st.dictionaries(st.sampled_from([b"a", b"b", b"z"]), st.integers(1, 9)))
def test_hits_of_many_are_admitted_together_or_not_at_all(
    notes: list[tuple[bytes, int]], asked: dict[bytes, int]
) -> None:
    outlived = Outlived(nullcontext())
    for key, stamp in notes:
        outlived.note(key, stamp)
    before = {key: outlived.known(key) for key in asked}
    fits = all(stamp >= before[key] for key, stamp in asked.items())
    assert outlived.admits(list(asked), list(asked.values())) == fits
    assert {key: outlived.known(key) for key in asked} == (asked if fits else before)


# ------------------------------------------------------------------ over sockets


@pytest.mark.process
@pytest.mark.parametrize("kind", [Client, Blocking])
def test_both_clients_refuse_on_their_hot_paths(kind: Callable[..., Any]) -> None:
    with PeerThread() as thread, kind(thread.address) as cache:
        thread.peer.replicas = 0
        thread.peer.stamp = 50
        cache.put("k", b"mine")
        assert cache.put_many({"m": b"1", "n": b"2"}) == []
        holding(thread.peer, {b"k": 7, b"m": 99, b"n": 7})
        assert cache.get("k") is None
        assert cache.get_many(["k", "m", "n"]) == {"m": b"a@99"}
        assert cache.get("m") == b"a@99"
        assert cache.lookup("n").status == "unsure"
        assert cache.counts()["stale_refused"] == 4
        holding(thread.peer, {b"k": 70, b"m": 98, b"n": 70})
        assert cache.get("k") == b"a@70"
        assert cache.get("m") is None


async def _together(client: AsyncClient, keys: list[str]) -> list[bytes | None]:
    return await asyncio.gather(*[client.get(key) for key in keys])


@pytest.mark.process
def test_gets_of_one_turn_are_compared_key_by_key() -> None:
    with PeerThread() as thread, Blocking(thread.address) as cache:
        thread.peer.replicas = 0
        thread.peer.stamp = 50
        cache.put("k", b"mine")
        holding(thread.peer, {b"k": 7, b"m": 7})
        found = cache.run(_together(cache.client, ["k", "m", "k", "absent"]))
        assert found == [None, b"a@7", None, None]
        asked = [message for _, message in thread.peer.asked if isinstance(message, GetMany)]
        assert [message.keys for message in asked] == [(b"k", b"m", b"k", b"absent")]


@pytest.mark.process
def test_a_child_process_knows_what_its_parent_has_outlived() -> None:
    with PeerThread() as thread, Client(thread.address) as cache:
        thread.peer.replicas = 0
        thread.peer.stamp = 50
        cache.put("k", b"mine")
        holding(thread.peer, {b"k": 7})
        assert in_child(lambda: cache.get("k") is None and cache.get("other") is None) == 0
