"""OpenTelemetry: what its own SDK gets of calls, in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from dcc import AsyncClient, Cache, Client, LocalCluster, NodeUnavailable, NotANumber

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from dcc.contrib.opentelemetry import BOUNDS_SECONDS, instrument, uninstrument

pytestmark = pytest.mark.process


@dataclass
class Told:
    """What the SDK was told."""

    exporter: InMemorySpanExporter
    reader: InMemoryMetricReader
    tracers: TracerProvider

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()

    def points(self) -> dict[tuple[str, str | None], Any]:
        """Return (operation, class of the error) -> what the histogram has."""
        data: Any = self.reader.get_metrics_data()
        (metric,) = data.resource_metrics[0].scope_metrics[0].metrics
        assert (metric.name, metric.unit) == ("db.client.operation.duration", "s")
        return {
            (point.attributes["db.operation.name"], point.attributes.get("error.type")): point
            for point in metric.data.data_points
        }


@pytest.fixture
def told() -> Iterator[Told]:
    exporter, reader, tracers = InMemorySpanExporter(), InMemoryMetricReader(), TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    meters = MeterProvider([reader])
    instrument(tracers, meters)
    yield Told(exporter, reader, tracers)
    uninstrument()
    tracers.shutdown()
    meters.shutdown()


def test_a_call_is_one_span_and_one_duration(cluster: LocalCluster, told: Told) -> None:
    client: Client = cluster.client(timeout=5)
    client.put("secret", b"value")
    assert client.get("secret") == b"value"
    assert client.entry("secret") is not None
    assert "secret" in client
    assert [span.name for span in told.spans] == ["put", "get", "entry", "contains"]
    for span in told.spans:
        assert span.kind is SpanKind.CLIENT
        assert span.attributes == {"db.system.name": "dcc", "db.operation.name": span.name}
        assert span.status.status_code is StatusCode.UNSET
    points = told.points()
    assert {names: point.count for names, point in points.items()} == {
        ("put", None): 1, ("get", None): 1, ("entry", None): 1, ("contains", None): 1,
    }  # fmt: skip
    assert points["get", None].explicit_bounds == BOUNDS_SECONDS
    assert 0 < points["get", None].sum < 5


def test_a_call_of_many_keys_tells_how_many(cluster: LocalCluster, told: Told) -> None:
    client: Client = cluster.client(timeout=5)
    client.put_many({"a": b"1", "b": b"2"})
    assert client.get_many(key for key in "abc") == {"a": b"1", "b": b"2"}
    assert client.delete_many(["a"]) == 1
    sizes = [dict(span.attributes or {}).get("db.operation.batch.size") for span in told.spans]
    assert sizes == [2, 3, None]


def test_an_error_is_told_by_its_class_and_a_miss_is_none(
    cluster: LocalCluster, told: Told
) -> None:
    client: Client = cluster.client(timeout=5)
    assert client.get("nobody") is None
    client.put("text", b"text")
    with pytest.raises(NotANumber):
        client.incr("text")
    failed = told.spans[-1]
    assert dict(failed.attributes or {})["error.type"] == "NotANumber"
    assert failed.status.status_code is StatusCode.ERROR
    assert told.points()["incr", "NotANumber"].count == 1
    assert ("get", None) in told.points()


def test_a_span_belongs_to_the_one_that_is_open(cluster: LocalCluster, told: Told) -> None:
    client: Client = cluster.client(timeout=5)
    with told.tracers.get_tracer("app").start_as_current_span("request") as request:
        client.get("key")
    span = told.spans[0]
    assert span.parent is not None
    assert span.parent.span_id == request.get_span_context().span_id


def test_tasks_of_asyncio_have_a_span_each(cluster: LocalCluster, told: Told) -> None:
    addresses = [node.address for node in cluster.nodes]

    async def main() -> list[bytes | None]:
        async with AsyncClient(addresses, timeout=5) as client:
            await client.put("key", b"1")
            return list(await asyncio.gather(*[client.get("key") for _ in range(10)]))

    assert asyncio.run(main()) == [b"1"] * 10
    assert [span.name for span in told.spans] == ["put"] + ["get"] * 10
    assert told.points()["get", None].count == 10


def test_caches_are_measured_by_their_clients(url: str, told: Told) -> None:
    cache = Cache(url, serializer="json", timeout=5)
    assert cache.put("key", {"a": 1})
    assert [span.name for span in told.spans] == ["put"]


def test_calls_are_as_they_were_afterwards(silent: str, told: Told) -> None:
    instrument(told.tracers)
    with Client(silent, timeout=0.1) as client:
        with pytest.raises((NodeUnavailable, TimeoutError)):
            client.get("key")
        assert len(told.spans) == 1, "to instrument twice is to instrument once"
        uninstrument()
        uninstrument()
        with pytest.raises((NodeUnavailable, TimeoutError)):
            client.get("key")
    assert len(told.spans) == 1
