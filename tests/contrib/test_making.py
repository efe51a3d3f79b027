"""Values that are made once, through both caches: any value, a namespace, and no cluster."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dcc import AsyncCache, Cache, LocalCluster, NodeUnavailable, NotMade, OperationTimeout
from dcc.client.stampede import lease_key
from dcc.contrib.cache import close_shared_clients
from dcc.wire.messages import Op, Write

pytestmark = pytest.mark.process


class BlockingCache:
    """An `AsyncCache` behind the interface of the blocking one; for one thread."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.loop = asyncio.new_event_loop()
        self.cache = AsyncCache(*args, **options)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.cache, name)
        return self.run_of(method) if inspect.iscoroutinefunction(method) else method

    def run_of(self, method: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **options: self.loop.run_until_complete(method(*args, **options))

    def counts(self) -> dict[str, int]:
        async def within() -> dict[str, int]:
            return self.cache.counts()

        return self.loop.run_until_complete(within())

    def memoize(self, *args: Any, **options: Any) -> Callable[[Callable[..., Any]], Any]:
        decorator = self.cache.memoize(*args, **options)

        def decorate(function: Callable[..., Any]) -> Any:
            memo = decorator(function)
            blocking = self.run_of(memo)
            for verb in ("invalidate", "refresh"):
                setattr(blocking, verb, self.run_of(getattr(memo, verb)))
            blocking.key_for = memo.key_for  # type: ignore[attr-defined]
            return blocking

        return decorate


@pytest.fixture(params=["blocking", "asyncio"])
def kind(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    made: list[BlockingCache] = []

    def cache(*args: Any, **options: Any) -> Any:
        if request.param == "blocking":
            return Cache(*args, **options)
        made.append(BlockingCache(*args, **options))
        return made[-1]

    yield cache
    for one in made:
        one.loop.run_until_complete(one.cache.aclose())
        one.loop.close()


class Factory:
    """Makes a dict, and counts; may raise."""

    def __init__(self, error: Exception | None = None) -> None:
        self.calls, self.error = 0, error

    def __call__(self) -> Any:
        self.calls += 1
        if self.error is not None:
            raise self.error
        return {"made": self.calls}


def test_what_is_absent_is_made_once_and_again_after_a_clear(kind: Any, url: str) -> None:
    cache = kind(url, namespace="made", serializer="json", timeout=20)
    cache.clear()
    factory = Factory()
    assert [cache.get_or_put("k", factory, ttl=60) for _ in range(3)] == [{"made": 1}] * 3
    assert cache.get("k") == {"made": 1}
    assert cache.refresh("k", factory) == cache.get("k") == {"made": 2}
    assert cache.invalidate("k") is True
    assert cache.invalidate("k") is False
    assert cache.get_or_put("k", factory) == {"made": 3}
    cache.clear()
    assert cache.get_or_put("k" * 2_000, factory) == cache.get("k" * 2_000) == {"made": 4}
    assert kind(url, namespace="other", serializer="json").get("k") is None


def test_results_are_kept_by_their_arguments_and_the_serializer(kind: Any, url: str) -> None:
    cache = kind(url, namespace="memo", serializer="json", timeout=20, default_ttl=60)
    cache.clear()
    calls: list[Any] = []

    @cache.memoize(stale_ttl=60, name="price")  # type: ignore[untyped-decorator]
    def price(article: str, currency: str = "EUR") -> Any:
        calls.append(article)
        return (article, len(calls), currency)

    assert price("tea") == price("tea", "EUR") == ["tea", 1, "EUR"], "as everybody reads it"
    assert cache.get(price.key_for("tea")) == ["tea", 1, "EUR"]
    assert price.refresh("tea") == price("tea") == ["tea", 2, "EUR"]
    assert price.invalidate("tea")
    assert price("tea") == ["tea", 3, "EUR"]
    with pytest.raises(ValueError, match="stale_ttl: what never expires"):
        cache.memoize(None, stale_ttl=5)
    with pytest.raises(TypeError, match="serializer"):
        cache.memoize(60, serializer="json")


def test_what_a_factory_raises_says_nothing_of_the_cluster(kind: Any, url: str) -> None:
    cache = kind(url, namespace="raises", on_error="miss", timeout=20)
    for error in (KeyError("not today"), NodeUnavailable("another cluster's")):
        factory = Factory(error)
        with pytest.raises(type(error)) as caught:
            cache.get_or_put("k", factory)
        assert caught.value is error
        assert factory.calls == 1
    counts = cache.counts()
    assert (counts["failed_open"], counts["breaker_open"]) == (0, 0)
    with pytest.raises(TypeError, match="value: bytes-like"):
        cache.get_or_put("k", Factory())
    with pytest.raises(TypeError, match="factory: a function"):
        cache.get_or_put("k", b"value")


def test_who_waits_in_vain_opens_no_breaker_and_may_make_it_alone(kind: Any, url: str) -> None:
    lease = lease_key(b"waited")
    Cache(url).client._call(Write(op=Op.PUT, key=lease, value=b"of another", ttl_ms=60_000))
    cache = kind(url, serializer="json", timeout=20)
    factory = Factory()
    with pytest.raises(NotMade):
        cache.get_or_put("waited", factory, wait=0.1)
    assert factory.calls == 0
    assert cache.counts()["breaker_open"] == 0
    open_cache = kind(url, serializer="json", timeout=20, on_error="miss")
    assert open_cache.get_or_put("waited", factory, wait=0.1) == {"made": 1}
    assert open_cache.get("waited") is None, "who has the lease is still to make it"
    cache.delete(lease.decode())


def test_without_a_cluster_every_caller_makes_it(kind: Any, silent: str) -> None:
    cache = kind(nodes=silent, namespace="none", serializer="json", timeout=0.2, on_error="miss")
    factory = Factory()
    assert cache.get_or_put("k", factory) == {"made": 1}
    assert cache.get_or_put("k", factory) == {"made": 2}
    assert cache.refresh("k", factory) == {"made": 3}
    assert cache.invalidate("k") is False
    with pytest.raises((NodeUnavailable, OperationTimeout)):
        kind(nodes=silent, timeout=0.2).get_or_put("k", factory)
    assert factory.calls == 3
    with pytest.raises(KeyError):
        cache.get_or_put("k", Factory(KeyError("not today")))


def test_a_value_that_cannot_be_read_back_is_made_anew(kind: Any, url: str) -> None:
    kind(url, namespace="broken").put("k", b"{")
    cache = kind(url, namespace="broken", serializer="json", timeout=20)
    factory = Factory()
    assert cache.get_or_put("k", factory) == cache.get("k") == {"made": 1}
    assert cache.counts()["unreadable"] == 1


class OneWay:
    """A serializer that reads nothing back."""

    def dumps(self, value: Any) -> bytes:
        return repr(value).encode()

    def loads(self, data: bytes) -> Any:
        raise ValueError(data)


def test_a_value_that_nobody_can_read_back_is_its_makers(kind: Any, url: str) -> None:
    cache = kind(url, namespace="oneway", serializer=OneWay(), timeout=20)
    factory = Factory()
    assert cache.get_or_put("k", factory) == {"made": 1}
    assert factory.calls == 1


@pytest.mark.parametrize("verb", ["get_or_put", "refresh"])
def test_a_cluster_that_dies_while_a_value_is_made_costs_no_second_call(
    kind: Any, verb: str
) -> None:
    with LocalCluster(1, replicas=0) as cluster:
        cache = kind(cluster.url, serializer="json", timeout=0.5, on_error="miss")
        factory = Factory()

        def dies() -> Any:
            cluster.nodes[0].kill()
            return factory()

        assert getattr(cache, verb)("k", dies) == {"made": 1}
        assert factory.calls == 1
    close_shared_clients()
