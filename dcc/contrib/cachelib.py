"""dcc as a cache of cachelib: what Flask-Caching, Flask-Session and others take.

>>> cache = DccCache("dcc://127.0.0.1:6740/shop?timeout=0.25", default_timeout=60)
>>> cache.namespace
'shop'
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any, Unpack

from cachelib.base import BaseCache

from dcc.client.keywords import CacheOptions
from dcc.client.values import Serializer, Values
from dcc.contrib.cache import Cache
from dcc.contrib.settings import namespace_from

NAMESPACE = "cachelib"
"Of caches that name none: `clear` must not empty what is not theirs."


class DccCache(BaseCache):
    """A cache with the interface of cachelib, which fails open unless told `on_error="raise"`."""

    def __init__(
        self,
        url: str | None = None,
        default_timeout: int | dt.timedelta = 300,
        key_prefix: str | Callable[[], str] | None = None,
        ignore_delete_many_errors: bool = True,
        **options: Unpack[CacheOptions],
    ) -> None:
        """Take the options of `dcc.contrib.cache.Cache` and those that all caches here have.

        Args:
            url: `dcc://host:port,…/namespace?option=…`; None: DCC_URL, else the default node.
            default_timeout: seconds for what is stored without a timeout; 0 = never expires.
            key_prefix: names the namespace if nothing else does; else it stands before every key.
            ignore_delete_many_errors: False: RuntimeError if a key may not be deleted.
        """
        self.key_prefix: str | Callable[[], str] | None = key_prefix
        self.ignore_delete_many_errors = ignore_delete_many_errors
        self.default_timeout: float = _seconds(default_timeout)
        own = (
            namespace_from(key_prefix) if isinstance(key_prefix, str) and key_prefix else NAMESPACE
        )
        usual = {"namespace": own, "on_error": "miss", "serializer": "pickle"}
        self._cache = Cache(url, defaults=usual, **options)
        if isinstance(key_prefix, str) and self._cache.namespace == own:
            self.key_prefix = None

    @property
    def namespace(self) -> str | None:
        """The namespace, which `clear` empties."""
        return self._cache.namespace

    @property
    def cache(self) -> Cache:
        """The cache below."""
        return self._cache

    @property
    def serializer(self) -> Serializer | None:
        """What makes bytes of values; whole numbers are stored as digits whatever it is."""
        return self._cache.settings.values.serializer

    @serializer.setter
    def serializer(self, serializer: Serializer) -> None:
        compress = self._cache.settings.values.compress
        self._cache = self._cache.with_values(Values(serializer, compress))

    def get(self, key: Any) -> Any:
        """Return the value of `key`, or None."""
        return self._cache.get(self._name(key))

    def get_many(self, *keys: Any) -> list[Any]:
        """Return the values of `keys`, None for those that are absent."""
        names = [self._name(key) for key in keys]
        found = self._cache.get_many(names)
        return [found.get(name) for name in names]

    def get_dict(self, *keys: Any) -> dict[str, Any]:
        """Return key -> value, None for those that are absent."""
        return dict(zip(keys, self.get_many(*keys), strict=True))

    def set(self, key: Any, value: Any, timeout: int | dt.timedelta | None = None) -> bool:
        """Store `value`; return whether that is sure."""
        ttl = self._ttl(timeout)
        if ttl is not None and ttl < 0:
            self._cache.delete(self._name(key))
            return True
        return self._cache.put(self._name(key), value, ttl=ttl)

    def add(self, key: Any, value: Any, timeout: int | dt.timedelta | None = None) -> bool:
        """Store `value` if `key` is absent; return whether it was stored."""
        ttl = self._ttl(timeout)
        if ttl is not None and ttl < 0:
            return not self.has(key)
        return self._cache.add(self._name(key), value, ttl=ttl)

    def set_many(
        self, mapping: dict[str, Any], timeout: int | dt.timedelta | None = None
    ) -> list[str]:
        """Store all of `mapping`; return the keys that were surely stored."""
        ttl = self._ttl(timeout)
        if ttl is not None and ttl < 0:
            self.delete_many(*mapping)
            return list(mapping)
        names = {self._name(key): key for key in mapping}
        failed = self._cache.put_many({n: mapping[key] for n, key in names.items()}, ttl=ttl)
        return [key for name, key in names.items() if name not in set(failed)]

    def delete(self, key: Any) -> bool:
        """Delete `key`; return whether it was present."""
        return self._cache.delete(self._name(key))

    def delete_many(self, *keys: Any) -> list[str]:
        """Delete all of `keys`; return those that are gone."""
        names = [self._name(key) for key in keys]
        self._cache.delete_many(names)
        left = self._cache.get_many(names)
        gone = [key for key, name in zip(keys, names, strict=True) if name not in left]
        if len(gone) < len(keys) and not self.ignore_delete_many_errors:
            raise RuntimeError(f"not deleted: {sorted(set(keys) - set(gone))}")
        return gone

    def has(self, key: Any) -> bool:
        """Return whether `key` is present."""
        return self._cache.contains(self._name(key))

    def clear(self) -> bool:
        """Empty the namespace; return whether that is sure."""
        return self._cache.clear()

    def inc(self, key: Any, delta: int = 1) -> int | None:
        """Add `delta`, to 0 if `key` is absent; return the sum, None if it is not known."""
        return self._cache.incr(self._name(key), delta, ttl=self._ttl(None))

    def dec(self, key: Any, delta: int = 1) -> int | None:
        """Subtract `delta`; otherwise as `inc`."""
        return self.inc(key, -delta)

    def _name(self, key: Any) -> str:
        prefix = self.key_prefix() if callable(self.key_prefix) else self.key_prefix
        return f"{prefix or ''}{key}"

    def _ttl(self, timeout: int | dt.timedelta | None) -> float | None:
        seconds = self.default_timeout if timeout is None else _seconds(timeout)
        return None if seconds == 0 else seconds


def _seconds(timeout: float | dt.timedelta) -> float:
    return timeout.total_seconds() if isinstance(timeout, dt.timedelta) else timeout
