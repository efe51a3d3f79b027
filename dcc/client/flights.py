"""What a client with many calls at a time has collected, and what it has under way.

A `Turn` collects the calls that are made in one turn of an event loop. They have one deadline,
that of the first of them. A `Question` is a get, or gets of one node, sent on the hot path; at the
first surprise it becomes a `Flight`: one call of the core and who waits for its outcome.

Who waits is known by two methods only, those of a Future. An outcome is a result; errors are
results, too, which the caller's own method raises. So a call that nobody waits for any more,
because it was cancelled, leaves no exception behind that was never looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from dcc.client.calls import Call, Operation
from dcc.client.groups import WRITE_CHUNK_KEYS
from dcc.errors import DccError
from dcc.limits import BATCH_BYTES
from dcc.types import Now, Stamp
from dcc.wire.messages import Status, Write


class Waiter(Protocol):
    """Who waits for an outcome; a Future is one."""

    def done(self) -> bool: ...
    def set_result(self, result: Any, /) -> None: ...


TOGETHER_BYTES = BATCH_BYTES
"A larger value is put by a message of its own: no small one shall wait behind it."

Gets = tuple[list[bytes], list[Waiter]]
"Keys, and who waits for each; a key may stand there more than once."


def settle(waiter: Waiter, outcome: object) -> None:
    """Tell the outcome to who waits for it, if anybody still does."""
    if not waiter.done():
        waiter.set_result(outcome)


class Turn:
    """Calls that are made, and not yet on their way."""

    __slots__ = ("deadline", "keys", "operations", "readers", "writes")

    def __init__(self, deadline: int) -> None:
        self.deadline: int = deadline
        self.keys: list[bytes] = []
        self.readers: list[Waiter] = []
        "Who waits for the values of `keys`, in the same order."
        self.writes: list[tuple[Write, Waiter]] = []
        "Puts."
        self.operations: list[tuple[Operation, Waiter]] = []
        "All else."

    def __len__(self) -> int:
        return len(self.keys) + len(self.writes) + len(self.operations)

    def split(self, count: int) -> Turn:
        """Return a turn with `count` of these calls at most, which are no longer here."""
        part = Turn(self.deadline)
        part.keys, self.keys = self.keys[:count], self.keys[count:]
        part.readers, self.readers = self.readers[:count], self.readers[count:]
        count -= len(part)
        part.writes, self.writes = self.writes[:count], self.writes[count:]
        count -= len(part.writes)
        part.operations, self.operations = self.operations[:count], self.operations[count:]
        return part

    def drop_given_up(self) -> None:
        """Forget the calls that nobody waits for any more."""
        if any(reader.done() for reader in self.readers):
            pairs = zip(self.keys, self.readers, strict=True)
            kept = [(key, reader) for key, reader in pairs if not reader.done()]
            self.keys = [key for key, _ in kept]
            self.readers = [reader for _, reader in kept]
        self.writes = [one for one in self.writes if not one[1].done()]
        self.operations = [one for one in self.operations if not one[1].done()]

    def waiters(self) -> list[Waiter]:
        """Return all who wait."""
        return [
            *self.readers,
            *(waiter for _, waiter in self.writes),
            *(waiter for _, waiter in self.operations),
        ]


class Question:
    """Plain gets on their way to one node, as one message."""

    __slots__ = ("address", "deadline", "direct", "keys", "known", "request", "sent", "waiters")

    def __init__(
        self,
        address: str,
        request: int,
        gets: Gets,
        sent: Now,
        deadline: int,
        known: Stamp,
        direct: bool,
    ) -> None:
        self.address: str = address
        self.request: int = request
        self.keys: list[bytes] = gets[0]
        self.waiters: list[Waiter] = gets[1]
        self.sent: Now = sent
        self.deadline: int = deadline
        self.known: Stamp = known
        "`known` is the newest stamp that was known of a lone key by then."
        self.direct: bool = direct
        "The node was asked as a holder, because there are hot keys among them."

    @property
    def is_wanted(self) -> bool:
        """Whether anybody still waits."""
        return not all(waiter.done() for waiter in self.waiters)


class Flight:
    """One call of the core, for one caller or for many."""

    __slots__ = (
        "by_key",
        "call",
        "command",
        "number",
        "outcome_of",
        "requests",
        "waiter",
        "weight",
    )

    def __init__(
        self,
        call: Call,
        number: int,
        *,
        command: str = "get",
        waiter: Waiter | None = None,
        outcome_of: Callable[[Call], object] = lambda call: call,
        by_key: dict[bytes, list[Waiter]] | None = None,
    ) -> None:
        self.call: Call = call
        self.number: int = number
        self.command: str = command
        self.waiter: Waiter | None = waiter
        self.outcome_of: Callable[[Call], object] = outcome_of
        "A call of one caller, and what to tell it at the end."
        self.by_key: dict[bytes, list[Waiter]] = by_key or {}
        "A call of many keys: who waits for each that is not settled."
        self.weight: int = len(self.waiters())
        "Calls that it is, as the bound counts them."
        self.requests: dict[int, None] = {}
        "Numbers under which answers to it may come."

    def waiters(self) -> list[Waiter]:
        """Return all who still wait, or have given up."""
        if self.waiter is not None:
            return [self.waiter]
        return [one for waiters in self.by_key.values() for one in waiters]

    @property
    def is_wanted(self) -> bool:
        """Whether anybody still waits."""
        return not all(waiter.done() for waiter in self.waiters())


def grouped(keys: Sequence[bytes], waiters: Sequence[Waiter]) -> dict[bytes, list[Waiter]]:
    """Return who waits for each key."""
    by_key: dict[bytes, list[Waiter]] = {}
    for key, waiter in zip(keys, waiters, strict=True):
        by_key.setdefault(key, []).append(waiter)
    return by_key


def value_of(call: Call) -> object:
    """Return the value that a get found, None if the key is absent, or its error."""
    try:
        reply = call.outcome()
    except DccError as error:
        return error
    return reply.value if reply.status is Status.HIT else None


def version_of(call: Call) -> object:
    """Return the version that a put wrote, or its error."""
    try:
        return call.outcome().version
    except DccError as error:
        return error


def together(writes: list[tuple[Write, Waiter]]) -> list[list[tuple[Write, Waiter]]]:
    """Return puts by the messages that can hold them, in order for each key.

    Those of one message agree in ttl and w and have different keys.
    """
    groups: list[list[tuple[Write, Waiter]]] = []
    open_groups: dict[tuple[int, int], tuple[list[tuple[Write, Waiter]], set[bytes]]] = {}
    for write, waiter in writes:
        if len(write.value) >= TOGETHER_BYTES:
            groups.append([(write, waiter)])
            continue
        kind = (write.ttl_ms, write.w)
        group, keys = open_groups.get(kind, ([], set()))
        if not group or write.key in keys or len(group) >= WRITE_CHUNK_KEYS:
            group, keys = open_groups[kind] = ([], set())
            groups.append(group)
        group.append((write, waiter))
        keys.add(write.key)
    return groups


def refuse(turn: Turn, error: DccError) -> None:
    """Tell all who wait in `turn` that nothing of it was sent."""
    for waiter in turn.waiters():
        settle(waiter, error.again())
