"""Conversations as text: every message that nodes and a client exchange, in order and in full.

A transcript is a golden file: a test holds a conversation on virtual time and compares it with the
file, so that no message changes unnoticed; the documents show the same file. `DCC_GOLDEN=write`
writes it anew.

    +0.020 s   client -> a   Get
                 key          key-3

The first line of a message says when, from whom, to whom and what; one line follows for each field
that is not at its default. Numbers are told by what they are: a node's key by its name, a stamp or
a boot by the time since the transcript began and a count. Digests and other long numbers, of which
only counts whether they are equal, are `#1`, `#2` and so on, in the order in which they appear.
Headers are left out, and of structures what is empty or false.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import MISSING, fields
from enum import Enum
from itertools import groupby, pairwise
from typing import Any

from dcc.types import NO_VERSION, Version
from dcc.wire.messages import Message
from tests.support.paths import GOLDEN
from tests.support.wired_cores import START_MS, Cores

SHOWN_MAX = 4
"Items of a list of numbers that are told one by one, even if they are equally far apart."

LONG_MIN = 1 << 40
"No count, length or number of a slot is as large; stamps and boots are known by their time."

FAR_MS = 1_000_000_000
"Nothing happens so long after the start."


class Transcript:
    """Notes what is said in a cluster while it is open; `kinds` limits it to some messages."""

    def __init__(self, cores: Cores, *kinds: type[Any]) -> None:
        self._cores, self._kinds = cores, kinds
        self._from_ms = cores.ms
        self._long: dict[int, str] = {}
        self.lines: list[str] = []

    def __enter__(self) -> Transcript:
        self._cores.overheard = self._note
        return self

    def __exit__(self, *_error: object) -> None:
        self._cores.overheard = None

    def say(self, text: str) -> None:
        """Add a line that says what happens beside the messages."""
        self.lines += ["", f"== {text}", ""]

    def _note(self, source: str, target: str, message: Message, arrives: bool) -> None:
        if self._kinds and not isinstance(message, self._kinds):
            return
        seconds = (self._cores.ms - self._from_ms) / 1000
        arrow = "->" if arrives else "-x"
        self.lines.append(
            f"+{seconds:.3f} s   {source} {arrow} {target}   {type(message).__name__}"
        )
        for field in fields(message):
            value = getattr(message, field.name)
            if field.default is MISSING or value != field.default:
                self.lines += self._field(field.name, value)

    def _field(self, name: str, value: Any) -> Iterator[str]:
        told = list(self._items(value))
        for i, text in enumerate(told):
            yield f"             {name if i == 0 else '':<14}{text}".rstrip()

    def _items(self, value: Any) -> Iterator[str]:
        """Yield the lines of a field's value."""
        if not isinstance(value, tuple) or hasattr(value, "_fields"):
            yield self._told(value)
        elif not value:
            yield "none"
        elif all(isinstance(item, int) for item in value):
            yield self._list(value)
        else:
            yield from (self._told(item) for item in value)

    def _list(self, value: tuple[Any, ...]) -> str:
        """Return a list in full: what stands there in a row is told once, as are equal steps."""
        steps = {later - one for one, later in pairwise(value)} if len(value) > SHOWN_MAX else ()
        if len(steps) == 1 and steps != {0}:
            first, second, last = value[0], value[1], value[-1]
            return f"{first}, {second}, … {last}"
        runs = [(self._told(item), len(list(same))) for item, same in groupby(value)]
        return ", ".join(told if count == 1 else f"{count} times {told}" for told, count in runs)

    def _told(self, value: Any) -> str:
        """Return one value in words."""
        if isinstance(value, Enum):
            return value.name
        if isinstance(value, bytes):
            return value.decode("ascii", "backslashreplace") or "empty"
        if isinstance(value, Version):
            return self._version(value)
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return self._named(value)
        if isinstance(value, tuple):
            return f"({self._list(value)})" if value else "none"
        if isinstance(value, int) and not isinstance(value, bool):
            return self._number(value)
        return str(value)

    def _named(self, value: Any) -> str:
        defaults = type(value)._field_defaults
        told = []
        for name, item in zip(value._fields, value, strict=True):
            if item is not False and item not in (b"", "", (), defaults.get(name)):
                words = self._told(item)
                told.append(words if words.startswith(f"{name} of ") else f"{name} {words}")
        return ", ".join(told)

    def _version(self, version: Version) -> str:
        if version == NO_VERSION:
            return "none"
        return f"{self._number(version.stamp)} by {self._number(version.node)}"

    def _number(self, number: int) -> str:
        """Return a number by what it is, see the opening."""
        for name, core in self._cores.nodes.items():
            if number == core.key:
                return name
            if number == core.boot:
                return f"boot of {name}"
        if abs(number - START_MS) < FAR_MS:
            return self._since(number)
        if abs((number >> 16) - START_MS) < FAR_MS:
            return f"{self._since(number >> 16)}/{number & 0xFFFF}"
        if number >= LONG_MIN:
            return self._long.setdefault(number, f"#{len(self._long) + 1}")
        return str(number)

    def _since(self, ms: int) -> str:
        return f"{(ms - self._from_ms) / 1000:+.3f} s"


def check(name: str, transcript: Transcript) -> None:
    """Assert that the transcript is the golden one; `DCC_GOLDEN=write` makes it so."""
    path = GOLDEN / "transcripts" / f"{name}.txt"
    text = "\n".join(transcript.lines).strip() + "\n"
    if os.environ.get("DCC_GOLDEN") == "write":
        path.write_text(text, "utf-8")
    assert text == path.read_text("utf-8")
