"""`get_or_put` and `memoize` of caches: any value, in the namespace, and on without a cluster.

The work is that of the client's own calls (`docs/stampede.md`). What comes on top: a value that
cannot be read back is made anew, and with `on_error="miss"` whoever cannot ask a cluster, or has
waited in vain for another's value, makes the value alone.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from dcc.client.arguments import UNSET, Ttl, Unset, ttl_ms
from dcc.client.making import LEASE_SECONDS, recipe_of
from dcc.client.memo import AsyncMemo, KeyOf, Memo
from dcc.client.values import Values
from dcc.contrib.plans import UNREADABLE, Plan, Plans
from dcc.contrib.settings import Settings

T = TypeVar("T")

_FAILED = object()
"What a plan ends with that failed, where a cache may go on."

_AS_THEY_ARE = Values()
"A memo of a cache: the cache itself makes bytes of its results."


class FactoryFailed(Exception):
    """A factory raised `error`: that says nothing of the cluster, whatever it is."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class _Made:
    """One caller's factory, and what it has made: it is called once, whatever fails then."""

    def __init__(self, factory: Callable[[], Any], plans: Plans) -> None:
        if not callable(factory):
            raise TypeError(f"factory: a function, got {type(factory).__name__}")
        self._factory, self._plans = factory, plans
        self.data: Any = None
        "The value as it is stored; None: not made yet."
        self._value: Any = None

    def call(self) -> Any:
        """Return the value as it is stored, made by the factory."""
        try:
            return self._take(self._factory())
        except Exception as error:
            raise FactoryFailed(error) from error

    async def call_async(self) -> Any:
        """Return the same of a factory that may be a coroutine function."""
        try:
            value = self._factory()
            return self._take(await value if inspect.isawaitable(value) else value)
        except Exception as error:
            raise FactoryFailed(error) from error

    def loaded(self) -> Any:
        """Return the value as everybody else will read it; as it was made, if nobody can."""
        value = self._plans.loaded(self.data)
        return self._value if value is UNREADABLE else value

    def _take(self, value: Any) -> Any:
        self._value, self.data = value, self._plans.values.dump(value)
        return self.data


def _kept(
    plans: Plans, verb: str, key: str, made: _Made, factory: Callable[[], Any],
    options: Mapping[str, Any],
) -> Plan[Any]:  # fmt: skip
    """Return the value of `key`; one that cannot be read back is deleted and made anew."""
    for _ in range(2):
        data = yield from plans.making(verb, key, factory, options)
        value = plans.loaded(data)
        if value is not UNREADABLE:
            return value
        yield from plans.invalidate(key)
        if made.data is not None:  # By this very caller: it would come out the same.
            break
    return _FAILED if made.data is None else made.loaded()


class MakesCached(ABC):
    """`get_or_put`, `refresh`, `invalidate` and `memoize` of the blocking cache."""

    settings: Settings
    _plans: Plans

    @abstractmethod
    def _run(self, plan: Plan[T], otherwise: T) -> T:
        """Return the outcome of a plan, or `otherwise`."""

    def get_or_put(
        self,
        key: str,
        factory: Callable[[], Any],
        *,
        ttl: Ttl | Unset = UNSET,
        stale_ttl: Ttl = None,
        lease: float = LEASE_SECONDS,
        wait: float | None = None,
        beta: float = 1.0,
    ) -> Any:
        """Return the value of `key`; if it is absent, what `factory` makes, which is stored.

        One caller in the cluster makes it, as with `Client.get_or_put`, which has the arguments.
        With `on_error="miss"` the factory is called where that cannot be: without a cluster by
        every caller. What it raises is raised whatever `on_error` says.
        """
        more = {"stale_ttl": stale_ttl, "lease": lease, "wait": wait, "beta": beta}
        return self._made("get_or_put", key, factory, {"ttl": ttl, **more})

    def refresh(
        self,
        key: str,
        factory: Callable[[], Any],
        *,
        ttl: Ttl | Unset = UNSET,
        stale_ttl: Ttl = None,
        lease: float = LEASE_SECONDS,
    ) -> Any:
        """Return what `factory` makes now, and store it, whatever is there or is being made."""
        return self._made(
            "refresh", key, factory, {"ttl": ttl, "stale_ttl": stale_ttl, "lease": lease}
        )

    def invalidate(self, key: str) -> bool:
        """Delete `key`, and keep out what is being made of it; return whether it was present."""
        return self._run(self._plans.invalidate(key), False)

    def memoize(
        self,
        ttl: Ttl | Unset = UNSET,
        *,
        key: Callable[..., str] | None = None,
        name: str | None = None,
        **options: Any,
    ) -> Callable[[Callable[..., Any]], Memo]:
        """Return a decorator: the function's results are kept, by its arguments.

        As `Client.memoize`, but results are what this cache stores, by its serializer. `options`
        are stale_ttl, lease, wait and beta of `get_or_put`.
        """
        _check(self.settings, ttl, options)
        keep = partial(self._memoized, {"ttl": ttl, **options})

        def decorate(function: Callable[..., Any]) -> Memo:
            return Memo(function, KeyOf(function, key, name), _AS_THEY_ARE, keep)

        return decorate

    def _memoized(
        self, options: Mapping[str, Any], verb: str, key: str, factory: Callable[[], Any]
    ) -> Any:
        if verb == "invalidate":
            return self.invalidate(key)
        return self._made(verb, key, factory, _options_of(verb, options))

    def _made(
        self, verb: str, key: str, factory: Callable[[], Any], options: Mapping[str, Any]
    ) -> Any:
        made = _Made(factory, self._plans)
        try:
            plan = _kept(self._plans, verb, key, made, made.call, options)
            value = self._run(plan, _FAILED)
            if value is not _FAILED:
                return value
            if made.data is None:
                made.call()
        except FactoryFailed as failed:
            raise failed.error from failed.error.__cause__
        return made.loaded()


class AsyncMakesCached(ABC):
    """The same of the asyncio cache; its factories may be coroutine functions."""

    settings: Settings
    _plans: Plans

    @abstractmethod
    async def _run(self, plan: Plan[T], otherwise: T) -> T:
        """Return the outcome of a plan, or `otherwise`."""

    async def get_or_put(
        self,
        key: str,
        factory: Callable[[], Any | Awaitable[Any]],
        *,
        ttl: Ttl | Unset = UNSET,
        stale_ttl: Ttl = None,
        lease: float = LEASE_SECONDS,
        wait: float | None = None,
        beta: float = 1.0,
    ) -> Any:
        """Return the value of `key`; if it is absent, what `factory` makes; as `Cache`'s."""
        more = {"stale_ttl": stale_ttl, "lease": lease, "wait": wait, "beta": beta}
        return await self._made("get_or_put", key, factory, {"ttl": ttl, **more})

    async def refresh(
        self,
        key: str,
        factory: Callable[[], Any | Awaitable[Any]],
        *,
        ttl: Ttl | Unset = UNSET,
        stale_ttl: Ttl = None,
        lease: float = LEASE_SECONDS,
    ) -> Any:
        """Return what `factory` makes now, and store it, whatever is there or is being made."""
        return await self._made(
            "refresh", key, factory, {"ttl": ttl, "stale_ttl": stale_ttl, "lease": lease}
        )

    async def invalidate(self, key: str) -> bool:
        """Delete `key`, and keep out what is being made of it; return whether it was present."""
        return await self._run(self._plans.invalidate(key), False)

    def memoize(
        self,
        ttl: Ttl | Unset = UNSET,
        *,
        key: Callable[..., str] | None = None,
        name: str | None = None,
        **options: Any,
    ) -> Callable[[Callable[..., Any]], AsyncMemo]:
        """Return a decorator for functions and coroutine functions; as `Cache.memoize`.

        What it makes of either is a coroutine function, and so are `invalidate` and `refresh`.
        """
        _check(self.settings, ttl, options)
        keep = partial(self._memoized, {"ttl": ttl, **options})

        def decorate(function: Callable[..., Any]) -> AsyncMemo:
            return AsyncMemo(function, KeyOf(function, key, name), _AS_THEY_ARE, keep)

        return decorate

    async def _memoized(
        self, options: Mapping[str, Any], verb: str, key: str, factory: Callable[[], Any]
    ) -> Any:
        if verb == "invalidate":
            return await self.invalidate(key)
        return await self._made(verb, key, factory, _options_of(verb, options))

    async def _made(
        self, verb: str, key: str, factory: Callable[[], Any], options: Mapping[str, Any]
    ) -> Any:
        made = _Made(factory, self._plans)
        try:
            plan = _kept(self._plans, verb, key, made, made.call_async, options)
            value = await self._run(plan, _FAILED)
            if value is not _FAILED:
                return value
            if made.data is None:
                await made.call_async()
        except FactoryFailed as failed:
            raise failed.error from failed.error.__cause__
        return made.loaded()


def _check(settings: Settings, ttl: Ttl | Unset, options: Mapping[str, Any]) -> None:
    """Refuse impossible options as soon as a function is decorated."""
    kept = settings.client.get("default_ttl") if isinstance(ttl, Unset) else ttl
    recipe_of(ttl_ms(kept), **options)


def _options_of(verb: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return those options of a memo that concern the verb: no refresh waits or is early."""
    passed_over = ("wait", "beta") if verb == "refresh" else ()
    return {name: value for name, value in options.items() if name not in passed_over}
