"""Log lines of a node process: structlog, and a writer that never stops the loop.

The reader of a node's standard error may stop reading, and a full pipe blocks the writer. So lines
go to a bounded queue that one thread empties; if it is full, lines are dropped and counted, and the
next line that gets through says how many. A burst of one event is thinned the same way: beyond
`BURST` lines a second of one name, they are only counted.

This module is the only place that configures structlog, and only the node's own process calls it:
a node embedded in an application logs through the standard `logging` (see `dcc.local`).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from queue import Empty, Full, Queue
from typing import Any

import structlog

from dcc.units import SECOND

Log = Callable[[str, Mapping[str, Any]], None]
"Takes the stable name of an event and its fields."

LINES_MAX = 4_096
"Lines waiting for a reader."
BURST = 20
"Lines of one event in a second."
EVENTS_MAX = 256
"Event names counted for bursts; they are constants of the source, so there are far fewer."

LEVELS = {
    "bug": "error",
    "name_conflict": "error",
    "keys_unreadable": "error",
    "keys_failed": "error",
    "own_key_revoked": "error",
    "insecure": "warning",
    "connection_refused": "warning",
    "not_allowed": "warning",
    "clock_skew": "warning",
    "member_not_reached": "warning",
    "not_ready": "warning",
    "seeds_are_this_node": "warning",
    "file_descriptors_short": "warning",
    "member_suspect": "warning",
    "member_dead": "warning",
    "member_removed": "warning",
    "left_with_data": "warning",
    "refuted": "warning",
    "standstill": "warning",
    "seed_unreachable": "warning",
    "message_dropped": "debug",
}
"Levels of events; those that are not named here are `info`."

STRANGERS = ("foreign_cluster", "unsupported_version")
"Reasons for dropping a message that somebody should do something about."


def level_of(event: str, fields: Mapping[str, Any]) -> str:
    """Return the level of an event: debug, info, warning or error."""
    if event == "message_dropped" and fields.get("reason") in STRANGERS:
        return "warning"
    return LEVELS.get(event, "info")


class Writer:
    """Writes lines to file descriptors from a thread of its own. Safe to call from any thread."""

    def __init__(self) -> None:
        self._lines: Queue[tuple[int, bytes] | None] = Queue(LINES_MAX)
        self._thread = threading.Thread(target=self._run, name="dcc-log", daemon=True)
        self._thread.start()
        self.dropped: int = 0
        "Lines that nobody took."

    def write(self, fd: int, line: str) -> None:
        """Queue one line, without its end, for `fd`; drop and count it if the queue is full."""
        try:
            self._lines.put_nowait((fd, line.encode(errors="backslashreplace") + b"\n"))
        except Full:
            self.dropped += 1

    def close(self, timeout_s: float = 1.0) -> None:
        """Wait until everything is written, but no longer than `timeout_s`; drop the rest."""
        deadline = time.monotonic() + timeout_s
        while not self._lines.empty() and time.monotonic() < deadline:
            time.sleep(0.005)
        try:
            while self._lines.full():
                self._lines.get_nowait()
                self.dropped += 1
        except Empty:
            pass
        self._lines.put(None)
        self._thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        told = 0
        while (item := self._lines.get()) is not None:
            fd, line = item
            _write_all(fd, line)
            if self.dropped > told and self._lines.empty():
                told = self.dropped
                _write_all(2, b"log_lines_dropped total=%d\n" % told)


def _write_all(fd: int, line: bytes) -> None:
    while line:
        try:
            line = line[os.write(fd, line) :]
        except OSError:  # The reader is gone; nobody is left to be told.
            return


class _WriterLogger:
    """What structlog hands finished lines to."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def msg(self, line: str) -> None:
        self._writer.write(2, line)

    debug = info = warning = error = msg


def configure(writer: Writer, *, log_format: str, log_level: str) -> None:
    """Configure structlog for this process: lines on standard error through `writer`."""
    renderer: Any = (
        structlog.processors.JSONRenderer(default=str)
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=os.isatty(2))
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(log_level),
        logger_factory=lambda *_: _WriterLogger(writer),
        cache_logger_on_first_use=True,
    )


def journal(**context: object) -> Log:
    """Return what the loop logs to: structlog, thinned, with `context` in every line."""
    logger = structlog.get_logger().bind(**context)
    thin = Thinner()

    def log(event: str, fields: Mapping[str, Any]) -> None:
        suppressed = thin((event, fields.get("reason")), time.monotonic_ns())
        if suppressed is None:
            return
        more = {"suppressed": suppressed} if suppressed else {}
        getattr(logger, level_of(event, fields))(event, **fields, **more)

    return log


class Thinner:
    """Lets through at most `BURST` lines a second of each event."""

    def __init__(self) -> None:
        self._bursts: dict[Hashable, list[int]] = {}
        "event: [start of its second, lines in it, lines suppressed since the last one]"

    def __call__(self, event: Hashable, now: int) -> int | None:
        """Return None to drop the line, else how many were dropped since the last one."""
        if event not in self._bursts and len(self._bursts) >= EVENTS_MAX:
            return None
        burst = self._bursts.setdefault(event, [now, 0, 0])
        if now - burst[0] >= SECOND:
            burst[0], burst[1] = now, 0
        if burst[1] >= BURST:
            burst[2] += 1
            return None
        burst[1] += 1
        suppressed, burst[2] = burst[2], 0
        return suppressed
