"""What a client tells of its calls: histograms, counts, events, the log, metrics."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from dcc import AsyncClient, Cache, Client, DccError, LocalCluster, NotANumber
from dcc.client.timings import BOUNDS_NS, COMMANDS, Timings
from dcc.contrib.prometheus import DccCollector
from dcc.units import SECOND
from tests.support.paths import ROOT

DOCUMENT = (ROOT / "docs/observability.md").read_text("utf-8")

Told = list[tuple[str, Mapping[str, Any]]]


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(1, replicas=0) as started:
        yield started


@pytest.fixture
def nodes(cluster: LocalCluster) -> list[str]:
    return [node.address for node in cluster.nodes]


def counted(client: Client | AsyncClient) -> dict[str, int]:
    return {command: one.count for command, one in client.latencies().items()}


# ------------------------------------------------------------------ histograms


def test_each_duration_is_counted_below_all_bounds_that_are_above_it() -> None:
    for bound in BOUNDS_NS:
        for duration in (bound - 1, bound):
            timings = Timings()
            timings.observe("get", duration)
            buckets = timings.latencies()["get"].buckets
            above = [upper for upper, count in buckets if count]
            assert above == [one / SECOND for one in BOUNDS_NS if duration < one]


def test_what_takes_longer_than_the_last_bound_is_counted_and_has_no_upper_bound() -> None:
    timings = Timings()
    timings.observe("put", 3600 * SECOND, times=2)
    latency = timings.latencies()["put"]
    assert (latency.count, latency.sum) == (2, 7200.0)
    assert latency.quantile(0.5) == float("inf")


@pytest.mark.process
def test_every_call_is_timed_as_its_command(cluster: LocalCluster) -> None:
    client = cluster.client(timeout=5)
    client.put("a", b"1")
    client.get("a"), client.get("a", r="all"), client.lookup("a")
    client.get_many(["a", "b"])
    client.add("a", b""), client.replace("a", b"2"), client.touch("a", 60), client.incr("a")
    client.delete("a")
    client.put_many({"a": b"", "b": b""}), client.delete_many(["a", "b"])
    client.topology()
    assert counted(client) == dict.fromkeys(COMMANDS, 1) | {"get": 3, "write_many": 2}
    assert 0 < client.latencies()["get"].quantile(1.0) < 5


@pytest.mark.process
async def test_every_call_of_a_turn_is_timed_as_its_command(nodes: list[str]) -> None:
    async with AsyncClient(nodes, timeout=5) as client:
        assert client.latencies() == {}
        await client.put("a", b"1")
        await client.get("a")
        await client.lookup("a")
        await client.get_many(["a", "b"])
        await client.add("a", b"")
        await client.replace("a", b"2")
        await client.touch("a", 60)
        await client.incr("a")
        await client.delete("a")
        await client.put_many({"a": b"", "b": b""})
        wanted = dict.fromkeys(COMMANDS, 1) | {"get": 2}
        wanted.pop("other")
        assert counted(client) == wanted


@pytest.mark.process
async def test_calls_that_travel_together_are_each_counted(nodes: list[str]) -> None:
    import asyncio

    async with AsyncClient(nodes, timeout=5) as client:
        await asyncio.gather(*[client.put(f"t{n}", b"") for n in range(50)])
        await asyncio.gather(*[client.get(f"t{n}") for n in range(50)])
        assert counted(client) == {"get": 50, "put": 50}


# ------------------------------------------------------------------ counts, hook and log


def test_a_call_that_fails_is_timed_counted_and_told(caplog: pytest.LogCaptureFixture) -> None:
    told: Told = []
    caplog.set_level(logging.DEBUG, "dcc.client")

    def hook(event: str, fields: Mapping[str, Any]) -> None:
        told.append((event, fields))

    with Client("127.0.0.1:1", timeout=0.2, on_event=hook) as client:
        with pytest.raises(DccError) as failed:
            client.get("key")
        name = type(failed.value).__name__
        assert client.counts()[name] == 1
        assert client.latencies()["get"].count == 1
    events = [fields["error"] for event, fields in told if event == "call_failed"]
    assert events == [name]
    assert "call_failed" in caplog.text


@pytest.mark.process
async def test_a_call_of_a_loop_that_fails_is_counted_and_told(nodes: list[str]) -> None:
    told: list[str] = []
    async with AsyncClient(
        nodes, timeout=5, on_event=lambda event, fields: told.append(event)
    ) as client:
        await client.put("text", b"no number")
        with pytest.raises(NotANumber):
            await client.incr("text")
        assert client.counts() == {"NotANumber": 1}
    assert told == ["call_failed"]


async def test_gets_and_puts_of_a_loop_that_fail_are_counted() -> None:
    async with AsyncClient("127.0.0.1:1", timeout=0.2) as client:
        for call in (client.get("a"), client.put("a", b""), client.lookup("a")):
            with pytest.raises(DccError):
                await call
        counts = client.counts()
        assert counts.get("NodeUnavailable", 0) + counts.get("OperationTimeout", 0) == 3


def test_a_hook_that_fails_changes_no_call(caplog: pytest.LogCaptureFixture) -> None:
    def hook(event: str, fields: Mapping[str, Any]) -> None:
        raise RuntimeError("a mistake of the program's own")

    with (
        Client("127.0.0.1:1", timeout=0.2, on_event=hook) as client,
        pytest.raises(DccError),
    ):
        client.get("key")
    assert "a mistake of the program's own" in caplog.text


def test_a_hook_that_is_no_function_is_refused() -> None:
    with pytest.raises(TypeError, match="on_event"):
        Client(on_event="print")  # type: ignore[arg-type]  # the point of the test


def test_a_program_without_logging_prints_nothing_and_is_not_configured() -> None:
    program = """
import logging
import dcc
def hook(event, fields):
    raise RuntimeError
with dcc.Client("127.0.0.1:1", timeout=0.1, on_event=hook) as client:
    try:
        client.get("key")
    except dcc.DccError:
        pass
assert logging.getLogger().handlers == []
assert [type(one) for one in logging.getLogger("dcc").handlers] == [logging.NullHandler]
assert logging.getLogger("dcc").level == logging.NOTSET
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")


# ------------------------------------------------------------------ metrics, the document


@pytest.mark.process
def test_the_collector_has_clients_and_caches(cluster: LocalCluster) -> None:
    client, cache = cluster.client(timeout=5), Cache(cluster.url, namespace="metrics")
    client.get("absent")
    cache.get("absent")
    client.put("text", b"no number")
    with pytest.raises(NotANumber):
        client.incr("text")
    registry = CollectorRegistry()
    registry.register(DccCollector({"bare": client, "cache": cache}))

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, labels)

    durations = "dcc_client_call_duration_seconds"
    assert value(f"{durations}_count", client="bare", command="get") == 1
    assert value(f"{durations}_bucket", client="bare", command="get", le="+Inf") == 1
    assert value(f"{durations}_sum", client="cache", command="get") is not None
    assert value("dcc_client_events_total", client="bare", event="NotANumber") == 1
    assert value("dcc_client_events_total", client="cache", event="failed_open") == 0
    assert value("dcc_client_breaker_open", client="cache") == 0
    assert value("dcc_client_breaker_open", client="bare") is None


@pytest.mark.process
def test_the_examples_of_the_document_run(
    nodes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DCC_NODES", ",".join(nodes))
    blocks = re.findall(r"^```python\n(.*?)^```$", DOCUMENT, re.M | re.S)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "docs/observability.md", "exec"), {})


def test_the_document_names_every_command_event_and_metric() -> None:
    named = set(re.findall(r"`(\w+)`", DOCUMENT))
    said = "".join(path.read_text("utf-8") for path in (ROOT / "dcc/client").glob("*.py"))
    events = set(re.findall(r'[nN]ot(?:e|ify)\(\s*"(\w+)"', said)) | {"call_failed"}
    metrics = (ROOT / "dcc/contrib/prometheus.py").read_text("utf-8")
    families = set(re.findall(r'"(dcc_\w+)"', metrics))
    assert len(events) >= 6
    assert set(COMMANDS) | events <= named
    assert {name.removesuffix("_total") for name in named if name.startswith("dcc_")} == families
