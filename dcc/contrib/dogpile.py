"""dcc as a back end of dogpile.cache: `make_region().configure("dcc", arguments={"url": …})`.

Installed, the name `dcc` is found by its entry point; from a checkout, by importing this file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dogpile.cache import register_backend
from dogpile.cache.api import NO_VALUE, BytesBackend

from dcc.client.url import CACHE_OPTIONS, CLIENT_OPTIONS
from dcc.contrib.cache import Cache
from dcc.contrib.health import LOGGER
from dcc.contrib.leases import Lease

NAMESPACE = "dogpile"
ARGUMENTS = {
    "url", "nodes", "namespace", "expiration_time", "distributed_lock", "lock_timeout",
    *CLIENT_OPTIONS, *CACHE_OPTIONS,
}  # fmt: skip

LOCK_TIMEOUT_SECONDS = 60.0
"How long a creator may take before another one begins as well."


class DccBackend(BytesBackend):
    """Bytes of a region in a cluster; fails open unless told `on_error="raise"`.

    Arguments are those of `dcc.contrib.cache.Cache` and:

    - `expiration_time`: seconds after which the cluster forgets a value; above the region's own.
    - `distributed_lock`: True: one creator for a key in all processes, by a lease.
    - `lock_timeout`: seconds after which a creator that was not heard of again is given up.
    """

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        """Take the arguments of the region's `configure`."""
        options = {name: value for name, value in arguments.items() if name in ARGUMENTS}
        for name in sorted(arguments.keys() - options.keys()):
            # Regions hand the same arguments to whatever back end they are configured with.
            LOGGER.warning("the dogpile back end has no argument %r", name)
        self._ttl = options.pop("expiration_time", None)
        self._locks = bool(options.pop("distributed_lock", False))
        self._lock_seconds = float(options.pop("lock_timeout", LOCK_TIMEOUT_SECONDS))
        url = options.pop("url", None)
        usual = {"namespace": NAMESPACE, "on_error": "miss"}
        self._cache = Cache(url, defaults=usual, **options)
        if self._cache.settings.values.serializer is not None:
            raise ValueError("serializer: the region has one; leave this one out")

    @property
    def cache(self) -> Cache:
        """The cache below."""
        return self._cache

    def has_lock_timeout(self) -> bool:
        """Return whether a lock can end before its owner releases it."""
        return self._locks

    def get_mutex(self, key: str) -> Lease | None:
        """Return the lease that its one creator holds; None: threads are told apart by dogpile."""
        if not self._locks:
            return None
        return Lease(self._cache, f"lock:{key}", seconds=self._lock_seconds)

    def get_serialized(self, key: str) -> Any:
        """Return the bytes of `key`, or NO_VALUE."""
        return self._cache.get(key, NO_VALUE)

    def get_serialized_multi(self, keys: Sequence[str]) -> Sequence[Any]:
        """Return the bytes of each of `keys`, or NO_VALUE."""
        found = self._cache.get_many(keys)
        return [found.get(key, NO_VALUE) for key in keys]

    def set_serialized(self, key: str, value: bytes) -> None:
        """Store bytes."""
        self._cache.put(key, value, ttl=self._ttl)

    def set_serialized_multi(self, mapping: Mapping[str, bytes]) -> None:
        """Store all of `mapping`."""
        self._cache.put_many(mapping, ttl=self._ttl)

    def delete(self, key: str) -> None:
        """Delete `key`."""
        self._cache.delete(key)

    def delete_multi(self, keys: Sequence[str]) -> None:
        """Delete all of `keys`."""
        self._cache.delete_many(keys)


register_backend("dcc", "dcc.contrib.dogpile", "DccBackend")
