"""What the nodes of a run believe of the time, once a second.

Cluster time need not be the world's: a founder whose clock is wrong makes it so, and what is judged
by it (when values expire, how late a write was executed) goes by the time that the nodes agreed on.
A clock that is stepped while a node runs is not looked at, and one that drifts is followed within
an eighth of a second, so neither excuses anything.
"""

from __future__ import annotations

from collections.abc import Callable

from simulations.checkers import time
from simulations.clocks import true_ms
from simulations.history import History, Violation
from simulations.observer import core_of
from simulations.world import World


class Timing:
    """Samples of the nodes' time, and the verdict on them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._samples: list[time.Sample] = []
        self._founded = 0
        self.ahead_ms = 0
        "The most that cluster time was ahead of true time."

    def start(self) -> None:
        """Judge from now on: the nodes have found each other."""
        self._founded = self._world.counts["cluster_founded"]

    def sample(self) -> None:
        """Look at every node that has stamped."""
        at_ns = self._world.now_ns
        for node in self._world.living():
            clock = core_of(node).clock
            if clock.settled and clock.last:
                shown = clock.cluster_ms(node.now().mono)
                true = true_ms(at_ns)
                one = time.Sample(
                    at_ns, node.name, node.life, clock.agreed_ms(shown) - true, shown - true
                )
                self._samples.append(one)
                self.ahead_ms = max(self.ahead_ms, one.agreed_ms)

    def now_ms(self) -> int:
        """Return the latest of the living nodes' times."""
        return max(core_of(node).clock.cluster_ms(node.now().mono) for node in self._world.living())

    def check(self, history: History, calm: Callable[[int, int], bool]) -> list[Violation]:
        """Return what is wrong with the samples, unless clusters met that had begun apart."""
        if self._world.counts["cluster_founded"] > self._founded:
            return []
        return time.check(self._samples, calm) + time.check_refusals(history)
