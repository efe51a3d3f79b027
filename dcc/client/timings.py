"""How long one client's calls have taken: a histogram for each command.

Counting a call costs a shift and two additions: bounds are powers of two, so the bucket is the
length of a number. Threads that race lose a call in a count, no more.
"""

from __future__ import annotations

from itertools import accumulate

from dcc.client.results import Latency
from dcc.units import SECOND

COMMANDS = (
    "get", "get_many", "put", "add", "replace", "delete", "touch", "incr", "write_many", "other",
)  # fmt: skip
"Those of the node's metrics; all that is no read or write is `other`."

FIRST_BOUND_BITS = 14
BOUNDS_NS = tuple(1 << bits for bits in range(FIRST_BOUND_BITS, 35))
"From 16 µs, less than any answer over a network takes, to 17 s, above all usual time-outs."

_LAST = len(BOUNDS_NS)


class Timings:
    """The durations of the calls that have ended, whether well or not.

    >>> timings = Timings()
    >>> for microseconds in (90, 100, 110, 3000):
    ...     timings.observe("get", microseconds * 1000)
    >>> timings.latencies()["get"].count, timings.latencies()["get"].quantile(0.5)
    (4, 0.000131072)
    """

    __slots__ = ("_buckets", "_sums_ns")

    def __init__(self) -> None:
        self._buckets = {command: [0] * (_LAST + 1) for command in COMMANDS}
        self._sums_ns = dict.fromkeys(COMMANDS, 0)

    def observe(self, command: str, duration_ns: int, times: int = 1) -> None:
        """Count a call, or several that ended together; O(1)."""
        place = (duration_ns >> FIRST_BOUND_BITS).bit_length()
        self._buckets[command][place if place < _LAST else _LAST] += times
        self._sums_ns[command] += duration_ns * times

    def latencies(self) -> dict[str, Latency]:
        """Return the histograms of the commands that were used."""
        found = {}
        for command, buckets in self._buckets.items():
            up_to = tuple(accumulate(buckets))
            if up_to[-1]:
                bounds = zip(BOUNDS_NS, up_to, strict=False)
                found[command] = Latency(
                    count=up_to[-1],
                    sum=self._sums_ns[command] / SECOND,
                    buckets=tuple((bound / SECOND, count) for bound, count in bounds),
                )
        return found
