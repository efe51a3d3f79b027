"""What the clients of the demonstration saw: counts and latencies, added up phase by phase.

A worker fills one `Tally` after the other and sends each as a line of JSON; the story adds them
to the tally of the phase it is in. Latencies are kept one by one, so that a quantile is a quantile.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

NOTES_MAX = 5
"Errors quoted in the report; the rest is counted."


@dataclass(slots=True)
class Tally:
    """Counts of one stretch of time. All latencies are microseconds."""

    hits: int = 0
    misses: int = 0
    "Rendered and served all the same."
    failed: int = 0
    "Calls that ended with an exception, except for the puts counted in `maybe`."
    wrong: int = 0
    maybe: int = 0
    "Puts that ended as `MaybeStored`; their page was served."
    hit_us: list[int] = field(default_factory=list)
    "From asking the cache to having the value."
    miss_us: list[int] = field(default_factory=list)
    "From asking the cache to knowing that it has none."
    render_us: list[int] = field(default_factory=list)
    saved_us: int = 0
    "What rendering the pages that were hits had cost."
    names: list[str] = field(default_factory=list)
    "Pages served, each once per report."
    left_out: dict[str, str] = field(default_factory=dict)
    "Module -> why it has no page."
    early: list[tuple[str, float, float]] = field(default_factory=list)
    "Misses of pages that should have been there: name, put answered at, missed at (monotonic)."
    notes: list[str] = field(default_factory=list)

    def hit(self, name: str, took_us: int, cost_us: int) -> None:
        """Count a page that came from the cache and would have cost `cost_us` to render."""
        self.hits += 1
        self.hit_us.append(took_us)
        self.saved_us += cost_us
        self.names.append(name)

    def miss(self, name: str, took_us: int, cost_us: int) -> None:
        """Count a page that was rendered for `cost_us` after the cache had none."""
        self.misses += 1
        self.miss_us.append(took_us)
        self.render_us.append(cost_us)
        self.names.append(name)

    def note(self, text: str) -> None:
        """Keep one of the first few errors to show."""
        if len(self.notes) < NOTES_MAX:
            self.notes.append(text)

    def add(self, other: Tally) -> None:
        """Add what `other` counted."""
        for name in ("hits", "misses", "failed", "wrong", "maybe", "saved_us"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("hit_us", "miss_us", "render_us", "early"):
            getattr(self, name).extend(getattr(other, name))
        self.names = sorted({*self.names, *other.names})
        self.left_out |= other.left_out
        self.notes = (self.notes + other.notes)[:NOTES_MAX]

    def as_json(self) -> dict[str, Any]:
        """Return a report's fields."""
        return asdict(self) | {"names": sorted(set(self.names))}

    @classmethod
    def from_line(cls, line: str) -> Tally:
        """Return the tally that a worker wrote as a line."""
        fields = json.loads(line)
        fields["early"] = [(name, answered, missed) for name, answered, missed in fields["early"]]
        return cls(**fields)

    @property
    def served(self) -> int:
        """Pages served, from the cache or rendered."""
        return self.hits + self.misses

    @property
    def hit_ratio(self) -> float:
        """Share of the pages served that came from the cache; 0 when there were none."""
        return self.hits / self.served if self.served else 0.0

    @property
    def slowest_us(self) -> int:
        """The longest that the cache took to answer a get that did not fail."""
        return max(max(self.hit_us, default=0), max(self.miss_us, default=0))

    @property
    def speedup(self) -> float:
        """How many times longer rendering the hits had taken than fetching them."""
        return self.saved_us / max(1, sum(self.hit_us))


def quantile(sample: list[int], share: float) -> int:
    """Return the value below or at which `share` of the sample lies; 0 of an empty one.

    >>> quantile([1, 2, 3, 4], 0.5), quantile([7], 0.99)
    (2, 7)
    """
    if not sample:
        return 0
    ordered = sorted(sample)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]
