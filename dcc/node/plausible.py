"""What others claim of time, held to bounds: without them one frame could move a node's time for
ever.

**Settings.** The larger stamp of a setting wins for ever. One frame that a fault garbled (or that
somebody forged) with a `cleared` far ahead of cluster time would empty every node, and make each
refuse all writes until that time has come; a `replicas_stamp` there could never be overruled. So
every node that would merge them holds them to the bound that records are held to.

**Members.** A higher incarnation wins for ever, too, and is answered by one above it, until there
is none. Incarnations and boots are times, so rows from more than a day ahead are left out: no clock
is so wrong by accident, and what is left out is heard again once that day has come.

**Clocks of slots.** What a clock covers is never applied again, nor asked for. A slot whose clock,
spans or mark lie ahead of time is left out of the exchange.

What is left out is counted; the rest of the message counts as ever.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TypeVar

from dcc.clock import COUNTER_BITS
from dcc.types import Member, Settings, Stamp
from dcc.units import MILLISECOND, SECOND
from dcc.wire.messages import (
    Ack,
    Message,
    Ping,
    PingReq,
    Pull,
    PullReply,
    PushPull,
    PushPullReply,
    Rumors,
    SettingsUpdate,
)

Exchanged = TypeVar("Exchanged", Pull, PullReply)

CARRIERS = (Rumors, PushPull, PushPullReply, SettingsUpdate)

AHEAD_MS = 24 * 3600 * SECOND // MILLISECOND
"Clocks that are set at all are not a day apart."

BOOT_BITS = 16
"Of a boot, below its start time in ms."

CLOCK_SET_MS = 1_577_836_800_000
"2020: a machine whose clock says less has none, and learns the time from the others."


def plausible(message: Message, held: Settings, latest_ms: int) -> Message:
    """Return `message` without settings stamped after `latest_ms`; itself if it has none.

    A count of copies that is left out becomes the one `held`, a `cleared` becomes never: neither
    changes anything when merged.
    """
    if not isinstance(message, CARRIERS):
        return message
    settings = message.settings
    if settings.cleared >> COUNTER_BITS > latest_ms:
        settings = settings._replace(cleared=0)
    if settings.replicas_stamp >> COUNTER_BITS > latest_ms:
        settings = Settings(held.replicas, held.replicas_stamp, settings.cleared)
    return message if settings is message.settings else replace(message, settings=settings)


def plausible_rows(message: Message, now_ms: int) -> Message:
    """Return `message` without rows of members from more than a day after `now_ms`."""
    latest = now_ms + AHEAD_MS
    if isinstance(message, Ping | Ack | PingReq | Rumors):
        rumors = _rows(message.rumors, latest)
        return message if rumors is message.rumors else replace(message, rumors=rumors)
    if isinstance(message, PushPull | PushPullReply):
        members = _rows(message.members, latest)
        return message if members is message.members else replace(message, members=members)
    return message


def _rows(rows: tuple[Member, ...], latest_ms: int) -> tuple[Member, ...]:
    if all(_is_of_our_time(row, latest_ms) for row in rows):
        return rows
    return tuple([row for row in rows if _is_of_our_time(row, latest_ms)])


def _is_of_our_time(row: Member, latest_ms: int) -> bool:
    began_ms = max(row.boot >> BOOT_BITS, row.stamps_above >> COUNTER_BITS)
    return row.incarnation <= latest_ms and began_ms <= latest_ms


def plausible_reading(said_ms: int, now_ms: int) -> bool:
    """Return whether what a member says its clock shows may be one: within a day of `now_ms`."""
    return abs(said_ms - now_ms) <= AHEAD_MS or min(said_ms, now_ms) < CLOCK_SET_MS


def plausible_clocks(message: Exchanged, latest: Stamp) -> Exchanged:
    """Return `message` without the slots whose clock, span or mark lies after `latest`."""
    kept = tuple([
        slot for slot in message.slots
        if slot.mark <= latest and _below(slot.clock[1::2], latest)
        and _below(slot.spans[2::3], latest)
    ])  # fmt: skip
    return message if len(kept) == len(message.slots) else replace(message, slots=kept)


def _below(stamps: Iterable[Stamp], latest: Stamp) -> bool:
    return max(stamps, default=0) <= latest
