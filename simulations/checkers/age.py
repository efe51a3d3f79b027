"""Age of hits: no read finds a value older than a promised one that its node could have known of.

A write is promised to a read if it was acknowledged before the read began, by more owners than
memories were lost since. What the README's rows say of such a write comes down to this:

- whoever leads a key serves no older value while somebody whom it shares a view with holds that
  write or a newer one, unless it has asked there and had no answer. Nothing excuses that: a node
  that returns from a cut or a standstill, or leads since a crash, asks before it serves. Whoever
  is cut off from all holders shares a view with none of them, once that was noticed, and is right
  as far as it can know;
- in a calm world there is no older value at all, for a read of so many owners that one of them
  must have acknowledged the write whether all have answered or not.

Two things are not promised. A read of any owner may lag behind (it does not lead): only in a calm
world in which no memory was lost, and no longer than a copy takes, counted from when those who have
the newer one can reach it again: two nodes that a bridge kept from suspecting each other are in one
view all the time, and when their cut heals have no connection yet. And with w = 1 a write that went
round its primary is read through the primary once its copy is there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import groupby

from dcc.types import Version
from simulations.checkers.survival import COPY_NS, copies, promised
from simulations.history import End, Entry, History, Violation

PROMISE = "no hit is older than what its node could have known"


def check(
    history: History,
    losses: Sequence[int],
    replicas: int,
    calm: Callable[[int, int], bool],
    aside: Collection[Version] = (),
) -> list[Violation]:
    """Return hits that are older than a promised write, where nothing excuses it.

    Args:
        losses: world times at which a node lost its memory.
        replicas: copies beyond the primary; the fewest there were.
        calm: whether nothing worse than loss of memory happened in an interval.
        aside: versions stamped by an owner that did not think itself the primary.

    Complexity: O(calls of a key squared), for each key.
    """
    found: list[Violation] = []
    by_key = sorted(history, key=lambda entry: (entry.key, entry.invoked_ns))
    for _, group in groupby(by_key, key=lambda entry: entry.key):
        calls = list(group)
        writes = [one for one in calls if one.writes and one.end is End.OK]
        for hit in calls:
            if hit.found is None or hit.answer is None:
                continue
            for write in reversed(writes):
                if not (write.ended_ns < hit.invoked_ns and hit.version < write.version):
                    continue
                if not promised(write, hit.ended_ns, losses, replicas):
                    continue
                if _is_known(write, hit, losses, replicas, calm, aside):
                    late_ms = (hit.invoked_ns - write.ended_ns) // 1_000_000
                    whom = f"{hit.answer.node} beside {','.join(hit.answer.holders)}"
                    text = f"{hit} by {whom}, {late_ms} ms behind {write}"
                    found.append(Violation(PROMISE, text, hit.ended_ns))
                    break
    return found


def _is_known(
    write: Entry,
    hit: Entry,
    losses: Sequence[int],
    replicas: int,
    calm: Callable[[int, int], bool],
    aside: Collection[Version],
) -> bool:
    """Whether the node that gave the answer had to know of `write`."""
    answer = hit.answer
    assert answer is not None
    strong = hit.r != 1 and copies(hit.r, replicas) + copies(write.w, replicas) > replicas + 1
    quiet = calm(write.invoked_ns, hit.ended_ns) and (strong or not answer.asked)
    copied = hit.invoked_ns >= max(write.ended_ns, answer.reached_ns) + COPY_NS
    lost = any(write.invoked_ns <= at <= hit.ended_ns for at in losses)
    if write.version in aside and copies(write.w, replicas) == 1:
        return quiet and copied and not lost
    if answer.leads or hit.r != 1:
        return answer.known >= write.version or write.version in answer.aside or quiet
    return quiet and copied and not lost
