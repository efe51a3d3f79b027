"""dcc as Django's cache: `BACKEND = "dcc.contrib.django.DccCache"`.

LOCATION is a URL, addresses with commas or a list of them; OPTIONS are those of
`dcc.contrib.cache.Cache`. The namespace, which `clear` empties, is the URL's, else KEY_PREFIX, else
"django". Nothing is culled here: MAX_ENTRIES and CULL_FREQUENCY are read and have no meaning, as
with other shared caches; nodes evict by their memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from copy import copy
from typing import Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache

from dcc.contrib.cache import Cache
from dcc.contrib.settings import namespace_from

NAMESPACE = "django"
_NOT_OURS = ("MAX_ENTRIES", "CULL_FREQUENCY")


class DccCache(BaseCache):
    """Django's cache over a cluster; fails open unless told `"on_error": "raise"`."""

    def __init__(self, server: str | Iterable[str] | None, params: dict[str, Any]) -> None:
        """Take LOCATION and the other parameters as Django hands them over."""
        super().__init__(params)
        options = {
            name: value for name, value in params.get("OPTIONS", {}).items()
            if name.upper() not in _NOT_OURS
        }  # fmt: skip
        usual = {
            "namespace": namespace_from(self.key_prefix) if self.key_prefix else NAMESPACE,
            "on_error": "miss",
            "serializer": "pickle",
        }
        location = server if isinstance(server, str) else ",".join(server or ())
        self._cache = Cache(location or None, defaults=usual, **options)

    @property
    def cache(self) -> Cache:
        """The cache below."""
        return self._cache

    def strict(self) -> DccCache:
        """Return this cache with `on_error="raise"`, on the same connections."""
        other = copy(self)
        other._cache = self._cache.strict()
        return other

    def get_backend_timeout(self, timeout: Any = DEFAULT_TIMEOUT) -> float | None:
        """Return seconds, None for never; 0 or less means that nothing is to be kept."""
        return self.default_timeout if timeout == DEFAULT_TIMEOUT else timeout

    # -------------------------------------------------------------- one key

    def add(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None
    ) -> bool:
        """Store `value` if `key` is absent; return whether it was stored."""
        name, ttl = self._name(key, version), self.get_backend_timeout(timeout)
        if _is_over(ttl):
            return not self._cache.contains(name)
        return self._cache.add(name, value, ttl=ttl)

    def get(self, key: Any, default: Any = None, version: Any = None) -> Any:
        """Return the value of `key`, or `default`."""
        return self._cache.get(self._name(key, version), default)

    def set(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None
    ) -> None:
        """Store `value`."""
        name, ttl = self._name(key, version), self.get_backend_timeout(timeout)
        if _is_over(ttl):
            self._cache.delete(name)
        else:
            self._cache.put(name, value, ttl=ttl)

    def touch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> bool:
        """Let `key` expire in `timeout` seconds; return whether it is present."""
        name, ttl = self._name(key, version), self.get_backend_timeout(timeout)
        return self._cache.delete(name) if _is_over(ttl) else self._cache.touch(name, ttl)

    def delete(self, key: Any, version: Any = None) -> bool:
        """Delete `key`; return whether it was present."""
        return self._cache.delete(self._name(key, version))

    def has_key(self, key: Any, version: Any = None) -> bool:
        """Return whether `key` is present."""
        return self._cache.contains(self._name(key, version))

    def incr(self, key: Any, delta: int = 1, version: Any = None) -> int | None:
        """Add `delta` and return the sum; ValueError if `key` is absent.

        While the cluster fails, and the cache fails open, that is a ValueError too: this process
        cannot tell the two apart.
        """
        total = self._cache.incr(self._name(key, version), delta, initial=None)
        if total is None:
            raise ValueError(f"Key '{key}' not found.")
        return total

    # -------------------------------------------------------------- many keys

    def get_many(self, keys: Iterable[Any], version: Any = None) -> dict[Any, Any]:
        """Return the values of those of `keys` that are present."""
        names = {self._name(key, version): key for key in keys}
        return {names[name]: value for name, value in self._cache.get_many(names).items()}

    def set_many(
        self, data: Mapping[Any, Any], timeout: Any = DEFAULT_TIMEOUT, version: Any = None
    ) -> list[Any]:
        """Store all of `data`; return the keys that failed."""
        names = {self._name(key, version): key for key in data}
        ttl = self.get_backend_timeout(timeout)
        if _is_over(ttl):
            self._cache.delete_many(names)
            return []
        values = {name: data[key] for name, key in names.items()}
        return [names[name] for name in self._cache.put_many(values, ttl=ttl)]

    def delete_many(self, keys: Iterable[Any], version: Any = None) -> None:
        """Delete all of `keys`."""
        self._cache.delete_many([self._name(key, version) for key in keys])

    def clear(self) -> bool:
        """Empty the namespace; return whether that is sure."""
        return self._cache.clear()

    # -------------------------------------------------------------- asyncio
    # Django's own versions all wait for one thread; these do not.

    async def aadd(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None
    ) -> bool:
        """As `add`."""
        return await asyncio.to_thread(self.add, key, value, timeout, version)

    async def aget(self, key: Any, default: Any = None, version: Any = None) -> Any:
        """As `get`."""
        return await asyncio.to_thread(self.get, key, default, version)

    async def aset(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None
    ) -> None:
        """As `set`."""
        await asyncio.to_thread(self.set, key, value, timeout, version)

    async def atouch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> bool:
        """As `touch`."""
        return await asyncio.to_thread(self.touch, key, timeout, version)

    async def adelete(self, key: Any, version: Any = None) -> bool:
        """As `delete`."""
        return await asyncio.to_thread(self.delete, key, version)

    async def ahas_key(self, key: Any, version: Any = None) -> bool:
        """As `has_key`."""
        return await asyncio.to_thread(self.has_key, key, version)

    async def aincr(self, key: Any, delta: int = 1, version: Any = None) -> int | None:
        """As `incr`."""
        return await asyncio.to_thread(self.incr, key, delta, version)

    async def aget_many(self, keys: Iterable[Any], version: Any = None) -> dict[Any, Any]:
        """As `get_many`."""
        return await asyncio.to_thread(self.get_many, list(keys), version)

    async def aset_many(
        self, data: Mapping[Any, Any], timeout: Any = DEFAULT_TIMEOUT, version: Any = None
    ) -> list[Any]:
        """As `set_many`."""
        return await asyncio.to_thread(self.set_many, data, timeout, version)

    async def adelete_many(self, keys: Iterable[Any], version: Any = None) -> None:
        """As `delete_many`."""
        await asyncio.to_thread(self.delete_many, list(keys), version)

    async def aclear(self) -> bool:
        """As `clear`."""
        return await asyncio.to_thread(self.clear)

    def _name(self, key: Any, version: Any) -> str:
        return str(self.make_and_validate_key(key, version=version))


def _is_over(ttl: float | None) -> bool:
    return ttl is not None and ttl <= 0
