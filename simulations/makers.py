"""Programs of the simulated world that want values which somebody has to make.

Each has a client of its own and drives the production plans of `stampede`; its factory takes
virtual time, and sometimes fails. Who made what and when is written down for the checker.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from dcc.client.stampede import Interrupted, Make, Pause, Plan, Recipe, Stampede, Step
from dcc.errors import DccError
from dcc.types import Now
from dcc.units import MILLISECOND, NEVER
from simulations.stage import Stage


class FactoryFailed(Exception):
    """What a factory raises that is to fail."""


@dataclass(slots=True)
class Making:
    """One call of a factory. Times are world ns."""

    who: str
    key: bytes
    recipe: Recipe
    wanted_ns: int
    "When its caller began to want the value."
    began_ns: int
    ended_ns: int = NEVER
    "NEVER: its process died."
    failed: bool = False


class Maker:
    """One program, one call at a time, on the client called `name`."""

    def __init__(
        self,
        stage: Stage,
        name: str,
        takes_ns: Callable[[], int],
        fails: Callable[[], bool] = lambda: False,
    ) -> None:
        self.name = name
        self.makings: list[Making] = []
        self.outcomes: list[bytes | Exception] = []
        "How each call has ended, in order."
        self._world, self._client = stage.world, stage.client(name)
        self._takes_ns, self._fails = takes_ns, fails
        self._rng = Random(f"{stage.world.seed}/maker/{name}")
        self._stampede = Stampede(self._rng.random, lambda: self._now().mono, self._cluster_ms)
        self._made = 0
        self._then: Callable[[], None] = lambda: None
        self._wanted: tuple[bytes, Recipe, int] = (b"", Recipe(0, 0, 1, 1, 0), 0)
        self.busy = False

    def _now(self) -> Now:
        return self._client.clock.read(self._world.now_ns)

    def _cluster_ms(self) -> int:
        return self._client.core.cluster_ms(self._now())

    def want(self, key: bytes, recipe: Recipe, then: Callable[[], None] = lambda: None) -> None:
        """Begin to want the value of a key; `then` is called at the end."""
        self._begin(self._stampede.get_or_put(key, recipe), key, recipe, then)

    def refresh(self, key: bytes, recipe: Recipe) -> None:
        """Begin to make the value of a key, whatever is there."""
        self._begin(self._stampede.refresh(key, recipe), key, recipe, lambda: None)

    def _begin(self, plan: Plan, key: bytes, recipe: Recipe, then: Callable[[], None]) -> None:
        assert not self.busy, "one call at a time"
        self.busy, self._then = True, then
        self._wanted = key, recipe, self._world.now_ns
        self._go_on((self._client.life, plan, None, None))

    def die(self) -> None:
        """Die in the middle of whatever is under way, and be replaced by one who knows nothing."""
        self._client.restart()
        self._stampede = Stampede(self._rng.random, lambda: self._now().mono, self._cluster_ms)
        self.busy = False

    def _go_on(self, what: tuple[int, Plan, Any, Exception | None]) -> None:
        life, plan, result, error = what
        if life != self._client.life:
            return
        try:
            step = plan.send(result) if error is None else plan.throw(error)
        except StopIteration as end:
            self._end(end.value)
        except DccError as raised:
            self._end(raised)
        except Interrupted:
            self._end(FactoryFailed())
        else:
            self._do(life, plan, step)

    def _do(self, life: int, plan: Plan, step: Step) -> None:
        world = self._world
        if isinstance(step, Pause):
            world.at(world.now_ns + step.ns, self._go_on, (life, plan, None, None))
        elif isinstance(step, Make):
            key, recipe, wanted_ns = self._wanted
            making = Making(self.name, key, recipe, wanted_ns, world.now_ns)
            self.makings.append(making)
            world.at(world.now_ns + self._takes_ns(), self._finish, (life, plan, making))
        else:
            self._client.call(
                step, lambda outcome, error: self._answered(life, plan, outcome, error)
            )

    def _answered(self, life: int, plan: Plan, outcome: Any, error: DccError | None) -> None:
        # In a turn of its own: a client is free for the next call once this one is over.
        self._world.at(self._world.now_ns, self._go_on, (life, plan, outcome, error))

    def _finish(self, what: tuple[int, Plan, Making]) -> None:
        life, plan, making = what
        if life != self._client.life:
            return
        making.ended_ns = self._world.now_ns
        making.failed = self._fails()
        self._made += 1
        value = b"%s/%d" % (self.name.encode(), self._made)
        error = Interrupted(FactoryFailed()) if making.failed else None
        self._go_on((life, plan, value, error))

    def _end(self, outcome: bytes | Exception) -> None:
        self.busy = False
        self.outcomes.append(outcome)
        self._then()


def patient(maker: Maker, stage: Stage, *, for_ns: int = 60_000 * MILLISECOND) -> None:
    """Let time pass until a maker has its value."""
    end_ns = stage.world.now_ns + for_ns
    while maker.busy and stage.world.now_ns < end_ns:
        stage.play(MILLISECOND)
    assert not maker.busy, "it waits for ever"
