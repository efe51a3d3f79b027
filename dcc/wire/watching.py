"""Messages for clients that keep copies of values; `messages` has them in the table of all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dcc.wire import shapes as s


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Ask a node to publish `Changes` for the next 10 s. Answered by `Watched`; may be repeated."""

    SHAPE: ClassVar = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """Answers `Watch`."""

    SHAPE: ClassVar = (s.U32,)
    every_ms: int
    "Something is published at least so often."


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """For clients that keep copies: keys of which the sender has come to hold a newer version."""

    SHAPE: ClassVar = (s.U64, s.tuple_of(s.U64, 256), s.tuple_of(s.U64, 256), s.U64)
    number: int
    "Of the first of them, counted since the sender's start."
    keys: tuple[int, ...]
    "XXH3-64 of each key's bytes, seed 0; none = nothing has changed."
    stamps: tuple[int, ...]
    "Of the versions, in the same order."
    cleared: int = 0
    "What is stamped up to here is absent everywhere."

    def fits(self) -> bool:
        """Return whether each key has its stamp."""
        return len(self.keys) == len(self.stamps)
