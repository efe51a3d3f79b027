"""What a bug that was planted breaks, in the first of some runs that shows anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from simulations.history import Violation


def first_broken(play: Callable[[int], Iterable[Violation]], seeds: int = 5) -> set[str]:
    """Return the promises that the first of `seeds` runs to break any has broken; none: unseen."""
    for seed in range(1, seeds + 1):
        broken = {one.promise for one in play(seed)}
        if broken:
            return broken
    return set()
