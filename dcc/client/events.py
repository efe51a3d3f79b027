"""What happens to one client beside the results of its calls: counted, logged, told to a hook.

A library configures no logging: the logger `dcc` gets a handler that does nothing, so that nothing
is printed where the program has set up nothing. Events are worth a line at the level DEBUG only,
since who makes a call learns of its failure by an error.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from dcc.client.keywords import EventHook
from dcc.errors import DccError

logging.getLogger("dcc").addHandler(logging.NullHandler())
LOGGER = logging.getLogger("dcc.client")

_NONE: Mapping[str, Any] = {}


class Events:
    """Counts by name: events, and the classes of the errors that calls ended with."""

    __slots__ = ("_hook", "counts")

    def __init__(self, hook: EventHook | None = None) -> None:
        if hook is not None and not callable(hook):
            raise TypeError(f"on_event: a function, got {type(hook).__name__}")
        self.counts: dict[str, int] = {}
        self._hook = hook

    def note(self, event: str, fields: Mapping[str, Any] = _NONE) -> None:
        """Count an event and tell it; a race between threads may lose one, no more."""
        self._count(event)
        self._tell(event, fields)

    def failed(self, error: DccError) -> None:
        """Count an error that a call ends with, and tell it as the event `call_failed`."""
        name = type(error).__name__
        self._count(name)
        self._tell("call_failed", {"error": name, "reason": str(error)})

    def heir(self) -> Events:
        """Return the same for a child process, with nothing counted yet."""
        return Events(self._hook)

    def _count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1

    def _tell(self, event: str, fields: Mapping[str, Any]) -> None:
        if LOGGER.isEnabledFor(logging.DEBUG):
            LOGGER.debug("%s %s", event, dict(fields))
        if self._hook is None:
            return
        try:
            self._hook(event, fields)
        except Exception:
            # What a program watches with must not change how its calls end.
            LOGGER.exception("the hook for events failed at %s", event)
