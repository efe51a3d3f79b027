"""The cache of `dcc.contrib.cache`, as coroutines over `AsyncClient`.

It may be used from several event loops, as test runners do: each has a client of its own.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import replace
from typing import Any, TypeVar, Unpack

from dcc import AsyncClient, Latency, Version
from dcc.client.arguments import UNSET, Ttl, Unset
from dcc.client.keywords import CacheOptions
from dcc.client.values import Values
from dcc.contrib.cache import counts_of, plans_of
from dcc.contrib.health import Health, health_of
from dcc.contrib.making import AsyncMakesCached
from dcc.contrib.plans import Ask, Plan
from dcc.contrib.running import carried_out
from dcc.contrib.settings import OfOneProcess, Settings, settings_of

T = TypeVar("T")


class AsyncCache(AsyncMakesCached, OfOneProcess):
    """As `Cache`, with coroutines; close it with `aclose` or `async with`."""

    def __init__(
        self,
        url: str | None = None,
        *,
        nodes: str | Iterable[str] | None = None,
        namespace: str | None = None,
        defaults: Mapping[str, Any] | None = None,
        **options: Unpack[CacheOptions],
    ) -> None:
        """Check the options, which are those of `Cache`."""
        self.settings: Settings = settings_of(url, nodes, namespace, options, defaults or {})
        self._health = health_of(self.settings)
        self._plans = plans_of(self.settings)
        self._clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncClient] = (
            weakref.WeakKeyDictionary()
        )

    @property
    def namespace(self) -> str | None:
        """The namespace, or None."""
        return self.settings.namespace

    @property
    def health(self) -> Health:
        """The circuit breaker."""
        return self._health

    @property
    def client(self) -> AsyncClient:
        """The client of the event loop that runs."""
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            client = self._clients[loop] = AsyncClient(self.settings.nodes, **self.settings.client)
        return client

    def with_values(self, values: Values) -> AsyncCache:
        """Return this cache with other values, on the same connections."""
        other = copy(self)
        other.settings = replace(self.settings, values=values)
        other._plans = plans_of(other.settings)
        return other

    async def get(self, key: str, default: Any = None) -> Any:
        """Return the value of `key`, or `default` if it is absent."""
        return await self._run(self._plans.get(key, default), default)

    async def versioned(self, key: str) -> tuple[Any, Version] | None:
        """Return the value of `key` and its version; None if it is absent."""
        return await self._run(self._plans.versioned(key), None)

    async def put(self, key: str, value: Any, *, ttl: Ttl | Unset = UNSET) -> bool:
        """Store `value`; return whether that is sure."""
        return await self._run(self._plans.put(key, value, ttl), False)

    async def add(self, key: str, value: Any, *, ttl: Ttl | Unset = UNSET) -> bool:
        """Store `value` if `key` is absent; return whether it was stored."""
        return await self._run(self._plans.add(key, value, ttl), False)

    async def replace(
        self, key: str, value: Any, *, version: Version | None = None, ttl: Ttl | Unset = UNSET
    ) -> bool:
        """Store `value` if `key` is present (and still at `version`); return whether it was."""
        return await self._run(self._plans.replace(key, value, version, ttl), False)

    async def delete(self, key: str, *, version: Version | None = None) -> bool:
        """Delete `key` if it is present (and still at `version`); return whether it was."""
        return await self._run(self._plans.delete(key, version), False)

    async def touch(self, key: str, ttl: Ttl) -> bool:
        """Let `key` expire in `ttl` seconds from now (None = never); return whether it exists."""
        return await self._run(self._plans.touch(key, ttl), False)

    async def contains(self, key: str) -> bool:
        """Return whether `key` has a value."""
        return await self._run(self._plans.contains(key), False)

    async def incr(
        self, key: str, delta: int = 1, *, initial: int | None = 0, ttl: Ttl | Unset = UNSET
    ) -> int | None:
        """Add `delta` and return the sum; an absent key counts as `initial`, or stays absent."""
        return await self._run(self._plans.incr(key, delta, initial, ttl), None)

    async def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """Return the values of those of `keys` that are present."""
        return await self._run(self._plans.get_many(keys), {})

    async def put_many(self, mapping: Mapping[str, Any], *, ttl: Ttl | Unset = UNSET) -> list[str]:
        """Store all of `mapping`; return the keys that failed."""
        return await self._run(self._plans.put_many(mapping, ttl), list(mapping))

    async def delete_many(self, keys: Iterable[str]) -> int:
        """Delete all of `keys`; return how many were present."""
        return await self._run(self._plans.delete_many(keys), 0)

    async def delete_prefix(self, prefix: str) -> int:
        """Delete the keys that begin with `prefix`, key by key; return how many there were."""
        return await self._run(self._plans.delete_prefix(prefix), 0)

    async def clear(self) -> bool:
        """Make everything in the namespace absent; without one, in the whole cluster."""
        return await self._run(self._plans.clear(), False)

    def counts(self) -> dict[str, int]:
        """Return the counts of the running loop's client and of this cache; see `Cache`."""
        return counts_of(self.client.counts(), self._plans, self._health)

    def latencies(self) -> dict[str, Latency]:
        """Return how long the calls of the running loop's client have taken."""
        return self.client.latencies()

    async def aclose(self) -> None:
        """Close the client of the running event loop; the next call makes another one."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    async def __aenter__(self) -> AsyncCache:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    async def _run(self, plan: Plan[T], otherwise: T) -> T:
        fail_open = self.settings.fail_open
        return await carried_out(plan, self._call, self._health, fail_open, otherwise)

    async def _call(self, ask: Ask) -> Any:
        answer = getattr(self.client, ask.method)(*ask.args, **ask.options)
        return [key async for key in answer] if ask.method == "scan" else await answer
