"""How this process meets each cluster: the circuit breaker with its probe, and the log.

One `Health` for each cluster and process, whoever asks: what one cache has found out at the price
of a time-out the others need not find out again.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from contextlib import AbstractContextManager

from dcc import Client, DccError, NodeUnavailable
from dcc.client.breaker import PROBE_EVERY_NS, Breaker, Bursts
from dcc.contrib.settings import Settings
from dcc.errors import OperationTimeout
from dcc.units import SECOND

LOGGER = logging.getLogger("dcc.client")

PROBE_TIMEOUT_SECONDS = 1.0


class Health:
    """The breaker of one cluster, a thread that probes while it is open, and what was counted."""

    def __init__(self, nodes: tuple[str, ...], cluster: str) -> None:
        self.counts: Counter[str] = Counter()
        "failed_open, failed_fast, indefinite: calls of this process that ended so."
        self._nodes, self._cluster = nodes, cluster
        self._breaker, self._bursts = Breaker(), Bursts()
        # Re-entrant: a signal handler may use a cache, too.
        self._lock = threading.RLock()
        self._process = os.getpid()
        self._prober: threading.Thread | None = None

    @property
    def open(self) -> bool:
        """Calls fail at once."""
        return self._breaker.open

    @property
    def opened(self) -> int:
        """How often that has begun."""
        return self._breaker.opened

    def check(self) -> int:
        """Return the time, in monotonic ns; NodeUnavailable while the breaker is open."""
        if self._breaker.open:
            with self._own_lock():
                self.counts["failed_fast"] += 1
                self._probe()
            raise NodeUnavailable("the cluster does not answer; it is probed until it does")
        return time.monotonic_ns()

    def answered(self) -> None:
        """Note that a node has answered."""
        if self._breaker.answered(time.monotonic_ns()):
            LOGGER.info("the cluster %s answers again", ",".join(self._nodes))

    def failed(self, error: DccError, began_at: int) -> None:
        """Note how a call that was made at `began_at` has failed."""
        with self._own_lock():
            if not error.definite:
                self.counts["indefinite"] += 1
            if not _is_silence(error):
                self._breaker.answered(time.monotonic_ns())
            elif self._breaker.failed(began_at):
                self._probe()

    def passed_over(self, error: DccError) -> None:
        """Count a call that ended as a miss instead of `error`; the first of a burst is logged."""
        with self._own_lock():
            self.counts["failed_open"] += 1
            first = self._bursts.first(time.monotonic_ns())
        if first:
            state = "; calls fail at once until it answers" if self.open else ""
            LOGGER.warning(
                "the cluster %s is done without: %s: %s%s",
                ",".join(self._nodes), type(error).__name__, error, state,
            )  # fmt: skip

    def _own_lock(self) -> AbstractContextManager[bool]:
        """Return the lock. A child process has one of its own, and none of its parent's threads."""
        if self._process != os.getpid():
            self._lock, self._prober, self._process = threading.RLock(), None, os.getpid()
        return self._lock

    def _probe(self) -> None:
        """Let a thread ask the cluster until it answers; with the lock held."""
        if self._prober is None or not self._prober.is_alive():
            self._prober = threading.Thread(target=self._run, name="dcc-probe", daemon=True)
            self._prober.start()

    def _run(self) -> None:
        with Client(
            self._nodes, timeout=PROBE_TIMEOUT_SECONDS, cluster=self._cluster, name="probe"
        ) as client:
            while self._breaker.open:
                began = time.monotonic_ns()
                try:
                    client.topology()
                except DccError as error:
                    if not _is_silence(error):
                        self.answered()
                else:
                    self.answered()
                if self._breaker.open:
                    left = PROBE_EVERY_NS - (time.monotonic_ns() - began)
                    time.sleep(max(0, left) / SECOND)


def _is_silence(error: DccError) -> bool:
    """Return whether nobody has answered, as far as this error can tell."""
    if isinstance(error, NodeUnavailable):
        return not error.partial
    return isinstance(error, OperationTimeout)


_BY_CLUSTER: dict[tuple[object, ...], Health] = {}


def health_of(settings: Settings) -> Health:
    """Return this process's `Health` of the cluster that `settings` name."""
    key = settings.cluster_key
    return _BY_CLUSTER.get(key) or _BY_CLUSTER.setdefault(
        key, Health(settings.nodes, settings.client.get("cluster", "dcc"))
    )
