"""The cache that every adapter stands on: values, namespaces, failing open, the breaker."""

from __future__ import annotations

import asyncio
import copy
import logging
import pickle
import time
from typing import Any, Literal

import pytest

from dcc import (
    AsyncCache,
    Cache,
    InvalidKey,
    LocalCluster,
    NodeUnavailable,
    NotANumber,
    OperationTimeout,
)
from dcc.client.values import Values
from dcc.contrib.leases import Lease
from tests.support.processes import wait_until

pytestmark = pytest.mark.process


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize("kind", [Cache, AsyncCache])
def test_a_cache_says_why_it_cannot_be_pickled_and_can_be_copied(
    kind: type[Cache | AsyncCache],
) -> None:
    cache = kind(nodes="127.0.0.1:1", namespace="mine")
    with pytest.raises(TypeError, match=r"make a client in each process"):
        pickle.dumps(cache)
    assert copy.copy(cache).settings is cache.settings


def test_one_str_is_not_taken_for_many_keys(url: str) -> None:
    cache = Cache(url, namespace="names")
    with pytest.raises(TypeError, match="one str"):
        cache.get_many("abc")
    with pytest.raises(TypeError, match="one str"):
        cache.delete_many("abc")
    with pytest.raises(TypeError, match="key: str, got int"):
        cache.put_many({1: b"x"})  # type: ignore[dict-item]  # the point of the test


@pytest.mark.parametrize("age", ["nan", "-1", "inf"])
def test_the_age_of_a_clear_is_a_number_of_seconds(age: str) -> None:
    with pytest.raises(ValueError, match="clear_age: seconds from 0"):
        Cache(f"dcc://127.0.0.1:1/mine?clear_age={age}")


# ------------------------------------------------------------------ values


@pytest.mark.parametrize("serializer", ["json", "msgpack", "pickle"])
@pytest.mark.parametrize(
    "value", [None, True, False, 0, -7, 1 << 63, "7", "", "ä", [1, "2", None], {"a": {"b": 1.5}}]
)
def test_values_come_back_as_they_were(
    url: str, serializer: Literal["json", "msgpack", "pickle"], value: Any
) -> None:
    cache = Cache(url, namespace="values", serializer=serializer)
    missing = object()
    assert cache.put("key", value)
    found = cache.get("key", missing)
    assert found == value
    assert type(found) is type(value)


def test_whole_numbers_are_digits_so_that_incr_works(url: str) -> None:
    cache = Cache(url, namespace="numbers", serializer="pickle")
    cache.put("n", 41)
    assert cache.incr("n") == 42
    assert cache.get("n") == 42
    cache.put("text", "41")
    with pytest.raises(NotANumber):
        cache.incr("text")


def test_incr_without_an_initial_value_leaves_an_absent_key_absent(url: str) -> None:
    cache = Cache(url, namespace="numbers", serializer="json")
    cache.delete("gone")
    assert cache.incr("gone", initial=None) is None
    assert not cache.contains("gone")
    cache.put("there", 5, ttl=60)
    assert cache.incr("there", -7, initial=None) == -2


def test_large_values_are_compressed_and_small_ones_are_not(url: str) -> None:
    cache = Cache(url, namespace="small", serializer="json", compress=1_000)
    cache.put("large", "a" * 5_000)
    assert cache.get("large") == "a" * 5_000
    values = cache.settings.values
    assert len(values.dump("a" * 5_000)) < 100
    assert values.dump("a" * 10) == b'"aaaaaaaaaa"'


def test_bytes_that_look_packed_are_kept_apart() -> None:
    values = Values(compress=10)
    for data in (b"", b"\xc1", b"\xc1z", b"\xc1r12", b"\xc1z" + b"1234567890", b"1" * 1_000):
        assert values.load(values.dump(data)) == data


def test_a_value_that_cannot_be_read_back_is_a_miss_counted_and_deleted(url: str) -> None:
    raw = Cache(url, namespace="mixed")
    cache = Cache(url, namespace="mixed", serializer="json")
    raw.put("broken", b"{")
    raw.put("torn", b"\xc1z" + b"x")
    assert cache.get("broken", "none") == "none"
    assert cache.get_many(["torn"]) == {}
    assert cache.counts()["unreadable"] == 2
    assert not raw.contains("broken")
    assert not raw.contains("torn")


# ------------------------------------------------------------------ namespaces and keys


def test_to_clear_a_namespace_leaves_all_others_alone(url: str) -> None:
    shop, blog = Cache(url, namespace="shop"), Cache(url, namespace="blog")
    everybody = Cache(url)
    for cache in (shop, blog, everybody):
        cache.put("key", b"mine")
    assert shop.clear()
    assert shop.get("key") is None
    assert shop.add("key", b"anew")
    assert blog.get("key") == b"mine"
    assert everybody.get("key") == b"mine"


def test_another_process_sees_a_clear_soon(url: str) -> None:
    # Another `clear_age` keeps a stamp of its own, as another process does.
    here, there = Cache(url, namespace="wide"), Cache(url, namespace="wide", clear_age=0.05)
    here.put("key", b"old")
    assert there.get("key") == b"old"
    here.clear()
    wait_until(lambda: there.get("key") is None, 2)


def test_a_lost_stamp_brings_no_old_values_back(url: str, cluster: LocalCluster) -> None:
    cache = Cache(url, namespace="lost", clear_age=0)
    cache.put("key", b"1")
    cache.clear()
    cluster.client().delete("lost:generation")
    assert cache.get("key") is None
    assert cache.put("key", b"2")
    assert cache.get("key") == b"2"


def test_long_and_odd_keys_are_keys_like_any_other(url: str) -> None:
    cache = Cache(url, namespace="keys")
    keys = ["x" * 600, "x" * 601, "ä" * 400, "\ud800", "with blank"]
    assert cache.put_many({key: key[:1].encode("utf-8", "replace") for key in keys}) == []
    assert set(cache.get_many(keys)) == set(keys)
    with pytest.raises(InvalidKey):
        Cache(url).get("")


@pytest.mark.parametrize("name", ["a:b", "x" * 129])
def test_a_namespace_that_could_be_mistaken_is_refused(url: str, name: str) -> None:
    with pytest.raises(ValueError, match="namespace"):
        Cache(url, namespace=name)


# ------------------------------------------------------------------ options


def test_keywords_go_before_the_url_and_the_url_before_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DCC_URL", "dcc://a:1/one?timeout=0.5&serializer=json&on_error=miss")
    settings = Cache().settings
    assert (settings.nodes, settings.namespace, settings.fail_open) == (("a:1",), "one", True)
    settings = Cache("dcc://b/two?timeout=0.5&w=all", timeout=0.2, namespace="three").settings
    assert (settings.nodes, settings.namespace) == (("b:6740",), "three")
    assert settings.client == {"timeout": 0.2, "w": "all"}


@pytest.mark.parametrize(
    "url", ["redis://a", "dcc://a/x?speed=9", "dcc://a/x?timeout=soon", "dcc://me@a/x"]
)
def test_a_url_with_a_mistake_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="url"):
        Cache(url)
    with pytest.raises(TypeError, match="unknown option 'speed'"):
        Cache(speed=9)  # type: ignore[call-arg]


# ------------------------------------------------------------------ no cluster


def test_after_one_time_out_of_a_whole_cluster_calls_fail_at_once(silent: str) -> None:
    cache = Cache(nodes=silent, timeout=0.3)
    with pytest.raises((NodeUnavailable, OperationTimeout)):
        cache.get("key")
    began = time.monotonic()
    for _ in range(50):
        with pytest.raises(NodeUnavailable, match="probed"):
            cache.get("key")
    assert time.monotonic() - began < 0.3
    assert cache.counts()["breaker_open"] == 1
    assert cache.counts()["failed_fast"] == 50


def test_without_a_cluster_reads_are_misses_and_one_line_is_logged(
    silent: str, caplog: pytest.LogCaptureFixture
) -> None:
    cache = Cache(f"dcc://{silent}/ns?timeout=0.2&on_error=miss&serializer=json")
    with caplog.at_level(logging.INFO, "dcc.client"):
        assert cache.get("key", "none") == "none"
        assert cache.put("key", 1) is False
        assert cache.add("key", 1) is False
        assert cache.incr("key") is None
        assert cache.get_many(["a", "b"]) == {}
        assert cache.put_many({"a": 1}) == ["a"]
        assert cache.delete_many(["a"]) == 0
        assert cache.clear() is False
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert cache.counts()["failed_open"] == 8


def test_mistakes_of_the_caller_are_raised_all_the_same(url: str) -> None:
    cache = Cache(url, on_error="miss")
    with pytest.raises(InvalidKey):
        cache.get("")
    with pytest.raises(TypeError):
        cache.put("key", {"no": "serializer"})


def test_a_value_that_is_too_large_leaves_no_older_one_behind(url: str) -> None:
    cache = Cache(url, namespace="large", on_error="miss")
    cache.put("key", b"old")
    assert cache.put("key", bytes(17 << 20)) is False
    assert cache.get("key") is None
    cache.put_many({"large": b"old", "small": b"old", "other": b"old"})
    assert cache.put_many({"large": bytes(17 << 20), "small": b"new"}) == ["large", "small"]
    assert cache.get_many(["large", "small", "other"]) == {"other": b"old"}


def test_a_cluster_that_comes_back_is_used_without_anybody_doing_anything() -> None:
    with LocalCluster(1) as cluster:
        address = cluster.nodes[0].address
        cache = Cache(nodes=address, namespace="back", timeout=0.3, on_error="miss")
        assert cache.put("key", b"1")
        cluster.nodes[0].kill()
        assert cache.get("key") is None
        assert cache.counts()["breaker_open"] == 1
        cluster.add(bind=address, gossip_bind="127.0.0.1:0")
        wait_until(lambda: cache.put("key", b"2"), 20)
        assert cache.get("key") == b"2"
        assert cache.counts()["breaker_open"] == 0


# ------------------------------------------------------------------ asyncio


def test_coroutines_do_the_same(url: str, silent: str) -> None:
    async def main() -> None:
        async with AsyncCache(url, namespace="async", serializer="json") as cache:
            assert await cache.put("key", {"a": 1})
            assert await cache.get("key") == {"a": 1}
            assert await cache.incr("n", 2) == 2
            assert await cache.put_many({"x": 1, "y": 2}) == []
            assert await cache.get_many(["x", "y", "z"]) == {"x": 1, "y": 2}
            assert await cache.clear()
            assert await cache.get("key") is None
        async with AsyncCache(nodes=silent, timeout=0.2, on_error="miss") as cache:
            assert await cache.get("key", b"none") == b"none"
            assert cache.counts()["breaker_open"] == 1

    asyncio.run(main())


# ------------------------------------------------------------------ leases


def test_a_lease_is_released_only_by_its_owner(url: str) -> None:
    cache = Cache(url, namespace="leases")
    mine, other = (Lease(cache, "job", seconds=30) for _ in range(2))
    assert mine.acquire(wait=False)
    assert not other.acquire(wait=False)
    assert not other.release()
    assert mine.locked()
    assert mine.release()
    assert not mine.locked()
    assert other.acquire(wait=False)
    assert not mine.release()
    assert other.release()


def test_a_lease_ends_by_itself(url: str) -> None:
    cache = Cache(url, namespace="leases")
    assert Lease(cache, "short", seconds=0.2).acquire(wait=False)
    assert Lease(cache, "short", seconds=30, poll=0.01).acquire()


def test_without_a_cluster_everybody_has_the_lease(silent: str) -> None:
    cache = Cache(nodes=silent, timeout=0.2, on_error="miss")
    assert Lease(cache, "job", seconds=30).acquire()
