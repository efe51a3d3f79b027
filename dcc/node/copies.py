"""What other nodes' coordinators send: their newest records, and questions for what is held here.

A record is applied if it may be true (`door`), and acknowledged as a copy if this node is to hold
it. A record whose predecessors are missing leaves a gap that the exchange fills.
"""

from __future__ import annotations

from dcc.effects import Effect, Tell
from dcc.node.door import Door
from dcc.node.machines import Machines
from dcc.node.views import Views
from dcc.replication.holdings import Instant
from dcc.replication.questions import Outcome
from dcc.ring.hashing import slot_of
from dcc.store.store import Applied
from dcc.types import Record
from dcc.wire import messages as m
from dcc.wire.codec import Header


class Copies:
    """Takes other coordinators' records in, and answers what is held of a key."""

    def __init__(self, machines: Machines, door: Door, views: Views) -> None:
        self._machines, self._door, self._views = machines, door, views
        self._held = machines.held

    # -------------------------------------------------------------- questions about one key

    def fetch(self, header: Header, message: m.Fetch, _at: Instant) -> list[Effect]:
        """Tell a coordinator what is held of a key, and whether nothing can be missing here."""
        machines = self._machines
        sure = machines.certainty.of_word(slot_of(message.key))
        records = self._held.records_of(message.key)
        gone = not records and machines.exchange.answerer.knows_gone(message)
        reply = m.FetchReply(records=records, sure=sure, gone=gone)
        return [Tell(header.sender, reply, header.request)]

    def fetch_reply(self, header: Header, message: m.FetchReply, at: Instant) -> list[Effect]:
        """Take the answer to a question of this node's; go on with requests that waited for it."""
        agreed, questions = header.epoch == self._held.view.epoch, self._machines.questions
        self._machines.exchange.agenda.spoke(header.sender, at)
        outcome = questions.receive(header.sender, header.request, message, at, agreed=agreed)
        return self.resume(outcome, at)

    def resume(self, outcome: Outcome, at: Instant) -> list[Effect]:
        """Go on with the reads and writes whose questions have ended."""
        effects = [*outcome.effects]
        for verdict in outcome.verdicts:
            effects += self._machines.reads.resume(verdict, at)
            effects += self._machines.writes.resume(verdict, at)
        return effects

    # -------------------------------------------------------------- replication

    def replicate(self, header: Header, message: m.Replicate, at: Instant) -> list[Effect]:
        """Apply a batch of a coordinator's records, and say which of them count as copies."""
        machines, held, moved, ignored = self._machines, self._held, [], []
        agenda = machines.exchange.agenda
        for index, record in enumerate(message.records):
            slot = slot_of(record.key)
            record = self._door.claimed(header, record)
            applied = held.intake.apply(slot, record, at.ms)
            if applied is None:
                moved.append(index)
                agenda.gap(header.sender, slot, at, refused=True)
                continue
            if applied is Applied.OLDER:
                self._lost(slot, record)
            elif applied is Applied.GHOST and held.store.doubts(slot, record.key):
                machines.exchange.settling.doubted(slot, at)
            if not held.view.holds(slot):
                moved.append(index)
                machines.exchange.leftovers.written(slot)
            elif applied is not Applied.NEWER and not held.store.answers_for(slot, record, at.ms):
                ignored.append(index)
            elif not held.store.covers(slot, record.version) or held.store.has_gaps(slot):
                agenda.gap(header.sender, slot, at)
        moved = sorted({*moved, *self._door.refused})  # Nobody is to count on a copy of these.
        ack = m.ReplicateAck(seq=message.seq, moved=tuple(moved), ignored=tuple(ignored))
        return [Tell(header.sender, ack, header.request)]

    def replicate_ack(self, header: Header, message: m.ReplicateAck, at: Instant) -> list[Effect]:
        """Let writes count the copies that a peer has acknowledged."""
        machines = self._machines
        versions = machines.streams.acknowledged(header.sender, message, at.mono)
        effects = machines.writes.confirming.acknowledged(header.sender, versions)
        if message.moved:
            effects = effects + self._views.offer(header.sender, at)
        return effects

    def _lost(self, slot: int, record: Record) -> None:
        """Count a write that came after a newer one by another coordinator: one may not have known
        the other. Exchanges bring versions in any order, so theirs say nothing and do not count."""
        held = self._held.store.peek(slot, record.key)
        if held is not None and held.version.node != record.version.node:
            self._machines.counters.conflicts += 1
