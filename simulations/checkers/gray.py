"""A gray node is gone round: writes that others can acknowledge do not wait for a slow member."""

from __future__ import annotations

from collections.abc import Sequence

from dcc.units import SECOND
from simulations.faults import Delay, Fault, Loss, until_ns
from simulations.history import End, History, Violation

PROMISE = "a gray node is gone round"

FOUND_OUT_NS = 25 * SECOND
"From when a node is slow until nobody waits for it: some pings of each other member."

SHARE_MAX = 0.1
"Of the writes may wait for it all the same: those of clients that have not heard of it yet."

JUDGED_MIN = 30


def check(history: History, faults: Sequence[Fault], copies: int) -> list[Violation]:
    """Return the verdict on a run in which one node was slow and nothing else happened.

    Args:
        copies: owners of a key. Writes that want fewer than all and more than one are judged:
            such a write should take no longer than one message of the slow node does.
    """
    delays = [fault for fault in faults if isinstance(fault, Delay)]
    others = [fault for fault in faults if not isinstance(fault, Delay | Loss)]
    if len(delays) != 1 or others:
        return []
    slow = delays[0]
    judged = [
        entry
        for entry in history
        if 1 < entry.w < copies and entry.end is End.OK and entry.verb == "put"
        if slow.at_ns + FOUND_OUT_NS <= entry.invoked_ns and entry.ended_ns < until_ns(slow)
    ]
    late = [entry for entry in judged if entry.ended_ns - entry.invoked_ns > slow.extra_ns]
    if len(judged) < JUDGED_MIN or len(late) <= SHARE_MAX * len(judged):
        return []
    text = f"{len(late)} of {len(judged)} writes waited for {slow.node}, as {late[0]}"
    return [Violation(PROMISE, text, late[0].ended_ns)]
