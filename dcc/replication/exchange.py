"""The exchange: anti-entropy between holders by slot clocks; also refill, rebuild and hand-over.

One direction, two steps. The asker sends a digest of each slot (`Compare`) and learns which ones
differ; of those it sends its clocks (`Pull`), and the answerer sends every record that they do not
cover and its own clocks (`PullReply`). When a slot has come whole the asker's clock becomes the
maximum of both, and notes beyond gaps go along. What is compared is what was *seen*, not what is
held, so a value that was evicted or has expired is not missed and never comes back, and equal
clocks mean silence. Every holder pulls from every other one, so both directions get their due; the
answerer keeps no state, so a lost message costs a repetition and nothing else.

    asker                              answerer
      | Compare: slots 1-9 and digests    |
      |---------------------------------->|
      | CompareReply: slot 7 differs      |
      |<----------------------------------|
      | Pull: slot 7 {a: 5, b: 9}         |
      |---------------------------------->| clock {a: 8, b: 4}; holds x@a7, y@a8, z@b3
      | slot 7 complete {a: 8, b: 4}; x, y|
      |<----------------------------------|
      | apply x, y; clock {a: 8, b: 9}

A slot that does not fit one frame is continued behind the last version that came; records go in
ascending order of version and the clock of the *first* frame counts, so that a write which
happens meanwhile is either behind the continuation point or not covered.

Why it ends: each complete pull raises the asker's clock to at least the answerer's at that
time; without new writes all clocks of a slot reach their common maximum after each pair has
pulled once. What is worth pulling comes from events (see `want_*`) and from a timer.

A former owner (or stand-in) of a slot announces itself to the owners (`Nudge`), serves the slot
meanwhile, and drops it when the clocks in the pulls of all owners cover its own, at equal epochs.

Source: Gonçalves et al., "DottedDB: Anti-Entropy without Merkle Trees, Deletes without
Tombstones", SRDS 2017, for clocks per node instead of digests of data; here per slot and per
boot, so that a slot can change hands and a cache may evict.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from dcc.effects import Effect, Tell
from dcc.limits import BATCH_BYTES, SLOT_COUNT
from dcc.replication.answerer import answer_pull, pack_clock, unpack_clock, unpack_spans
from dcc.replication.holdings import Holdings, Instant
from dcc.replication.sync import IN_SYNC, SyncTable
from dcc.replication.view import ViewChange
from dcc.ring.hashing import slot_of
from dcc.types import NO_VERSION, NodeKey, Origin, Record, Stamp, Version
from dcc.units import MILLISECOND, NEVER, SECOND
from dcc.wire.messages import Compare, CompareReply, Nudge, Pull, PullReply
from dcc.wire.shapes import SlotAnswer, SlotAsk

SLOTS_PER_PLAN = 1_024
SLOTS_PER_COMPARE = 2_048
SLOTS_PER_PULL = 128
"All three bound the work of one turn to about two milliseconds."

PULLS_IN_FLIGHT = 4
"Peers pulled from at once; bounds what arrives while the node also serves."

PULL_TIMEOUT_NS = 1 * SECOND
RETRY_NS = 200 * MILLISECOND
"Pause before a peer is asked again that did not answer, or has another view."

GAP_GRACE_NS = 500 * MILLISECOND
"A gap in a clock is usually a batch that is still on its way."

NUDGE_NS = 500 * MILLISECOND
NUDGES_KEPT_NS = 10 * NUDGE_NS
"A former owner that has been silent for so long has released its slots, or is down."


@dataclass(slots=True)
class _Partial:
    """A slot whose records did not fit one frame."""

    clock: dict[Origin, Stamp]
    spans: list[tuple[Origin, Stamp, Stamp]]
    mark: Stamp
    after: Version
    sent_at: int


@dataclass(slots=True)
class _Peer:
    """What is to be pulled from one member, and the pull under way."""

    wanted: dict[int, None] = field(default_factory=dict)  # slots, in order of arrival
    differ: dict[int, None] = field(default_factory=dict)  # those of them known to differ
    partial: dict[int, _Partial] = field(default_factory=dict)
    gaps: dict[int, int] = field(default_factory=dict)  # slot -> when to look again
    request: int = 0
    "The pull in flight; 0 = none."
    asked: tuple[int, ...] = ()
    sent_at: int = 0
    epoch: int = 0
    not_before: int = 0
    round_at: int = 0
    "When all shared slots are compared again."


class Exchange:
    """Pulls what this node should hold, answers others' pulls, hands over what it should not."""

    def __init__(self, holdings: Holdings, sync: SyncTable) -> None:
        self._held, self._sync = holdings, sync
        self._peers: dict[NodeKey, _Peer] = {}
        self._plans: deque[tuple[Iterator[int], frozenset[NodeKey] | None]] = deque()
        self._leftover: dict[int, set[NodeKey]] = {}  # slot held, not ours -> owners that cover it
        self._nudge_at = NEVER
        self._tidy_at = 0
        self._missed_since: dict[int, int] = {}  # owned slots with gaps -> when first seen
        self.rounds = self.records_in = self.bytes_in = 0
        self.last_round_at = -1

    # -------------------------------------------------------------- what is worth pulling

    def view_changed(self, change: ViewChange, now: Instant) -> None:
        """Plan pulls for changed slots and risen members; drop plans for those that fell."""
        for key in change.fallen:
            self._peers.pop(key, None)
        for key in change.risen:
            if key != self._held.key:
                self._peers[key] = _Peer(round_at=self._next_round(now))
        risen = frozenset(change.risen)
        if len(change.slots) == SLOT_COUNT:
            self._plans.clear()  # All is planned anew.
            risen = frozenset()
        self._plans.append((iter(change.slots), None))
        if risen:
            self._plans.append((iter(self._held.view.owned), risen))
        if change.led and len(change.slots) < SLOT_COUNT:
            self._plans.append((iter(change.led), None))
        self.find_leftovers(now)

    def standstill(self, now: Instant) -> None:
        """Pull everything again: others may have written without this node."""
        for key in self._held.view.alive:
            if key != self._held.key:
                self._peers[key] = _Peer(round_at=self._next_round(now))
        self._plans = deque([(iter(self._held.view.owned), None)])

    def nudged(self, peer: NodeKey, slots: Iterable[int], now: Instant) -> None:
        """A member announced slots that it holds and this node may own."""
        state = self._peers.get(peer)
        if state is None:
            return
        for slot in slots:
            if self._held.view.owns(slot):
                self._sync.nudged(slot, peer, now.mono)
                state.wanted[slot] = None

    def gap(self, peer: NodeKey, slot: int, now: Instant) -> None:
        """A record of `peer`'s stream left a gap: its predecessor has not been seen."""
        state = self._peers.get(peer)
        if state is not None:
            state.gaps.setdefault(slot, now.mono + GAP_GRACE_NS)

    @property
    def caught_up(self) -> bool:
        """Whether every slot owned here is in sync with every live holder of it."""
        return not self._plans and not any(
            not self._sync.in_sync(slot, peer)
            for peer, state in self._peers.items()
            for slot in state.wanted
        )

    def leftovers(self) -> int:
        """Return the number of slots held that belong to others."""
        return len(self._leftover)

    # -------------------------------------------------------------- asking

    def tick(self, now: Instant) -> list[Effect]:
        """Send due pulls and nudges; give up pulls that nobody answered."""
        effects: list[Effect] = []
        self._plan()
        busy = 0
        for _key, state in sorted(self._peers.items()):
            if state.request and now.mono - state.sent_at >= PULL_TIMEOUT_NS:
                self._give_up(state, now)
            busy += bool(state.request)
            self._look_at_gaps(state, now)
            if state.round_at <= now.mono:
                self._begin_round(_key, state, now)
        for key, state in sorted(self._peers.items(), key=lambda item: item[1].sent_at):
            if busy >= PULLS_IN_FLIGHT:
                break
            if state.wanted and not state.request and state.not_before <= now.mono:
                effects.append(self._ask(key, state, now))
                busy += 1
        if self._nudge_at <= now.mono:
            effects += self._nudge(now)
        if self._tidy_at <= now.mono:
            self._tidy(now)
        return effects

    def wake_at(self) -> int:
        """Return when the next pull, retry, round or nudge is due."""
        if self._plans:
            return 0
        due = min(self._nudge_at, self._tidy_at)
        busy = sum(bool(state.request) for state in self._peers.values())
        for state in self._peers.values():
            due = min(due, state.round_at, min(state.gaps.values(), default=NEVER))
            if state.request:
                due = min(due, state.sent_at + PULL_TIMEOUT_NS)
            elif state.wanted and busy < PULLS_IN_FLIGHT:
                due = min(due, state.not_before)
        return due

    def undeliverable(self, peer: NodeKey, request: int, now: Instant) -> None:
        """A message to `peer` could not be queued: if it was the pull in flight, that is void."""
        state = self._peers.get(peer)
        if state is not None and request and state.request == request:
            self._give_up(state, now)

    def receive_reply(
        self, peer: NodeKey, request: int, epoch: int, reply: PullReply, now: Instant
    ) -> list[Effect]:
        """Take the records and clocks of an answer; stale answers are ignored whole."""
        state = self._peers.get(peer)
        if state is None or not request or state.request != request:
            return []
        state.request = 0
        self.bytes_in += sum(len(r.key) + len(r.value) for r in reply.records)
        refused = self._apply(reply.records, now)
        same_view = epoch == self._held.view.epoch == state.epoch
        answered = 0
        for answer in reply.slots:
            if answer.slot in state.differ and answer.slot not in refused:
                self._take(peer, state, answer, reply, same_view=same_view)
                answered += 1
        self._asked_again(state, now, progress=bool(answered) and same_view)
        return []

    def receive_comparison(
        self, peer: NodeKey, request: int, epoch: int, reply: CompareReply, now: Instant
    ) -> list[Effect]:
        """Take the answer to a comparison: equal slots are pulled already, with nothing to come."""
        state = self._peers.get(peer)
        if state is None or not request or state.request != request:
            return []
        state.request = 0
        same_view = epoch == self._held.view.epoch == state.epoch
        differ = set(reply.differ)
        for slot in state.asked:
            if slot in differ:
                state.differ[slot] = None
            elif same_view:
                state.wanted.pop(slot, None)
                self._sync.pulled(slot, peer, state.sent_at)
        self._asked_again(state, now, progress=same_view)
        return []

    # -------------------------------------------------------------- answering, handing over

    def receive_pull(
        self, peer: NodeKey, request: int, epoch: int, pull: Pull, now: Instant
    ) -> list[Effect]:
        """Answer with what the asker lacks; learn from its clocks what it has seen."""
        held = self._held
        for ask in pull.slots:
            clock = unpack_clock(ask.clock, pull.origins)
            everything = not held.store.is_ahead(ask.slot, clock)
            self._seen_by(
                peer, ask.slot, clock, same_view=epoch == held.view.epoch, everything=everything
            )
        reply = answer_pull(held.store, pull)
        return [Tell(peer, reply, request)]

    def receive_compare(
        self, peer: NodeKey, request: int, epoch: int, compare: Compare, now: Instant
    ) -> list[Effect]:
        """Answer which slots this node sees differently."""
        held = self._held
        digest = held.store.digest
        same_view = epoch == held.view.epoch
        differ: list[int] = []
        for slot, theirs in zip(compare.slots, compare.digests, strict=False):
            if digest(slot) != theirs:
                differ.append(slot)
            elif slot in self._leftover or held.store.valueless(slot):
                self._seen_by(
                    peer, slot, held.store.clock(slot), same_view=same_view, everything=True
                )
        return [Tell(peer, CompareReply(differ=tuple(differ)), request)]

    def find_leftovers(self, now: Instant) -> None:
        """Look for slots held here that belong to others now; O(slots held)."""
        held = self._held
        owned = set(held.view.owned)
        others = [slot for slot in held.store.slots_held() if slot not in owned]
        found = [slot for slot in others if held.key not in held.view.route(slot)]
        self._leftover = {slot: self._leftover.get(slot, set()) for slot in found}
        self._nudge_at = now.mono if found else NEVER

    def written(self, slot: int) -> None:
        """A record of `slot` was taken in: owners that covered a leftover may not any more."""
        if not self._held.view.holds(slot):
            self._leftover[slot] = set()
            self._nudge_at = 0  # The next tick.

    def check(self) -> None:
        """Assert that plans are only made for live members and owned slots."""
        for key, state in self._peers.items():
            assert key in self._held.view.alive, "a plan to pull from a member that is down"
            assert set(state.partial) <= set(state.differ)

    # -------------------------------------------------------------- inside

    def _next_round(self, now: Instant) -> int:
        return now.mono + self._held.config.exchange_interval_ns

    def _plan(self) -> None:
        """Go on planning pulls: of slots that this node owns, from holders it may lag behind."""
        if not self._plans:
            return
        view, peers_of = self._held.view, self._peers
        slots, peers = self._plans[0]
        seen = 0
        for slot in islice(slots, SLOTS_PER_PLAN):
            seen += 1
            if view.owns(slot):
                for key in self._sync.holders(slot):
                    if (peers is None or key in peers) and key in peers_of:
                        peers_of[key].wanted[slot] = None
        if seen < SLOTS_PER_PLAN:
            self._plans.popleft()

    def _begin_round(self, key: NodeKey, state: _Peer, now: Instant) -> None:
        state.round_at = self._next_round(now)
        for slot in self._held.view.owned:
            if key in self._held.view.slots.owners(slot):
                state.wanted[slot] = None

    def _look_at_gaps(self, state: _Peer, now: Instant) -> None:
        for slot, at in sorted(state.gaps.items()):
            if at <= now.mono:
                del state.gaps[slot]
                if self._held.store.has_gaps(slot) and self._held.view.owns(slot):
                    state.wanted[slot] = None

    def _ask(self, key: NodeKey, state: _Peer, now: Instant) -> Effect:
        state.request = self._held.next_request()
        state.sent_at, state.epoch = now.mono, self._held.view.epoch
        message = self._pull(state) if state.differ else self._compare(state)
        return Tell(key, message, state.request)

    def _compare(self, state: _Peer) -> Compare:
        state.asked = tuple(islice(state.wanted, SLOTS_PER_COMPARE))
        digest = self._held.store.digest
        return Compare(slots=state.asked, digests=tuple([digest(slot) for slot in state.asked]))

    def _pull(self, state: _Peer) -> Pull:
        origins: dict[Origin, int] = {}
        asks: list[SlotAsk] = []
        size = 0
        for slot in state.differ:
            partial = state.partial.get(slot)
            clock = pack_clock(self._held.store.clock(slot), origins)
            size += 16 + 6 * len(clock)
            if asks and (size > BATCH_BYTES or len(asks) >= SLOTS_PER_PULL):
                break
            after = partial.after if partial else NO_VERSION
            asks.append(SlotAsk(slot, after, clock, self._held.store.mark(slot)))
        state.asked = tuple(ask.slot for ask in asks)
        return Pull(origins=tuple(origins), slots=tuple(asks))

    def _asked_again(self, state: _Peer, now: Instant, *, progress: bool) -> None:
        if not progress:
            state.not_before = now.mono + RETRY_NS
        if not state.wanted:
            self.rounds += 1
            self.last_round_at = now.mono

    def _give_up(self, state: _Peer, now: Instant) -> None:
        state.request = 0
        state.partial.clear()
        state.not_before = now.mono + RETRY_NS

    def _apply(self, records: Iterable[Record], now: Instant) -> set[int]:
        """Merge records; return the slots of those whose stamp is too far ahead of time."""
        held = self._held
        refused: set[int] = set()
        for record in records:
            slot = slot_of(record.key)
            if not held.view.owns(slot):
                continue  # It was lost since the question: a copy would be nobody's to release.
            if held.clock.too_far_ahead(record.version.stamp, now.ms):
                refused.add(slot)
                continue
            held.clock.witness(record.version.stamp)
            held.store.apply(slot, record, now.ms)
            self.records_in += 1
        return refused

    def _take(
        self, peer: NodeKey, state: _Peer, answer: SlotAnswer, reply: PullReply, *, same_view: bool
    ) -> None:
        slot = answer.slot
        partial = state.partial.pop(slot, None)
        if not self._held.view.owns(slot):
            state.wanted.pop(slot, None)
            del state.differ[slot]
            return
        if partial is None:
            clock = unpack_clock(answer.clock, reply.origins)
            spans = unpack_spans(answer.spans, reply.origins)
            partial = _Partial(clock, spans, answer.mark, NO_VERSION, state.sent_at)
        if not answer.complete:
            versions = [r.version for r in reply.records if slot_of(r.key) == slot]
            partial.after = max(versions, default=partial.after)
            state.partial[slot] = partial
            return
        store = self._held.store
        if answer.refill:
            store.refill(slot, set(answer.refill), partial.clock)
        store.merge_clock(slot, partial.clock, partial.mark)
        store.merge_spans(slot, partial.spans)
        del state.differ[slot]
        if same_view:
            state.wanted.pop(slot, None)
            self._sync.pulled(slot, peer, partial.sent_at)

    def _seen_by(
        self,
        peer: NodeKey,
        slot: int,
        clock: Mapping[Origin, Stamp],
        *,
        same_view: bool,
        everything: bool,
    ) -> None:
        """Use what a question reveals of the asker: what `clock` covers, or all that is here."""
        held = self._held
        if peer not in held.view.alive or not same_view:
            return
        owners = held.view.slots.owners(slot)
        if peer not in owners:
            return
        if slot not in self._leftover:
            held.store.note_covered(slot, held.view.boots[peer], clock)
        elif everything:
            self._leftover[slot].add(peer)
            self._release_if_covered(slot, owners)

    def _tidy(self, now: Instant) -> None:
        """Forget what every holder has seen, and give up what no holder can have any more.

        Members that are down count, and removed ones too, until they are forgotten themselves:
        they may come back with an older value that only such a record can hide, or with the very
        writes that are missing here. So do former owners that have not released the slot.
        """
        held = self._held
        self._tidy_at = self._next_round(now)
        if not held.view.all_up:
            return
        for slot in held.view.owned:
            if self._sync.unsynced(slot) is IN_SYNC:
                if not self._sync.nudged_since(slot, now.mono - NUDGES_KEPT_NS):
                    self._forget(slot)
                self._close_gaps(slot, now)

    def _close_gaps(self, slot: int, now: Instant) -> None:
        """Give up writes that nobody has: all holders were pulled from since they were missed."""
        origins = self._held.store.gap_origins(slot)
        if not origins:
            self._missed_since.pop(slot, None)
            return
        since = self._missed_since.setdefault(slot, now.mono)
        owners = self._held.view.slots.owners(slot)
        holders = {*owners, *self._sync.nudgers(slot)} - {self._held.key}
        if since < now.mono and all(self._sync.last_pull(slot, key) > since for key in holders):
            for origin in origins:
                self._held.store.close_gaps(slot, origin)

    def _forget(self, slot: int) -> None:
        """Forget the slot's records without values that every owner is known to have seen."""
        held = self._held
        owners = held.view.slots.owners(slot)
        others = [held.view.boots[key] for key in owners if key != held.key]
        held.store.forget_covered(slot, others)

    def _release_if_covered(self, slot: int, owners: tuple[NodeKey, ...]) -> None:
        if owners and self._leftover[slot].issuperset(owners):
            self._held.store.drop_slot(slot)
            del self._leftover[slot]

    def _nudge(self, now: Instant) -> list[Effect]:
        """Announce leftovers to the owners that have not covered them yet."""
        view = self._held.view
        todo: dict[NodeKey, list[int]] = {}
        for slot, covered in sorted(self._leftover.items()):
            for owner in view.slots.owners(slot):
                if owner not in covered and owner in view.alive:
                    todo.setdefault(owner, []).append(slot)
        self._nudge_at = now.mono + NUDGE_NS if self._leftover else NEVER
        return [Tell(owner, Nudge(slots=tuple(slots))) for owner, slots in sorted(todo.items())]
