"""What the checkers say of a run of real processes.

Only what clients saw is judged: what nodes could have known of each other at one instant, as the
simulator's observer does, nobody knows here. So a sure miss of what was promised, and a hit older
than that, are faults while the world is *calm*: no fault under way that lets a node be mistaken
about who is alive, and all have seen all since the last one. Loss of memory is no excuse beyond
what a write was promised.

A promise ends with as many losses of memory as owners had acknowledged, and it begins anew whenever
the cluster says that it has converged: then every copy is in its place again. So the history is
judged in stretches from one such moment to the next, and a write that was promised at the end of
one enters the next as one that all owners have.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from random import Random

from dcc.types import NO_VERSION
from dcc.units import SECOND
from simulations import faults as f
from simulations.chaos import plan
from simulations.chaos.history import versions_of
from simulations.checkers import age, deadlines, listing, outlived, provenance, survival
from simulations.checkers.survival import COPY_NS, W_ALL
from simulations.history import READING, End, Entry, History, Violation

SLACK_NS = 1_500_000_000
"As the simulator's: clocks are so far apart at most, a hit is so long on its way."
LATE_NS = 1 * SECOND
"For an interpreter that waits for a processor, as all do here."
TRIED = 300
"Hits that are tried as misses, to see how sharply is judged."
MOVED_NS = 20 * SECOND
"So long behind a change of members a node may have asked another one as it answered."
UNDER_WAY_NS = 3 * SECOND
"A cluster that says it has converged may wait so long for copies of a write."

EXPECTED = (
    "MaybeStored", "NodeUnavailable", "OperationTimeout", "Overloaded", "QuorumNotReached",
    "InPart", "ClientDied",
)  # fmt: skip
"Errors that faults may bring; the last two are this package's own words."


@dataclass
class Seen:
    """What happened in a run, beside the calls."""

    events: Sequence[plan.Event]
    losses: Sequence[int]
    agreed: Sequence[int]
    "When all that ran had exactly each other for alive."
    converged: Sequence[int]
    epoch_ns: int
    "What the wall clock showed at time 0."
    end_ns: int


class Judge:
    """Judges one run."""

    def __init__(self, history: History, seen: Seen) -> None:
        self._history, self._seen = history, seen
        self._faults = tuple([one for one in seen.events if isinstance(one, f.Fault)])
        self._moves = [
            (one.at_ns, one.at_ns + one.lasts_ns + MOVED_NS) for one in seen.events
            if not isinstance(one, f.ClientDeath | f.ClockStep)
        ]  # fmt: skip
        self._aside = {one.version for one in history if one.w == 1 and one.version != NO_VERSION}
        "A client may have gone round the primary with these, which is not seen from outside."

    def violations(self) -> list[Violation]:
        """Return every promise that was broken."""
        found = deadlines.check(self._history, self._seen.end_ns, LATE_NS)
        found += outlived.check(self._history) + _untyped(self._history)
        for entry in self._history:
            if entry.answer is not None:
                entry.answer = entry.answer._replace(asked=self._moved(entry))
        by_window = sorted(self._history, key=_window)
        for _, group in groupby(by_window, key=_window):
            found += self._judge_window(list(group))
        return found

    def sharpness(self, seed: int) -> float:
        """Return which share of hits, one at a time, would be a violation as a sure miss.

        Drawn from those of keys that nobody deletes.
        """
        hits = [one for one in self._history if one.answer is not None and one.key[:1] == b"k"]
        drawn = Random(seed).sample(hits, min(TRIED, len(hits)))
        windows = {_window(one) for one in drawn}
        by_window: dict[str, History] = {window: [] for window in windows}
        for entry in self._history:
            if _window(entry) in windows:
                by_window[_window(entry)].append(entry)
        noticed = 0
        for hit in drawn:
            miss = replace(hit, status="miss", found=None, version=NO_VERSION, answer=None)
            others = [e for e in by_window[_window(hit)] if e.key == hit.key and e is not hit]
            noticed += bool(self._missed([*others, miss]))
        return noticed / max(1, len(drawn))

    def calm(self, from_ns: int, to_ns: int) -> bool:
        """Whether nobody could be mistaken about who lives."""
        return f.calm(self._faults, from_ns, to_ns, self._over_ns)

    def _judge_window(self, history: History) -> list[Violation]:
        versions, seen = versions_of(history), self._seen
        found = provenance.check(history, SLACK_NS)
        found += provenance.check_once(history, versions)
        found += provenance.check_told(history, versions)
        found += provenance.check_late(history, versions, seen.epoch_ns, SLACK_NS)
        found += self._missed(history)
        for stretch, losses in self._stretches(history):
            found += listing.check(stretch, losses, plan.REPLICAS, self.calm, SLACK_NS, self._aside)
            found += age.check(stretch, losses, plan.REPLICAS, self.calm, self._aside)
        return found

    def _missed(self, history: History) -> list[Violation]:
        return [
            one for stretch, losses in self._stretches(history)
            for one in survival.check_reads(
                stretch, losses, plan.REPLICAS, self.calm, SLACK_NS, self._aside
            )
        ]  # fmt: skip

    # -------------------------------------------------------------- stretches

    def _stretches(self, history: History) -> list[tuple[History, list[int]]]:
        """Return what is judged together: calls, and the losses that count for them."""
        seen, found = self._seen, []
        promised: set[int] = set()
        for from_ns, to_ns in pairwise([0, *self._whole_again(), seen.end_ns + 1]):
            losses = [at for at in seen.losses if from_ns < at <= to_ns]
            stretch: History = []
            for index, entry in enumerate(history):
                if entry.verb in READING:
                    if from_ns <= entry.invoked_ns < to_ns:
                        stretch.append(entry)
                elif entry.ended_ns >= from_ns - UNDER_WAY_NS or entry.ttl_ms or not from_ns:
                    stretch.append(entry)
                else:
                    stretch.append(_from(entry, from_ns, whole=index in promised))
            found.append((stretch, losses))
            promised = self._promised(history, promised, losses, from_ns, to_ns)
        return found

    def _promised(
        self, history: History, before: set[int], losses: Sequence[int], from_ns: int, to_ns: int
    ) -> set[int]:
        """Return the calls that somebody must have at the end of a stretch."""
        kept = before if len(losses) <= plan.REPLICAS else set()
        return kept | {
            index for index, one in enumerate(history)
            if from_ns - UNDER_WAY_NS <= one.ended_ns < to_ns - UNDER_WAY_NS
            and survival.promised(one, to_ns, self._seen.losses, plan.REPLICAS)
        }  # fmt: skip

    def _whole_again(self) -> list[int]:
        """Return the first moment behind each loss of memory at which all copies were there."""
        found: list[int] = []
        for loss in self._seen.losses:
            later = bisect_left(self._seen.converged, loss + UNDER_WAY_NS)
            if later < len(self._seen.converged) and self._seen.converged[later] not in found:
                found.append(self._seen.converged[later])
        return found

    # -------------------------------------------------------------- when

    def _over_ns(self, fault: f.Fault) -> int:
        """Return when all saw all again behind a fault."""
        later = bisect_left(self._seen.agreed, f.until_ns(fault))
        agreed = self._seen.agreed
        return (agreed[later] if later < len(agreed) else self._seen.end_ns) + COPY_NS

    def _moved(self, entry: Entry) -> bool:
        """Whether members came, went or were cut off, so that a node asks before it answers."""
        return any(at <= entry.ended_ns and entry.invoked_ns <= to for at, to in self._moves)


def _from(entry: Entry, from_ns: int, *, whole: bool) -> Entry:
    """Return a call of an earlier stretch as one that all owners have, or that nobody may have."""
    if whole:
        return replace(entry, invoked_ns=from_ns, ended_ns=from_ns, w=W_ALL)
    unknown = End.UNKNOWN if entry.end is End.OK and entry.status != "not done" else entry.end
    return replace(entry, end=unknown)


def _untyped(history: History) -> list[Violation]:
    """Return calls that ended with an error that no caller is told to expect."""
    return [
        Violation("every error is typed", str(entry), entry.ended_ns)
        for entry in history
        if entry.error and entry.error not in EXPECTED
    ]


def _window(entry: Entry) -> str:
    """Return which keys are judged together: those of one letter and minute."""
    return entry.key.decode().partition("-")[0]
