"""What a node takes in of a peer's message: the parts that can be read and may be true.

One row, slot or record that cannot be used is left out, counted and logged; all that came with it
counts as ever. Otherwise a single record that this node cannot read (stored by a node of another
release, or by a client that found a gap in the checks) would keep its batch, its slot and every
join that needs the slot from ever ending.

Of a record that cannot be read, only that its version exists is taken: it becomes a ghost here, so
that exchanges pass it. It is not acknowledged as a copy.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dcc.clock import COUNTER_BITS
from dcc.effects import Notify
from dcc.errors import PeerError
from dcc.node.machines import Machines
from dcc.node.plausible import (
    Exchanged,
    plausible_clocks,
    plausible_reading,
    plausible_rows,
)
from dcc.replication.holdings import Instant
from dcc.types import PREV_UNKNOWN, Kind, Record
from dcc.wire.codec import Header
from dcc.wire.messages import Compare, FetchReply, Message, Nudge, Pull, PullReply, Replicate
from dcc.wire.shapes import MS_MAX, is_text

WithRecords = Replicate | PullReply | FetchReply


class Door:
    """Sifts what peers send to one node core."""

    def __init__(self, machines: Machines) -> None:
        self._machines = machines
        self._salvaged: frozenset[int] = frozenset()
        self.refused: frozenset[int] = frozenset()
        "Of the message with records in hand: which of them are ghosts made here."

    # -------------------------------------------------------------- records

    def salvage(self, frames: list[bytes]) -> tuple[Header, WithRecords] | None:
        """Return a message that was refused for single records, with ghosts in their places."""
        try:
            header, message, places = self._machines.codec.salvage(frames)
        except PeerError:
            return None
        boot = self._machines.held.view.boots.get(header.sender)
        if not places or not isinstance(message, WithRecords) or boot != header.boot:
            return None
        self._salvaged = places
        return header, message

    def readable(self, header: Header, message: WithRecords) -> WithRecords:
        """Return `message` with ghosts instead of records whose keys are no text.

        Keys are texts for clients, so one that is none would make every listing of keys fail.
        """
        places, self._salvaged, self.refused = set(self._salvaged), frozenset(), frozenset()
        places.update(i for i, record in enumerate(message.records) if not is_text(record.key))
        if not places:
            return message
        for _ in places:
            self._machines.counters.drop("record_refused")
        self._tell("record_refused", header, f"{len(places)} of {len(message.records)} records")
        self.refused = frozenset(places)
        records = tuple([
            record._replace(kind=Kind.EVICTED, value=b"") if i in places else record
            for i, record in enumerate(message.records)
        ])  # fmt: skip
        return replace(message, records=records)

    @staticmethod
    def claimed(header: Header, record: Record) -> Record:
        """Return `record` with its predecessor only if its own coordinator has sent it.

        A predecessor says of all writes between that there are none, and whoever believes it
        ignores them. Of its writes only their coordinator can say so. And what is believed of an
        origin is kept for every slot: invented ones would cost a thousand times their bytes.
        """
        version = record.version
        if version.node == header.sender and version.boot == header.boot:
            return record
        return record if record.prev == PREV_UNKNOWN else record._replace(prev=PREV_UNKNOWN)

    # -------------------------------------------------------------- time

    def knows_clock(self, header: Header, at: Instant) -> bool:
        """Return whether the sender is a live member in its present boot, and its clock may be."""
        membership = self._machines.membership
        if header.sender not in membership.alive():
            return False
        if header.boot != membership.members[header.sender].boot:
            return False
        known = plausible_reading(header.at, at.ms)
        if not known:
            self._machines.counters.drop("clock_skew")
        return known

    def believed(self, header: Header, message: Message, at: Instant) -> Any:
        """Return `message` without settings, and rows of members, from the future."""
        machines = self._machines
        believed = machines.timekeeper.believed(header, message, at)
        now_ms = max(at.ms, machines.clock.own_ms(at.mono))
        if not machines.clock.settled:  # A clock that was never set must not keep it from joining.
            now_ms = max(now_ms, min(header.at, MS_MAX))
        believed = plausible_rows(believed, now_ms)
        if believed is not message:
            machines.counters.drop("clock_skew")
            self._tell("clock_skew", header, "from the future")
        return believed

    def in_time(self, message: Exchanged, at: Instant) -> Exchanged:
        """Return `message` without slots whose clocks lie ahead of time."""
        latest = at.ms + self._machines.config.max_skew_ms + 1 << COUNTER_BITS
        believed = plausible_clocks(message, latest)
        if believed is not message:
            self._machines.counters.drop("clock_skew")
        return believed

    # -------------------------------------------------------------- work

    @staticmethod
    def once(message: Compare | Nudge | Pull) -> bool:
        """Return whether a message names each slot once, so that its work is bounded."""
        slots: tuple[Any, ...] = message.slots
        names = {one.slot for one in slots} if isinstance(message, Pull) else set(slots)
        return len(names) == len(slots)

    def _tell(self, reason: str, header: Header, text: str) -> None:
        fields = {"reason": reason, "sender": header.sender, "text": text}
        self._machines.notices.append(Notify("message_dropped", fields))
