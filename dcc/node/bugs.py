"""Bugs of the core that the node survives: counted by place, logged once for each."""

from __future__ import annotations

import os
import traceback

from dcc.node.logs import Log

BUGS_MAX = 64
"Places of bugs that are told apart."


class Bugs:
    """The bugs of one process."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._counts: dict[str, int] = {}

    @property
    def total(self) -> int:
        """How often any was met."""
        return sum(self._counts.values())

    def note(self, error: Exception) -> None:
        """Count a bug; log it with its traceback the first time."""
        where = traceback.extract_tb(error.__traceback__)[-1]
        kind = f"{type(error).__name__} at {os.path.basename(where.filename)}:{where.lineno}"
        if kind not in self._counts and len(self._counts) >= BUGS_MAX:
            kind = "others"
        known = kind in self._counts
        self._counts[kind] = self._counts.get(kind, 0) + 1
        if not known:
            text = "".join(traceback.format_exception(error))
            self._log("bug", {"kind": kind, "traceback": text})
