"""Making values: while all is well, one caller at a time makes the value of a key, and once.

A lease keeps others away until it ends, or its holder is done. What is made is there until it is
stale, so nobody makes it again before. A lease is no lock: where a node's memory was lost, or the
nodes were parted, two may hold it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING

from dcc.units import MILLISECOND
from simulations.history import Violation

if TYPE_CHECKING:
    from simulations.makers import Making

ONE = "one caller at a time makes a value"
ONCE = "a value that is there is not made again"
SLACK_NS = 100 * MILLISECOND
"Leases and values end by the nodes' idea of time."


def check(makings: Sequence[Making], calm: Callable[[int, int], bool]) -> list[Violation]:
    """Return values that were made side by side, or again, with nothing to excuse it.

    Args:
        calm: whether nothing happened in an interval that may lose a lease, or a value.
    """
    found: list[Violation] = []
    by_key = sorted(makings, key=attrgetter("key", "began_ns"))
    for _, group in groupby(by_key, key=attrgetter("key")):
        calls = list(group)
        for index, second in enumerate(calls):
            for first in calls[:index]:
                if calm(first.began_ns, second.began_ns):
                    found += _check_two(first, second)
    return found


def _check_two(first: Making, second: Making) -> list[Violation]:
    text = f"{second} behind {first}"
    # The lease was taken before its holder began, so it ends before this.
    lease_ends_ns = first.began_ns + first.recipe.lease_ms * MILLISECOND
    if second.began_ns < min(first.ended_ns, lease_ends_ns - SLACK_NS):
        return [Violation(ONE, text, second.began_ns)]
    if first.failed or first.ended_ns > lease_ends_ns:
        return []
    stale_ns = first.began_ns + first.recipe.ttl_ms * MILLISECOND - SLACK_NS
    early = first.recipe.beta > 0
    if first.ended_ns <= second.began_ns < stale_ns and not early:
        return [Violation(ONCE, text, second.began_ns)]
    return []
