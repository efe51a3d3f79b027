"""Runs a test that is a coroutine, on asyncio's own loop and on uvloop's, and watches what is left.

A test fails if anything reaches the loop's exception handler or asyncio's logger meanwhile: an
exception that nobody retrieved, a task that was forgotten, a callback that raised.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


class _Records(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith("dcc.node"):  # Nodes that are threads of this process.
            self.messages.append(record.getMessage())


def run_watched(coroutine: Coroutine[Any, Any, None], kind: str) -> None:
    """Run a coroutine to its end; AssertionError if it leaves anything behind."""
    told: list[str] = []
    records, root = _Records(), logging.getLogger()
    root.addHandler(records)
    try:
        with asyncio.Runner(loop_factory=LOOPS[kind]) as runner:
            loop = runner.get_loop()
            loop.set_exception_handler(lambda _, context: told.append(str(context)))
            runner.run(coroutine)
            gc.collect()
            runner.run(asyncio.sleep(0))
            assert not asyncio.all_tasks(loop), "a task was left behind"
        gc.collect()
    finally:
        root.removeHandler(records)
    assert told + records.messages == []
