"""Statistics as metrics: names and labels that others' dashboards depend on."""

from __future__ import annotations

from dcc.node.counters import BOUNDS_NS, Latency
from dcc.node.http import exposition, not_ready
from dcc.node.metrics import families

STATS = {
    "hits": 3, "misses": 2, "unsure": 1, "requests": {"get": 6, "put": 4}, "items": 5,
    "evicted": 7, "loop_lag_seconds": 0.5, "slots_ready": True, "health": {"score": 2},
    "detail": {
        "members_by_standing": {"alive": 3, "dead": 1}, "dropped": {"malformed": 9},
        "queues": {"bob": 11}, "exchange": {"rounds": 13, "seconds_since_last": None},
    },
}  # fmt: skip


def test_every_number_has_its_name_unit_and_labels() -> None:
    lines = exposition(STATS).decode().splitlines()
    for line in (
        'dcc_commands_total{command="get",status="hit"} 3.0',
        'dcc_commands_total{command="get",status="unsure"} 1.0',
        'dcc_commands_total{command="put",status="answered"} 4.0',
        "dcc_items 5.0",
        "dcc_items_evicted_total 7.0",
        "dcc_loop_lag_seconds 0.5",
        "dcc_slots_ready 1.0",
        "dcc_local_health_score 2.0",
        'dcc_members{state="dead"} 1.0',
        'dcc_dropped_messages_total{reason="malformed"} 9.0',
        'dcc_replication_queue_length{peer="bob"} 11.0',
        "dcc_antientropy_rounds_total 13.0",
    ):
        assert line in lines


def test_what_a_node_does_not_know_is_left_out() -> None:
    names = {family.name for family in families(STATS)}
    assert "dcc_antientropy_last_success_age_seconds" not in names
    assert "dcc_ghosts" not in names


def test_latencies_become_a_cumulative_histogram() -> None:
    latency = Latency()
    for duration in (BOUNDS_NS[0], BOUNDS_NS[0] + 1, BOUNDS_NS[-1] + 1):
        latency.observe(duration)
    one = {"buckets": latency.buckets, "sum_seconds": 2.5}
    lines = exposition({"detail": {"latency": {"get": one}}}).decode().splitlines()
    name = "dcc_command_duration_seconds"
    assert f'{name}_bucket{{command="get",le="1e-05"}} 1.0' in lines
    assert f'{name}_bucket{{command="get",le="10.0"}} 2.0' in lines
    assert f'{name}_bucket{{command="get",le="+Inf"}} 3.0' in lines
    assert f'{name}_count{{command="get"}} 3.0' in lines
    assert f'{name}_sum{{command="get"}} 2.5' in lines


def test_a_node_is_ready_once_joined_with_its_slots_filled() -> None:
    assert not_ready({"ready": True, "slots_ready": True}) == []
    assert "slots" in not_ready({"ready": True, "slots_ready": False})[0]
    assert "joined" in not_ready({"ready": False, "slots_ready": False})[0]
