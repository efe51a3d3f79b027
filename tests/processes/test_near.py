"""Near caches of both clients on real nodes: fresh within the bound, whatever is lost."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import dcc
from dcc import AsyncClient, Client, NearCache
from dcc.client.near import BOUND_MS, Near
from tests.support.async_as_blocking import Blocking
from tests.support.forks import in_child
from tests.support.processes import Processes, wait_until

pytestmark = pytest.mark.process
MARGIN_SECONDS = 0.15
"For a round trip, by which cluster time may be off, on a machine with much to do."


@pytest.fixture(scope="module")
def cluster() -> Iterator[dcc.LocalCluster]:
    with dcc.LocalCluster(3, replicas=1) as running:
        yield running


@pytest.fixture(params=["blocking", "asyncio"])
def near(cluster: dcc.LocalCluster, request: pytest.FixtureRequest) -> Iterator[Any]:
    addresses = [node.address for node in cluster.nodes]
    kind = Client if request.param == "blocking" else Blocking
    with kind(addresses, timeout=20, near_cache=NearCache(max_entries=100)) as one:
        one.clear()
        yield one


def is_near(client: Any, key: str) -> bool:
    """Read a key; return whether a copy was served."""
    before = client.counts()["near_hits"]
    client.get(key)
    return bool(client.counts()["near_hits"] > before)


def test_a_second_read_needs_no_node_and_what_others_write_is_seen(
    cluster: dcc.LocalCluster, near: Any
) -> None:
    other = cluster.client(timeout=20)
    other.put("k", b"one")
    wait_until(lambda: is_near(near, "k"), 20)
    assert near.get("k") == b"one"
    assert near.get_many(["k", "absent"]) == {"k": b"one"}
    other.put("k", b"two")
    wait_until(lambda: near.get("k") == b"two", 5)
    other.delete("k")
    wait_until(lambda: near.get("k") is None, 5)
    counts = near.counts()
    assert counts["near_invalidations"] >= 2
    assert counts["near_bytes"] >= 0
    assert counts["near_misses"] > 0


def test_own_writes_are_read_at_once(near: Any) -> None:
    for number in range(30):
        value = b"%d" % number
        near.put("own", value)
        assert near.get("own") == value
        assert near.get("own") == value
    near.put_many({"own": b"many"})
    assert near.get("own") == b"many"
    near.delete("own")
    assert near.get("own") is None
    near.put("own", b"again")
    near.get("own")
    near.clear()
    assert near.get("own") is None


def test_with_a_tenth_of_the_notices_lost_nothing_is_older_than_the_bound(
    cluster: dcc.LocalCluster, near: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hear, rng = Near.hear, random.Random(1)

    def lossy(self: Near, *told: Any) -> None:
        if rng.random() >= 0.1:
            hear(self, *told)

    monkeypatch.setattr(Near, "hear", lossy)
    written: list[float] = [0.0]  # When each number had been written.
    stop = threading.Event()

    def write() -> None:
        with Client([node.address for node in cluster.nodes], timeout=20) as other:
            while not stop.is_set():
                other.put("lossy", b"%d" % len(written))
                written.append(time.monotonic())
                stop.wait(0.15 * rng.random())

    writer = threading.Thread(target=write)
    writer.start()
    try:
        oldest, end = 0.0, time.monotonic() + 8
        while time.monotonic() < end:
            began = time.monotonic()
            found = int(near.get("lossy") or b"0")
            if found + 1 < len(written) and found:
                oldest = max(oldest, began - written[found + 1])
            time.sleep(0.0005)
    finally:
        stop.set()
        writer.join(30)
    counts = near.counts()
    assert counts["near_hits"] > 200
    assert counts["near_gaps"] > 0
    assert oldest < BOUND_MS / 1_000 + MARGIN_SECONDS


@pytest.mark.parametrize("kind", [Client, Blocking])
def test_a_node_that_is_stopped_or_killed_ends_its_copies(processes: Processes, kind: Any) -> None:
    nodes = processes.nodes(2, "--replicas", "1")
    with kind([node.address for node in nodes], timeout=20, near_cache=NearCache()) as near:
        wait_until(near.converged, 60)  # From then on each leads its keys.
        keys = [f"k{number}" for number in range(20)]
        near.put_many(dict.fromkeys(keys, b"v"))
        wait_until(lambda: all(is_near(near, key) for key in keys), 30)
        nodes[1].kill()
        time.sleep(2 * BOUND_MS / 1_000)
        before = near.counts()["near_hits"]
        mono = time.monotonic_ns()
        served = [key for key in keys if near._near.find(key, mono) is not None]
        topology = near.topology()
        assert all(topology.owners(key)[0] == nodes[0].ready["node"] for key in served)
        assert near.counts()["near_hits"] - before == len(served) < len(keys)


def test_a_child_process_listens_for_itself(cluster: dcc.LocalCluster) -> None:
    with Client(
        [node.address for node in cluster.nodes], timeout=20, near_cache=NearCache()
    ) as near:
        near.put("forked", b"v")
        wait_until(lambda: is_near(near, "forked"), 20)

        def child() -> bool:
            time.sleep(2 * BOUND_MS / 1_000)
            deadline = time.monotonic() + 10
            while not is_near(near, "forked") and time.monotonic() < deadline:
                time.sleep(0.01)
            return is_near(near, "forked")

        assert in_child(child) == 0


def test_options_are_checked_and_a_closed_client_serves_nothing(cluster: dcc.LocalCluster) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(TypeError, match="near_cache: NearCache or None"):
            kind("127.0.0.1:6740", near_cache=100)  # type: ignore[arg-type]
    near = Client([node.address for node in cluster.nodes], timeout=20, near_cache=NearCache())
    near.put("closed", b"v")
    wait_until(lambda: is_near(near, "closed"), 20)
    near.close()
    with pytest.raises(dcc.ClientClosed):
        near.get("closed")
