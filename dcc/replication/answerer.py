"""The answering half of the exchange: what the asker sees differently, and records that it lacks.

It keeps no state of a talk, so a lost message costs the asker a repetition and nothing else. What
a question says of the asker is used, though: who has seen all that is here of a slot needs no hints
about it, covers its tombstones, and may let a former owner release it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice

from dcc.effects import Effect, Tell
from dcc.limits import BATCH_BYTES, EXTRA_FRAMES_MAX, INLINE_VALUE_BYTES_MAX
from dcc.replication.handover import Leftovers
from dcc.replication.holdings import Holdings, Instant
from dcc.replication.lane import record_bytes
from dcc.replication.merkle import NOT_KNOWN, Trees
from dcc.replication.pace import Pace
from dcc.ring.hashing import slot_of
from dcc.store.doubt import NOTHING_OWED, Owed, is_below
from dcc.store.notes import SPANS_MAX
from dcc.store.store import Store
from dcc.types import NodeKey, Origin, Record, Stamp
from dcc.wire.codec import Header
from dcc.wire.messages import (
    Compare,
    CompareReply,
    CompareRoot,
    CompareRootReply,
    Fetch,
    Pull,
    PullReply,
)
from dcc.wire.shapes import GRAVES_MAX, SlotAnswer, SlotAsk, SlotGraves


def pack_clock(clock: Mapping[Origin, Stamp], origins: dict[Origin, int]) -> tuple[int, ...]:
    """Return `clock` as flat pairs (index, stamp), adding unknown origins to the table.

    >>> table = {}
    >>> pack_clock({(7, 1): 90}, table), table
    ((0, 90), {(7, 1): 0})
    """
    flat: list[int] = []
    for origin, stamp in sorted(clock.items()):
        flat.append(origins.setdefault(origin, len(origins)))
        flat.append(stamp)
    return tuple(flat)


def unpack_clock(flat: tuple[int, ...], origins: tuple[Origin, ...]) -> dict[Origin, Stamp]:
    """Return the clock behind flat pairs; pairs that name no origin of the table are left out.

    >>> unpack_clock((0, 90, 5, 1), ((7, 1),))
    {(7, 1): 90}
    """
    return {
        origins[index]: stamp
        for index, stamp in zip(flat[::2], flat[1::2], strict=False)
        if index < len(origins)
    }


def pack_spans(
    spans: Iterable[tuple[Origin, Stamp, Stamp]], origins: dict[Origin, int]
) -> tuple[int, ...]:
    """Return notes as flat triples (index, low, high), adding unknown origins to the table.

    `SPANS_MAX` at most; what is left out travels when these have closed.

    >>> table = {}
    >>> pack_spans([((7, 1), 3, 9)], table), table
    ((0, 3, 9), {(7, 1): 0})
    """
    return tuple([
        word
        for origin, low, high in islice(spans, SPANS_MAX)
        for word in (origins.setdefault(origin, len(origins)), low, high)
    ])  # fmt: skip


def unpack_spans(
    flat: tuple[int, ...], origins: tuple[Origin, ...]
) -> list[tuple[Origin, Stamp, Stamp]]:
    """Return the notes behind flat triples; those that name no origin or are empty are left out.

    >>> unpack_spans((0, 3, 9, 7, 1, 2), ((7, 1),))
    [((7, 1), 3, 9)]
    """
    return [
        (origins[index], low, high)
        for index, low, high in zip(flat[::3], flat[1::3], flat[2::3], strict=False)
        if index < len(origins) and low < high
    ]


def owed_to(pull: Pull) -> dict[int, Owed]:
    """Return what an asker says to be owed, by slot."""
    return {one.slot: Owed(one.low, one.high, one.held) for one in pull.owed}


def answer_pull(
    store: Store,
    pull: Pull,
    *,
    serving: bool = False,
    leftovers: Leftovers | frozenset[int] = frozenset(),
) -> PullReply:
    """Return what the asker's clocks lack, up to one batch; slots left out did not fit.

    Of `leftovers` what is loose is told as spans: no clock may ever cover it, and they are to be
    released to those who have noted it. At least one record is sent when there is any, however
    large, so that asking again makes progress.

    Complexity: O(slots asked + records in the slots that differ).
    """
    batch = _Batch(pull, leftovers)
    for ask in pull.slots:
        if not batch.add(store, ask):
            break
    return batch.reply(serving=serving)


RECORDS_MAX = 32
"Small records cost time rather than bytes: so many keep a turn of the asker to milliseconds."


class _Batch:
    def __init__(self, pull: Pull, leftovers: Leftovers | frozenset[int]) -> None:
        self._leftovers = leftovers
        self._asked_origins = pull.origins
        self._owed = owed_to(pull)
        self._origins: dict[Origin, int] = {}
        self._slots: list[SlotAnswer] = []
        self._records: list[Record] = []
        self._buried: list[SlotGraves] = []
        self._bytes = self._large = 0

    def add(self, store: Store, ask: SlotAsk) -> bool:
        """Answer one slot; return whether there is room for more."""
        theirs = unpack_clock(ask.clock, self._asked_origins)
        ours, spans = store.clock(ask.slot), store.spans(ask.slot)
        complete = True
        owed = self._owed.get(ask.slot, NOTHING_OWED)
        if not store.owes(ask.slot, owed):
            owed = NOTHING_OWED
        if owed.high or store.is_ahead(ask.slot, theirs):
            for record in store.lacking(ask.slot, theirs, ask.after, owed):
                if not self._fits(record):
                    complete = False
                    break
        mark = store.mark(ask.slot)
        refill: tuple[int, ...] = ()
        if complete and is_below(theirs, ours, mark, spans):
            refill = store.hashes(ask.slot)
        clock = pack_clock(ours, self._origins)
        if ask.slot in self._leftovers:
            spans += store.points(ask.slot)
        noted = pack_spans(spans, self._origins)
        self._bytes += 16 + 6 * len(clock) + 6 * len(noted) + 9 * len(refill)
        graves = store.graves.lacking(ask.slot, theirs)[-GRAVES_MAX:] if complete else []
        if graves:
            flat = tuple([word for name, version in graves for word in (name, *version)])
            self._buried.append(SlotGraves(ask.slot, flat))
            self._bytes += 9 * len(flat)
        self._slots.append(SlotAnswer(ask.slot, complete, clock, mark, refill, noted))
        return complete and self._bytes < BATCH_BYTES

    def reply(self, *, serving: bool) -> PullReply:
        return PullReply(
            origins=tuple(self._origins), slots=tuple(self._slots), records=tuple(self._records),
            serving=serving, buried=tuple(self._buried),
        )  # fmt: skip

    def _fits(self, record: Record) -> bool:
        size = record_bytes(record)
        large = len(record.value) >= INLINE_VALUE_BYTES_MAX
        room = self._bytes + size <= BATCH_BYTES and self._large + large <= EXTRA_FRAMES_MAX
        if self._records and (not room or len(self._records) >= RECORDS_MAX):
            return False
        self._records.append(record)
        self._bytes += size
        self._large += large
        return True


class Answerer:
    """Answers comparisons and pulls, and remembers who has seen the same as this node."""

    def __init__(self, holdings: Holdings, trees: Trees, leftovers: Leftovers, pace: Pace) -> None:
        self._held, self._trees, self._leftovers, self._pace = holdings, trees, leftovers, pace
        self._agreed: dict[NodeKey, int] = {}

    def agreed_at(self, peer: NodeKey) -> int:
        """Return when this node last knew that `peer` had seen the same as it; -1 = never."""
        return self._agreed.get(peer, -1)

    def agree(self, peer: NodeKey, now: Instant) -> None:
        """Note that the roots of the tree shared with `peer` are equal."""
        self._agreed[peer] = now.mono

    def forget(self, peer: NodeKey) -> None:
        """Forget a member that is down."""
        self._agreed.pop(peer, None)

    def knows_gone(self, fetch: Fetch) -> bool:
        """Return whether a value that the asker holds, and this node does not, was deleted.

        Or replaced by what has expired: whatever it was, its record is forgotten here under the
        mark, and the asker has not seen it. If the asker had, the value was merely evicted here.
        """
        slot, store = slot_of(fetch.key), self._held.store
        mark = store.mark(slot)
        if fetch.version.stamp > mark or not store.covers(slot, fetch.version):
            return False
        theirs = dict(zip(fetch.origins, fetch.stamps, strict=True))
        return is_below(theirs, store.clock(slot), mark, store.spans(slot))

    def receive_pull(self, header: Header, pull: Pull, now: Instant) -> list[Effect]:
        """Answer with what the asker lacks; learn from its clocks what it has seen."""
        peer, request, epoch = header.sender, header.request, header.epoch
        held = self._held
        owed = owed_to(pull)
        for ask in pull.slots:
            clock = unpack_clock(ask.clock, pull.origins)
            if epoch == held.view.epoch:
                spans = unpack_spans(ask.spans, pull.origins)
                everything = held.store.is_within(ask.slot, clock, spans)
                # What is only covered there is not in good hands yet.
                owes = held.store.owes(ask.slot, owed.get(ask.slot, NOTHING_OWED))
                self._seen_by(peer, ask.slot, clock, everything=everything and not owes)
        serving = self._pace.serves(now.mono)
        reply = answer_pull(held.store, pull, serving=serving, leftovers=self._leftovers)
        return [Tell(peer, reply, request, bulk=True)]

    def receive_compare(self, header: Header, compare: Compare, now: Instant) -> list[Effect]:
        """Answer which slots this node sees differently."""
        peer, request, epoch = header.sender, header.request, header.epoch
        held = self._held
        digest = held.store.digest
        same_view = epoch == held.view.epoch
        differ: list[int] = []
        for slot, theirs in zip(compare.slots, compare.digests, strict=False):
            ours = digest(slot)
            if ours == theirs:
                if same_view and (slot in self._leftovers or held.store.valueless(slot)):
                    self._seen_by(peer, slot, held.store.clock(slot), everything=True)
            elif ours:
                differ.append(slot)
        return [Tell(peer, CompareReply(differ=tuple(differ)), request)]

    def receive_root(self, header: Header, compare: CompareRoot, now: Instant) -> list[Effect]:
        """Answer whether the tree shared with the asker is the same here, else with its groups."""
        peer, request, epoch = header.sender, header.request, header.epoch
        groups: tuple[int, ...] = ()
        if self._trees.root(peer) != compare.root or compare.root == NOT_KNOWN:
            groups = self._trees.groups(peer)
        elif epoch == self._held.view.epoch:
            self.agree(peer, now)
            self.all_seen_by(peer, self._trees.shared(peer))
        return [Tell(peer, CompareRootReply(groups=groups), request)]

    def all_seen_by(self, peer: NodeKey, slots: Iterable[int]) -> None:
        """Note that `peer` has seen all that is here of `slots`, which both own."""
        store = self._held.store
        for slot in slots:
            if store.valueless(slot):
                self._seen_by(peer, slot, store.clock(slot), everything=True)

    def _seen_by(
        self, peer: NodeKey, slot: int, clock: Mapping[Origin, Stamp], *, everything: bool
    ) -> None:
        """Use what a peer with the same view has seen: what `clock` covers, or all that is here."""
        held = self._held
        owners = held.view.slots.owners(slot)
        if peer not in held.view.alive or peer not in owners:
            return
        if slot not in self._leftovers:
            held.store.note_covered(slot, held.view.boots[peer], clock)
        elif everything:
            self._leftovers.covered(slot, peer, owners)
