"""When a read asks a second owner before the first has answered, and how often it may.

A read that has waited longer than 95 of 100 recent reads of this client is *hedged*: it goes to
the next live owner as well, and the first good answer wins (Dean and Barroso, "The Tail at
Scale", 2013). A slow node then costs a read some milliseconds instead of the time after which a
node counts as silent. The estimate is the 95th percentile of the last `SAMPLES` times from a
question to its answer, not below `DELAY_LEAST_NS`, where scheduling is all that a hedge would
race against, and not above the attempt's time. As long as there are too few samples nothing is
hedged.

Hedges are paid for: every read earns a twentieth of one, and at most `BURST` are saved up. So
they add 5 % to the load of a cluster that is slow as a whole, while one node that stops is gone
round at once until it counts as silent. The answer that comes second is dropped and counted.

Only reads of one key are hedged. A hit counts from whomever it comes, while a replica's unsure
miss waits for the primary's word; see `reads`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from dcc.units import MILLISECOND

SAMPLES = 128
REVIEWED_EVERY = 16
"Samples between two computations of the percentile; 5 µs each."
QUANTILE = 0.95

DELAY_LEAST_NS = 2 * MILLISECOND
READS_PER_HEDGE = 20
BURST = 10


class Hedging:
    """The latency estimate and the budget of one client.

    Samples are taken without the lock: threads that race lose a count, and earn the less.
    """

    def __init__(self, attempt_ns: int, lock: AbstractContextManager[object] | None = None) -> None:
        self.delay_ns: int = attempt_ns
        "How long a read waits before it is hedged."
        self._attempt_ns = attempt_ns
        self.wait_ms: int = -(-attempt_ns // MILLISECOND)
        "How long the hot path waits: the delay in ms, the attempt's time if nothing is saved up."
        self._lock = lock or nullcontext()
        self._samples: list[int] = []
        "The last ones, in a ring."
        self._reads = 0
        self._paid = 0
        "Of the reads so far, those whose share is in `saved`."
        self.saved: float = float(BURST)
        "Hedges that may be sent now."

    def answered(self, latency_ns: int) -> None:
        """Take the time from one question to its answer. O(1), now and then O(SAMPLES)."""
        samples = self._samples
        if len(samples) < SAMPLES:
            samples.append(latency_ns)
        else:
            samples[self._reads % SAMPLES] = latency_ns
        self._reads += 1
        if not self._reads % REVIEWED_EVERY:
            self._review()

    def spend(self) -> bool:
        """Return whether a hedge may be sent now, and take it off the budget if so."""
        with self._lock:
            self._earn()
            if self.saved < 1:
                return False
            self.saved -= 1
            self._set_wait()
        return True

    def _review(self) -> None:
        with self._lock:
            ordered = sorted(self._samples)
            late = ordered[int(len(ordered) * QUANTILE)]
            self.delay_ns = max(DELAY_LEAST_NS, min(late, self._attempt_ns))
            self._earn()
            self._set_wait()

    def _earn(self) -> None:
        reads, self._paid = self._reads - self._paid, self._reads
        self.saved = min(self.saved + reads / READS_PER_HEDGE, BURST)

    def _set_wait(self) -> None:
        wait_ns = self.delay_ns if self.saved >= 1 else self._attempt_ns
        self.wait_ms = -(-wait_ns // MILLISECOND)
