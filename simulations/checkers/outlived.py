"""Reads that go back: no client finds on a hit what it has itself replaced, or seen replaced.

By life of a client: one that was restarted remembers nothing. Stamps are compared, not versions:
two writes of one stamp did not know of each other. Calls that overlap have no order.
"""

from __future__ import annotations

from collections import defaultdict
from operator import attrgetter

from dcc.types import NO_VERSION, Stamp
from simulations.history import End, Entry, History, Violation

PROMISE = "no client reads what it has outlived"

Place = tuple[str, int, bytes]
"A client, its life, a key; no key: all of them."


def check(history: History) -> list[Violation]:
    """Return hits older than what the same client wrote or read before they began.

    Complexity: O(n log n) in the calls.
    """
    known: defaultdict[Place, list[Entry]] = defaultdict(list)
    hits: defaultdict[Place, list[Entry]] = defaultdict(list)
    for entry in history:
        place = (entry.client, entry.life, entry.key)
        if entry.end is End.OK and entry.version != NO_VERSION:
            known[place].append(entry)
            if entry.found is not None:
                hits[place].append(entry)
    found: list[Violation] = []
    for place, reads in hits.items():
        before = known[place] + known.get((*place[:2], b""), [])
        found += _check_key(sorted(before, key=attrgetter("ended_ns")), reads)
    return found


def _check_key(before: list[Entry], reads: list[Entry]) -> list[Violation]:
    found: list[Violation] = []
    newest: Stamp = 0
    by: Entry | None = None
    passed = 0
    for read in sorted(reads, key=attrgetter("invoked_ns")):
        while passed < len(before) and before[passed].ended_ns < read.invoked_ns:
            if before[passed].version.stamp > newest:
                newest, by = before[passed].version.stamp, before[passed]
            passed += 1
        if read.version.stamp < newest:
            found.append(Violation(PROMISE, f"{read} behind {by}", read.ended_ns))
    return found
