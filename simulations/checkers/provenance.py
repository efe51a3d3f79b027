"""Provenance: every value read was written, to that key, by a call that may have happened.

Values in a history are unique, so that each names its call. A value of a call that was definitely
refused must never appear, nor one whose time is over, and one call makes one version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dcc.types import Version
from simulations.history import End, Entry, History, Violation

PROMISE = "provenance"
MS = 1_000_000


def check(history: History, slack_ns: int) -> list[Violation]:
    """Return reads whose value nobody can have written, or that should have expired.

    Args:
        slack_ns: how far clocks may be apart, for values that expire.
    """
    writes = {entry.value: entry for entry in history if entry.value}
    touched = {entry.key for entry in history if entry.verb == "touch"}
    found: list[Violation] = []
    for read in history:
        if read.verb != "get" or read.found is None or read.key.startswith(b"n"):
            continue
        problem = _problem(read, writes.get(read.found), touched, slack_ns)
        if problem:
            found.append(Violation(PROMISE, f"{problem}: {read}", read.ended_ns))
    return found


def _problem(read: Entry, write: Entry | None, touched: set[bytes], slack_ns: int) -> str:
    if write is None:
        return "a value that nobody wrote"
    if write.key != read.key:
        return f"a value of another key, by {write}"
    if write.end is End.FAILED or write.status == "not done":
        return f"a value that was refused, by {write}"
    if write.invoked_ns > read.ended_ns:
        return f"a value from the future, by {write}"
    if write.ttl_ms and read.key not in touched:
        latest_ns = min(write.ended_ns or write.deadline_ns, write.deadline_ns)
        if read.invoked_ns > latest_ns + write.ttl_ms * MS + slack_ns:
            return f"an expired value, by {write}"
    return ""


def check_once(history: History, versions_of: Mapping[bytes, Sequence[Version]]) -> list[Violation]:
    """Return writes that were executed more than once, each with its versions.

    Keys that are touched are left out: touch gives an old value a new version.
    """
    touched = {entry.key for entry in history if entry.verb == "touch"}
    return [
        Violation("a write happens once", f"{versions} by {entry}", entry.ended_ns)
        for entry in history
        if entry.value and entry.key not in touched
        for versions in [[str(version) for version in versions_of.get(entry.value, ())]]
        if len(versions) > 1
    ]


def check_told(history: History, versions_of: Mapping[bytes, Sequence[Version]]) -> list[Violation]:
    """Return puts that were told another version than the one under which they were stored.

    Keys that are touched are left out, as above.
    """
    touched = {entry.key for entry in history if entry.verb == "touch"}
    return [
        Violation("a put is told its own version", str(entry), entry.ended_ns)
        for entry in history
        if entry.verb == "put" and entry.end is End.OK and entry.key not in touched
        if entry.version not in versions_of.get(entry.value, (entry.version,))
    ]


def check_late(
    history: History,
    versions_of: Mapping[bytes, Sequence[Version]],
    epoch_ns: int,
    slack_ns: int,
) -> list[Violation]:
    """Return writes that were executed after their deadline, by the stamp of their version.

    Keys that are touched are left out, as above.

    Args:
        epoch_ns: what a perfect wall clock shows at world time 0.
        slack_ns: how far cluster time may be from world time.
    """
    found: list[Violation] = []
    touched = {entry.key for entry in history if entry.verb == "touch"}
    for entry in history:
        if not entry.value or entry.key in touched:
            continue
        for version in versions_of.get(entry.value, ()):
            stamped_ns = (version.stamp >> 16) * MS - epoch_ns
            if stamped_ns > entry.deadline_ns + slack_ns:
                late_ms = (stamped_ns - entry.deadline_ns) // MS
                text = f"stamped {late_ms} ms after its deadline: {entry}"
                found.append(Violation("never executed late", text, entry.deadline_ns))
    return found
