"""What the peers' own suites do not ask of an adapter: mostly, what happens without a cluster."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.support.processes import wait_until

pytestmark = pytest.mark.process


@pytest.fixture
def gone(silent: str) -> str:
    """The URL of a cluster that never answers."""
    return f"dcc://{silent}/gone?timeout=0.1"


def test_cachelib_without_a_cluster(gone: str) -> None:
    module = pytest.importorskip("dcc.contrib.cachelib")
    cache = module.DccCache(gone)
    assert cache.get("key") is None
    assert cache.set("key", 1) is False
    assert cache.add("key", 1) is False
    assert cache.get_many("a", "b") == [None, None]
    assert cache.set_many({"a": 1}) == []
    assert cache.has("key") is False
    assert cache.inc("key") is None
    assert cache.clear() is False


def test_two_prefixes_of_cachelib_are_cleared_apart(url: str) -> None:
    module = pytest.importorskip("dcc.contrib.cachelib")
    one, two = module.DccCache(url, key_prefix="one:"), module.DccCache(url, key_prefix="two:")
    one.set("key", 1)
    two.set("key", 2)
    assert one.clear()
    assert (one.get("key"), two.get("key")) == (None, 2)


def test_flask_caching_hands_its_configuration_over(url: str) -> None:
    flask = pytest.importorskip("flask")
    caching = pytest.importorskip("flask_caching")
    app = flask.Flask(__name__)
    app.config["CACHE_TYPE"] = "dcc.contrib.flask.backend"
    app.config["CACHE_DCC_URL"] = url
    app.config["CACHE_KEY_PREFIX"] = "blog:"
    app.config["CACHE_OPTIONS"] = {"serializer": "json", "timeout": 0.5}
    with app.app_context():
        cache = caching.Cache(app)
        assert cache.set("key", {"a": 1})
        assert cache.get("key") == {"a": 1}
        below = cache.cache.cache
    assert below.namespace == "blog%3A"
    assert below.settings.client == {"timeout": 0.5}


@pytest.fixture
def settings_of_django() -> Any:
    settings = pytest.importorskip("django.conf").settings
    if not settings.configured:
        settings.configure(SECRET_KEY="tests", USE_TZ=False)
    return settings


def test_django_without_a_cluster(gone: str, settings_of_django: Any) -> None:
    module = pytest.importorskip("dcc.contrib.django")
    cache = module.DccCache(gone, {})
    assert cache.get("key", "none") == "none"
    cache.set("key", 1)
    assert cache.add("key", 1) is False
    assert cache.touch("key") is False
    assert cache.get_many(["a"]) == {}
    assert cache.set_many({"a": 1}) == ["a"]
    cache.delete_many(["a"])
    with pytest.raises(ValueError, match="not found"):
        cache.incr("key")
    assert cache.get_or_set("key", lambda: 5) == 5
    assert asyncio.run(cache.aget("key", "none")) == "none"


def test_django_takes_a_list_of_nodes_and_its_own_options(
    url: str, settings_of_django: Any
) -> None:
    module = pytest.importorskip("dcc.contrib.django")
    nodes = url.removeprefix("dcc://").split(",")
    options = {"MAX_ENTRIES": 10, "serializer": "json"}
    cache = module.DccCache(nodes, {"KEY_PREFIX": "shop", "OPTIONS": options, "TIMEOUT": None})
    cache.set("key", [1])
    assert cache.get("key") == [1]
    assert cache.cache.namespace == "shop"
    assert cache.cache.settings.nodes == tuple(nodes)


def test_dogpile_without_a_cluster_makes_values_anew(gone: str) -> None:
    pytest.importorskip("dcc.contrib.dogpile")
    region = pytest.importorskip("dogpile.cache").make_region()
    region.configure("dcc", arguments={"url": gone, "distributed_lock": True})
    made = iter(range(9))
    assert [region.get_or_create("key", lambda: next(made)) for _ in range(3)] == [0, 1, 2]


def test_the_mutex_of_dogpile_is_released_only_by_its_owner(url: str) -> None:
    module = pytest.importorskip("dcc.contrib.dogpile")
    back_end = module.DccBackend({"url": url, "distributed_lock": True, "lock_timeout": 30})
    mine, other = back_end.get_mutex("key"), back_end.get_mutex("key")
    assert mine.acquire(False)
    other.release()
    assert mine.locked()
    assert not other.acquire(False)
    mine.release()
    assert other.acquire(False)
    other.release()


def test_aiocache_without_a_cluster(gone: str) -> None:
    module = pytest.importorskip("dcc.contrib.aiocache")

    async def main() -> None:
        async with module.DccCache(gone) as cache:
            assert await cache.get("key", default="none") == "none"
            assert await cache.set("key", 1) is False
            await cache.add("key", 1)
            assert await cache.multi_get(["a", "b"]) == [None, None]
            assert await cache.exists("key") is False
            assert await cache.clear() is False

    asyncio.run(main())


def test_a_namespace_of_aiocache_is_cleared_alone(url: str) -> None:
    module = pytest.importorskip("dcc.contrib.aiocache")

    async def main() -> None:
        async with module.DccCache(url, namespace="a") as cache:
            await cache.set("key", 1)
            await cache.set("key", 2, namespace="b")
            await cache.clear(namespace="a")
            assert await cache.get("key") is None
            assert await cache.get("key", namespace="b") == 2

    asyncio.run(main())


def test_who_loses_a_lock_of_aiocache_hears_of_it_after_who_wins(url: str) -> None:
    module = pytest.importorskip("dcc.contrib.aiocache")
    lock = pytest.importorskip("aiocache.lock")
    made: list[int] = []

    async def make(cache: Any, number: int) -> None:
        async with lock.RedLock(cache, "job", lease=5):
            if await cache.get("made") is None:
                made.append(number)
                await cache.set("made", number)

    async def main() -> None:
        async with module.DccCache(url, w=2) as cache:
            for number in range(20):
                await cache.clear()
                await asyncio.gather(*(make(cache, number) for _ in range(4)))
                assert await cache.exists("job-lock") is False

    asyncio.run(main())
    assert made == list(range(20))


def test_results_of_celery(url: str, gone: str) -> None:
    celery = pytest.importorskip("celery")
    app = celery.Celery("tests", backend=f"{url}/results")
    app.backend.mark_as_done("one", {"sum": 3})
    assert app.AsyncResult("one").get(timeout=1) == {"sum": 3}
    assert app.backend.as_uri() == f"{url}/results"
    assert [app.backend.incr("chord") for _ in range(3)] == [1, 2, 3]
    app.AsyncResult("one").forget()
    wait_until(lambda: app.AsyncResult("one").state == "PENDING", 2)
    without = celery.Celery("tests", backend=gone)
    without.backend.mark_as_done("two", 3)
    assert without.AsyncResult("two").state == "PENDING"
