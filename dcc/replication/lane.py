"""One connection's worth of a replication stream: what waits, and what is on its way.

What was sent on a connection arrives in its order or, once the connection broke, not at all. So a
batch is *lost* only when the peer has acknowledged something that was sent after it, or when it
could not be sent at all; until then it may still be on its way, however long that takes, and is
not sent again. Where nothing follows a batch by itself, a batch without records is sent after it
to find out: a *probe*, a few bytes, after pauses that double.

    waiting -> on its way -> acknowledged
                  |  ^
                  v  | a pause later
                 lost -> dropped, `GIVE_UP_NS` after its first sending
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile

from dcc.limits import BATCH_BYTES, EXTRA_FRAMES_MAX, INLINE_VALUE_BYTES_MAX
from dcc.types import Record
from dcc.units import MILLISECOND, NEVER, SECOND

RECORD_OVERHEAD_BYTES = 64
"Version, expiry, predecessor and msgpack's marks around a record."

BATCH_RECORDS_MAX = 1_000
WINDOW_BATCHES = 16
"""Batches in flight on one connection, and their bytes as this many full ones, or one larger
record; more would only move the queue into ZeroMQ, where a slow link drains it in seconds."""

RESEND_NS = 500 * MILLISECOND
"Between two sendings of a batch."

PROBE_FIRST_NS = 500 * MILLISECOND
PROBE_MOST_NS = 4 * SECOND
"How long silence lasts before a probe is sent; it doubles with each."
PROBES_MAX = 16
"Probes remembered; the oldest is forgotten beyond."


def record_bytes(record: Record) -> int:
    """Return about how many bytes `record` takes in a message."""
    return len(record.key) + len(record.value) + RECORD_OVERHEAD_BYTES


@dataclass(slots=True)
class Batch:
    """Records that were sent under one number."""

    records: tuple[Record, ...]
    first_sent_at: int
    bytes: int
    order: int = 0
    "Its place among all that this lane has sent."
    lost: bool = False
    "It is not on its way any more, or never was."
    moved: bool = False
    "The peer has the records, but not as an owner or stand-in."
    resend_at: int = 0
    "When it is sent again if it is lost by then."


class Lane:
    """Records for one peer over one connection; numbers of batches are the caller's."""

    __slots__ = ("_order", "_probe_at", "_probes", "_silence_ns", "bytes", "flight", "queue")

    def __init__(self) -> None:
        self.queue: deque[tuple[Record, int, int]] = deque()  # bytes, and when it came, ns
        self.flight: dict[int, Batch] = {}
        "By number, in the order of their last sending."
        self.bytes: int = 0
        "Of all records queued and in flight."
        self._order = 0
        self._probes: dict[int, int] = {}  # number -> order
        self._probe_at = NEVER
        self._silence_ns = PROBE_FIRST_NS

    def put(self, record: Record, size: int, mono: int) -> None:
        """Let a record of `size` bytes wait for its turn."""
        self.queue.append((record, size, mono))
        self.bytes += size

    def cut(self, mono: int) -> Batch | None:
        """Return the next batch, its records taken off the queue; None if it must wait."""
        queue, flight = self.queue, self.flight
        if len(flight) >= WINDOW_BATCHES:
            return None
        room = WINDOW_BATCHES * BATCH_BYTES - sum([batch.bytes for batch in flight.values()])
        records: list[Record] = []
        taken = large = 0
        while queue and len(records) < BATCH_RECORDS_MAX:
            record, size, _ = queue[0]
            large += len(record.value) >= INLINE_VALUE_BYTES_MAX
            if records and (taken + size > BATCH_BYTES or large > EXTRA_FRAMES_MAX):
                break
            if flight and taken + size > room:
                break
            taken += size
            records.append(record)
            queue.popleft()
        return Batch(tuple(records), mono, taken) if records else None

    def sent(self, number: int, batch: Batch, mono: int) -> None:
        """Note that a batch goes out now, for the first time or again."""
        self._order += 1
        batch.order, batch.lost, batch.moved = self._order, False, False
        batch.resend_at = mono + RESEND_NS
        self.flight.pop(number, None)
        self.flight[number] = batch
        self._probe_at = mono + self._silence_ns  # What is sent now says as much as a probe.

    def knows(self, number: int) -> bool:
        """Return whether a batch or probe of that number is not acknowledged yet."""
        return number in self.flight or number in self._probes

    def answered(self, number: int, mono: int) -> Batch | None:
        """Take an acknowledgement: its batch, if it still was one. What was sent before is lost."""
        self._silence_ns = PROBE_FIRST_NS
        batch = self.flight.pop(number, None)
        order = batch.order if batch else self._probes.pop(number, 0)
        for other in takewhile(lambda one: one.order < order, self.flight.values()):
            other.lost = True
        if self._probes:
            self._probes = {n: place for n, place in self._probes.items() if place > order}
        self._expect(mono)
        return batch

    def unsent(self, number: int) -> None:
        """Note that a batch could not be queued for the peer: nothing of it is on its way."""
        batch = self.flight.get(number)
        if batch is not None:
            batch.lost = True

    def overdue(self, mono: int) -> Iterator[tuple[int, Batch]]:
        """Yield what is lost and may be sent again now, or has to be dropped."""
        for number, batch in sorted(self.flight.items()):
            if batch.lost and batch.resend_at <= mono:
                yield number, batch

    def probe(self, number: int, mono: int) -> bool:
        """Return whether a probe is due, which then goes out under `number`."""
        if self._probe_at > mono:
            return False
        if all(batch.lost for batch in self.flight.values()):
            self._probe_at = NEVER
            return False
        self._order += 1
        self._probes[number] = self._order
        if len(self._probes) > PROBES_MAX:
            del self._probes[next(iter(self._probes))]
        self._silence_ns = min(2 * self._silence_ns, PROBE_MOST_NS)
        self._probe_at = mono + self._silence_ns
        return True

    def wake_at(self) -> int:
        """Return when something is overdue or a probe is due."""
        due = min((b.resend_at for b in self.flight.values() if b.lost), default=NEVER)
        return min(due, self._probe_at)

    def unacknowledged(self) -> Iterator[Record]:
        """Yield all records that wait or are on their way."""
        for batch in self.flight.values():
            yield from batch.records
        for record, _size, _came_at in self.queue:
            yield record

    def check(self) -> None:
        """Assert that the byte counts are those of the records."""
        assert self.bytes == sum(map(record_bytes, self.unacknowledged()))
        assert len(self.flight) <= WINDOW_BATCHES
        assert len(self._probes) <= PROBES_MAX
        for batch in self.flight.values():
            assert batch.bytes == sum(map(record_bytes, batch.records))
            assert batch.lost or self._probe_at < NEVER, "nobody finds out what became of it"

    def _expect(self, mono: int) -> None:
        """Count the silence from now: the peer has just answered."""
        self._probe_at = mono + self._silence_ns if self.flight else NEVER
