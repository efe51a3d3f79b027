"""`get_or_put` and `memoize` of both clients, against real nodes in this process."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import dcc
from dcc import AsyncClient, Client
from dcc.client.memo import plain
from dcc.client.stampede import lease_key
from dcc.wire.messages import Op, Write
from tests.support.async_as_blocking import Blocking

pytestmark = pytest.mark.process
LEASE = lease_key(b"k").decode()


@pytest.fixture(scope="module")
def cluster() -> Iterator[dcc.LocalCluster]:
    with dcc.LocalCluster(2, replicas=1) as running:
        yield running


@pytest.fixture(params=["blocking", "asyncio"])
def cache(cluster: dcc.LocalCluster, request: pytest.FixtureRequest) -> Iterator[Any]:
    addresses = [node.address for node in cluster.nodes]
    client = Client if request.param == "blocking" else Blocking
    with client(addresses, timeout=20) as one:
        one.clear()
        yield one


class Factory:
    """Makes values, and counts; may fail."""

    def __init__(self) -> None:
        self.calls, self.fails = 0, False

    def __call__(self) -> bytes:
        self.calls += 1
        if self.fails:
            raise KeyError("not today")
        return b"%d" % self.calls


def test_what_is_absent_is_made_once_and_kept(cache: Any) -> None:
    factory = Factory()
    assert [cache.get_or_put("k", factory, ttl=60) for _ in range(3)] == [b"1"] * 3
    assert cache.get("k") == b"1"
    entry = cache.entry("k")
    assert entry.expires_at == pytest.approx(time.time() + 60, abs=20)
    assert cache.get(LEASE) is None, "given back"
    cache.delete("k")
    assert cache.get_or_put("k", factory) == b"2"
    assert cache.entry("k").expires_at is None


def test_the_error_of_a_factory_is_its_callers_and_leaves_no_lease(cache: Any) -> None:
    factory = Factory()
    factory.fails = True
    with pytest.raises(KeyError, match="not today"):
        cache.get_or_put("k", factory)
    factory.fails = False
    begun = time.monotonic()
    assert cache.get_or_put("k", factory, lease=30) == b"2"
    assert time.monotonic() - begun < 15, "nobody waited for the lease"


def test_a_factory_that_makes_no_bytes_is_a_mistake_of_its_caller(cache: Any) -> None:
    with pytest.raises(TypeError, match="value: bytes-like"):
        cache.get_or_put("k", lambda: 7)
    assert cache.get("k") is None
    with pytest.raises(TypeError, match="factory: a function"):
        cache.get_or_put("k", b"value")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"stale_ttl": 5}, "stale_ttl: what never expires"),
        ({"lease": None}, "lease: seconds above 0"),
        ({"lease": 0}, "lease: above 0"),
        ({"ttl": 1, "stale_ttl": -1}, "stale_ttl: above 0"),
        ({"wait": 0}, "wait: above 0"),
        ({"beta": -1.0}, "beta: 0 or more"),
    ],
)
def test_options_are_checked_before_anything_is_asked(
    cache: Any, options: dict[str, Any], error: str
) -> None:
    with pytest.raises(ValueError, match=error):
        cache.get_or_put("k", Factory(), **options)


def hold_lease(cache: Any) -> None:
    """Let another caller make the value of `k`."""
    taken = Write(op=Op.PUT, key=LEASE.encode(), value=b"of another", ttl_ms=60_000)
    with Client(cache._ops.addresses) as another:
        another._call(taken)


def test_what_looks_like_a_lease_is_no_key_of_an_application(cache: Any) -> None:
    for write, given in (
        (cache.put, (LEASE, b"v")),
        (cache.add, (LEASE, b"v")),
        (cache.incr, (LEASE,)),
        (cache.put_many, ({"other": b"v", LEASE: b"v"},)),
    ):
        with pytest.raises(dcc.InvalidKey, match="as leases do"):
            write(*given)
    assert cache.get_many(["other", LEASE]) == {}
    assert cache.delete(LEASE) is False


def test_who_waits_in_vain_gives_up(cache: Any) -> None:
    hold_lease(cache)
    factory = Factory()
    with pytest.raises(dcc.OperationTimeout):
        cache.get_or_put("k", factory, wait=0.2)
    assert factory.calls == 0


def test_a_stale_value_is_handed_out_while_another_makes_it(cache: Any) -> None:
    factory = Factory()
    kept = {"ttl": 0.2, "stale_ttl": 60, "beta": 0}
    assert cache.get_or_put("k", factory, **kept) == b"1"
    time.sleep(0.4)
    hold_lease(cache)
    assert cache.get_or_put("k", factory, **kept) == b"1"
    cache.delete(LEASE)
    assert cache.get_or_put("k", factory, **kept) == b"2"
    factory.fails = True
    time.sleep(0.4)
    with pytest.raises(KeyError):
        cache.get_or_put("k", factory, **kept)


def test_a_value_that_cannot_be_stored_is_good_for_its_caller(cache: Any) -> None:
    factory = Factory()

    def invalidated() -> bytes:
        cache_of_another.delete(LEASE)
        return factory()

    with Client(cache._ops.addresses, timeout=20) as cache_of_another:
        assert cache.get_or_put("k", invalidated, lease=60) == b"1"
    assert cache.get("k") is None, "somebody took the lease away: it was made of what was before"


# ------------------------------------------------------------------ memoize


def test_results_are_kept_by_their_arguments(cache: Any) -> None:
    calls: list[Any] = []

    def area(width: int, height: int = 2, *, unit: str = "m") -> dict[str, Any]:
        calls.append((width, height, unit))
        return {"area": width * height, "unit": unit}

    kept = cache.memoize(60, name="area", serializer="json")(area)
    run = _runner(cache)
    assert (
        run(kept(3)) == run(kept(3, 2)) == run(kept(width=3, unit="m")) == {"area": 6, "unit": "m"}
    )
    assert run(kept(3, unit="cm"))["unit"] == "cm"
    assert calls == [(3, 2, "m"), (3, 2, "cm")]
    assert kept.__name__ == "area"
    assert kept.key_for(3) == kept.key_for(width=3) != kept.key_for(4)
    assert run(kept.invalidate(3)) is True
    assert run(kept.invalidate(3)) is False
    run(kept(3))
    assert len(calls) == 3
    assert run(kept.refresh(3)) == {"area": 6, "unit": "m"}
    assert len(calls) == 4
    run(kept(3))
    assert len(calls) == 4


def test_a_method_says_what_of_its_object_counts(cache: Any) -> None:
    calls: list[str] = []

    class Shop:
        def __init__(self, name: str) -> None:
            self.name = name

        @cache.memoize(60, key=lambda shop, article: f"{shop.name}:{article}")  # type: ignore[untyped-decorator]
        def price(self, article: str) -> bytes:
            calls.append(f"{self.name}:{article}")
            return b"7"

        @cache.memoize(60, name="unkeyed")  # type: ignore[untyped-decorator]
        def unkeyed(self) -> bytes:
            return b""

    run, one, other = _runner(cache), Shop("one"), Shop("other")
    for shop in (one, one, other, Shop("one")):
        assert run(shop.price("tea")) == b"7"
    assert calls == ["one:tea", "other:tea"]
    assert one.price.key_for("tea") == "one:tea"
    assert run(one.price.invalidate("tea")) is True
    assert run(other.price.refresh("tea")) == b"7"
    assert run(one.price("tea")) == b"7"
    assert len(calls) == 4
    with pytest.raises(TypeError, match="say what counts by `key=`"):
        run(one.unkeyed())


def test_a_very_long_key_is_cut_and_hashed(cache: Any) -> None:
    kept = cache.memoize(60, name="long")(lambda text: text.encode())
    texts = ["x" * 2_000, "x" * 1_999 + "y"]
    run = _runner(cache)
    assert [run(kept(text)) for text in texts] == [text.encode() for text in texts]
    assert all(len(kept.key_for(text)) == 512 for text in texts)


def test_functions_that_share_a_name_must_be_given_one(cache: Any) -> None:
    def make(of: bytes) -> Any:
        def user(number: int) -> bytes:
            return b"%s %d" % (of, number)

        return user

    for function in (make(b"a"), lambda number: b""):
        with pytest.raises(ValueError, match="give `name=` or `key=`"):
            cache.memoize(60)(function)
    with pytest.raises(TypeError, match="name: str"):
        cache.memoize(60, name=7)(make(b"a"))
    run = _runner(cache)
    kept = [cache.memoize(60, name=of)(make(of.encode())) for of in ("a", "b")]
    assert [run(one(1)) for one in kept] == [b"a 1", b"b 1"]
    assert kept[0].key_for(1) == "a(number=1)"


def test_values_of_different_types_are_told_apart() -> None:
    alike: list[Any] = [
        set(),
        frozenset(),
        {},
        (),
        [],
        "",
        b"",
        None,
        0,
        0.0,
        False,
        {1},
        frozenset({1}),
        (1,),
    ]
    assert len({plain(value) for value in alike}) == len(alike)


def _runner(cache: Any) -> Any:
    """Return what gives the outcome of a memo of either client."""
    return cache.run if isinstance(cache, Blocking) else lambda outcome: outcome


# ------------------------------------------------------------------ tasks and threads


def test_coroutine_functions_are_made_once_for_many_tasks(cluster: dcc.LocalCluster) -> None:
    calls: list[int] = []

    async def main() -> None:
        async with AsyncClient([node.address for node in cluster.nodes], timeout=20) as cache:

            @cache.memoize(60, name="slow", serializer="msgpack")
            async def slow(number: int) -> list[int]:
                calls.append(number)
                await asyncio.sleep(0.1)
                return [number] * 2

            found = await asyncio.gather(*[slow(n % 2) for n in range(40)])
            assert found == [[n % 2] * 2 for n in range(40)]
            assert await slow.invalidate(1)

    asyncio.run(main())
    assert sorted(calls) == [0, 1]


@pytest.mark.parametrize("again", [False, True], ids=["once", "at each wait"])
def test_who_is_cancelled_over_the_factory_gives_the_lease_back(
    cluster: dcc.LocalCluster, again: bool
) -> None:
    """Scopes as those of anyio cancel a task again until it has left them."""

    async def main() -> None:
        async with AsyncClient([node.address for node in cluster.nodes], timeout=20) as cache:
            begun, key = asyncio.Event(), f"cancelled {again}"

            async def for_ever() -> bytes:
                begun.set()
                await asyncio.sleep(3600)
                return b""

            task = asyncio.create_task(cache.get_or_put(key, for_ever, lease=600))
            await begun.wait()
            task.cancel()
            await asyncio.sleep(0)
            while again and not task.done():
                task.cancel()
                await asyncio.sleep(0)
            with pytest.raises(asyncio.CancelledError):
                await task
            made = cache.get_or_put(key, lambda: b"by the next", lease=600)
            assert await asyncio.wait_for(made, 60) == b"by the next"

    asyncio.run(main())


def test_threads_of_one_client_make_it_once(cluster: dcc.LocalCluster) -> None:
    factory, found = Factory(), []

    def slow() -> bytes:
        time.sleep(0.2)
        return factory()

    with Client([node.address for node in cluster.nodes], timeout=20) as cache:
        threads = [
            threading.Thread(target=lambda: found.append(cache.get_or_put("threads", slow)))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert found == [b"1"] * 8
