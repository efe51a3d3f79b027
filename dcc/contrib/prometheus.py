"""The figures of clients and caches for prometheus-client, read when they are asked for.

>>> from dcc import Client
>>> from prometheus_client import REGISTRY
>>> REGISTRY.register(DccCollector({"shop": Client("127.0.0.1:6740")}))

No label carries a key or an address: what is stored must not decide how many series there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from dcc import Latency


class Measured(Protocol):
    """A `Client`, an `AsyncClient` or a `Cache`."""

    def counts(self) -> dict[str, int]: ...
    def latencies(self) -> dict[str, Latency]: ...


class DccCollector(Collector):
    """A collector of some clients, each under a name, which becomes the label `client`."""

    def __init__(self, clients: Mapping[str, Measured]) -> None:
        self._clients = dict(clients)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; nobody on the network is asked. O(clients)."""
        durations = HistogramMetricFamily(
            "dcc_client_call_duration_seconds",
            "How long calls have taken, those that failed included.",
            labels=["client", "command"],
        )
        events = CounterMetricFamily(
            "dcc_client_events",
            "What calls met, and the classes of the errors that they ended with.",
            labels=["client", "event"],
        )
        breakers = GaugeMetricFamily(
            "dcc_client_breaker_open",
            "1 while a cache's calls fail at once since its cluster does not answer.",
            labels=["client"],
        )
        for name, client in self._clients.items():
            for command, latency in client.latencies().items():
                buckets = [(str(bound), float(count)) for bound, count in latency.buckets]
                buckets.append(("+Inf", float(latency.count)))
                durations.add_metric([name, command], buckets, latency.sum)
            counts = client.counts()
            if "breaker_open" in counts:
                breakers.add_metric([name], counts.pop("breaker_open"))
            for event, count in counts.items():
                events.add_metric([name, event], count)
        yield from (durations, events, breakers)
