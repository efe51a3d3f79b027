"""Requests that are answered from what this node holds, and from nothing else: none is passed on.

Many keys at once, the keys of some slots, and what is held of one key. Where others may know more
the answer says so for each key or slot, and the client asks elsewhere.
"""

from __future__ import annotations

from dcc.effects import Effect
from dcc.limits import BATCH_BYTES, EXTRA_FRAMES_MAX, INLINE_VALUE_BYTES_MAX
from dcc.node.admission import Admission, Request
from dcc.node.machines import Machines
from dcc.replication.served import EVERY as NAMED
from dcc.replication.staleness import EVERY
from dcc.ring.hashing import slot_of
from dcc.wire import messages as m

SCAN_BYTES = BATCH_BYTES
SCAN_ENTRIES_MAX = 10_000
"Looked at for one reply, some four milliseconds: then it says how far it got."
SLOT_ENTRIES = 8
"What a slot without entries costs, in entries: all 16,384 of them would stop the loop for 40 ms."


class Listings:
    """Answers for many keys, or for many facts about one."""

    def __init__(self, machines: Machines, admission: Admission) -> None:
        self._machines, self._held, self._admission = machines, machines.held, admission
        self._counters = machines.counters

    def get_many(self, request: Request, message: m.GetMany) -> list[Effect]:
        """Read the keys that this node leads, or holds if asked so; name the others."""
        asker, at = request.asker, request.at
        self._counters.commands["get_many"] += 1
        held, me, certainty = self._held, self._held.key, self._machines.certainty
        statuses = bytearray()
        values: list[bytes] = []
        stamps: list[int] = []
        effects: list[Effect] = []
        first = size = large = hits = misses = 0
        looked_at: list[bytes] = []
        for key in message.keys:
            slot = slot_of(key)
            route = held.view.route(slot)
            leads = route[:1] == (me,)
            mine = leads or (message.direct and me in route)
            mine = mine and not certainty.may_be_old(slot)
            entry = held.store.get(slot, key, at.ms) if mine else None
            if entry is not None:
                value = entry.value
                size += len(value) + 4
                large += len(value) >= INLINE_VALUE_BYTES_MAX
                if values and (size > BATCH_BYTES or large > EXTRA_FRAMES_MAX):
                    part = _many(first, statuses, values, stamps, last=False)
                    effects.append(asker.answer(part))
                    first += len(statuses)
                    statuses, values, stamps = bytearray(), [], []
                    size, large = len(value) + 4, int(len(value) >= INLINE_VALUE_BYTES_MAX)
                statuses.append(m.Status.HIT)
                values.append(value)
                stamps.append(entry.version.stamp)
                hits += 1
                if not (self._counters.hits + hits) % EVERY:
                    self._machines.staleness.served(key, entry.version, at.ms)
                if not (self._counters.hits + hits) % NAMED:
                    looked_at.append(key)
            elif leads and mine and not (inquiry := certainty.of_absence(slot, key)).peers:
                statuses.append(m.Status.MISS if inquiry.decides else m.Status.UNSURE)
                misses += 1
            else:
                statuses.append(m.Status.ELSEWHERE)
        self._counters.hits += hits
        self._counters.misses += misses
        hot = tuple([key for key in looked_at if self._machines.hot.served(key)])
        effects.append(asker.answer(_many(first, statuses, values, stamps, hot, last=True)))
        return effects

    def scan(self, request: Request, scan: m.Scan) -> list[Effect]:
        """List the keys of some slots, and say which slots others may know better."""
        asker, at, certainty = request.asker, request.at, self._machines.certainty
        if len(set(scan.slots)) < len(scan.slots):
            text = "a slot is named twice"
            return [self._admission.refuse(asker, m.Code.MALFORMED, text)]
        held, keys, unsure, old, lacking = self._held, [], [], [], []
        done = size = looked_at = 0
        after = scan.after
        for slot in scan.slots:
            found = [k for k in held.store.keys(slot, at.ms) if k.startswith(scan.prefix)]
            worth = certainty.of_listing(slot)
            if worth.may_be_old:
                old.append(slot)
            for key in sorted(key for key in found if key > after):
                keys.append(key)
                size += len(key) + 3
                if size > SCAN_BYTES:
                    break
            looked_at += len(held.store.tables[slot]) + SLOT_ENTRIES
            if size > SCAN_BYTES:
                break
            after = b""
            done += 1
            if not worth.authoritative:
                unsure.append(slot)
            if worth.may_lack:
                lacking.append(slot)
            if looked_at > SCAN_ENTRIES_MAX:
                break
        reply = m.ScanReply(
            done=done, keys=tuple(keys), unsure=tuple(unsure), old=tuple(old),
            lacking=tuple(lacking),
        )  # fmt: skip
        return [asker.answer(reply)]

    def inspect(self, request: Request, message: m.Inspect) -> list[Effect]:
        """Tell what is held of one key, valueless records included."""
        slot = slot_of(message.key)
        # Turns what has expired into a record of it.
        self._held.store.get(slot, message.key, request.at.ms)
        confirmed = self._machines.certainty.of_listing(slot).authoritative
        records = self._held.records_of(message.key)
        return [request.asker.answer(m.InspectReply(records=records, confirmed=confirmed))]


def _many(
    first: int,
    statuses: bytearray,
    values: list[bytes],
    stamps: list[int],
    hot: tuple[bytes, ...] = (),
    *,
    last: bool,
) -> m.GetManyReply:
    return m.GetManyReply(
        first=first, statuses=bytes(statuses), values=tuple(values), last=last,
        stamps=tuple(stamps), hot=hot,
    )  # fmt: skip
