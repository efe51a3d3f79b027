"""What waits for a stopped or slow process: one queue for each connection, served in turn.

A ROUTER and a SUB take one message from each of their connections in turn, so a connection that
sends a great deal keeps its own messages waiting and nobody else's. Each connection has a bound of
its own: the sum over all would let one flood take the room of the others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

WAITING_MAX = 1_000
"Messages of one connection: a ROUTER's high-water mark; what comes beyond is lost here."

Message = TypeVar("Message")


class Inbox(Generic[Message]):
    """Queues by connection.

    >>> inbox = Inbox()
    >>> for who, what in (("a", "a1"), ("a", "a2"), ("b", "b1")):
    ...     assert inbox.put(who, what)
    >>> [inbox.take() for _ in range(3)]
    ['a1', 'b1', 'a2']
    """

    def __init__(self) -> None:
        self._queues: dict[Hashable, deque[Message]] = {}  # in the order of their turns
        self._waiting = 0

    def __len__(self) -> int:
        return self._waiting

    def put(self, connection: Hashable, message: Message) -> bool:
        """Let `message` wait; False when its connection has no room."""
        queue = self._queues.setdefault(connection, deque())
        if len(queue) >= WAITING_MAX:
            return False
        queue.append(message)
        self._waiting += 1
        return True

    def take(self) -> Message:
        """Return the next message; its connection goes behind all others."""
        connection = next(iter(self._queues))
        queue = self._queues.pop(connection)
        message = queue.popleft()
        if queue:
            self._queues[connection] = queue
        self._waiting -= 1
        return message

    def clear(self) -> None:
        """Forget everything: the process has ended."""
        self._queues.clear()
        self._waiting = 0
