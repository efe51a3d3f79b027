"""The answering half of the exchange: what the asker sees differently, and records that it lacks.

It keeps no state of a talk, so a lost message costs the asker a repetition and nothing else. What a
question says of the asker is used, though: a peer that has seen all that is here of a slot needs no
hints about it, covers its tombstones, and may let a former owner release it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from dcc.effects import Effect, Tell
from dcc.limits import BATCH_BYTES, EXTRA_FRAMES_MAX, INLINE_VALUE_BYTES_MAX
from dcc.replication.handover import Leftovers
from dcc.replication.holdings import Holdings, Instant
from dcc.replication.lane import record_bytes
from dcc.replication.merkle import NOT_KNOWN, Trees
from dcc.replication.pace import Pace
from dcc.replication.packing import (
    owed_to,
    pack_clock,
    pack_graves,
    pack_spans,
    unpack_clock,
    unpack_spans,
)
from dcc.replication.sync import SyncTable
from dcc.ring.hashing import slot_of
from dcc.store.comparison import Ending
from dcc.store.doubt import NOTHING_OWED
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


def answer_pull(
    store: Store,
    pull: Pull,
    *,
    serving: bool = False,
    leftovers: Leftovers | frozenset[int] = frozenset(),
    told: Callable[[int], Mapping[Origin, Stamp]] | None = None,
) -> PullReply:
    """Return what the asker's clocks lack, up to one batch; slots left out did not fit.

    `told` gives the clock that others may know of a slot; by default it is the store's. Of
    `leftovers` what is loose is told as spans: no clock may ever cover it, and they are to be
    released to peers that have noted it. At least one record is sent when there is any, however
    large, so that asking again makes progress.

    Complexity: O(slots asked + records in the slots that differ).
    """
    batch = _Batch(pull, leftovers, told or store.clock)
    for ask in pull.slots:
        if not batch.add(store, ask):
            break
    return batch.reply(serving=serving)


NO_ENDING = Ending((), [])

RECORDS_MAX = 32
"Small records cost time rather than bytes: this many keep a turn of the asker to milliseconds."


class _Batch:
    def __init__(
        self, pull: Pull, leftovers: Leftovers | frozenset[int],
        told: Callable[[int], Mapping[Origin, Stamp]],
    ) -> None:  # fmt: skip
        self._leftovers, self._told = leftovers, told
        self._asked_origins = pull.origins
        self._owed = owed_to(pull)
        self._origins: dict[Origin, int] = {}
        self._slots: list[SlotAnswer] = []
        self._records: list[Record] = []
        self._buried: list[SlotGraves] = []
        self._bytes = self._large = 0

    def add(self, store: Store, ask: SlotAsk) -> bool:
        """Answer one slot; return whether there is room for more."""
        comparison, slot = store.comparison, ask.slot
        theirs = unpack_clock(ask.clock, self._asked_origins)
        owed = self._owed.get(slot, NOTHING_OWED)
        difference = comparison.difference(slot, theirs, ask.after, owed)
        difference = replace(difference, clock=self._told(slot))
        complete = all(map(self._fits, difference.records))
        ending = comparison.ending(slot, theirs, difference) if complete else NO_ENDING
        clock = pack_clock(difference.clock, self._origins)
        points = comparison.points(slot) if slot in self._leftovers else []
        noted = pack_spans(difference.spans + points, self._origins)
        self._bytes += 16 + 6 * len(clock) + 6 * len(noted) + 9 * len(ending.listed)
        if ending.graves:
            flat = pack_graves(ending.graves[-GRAVES_MAX:])
            self._buried.append(SlotGraves(slot, flat))
            self._bytes += 9 * len(flat)
        answer = SlotAnswer(slot, complete, clock, difference.mark, ending.listed, noted)
        self._slots.append(answer)
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
    """Answers comparisons and pulls, and remembers which peers have seen the same as this node."""

    def __init__(
        self, holdings: Holdings, sync: SyncTable, trees: Trees, leftovers: Leftovers, pace: Pace
    ) -> None:
        self._held, self._sync = holdings, sync
        self._trees, self._leftovers, self._pace = trees, leftovers, pace
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
        """Return whether a value that the asker holds, and this node does not, was deleted."""
        theirs, slot = dict(zip(fetch.origins, fetch.stamps, strict=True)), slot_of(fetch.key)
        store = self._held.store
        if store.graves.hide(slot, fetch.key, fetch.version):
            return True
        if slot in self._held.unasked.aside:  # What the base covers may be the asker's own.
            return False
        return store.comparison.knows_gone(slot, fetch.version, theirs)

    def receive_pull(self, header: Header, pull: Pull, now: Instant) -> list[Effect]:
        """Answer with what the asker lacks; learn from its clocks what it has seen."""
        peer, request, epoch = header.sender, header.request, header.epoch
        held = self._held
        owed = owed_to(pull)
        for ask in pull.slots:
            clock = unpack_clock(ask.clock, pull.origins)
            if epoch == held.view.epoch:
                spans = unpack_spans(ask.spans, pull.origins)
                if not clock and not spans:  # Nothing was seen there, so nothing is missed here.
                    self._sync.asked(ask.slot, peer)
                # What is only covered there is not in good hands yet.
                everything = held.store.comparison.has_everything(
                    ask.slot, clock, spans, owed.get(ask.slot, NOTHING_OWED)
                )
                self._seen_by(peer, ask.slot, clock, everything=everything)
        serving = self._pace.serves(now.mono)
        reply = answer_pull(
            held.store, pull, serving=serving, leftovers=self._leftovers, told=held.unasked.told
        )
        return [Tell(peer, reply, request, bulk=True)]

    def receive_compare(self, header: Header, compare: Compare, now: Instant) -> list[Effect]:
        """Answer which slots this node sees differently."""
        peer, request, epoch = header.sender, header.request, header.epoch
        held = self._held
        digest = held.digest
        same_view = epoch == held.view.epoch
        differ: list[int] = []
        for slot, theirs in zip(compare.slots, compare.digests, strict=False):
            ours = digest(slot)
            if ours == theirs:
                if same_view and (slot in self._leftovers or held.store.valueless(slot)):
                    self._seen_by(peer, slot, held.store.clock(slot), everything=True)
            elif ours:
                differ.append(slot)
            elif same_view and slot in self._leftovers:  # A mark alone: nothing for anybody.
                self._seen_by(peer, slot, held.store.clock(slot), everything=True)
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
            held.store.forgetting.note_covered(slot, held.view.boots[peer], clock)
        elif everything:
            self._leftovers.covered(slot, peer, owners)
