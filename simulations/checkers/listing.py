"""Listing: a scan lists every key that is present from its beginning to its end, and each once.

A key must be listed where a read of it might not say "absent, for certain": see `survival`. And no
node lists as present what a promised delete had ended before the scan began, where a hit of the
older value would be a fault: see `age`. Only who leads the key is judged so: whoever does not may
lag behind, or be a former owner, whom deletes are not sent any more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from dcc.types import NO_VERSION, Version
from dcc.units import SECOND
from simulations.checkers import age, survival
from simulations.history import End, Entry, History, Violation

PROMISE = "a scan lists what is present"
GONE = "a scan lists nothing that was deleted long before"


def check(
    history: History,
    losses: Sequence[int],
    replicas: int,
    calm: Callable[[int, int], bool],
    slack_ns: int,
    aside: Collection[Version] = (),
) -> list[Violation]:
    """Return scans that list a key twice, one that nobody wrote, or not one that is there.

    The arguments are those of `survival.check_reads`. Complexity: O(scans x keys x calls of a key).
    """
    written = {entry.key for entry in history if entry.writes}
    others = [entry for entry in history if entry.verb not in ("get", "scan")]
    found: list[Violation] = []
    for scan in history:
        if scan.verb != "scan" or scan.end is not End.OK:
            continue
        twice = len(scan.listed) != len(set(scan.listed))
        unknown = set(scan.listed) - written
        if twice or unknown:
            text = f"listed twice or never written: {sorted(unknown)} by {scan}"
            found.append(Violation(PROMISE, text, scan.ended_ns))
        absent = sorted(key for key in written - set(scan.listed) if key.startswith(scan.key))
        misses = [replace(scan, verb="get", key=key, status="miss") for key in absent if key]
        missed = survival.check_reads(
            [*others, *misses], losses, replicas, calm, slack_ns, aside
        )  # fmt: skip
        found += [Violation(PROMISE, one.text, one.at_ns) for one in missed]
    return found


def check_deleted(
    history: History,
    losses: Sequence[int],
    replicas: int,
    calm: Callable[[int, int], bool],
    aside: Collection[Version] = (),
) -> list[Violation]:
    """Return scans that were told of a key as present which had been deleted long before.

    The arguments are those of `age.check`. Complexity: O(scans x keys x calls of a key).
    """
    found: list[Violation] = []
    writes: dict[bytes, list[Entry]] = {}
    for entry in history:
        if entry.writes and entry.verb not in ("clear", "copies"):
            writes.setdefault(entry.key, []).append(entry)
    for scan in history:
        if scan.verb != "scan" or scan.end is not End.OK:
            continue
        for told in scan.told:
            if not told.leads or told.key not in scan.listed:
                continue
            calls = writes.get(told.key, [])
            gone = [one for one in calls if _is_the_end(one, calls, scan.ended_ns)]
            if not gone:
                continue
            hit = replace(
                scan, verb="get", key=told.key, found=b"?", version=told.version, answer=told
            )
            older = age.check([*gone, hit], losses, replicas, calm, aside)
            found += [Violation(GONE, one.text, one.at_ns) for one in older]
    return found


def _is_the_end(delete: Entry, calls: Sequence[Entry], until_ns: int) -> bool:
    """Whether no other call can have made the key present again behind this delete."""
    if delete.verb != "delete" or delete.end is not End.OK:
        return False
    return not any(
        one.verb != "delete"
        and one.invoked_ns <= until_ns
        and (one.version > delete.version or _may_come_behind(one, delete))
        for one in calls
    )


def _may_come_behind(other: Entry, delete: Entry) -> bool:
    """Whether a call of which no version is known may have been stamped behind this delete."""
    return other.version == NO_VERSION and other.deadline_ns + SECOND >= delete.invoked_ns
