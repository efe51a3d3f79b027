"""How a cache carries out a plan: call by call, past the circuit breaker, and on without a cluster.

Written once, as a coroutine. `AsyncCache` awaits it; the calls of `Cache` end before they return,
so it carries the coroutine out in one step, without a loop.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from dcc import ClientClosed, ConfigError, DccError, InvalidKey, NotANumber
from dcc.contrib.health import Health
from dcc.contrib.plans import Ask, Plan
from dcc.errors import MaybeStored, NotMade, UsageError, ValueTooLarge, WrongLoop

T = TypeVar("T")

CALLERS_MISTAKES = (ClientClosed, ConfigError, InvalidKey, NotANumber, UsageError, WrongLoop)
"Raised whatever `on_error` says: no cluster could do better."

NOT_ABOUT_THE_CLUSTER = (*CALLERS_MISTAKES, NotMade, ValueTooLarge)
"Say nothing about whether a cluster answers."

Call = Callable[[Ask], Awaitable[Any]]
"Carries out one call of the client."


async def carried_out(
    plan: Plan[T], call: Call, health: Health, fail_open: bool, otherwise: T
) -> T:
    """Return the outcome of `plan`; `otherwise` if it fails for the cluster's sake and may."""
    try:
        ask = next(plan)
        while True:
            try:
                began_at = health.check()
                try:
                    result = await call(ask)
                    _somebody_stored(ask, result)
                except DccError as error:
                    if not isinstance(error, NOT_ABOUT_THE_CLUSTER):
                        health.failed(error, began_at)
                    raise
                health.answered()
            except DccError as error:
                ask = plan.throw(error)
            else:
                ask = plan.send(result)
    except StopIteration as end:
        outcome: T = end.value
        return outcome
    except DccError as error:
        if not fail_open or isinstance(error, CALLERS_MISTAKES):
            raise
        health.passed_over(error)
        return otherwise


def in_one_step(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine returns that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        outcome: T = end.value
        return outcome
    raise AssertionError("a blocking call has waited for a loop")


def _somebody_stored(ask: Ask, result: Any) -> None:
    """Raise MaybeStored if no key of a put_many was stored: it may be that nobody answered."""
    if ask.method == "put_many" and result and len(result) == len(ask.args[0]):
        raise MaybeStored(f"none of {len(result)} keys was surely stored")
