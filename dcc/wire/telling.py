"""Messages by which a node tells its own figures; `messages` has them in the table of all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dcc.wire import shapes as s


@dataclass(frozen=True, slots=True, kw_only=True)
class StatsGet:
    """Ask a node for its own statistics. Answered by `StatsReply`; may be repeated."""

    SHAPE: ClassVar = (s.BOOL,)
    hot_keys: bool = False
    "Tell the keys that are read most there, too."


@dataclass(frozen=True, slots=True, kw_only=True)
class StatsReply:
    """Answers `StatsGet`."""

    SHAPE: ClassVar = (s.BLOB,)
    stats: bytes
    "A JSON object with the fields of `NodeStats`."
