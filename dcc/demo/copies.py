"""How complete the copies are, seen from outside: each owner is asked what it holds of each page.

The question is `Client.inspect`. A page is *whole* when every owner that the cluster's ring names
for it now answers with the same, newest version. After a crash that is not so for two reasons, and
becomes so again only when both are over: the dead member must be out of the ring, and the next
owners must have got their copies. Pages that nobody holds any more (their time is over) do not
count, neither way.

A watch looks at all pages, then again and again at those that were not whole, and is complete when
a last look at all of them finds no other. Its time is when the last page was first seen whole.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping

from dcc import Client, DccError, Entry

VALUELESS = ("tombstone", "evicted", "expired")
"How `inspect` begins its text for a record without a value; other texts are failures to answer."


class Watch:
    """Looks at the copies of some keys until all are whole."""

    def __init__(self, client: Client, keys: Iterable[str]) -> None:
        self._client = client
        self._keys = sorted(keys)
        self._queue = deque(self._keys)
        self._full_pass = True
        self._broken: set[str] = set()
        self._changed_at = time.monotonic()
        self.complete_at: float | None = None
        "When the last key was first seen whole (monotonic seconds); None: not all are, or unsure."

    @property
    def whole_share(self) -> float:
        """Share of the keys that were whole when last looked at."""
        return 1 - len(self._broken) / max(1, len(self._keys))

    def step(self, seconds: float) -> None:
        """Look at some more keys, for about so long."""
        until = time.monotonic() + seconds
        while self.complete_at is None and time.monotonic() < until:
            if self._queue:
                self._look(self._queue.popleft())
            else:
                self._turn()

    def _look(self, key: str) -> None:
        try:
            held = self._client.inspect(key)
        except DccError:
            self._broken.add(key)
            return
        if not whole(held):
            self._broken.add(key)
        elif key in self._broken:
            self._broken.remove(key)
            self._changed_at = time.monotonic()

    def _turn(self) -> None:
        if self._full_pass and not self._broken:
            self.complete_at = self._changed_at
        # Those that were not whole first; when they are, everything once more.
        self._full_pass = not self._broken
        self._queue.extend(sorted(self._broken) or self._keys)


def whole(held: Mapping[str, Entry | str | None]) -> bool:
    """Return whether all owners answered, and all with the same version or all without a value.

    >>> whole({"a": None, "b": "expired 1-2-3"}), whole({"a": None, "b": "unreachable"})
    (True, False)
    """
    versions = {one.version for one in held.values() if isinstance(one, Entry)}
    without = [one for one in held.values() if not isinstance(one, Entry)]
    if versions:
        return len(versions) == 1 and not without
    return all(one is None or one.startswith(VALUELESS) for one in without)
