"""`get_or_put` and `memoize` of both clients: what drives the plans of `stampede`.

Chance, time and the factory come from here; what a caller passes is checked here, once for both.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from dcc.client.arguments import UNSET, Ttl, Unset, Value, key_bytes, ttl_ms, value_bytes
from dcc.client.core import ClientCore
from dcc.client.link import read_clocks
from dcc.client.memo import AsyncMemo, KeyOf, Memo
from dcc.client.operations import Operations
from dcc.client.stampede import Interrupted, Make, Pause, Plan, Recipe, Stampede, Step
from dcc.client.values import Serializer, Values
from dcc.errors import DccError
from dcc.units import SECOND
from dcc.wire.messages import Get, Write

T = TypeVar("T")

LEASE_SECONDS = 10.0
WAIT_LEASES = 3
"Leases that a waiter outlasts, unless told otherwise."

_ending: set[asyncio.Future[Any]] = set()
"Tasks that give leases back; a loop itself would not keep them."

Factory = Callable[[], Any]
Call = Callable[[Get | Write], Any]
"Carries out one operation of the client."


def recipe_of(
    kept_ms: int,
    stale_ttl: Ttl = None,
    lease: float = LEASE_SECONDS,
    wait: float | None = None,
    beta: float = 1.0,
    *,
    w: int = 1,
) -> Recipe:
    """Return the checked options of a value that is made; `kept_ms` is its ttl as it travels.

    >>> recipe_of(60_000, 30)
    Recipe(ttl_ms=60000, stale_ms=30000, lease_ms=10000, wait_ms=30000, beta=1.0, w=1)
    >>> recipe_of(0, 30)
    Traceback (most recent call last):
    ValueError: stale_ttl: what never expires is never stale; give a ttl
    """
    stale_ms = ttl_ms(stale_ttl, "stale_ttl")
    if stale_ms and not kept_ms:
        raise ValueError("stale_ttl: what never expires is never stale; give a ttl")
    lease_ms = ttl_ms(lease, "lease")
    if not lease_ms:
        raise ValueError("lease: seconds above 0; it has to end by itself")
    wait_ms = WAIT_LEASES * lease_ms if wait is None else ttl_ms(wait, "wait")
    if isinstance(beta, bool) or not isinstance(beta, int | float):
        raise TypeError(f"beta: float, got {type(beta).__name__}")
    if not 0 <= beta < math.inf:
        raise ValueError(f"beta: 0 or more, got {beta}")
    return Recipe(kept_ms, stale_ms, lease_ms, wait_ms, float(beta), w)


def made(plan: Generator[Step, Any, T], call: Call, factory: Factory) -> T:
    """Return the outcome of `plan`, whose factory and calls block."""
    try:
        step = next(plan)
        while True:
            try:
                result = _done(step, call, factory)
            except BaseException as error:
                step = plan.throw(_told(step, error))
            else:
                step = plan.send(result)
    except StopIteration as end:
        outcome: T = end.value
        return outcome
    except Interrupted as broken:
        raise broken.error from broken.error.__cause__


def _done(step: Step, call: Call, factory: Factory) -> Any:
    if isinstance(step, Make):
        return value_bytes(factory())
    if not isinstance(step, Pause):
        return call(step)
    time.sleep(step.ns / SECOND)
    return None


async def made_async(
    plan: Generator[Step, Any, T],
    call: Callable[[Get | Write], Awaitable[Any]],
    factory: Factory,
) -> T:
    """Return the outcome of `plan`; its factory may be a function or a coroutine function."""
    return await _driven(partial(next, plan), plan, call, factory)


async def _driven(
    begin: Callable[[], Step],
    plan: Generator[Step, Any, T],
    call: Callable[[Get | Write], Awaitable[Any]],
    factory: Factory,
) -> T:
    try:
        step = begin()
        while True:
            try:
                result = await _done_async(step, call, factory)
            except asyncio.CancelledError as error:
                told = partial(plan.throw, _told(step, error))
                await _apart(_driven(told, plan, call, factory))
                raise
            except BaseException as error:
                step = plan.throw(_told(step, error))
            else:
                step = plan.send(result)
    except StopIteration as end:
        outcome: T = end.value
        return outcome
    except Interrupted as broken:
        raise broken.error from broken.error.__cause__


async def _apart(rest: Coroutine[Any, Any, Any]) -> None:
    """Let a cancelled plan give its lease back in a task of its own, and wait for that.

    Some scopes cancel each further wait of their task, too. Then nobody waits for it.
    """
    task = asyncio.ensure_future(rest)
    _ending.add(task)
    task.add_done_callback(_ended)
    with suppress(asyncio.CancelledError):
        await asyncio.wait({task})


def _ended(task: asyncio.Future[Any]) -> None:
    _ending.discard(task)
    if not task.cancelled():
        task.exception()  # It ends by what its plan was told.


async def _done_async(
    step: Step, call: Callable[[Get | Write], Awaitable[Any]], factory: Factory
) -> Any:
    if isinstance(step, Make):
        value = factory()
        return value_bytes(await value if inspect.isawaitable(value) else value)
    if not isinstance(step, Pause):
        return await call(step)
    await asyncio.sleep(step.ns / SECOND)
    return None


def _told(step: Step, error: BaseException) -> Exception:
    """Return what a plan is told of an error: one of the cluster's as it is."""
    if isinstance(error, DccError) and not isinstance(step, Make):
        return error
    return Interrupted(error)


class _Making(ABC):
    """The common part: options to recipes, and the plans of this client."""

    _ops: Operations
    _stampede: Stampede | None = None

    @abstractmethod
    def _present_core(self) -> ClientCore:
        """Return the core of this process or loop."""

    def _plans(self) -> Stampede:
        if self._stampede is None:
            self._stampede = Stampede(random.random, time.monotonic_ns, self._cluster_ms)
        return self._stampede

    def _cluster_ms(self) -> int:
        return self._present_core().cluster_ms(read_clocks())

    def _recipe(self, factory: object, ttl: Ttl | Unset, options: Mapping[str, Any]) -> Recipe:
        if not callable(factory):
            raise TypeError(f"factory: a function, got {type(factory).__name__}")
        return recipe_of(self._ops.ttl_ms(ttl), w=self._ops.w, **options)


class MakesValues(_Making):
    """`get_or_put` and `memoize` of the blocking client."""

    @abstractmethod
    def _call(self, operation: Get | Write) -> Any:
        """Return the outcome of one operation."""

    def get_or_put(
        self,
        key: str,
        factory: Callable[[], Value],
        *,
        ttl: Ttl | Unset = UNSET,
        stale_ttl: Ttl = None,
        lease: float = LEASE_SECONDS,
        wait: float | None = None,
        beta: float = 1.0,
    ) -> bytes:
        """Return the value of `key`; if it is absent, what `factory` makes, which is stored.

        One caller in the cluster makes it, the others wait for it or get the stale value: see
        docs/stampede.md for what a partition, a crash and an invalidation do to that.

        Args:
            factory: called without arguments; returns bytes. What it raises ends the call of its
                own caller; who waits tries in turn.
            ttl: seconds until the value is stale; unset = the client's default.
            stale_ttl: seconds that it is kept beyond, and handed out while somebody makes it anew.
            lease: seconds after which whoever makes it is given up; longer than a factory takes.
            wait: seconds to wait for another caller's value; None = three leases.
            beta: how early it is made anew before `ttl` ends; 0 = not before, 1 = as the cost of
                making it suggests.

        Raises:
            NotMade: nobody made it within `wait`; an OperationTimeout.
            NodeUnavailable, …: as for `get` and `add`. That a value could not be stored is no
                error: it is returned.
        """
        recipe = self._recipe(
            factory, ttl, {"stale_ttl": stale_ttl, "lease": lease, "wait": wait, "beta": beta}
        )
        return self._kept(recipe, "get_or_put", key, factory)

    def refresh(
        self,
        key: str,
        factory: Callable[[], Value],
        *,
        ttl: Ttl | Unset = UNSET,
        stale_ttl: Ttl = None,
        lease: float = LEASE_SECONDS,
    ) -> bytes:
        """Return what `factory` makes now, and store it, whatever is there or is being made.

        Arguments and errors are those of `get_or_put`; that it could not be stored is one.
        """
        recipe = self._recipe(factory, ttl, {"stale_ttl": stale_ttl, "lease": lease})
        return self._kept(recipe, "refresh", key, factory)

    def invalidate(self, key: str) -> bool:
        """Delete `key`, and keep out what is being made of it; return whether it was present.

        Two writes: a `delete` costs one, but does not stop whoever makes the value just now.
        """
        return made(self._plans().invalidate(key_bytes(key)), self._call, bytes)

    def memoize(
        self,
        ttl: Ttl | Unset = UNSET,
        *,
        key: Callable[..., str] | None = None,
        name: str | None = None,
        serializer: str | Serializer | None = None,
        **options: Any,
    ) -> Callable[[Callable[..., Any]], Memo]:
        """Return a decorator: the function's results are kept, by its arguments.

        Args:
            ttl: as for `get_or_put`.
            key: makes the key of the arguments; None: the function's name and its arguments, which
                must be plain values then (so a method needs one that says what of `self` counts).
            name: what the key has for the function's module and name. A lambda or a function in
                another one needs it, or `key`: ValueError. Give no two functions the same.
            serializer: "json", "msgpack", "pickle", an object with dumps and loads; None: results
                are bytes.
            options: stale_ttl, lease, wait and beta of `get_or_put`.

        The function has `invalidate`, `refresh` and `key_for`, which take its arguments.
        """
        recipe = self._recipe(len, ttl, options)
        values = Values(serializer)

        def decorate(function: Callable[..., Any]) -> Memo:
            return Memo(
                function, KeyOf(function, key, name), values, partial(self._memoized, recipe)
            )

        return decorate

    def _memoized(self, recipe: Recipe, verb: str, key: str, factory: Factory) -> Any:
        """Carry out what a memo wants: get_or_put, refresh or invalidate."""
        return (
            self.invalidate(key) if verb == "invalidate" else self._kept(recipe, verb, key, factory)
        )

    def _kept(self, recipe: Recipe, verb: str, key: str, factory: Factory) -> bytes:
        plan: Callable[[bytes, Recipe], Plan] = getattr(self._plans(), verb)
        return made(plan(key_bytes(key), recipe), self._call, factory)


class AsyncMakesValues(_Making):
    """`get_or_put` and `memoize` of the asyncio client."""

    @abstractmethod
    async def _call(self, operation: Get | Write) -> Any:
        """Return the outcome of one operation."""

    async def get_or_put(
        self,
        key: str,
        factory: Callable[[], Value | Awaitable[Value]],
        *,
        ttl: Ttl | Unset = UNSET,
        stale_ttl: Ttl = None,
        lease: float = LEASE_SECONDS,
        wait: float | None = None,
        beta: float = 1.0,
    ) -> bytes:
        """Return the value of `key`; if it is absent, what `factory` makes, which is stored.

        As `Client.get_or_put`; the factory may be a coroutine function as well.
        """
        recipe = self._recipe(
            factory, ttl, {"stale_ttl": stale_ttl, "lease": lease, "wait": wait, "beta": beta}
        )
        return await self._kept(recipe, "get_or_put", key, factory)

    async def refresh(
        self,
        key: str,
        factory: Callable[[], Value | Awaitable[Value]],
        *,
        ttl: Ttl | Unset = UNSET,
        stale_ttl: Ttl = None,
        lease: float = LEASE_SECONDS,
    ) -> bytes:
        """Return what `factory` makes now, and store it; as `Client.refresh`."""
        recipe = self._recipe(factory, ttl, {"stale_ttl": stale_ttl, "lease": lease})
        return await self._kept(recipe, "refresh", key, factory)

    async def invalidate(self, key: str) -> bool:
        """Delete `key`, and keep out what is being made of it; as `Client.invalidate`."""
        return await made_async(self._plans().invalidate(key_bytes(key)), self._call, bytes)

    def memoize(
        self,
        ttl: Ttl | Unset = UNSET,
        *,
        key: Callable[..., str] | None = None,
        name: str | None = None,
        serializer: str | Serializer | None = None,
        **options: Any,
    ) -> Callable[[Callable[..., Any]], AsyncMemo]:
        """Return a decorator for functions and coroutine functions; as `Client.memoize`.

        What it makes of either is a coroutine function, and so are `invalidate` and `refresh`.
        """
        recipe = self._recipe(len, ttl, options)
        values = Values(serializer)

        def decorate(function: Callable[..., Any]) -> AsyncMemo:
            return AsyncMemo(
                function, KeyOf(function, key, name), values, partial(self._memoized, recipe)
            )

        return decorate

    async def _memoized(self, recipe: Recipe, verb: str, key: str, factory: Factory) -> Any:
        """Carry out what a memo wants: get_or_put, refresh or invalidate."""
        if verb == "invalidate":
            return await self.invalidate(key)
        return await self._kept(recipe, verb, key, factory)

    async def _kept(self, recipe: Recipe, verb: str, key: str, factory: Factory) -> bytes:
        plan: Callable[[bytes, Recipe], Plan] = getattr(self._plans(), verb)
        return await made_async(plan(key_bytes(key), recipe), self._call, factory)
