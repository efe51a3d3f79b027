"""What a run came to, in words and figures."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from dcc.units import MIB, MILLISECOND
from simulations.chaos.run import Result, Sample
from simulations.history import End, Entry

READS = ("get", "scan")
YOUNG_SECONDS = 20.0
"A life of a node is compared from this age on: before, it fills."


def report(result: Result) -> Iterator[str]:
    """Return the lines of the report."""
    kinds = Counter(type(event).__name__ for event in result.events)
    yield (
        f"seed {result.seed}, {result.seconds / 60:.1f} minutes, {len(result.events)} faults: "
        + (", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())))
    )
    yield f"{len(result.history)} calls by key, {result.calm_share:.0%} of them in calm"
    yield f"of hits turned into sure misses {result.sharpness:.0%} would be violations"
    for title, reads in (("reads", True), ("writes", False)):
        yield from _calls(title, [one for one in result.history if (one.verb in READS) == reads])
    yield "memory pressure: " + _counted(result.pressed)
    yield from _growth(result.samples)
    logged = ("standstill", "member_suspect", "member_dead", "refuted", "bug")
    yield "logged: " + ", ".join(f"{result.logged[event]} {event}" for event in logged)
    yield f"{len(result.violations)} violations"
    promises = Counter(one.promise for one in result.violations)
    for promise, count in promises.most_common():
        yield f"  {count} x {promise}"
    for one in result.violations[:20]:
        yield f"  {one.promise}: {one.text}"


def _calls(title: str, entries: Sequence[Entry]) -> Iterator[str]:
    ends = Counter(entry.end for entry in entries)
    # What is unknown for want of a version alone was answered all the same.
    answered = sum(not entry.error for entry in entries)
    errors = Counter(entry.error for entry in entries if entry.error)
    times = sorted(entry.ended_ns - entry.invoked_ns for entry in entries if not entry.error)
    quantiles = (
        [times[int(q * (len(times) - 1))] / MILLISECOND for q in (0.5, 0.99)] if times else []
    )
    yield (
        f"{title}: {len(entries)}, answered {answered / max(1, len(entries)):.2%}"
        f" ({_counted(errors) or 'no errors'}); failed {ends[End.FAILED]};"
        f" p50, p99 {', '.join(f'{one:.1f}' for one in quantiles)} ms"
    )


def _growth(samples: Sequence[Sample]) -> Iterator[str]:
    """Say how much nodes grew in their last lives, before the memory pressure and with it."""
    by_node: dict[str, list[Sample]] = defaultdict(list)
    for one in samples:
        if one.age_s >= YOUNG_SECONDS:
            by_node[one.node].append(one)
    for node, those in sorted(by_node.items()):
        life = those[-_length(those) :]
        before = [one for one in life if not one.pressed]
        highest = max(one.resident for one in those)
        if not before:
            yield f"{node}: at most {highest / MIB:.0f} MiB; started in the memory pressure"
            continue
        first, last = before[0], before[-1]
        yield (
            f"{node}: at {first.age_s:.0f} s of its last life {first.resident / MIB:.0f} MiB,"
            f" {first.descriptors} descriptors; at {last.age_s:.0f} s"
            f" {last.resident / MIB:.0f} MiB, {last.descriptors};"
            f" at most, under pressure, {highest / MIB:.0f} MiB"
        )


def _length(samples: Sequence[Sample]) -> int:
    """Return how many samples the last life has."""
    count = 1
    while count < len(samples) and samples[-count - 1].age_s < samples[-count].age_s:
        count += 1
    return count


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
