"""The exchange: anti-entropy between holders by slot clocks; also refill, rebuild and hand-over.

One direction, three steps. The asker compares the tree over all slots that both own (`CompareRoot`:
eight bytes if all is equal, else 128 groups), then a digest of each slot in question (`Compare`);
of those that differ it sends its clocks (`Pull`), and the answerer sends every record that they do
not cover and its own clocks (`PullReply`). When a slot has come whole the asker's clock becomes the
maximum of both, and notes beyond gaps go along. What is compared is what was *seen*, not what is
held, so a value that was evicted or has expired is not missed and never comes back, and equal
clocks mean silence. Every holder pulls from every other one, so both directions get their due; the
answerer keeps no state, so a lost message costs a repetition and nothing else.

    asker                              answerer
      | CompareRoot: root                 |
      |---------------------------------->|
      | CompareRootReply: 128 groups      |
      |<----------------------------------|
      | Compare: slots 7, 135 and digests |
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
pulled once. What is worth comparing comes from events (a changed view, an own standstill, a gap in
a stream), from the roots that ride on pings and acks (a difference that lasts), and from a timer.

Source: Gonçalves et al., "DottedDB: Anti-Entropy without Merkle Trees, Deletes without
Tombstones", SRDS 2017, for clocks per node instead of digests of data; here per slot and per
boot, so that a slot can change hands and a cache may evict. The trees over them: `merkle`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from dcc.effects import Effect, Tell
from dcc.limits import BATCH_BYTES, GROUP_COUNT, SLOT_COUNT
from dcc.replication.answerer import (
    Answerer,
    is_below,
    pack_clock,
    pack_spans,
    unpack_clock,
    unpack_spans,
)
from dcc.replication.handover import Leftovers
from dcc.replication.holdings import Holdings, Instant
from dcc.replication.merkle import NOT_KNOWN, Trees, differing
from dcc.replication.pace import Pace
from dcc.replication.streams import record_bytes
from dcc.replication.sync import SyncTable
from dcc.replication.tidying import Tidying
from dcc.replication.view import ViewChange
from dcc.ring.hashing import slot_of
from dcc.types import NO_VERSION, NodeKey, Origin, Record, Stamp, Version
from dcc.units import MILLISECOND, NEVER, SECOND
from dcc.wire.messages import (
    Compare,
    CompareReply,
    CompareRoot,
    CompareRootReply,
    Message,
    Pull,
    PullReply,
)
from dcc.wire.shapes import SlotAnswer, SlotAsk

SLOTS_PER_PLAN = 1_024
SLOTS_PER_COMPARE = 512
SLOTS_PER_PULL = 128
"All three bound the work of one turn to a few milliseconds."

SLOTS_PULLED_FIRST = 16
"Then twice as many as the last answer had room for: clocks that find none were sent in vain."

PULLS_IN_FLIGHT = 4
"Peers pulled from at once; bounds what arrives while the node also serves."

PATIENCE_FIRST_NS = 250 * MILLISECOND
PATIENCE_MOST_NS = 2 * SECOND
"""How long an answer is waited for. It takes milliseconds, or never comes: who has just been
thought dead has no connection back yet. So patience is short, and doubles with each silence."""

MUTE_NS = 30 * SECOND
"Who is alive by gossip and answers nothing for so long holds nobody up any more."

RETRY_NS = 200 * MILLISECOND
"Pause before a peer is asked again that did not answer, or has another view."

GAP_GRACE_NS = 500 * MILLISECOND
"A gap in a clock is usually a batch that is still on its way."

LASTING_NS = 1 * SECOND
"Roots that still differ after so long differ by more than writes under way."

DOUBTS_PAUSE_NS = 5 * SECOND
"Between two descents into one peer's tree that roots heard on gossip have caused."

GROUPS_BUSY = 32
"So many differing groups are writes everywhere, not divergence: that is left to the timer."

DESCENTS_MAX = 3
"Roots compared in vain, the views being unequal, before the slots are compared one by one."


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
    refused: set[int] = field(default_factory=set)  # those of them to be pulled in any case
    request: int = 0
    "The pull in flight; 0 = none."
    asked: tuple[int, ...] = ()
    sent_at: int = 0
    epoch: int = 0
    slots_per_pull: int = SLOTS_PULLED_FIRST
    patience_ns: int = PATIENCE_FIRST_NS
    silent_since: int = NEVER
    "When the first question was put that nothing has answered since."
    not_before: int = 0
    round_at: int = 0
    "When the roots are compared again, whatever was heard."
    descents: int = 0
    "Tries left to begin at the root, before slots are compared; 0 = none is wanted."
    doubted: bool = False
    "The descent follows from a root heard on gossip."
    doubt_at: int = NEVER
    "When a difference of roots is looked into."
    calm_until: int = 0


class Exchange:
    """Pulls what this node should hold; the other half of the talk is `answerer`."""

    def __init__(self, holdings: Holdings, sync: SyncTable) -> None:
        self._held, self._sync = holdings, sync
        self._peers: dict[NodeKey, _Peer] = {}
        self._plans: deque[tuple[Iterator[int], frozenset[NodeKey] | None]] = deque()
        self.leftovers = Leftovers(holdings)
        self.trees = Trees(holdings)
        self.tidying = Tidying(holdings, sync)
        self._pace = Pace(holdings.config.move_bytes_per_second, holdings.config.move_share_percent)
        self.answerer = Answerer(holdings, self.trees, self.leftovers, self._pace)
        self._turned_at = 0
        self._pieces = 0
        "Pieces of the trees to be made anew before somebody descends."
        self.divergences = 0
        "Lasting differences that roots heard on gossip have led to."
        self.rounds = self.records_in = self.bytes_in = 0
        self.last_round_at = -1

    # -------------------------------------------------------------- what is worth pulling

    def view_changed(self, change: ViewChange, now: Instant) -> None:
        """Plan pulls for changed slots and risen members; drop plans for those that fell."""
        self.trees.view_changed(change.slots)
        for key in change.fallen:
            self._peers.pop(key, None)
            self.answerer.forget(key)
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
        for state in self._peers.values():
            # What was asked in another view answers nothing in this one, and a slot that is
            # continued may have been dropped and regained meanwhile.
            state.request = 0
            state.partial.clear()
            self._descend(state)
        if change.slots or change.risen or change.fallen:
            self.leftovers.find(now)

    def standstill(self, now: Instant) -> None:
        """Compare everything again: others may have written without this node."""
        for key in self._held.view.alive:
            if key != self._held.key:
                state = self._peers[key] = _Peer(round_at=self._next_round(now))
                self._descend(state)
        self._plans = deque([(iter(self._held.view.owned), None)])

    def root(self, peer: NodeKey) -> int:
        """Return the root of the tree shared with `peer`, for a ping or ack; 0 = not known."""
        return self.trees.root(peer)

    def root_heard(self, peer: NodeKey, root: int, now: Instant) -> None:
        """Compare a root that came with a ping or ack, at equal epochs; doubt what differs."""
        state = self._peers.get(peer)
        mine = self.trees.root(peer)
        if state is None or NOT_KNOWN in (root, mine):
            return
        if mine == root:
            state.doubt_at = NEVER
            self.answerer.agree(peer, now)
        elif state.doubt_at == NEVER and state.calm_until <= now.mono:
            state.doubt_at = now.mono + LASTING_NS

    def nudged(self, peer: NodeKey, slots: Iterable[int], now: Instant) -> None:
        """A member announced slots that it holds and this node may own."""
        state = self._peers.get(peer)
        if state is None:
            return
        for slot in slots:
            if self._held.view.owns(slot):
                self._sync.nudged(slot, peer, now.mono)
                state.wanted[slot] = None

    def gap(self, peer: NodeKey, slot: int, now: Instant, *, refused: bool = False) -> None:
        """A record of `peer`'s stream left a gap: its predecessor has not been seen.

        Or it was itself `refused`, of which the store knows nothing.
        """
        state = self._peers.get(peer)
        if state is not None:
            state.gaps.setdefault(slot, now.mono + GAP_GRACE_NS)
            if refused:
                state.refused.add(slot)

    @property
    def caught_up(self) -> bool:
        """Whether every slot owned here is in sync with every live holder of it that answers."""
        return not self._plans and not any(
            not self._sync.in_sync(slot, peer)
            for peer, state in self._peers.items()
            if state.silent_since + MUTE_NS > self._turned_at
            for slot in state.wanted
        )

    # -------------------------------------------------------------- asking

    def tick(self, now: Instant, served: int = 0) -> list[Effect]:
        """Send due questions and nudges; give up questions that nobody answered.

        `served` is the number of requests from clients so far: while it grows, pulls are paced.
        """
        effects: list[Effect] = []
        self._turned_at = now.mono
        self._pace.turned(served, now.mono)
        self._plan()
        if self._sync.behind and self.caught_up:
            self._sync.caught_up()
        if self._pieces:
            self._pieces = 0 if self.trees.refresh() else self._pieces - 1
        for state in self._peers.values():
            if state.request and now.mono - state.sent_at >= state.patience_ns:
                state.patience_ns = min(2 * state.patience_ns, PATIENCE_MOST_NS)
                self._give_up(state, now)
            self._look_at_gaps(state, now)
            self._look_at_doubt(state, now)
            if state.round_at <= now.mono:
                state.round_at = self._next_round(now)
                self._descend(state)
        busy = sum(bool(state.request) for state in self._peers.values())
        for key, state in sorted(self._peers.items(), key=lambda item: item[1].sent_at):
            if busy >= PULLS_IN_FLIGHT:
                break
            if self._due(state) <= now.mono and not state.request:
                effects.append(self._ask(key, state, now))
                busy += 1
        effects += self.leftovers.tick(now)
        self.tidying.tick(now)
        return effects

    def wake_at(self) -> int:
        """Return when the next question, retry, round, nudge or piece of a plan is due."""
        if self._plans or self._pieces or self._pace.open:
            return 0
        due = min(self.leftovers.wake_at(), self.tidying.at)
        busy = sum(bool(state.request) for state in self._peers.values())
        for state in self._peers.values():
            due = min(due, state.round_at, state.doubt_at, min(state.gaps.values(), default=NEVER))
            if state.request:
                due = min(due, state.sent_at + state.patience_ns)
            elif busy < PULLS_IN_FLIGHT:
                due = min(due, self._due(state))
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
        state.request, state.silent_since = 0, NEVER
        size = sum(map(record_bytes, reply.records))
        self.bytes_in += size
        self._pace.arrived(size, now.mono, serving=reply.serving)
        state.slots_per_pull = min(max(2 * len(reply.slots), 4), SLOTS_PER_PULL)
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
        state.request, state.silent_since = 0, NEVER
        same_view = epoch == self._held.view.epoch == state.epoch
        unequal = set(reply.differ)
        for slot in state.asked:
            if slot in unequal:
                state.differ[slot] = None
            elif same_view:
                state.wanted.pop(slot, None)
                self._sync.pulled(slot, peer, state.sent_at)
        self._asked_again(state, now, progress=same_view)
        return []

    def receive_roots(
        self, peer: NodeKey, request: int, epoch: int, reply: CompareRootReply, now: Instant
    ) -> list[Effect]:
        """Take the answer to a root: slots of equal groups are pulled already, others wanted."""
        state = self._peers.get(peer)
        if state is None or not request or state.request != request:
            return []
        state.request, state.silent_since = 0, NEVER
        if not epoch == self._held.view.epoch == state.epoch:
            state.descents -= 1
            if not state.descents:
                state.wanted.update(dict.fromkeys(self.trees.shared(peer)))
            self._asked_again(state, now, progress=False)
            return []
        state.descents = 0
        ours = self.trees.groups(peer)
        differ = differing(ours, reply.groups) if reply.groups else []
        if state.doubted:
            self.divergences += bool(differ)
            if len(differ) > GROUPS_BUSY:
                return []
        self._descended(peer, state, frozenset(differ), now_equal=bool(reply.groups))
        self._asked_again(state, now, progress=True)
        return []

    def check(self) -> None:
        """Assert that plans are only made for live members and owned slots."""
        for key, state in self._peers.items():
            assert key in self._held.view.alive, "a plan to pull from a member that is down"
            assert set(state.partial) <= set(state.differ)
        self.trees.check()

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

    def _descend(self, state: _Peer) -> None:
        """Begin at the root before slots are compared one by one."""
        state.descents, state.doubted = DESCENTS_MAX, False
        self._pieces = max(self._pieces, self.trees.pieces())

    def _descended(
        self, peer: NodeKey, state: _Peer, unequal: frozenset[int], *, now_equal: bool
    ) -> None:
        """Want the slots of groups that differ; of the others nothing is to come."""
        equal = shared = self.trees.shared(peer)
        if unequal:
            equal = [slot for slot in shared if slot % GROUP_COUNT not in unequal]
            others = (slot for slot in shared if slot % GROUP_COUNT in unequal)
            state.wanted.update(dict.fromkeys(others))
        for slot in equal if state.wanted else ():
            state.wanted.pop(slot, None)
        self._sync.pulled_all(equal, peer, state.sent_at)
        if now_equal:  # An equal root speaks of what was here when it was sent.
            self.answerer.all_seen_by(peer, equal)

    def _due(self, state: _Peer) -> int:
        """Return when the next question to this peer may go out."""
        if state.differ:
            return max(state.not_before, self._pace.free_at)
        if state.wanted and not state.descents:
            return state.not_before
        if not state.descents:
            return NEVER
        # A tree that is not up to date yet would only say: I do not know.
        return NEVER if self._pieces else state.not_before

    def _look_at_doubt(self, state: _Peer, now: Instant) -> None:
        if state.doubt_at <= now.mono:
            state.doubt_at, state.calm_until = NEVER, now.mono + DOUBTS_PAUSE_NS
            if not state.descents:
                self._descend(state)
                state.doubted = True

    def _look_at_gaps(self, state: _Peer, now: Instant) -> None:
        for slot, at in sorted(state.gaps.items()):
            if at <= now.mono:
                del state.gaps[slot]
                lacking = slot in state.refused or self._held.store.has_gaps(slot)
                state.refused.discard(slot)
                if lacking and self._held.view.owns(slot):
                    state.wanted[slot] = None

    def _ask(self, key: NodeKey, state: _Peer, now: Instant) -> Effect:
        state.request = self._held.next_request()
        state.sent_at, state.epoch = now.mono, self._held.view.epoch
        state.silent_since = min(state.silent_since, now.mono)
        message: Message
        if state.differ:
            message = self._pull(state)
            self._pace.asked(now.mono)
        elif state.descents:
            message = CompareRoot(root=self.trees.root(key))
        else:
            message = self._compare(state)
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
            spans = pack_spans(self._held.store.spans(slot), origins)
            size += 16 + 6 * len(clock) + 6 * len(spans)
            if asks and (size > BATCH_BYTES or len(asks) >= state.slots_per_pull):
                break
            after = partial.after if partial else NO_VERSION
            asks.append(SlotAsk(slot, after, clock, self._held.store.mark(slot), spans))
        state.asked = tuple(ask.slot for ask in asks)
        return Pull(origins=tuple(origins), slots=tuple(asks))

    def _asked_again(self, state: _Peer, now: Instant, *, progress: bool) -> None:
        state.patience_ns = PATIENCE_FIRST_NS
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
        if answer.refill or is_below(store.clock(slot), partial.clock, partial.mark, partial.spans):
            # An empty list is one, too: whoever has forgotten everything lists nothing.
            store.refill(slot, set(answer.refill), partial.clock, partial.mark)
        store.merge_clock(slot, partial.clock, partial.mark)
        store.merge_spans(slot, partial.spans)
        del state.differ[slot]
        if same_view:
            state.wanted.pop(slot, None)
            self._sync.pulled(slot, peer, partial.sent_at)
