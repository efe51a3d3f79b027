"""Spans and durations of calls for OpenTelemetry, by its semantic conventions for databases.

    from dcc.contrib.opentelemetry import instrument
    instrument()                        # once, before or after clients are made

Every call of every client of the process, those below caches and frameworks included, becomes a
span of the kind CLIENT and a value of the histogram `db.client.operation.duration`. Neither carries
a key, a value or an address. Source: https://opentelemetry.io/docs/specs/semconv/database/.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Awaitable, Callable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from opentelemetry import metrics, trace
from opentelemetry.metrics import Histogram, MeterProvider
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, TracerProvider

import dcc

SYSTEM = "dcc"
ONE_KEY = (
    "get", "lookup", "entry", "contains", "put", "add", "replace", "delete", "touch", "incr",
    "decr",
)  # fmt: skip
MANY_KEYS = ("get_many", "put_many", "delete_many")
OPERATIONS = (*ONE_KEY, *MANY_KEYS, "clear")
"What is measured. Calls for operators and `scan`, which goes on between its steps, are not."

BOUNDS_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
"Those of the conventions."

Attributes = dict[str, str | int]

_inside: ContextVar[bool] = ContextVar("dcc_inside", default=False)
"Within a call that is measured already: `entry` asks by `lookup`."

_originals: list[tuple[type, str, Any]] = []


@dataclass(frozen=True)
class Recorder:
    """Where spans and durations go."""

    tracer: Tracer
    durations: Histogram

    @contextmanager
    def call(self, operation: str, keys: object) -> Iterator[None]:
        """Measure what is done within; an error is told by its class, and raised on."""
        attributes: Attributes = {"db.system.name": SYSTEM, "db.operation.name": operation}
        size = len(keys) if isinstance(keys, Sized) else 0
        batch: Attributes = {"db.operation.batch.size": size} if size > 1 else {}
        began = time.perf_counter()
        token = _inside.set(True)
        try:
            with self.tracer.start_as_current_span(
                operation,
                kind=SpanKind.CLIENT,
                attributes=attributes | batch,
                record_exception=False,
                set_status_on_exception=False,
            ) as span:
                try:
                    yield
                except BaseException as error:
                    attributes["error.type"] = _failed(span, error)
                    raise
        finally:
            _inside.reset(token)
            self.durations.record(time.perf_counter() - began, attributes)


def instrument(
    tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
) -> None:
    """Measure the calls of all clients of this process from now on; again: with other providers.

    Args:
        tracer_provider: where spans go; None: the global one.
        meter_provider: where durations go; None: the global one.
    """
    uninstrument()
    meter = metrics.get_meter(__name__, dcc.__version__, meter_provider)
    durations = meter.create_histogram(
        "db.client.operation.duration",
        unit="s",
        description="Duration of database client operations.",
        explicit_bucket_boundaries_advisory=BOUNDS_SECONDS,
    )
    recorder = Recorder(trace.get_tracer(__name__, dcc.__version__, tracer_provider), durations)
    for operation in OPERATIONS:
        for kind, measured in ((dcc.Client, _blocking), (dcc.AsyncClient, _coroutine)):
            original = getattr(kind, operation)
            _originals.append((kind, operation, original))
            setattr(kind, operation, measured(operation, original, recorder))


def uninstrument() -> None:
    """Let calls be as they were; nothing happens if they are."""
    while _originals:
        kind, operation, original = _originals.pop()
        setattr(kind, operation, original)


def _blocking(
    operation: str, original: Callable[..., Any], recorder: Recorder
) -> Callable[..., Any]:
    @functools.wraps(original)
    def measured(client: Any, *args: Any, **options: Any) -> Any:
        if _inside.get():
            return original(client, *args, **options)
        args, keys = _with_keys(operation, args)
        with recorder.call(operation, keys):
            return original(client, *args, **options)

    return measured


def _coroutine(
    operation: str, original: Callable[..., Awaitable[Any]], recorder: Recorder
) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(original)
    async def measured(client: Any, *args: Any, **options: Any) -> Any:
        if _inside.get():
            return await original(client, *args, **options)
        args, keys = _with_keys(operation, args)
        with recorder.call(operation, keys):
            return await original(client, *args, **options)

    return measured


def _with_keys(operation: str, args: tuple[Any, ...]) -> tuple[tuple[Any, ...], object]:
    """Return the arguments, and the keys of a call of many, of which an iterator has no number."""
    if operation not in MANY_KEYS or not args:
        return args, None
    keys = args[0] if isinstance(args[0], Sized) else list(args[0])
    return (keys, *args[1:]), keys


def _failed(span: Span, error: BaseException) -> str:
    """Tell the span what ended its call; return its class."""
    name = type(error).__qualname__
    span.set_attribute("error.type", name)
    span.set_status(Status(StatusCode.ERROR, str(error)))
    return name
