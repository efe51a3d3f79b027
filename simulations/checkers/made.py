"""Made of the gone: nothing is made of a value by a node that has asked who saw it deleted.

A put does not care what was there, and an add is made where nothing is. But a touch or a replace
that is done has taken a value for present.
"""

from __future__ import annotations

from collections.abc import Mapping

from dcc.types import Version
from simulations.history import End, History, Violation

PROMISE = "nothing is made of what is gone"


def check(history: History, made_of_gone: Mapping[Version, str]) -> list[Violation]:
    """Return calls that were done on a value of which the node was told by who saw it deleted.

    Args:
        made_of_gone: versions stamped over such a value, and what is known of it.
    """
    return [
        Violation(PROMISE, f"{entry} of {made_of_gone[entry.version]}", entry.ended_ns)
        for entry in history
        if entry.verb in ("touch", "replace") and entry.end is End.OK and entry.status == "done"
        if entry.version in made_of_gone
    ]
