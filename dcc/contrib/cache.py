"""A blocking cache for programs: any value, a namespace of its own, and no outage of its own.

>>> Cache("dcc://127.0.0.1:6740/shop?serializer=json&on_error=miss").namespace
'shop'

Caches of one process that name the same nodes and options share one `Client`, whatever number of
them a framework makes, and caches of one cluster share one circuit breaker.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import replace
from typing import Any, TypeVar, Unpack

from dcc import Client, Latency, Version
from dcc.client.arguments import UNSET, Ttl, Unset
from dcc.client.keywords import CacheOptions
from dcc.client.values import Values
from dcc.contrib.health import Health, health_of
from dcc.contrib.making import MakesCached
from dcc.contrib.plans import Ask, Plan, Plans, Space
from dcc.contrib.running import carried_out, in_one_step
from dcc.contrib.settings import OfOneProcess, Settings, settings_of

T = TypeVar("T")


class Cache(MakesCached, OfOneProcess):
    """Calls of a `Client` with values, a namespace, and a way to go on without a cluster.

    With `on_error="miss"` no call raises for what befalls a cluster: reads are misses, writes
    report that nothing was stored, `incr` returns None. All of that is counted (`counts`), and the
    first of a burst is logged as a warning by `dcc.client`.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        nodes: str | Iterable[str] | None = None,
        namespace: str | None = None,
        defaults: Mapping[str, Any] | None = None,
        **options: Unpack[CacheOptions],
    ) -> None:
        """Check the options; connections are made when first needed.

        Args:
            url: `dcc://host:port,…/namespace?option=…`; None: the environment variable DCC_URL.
            nodes: as for `Client`, instead of the URL's.
            namespace: keys are this namespace's own, and so is `clear`; None: the whole cluster.
            serializer: "json", "msgpack", "pickle", an object with dumps and loads, or None:
                values are bytes. Whole numbers are stored as digits whatever it is.
            compress: size in bytes from which values are compressed by zlib; "zlib" or "zstd",
                or "zstd:4096" with a size of its own (else 1,024); None = never.
            on_error: "raise" or "miss", see above.
            clear_age: seconds after which other processes see a `clear` at the latest.
            defaults: options, and a namespace, that hold where nobody said anything else.
            options: all others are those of `Client`.
        """
        settings = settings_of(url, nodes, namespace, options, defaults or {})
        self.settings: Settings = settings
        self._health = health_of(settings)
        self._client = _client_of(settings)
        self._plans = plans_of(settings)

    @property
    def namespace(self) -> str | None:
        """The namespace, or None."""
        return self.settings.namespace

    def strict(self) -> Cache:
        """Return this cache with `on_error="raise"`, on the same connections."""
        return self._with(replace(self.settings, fail_open=False))

    def with_values(self, values: Values) -> Cache:
        """Return this cache with other values, on the same connections."""
        return self._with(replace(self.settings, values=values))

    @property
    def client(self) -> Client:
        """The client below, which other caches may use as well: do not close it."""
        return self._client

    @property
    def health(self) -> Health:
        """The circuit breaker."""
        return self._health

    # -------------------------------------------------------------- one key

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of `key`, or `default` if it is absent."""
        return self._run(self._plans.get(key, default), default)

    def versioned(self, key: str) -> tuple[Any, Version] | None:
        """Return the value of `key` and its version; None if it is absent."""
        return self._run(self._plans.versioned(key), None)

    def put(self, key: str, value: Any, *, ttl: Ttl | Unset = UNSET) -> bool:
        """Store `value`; return whether that is sure."""
        return self._run(self._plans.put(key, value, ttl), False)

    def add(self, key: str, value: Any, *, ttl: Ttl | Unset = UNSET) -> bool:
        """Store `value` if `key` is absent; return whether it was stored."""
        return self._run(self._plans.add(key, value, ttl), False)

    def replace(
        self, key: str, value: Any, *, version: Version | None = None, ttl: Ttl | Unset = UNSET
    ) -> bool:
        """Store `value` if `key` is present (and still at `version`); return whether it was."""
        return self._run(self._plans.replace(key, value, version, ttl), False)

    def delete(self, key: str, *, version: Version | None = None) -> bool:
        """Delete `key` if it is present (and still at `version`); return whether it was."""
        return self._run(self._plans.delete(key, version), False)

    def touch(self, key: str, ttl: Ttl) -> bool:
        """Let `key` expire in `ttl` seconds from now (None = never); return whether it exists."""
        return self._run(self._plans.touch(key, ttl), False)

    def contains(self, key: str) -> bool:
        """Return whether `key` has a value."""
        return self._run(self._plans.contains(key), False)

    def incr(
        self, key: str, delta: int = 1, *, initial: int | None = 0, ttl: Ttl | Unset = UNSET
    ) -> int | None:
        """Add `delta` and return the sum; an absent key counts as `initial`.

        With `initial=None` an absent key stays absent, and the result is None.
        """
        return self._run(self._plans.incr(key, delta, initial, ttl), None)

    # -------------------------------------------------------------- many keys

    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """Return the values of those of `keys` that are present."""
        return self._run(self._plans.get_many(keys), {})

    def put_many(self, mapping: Mapping[str, Any], *, ttl: Ttl | Unset = UNSET) -> list[str]:
        """Store all of `mapping`; return the keys that failed."""
        return self._run(self._plans.put_many(mapping, ttl), list(mapping))

    def delete_many(self, keys: Iterable[str]) -> int:
        """Delete all of `keys`; return how many were present."""
        return self._run(self._plans.delete_many(keys), 0)

    def delete_prefix(self, prefix: str) -> int:
        """Delete the keys that begin with `prefix`, key by key; return how many there were."""
        return self._run(self._plans.delete_prefix(prefix), 0)

    def clear(self) -> bool:
        """Make everything in the namespace absent; without one, in the whole cluster.

        Other processes see it within `clear_age` seconds. Return whether it is sure.
        """
        return self._run(self._plans.clear(), False)

    def counts(self) -> dict[str, int]:
        """Return the client's counts with unreadable, failed_open, failed_fast, indefinite,
        breaker_opened and breaker_open (0 or 1)."""
        return counts_of(self._client.counts(), self._plans, self._health)

    def latencies(self) -> dict[str, Latency]:
        """Return how long the client's calls have taken, see `Client.latencies`."""
        return self._client.latencies()

    # -------------------------------------------------------------- inside

    def _with(self, settings: Settings) -> Cache:
        other = copy(self)
        other.settings, other._plans = settings, plans_of(settings)
        return other

    def _run(self, plan: Plan[T], otherwise: T) -> T:
        fail_open = self.settings.fail_open
        return in_one_step(carried_out(plan, self._call, self._health, fail_open, otherwise))

    async def _call(self, ask: Ask) -> Any:
        result = getattr(self._client, ask.method)(*ask.args, **ask.options)
        return list(result) if ask.method == "scan" else result


def plans_of(settings: Settings) -> Plans:
    """Return the plans of a cache with `settings`."""
    return Plans(
        settings.values,
        _space_of(settings),
        clock=time.monotonic,
        new_stamp=lambda: secrets.token_urlsafe(9),
        fail_open=settings.fail_open,
    )


def counts_of(counts: dict[str, int], plans: Plans, health: Health) -> dict[str, int]:
    """Return a client's `counts` with those of the cache above it."""
    names = ("failed_open", "failed_fast", "indefinite")
    return {
        **counts,
        "unreadable": plans.unreadable,
        **{name: health.counts[name] for name in names},
        "breaker_opened": health.opened,
        "breaker_open": int(health.open),
    }


_CLIENTS: dict[tuple[object, ...], Client] = {}
_SPACES: dict[tuple[object, ...], Space] = {}


def _client_of(settings: Settings) -> Client:
    # `setdefault` is one step: no lock to be held by a thread that a fork leaves behind.
    key = settings.client_key
    return _CLIENTS.get(key) or _CLIENTS.setdefault(key, Client(settings.nodes, **settings.client))


def _space_of(settings: Settings) -> Space | None:
    if settings.namespace is None:
        return None
    key = (*settings.cluster_key, settings.namespace, settings.clear_age)
    return _SPACES.setdefault(key, Space(settings.namespace, clear_age=settings.clear_age))


def close_shared_clients() -> None:
    """Close the clients that the caches of this process share, as at its end; for tests."""
    while _CLIENTS:
        _CLIENTS.popitem()[1].close()
    _SPACES.clear()


def forget_stamps() -> None:
    """Forget the stamps of all namespaces: to be called after a clear of a whole cluster.

    Else what this process writes in the next `clear_age` seconds goes where it soon looks no more.
    """
    for space in list(_SPACES.values()):
        space.forget()
