"""The figures as text, as a table for the documents, as JSON and as a picture."""

from __future__ import annotations

import importlib
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.peers.rows import Row

DCC = ("dcc", "dcc.AsyncClient")


@dataclass
class Figures:
    """What one contestant took for one row, once a round."""

    us: list[float] = field(default_factory=list)
    client_cpu_us: list[float] = field(default_factory=list)
    server_cpu_us: list[float] = field(default_factory=list)


@dataclass
class Result:
    """One row and everybody's figures."""

    row: Row
    by_name: dict[str, Figures] = field(default_factory=dict)

    def median(self, name: str) -> float:
        """Return the median over the rounds, µs."""
        return statistics.median(self.by_name[name].us)

    @property
    def mine(self) -> str | None:
        """The name of dcc's client in this row."""
        return next((name for name in DCC if name in self.by_name), None)

    def ratio(self, other: str) -> float | None:
        """Return dcc's time divided by that of `other`, if both were measured."""
        if self.mine is None or other not in self.by_name:
            return None
        return self.median(self.mine) / self.median(other)

    def verdicts(self) -> list[str]:
        """Return what came of each target."""
        found = []
        for other, limit in self.row.targets:
            ratio = self.ratio(other)
            if ratio is not None:
                word = "ok" if ratio <= limit else "MISSED"
                found.append(f"{ratio:.2f} of {other}, at most {limit:.2f}: {word}")
        return found


def text(results: Sequence[Result]) -> str:
    """Return the report for a terminal."""
    lines = []
    for result in results:
        lines.append(f"{result.row.name}  ({result.row.mode})")
        for name, figures in result.by_name.items():
            median = result.median(name)
            ratio = result.ratio(name)
            lines.append(
                f"  {name:16}{median:10.2f} µs {1e6 / median * scale(result.row):11,.0f}/s"
                f"  CPU {statistics.median(figures.client_cpu_us):8.2f} client"
                f" {statistics.median(figures.server_cpu_us):8.2f} server"
                f"  {min(figures.us):.2f} to {max(figures.us):.2f}"
                + (f"  ratio {ratio:.2f}" if ratio is not None and name not in DCC else "")
            )
        lines += [f"    {verdict}" for verdict in result.verdicts()]
    return "\n".join(lines)


def scale(row: Row) -> int:
    """Return how many keys one call of a row has."""
    return row.work.width if row.work.kind in ("get_many", "put_many") else 1


def table(results: Sequence[Result], names: Sequence[str]) -> str:
    """Return a Markdown table: a row for each piece of work, medians in µs, ratios to dcc."""
    lines = [
        "| work | " + " | ".join(names) + " | targets |",
        "| --- |" + " ---: |" * len(names) + " --- |",
    ]
    for result in results:
        cells = []
        for name in names:
            if name not in result.by_name:
                cells.append("–")
                continue
            ratio = result.ratio(name)
            shown = f" ({ratio:.2f})" if ratio is not None and name not in DCC else ""
            cells.append(f"{result.median(name):.1f}{shown}")
        verdicts = "; ".join(result.verdicts())
        lines.append(f"| {result.row.name} | {' | '.join(cells)} | {verdicts} |")
    return "\n".join(lines)


def write_json(
    path: Path,
    results: Sequence[Result],
    grown: Mapping[str, Mapping[str, float]],
    skipped: Sequence[str],
) -> None:
    """Write everything that was measured."""
    found = {
        "rows": [
            {
                "name": one.row.name,
                "mode": one.row.mode,
                "work": one.row.work._asdict(),
                "figures": {name: asdict(figures) for name, figures in one.by_name.items()},
                "verdicts": one.verdicts(),
            }
            for one in results
        ],
        "growth": grown,
        "skipped": list(skipped),
    }
    path.write_text(json.dumps(found, indent=1) + "\n")


def draw(path: Path, results: Sequence[Result]) -> str:
    """Draw the ratios as a picture; return what became of it."""
    try:
        matplotlib = importlib.import_module("matplotlib")
        matplotlib.use("Agg")
        pyplot = importlib.import_module("matplotlib.pyplot")
    except ImportError:
        return "no chart: matplotlib is not installed"
    bars = [
        (f"{one.row.name}, {name}", ratio)
        for one in results
        if one.row.mode == "pinned"
        for name in one.by_name
        if name not in DCC and (ratio := one.ratio(name)) is not None
    ]
    figure, axes = pyplot.subplots(figsize=(9, 0.24 * len(bars) + 1))
    axes.barh(
        [name for name, _ in bars],
        [ratio for _, ratio in bars],
        color=["#2a7f62" if ratio <= 1 else "#b8672a" for _, ratio in bars],
    )
    axes.axvline(1, color="black", linewidth=0.8)
    axes.invert_yaxis()
    axes.set_xlabel("time of dcc divided by that of the other (below 1: dcc is faster)")
    axes.tick_params(labelsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    return f"chart: {path}"
