"""The schema of a node's statistics: every figure once, with its unit, meaning and names.

A node tells its figures as one JSON object (`dcc.node.stats`). What they are is said here and
nowhere else: the metrics' names and help, how a cluster's total is made of its nodes' figures, how
the `dcc` command prints them, and `docs/statistics.md`. Tests compare this table with what a node
really tells, with `NodeStats`, and with the document; so a figure that is added to a node and not
to this table fails a test, instead of being dropped on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

NUMBER_MAX = 10**18
"What a node of another version tells beyond is no figure of ours; sums stay exact and finite."

COMBINERS: Mapping[str, Callable[[Iterable[Any]], Any]] = {
    "sum": sum, "max": max, "min": min, "all": all, "any": any,
}  # fmt: skip
"How numbers make a total, table by table. Besides: same, union, a share, or none (empty)."

DEPTH_MAX = 2
"Tables in tables that a figure may have: command, then quantile."


class Figure(NamedTuple):
    """One figure."""

    path: str
    "Where it stands in the JSON object, with dots."
    unit: str
    "count, bytes, seconds, ratio (0..1), per second, flag, text, hash."
    kind: str
    "counter (since the node's start), gauge (now), histogram, or text."
    total: str
    "How a total combines it: a key of COMBINERS, same, union, `a / b + c` for a share, or empty."
    help: str
    metric: str = ""
    "The metric's name, without `_total`; empty if it is none."
    label: str = ""
    "Where the figure is a table: by what. It is the metric's label, too."

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition(".")[2]


FIGURES = (
    Figure("name", "text", "text", "", "The node's name."),
    Figure("cluster", "text", "text", "same", "Its cluster's name."),
    Figure("zone", "text", "text", "", "Its zone."),
    Figure("hits", "count", "counter", "sum", "Reads that found a value.", "dcc_commands"),
    Figure("misses", "count", "counter", "sum", "Reads of a key that is certainly nowhere.",
           "dcc_commands"),
    Figure("unsure", "count", "counter", "sum",
           "Misses for which not every holder could be asked.", "dcc_commands"),
    Figure("hit_ratio", "ratio", "gauge", "hits / hits + misses + unsure",
           "Hits among all reads since the start."),
    Figure("requests", "count", "counter", "sum", "Requests of clients.",
           "dcc_commands", "command"),
    Figure("requests_per_second", "per second", "gauge", "sum",
           "The same over about the last ten seconds.", "", "command"),
    Figure("latency_seconds", "seconds", "gauge", "max",
           "p50, p95 and p99 of the time from arrival to reply; a total shows the worst node.", "",
           "command"),
    Figure("items", "count", "gauge", "sum", "Values held.", "dcc_items"),
    Figure("item_bytes", "bytes", "gauge", "sum", "Keys and values held.", "dcc_item_bytes"),
    Figure("bytes_used", "bytes", "gauge", "sum",
           "All that counts towards the memory limit, bookkeeping included.",
           "dcc_memory_used_bytes"),
    Figure("memory_limit_bytes", "bytes", "gauge", "sum", "The memory limit.",
           "dcc_memory_limit_bytes"),
    Figure("evicted", "count", "counter", "sum", "Values dropped because memory was full.",
           "dcc_items_evicted"),
    Figure("expired", "count", "counter", "sum", "Values whose time was over.",
           "dcc_items_expired"),
    Figure("ghosts", "count", "gauge", "sum", "Versions remembered without their value.",
           "dcc_ghosts"),
    Figure("tombstones", "count", "gauge", "sum", "Deletions remembered.", "dcc_tombstones"),
    Figure("replication_lag_seconds", "seconds", "gauge", "max",
           "Age of the oldest write that a live peer has not acknowledged.",
           "dcc_replication_lag_seconds"),
    Figure("sampled_reads", "count", "counter", "sum",
           "Served values that are watched for newer versions: one hit in 61.",
           "dcc_sampled_reads"),
    Figure("stale_reads", "count", "counter", "sum",
           "Those of them of which a newer version existed when they were served."),
    Figure("stale_read_ratio", "ratio", "gauge", "stale_reads / sampled_reads",
           "Share of served values that proved stale, from the sample.", "dcc_stale_read_ratio"),
    Figure("health.standing", "text", "text", "", "What the node believes itself to be."),
    Figure("health.score", "count", "gauge", "max", "Lifeguard's score, 0 fine to 7 worst.",
           "dcc_local_health_score"),
    Figure("health.loop_lag_seconds", "seconds", "gauge", "max", "As `loop_lag_seconds`."),
    Figure("loop_lag_seconds", "seconds", "gauge", "max",
           "Longest wait for the loop in the last second.", "dcc_loop_lag_seconds"),
    Figure("members", "text", "text", "union", "Name and standing of each member, as seen here."),
    Figure("epoch", "hash", "gauge", "same", "The ring that the node sees; a total is 0 if nodes"
           " differ."),
    Figure("replicas", "count", "gauge", "same", "Copies beyond the primary."),
    Figure("ready", "flag", "gauge", "all", "Joined and serving."),
    Figure("slots_ready", "flag", "gauge", "all", "In sync with every live holder of its slots.",
           "dcc_slots_ready"),
    Figure("draining", "flag", "gauge", "any", "Leaving: owns nothing any more."),
    Figure("filling", "flag", "gauge", "any",
           "New: has not pulled all its slots yet, so others lead them."),
    Figure("slow", "flag", "gauge", "any",
           "Found many times slower than the others, so these lead its slots."),
    Figure("up_seconds", "seconds", "gauge", "min", "Time since the start.", "dcc_up_seconds"),
    Figure("detail.lacks", "text", "text", "", "Why the node is not ready, for people."),
    Figure("detail.unreached", "text", "text", "union",
           "Members that never answered a probe, with the address they advertise."),
    Figure("detail.members_by_standing", "count", "gauge", "", "Members known.",
           "dcc_members", "state"),
    Figure("detail.flaps", "count", "counter", "sum", "Members that came back.",
           "dcc_member_flaps"),
    Figure("detail.conflicts", "count", "counter", "sum",
           "Replicated writes that arrived after a newer write by another node.",
           "dcc_conflicts"),
    Figure("detail.latency", "seconds", "histogram", "",
           "Time from a request's arrival to its reply, ordinary path.",
           "dcc_command_duration_seconds", "command"),
    Figure("detail.owned_ratio", "ratio", "gauge", "sum",
           "Share of all slots owned here; sums to the number of copies.",
           "dcc_ring_owned_ratio"),
    Figure("detail.errors", "count", "counter", "sum", "Requests refused.",
           "dcc_refused_requests", "code"),
    Figure("detail.dropped", "count", "counter", "sum", "Messages dropped.",
           "dcc_dropped_messages", "reason"),
    Figure("detail.security", "text", "text", "union",
           "Who is let in: keys (who has one), open (who is on the machine), insecure (anybody)."),
    Figure("detail.refused", "count", "counter", "sum",
           "Connections, and messages on connections, that keys kept out.",
           "dcc_refused_connections", "reason"),
    Figure("detail.queues", "count", "gauge", "sum", "Records queued.",
           "dcc_replication_queue_length", "peer"),
    Figure("detail.hints", "count", "gauge", "sum",
           "Slots held here that the peer has to take over.", "dcc_hints_pending", "peer"),
    Figure("detail.replication_dropped", "count", "counter", "sum",
           "Records dropped because a queue was full; the exchange brings them later.",
           "dcc_replication_dropped"),
    Figure("detail.read_repairs", "count", "counter", "sum",
           "Values that reads took from, or sent to, another holder.", "dcc_read_repairs"),
    Figure("detail.forwarded", "count", "counter", "sum", "Requests forwarded to their primary.",
           "dcc_forwarded"),
    Figure("detail.hot_keys", "count", "gauge", "max",
           "Keys so much of the reads that their owners share them; a total shows the most.",
           "dcc_hot_keys"),
    Figure("detail.served_keys_heard", "count", "counter", "sum",
           "Keys that primaries named as read and that are held here."),
    Figure("detail.repeated_writes", "count", "counter", "sum",
           "Writes that were repeated and executed once.", "dcc_repeated_writes"),
    Figure("detail.late_writes", "count", "counter", "sum",
           "Writes refused because they were read after their deadline.", "dcc_late_writes"),
    Figure("detail.exchange.rounds", "count", "counter", "sum", "Exchanges finished.",
           "dcc_antientropy_rounds"),
    Figure("detail.exchange.records", "count", "counter", "sum", "Records that exchanges brought.",
           "dcc_antientropy_entries_repaired"),
    Figure("detail.exchange.bytes", "bytes", "counter", "sum", "Bytes that exchanges brought.",
           "dcc_antientropy_bytes"),
    Figure("detail.exchange.seconds_since_last", "seconds", "gauge", "max",
           "Time since the last exchange.", "dcc_antientropy_last_success_age_seconds"),
    Figure("detail.exchange.divergences", "count", "counter", "sum",
           "Differences that lasted longer than writes take.", "dcc_antientropy_divergences"),
    Figure("detail.exchange.leftover_slots", "count", "gauge", "sum",
           "Slots held here that others own."),
    Figure("detail.clock_offset_seconds", "seconds", "gauge", "",
           "Cluster time minus this machine's clock.", "dcc_clock_offset_seconds"),
    Figure("detail.clock_skew_seconds", "seconds", "gauge", "",
           "Another machine's clock minus this one's.", "dcc_clock_skew_seconds", "peer"),
    Figure("detail.convergence.converged", "flag", "gauge", "all",
           "1 if one ring is seen, its copies are complete, and nobody lags.",
           "dcc_ring_converged"),
    Figure("detail.convergence.under_replicated", "count", "gauge", "max",
           "Copies in the cluster that are missing or not known to be complete.",
           "dcc_under_replicated"),
    Figure("detail.convergence.reasons", "text", "text", "", "Why not, for people."),
    Figure("detail.convergence.age_seconds", "seconds", "gauge", "max",
           "Time since that judgement was asked for."),
    Figure("detail.staleness.stale_reads_estimated", "count", "counter", "sum",
           "Served values with a newer version elsewhere, estimated from the sample.",
           "dcc_stale_reads"),
    Figure("detail.staleness.age_mean_seconds", "seconds", "gauge", "max",
           "Mean time a newer version had existed when a stale value was served.",
           "dcc_stale_read_age_mean_seconds"),
    Figure("detail.staleness.age_max_seconds", "seconds", "gauge", "max",
           "The longest of those times since the start.", "dcc_stale_read_age_max_seconds"),
    Figure("detail.staleness.read_age_seconds", "seconds", "gauge", "max",
           "Age of served values since they were written, from the sample.",
           "dcc_read_age_seconds", "quantile"),
    Figure("detail.memory_bytes", "bytes", "gauge", "sum", "What grows in a node.",
           "dcc_memory_bytes", "what"),
    Figure("detail.memory_bound_bytes", "bytes", "gauge", "sum", "The bound of each.",
           "dcc_memory_bound_bytes", "what"),
    Figure("detail.pending", "count", "gauge", "sum", "Requests that wait for other nodes.",
           "dcc_pending_requests"),
    Figure("shell.bugs", "count", "counter", "sum", "Turns of the loop that a bug ended.",
           "dcc_bugs"),
    Figure("shell.replies_lost", "count", "counter", "sum",
           "Replies to clients that are gone or do not read.", "dcc_replies_lost"),
    Figure("shell.sends_lost", "count", "counter", "sum",
           "Messages to nodes that could not be queued.", "dcc_sends_lost"),
    Figure("shell.strays", "count", "counter", "sum",
           "Frames that were out of step with their message."),
    Figure("shell.connections", "count", "gauge", "sum", "Connections to other nodes."),
)  # fmt: skip
"In the order of the document. What begins with `shell.` is told over HTTP only."

BY_PATH = {figure.path: figure for figure in FIGURES}


def at(stats: Mapping[str, Any], path: str) -> Any:
    """Return what stands in `stats` at a path with dots; None if there is nothing.

    >>> at({"detail": {"flaps": 2}}, "detail.flaps")
    2
    """
    value: Any = stats
    for name in path.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return None
        value = value[name]
    return value


def total(nodes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the figures of a whole cluster; what cannot be combined is left out.

    What is of another kind than the schema says, as from a node of another version, does not count.

    >>> total([{"hits": 1, "ready": True}, {"hits": 2, "misses": 3, "ready": False}])["hit_ratio"]
    0.5
    """
    found: dict[str, Any] = {}
    for figure in FIGURES:
        told = [at(node, figure.path) for node in nodes]
        values = [value for value in told if value is not None]
        combined = _share(figure, found) if "/" in figure.total else _combined(figure, values)
        if combined is not None:
            _put(found, figure.path, combined)
    return found


def _share(figure: Figure, found: Mapping[str, Any]) -> float:
    part, _, whole = figure.total.partition(" / ")
    below = sum(at(found, name) or 0 for name in whole.split(" + "))
    return (at(found, part) or 0) / below if below else 0.0


def _combined(figure: Figure, values: Sequence[Any]) -> Any:
    if figure.total == "union":
        tables = [value for value in values if isinstance(value, Mapping)]
        union = {name: one for table in tables for name, one in sorted(table.items())}
        return union if tables else None
    if figure.total == "same":
        known = values and all(value == values[0] for value in values)
        return values[0] if known else None
    if figure.total in COMBINERS:
        return _by_name(values, COMBINERS[figure.total], DEPTH_MAX if figure.label else 0)
    return None


def _by_name(values: Sequence[Any], combine: Callable[[Iterable[Any]], Any], depth: int) -> Any:
    tables = [value for value in values if isinstance(value, Mapping) and depth]
    if tables:
        names = sorted({name for table in tables for name in table})
        columns = {name: [table[name] for table in tables if name in table] for name in names}
        rows = {name: _by_name(one, combine, depth - 1) for name, one in columns.items()}
        return {name: one for name, one in rows.items() if one is not None}
    numbers = [one for one in values if isinstance(one, int | float) and abs(one) <= NUMBER_MAX]
    return combine(numbers) if numbers else None


def _put(found: dict[str, Any], path: str, value: Any) -> None:
    *above, name = path.split(".")
    for one in above:
        found = found.setdefault(one, {})
    found[name] = value


def document() -> str:
    """Return the tables of `docs/statistics.md`."""
    lines = [
        "| figure | unit | kind | total | metric | meaning |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for figure in FIGURES:
        suffix = "_total" if figure.kind == "counter" else ""
        label = f"{{{figure.label}}}" if figure.label else ""
        metric = f"`{figure.metric}{suffix}{label}`" if figure.metric else ""
        path = f"{figure.path}.{label}" if label else figure.path
        cells = (f"`{path}`", figure.unit, figure.kind, figure.total, metric, figure.help)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
