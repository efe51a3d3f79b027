"""Replication streams: this node's newest records on their way to the other holders.

One stream for each peer: a queue of records, batches in flight by number, acknowledgements. A
batch is sent at the end of the turn in which its records were written, so a busy node sends few
large batches and an idle one sends at once. A batch that is not acknowledged is sent again; after
`GIVE_UP_NS` it is dropped, and so is what does not fit the queue's budget: the receiver then has
a gap in its slot clock, and the exchange fills gaps. So a stream needs no memory beyond its budget
and no order: records carry their predecessor's stamp, and merging does not care.

At a view change every record not yet acknowledged is offered to the present targets of its slot
("re-targeting"): without that, a write on its way to a node that just died would exist once only.
Records that a peer took without being an owner in its own view ("moved") do not count: one of the
two views is old. If it is this one's, the next view brings the right target. If it is the peer's,
which learns of a suspicion some milliseconds later, nothing more happens here, so the record is
offered to it again shortly.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from dcc.effects import Effect, Tell
from dcc.limits import BATCH_BYTES, EXTRA_FRAMES_MAX, INLINE_VALUE_BYTES_MAX
from dcc.replication.holdings import Holdings, Instant
from dcc.ring.hashing import slot_of
from dcc.types import NodeKey, Record, Version
from dcc.units import MILLISECOND, NEVER, SECOND
from dcc.wire.messages import Replicate, ReplicateAck

RECORD_OVERHEAD_BYTES = 64
"Version, expiry, predecessor and msgpack's marks around a record."

BATCH_RECORDS_MAX = 1_000
WINDOW_BATCHES = 16
"Batches in flight to one peer; more would only move the queue into ZeroMQ."

RESEND_NS = 500 * MILLISECOND
MOVED_RESEND_NS = 200 * MILLISECOND
"How soon a peer is asked again that does not know yet that it is a target."

GIVE_UP_NS = 5 * SECOND


def record_bytes(record: Record) -> int:
    """Return about how many bytes `record` takes in a message."""
    return len(record.key) + len(record.value) + RECORD_OVERHEAD_BYTES


@dataclass(slots=True)
class _Batch:
    records: tuple[Record, ...]
    first_sent_at: int
    resend_at: int
    moved: bool = False
    "The peer has them, but not as an owner or stand-in."


Waiting = tuple[Record, set[NodeKey]]
"A record whose writer waits for acknowledgements, and who has given one."


@dataclass(slots=True)
class Gap:
    """When records for one peer were dropped, monotonic ns: it lacks them until it has asked."""

    first_at: int
    last_at: int


@dataclass(slots=True)
class _Stream:
    queue: deque[tuple[Record, int]] = field(default_factory=deque)  # with when it came, ns
    flight: dict[int, _Batch] = field(default_factory=dict)
    bytes: int = 0
    "Of all records queued and in flight."


class Streams:
    """All outgoing replication of one node."""

    def __init__(self, holdings: Holdings) -> None:
        self._holdings = holdings
        self._streams: dict[NodeKey, _Stream] = {}
        self._seq = holdings.next_request()
        self._dirty: set[NodeKey] = set()  # peers with something queued
        self.gaps: dict[NodeKey, Gap] = {}
        "Peers for which something was dropped, those who have closed the gap since included."
        self.dropped = 0
        "Records dropped for want of room or acknowledgement: gaps that an exchange fills."
        self._offered = self._offer_at = 0

    def offer(self, peer: NodeKey, record: Record, mono: int) -> None:
        """Queue `record` for `peer`, or drop and count it when the peer is too far behind."""
        stream = self._streams.setdefault(peer, _Stream())
        size = record_bytes(record)
        if stream.bytes + size > self._holdings.config.queue_bytes_max and stream.bytes:
            self.dropped += 1
            self._note_gap(peer, mono, mono)
            return
        stream.queue.append((record, mono))
        stream.bytes += size
        self._dirty.add(peer)

    def acknowledged(self, peer: NodeKey, ack: ReplicateAck, mono: int) -> list[Version]:
        """Return the versions that `peer` holds as owner or stand-in, by this acknowledgement."""
        stream = self._streams.get(peer)
        batch = stream.flight.pop(ack.seq, None) if stream else None
        if stream is None or batch is None:
            return []  # A second acknowledgement of a batch that was sent twice.
        moved = {i for i in ack.moved if i < len(batch.records)}
        again = tuple([batch.records[i] for i in sorted(moved)])
        stream.bytes -= sum(map(record_bytes, batch.records)) - sum(map(record_bytes, again))
        if again:
            self._seq += 1
            due = mono + MOVED_RESEND_NS
            stream.flight[self._seq] = _Batch(again, batch.first_sent_at, due, moved=True)
        if stream.queue:
            self._dirty.add(peer)
        return [record.version for i, record in enumerate(batch.records) if i not in moved]

    def flush(self, now: Instant) -> list[Effect]:
        """Return the batches that may go out now; called once a turn."""
        effects: list[Effect] = []
        for peer in sorted(self._dirty):
            stream = self._streams[peer]
            while stream.queue and len(stream.flight) < WINDOW_BATCHES:
                effects.append(self._send(peer, stream, now))
        self._dirty.clear()
        return effects

    def tick(self, now: Instant) -> list[Effect]:
        """Send again what was not acknowledged in time; give up what is too old."""
        effects: list[Effect] = []
        for peer, stream in sorted(self._streams.items()):
            for seq, batch in sorted(stream.flight.items()):
                if batch.resend_at > now.mono:
                    continue
                outdated = batch.moved and not self._still_wanted(peer, batch)
                if outdated or now.mono - batch.first_sent_at >= GIVE_UP_NS:
                    self._note_gap(peer, batch.first_sent_at, now.mono)
                    self._drop(peer, stream, seq)
                else:
                    batch.resend_at = now.mono + RESEND_NS
                    effects.append(Tell(peer, Replicate(seq=seq, records=batch.records)))
        return effects

    def wake_at(self, mono: int) -> int:
        """Return when a flush or a resend is due."""
        if self._dirty:
            return mono
        return min(
            (b.resend_at for s in self._streams.values() for b in s.flight.values()),
            default=NEVER,
        )

    def retarget(self, now: Instant, unconfirmed: Iterable[Waiting] = ()) -> None:
        """Offer every unacknowledged record to the present targets of its slot.

        So are `unconfirmed` ones: somebody waits for them, though a queue may have had no room.
        Streams to members that are no target of a slot any more let go of its records. A record of
        whose key nothing is held any more is offered to nobody new: what replaced it was forgotten
        because every owner had seen it, and whoever owns the slot since then has not. Where
        somebody waits it is offered all the same: so soon, what is gone has expired.
        """
        held = self._holdings
        waiting: dict[Version, Record] = {}
        sent_to: dict[Version, set[NodeKey]] = {}
        for peer, stream in sorted(self._streams.items()):
            for record in self._unacknowledged(stream):
                waiting[record.version] = record
                sent_to.setdefault(record.version, set()).add(peer)
            if peer not in held.view.alive:
                self._streams[peer] = _Stream()
                self._dirty.discard(peer)
        wanted: set[Version] = set()
        for record, acked in unconfirmed:
            wanted.add(record.version)
            waiting[record.version] = record
            sent_to.setdefault(record.version, set()).update(acked)
        for version, record in sorted(waiting.items()):
            slot = slot_of(record.key)
            if version not in wanted and held.store.peek(slot, record.key) is None:
                continue
            for peer in held.view.route(slot):
                if peer != held.key and peer not in sent_to[version]:
                    self.offer(peer, record, now.mono)

    def offer_dropped(self, now: Instant, unconfirmed: Callable[[], Iterable[Waiting]]) -> None:
        """Offer anew what a full queue dropped, as far as somebody waits for it."""
        if self.dropped != self._offered and self._offer_at <= now.mono:
            self._offered, self._offer_at = self.dropped, now.mono + RESEND_NS
            self.retarget(now, unconfirmed())

    def lag_ns(self, mono: int) -> int:
        """Return the age of the oldest record that a live peer has not acknowledged."""
        oldest = [b.first_sent_at for s in self._streams.values() for b in s.flight.values()]
        oldest += [s.queue[0][1] for s in self._streams.values() if s.queue]
        return mono - min(oldest, default=mono)

    def queued(self) -> dict[NodeKey, int]:
        """Return the number of records waiting for each peer."""
        return {
            peer: len(s.queue) + sum(len(b.records) for b in s.flight.values())
            for peer, s in sorted(self._streams.items())
        }

    def queued_total(self) -> int:
        """Return the number of records that wait for any peer."""
        return sum(self.queued().values())

    def check(self) -> None:
        """Assert that the byte counts are those of the records."""
        for stream in self._streams.values():
            assert stream.bytes == sum(map(record_bytes, self._unacknowledged(stream)))
            assert len(stream.flight) <= WINDOW_BATCHES

    def _send(self, peer: NodeKey, stream: _Stream, now: Instant) -> Effect:
        records: list[Record] = []
        size = large = 0
        while stream.queue and len(records) < BATCH_RECORDS_MAX:
            record = stream.queue[0][0]
            size += record_bytes(record)
            large += len(record.value) >= INLINE_VALUE_BYTES_MAX
            if records and (size > BATCH_BYTES or large > EXTRA_FRAMES_MAX):
                break
            records.append(stream.queue.popleft()[0])
        self._seq += 1
        stream.flight[self._seq] = _Batch(tuple(records), now.mono, now.mono + RESEND_NS)
        return Tell(peer, Replicate(seq=self._seq, records=tuple(records)))

    def _note_gap(self, peer: NodeKey, first_at: int, last_at: int) -> None:
        gap = self.gaps.setdefault(peer, Gap(first_at, last_at))
        gap.last_at = last_at

    def _drop(self, peer: NodeKey, stream: _Stream, seq: int) -> None:
        batch = stream.flight.pop(seq)
        stream.bytes -= sum(map(record_bytes, batch.records))
        self.dropped += len(batch.records)
        if stream.queue:
            self._dirty.add(peer)

    def _still_wanted(self, peer: NodeKey, batch: _Batch) -> bool:
        """Return whether `peer` is a target, by this node's view, of any record of a batch."""
        route = self._holdings.view.route
        return any(peer in route(slot_of(record.key)) for record in batch.records)

    @staticmethod
    def _unacknowledged(stream: _Stream) -> Iterable[Record]:
        for batch in stream.flight.values():
            yield from batch.records
        for record, _came_at in stream.queue:
            yield record
