"""Statistics as metric families, by the names, kinds and labels of `dcc.figures`.

`dcc.node.http` hands the result to the Prometheus client. Base units,
counters end in `_total`, and no label carries a key or a client's address: what peers and clients
choose must not decide how many time series there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from dcc.figures import BY_PATH, FIGURES, at
from dcc.node.counters import BOUNDS_NS
from dcc.units import SECOND

BUCKET_BOUNDS = tuple(str(float(f"{bound / SECOND:.6g}")) for bound in BOUNDS_NS)

COMMANDS = "dcc_commands"
"Made of several figures: reads by how they ended, other requests by command."

Samples = list[tuple[dict[str, str], float]]


class Family(NamedTuple):
    """One metric with its samples."""

    name: str
    kind: str
    "counter (the name without `_total`) or gauge."
    help: str
    samples: Samples


class Histogram(NamedTuple):
    """One histogram: for each label value cumulative buckets and the sum in seconds."""

    name: str
    help: str
    label: str
    samples: list[tuple[str, list[tuple[str, float]], float]]


PLAIN = tuple(f for f in FIGURES if f.metric and not f.label and f.metric != COMMANDS)
LABELLED = tuple(
    f for f in FIGURES if f.label and f.kind != "histogram" and f.metric not in ("", COMMANDS)
)


def families(stats: Mapping[str, Any]) -> list[Family]:
    """Return the metrics of a node with these statistics; what is missing there is left out."""
    found = [
        Family(one.metric, one.kind, one.help, [({}, float(value))])
        for one in PLAIN
        if (value := at(stats, one.path)) is not None
    ]
    for one in LABELLED:
        if (table := at(stats, one.path)) is not None:
            samples = [({one.label: key}, float(n)) for key, n in sorted(table.items())]
            found.append(Family(one.metric, one.kind, one.help, samples))
    return [*found, _commands(stats)]


def histograms(stats: Mapping[str, Any]) -> list[Histogram]:
    """Return the latency histogram, with one series for each command that was used."""
    figure = BY_PATH["detail.latency"]
    table = at(stats, figure.path) or {}
    samples = [
        (command, _cumulative(one["buckets"]), one["sum_seconds"])
        for command, one in sorted(table.items())
    ]
    return [Histogram(figure.metric, figure.help, figure.label, samples)]


def _cumulative(buckets: Sequence[int]) -> list[tuple[str, float]]:
    bounds = [*BUCKET_BOUNDS, "+Inf"]
    return [(bound, float(n)) for bound, n in zip(bounds, accumulate(buckets), strict=True)]


def _commands(stats: Mapping[str, Any]) -> Family:
    """Reads by how they ended, everything else by its name alone."""
    samples: Samples = [
        ({"command": "get", "status": status}, float(stats[plural]))
        for status, plural in (("hit", "hits"), ("miss", "misses"), ("unsure", "unsure"))
        if plural in stats
    ]
    samples += [
        ({"command": command, "status": "answered"}, float(n))
        for command, n in sorted(stats.get("requests", {}).items())
        if command != "get"
    ]
    return Family(COMMANDS, "counter", "Requests of clients.", samples)
