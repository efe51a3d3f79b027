"""What the clients saw: one entry for each call, with what it asked and how it ended.

A call ends *ok*, *failed* (definite: it never happened and never will) or *unknown* (it may have
happened, or may yet). A call whose client died is unknown. Checkers read nothing else of the
outside of the system.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from dcc.types import NO_VERSION, Version
from simulations.answers import Answer


class Violation(NamedTuple):
    """A promise that a run broke."""

    promise: str
    text: str
    at_ns: int = 0


class End(Enum):
    """How a call ended."""

    OPEN = "open"
    OK = "ok"
    FAILED = "failed"
    UNKNOWN = "unknown"


READING = ("get", "scan", "converged", "copies")
"Verbs that change no key."


@dataclass(slots=True, kw_only=True)
class Entry:
    """One call of one client. Times are world ns."""

    client: str
    verb: str
    "get, put, add, replace, delete, touch, incr; of all keys: clear, scan, converged, copies."
    key: bytes
    life: int = 1
    "Of the client's process; a new one has forgotten all."
    value: bytes = b""
    "What a write wanted to store; every value in a history is unique."
    w: int = 1
    r: int = 1
    "Owners whose word a get wanted; 0 is quorum, 255 all."
    ttl_ms: int = 0
    invoked_ns: int = 0
    deadline_ns: int = 0
    ended_ns: int = 0
    end: End = End.OPEN
    error: str = ""
    "Name of the error's class, when there was one."
    status: str = ""
    "Of an ok get: hit, miss or unsure. Of another ok call: done or not done."
    found: bytes | None = None
    "What a get found."
    version: Version = NO_VERSION
    "Written, or found; of a clear the first above all that it made absent."
    number: int = 0
    "Of an incr the sum; of copies how many there are to be beyond the primary."
    listed: tuple[bytes, ...] = ()
    "What a scan of the prefix `key` has listed."
    answer: Answer | None = None
    "Of an ok get: which node gave this answer, and what it could have known."
    told: tuple[Answer, ...] = ()
    "The same of each key that an ok scan has listed, by every node that listed it as present."

    @property
    def writes(self) -> bool:
        """Whether the call may have changed anything.

        A delete where nobody knew of a value, and not all could be asked, leaves a tombstone.
        """
        if self.verb in READING or self.end is End.FAILED:
            return False
        unsure = self.verb == "delete" and self.version != NO_VERSION
        return unsure or self.status != "not done"

    def __str__(self) -> str:
        began, ended = self.invoked_ns / 1e9, self.ended_ns / 1e9
        what = f"{self.client} {self.verb} {self.key.decode()} {self.value[:16]!r} w={self.w}"
        found = b"" if self.found is None else self.found[:16]
        how = f"{self.end.value} {self.error}{self.status} {self.version} {found!r}"
        return f"[{began:.6f} … {ended:.6f}] {what} -> {how}"


History = list[Entry]
