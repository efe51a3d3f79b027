"""What calls return: tolerant of other versions' statistics, and totals that add up."""

from __future__ import annotations

import json

import pytest

from dcc.client.results import NodeStats


def test_statistics_of_another_version_are_read_as_far_as_they_go() -> None:
    found = NodeStats.from_json(
        json.dumps(
            {
                "hits": 7,
                "items": "many",
                "hit_ratio": 1,
                "loop_lag_seconds": True,
                "health": {"score": 0},
                "members": {"a": "alive"},
                "something_new": [1, 2, 3],
            }
        ).encode()
    )
    assert found.hits == 7
    assert found.items == 0
    assert found.hit_ratio == 1
    assert found.loop_lag_seconds == 0.0
    assert found.health == {"score": 0}
    assert found.members == {"a": "alive"}


@pytest.mark.parametrize("text", [b"", b"[]", b"5", b"{", b"\xff", b"null"])
def test_what_is_no_json_object_is_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError):
        NodeStats.from_json(text)


def test_a_total_adds_counters_and_shows_the_worst_of_the_rest() -> None:
    total = NodeStats.total(
        [
            NodeStats(
                hits=9,
                misses=1,
                items=5,
                requests_per_second={"get": 2.0},
                latency_seconds={"get": {"p50": 0.1, "p99": 0.2}},
                replication_lag_seconds=0.5,
                epoch=8,
            ),
            NodeStats(
                hits=1,
                misses=9,
                items=6,
                requests_per_second={"get": 3.0, "put": 1.0},
                latency_seconds={"get": {"p50": 0.3}},
                epoch=8,
            ),
        ]
    )
    assert (total.hits, total.misses, total.hit_ratio, total.items) == (10, 10, 0.5, 11)
    assert total.requests_per_second == {"get": 5.0, "put": 1.0}
    assert total.latency_seconds == {"get": {"p50": 0.3, "p99": 0.2}}
    assert total.replication_lag_seconds == 0.5
    assert total.epoch == 8
    assert NodeStats.total([]) == NodeStats()
