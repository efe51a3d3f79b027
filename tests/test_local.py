"""Nodes inside the process: they serve, they end, and they leave nothing behind."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Iterator

import pytest

import dcc
from dcc.errors import ConfigError, DccError, UsageError
from dcc.local import LocalCluster, Node
from tests.support.processes import wait_until

pytestmark = pytest.mark.process

SECOND_NS = 1_000_000_000


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    before = set(threading.enumerate())
    yield
    wait_until(lambda: not _ours(set(threading.enumerate()) - before), 5)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers


def _ours(threads: set[threading.Thread]) -> list[str]:
    return [thread.name for thread in threads]


def test_a_cluster_serves_what_was_put_through_any_node() -> None:
    with LocalCluster(3, replicas=1) as cluster:
        assert len({node.address for node in cluster.nodes}) == 3
        client = cluster.client(timeout=5)
        client.put("greeting", b"hello")
        for node in cluster.nodes:
            assert node.alive
            assert client.get("greeting") == b"hello"


def test_a_cluster_of_another_name_hands_out_clients_that_speak_to_it() -> None:
    with LocalCluster(1, replicas=0, cluster="other") as cluster:
        client = cluster.client(timeout=5)
        client.put("greeting", b"hello")
        assert client.get("greeting") == b"hello"
        stranger = cluster.client(timeout=1, cluster="dcc")
        with pytest.raises(DccError, match="cluster"):
            stranger.get("greeting")


def test_a_cluster_is_one_view_when_it_has_started() -> None:
    with LocalCluster(3) as cluster:
        for node in cluster.nodes:
            stats = node.stats()
            assert stats is not None
            assert sorted(stats["members"]) == sorted(node.name for node in cluster.nodes)
            assert stats["slots_ready"]


def test_a_node_joins_and_another_leaves_without_losing_a_key() -> None:
    with LocalCluster(2, replicas=1) as cluster:
        client = cluster.client(timeout=5)
        for i in range(200):
            client.put(f"k{i}", b"%d" % i)
        added = cluster.add()
        assert added.wait_ready(20)
        cluster.nodes[0].stop()
        assert not cluster.nodes[0].alive
        for i in range(200):
            assert client.get(f"k{i}") == b"%d" % i


def test_a_cluster_with_keys_lets_in_who_has_them_and_leaves_none_behind() -> None:
    with LocalCluster(2, with_keys=True) as cluster:
        keys = cluster.keys
        assert keys is not None
        client = cluster.client(timeout=5)
        client.put("k", b"v", w="all")
        client.clear()
        client.put("k", b"v", w="all")
        began = time.monotonic()
        assert cluster.add().wait_ready(20)
        assert time.monotonic() - began < 3, "its key is known as it connects"
        assert dcc.Cache(cluster.url).get("k") == b"v", "the URL names the keys"
        with (
            dcc.Client([node.address for node in cluster.nodes], timeout=5) as stranger,
            pytest.raises(dcc.AuthenticationFailed),
        ):
            stranger.get("k")
    assert not keys.exists()


def test_the_log_goes_to_the_applications_logging(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "dcc.node"):
        node = Node(name="heard").start()
        assert node.wait_ready(20)
        node.stop()
    assert "cluster_founded" in caplog.text


def test_stop_and_kill_may_be_repeated_and_come_before_start() -> None:
    node = Node()
    node.stop()
    node.kill()
    with pytest.raises(UsageError, match="not started"):
        _ = node.address
    node.start()
    node.kill()
    node.stop()
    node.kill()
    assert not node.alive
    assert node.stats() is None
    with pytest.raises(UsageError, match="once"):
        node.start()


def test_a_wrong_keyword_is_a_type_error_and_a_wrong_value_a_config_error() -> None:
    with pytest.raises(TypeError, match="http"):
        Node(http="127.0.0.1:0")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="nonsense"):
        LocalCluster(2, nonsense=1).start()  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match="replicas"):
        Node(replicas=10)
    with pytest.raises(ConfigError, match="ack_timeout"):
        Node(protocol_period_ns=SECOND_NS // 10).start()
    with pytest.raises(ValueError, match="at least one"):
        LocalCluster(0)


def test_an_address_in_use_is_a_config_error_and_leaves_nothing_open() -> None:
    with Node() as node, pytest.raises(ConfigError, match="in use"):
        Node(bind=node.address, gossip_bind="127.0.0.1:0").start()


def test_tuning_reaches_the_node() -> None:
    with Node(max_memory="2MiB", found_alone_ns=SECOND_NS) as node:
        assert node.wait_ready(20)
        stats = node.stats()
        assert stats is not None
        assert stats["memory_limit_bytes"] == 2 << 20


def test_latency_is_counted_by_command_where_the_reply_goes_out() -> None:
    commands = {"put", "get", "get_many"}
    with LocalCluster(2, replicas=1) as cluster, cluster.client() as client:
        client.put("key", b"value", w=2)
        assert client.get("key") == b"value"
        client.get_many(["key"])
        # Whoever has its reply may ask before the node has counted the time of the turn.
        wait_until(lambda: commands <= set(client.stats().total.latency_seconds), 10)
        total = client.stats().total.latency_seconds
    for command in sorted(commands):
        assert 0 < total[command]["p50"] <= total[command]["p99"] < 1
