"""Time: all who have stamped agree on it, and it never jumps.

Judged by what the nodes believe, once a second. `shown` is what values expire by, `agreed` what is
stamped by; both are compared with the world's true time, so that a right clock shows 0. From its
first stamp on a node may be slewed, and may be brought back to the others if it drifted, but
never more, whatever clocks are wrong and whoever comes, goes or starts again. Only where clusters
meet that began apart, because a node was started without seeds, may the time of some step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from simulations.history import End, History, Violation

PROMISE = "time does not jump"

MAX_SKEW_MS = 500
SLEW = 12
"Part of the time that a correction may take or give; written out so that it is checked."
BAND_MS = 200
"A member is brought back once it has drifted by an eighth of a second; and what is read, errs."


class Sample(NamedTuple):
    """What one node that has stamped believed at one moment."""

    at_ns: int
    node: str
    life: int
    agreed_ms: int
    "By how much its time for stamps is ahead of true time."
    shown_ms: int
    "By how much its time for expiry is."


def check(samples: Sequence[Sample], calm: Callable[[int, int], bool]) -> list[Violation]:
    """Return jumps of one node's time, and moments at which nodes were apart in a calm world.

    Args:
        samples: in order of time.
    """
    found: list[Violation] = []
    last: dict[tuple[str, int], Sample] = {}
    together: dict[int, list[Sample]] = {}
    for one in samples:
        before = last.get((one.node, one.life))
        if before is not None:
            found += _jumps(before, one)
        last[one.node, one.life] = one
        together.setdefault(one.at_ns, []).append(one)
    for at_ns, those in together.items():
        times = [one.agreed_ms for one in those]
        if max(times) - min(times) > MAX_SKEW_MS and calm(at_ns, at_ns):
            found.append(Violation(PROMISE, f"apart: {those}", at_ns))
    return found


def _jumps(before: Sample, after: Sample) -> list[Violation]:
    allowed_ms = (after.at_ns - before.at_ns) // (SLEW * 1_000_000) + BAND_MS
    moved_ms = max(abs(after.agreed_ms - before.agreed_ms), abs(after.shown_ms - before.shown_ms))
    if moved_ms <= allowed_ms:
        return []
    text = f"{moved_ms} ms at once, {allowed_ms} allowed: {before} {after}"
    return [Violation(PROMISE, text, after.at_ns)]


def check_refusals(history: History) -> list[Violation]:
    """Return calls that were refused because of their time."""
    return [
        Violation("no write is refused for its time", str(entry), entry.ended_ns)
        for entry in history
        if entry.end is End.FAILED and entry.error == "ClockSkew"
    ]
