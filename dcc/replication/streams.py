"""Replication streams: this node's newest records on their way to the other holders.

One stream for each peer, in two lanes (`lane`) over two connections: small records do not wait
for a value of megabytes that takes seconds on a slow link. In each a queue, batches in flight by
number, acknowledgements. A batch is sent at the end of the turn in which its records were written,
so a busy node sends few large batches and an idle one sends at once. What was handed to a
connection that still lives is not sent again, however long it takes; a batch that is surely lost
is. `GIVE_UP_NS` after its first sending it is dropped instead, and so is what does not fit the
queue's budget: the receiver then has a gap in its slot clock, and the exchange fills gaps. So a
stream needs no memory beyond its budget and no order: records carry their predecessor's stamp, and
merging does not care.

At a view change every record not yet acknowledged is offered to the present targets of its slot
("re-targeting"): without that, a write on its way to a node that just died would exist once only.
Records that a peer took without being an owner in its own view ("moved") do not count: one of the
two views is old. If it is this one's, the next view brings the right target. If it is the peer's,
which learns of a suspicion some milliseconds later, nothing more happens here, so the record is
offered to it again shortly. What a peer's clock has seen, but the peer does not hold ("ignored"),
does not count either, and to offer it again would change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dcc.effects import Effect, Tell
from dcc.limits import BATCH_BYTES
from dcc.replication.holdings import Holdings, Instant
from dcc.replication.lane import RESEND_NS, Batch, Lane, record_bytes
from dcc.ring.hashing import slot_of
from dcc.types import NodeKey, Record, Version
from dcc.units import MILLISECOND, NEVER, SECOND
from dcc.wire.messages import Replicate, ReplicateAck

MOVED_RESEND_NS = 200 * MILLISECOND
"How soon a peer is asked again that does not know yet that it is a target."

GIVE_UP_NS = 5 * SECOND
"A batch that is lost this long after its first sending is left to the exchange."


Waiting = tuple[Record, set[NodeKey]]
"A record whose writer waits for acknowledgements, and the owners that have given one."


@dataclass(slots=True)
class Gap:
    """When records for one peer were dropped, monotonic ns: it lacks them until it has asked."""

    first_at: int
    last_at: int


class _Stream:
    """The two lanes to one peer."""

    __slots__ = ("bulk", "lanes", "small")

    def __init__(self) -> None:
        self.small, self.bulk = Lane(), Lane()
        self.lanes = (self.small, self.bulk)

    def unacknowledged(self) -> Iterable[Record]:
        for lane in self.lanes:
            yield from lane.unacknowledged()


class Streams:
    """All outgoing replication of one node."""

    def __init__(self, holdings: Holdings) -> None:
        self._holdings = holdings
        self._queue_bytes_max = holdings.config.queue_bytes_max
        self._queues_bytes_max = holdings.config.queues_bytes_max
        self._streams: dict[NodeKey, _Stream] = {}
        self._seq = holdings.next_request()
        self._dirty: set[NodeKey] = set()  # peers with something queued
        self.gaps: dict[NodeKey, Gap] = {}
        "Peers for which something was dropped, those that have closed the gap since included."
        self.dropped: int = 0
        "Records dropped for want of room or acknowledgement: gaps that an exchange fills."
        self._offered = self._offer_at = 0

    def offer(self, peer: NodeKey, record: Record, mono: int) -> None:
        """Queue `record` for `peer`, or drop and count it when the peer is too far behind."""
        stream = self._streams.get(peer)
        if stream is None:
            stream = self._streams[peer] = _Stream()
        size = record_bytes(record)
        lane = stream.bulk if size > BATCH_BYTES else stream.small
        # One for each lane, since a large record must not keep a small one back.
        share = min(self._queue_bytes_max, self._queues_bytes_max // len(self._streams) // 2)
        if lane.bytes + size > share and lane.bytes:
            self.dropped += 1
            self._note_gap(peer, mono, mono)
            return
        lane.put(record, size, mono)
        self._dirty.add(peer)

    def carries(self, peer: NodeKey, version: Version) -> bool:
        """Return whether that version waits for `peer` or is on its way to it. O(records)."""
        stream = self._streams.get(peer)
        return stream is not None and any(
            record.version == version for record in stream.unacknowledged()
        )

    def acknowledged(self, peer: NodeKey, ack: ReplicateAck, mono: int) -> list[Version]:
        """Return the versions that `peer` holds as owner or stand-in, by this acknowledgement."""
        stream = self._streams.get(peer)
        if stream is None:
            return []
        for lane in stream.lanes:
            if lane.knows(ack.seq):
                break
        else:
            return []  # A second acknowledgement of a batch that was sent twice.
        batch = lane.answered(ack.seq, mono)
        if lane.queue:
            self._dirty.add(peer)
        if batch is None:
            return []  # It was a probe.
        moved = {i for i in ack.moved if i < len(batch.records)}
        again = tuple([batch.records[i] for i in sorted(moved)])
        size = sum(map(record_bytes, again))
        lane.bytes -= batch.bytes - size
        if again:
            self._seq += 1
            lane.flight[self._seq] = Batch(
                again, batch.first_sent_at, size, lost=True, moved=True,
                resend_at=mono + MOVED_RESEND_NS,
            )  # fmt: skip
        uncounted = moved.union(ack.ignored)
        return [record.version for i, record in enumerate(batch.records) if i not in uncounted]

    def undeliverable(self, peer: NodeKey, seq: int) -> None:
        """A batch could not be queued for `peer`: nothing of it is on its way."""
        stream = self._streams.get(peer)
        if stream is not None:
            for lane in stream.lanes:
                lane.unsent(seq)

    def flush(self, now: Instant) -> list[Effect]:
        """Return the batches that may go out now; called once a turn."""
        effects: list[Effect] = []
        for peer in sorted(self._dirty):
            stream = self._streams[peer]
            for lane in stream.lanes:
                while lane.queue and (batch := lane.cut(now.mono)):
                    self._seq += 1
                    effects.append(self._send(peer, lane, self._seq, batch, now))
        self._dirty.clear()
        return effects

    def tick(self, now: Instant) -> list[Effect]:
        """Send again what is lost; give up what is too old; find out what became of the rest."""
        effects: list[Effect] = []
        for peer, stream in sorted(self._streams.items()):
            for lane in stream.lanes:
                for seq, batch in lane.overdue(now.mono):
                    outdated = batch.moved and not self._still_wanted(peer, batch)
                    if outdated or now.mono - batch.first_sent_at >= GIVE_UP_NS:
                        self._note_gap(peer, batch.first_sent_at, now.mono)
                        self._drop(peer, lane, seq)
                    else:
                        effects.append(self._send(peer, lane, seq, batch, now))
                if lane.probe(self._seq + 1, now.mono):
                    self._seq += 1
                    probe = Replicate(seq=self._seq, records=())
                    effects.append(Tell(peer, probe, bulk=lane is stream.bulk))
        return effects

    @property
    def waiting(self) -> bool:
        """Whether records wait for the next flush."""
        return bool(self._dirty)

    def wake_at(self, mono: int) -> int:
        """Return when a flush, a resend or a probe is due."""
        if self._dirty:
            return mono
        return min(
            [lane.wake_at() for stream in self._streams.values() for lane in stream.lanes],
            default=NEVER,
        )

    def retarget(self, now: Instant, unconfirmed: Iterable[Waiting] = ()) -> None:
        """Offer every unacknowledged record to the present targets of its slot.

        So are `unconfirmed` ones: somebody waits for them, though a queue may have had no room.
        Streams to members that are no target of a slot any more let go of its records. A record
        whose key is not held here any more is offered to no new target: its successor was forgotten
        because every owner had seen it, and an owner that came since has not. If a writer still
        waits for the record it is offered all the same: so soon it can only have expired.
        """
        held = self._holdings
        waiting: dict[Version, Record] = {}
        sent_to: dict[Version, set[NodeKey]] = {}
        for peer, stream in sorted(self._streams.items()):
            for record in stream.unacknowledged():
                waiting[record.version] = record
                sent_to.setdefault(record.version, set()).add(peer)
            if peer not in held.view.alive:
                del self._streams[peer]
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

    def forget(self, peer: NodeKey) -> None:
        """Forget the gap of a member whose boot has left the ring: the next one asks for all."""
        self.gaps.pop(peer, None)

    def offer_dropped(self, now: Instant, unconfirmed: Callable[[], Iterable[Waiting]]) -> None:
        """Offer again what a full queue dropped, as far as a writer waits for it."""
        if self.dropped != self._offered and self._offer_at <= now.mono:
            self._offered, self._offer_at = self.dropped, now.mono + RESEND_NS
            self.retarget(now, unconfirmed())

    def lag_ns(self, mono: int) -> int:
        """Return the age of the oldest record that a live peer has not acknowledged."""
        lanes = [lane for stream in self._streams.values() for lane in stream.lanes]
        oldest = [batch.first_sent_at for lane in lanes for batch in lane.flight.values()]
        oldest += [lane.queue[0][2] for lane in lanes if lane.queue]
        return mono - min(oldest, default=mono)

    def queued(self) -> dict[NodeKey, int]:
        """Return the number of records waiting for each peer."""
        return {
            peer: sum(1 for _ in stream.unacknowledged())
            for peer, stream in sorted(self._streams.items())
        }

    @property
    def bytes_used(self) -> int:
        """What waits for all peers. O(peers)."""
        return sum([lane.bytes for stream in self._streams.values() for lane in stream.lanes])

    def queued_total(self) -> int:
        """Return the number of records that wait for any peer."""
        return sum(self.queued().values())

    def check(self) -> None:
        """Assert the invariants of every lane."""
        for stream in self._streams.values():
            for lane in stream.lanes:
                lane.check()

    def _send(self, peer: NodeKey, lane: Lane, seq: int, batch: Batch, now: Instant) -> Effect:
        lane.sent(seq, batch, now.mono)
        message = Replicate(seq=seq, records=batch.records)
        return Tell(peer, message, bulk=lane is self._streams[peer].bulk)

    def _note_gap(self, peer: NodeKey, first_at: int, last_at: int) -> None:
        gap = self.gaps.setdefault(peer, Gap(first_at, last_at))
        gap.last_at = last_at

    def _drop(self, peer: NodeKey, lane: Lane, seq: int) -> None:
        batch = lane.flight.pop(seq)
        lane.bytes -= batch.bytes
        self.dropped += len(batch.records)
        if lane.queue:
            self._dirty.add(peer)

    def _still_wanted(self, peer: NodeKey, batch: Batch) -> bool:
        """Return whether `peer` is a target, by this node's view, of any record of a batch."""
        route = self._holdings.view.route
        return any(peer in route(slot_of(record.key)) for record in batch.records)
