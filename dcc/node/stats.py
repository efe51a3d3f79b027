"""One node's statistics as a plain dictionary: for `stats()`, the commands, HTTP and metrics.

`dcc.figures` says what each figure means, and a test compares that table with this dictionary.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dcc.node.company import Company
from dcc.node.converging import Converging
from dcc.node.footprint import Footprint
from dcc.node.lifecycle import Lifecycle
from dcc.node.machines import Machines
from dcc.replication.staleness import EVERY, Staleness
from dcc.types import NodeKey, Standing
from dcc.units import SECOND
from dcc.wire.shapes import STATS_BYTES_MAX

BY_MEMBER = ("queues", "hints", "clock_skew_seconds")


class Statistics:
    """Tells one node's figures."""

    def __init__(
        self,
        machines: Machines,
        company: Company,
        lifecycle: Lifecycle,
        converging: Converging,
        footprint: Footprint,
    ) -> None:
        self._machines, self._company, self._lifecycle = machines, company, lifecycle
        self._converging, self._footprint = converging, footprint

    def all(self, mono: int) -> dict[str, Any]:
        """Return what the node counts and is now; JSON-ready. O(members + peers)."""
        machines = self._machines
        store, counters = machines.held.store, machines.counters
        members = machines.membership.members
        hits, misses = counters.hits + machines.reads.hits, counters.misses + machines.reads.misses
        unsure = counters.unsure + machines.reads.unsure
        asked = hits + misses + unsure
        return {
            "name": machines.config.name,
            "cluster": machines.config.cluster,
            "zone": machines.config.zone,
            "hits": hits,
            "misses": misses,
            "unsure": unsure,
            "hit_ratio": hits / asked if asked else 0.0,
            "requests": dict(counters.commands),
            "requests_per_second": counters.rates(mono),
            "latency_seconds": {
                name: {f"p{percent}": latency.quantile(percent / 100) for percent in (50, 95, 99)}
                for name, latency in counters.latency.items()
                if latency.count
            },
            "items": store.items,
            "item_bytes": store.item_bytes,
            "bytes_used": store.bytes_used,
            "memory_limit_bytes": machines.config.memory_limit_bytes,
            "evicted": store.evicted_total,
            "expired": store.expired_total,
            "ghosts": store.ghosts,
            "tombstones": store.tombstones,
            "replication_lag_seconds": machines.streams.lag_ns(mono) / SECOND,
            "sampled_reads": machines.staleness.sampled,
            "stale_reads": machines.staleness.stale,
            "stale_read_ratio": machines.staleness.ratio,
            "health": self.health(),
            "loop_lag_seconds": machines.load.loop_lag_ns / SECOND,
            "members": {one.name: one.standing.name.lower() for one in members.values()},
            "epoch": machines.held.view.epoch,
            "replicas": machines.held.view.replicas,
            "ready": self._lifecycle.ready,
            "slots_ready": self._lifecycle.slots_ready,
            "draining": machines.membership.me.draining,
            "filling": machines.membership.me.filling,
            "slow": machines.membership.me.slow,
            "up_seconds": (mono - machines.started_at) / SECOND,
            "detail": self._detail(mono),
        }

    def health(self) -> dict[str, Any]:
        """Return node health: standing, Lifeguard's local score (0 = fine, 7 = worst), loop lag."""
        machines = self._machines
        return {
            "standing": machines.membership.me.standing.name.lower(),
            "score": machines.membership.score,
            "loop_lag_seconds": machines.load.loop_lag_ns / SECOND,
        }

    def hottest(self) -> list[list[Any]]:
        """Return key, reads a second here and whether it is hot, of the keys that are read most.

        They are no figures, and what a key is called may be nobody's business: whoever wants them
        has to ask for them.
        """
        return [
            [one.key.decode(errors="replace"), round(one.rate, 1), one.hot]
            for one in self._machines.hot.top()
        ]

    def _detail(self, mono: int) -> dict[str, Any]:
        machines = self._machines
        store, view = machines.held.store, machines.held.view
        names = {key: one.name for key, one in machines.membership.members.items()}
        standings = dict.fromkeys((s.name.lower() for s in Standing), 0)
        for one in machines.membership.members.values():
            standings[one.standing.name.lower()] += 1
        owned = len(view.owned) / len(store.tables)
        last_round = machines.exchange.last_round_at
        return {
            "lacks": self._company.lacks(),
            "unreached": {row.name: row.request for row in machines.membership.unreached()},
            "members_by_standing": standings,
            "flaps": machines.counters.flaps,
            "conflicts": machines.counters.conflicts,
            "latency": {
                name: {"buckets": list(one.buckets), "sum_seconds": one.sum_ns / SECOND}
                for name, one in machines.counters.latency.items()
                if one.count
            },
            "owned_ratio": owned,
            "errors": dict(machines.counters.errors),
            "dropped": dict(machines.counters.dropped),
            **_kept_out(machines),
            "queues": _named(names, machines.streams.queued()),
            "hints": _named(names, machines.exchange.leftovers.hints),
            "replication_dropped": machines.streams.dropped,
            "read_repairs": machines.reads.read_repairs,
            "forwarded": machines.forwards.count,
            **_popular(machines),
            "repeated_writes": machines.writes.once.repeated,
            "late_writes": machines.writes.too_late,
            "exchange": {
                "rounds": machines.exchange.rounds,
                "records": machines.exchange.records_in,
                "bytes": machines.exchange.bytes_in,
                "seconds_since_last": (mono - last_round) / SECOND if last_round >= 0 else None,
                "divergences": machines.exchange.divergences,
                "leftover_slots": len(machines.exchange.leftovers),
            },
            "clock_offset_seconds": machines.clock.offset_ms / 1000,
            "clock_skew_seconds": {
                name: ms / 1000 for name, ms in _named(names, machines.clock.skews_ms()).items()
            },
            "convergence": self._converging.latest(mono),
            "staleness": _staleness(machines.staleness),
            "memory_bytes": {row.name: row.used() for row in self._footprint.rows},
            "memory_bound_bytes": {row.name: row.bytes_max for row in self._footprint.rows},
            "pending": len(machines.questions) + len(machines.forwards) + len(machines.writes),
        }


def packed(stats: dict[str, Any]) -> bytes:
    """Return statistics as JSON that fits a reply: of a large cluster without what is by member."""
    text = json.dumps(stats).encode()
    if len(text) <= STATS_BYTES_MAX:
        return text
    left_out = (*BY_MEMBER, "hottest")
    detail = {name: one for name, one in stats["detail"].items() if name not in left_out}
    return json.dumps(stats | {"members": {}, "detail": detail}).encode()


def _staleness(sample: Staleness) -> dict[str, Any]:
    """Return what the sample of served reads says; ages in seconds. O(samples log samples)."""
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


def _popular(machines: Machines) -> dict[str, Any]:
    """Return how much is done about keys that are read much."""
    return {"served_keys_heard": machines.served.heard, "hot_keys": machines.hot.hot}


def _kept_out(machines: Machines) -> dict[str, Any]:
    """Return how others are kept out here, and how often they were."""
    access = machines.access
    return {"security": {machines.config.name: access.mode}, "refused": dict(access.refused())}


def _named(names: Mapping[NodeKey, str], figures: Mapping[NodeKey, int]) -> dict[str, int]:
    """Return figures by the names of members, or by the keys of those that have none any more."""
    return {names.get(key, f"{key:016x}"): figure for key, figure in figures.items()}
