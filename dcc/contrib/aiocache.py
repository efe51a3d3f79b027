"""dcc as a cache of aiocache: `cache = DccCache("dcc://host:port,…/namespace")`.

In `caches.set_config` it is `{"cache": "dcc.contrib.aiocache.DccCache", "url": …}`. aiocache has
namespaces of its own, a prefix of keys; `clear(namespace=…)` empties one of those key by key, and
`clear()` the namespace of the URL at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any
from weakref import WeakValueDictionary

from aiocache.base import BaseCache
from aiocache.serializers import JsonSerializer

from dcc import NotANumber
from dcc.contrib.async_cache import AsyncCache

NAMESPACE = "aiocache"
_OWN = ("serializer", "plugins", "namespace", "key_builder", "timeout", "ttl")


class DccCache(BaseCache):
    """aiocache's cache over a cluster; fails open unless told `on_error="raise"`.

    `serializer`, `plugins`, `namespace`, `key_builder`, `timeout` and `ttl` are aiocache's; all
    other keywords are options of `dcc.contrib.cache.Cache`, whose time-out is in the URL.
    """

    NAME = "dcc"

    def __init__(self, url: str | None = None, serializer: Any = None, **options: Any) -> None:
        """Check the options; connections are made when first needed."""
        own = {name: options.pop(name) for name in _OWN if name in options}
        super().__init__(serializer=serializer or JsonSerializer(), **own)
        usual = {"namespace": NAMESPACE, "on_error": "miss"}
        self._cache = AsyncCache(url, defaults=usual, **options)
        self._adding: WeakValueDictionary[tuple[int, str], asyncio.Lock] = WeakValueDictionary()

    @property
    def cache(self) -> AsyncCache:
        """The cache below."""
        return self._cache

    async def _get(self, key: str, encoding: str | None = "utf-8", _conn: Any = None) -> Any:
        return _decoded(await self._cache.get(key), encoding)

    async def _gets(self, key: str, encoding: str | None = "utf-8", _conn: Any = None) -> Any:
        found = await self._cache.versioned(key)
        return None if found is None else found[1]

    async def _multi_get(
        self, keys: Iterable[str], encoding: str | None = "utf-8", _conn: Any = None
    ) -> list[Any]:
        names = list(keys)
        found = await self._cache.get_many(names)
        return [_decoded(found.get(name), encoding) for name in names]

    async def _set(
        self, key: str, value: Any, ttl: Any = None, _cas_token: Any = None, _conn: Any = None
    ) -> bool:
        if _cas_token is not None:
            return await self._cache.replace(
                key, _encoded(value), version=_cas_token, ttl=ttl or None
            )
        return await self._cache.put(key, _encoded(value), ttl=ttl or None)

    async def _multi_set(
        self, pairs: Iterable[tuple[str, Any]], ttl: Any = None, _conn: Any = None
    ) -> bool:
        values = {key: _encoded(value) for key, value in pairs}
        return not await self._cache.put_many(values, ttl=ttl or None)

    async def _add(self, key: str, value: Any, ttl: Any = None, _conn: Any = None) -> bool:
        # In order: aiocache's locks expect that who loses hears of it after who wins, and with
        # w=2 the winner waits for one node more.
        async with self._in_order(key):
            before = self._cache.health.counts["failed_open"]
            if await self._cache.add(key, _encoded(value), ttl=ttl or None):
                return True
            if self._cache.health.counts["failed_open"] > before:
                return False
        raise ValueError(f"Key {key} already exists, use .set to update the value")

    async def _exists(self, key: str, _conn: Any = None) -> bool:
        return await self._cache.contains(key)

    async def _increment(self, key: str, delta: int, _conn: Any = None) -> int:
        try:
            total = await self._cache.incr(key, delta)
        except NotANumber:
            raise TypeError("Value is not an integer") from None
        return -1 if total is None else total

    async def _expire(self, key: str, ttl: Any, _conn: Any = None) -> bool:
        return await self._cache.touch(key, ttl or None)

    async def _delete(self, key: str, _conn: Any = None) -> int:
        return int(await self._cache.delete(key))

    async def _clear(self, namespace: str | None = None, _conn: Any = None) -> bool:
        if not namespace:
            return await self._cache.clear()
        await self._cache.delete_prefix(f"{namespace}:")
        return True

    async def _raw(
        self, command: str, *args: Any, encoding: str | None = "utf-8", _conn: Any = None,
        **kwargs: Any,
    ) -> Any:  # fmt: skip
        result = await getattr(self._cache, command)(*args, **kwargs)
        return _decoded(result, encoding) if isinstance(result, bytes) else result

    async def _redlock_release(self, key: str, value: Any) -> int:
        found = await self._cache.versioned(key)
        if found is None or found[0] != _encoded(value):
            return 0
        # Only at that version: between the two calls the lease may have become another's. What is
        # there then keeps everybody away until it is deleted.
        if not await self._cache.replace(key, b"", version=found[1], ttl=_FREED_SECONDS):
            return 0
        return int(await self._cache.delete(key))

    async def _close(self, *args: Any, _conn: Any = None, **kwargs: Any) -> None:
        await self._cache.aclose()

    def _in_order(self, key: str) -> asyncio.Lock:
        name = (id(asyncio.get_running_loop()), key)
        return self._adding.setdefault(name, asyncio.Lock())

    def _build_key(self, key: Any, namespace: str | None = None) -> str:
        space = self.namespace if namespace is None else namespace
        name = getattr(key, "value", key)
        return f"{space}:{name}" if space else str(name)

    def __repr__(self) -> str:
        return f"DccCache ({','.join(self._cache.settings.nodes)})"


_FREED_SECONDS = 30.0
"Longer than a delete takes."


def _encoded(value: Any) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    return str(value).encode()


def _decoded(data: bytes | None, encoding: str | None) -> Any:
    return data if data is None or encoding is None else data.decode(encoding)
