"""A mutex of many processes: a lease that ends by itself and is released only by its owner.

It keeps most others away, which is what a cache needs so that a value is made once. It is no lock
for correctness: the two sides of a partition have a holder each, and a lease that has run out is
another's, however busy its former owner still is.
"""

from __future__ import annotations

import secrets
import time

from dcc import DccError
from dcc.contrib.cache import Cache
from dcc.contrib.running import CALLERS_MISTAKES

POLL_SECONDS = 0.05

FREE = b""
"The value of a lease that was given back."

FREE_SECONDS = 1.0
"How long that is remembered; whoever comes meanwhile takes the lease over from it."


class Lease:
    """One lease on `key`, for one holder; make one for each who wants it.

    The cache must store bytes and give them back: any serializer but JSON, or none.
    """

    def __init__(
        self, cache: Cache, key: str, *, seconds: float, poll: float = POLL_SECONDS
    ) -> None:
        self._cache, self._fail_open = cache.strict(), cache.settings.fail_open
        self._key, self._seconds, self._poll = key, seconds, poll
        self._token = secrets.token_bytes(12)

    def acquire(self, wait: bool = True) -> bool:
        """Take the lease; return whether it is ours. Waits for it if told to.

        Where the cluster fails and the cache fails open, the lease is as good as taken: whoever
        wants it does the work, as without a cache.
        """
        while not self._tried():
            if not wait:
                return False
            time.sleep(self._poll)
        return True

    def release(self) -> bool:
        """Give the lease back if it is still ours; return whether it was."""
        try:
            held = self._cache.versioned(self._key)
            if held is None or held[0] != self._token:
                return False
            # Only at that version: between the calls it may have run out and be another's.
            return self._cache.replace(self._key, FREE, version=held[1], ttl=FREE_SECONDS)
        except DccError as error:
            self._pass_over(error)
            return False

    def locked(self) -> bool:
        """Return whether anybody holds it."""
        try:
            held = self._cache.versioned(self._key)
        except DccError as error:
            self._pass_over(error)
            return False
        return held is not None and held[0] != FREE

    def _tried(self) -> bool:
        try:
            if self._cache.add(self._key, self._token, ttl=self._seconds):
                return True
            held = self._cache.versioned(self._key)
            if held is None or held[0] != FREE:
                return False
            return self._cache.replace(self._key, self._token, version=held[1], ttl=self._seconds)
        except DccError as error:
            self._pass_over(error)
            return True

    def _pass_over(self, error: DccError) -> None:
        if not self._fail_open or isinstance(error, CALLERS_MISTAKES):
            raise error
        self._cache.health.passed_over(error)
