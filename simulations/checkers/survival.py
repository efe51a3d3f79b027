"""Survival: a write acknowledged by w owners outlives w - 1 losses of memory.

Two ways to see it. At rest, somebody must hold the version or a newer one. And before that no read
may say "absent, for certain" of such a key: not as long as only memory was lost and nobody could
be mistaken about who is alive, and at no time if the node that says so shares a view with somebody
who holds the value, and has not asked there.

One thing is not promised. A client that got no answer from the primary may write *aside*, at
another owner. With w = 1 that owner's word is enough, and until the copy has reached the primary,
`COPY_NS` at most, the primary cannot know of the write and answers for its absence. With w = 2 or
more, or once that time is over, the miss is a fault as any other.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import groupby

from dcc.types import Version
from dcc.units import SECOND
from simulations.history import READING, End, Entry, History, Violation

PROMISE = "promised writes survive"

W_QUORUM, W_ALL = 0, 255

COPY_NS = 2 * SECOND
"How long a copy may be on its way in a calm network: three losses in a row, and the resend."


def copies(w: int, replicas: int) -> int:
    """Return how many owners acknowledged a write that asked for `w`.

    >>> copies(0, 2), copies(255, 2), copies(1, 2)
    (2, 3, 1)
    """
    if w == W_QUORUM:
        return (replicas + 1) // 2 + 1
    return replicas + 1 if w == W_ALL else w


def promised(entry: Entry, until_ns: int, losses: Sequence[int], replicas: int) -> bool:
    """Whether fewer memories were lost since the call began than owners acknowledged."""
    if entry.verb in (*READING, "clear") or entry.end is not End.OK or entry.status == "not done":
        return False
    lost = sum(entry.invoked_ns <= at <= until_ns for at in losses)
    return lost < min(copies(entry.w, replicas), replicas + 1)


def check_rest(
    history: History,
    losses: Sequence[int],
    replicas: int,
    kept: Callable[[Entry], bool],
    end_ns: int,
) -> list[Violation]:
    """Return acknowledged writes of which, at rest, nothing is left.

    Args:
        losses: world times at which a node lost its memory.
        kept: whether a living node holds the call's version or a newer one of its key, or has
            seen it and had a reason to forget it.
    """
    return [
        Violation(PROMISE, f"nobody holds it: {entry}", end_ns)
        for entry in history
        if promised(entry, end_ns, losses, replicas) and not kept(entry)
    ]


def check_reads(
    history: History,
    losses: Sequence[int],
    replicas: int,
    calm: Callable[[int, int], bool],
    slack_ns: int,
    aside: Collection[Version] = (),
    *,
    may_evict: bool = False,
) -> list[Violation]:
    """Return reads that called a surely existing key absent.

    Args:
        calm: whether nothing worse than loss of memory happened in an interval.
        slack_ns: how far clocks may be apart, for keys that expire.
        aside: versions stamped by an owner that did not think itself the primary.
        may_evict: memory is short: only nodes that evicted nothing, and could know, are judged.

    Complexity: O(calls of a key squared), for each key.
    """
    found: list[Violation] = []
    clears = [entry for entry in history if entry.verb == "clear"]
    by_key = sorted(history, key=lambda entry: (entry.key, entry.invoked_ns))
    for _, group in groupby(by_key, key=lambda entry: entry.key):
        calls = [*group, *clears]
        for miss in calls:
            if miss.verb != "get" or miss.status != "miss" or miss.end is not End.OK:
                continue
            for write in calls:
                if write.version in aside and _on_its_way(write, miss, replicas):
                    continue
                known = _is_known(write, miss)
                if not known and (may_evict or not calm(write.invoked_ns, miss.ended_ns)):
                    continue
                if _must_be_found(write, miss, calls, losses, replicas, slack_ns):
                    text = f"{miss} misses {write}"
                    found.append(Violation(PROMISE, text, miss.ended_ns))
                    break
    return found


def _is_known(write: Entry, miss: Entry) -> bool:
    """Whether the node that gave the answer could have known of the value, and has not asked."""
    answer = miss.answer
    if answer is None or answer.evicted:
        return False
    return answer.value >= write.version or write.version in answer.aside


def _on_its_way(write: Entry, miss: Entry, replicas: int) -> bool:
    """Whether one owner's word was enough, and its copy may not have reached the others yet."""
    under_way = miss.answer is not None and write.version in miss.answer.aside
    young = miss.invoked_ns < write.ended_ns + COPY_NS
    return copies(write.w, replicas) == 1 and (young or under_way)


def _must_be_found(
    write: Entry,
    miss: Entry,
    calls: Sequence[Entry],
    losses: Sequence[int],
    replicas: int,
    slack_ns: int,
) -> bool:
    if write.verb in ("delete", "clear") or not 0 < write.ended_ns < miss.invoked_ns:
        return False
    if not promised(write, miss.ended_ns, losses, replicas):
        return False
    if _expires_before(write, miss.ended_ns + slack_ns):
        return False
    return not any(_may_hide(other, write, miss.ended_ns + slack_ns) for other in calls)


def _expires_before(write: Entry, at_ns: int) -> bool:
    return write.ttl_ms > 0 and write.invoked_ns + write.ttl_ms * 1_000_000 <= at_ns


def _may_hide(other: Entry, write: Entry, at_ns: int) -> bool:
    """Whether another call could have made the key absent, by deleting or by expiring."""
    if not other.writes or other is write or other.invoked_ns > at_ns:
        return False
    if other.end is End.OK and other.version < write.version:
        return False
    return other.verb in ("delete", "clear") or _expires_before(other, at_ns)
