"""Listing: a scan lists every key that is present from its beginning to its end, and each once.

A key must be listed where a read of it might not say "absent, for certain": see `survival`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from dcc.types import Version
from simulations.checkers import survival
from simulations.history import End, History, Violation

PROMISE = "a scan lists what is present"


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
