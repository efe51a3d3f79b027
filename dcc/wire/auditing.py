"""Messages by which an operator compares copies; `messages` has them in the table of all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dcc.limits import SLOT_COUNT
from dcc.wire import shapes as s


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditGet:
    """Ask one node for the content of some slots, as digests. May be repeated."""

    SHAPE: ClassVar = (s.SLOTS, s.tuple_of(s.U64, SLOT_COUNT))
    slots: tuple[int, ...]
    above: tuple[int, ...] = ()
    "For each slot: only what is stamped above this is to be read. Empty: everything."

    def fits(self) -> bool:
        """Return whether there are as many stamps as slots, or none."""
        return len(self.above) in (0, len(self.slots))


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReply:
    """Answers `AuditGet`, in the order of its slots. Read from the data itself, so it is slow."""

    SHAPE: ClassVar = (
        s.tuple_of(s.U64, SLOT_COUNT), s.tuple_of(s.U64, SLOT_COUNT),
        s.tuple_of(s.U32, SLOT_COUNT), s.tuple_of(s.U32, SLOT_COUNT),
        s.tuple_of(s.U64, SLOT_COUNT),
    )  # fmt: skip
    content: tuple[int, ...]
    "Hash over key and version of every value that a get would find; 0 = none."
    seen: tuple[int, ...]
    "Digest of what was seen, as in `Compare`."
    items: tuple[int, ...]
    "Values that a get would find."
    ghosts: tuple[int, ...]
    "Versions whose value was evicted here: the legal reason for content to differ."
    forgotten: tuple[int, ...] = ()
    "Stamps up to which what was evicted may have been forgotten; 0 = nothing was."

    def fits(self) -> bool:
        """Return whether all tell of the same slots; an older node says nothing of `forgotten`."""
        count = len(self.content)
        known = len(self.forgotten) in (0, count)
        return known and count == len(self.seen) == len(self.items) == len(self.ghosts)
