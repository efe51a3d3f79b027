"""dcc as a result back end of Celery: `result_backend = "dcc://host:port,…/namespace?…"`.

Installed, the scheme `dcc` is found by its entry point; from a checkout, write
`result_backend = "dcc.contrib.celery:DccBackend+dcc://…"`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from celery.backends.base import KeyValueStoreBackend
from kombu.utils.encoding import bytes_to_str

from dcc.contrib.cache import Cache

NAMESPACE = "celery"


class DccBackend(KeyValueStoreBackend):
    """Results in a cluster, which fail open unless told `on_error=raise` in the URL.

    A result that could not be stored is lost: whoever waits for it sees PENDING. That is counted,
    and logged by `dcc.client`. `result_expires` is its ttl.
    """

    supports_autoexpire = True
    supports_native_join = True
    implements_incr = True

    def __init__(
        self, app: Any, expires: Any = None, url: str | None = None, **options: Any
    ) -> None:
        """Take what Celery hands over; the options of `dcc.contrib.cache.Cache` are in the URL."""
        super().__init__(app, **options)
        self.url = url
        self.expires = self.prepare_expires(expires, type=int)
        usual = {"namespace": NAMESPACE, "on_error": "miss"}
        self._cache_of_results = Cache(_named(url), defaults=usual)

    def get(self, key: Any) -> bytes | None:
        """Return the bytes of `key`."""
        return self._cache_of_results.get(bytes_to_str(key))

    def mget(self, keys: Iterable[Any]) -> list[bytes | None]:
        """Return the bytes of each of `keys`."""
        names = [bytes_to_str(key) for key in keys]
        found = self._cache_of_results.get_many(names)
        return [found.get(name) for name in names]

    def set(self, key: Any, value: Any) -> None:
        """Store `value` for as long as results live."""
        data = value.encode() if isinstance(value, str) else value
        self._cache_of_results.put(bytes_to_str(key), data, ttl=self.expires or None)

    def delete(self, key: Any) -> None:
        """Delete `key`."""
        self._cache_of_results.delete(bytes_to_str(key))

    def incr(self, key: Any) -> int:
        """Add one and return the sum; 0 if it is not known."""
        total = self._cache_of_results.incr(bytes_to_str(key), ttl=self.expires or None)
        return total or 0

    def expire(self, key: Any, value: Any) -> None:
        """Let `key` expire in `value` seconds."""
        self._cache_of_results.touch(bytes_to_str(key), value or None)

    def as_uri(self, include_password: bool = False) -> str:
        """Return the URL, which holds no password."""
        return self.url or "dcc://"

    def __reduce__(self, args: Any = (), kwargs: Any = None) -> Any:
        return super().__reduce__(args, {"expires": self.expires, "url": self.url} | (kwargs or {}))


def _named(url: str | None) -> str | None:
    """Return the URL if it names anything: `dcc://` alone leaves that to DCC_URL."""
    return None if url is None or url.rstrip("/:") == "dcc" else url
