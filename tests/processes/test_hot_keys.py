"""Hot keys on real nodes: their reads are spread over all owners, by both clients."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from itertools import accumulate

import pytest

from dcc import AsyncClient, Client, LocalCluster
from dcc.replication import hot
from tests.support.processes import wait_until

pytestmark = pytest.mark.process

KEYS = 2_000
AT_ONCE = 500
READS = 20 * AT_ONCE


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(5, replicas=1) as running:
        filler = running.client(timeout=30)
        assert filler.put_many({f"key-{n}": b"%d" % n for n in range(KEYS)}) == []
        yield running


def served(client: Client) -> dict[str, int]:
    """Return how many reads each node has answered with a value."""
    return {name: node.hits for name, node in client.stats().nodes.items()}


def busiest(before: dict[str, int], after: dict[str, int]) -> float:
    """Return what the busiest node served between, in multiples of the mean."""
    parts = [after[name] - before[name] for name in before]
    return max(parts) * len(parts) / sum(parts)


def test_under_zipf_the_busiest_node_serves_little_more_than_the_others(
    cluster: LocalCluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hot, "RATE", 1)  # A busy machine may serve too few for any to be hot.
    watcher = cluster.client(timeout=30)
    weights = list(accumulate((rank + 1) ** -1.2 for rank in range(KEYS)))
    draw = random.Random(1)

    async def read(client: AsyncClient) -> float:
        before = served(watcher)
        for _ in range(READS // AT_ONCE):
            keys = draw.choices(range(KEYS), cum_weights=weights, k=AT_ONCE)
            found = await asyncio.gather(*[client.get(f"key-{n}") for n in keys])
            assert found == [b"%d" % n for n in keys]
        return busiest(before, served(watcher))

    async def main() -> list[float]:
        addresses = [node.address for node in cluster.nodes]
        async with (
            AsyncClient(addresses, timeout=30, read="primary") as strict,
            AsyncClient(addresses, timeout=30) as client,
        ):
            ratios = [await read(strict)]
            while len(ratios) < 40 and (len(ratios) == 1 or ratios[-1] > 1.3):
                ratios.append(await read(client))
            assert client.counts()["spread_reads"] > READS // 10
            assert "spread_reads" not in strict.counts()
            return ratios

    ratios = asyncio.run(main())
    with capsys.disabled():
        print(f"\nbusiest of 5 nodes, times the mean: {ratios[0]:.2f}, spread {ratios[-1]:.2f}")
    assert ratios[0] > 1.3, "there was something to spread"
    assert ratios[-1] <= 1.3


def test_a_blocking_client_asks_all_owners_and_reads_what_it_wrote(cluster: LocalCluster) -> None:
    client, other = cluster.client(timeout=30), cluster.client(timeout=30)
    owners = set(client.topology().owners("one"))
    client.put("one", b"0")
    wrote = 0

    def is_spread() -> bool:
        nonlocal wrote
        before = served(other)
        for n in range(600):
            if n % 100 == 0:
                wrote += 1
                client.put("one", b"%d" % wrote)
            found = client.get("one")
            assert found == b"%d" % wrote or found is None, "older than what it wrote"
        assert len(client.get_many(["one", "key-1", "absent"])) == 2
        after = served(other)
        parts = {name: after[name] - before[name] for name in owners}
        return min(parts.values()) > 200 and client.counts().get("spread_reads", 0) > 400

    assert len(owners) == 2
    wait_until(is_spread, 60)


def test_the_command_line_names_the_keys_that_are_read_most(cluster: LocalCluster) -> None:
    client = cluster.client(timeout=30)

    def is_listed() -> bool:
        for _ in range(300):
            client.get("key-7")
        argv = [sys.executable, "-m", "dcc", "hotkeys", "--nodes", cluster.nodes[0].address]
        ran = subprocess.run(
            [*argv, "--json", "--timeout", "20"],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        keys = json.loads(ran.stdout)["keys"]
        rates = {one["key"]: one["rate"] for one in keys}
        assert list(rates.values()) == sorted(rates.values(), reverse=True)
        return "key-7" in rates

    wait_until(is_listed, 60)
    argv = [sys.executable, "-m", "dcc", "hotkeys", "--nodes", cluster.nodes[0].address]
    shown = subprocess.run(
        [*argv, "--most", "1", "--timeout", "20"],
        capture_output=True, text=True, timeout=60, check=True,
    ).stdout  # fmt: skip
    assert shown.splitlines()[0].split() == ["KEY", "READS", "A", "SECOND", "SPREAD", "NODES"]
    assert len(shown.splitlines()) == 2
