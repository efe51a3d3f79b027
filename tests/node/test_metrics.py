"""Statistics as metrics: names and labels that others' dashboards depend on."""

from __future__ import annotations

from dcc.node.counters import BOUNDS_NS, Latency
from dcc.node.http import exposition, not_ready
from dcc.node.metrics import LABELLED, PLAIN, families
from dcc.ring.hashing import slot_of
from dcc.types import Kind, Record, Version, node_key
from dcc.units import MILLISECOND
from dcc.wire import messages as m
from tests.support.wired_cores import Cores

STATS = {
    "hits": 3, "misses": 2, "unsure": 1, "requests": {"get": 6, "put": 4}, "items": 5,
    "sampled_reads": 61, "stale_read_ratio": 0.25,
    "evicted": 7, "loop_lag_seconds": 0.5, "slots_ready": True, "health": {"score": 2},
    "detail": {
        "members_by_standing": {"alive": 3, "dead": 1}, "dropped": {"malformed": 9},
        "queues": {"bob": 11}, "hints": {"bob": 23},
        "exchange": {"rounds": 13, "seconds_since_last": None},
        "convergence": {"converged": False, "under_replicated": 17, "reasons": ["x"]},
        "staleness": {"stale_reads_estimated": 122, "read_age_seconds": {"0.5": 1.5}},
        "clock_skew_seconds": {"bob": -0.2}, "conflicts": 19,
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
        'dcc_hints_pending{peer="bob"} 23.0',
        "dcc_antientropy_rounds_total 13.0",
        "dcc_ring_converged 0.0",
        "dcc_under_replicated 17.0",
        "dcc_sampled_reads_total 61.0",
        "dcc_stale_reads_total 122.0",
        "dcc_stale_read_ratio 0.25",
        'dcc_read_age_seconds{quantile="0.5"} 1.5',
        'dcc_clock_skew_seconds{peer="bob"} -0.2',
        "dcc_conflicts_total 19.0",
    ):
        assert line in lines


def test_what_a_node_does_not_know_is_left_out() -> None:
    names = {family.name for family in families(STATS)}
    assert "dcc_antientropy_last_success_age_seconds" not in names
    assert "dcc_ghosts" not in names
    unknown = {family.name for family in families({"detail": {"convergence": None}})}
    assert "dcc_ring_converged" not in unknown
    assert "dcc_under_replicated" not in unknown


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
    assert not_ready({"ready": True, "filling": False}) == []
    assert "slots" in not_ready({"ready": True, "filling": True})[0]
    alone: dict[str, list[str]] = {"lacks": []}
    lacks = {"lacks": ["1 of 3 expected members are there"]}
    assert "joined" in not_ready({"ready": False, "filling": True, "detail": alone})[0]
    assert "expected" in not_ready({"ready": False, "filling": True, "detail": lacks})[0]


def test_a_node_stays_ready_while_it_compares_with_one_that_came() -> None:
    """All nodes do so at once, and a load balancer would have nobody left."""
    assert not_ready({"ready": True, "filling": False, "slots_ready": False}) == []


def test_every_family_finds_its_number_in_the_statistics_of_a_node() -> None:
    cores = Cores("a", "b", replicas=1)
    cores.settle()
    for _ in range(2):  # The first look only asks for a judgement of the cluster.
        stats = cores["a"].stats(cores.now)
        for _ in range(100):
            cores.step(5 * MILLISECOND)
    known = {family.name for family in families(stats)}
    told = [one for one in (*PLAIN, *LABELLED) if not one.path.startswith("shell.")]
    assert known >= {one.metric for one in told}


def test_a_write_that_lost_to_another_nodes_is_a_conflict() -> None:
    cores = Cores("a", "b", "c", replicas=1)
    cores.settle()
    key = cores.key_of("a", "b")
    slot, store = slot_of(key), cores["b"].held.store
    newer = Version(cores.ms << 16, node_key("c"), 5)
    store.apply(slot, Record(key, Kind.VALUE, b"newer", newer, 0, 0), cores.ms)
    for node, conflicts in (("a", 1), ("c", 1)):
        boot = cores[node].boot
        older = Version((cores.ms - 9) << 16, node_key(node), boot)
        codec = cores[node].codec
        record = Record(key, Kind.VALUE, b"older", older, 0, 0)
        for _ in range(2):  # Sent again, it is known already.
            frames = codec.encode(m.Replicate(seq=7, records=(record,)))
            cores.carry("b", cores["b"].receive(b"", frames, cores.now))
        assert cores["b"].counters.conflicts == conflicts, node
    assert cores.held("b", key) == b"newer"
