"""What one node counts: plain integers on the hot path, ratios and rates when somebody asks."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from itertools import accumulate

from dcc.units import MICROSECOND, SECOND

COMMANDS = ("get", "put", "add", "replace", "delete", "touch", "incr", "get_many", "write_many")

BOUNDS_NS = tuple(int(10 * MICROSECOND * 10 ** (i / 5)) for i in range(31))
"Upper bounds of the latency buckets: 10 µs to 10 s, five to a decade."

RATE_WINDOW_NS = 10 * SECOND


class Latency:
    """A histogram of durations with fixed buckets; quantiles are exact to a bucket (58 %)."""

    __slots__ = ("buckets", "count", "sum_ns")

    def __init__(self) -> None:
        self.buckets: list[int] = [0] * (len(BOUNDS_NS) + 1)
        self.count: int = 0
        self.sum_ns: int = 0

    def observe(self, duration_ns: int, times: int = 1) -> None:
        """Count a duration `times` times; O(log buckets)."""
        self.buckets[bisect_left(BOUNDS_NS, duration_ns)] += times
        self.count += times
        self.sum_ns += duration_ns * times

    def quantile(self, q: float) -> float:
        """Return the q-quantile in seconds, an upper bound; 0.0 when nothing was counted.

        >>> latency = Latency()
        >>> latency.observe(9_000)
        >>> latency.quantile(0.5)
        1e-05
        """
        if not self.count:
            return 0.0
        for bound, below in zip(BOUNDS_NS, accumulate(self.buckets), strict=False):
            if below >= q * self.count:
                return bound / SECOND
        return BOUNDS_NS[-1] / SECOND


class Load:
    """What the shell tells of itself while it runs."""

    def __init__(self) -> None:
        self.replies_bytes = 0
        "Of replies that clients have not taken yet."
        self.loop_lag_ns = 0
        "How late the loop turned lately."


class Counters:
    """Requests, hits, misses, drops of one node since its start."""

    def __init__(self) -> None:
        self.commands: dict[str, int] = dict.fromkeys(COMMANDS, 0)
        self.hits = self.misses = self.unsure = 0
        self.errors: dict[str, int] = {}
        "Refusals by the name of their code."
        self.dropped: dict[str, int] = {}
        "Messages dropped by reason."
        self.latency: dict[str, Latency] = {command: Latency() for command in COMMANDS}
        self.flaps = 0
        "Members that came back after they had been believed suspect or dead."
        self.conflicts = 0
        "Writes that came by replication and lost to another node's write, unseen before."
        self._history: deque[tuple[int, dict[str, int]]] = deque()

    @property
    def served(self) -> int:
        """Requests of clients so far."""
        return sum(self.commands.values())

    def drop(self, reason: str) -> None:
        """Count a dropped message."""
        self.dropped[reason] = self.dropped.get(reason, 0) + 1

    def refuse(self, code: str) -> None:
        """Count a refused request."""
        self.errors[code] = self.errors.get(code, 0) + 1

    def remember(self, mono: int) -> None:
        """Keep the present counts for `rates`; called about once a second."""
        self._history.append((mono, dict(self.commands)))
        while len(self._history) > 2 and self._history[1][0] <= mono - RATE_WINDOW_NS:
            self._history.popleft()

    def rates(self, mono: int) -> dict[str, float]:
        """Return requests per second by command over about the last ten seconds."""
        if not self._history or mono <= self._history[0][0]:
            return dict.fromkeys(self.commands, 0.0)
        then, before = self._history[0]
        seconds = (mono - then) / SECOND
        return {name: (n - before[name]) / seconds for name, n in self.commands.items()}
