"""Stale reads as a number: a sample of served hits, held against what arrives afterwards.

A hit was stale if a version existed when it was served that is newer than the one served. Nobody
can know that then; but the newer version arrives sooner or later by replication, an exchange or a
fetch, and its stamp says when it was written. So one hit in `EVERY` is remembered, the last
`SAMPLES_MAX` keys of them, and looked up when a record of the key arrives.

What it cannot see: a newer version that arrives after its sample has made room for others, one
that never arrives, and differences below those of the members' clocks. The figure is a lower
bound, near the truth while replication lags less than it takes to serve EVERY * SAMPLES_MAX hits.
"""

from __future__ import annotations

from collections.abc import Iterable

from dcc.types import Record, Version

EVERY = 61
"""One hit in this many is sampled. A prime, so that a program that reads its keys in turn does not
meet the sample at the same key each time."""

SAMPLES_MAX = 4_096

STAMP_MS_BITS = 16
"Of a stamp, below its milliseconds."


class Staleness:
    """The sample of one node, and what became of it."""

    def __init__(self) -> None:
        self._samples: dict[bytes, tuple[Version, int]] = {}  # oldest first
        self.sampled: int = 0
        self.stale: int = 0
        self.age_sum_ms: int = 0
        self.age_max_ms: int = 0
        "Of the stale reads: how long the newer version had existed when they were served."

    def __len__(self) -> int:
        return len(self._samples)

    def served(self, key: bytes, version: Version, now_ms: int) -> None:
        """Remember that `version` was the answer to a read just now; O(1)."""
        samples = self._samples
        samples.pop(key, None)
        if len(samples) >= SAMPLES_MAX:
            del samples[next(iter(samples))]
        samples[key] = (version, now_ms)
        self.sampled += 1

    def arrived(self, records: Iterable[Record]) -> None:
        """Look whether records from other nodes prove a sampled read stale; O(records)."""
        samples = self._samples
        if not samples:
            return
        for record in records:
            sample = samples.get(record.key)
            if sample is None or record.version <= sample[0]:
                continue
            age_ms = sample[1] - (record.version.stamp >> STAMP_MS_BITS)
            if age_ms > 0:
                del samples[record.key]
                self.stale += 1
                self.age_sum_ms += age_ms
                self.age_max_ms = max(self.age_max_ms, age_ms)

    @property
    def ratio(self) -> float:
        """The share of sampled reads that were stale, 0..1."""
        return self.stale / self.sampled if self.sampled else 0.0

    def read_ages_ms(self) -> list[int]:
        """Return how long before each sampled read its value was written, ascending."""
        return sorted(
            max(0, at_ms - (version.stamp >> STAMP_MS_BITS))
            for version, at_ms in self._samples.values()
        )

    def check(self) -> None:
        """Assert the limit."""
        assert len(self._samples) <= SAMPLES_MAX
        assert self.stale <= self.sampled
