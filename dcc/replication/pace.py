"""How fast copies move: bytes a second at most, and little of the loop's time while clients wait.

A node that takes over slots has two jobs: to pull them, and to serve. What a pull costs depends
on the machine, on what else it runs and on the size of the records, so it is not guessed but seen:
the time from a pull's answer to the end of that turn of the loop. While clients are served, nothing
more is pulled for 19 times as long: a twentieth of the loop (`--move-share`), and about as much of
the answerer's, which works nearly as long for each answer.
Where other processes want the same processor, turns take longer and the pauses grow with them, up
to a bound: copies that were lost have to come back on a machine without time to spare, too. Nor are
two peers asked at once then: they would work at the same time, and their answers come together.
An answerer says whether it serves clients, because a pull costs it as much time. Between nodes that
serve no clients pulls go as fast as they can, up to the rate.

In the simulator a turn takes no time, so only the rate counts there.
"""

from __future__ import annotations

from dcc.units import MILLISECOND, NEVER, SECOND

PAUSE_MAX_NS = 30 * MILLISECOND
"The longest pause: 30 answers a second, 32 records each, or as many as turns leave time for."

ANSWER_NS = 20 * MILLISECOND
"How long the next peer waits for the answer of the one before, while clients are served."

SERVING_NS = 1 * SECOND
"Clients count as being served for this long after the last request."


class Pace:
    """When the next pull may go out; all times are monotonic ns.

    While clients are served, pulls may take `share_percent` of the loop's time.
    """

    __slots__ = (
        "_answer_by", "_arrived_at", "_bytes_per_second", "_free_at", "_others_until", "_served",
        "_serving_until", "_share_percent",
    )  # fmt: skip

    def __init__(self, bytes_per_second: int, share_percent: int) -> None:
        assert 0 < share_percent <= 100
        self._share_percent = share_percent
        self._bytes_per_second = bytes_per_second
        self._arrived_at = NEVER
        self._served = 0
        self._serving_until = self._others_until = 0
        self._free_at = 0
        self._answer_by = 0

    @property
    def free_at(self) -> int:
        """Before then nothing more is pulled."""
        return max(self._free_at, self._answer_by)

    @property
    def open(self) -> bool:
        """Whether a turn took an answer and has not ended yet."""
        return self._arrived_at != NEVER

    def asked(self, now: int) -> None:
        """Note a pull that goes out."""
        if self._paced(now):
            self._answer_by = now + ANSWER_NS

    def serves(self, now: int) -> bool:
        """Return whether this node has served clients lately."""
        return now < self._serving_until

    def arrived(self, size: int, now: int, *, serving: bool) -> None:
        """Note an answer of `size` bytes that is about to be taken; its sender may be `serving`."""
        self._answer_by = 0
        if serving:
            self._others_until = now + SERVING_NS
        self._free_at = max(self._free_at, now) + size * SECOND // self._bytes_per_second
        self._arrived_at = min(self._arrived_at, now)

    def turned(self, served: int, now: int) -> None:
        """End a turn; `served` is the number of requests from clients so far."""
        if served != self._served:
            self._served, self._serving_until = served, now + SERVING_NS
        if self.open:
            took, self._arrived_at = now - self._arrived_at, NEVER
            if self._paced(now):
                pause = took * (100 - self._share_percent) // self._share_percent
                self._free_at = max(self._free_at, now + min(pause, PAUSE_MAX_NS))

    def _paced(self, now: int) -> bool:
        # Kept apart: two nodes that pull from each other must not take each other for busy.
        return now < max(self._serving_until, self._others_until)
