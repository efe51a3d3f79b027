"""One node's statistics as a plain dictionary: for `stats()`, the commands, HTTP and metrics.

`dcc.figures` says what each figure means, and a test compares that table with this dictionary.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from dcc.replication.staleness import EVERY
from dcc.types import Standing
from dcc.units import SECOND
from dcc.wire.shapes import STATS_BYTES_MAX

if TYPE_CHECKING:
    from dcc.node.core import NodeCore

BY_MEMBER = ("queues", "hints", "clock_skew_seconds")


def statistics(core: NodeCore, mono: int) -> dict[str, Any]:
    """Return what `core` counts and is now; JSON-ready. O(members + peers)."""
    store, counters = core.held.store, core.counters
    members = core.membership.members
    hits, misses = counters.hits + core.reads.hits, counters.misses + core.reads.misses
    unsure = counters.unsure + core.reads.unsure
    asked = hits + misses + unsure
    return {
        "name": core.config.name,
        "cluster": core.config.cluster,
        "zone": core.config.zone,
        "hits": hits,
        "misses": misses,
        "unsure": unsure,
        "hit_ratio": hits / asked if asked else 0.0,
        "requests": dict(counters.commands),
        "requests_per_second": counters.rates(mono),
        "latency_seconds": {
            name: {
                "p50": latency.quantile(0.5),
                "p95": latency.quantile(0.95),
                "p99": latency.quantile(0.99),
            }
            for name, latency in counters.latency.items()
            if latency.count
        },
        "items": store.items,
        "item_bytes": store.item_bytes,
        "bytes_used": store.bytes_used,
        "memory_limit_bytes": core.config.memory_limit_bytes,
        "evicted": store.evicted_total,
        "expired": store.expired_total,
        "ghosts": store.ghosts,
        "tombstones": store.tombstones,
        "replication_lag_seconds": core.streams.lag_ns(mono) / SECOND,
        "sampled_reads": core.staleness.sampled,
        "stale_reads": core.staleness.stale,
        "stale_read_ratio": core.staleness.ratio,
        "health": health(core),
        "loop_lag_seconds": core.loop_lag_ns / SECOND,
        "members": {one.name: one.standing.name.lower() for one in members.values()},
        "epoch": core.held.view.epoch,
        "replicas": core.held.view.replicas,
        "ready": core.ready,
        "slots_ready": core.slots_ready,
        "draining": core.membership.me.draining,
        "filling": core.membership.me.filling,
        "slow": core.membership.me.slow,
        "up_seconds": (mono - core.started_at) / SECOND,
        "detail": _detail(core, mono),
    }


def packed(stats: dict[str, Any]) -> bytes:
    """Return statistics as JSON that fits a reply: of a large cluster without what is by member."""
    text = json.dumps(stats).encode()
    if len(text) <= STATS_BYTES_MAX:
        return text
    detail = {name: one for name, one in stats["detail"].items() if name not in BY_MEMBER}
    return json.dumps(stats | {"members": {}, "detail": detail}).encode()


def health(core: NodeCore) -> dict[str, Any]:
    """Return node health: standing, Lifeguard's local score (0 = fine, 7 = worst), loop lag."""
    return {
        "standing": core.membership.me.standing.name.lower(),
        "score": core.membership.score,
        "loop_lag_seconds": core.loop_lag_ns / SECOND,
    }


def _detail(core: NodeCore, mono: int) -> dict[str, Any]:
    store, view = core.held.store, core.held.view
    names = {key: one.name for key, one in core.membership.members.items()}
    standings = dict.fromkeys((s.name.lower() for s in Standing), 0)
    for one in core.membership.members.values():
        standings[one.standing.name.lower()] += 1
    owned = len(view.owned) / len(store.tables)
    last_round = core.exchange.last_round_at
    return {
        "lacks": core.company.lacks(),
        "unreached": {row.name: row.request for row in core.membership.unreached()},
        "members_by_standing": standings,
        "flaps": core.counters.flaps,
        "conflicts": core.counters.conflicts,
        "latency": {
            name: {"buckets": list(one.buckets), "sum_seconds": one.sum_ns / SECOND}
            for name, one in core.counters.latency.items()
            if one.count
        },
        "owned_ratio": owned,
        "errors": dict(core.counters.errors),
        "dropped": dict(core.counters.dropped),
        "queues": {names.get(key, f"{key:016x}"): n for key, n in core.streams.queued().items()},
        "hints": {
            names.get(key, f"{key:016x}"): n for key, n in core.exchange.leftovers.hints.items()
        },
        "replication_dropped": core.streams.dropped,
        "read_repairs": core.reads.read_repairs,
        "forwarded": core.forwards.count,
        "served_keys_heard": core.served.heard,
        "repeated_writes": core.writes.once.repeated,
        "late_writes": core.writes.too_late,
        "exchange": {
            "rounds": core.exchange.rounds,
            "records": core.exchange.records_in,
            "bytes": core.exchange.bytes_in,
            "seconds_since_last": (mono - last_round) / SECOND if last_round >= 0 else None,
            "divergences": core.exchange.divergences,
            "leftover_slots": len(core.exchange.leftovers),
        },
        "clock_offset_seconds": core.clock.offset_ms / 1000,
        "clock_skew_seconds": {
            names.get(key, f"{key:016x}"): ms / 1000 for key, ms in core.clock.skews_ms().items()
        },
        "convergence": core.converging.latest(mono),
        "staleness": _staleness(core),
        "memory_bytes": {row.name: row.used() for row in core.footprint.rows},
        "memory_bound_bytes": {row.name: row.bytes_max for row in core.footprint.rows},
        "pending": len(core.questions) + len(core.forwards) + len(core.writes),
    }


def _staleness(core: NodeCore) -> dict[str, Any]:
    """Return what the sample of served reads says; ages in seconds. O(samples log samples)."""
    sample = core.staleness
    ages = sample.read_ages_ms()
    return {
        "stale_reads_estimated": sample.stale * EVERY,
        "age_mean_seconds": sample.age_sum_ms / sample.stale / 1000 if sample.stale else 0.0,
        "age_max_seconds": sample.age_max_ms / 1000,
        "read_age_seconds": {
            name: ages[int(q * (len(ages) - 1))] / 1000
            for name, q in (("0.5", 0.5), ("0.9", 0.9), ("0.99", 0.99))
            if ages
        },
    }
