"""All that grows in a node, in one table: what bounds it, and how it is counted.

`--max-memory` is a promise about the process, so whatever grows with what clients and peers send
stands here, and nowhere else is it added up. Two kinds of rows:

- *within the limit*: data and everything that holds keys, values or answers. What stands beside
  the store is reserved there (`Store.reserve`), so values make room for it, and each has a bound
  of its own, so that it can never take all. The sum keeps to the limit, but for what one turn adds
  (a sixty-fourth).
- *beside it*: tables of members and slots, requests that wait (without their values), and samples
  of a fixed length. They are bounded by number, not by what is stored; with Python itself they are
  the base that the process takes however small the limit.

Sizes are counted where that is cheap, else entries times what one takes, which a test measures.
Statistics, metrics and `dcc status` show the rows; the simulator holds every node to them at every
turn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from dcc.limits import BATCH_BYTES, BATCH_KEYS_MAX, KEY_BYTES_MAX, MEMBERS_MAX, SLOT_COUNT
from dcc.node.audit import AUDIT_SLOTS_MAX, AUDITS_MAX
from dcc.node.converging import ROUNDS_MAX, Converging
from dcc.node.machines import Machines
from dcc.node.settings import CHANGES_MAX
from dcc.node.watchers import CHANGES_MAX as CHANGES_MAX_WATCHED
from dcc.replication.exchange import PULLS_IN_FLIGHT
from dcc.replication.hot import PLACES
from dcc.replication.reads import REPAIRS_MAX
from dcc.replication.staleness import SAMPLES_MAX
from dcc.units import KIB, NEVER

SETTLE_SHARE = 64
"What stands beside the store is reserved again once it has grown by one part in this many."

REQUEST_BYTES = 1_600
"One that waits for other nodes, without its value."
MEMBER_BYTES = 4 * KIB
"A row with its rumor, timers, link, place in the ring and what was offered to it."
PEER_BYTES = 16 * SLOT_COUNT + 8 * KIB
"Of a member in the ring: a time and a shared slot for each slot, and the groups of its tree."
SLOT_BYTES = 512
"A slot's order, route and verdict."
WANT_BYTES = 160
"A slot that is to be compared with a peer, asked of it, or that it announced to hold."
SAMPLE_BYTES = 300
"A served key with its version; the key besides."
COUNTED_BYTES = 600
"A key with its counter, its place in a row and its row; the key besides."
CHANGED_BYTES = 200
"A change that clients are to be told of; the key besides."
REPAIR_BYTES = 300
ANSWER_BYTES = 512
"An asker of this node's state, or one member's answer."
CONTENT_BYTES = 250
"What an audit has found of one slot."
CLAIMS_UNDER_WAY_BYTES = PULLS_IN_FLIGHT * (BATCH_BYTES * 8 + 8 * 24_576)
"What pulls that are under way when there is no room for claims any more still bring."


class Row(NamedTuple):
    """One thing that grows."""

    name: str
    bytes_max: int
    used: Callable[[], int]
    "Bytes now; cheap enough for every turn where it counts towards the limit."


class Footprint:
    """The rows of one node, and the room that the store leaves to the others."""

    def __init__(self, machines: Machines, converging: Converging) -> None:
        self._store = machines.held.store
        self._step = machines.config.memory_limit_bytes // SETTLE_SHARE
        self._beside = _beside_the_store(machines)
        self._counts = [row.used for row in self._beside]
        limit = machines.config.memory_limit_bytes
        store = self._store
        self.rows: tuple[Row, ...] = (
            Row("store", limit, lambda: store.bytes_used - store.reserved_bytes),
            *self._beside,
            *_base(machines, converging),
        )

    @property
    def bytes_used(self) -> int:
        """Everything within the limit. O(rows)."""
        return self._store.bytes_used - self._store.reserved_bytes + self._sum()

    @property
    def bytes_max(self) -> int:
        """What `bytes_used` keeps to at the end of every turn."""
        return self._store.memory_limit_bytes + self._step

    def settle(self) -> None:
        """Let values make room for what has grown beside the store."""
        self._store.room.reserve(self._sum())

    def wake_at(self, turn_at: int) -> int:
        """Return `turn_at` if `settle` is due, else NEVER."""
        return turn_at if self._sum() > self._store.reserved_bytes + self._step else NEVER

    def check(self) -> None:
        """Assert that every row keeps to its bound."""
        for row in self.rows:
            assert row.used() <= row.bytes_max, f"{row.name}: {row.used()} of {row.bytes_max}"

    def _sum(self) -> int:
        return sum([count() for count in self._counts])


def _beside_the_store(machines: Machines) -> tuple[Row, ...]:
    """Return the rows within the limit that are not the store's."""
    config, writes, streams = machines.config, machines.writes, machines.streams
    questions, forwards = machines.questions, machines.forwards
    one = config.value_bytes_max + KEY_BYTES_MAX + KIB
    "What is refused beyond its budget may be the first: one value is always let in."
    return (
        Row("recent_writes", config.remembered_bytes_max, lambda: writes.once.bytes_used),
        Row(
            "waiting_values",
            config.waiting_bytes_max + one,
            lambda: writes.undecided_bytes + forwards.bytes_used,
        ),
        Row("found_values", config.waiting_bytes_max + one, lambda: questions.bytes_used),
        Row(
            "replication_queues",
            config.queues_bytes_max + one * MEMBERS_MAX,
            # What waits for acknowledgements waits for peers, and is the very same bytes.
            lambda: max(streams.bytes_used, writes.bytes_used - writes.undecided_bytes),
        ),
        Row(
            "claims",
            config.claims_bytes_max + CLAIMS_UNDER_WAY_BYTES,
            lambda: machines.exchange.claims.bytes_used,
        ),
        Row("replies", config.replies_bytes_max + one, lambda: machines.load.replies_bytes),
    )


def _base(machines: Machines, converging: Converging) -> tuple[Row, ...]:
    """Return the rows that members and slots bound, not the limit."""
    held, sync, agenda = machines.held, machines.sync, machines.exchange.agenda
    wants_max = 4 * SLOT_COUNT * WANT_BYTES
    return (
        Row(
            "waiting_requests",
            (machines.config.pending_max + BATCH_KEYS_MAX) * REQUEST_BYTES,
            lambda: (
                (len(machines.questions) + len(machines.forwards) + len(machines.writes))
                * REQUEST_BYTES
            ),
        ),
        Row(
            "members",
            MEMBERS_MAX * MEMBER_BYTES,
            lambda: len(machines.membership.members) * MEMBER_BYTES,
        ),
        Row(
            "peers",
            MEMBERS_MAX * (PEER_BYTES + wants_max),
            lambda: (
                len(held.view.boots) * PEER_BYTES
                + (agenda.wanted_total + sync.nudges + held.unasked.total) * WANT_BYTES
            ),
        ),
        Row("slots", SLOT_COUNT * SLOT_BYTES, lambda: SLOT_COUNT * SLOT_BYTES),
        *_popular(machines),
        Row(
            "verdicts",
            (ROUNDS_MAX + 1 + CHANGES_MAX) * MEMBERS_MAX * ANSWER_BYTES
            + AUDITS_MAX * AUDIT_SLOTS_MAX * CONTENT_BYTES,
            lambda: (
                (len(converging) + 1 + len(machines.changes)) * len(held.view.boots) * ANSWER_BYTES
                + len(machines.audits) * AUDIT_SLOTS_MAX * CONTENT_BYTES
            ),
        ),
    )


def _popular(machines: Machines) -> tuple[Row, ...]:
    """Return the rows of what is remembered of keys because they are read or written much."""
    return (
        Row(
            "samples",
            (SAMPLES_MAX + machines.config.named_keys_per_second) * (SAMPLE_BYTES + KEY_BYTES_MAX)
            + REPAIRS_MAX * REPAIR_BYTES,
            lambda: (
                (len(machines.staleness) + len(machines.served)) * (SAMPLE_BYTES + KEY_BYTES_MAX)
                + machines.reads.repairs * REPAIR_BYTES
            ),
        ),
        Row(
            "hot_keys",
            PLACES * (COUNTED_BYTES + KEY_BYTES_MAX),
            lambda: len(machines.hot) * (COUNTED_BYTES + KEY_BYTES_MAX),
        ),
        Row(
            "watchers",
            CHANGES_MAX_WATCHED * (CHANGED_BYTES + KEY_BYTES_MAX),
            lambda: len(machines.watchers) * (CHANGED_BYTES + KEY_BYTES_MAX),
        ),
    )
