"""The end of the demonstration: what was promised, whether it held, and the figures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from dcc.demo.cluster import REBALANCE_DELAY_SECONDS
from dcc.demo.screen import ms
from dcc.demo.tally import Tally, quantile

UNREPLICATED_SECONDS = 1.0
"A page acknowledged by the killed node alone (w = 1) so shortly before may go with it."


@dataclass(slots=True)
class Phase:
    """One stretch of the story."""

    name: str
    tally: Tally = field(default_factory=Tally)
    seconds: float = 0.0


@dataclass(slots=True)
class Result:
    """Everything the report is made of. Seconds are durations unless they end in `_at`."""

    phases: list[Phase] = field(default_factory=list)
    total: Tally = field(default_factory=Tally)
    "Of all phases."
    killed_at: float = 0.0
    "Monotonic seconds of the SIGKILL."
    restored_seconds: float | None = None
    "From the SIGKILL until every cached page was whole again; None: not in the time allowed."
    ready_seconds: float | None = None
    "From starting the newcomer until it was ready."
    filled_seconds: float | None = None
    "From starting the newcomer until it, too, had its copies; None: not in the time allowed."
    newcomer_items: int = 0

    def early(self) -> tuple[int, int]:
        """Return early misses that broke a promise, and those that w = 1 allows at a crash."""
        allowed = [
            self.killed_at - UNREPLICATED_SECONDS <= answered_at <= self.killed_at <= missed_at
            for _, answered_at, missed_at in self.total.early
        ]
        return len(allowed) - sum(allowed), sum(allowed)


def broken_promises(result: Result) -> Iterator[str]:
    """Yield each promise that did not hold."""
    total = result.total
    if total.failed:
        yield f"{total.failed} requests failed"
    if total.wrong:
        yield f"{total.wrong} values were not the bytes that were stored"
    if result.early()[0]:
        yield f"{result.early()[0]} pages were missed although they should have been there"
    if result.restored_seconds is None:
        yield "the copies were not restored in the time allowed"
    if result.filled_seconds is None:
        yield "the newcomer did not get its copies in the time allowed"
    elif not result.newcomer_items:
        yield "the newcomer holds no page"
    if not total.served:
        yield "no page was served"


def report(result: Result) -> str:
    """Return the whole report."""
    broken = list(broken_promises(result))
    verdict = [f"BROKEN: {one}" for one in broken] or ["Every promise held."]
    lines = [*_counts(result), "", *_table(result), "", *_durations(result), "", *verdict]
    return "\n" + "\n".join(lines) + "\n"


def _counts(result: Result) -> Iterator[str]:
    total = result.total
    broken, allowed = result.early()
    yield f"pages served                      {total.served:8}   {len(total.names)} different ones"
    yield f"failed requests                   {total.failed:8}"
    yield f"wrong bytes                       {total.wrong:8}"
    yield f"missed before their time was over {broken:8}"
    if allowed:
        yield f"lost with the killed node         {allowed:8}   put in its last second with w = 1"
    yield f"puts that may or may not be stored{total.maybe:8}   their pages were served"
    for note in total.notes:
        yield f"  {note}"
    for name, answered_at, missed_at in total.early[:5]:
        yield (
            f"  {name}: put {answered_at - result.killed_at:+.2f} s, "
            f"missed {missed_at - result.killed_at:+.2f} s from the kill"
        )


def _table(result: Result) -> Iterator[str]:
    yield (
        f"{'':24}{'seconds':>8}{'pages/s':>9}{'hit ratio':>11}"
        f"{'hit p50':>12}{'hit p99':>12}{'slowest':>12}"
    )
    for phase in result.phases:
        tally = phase.tally
        yield (
            f"{phase.name:24}{phase.seconds:8.1f}{tally.served / max(0.1, phase.seconds):9.0f}"
            f"{tally.hit_ratio:11.1%}  {ms(quantile(tally.hit_us, 0.5))}"
            f"  {ms(quantile(tally.hit_us, 0.99))}  {ms(tally.slowest_us)}"
        )


def _durations(result: Result) -> Iterator[str]:
    total = result.total
    if result.restored_seconds is not None:
        yield (
            f"All copies were restored {result.restored_seconds:.1f} s after the kill "
            f"(of which {REBALANCE_DELAY_SECONDS} s rebalance delay):"
        )
        yield "  asked one by one, all owners of every cached page held its newest version."
    if result.filled_seconds is not None and result.ready_seconds is not None:
        yield (
            f"The newcomer was ready {result.ready_seconds:.1f} s after its start and had all "
            f"its copies after {result.filled_seconds:.1f} s: {result.newcomer_items} pages."
        )
    yield (
        f"Rendering a page takes{ms(quantile(total.render_us, 0.5))} (p50), "
        f"{ms(quantile(total.render_us, 0.99)).strip()} (p99)."
    )
    yield (
        f"Rendering the very pages that came from the cache had taken {total.speedup:.0f} times "
        "as long as fetching them."
    )
