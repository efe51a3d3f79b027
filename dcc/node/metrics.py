"""Statistics as metric families: which name, unit and labels each number has outside.

One table and one function; `dcc.node.http` hands the result to the Prometheus client. Base units,
counters end in `_total`, and no label carries a key or a client's address: what peers and clients
choose must not decide how many time series there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from dcc.node.counters import BOUNDS_NS
from dcc.units import SECOND

BUCKET_BOUNDS = tuple(str(float(f"{bound / SECOND:.6g}")) for bound in BOUNDS_NS)

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


# Name, kind, help, and the path to the number in the statistics.
PLAIN = (
    ("dcc_items", "gauge", "Values held.", "items"),
    ("dcc_item_bytes", "gauge", "Keys and values held, in bytes.", "item_bytes"),
    ("dcc_memory_used_bytes", "gauge", "All that counts against the limit.", "bytes_used"),
    ("dcc_memory_limit_bytes", "gauge", "Bound of the data held.", "memory_limit_bytes"),
    ("dcc_ghosts", "gauge", "Versions known whose value is gone.", "ghosts"),
    ("dcc_tombstones", "gauge", "Deletions remembered.", "tombstones"),
    ("dcc_items_evicted", "counter", "Values dropped because memory was full.", "evicted"),
    ("dcc_items_expired", "counter", "Values whose time was over.", "expired"),
    ("dcc_member_flaps", "counter", "Members that came back.", "detail.flaps"),
    ("dcc_ring_converged", "gauge", "1 if one ring is seen, its copies are complete, nobody lags.",
     "detail.convergence.converged"),
    ("dcc_under_replicated", "gauge", "Copies in the cluster missing or not known to be complete.",
     "detail.convergence.under_replicated"),
    ("dcc_ring_owned_ratio", "gauge", "Share of all slots owned here.", "detail.owned_ratio"),
    ("dcc_slots_ready", "gauge", "1 if in sync with every live holder.", "slots_ready"),
    ("dcc_replication_lag_seconds", "gauge", "Age of the oldest unacknowledged write.",
     "replication_lag_seconds"),
    ("dcc_replication_dropped", "counter", "Records left to the exchange, a queue being full.",
     "detail.replication_dropped"),
    ("dcc_read_repairs", "counter", "Values taken from another holder.", "detail.read_repairs"),
    ("dcc_conflicts", "counter", "Copies sent of writes that another node had outdone.",
     "detail.conflicts"),
    ("dcc_sampled_reads", "counter", "Served values that are watched for newer ones.",
     "sampled_reads"),
    ("dcc_stale_reads", "counter", "Served values with a newer version elsewhere, from a sample.",
     "detail.staleness.stale_reads_estimated"),
    ("dcc_stale_read_ratio", "gauge", "Share of served values that proved stale, from a sample.",
     "stale_read_ratio"),
    ("dcc_stale_read_age_mean_seconds", "gauge", "How long stale ones had been so when served.",
     "detail.staleness.age_mean_seconds"),
    ("dcc_stale_read_age_max_seconds", "gauge", "The longest of those times since the start.",
     "detail.staleness.age_max_seconds"),
    ("dcc_forwarded", "counter", "Requests passed on to their primary.", "detail.forwarded"),
    ("dcc_repeated_writes", "counter", "Writes asked for again, done once.",
     "detail.repeated_writes"),
    ("dcc_late_writes", "counter", "Writes read after their deadline, refused.",
     "detail.late_writes"),
    ("dcc_antientropy_rounds", "counter", "Exchanges finished.", "detail.exchange.rounds"),
    ("dcc_antientropy_entries_repaired", "counter", "Records that exchanges brought.",
     "detail.exchange.records"),
    ("dcc_antientropy_bytes", "counter", "Bytes that exchanges brought.",
     "detail.exchange.bytes"),
    ("dcc_antientropy_divergences", "counter", "Differences that lasted longer than writes take.",
     "detail.exchange.divergences"),
    ("dcc_antientropy_last_success_age_seconds", "gauge", "Time since the last exchange.",
     "detail.exchange.seconds_since_last"),
    ("dcc_clock_offset_seconds", "gauge", "Cluster time minus this machine's.",
     "detail.clock_offset_seconds"),
    ("dcc_pending_requests", "gauge", "Requests that wait for other nodes.", "detail.pending"),
    ("dcc_local_health_score", "gauge", "Lifeguard's score, 0 fine to 7 worst.", "health.score"),
    ("dcc_loop_lag_seconds", "gauge", "Longest wait for the loop in the last second.",
     "loop_lag_seconds"),
    ("dcc_up_seconds", "gauge", "Time since the start.", "up_seconds"),
    ("dcc_bugs", "counter", "Turns of the loop that a bug ended.", "shell.bugs"),
    ("dcc_replies_lost", "counter", "Replies to clients that are gone or do not read.",
     "shell.replies_lost"),
    ("dcc_sends_lost", "counter", "Messages to nodes that could not be queued.",
     "shell.sends_lost"),
)  # fmt: skip

LABELLED = (
    ("dcc_members", "gauge", "Members by standing.", "state", "detail.members_by_standing"),
    ("dcc_dropped_messages", "counter", "Messages dropped.", "reason", "detail.dropped"),
    ("dcc_refused_requests", "counter", "Requests refused.", "code", "detail.errors"),
    (
        "dcc_read_age_seconds",
        "gauge",
        "Age of served values since they were written, from a sample.",
        "quantile",
        "detail.staleness.read_age_seconds",
    ),
    (
        "dcc_clock_skew_seconds",
        "gauge",
        "Another machine's clock minus this one's.",
        "peer",
        "detail.clock_skew_seconds",
    ),
    ("dcc_memory_bytes", "gauge", "What grows, by what it is.", "what", "detail.memory_bytes"),
    ("dcc_memory_bound_bytes", "gauge", "Its bound.", "what", "detail.memory_bound_bytes"),
    ("dcc_replication_queue_length", "gauge", "Records queued.", "peer", "detail.queues"),
    (
        "dcc_hints_pending",
        "gauge",
        "Slots held here that it has to take over.",
        "peer",
        "detail.hints",
    ),
)


def families(stats: Mapping[str, Any]) -> list[Family]:
    """Return the metrics of a node with these statistics; what is missing there is left out."""
    found = [
        Family(name, kind, text, [({}, float(value))])
        for name, kind, text, path in PLAIN
        if (value := _at(stats, path)) is not None
    ]
    found += [
        Family(name, kind, text, [({label: key}, float(n)) for key, n in sorted(table.items())])
        for name, kind, text, label, path in LABELLED
        if (table := _at(stats, path)) is not None
    ]
    return [*found, _commands(stats)]


def histograms(stats: Mapping[str, Any]) -> list[Histogram]:
    """Return the latency histogram, with one series for each command that was used."""
    table = _at(stats, "detail.latency") or {}
    samples = [
        (command, _cumulative(one["buckets"]), one["sum_seconds"])
        for command, one in sorted(table.items())
    ]
    text = "Time from a request's arrival to its reply, ordinary path."
    return [Histogram("dcc_command_duration_seconds", text, "command", samples)]


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
    return Family("dcc_commands", "counter", "Requests of clients.", samples)


def _at(stats: Mapping[str, Any], path: str) -> Any:
    value: Any = stats
    for name in path.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return None
        value = value[name]
    return value
