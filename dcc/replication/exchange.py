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

Answers count however late they come, and questions are put again only if they are lost (`talks`).
All that a change of the view or a standstill takes from an answer under way is the claim to be in
sync as of its question. A slot is pulled from one peer at a time, so that no value comes from
several.

A slot that does not fit one frame is continued after the last version that came; records go in
ascending order of version and the clock of the *first* frame counts, so that a write which
happens meanwhile is either after the continuation point or not covered.

Why it ends: each complete pull raises the asker's clock to at least the answerer's at that
time; without new writes all clocks of a slot reach their common maximum after each pair has
pulled once.

Rooms: `agenda` says what is worth comparing and when, `wants` in which stage a comparison is,
`talks` which questions are under way; here they are put and their answers are taken. `settling`
takes clocks over, `packing` packs them, `answerer` is the other side.

Source: Gonçalves et al., "DottedDB: Anti-Entropy without Merkle Trees, Deletes without
Tombstones", SRDS 2017, for clocks per node instead of digests of data; here per slot and per
boot, so that a slot can change hands and a cache may evict. The trees over them: `merkle`.
"""

from __future__ import annotations

from itertools import islice

from dcc.effects import Effect
from dcc.limits import BATCH_BYTES, GROUP_COUNT
from dcc.replication.agenda import Agenda
from dcc.replication.answerer import Answerer
from dcc.replication.claims import Claim, Claims
from dcc.replication.handover import Leftovers
from dcc.replication.holdings import Holdings, Instant
from dcc.replication.lane import record_bytes
from dcc.replication.merkle import Trees, differing
from dcc.replication.pace import Pace
from dcc.replication.packing import (
    pack_clock,
    pack_spans,
    unpack_clock,
    unpack_graves,
    unpack_spans,
)
from dcc.replication.settling import Settling
from dcc.replication.sync import SyncTable
from dcc.replication.talks import Partial, Question, Talk, Talks
from dcc.replication.tidying import Tidying
from dcc.replication.view import ViewChange
from dcc.replication.wants import Stage, Wants
from dcc.ring.hashing import slot_of
from dcc.store.clocks import Clock
from dcc.store.doubt import Listing
from dcc.types import NO_VERSION, NodeKey, Origin
from dcc.units import SECOND
from dcc.wire.codec import Header
from dcc.wire.messages import (
    Compare,
    CompareReply,
    CompareRoot,
    CompareRootReply,
    Pull,
    PullReply,
)
from dcc.wire.shapes import SlotAnswer, SlotAsk, SlotOwed

SLOTS_PER_COMPARE = 512
SLOTS_PER_PULL = 128
"Both bound the work of one turn to a few milliseconds."

PULLS_IN_FLIGHT = 4
"""Peers asked at once; bounds what arrives while the node also serves. Whose answer is overdue does
not count."""

OWED_AGAIN_NS = 1 * SECOND
"When an owner that could not be believed is asked again for what it owes."

GROUPS_BUSY = 32
"This many differing groups are writes everywhere, not divergence: left to the timer."


class Exchange:
    """Pulls what this node should hold; the other half of the talk is `answerer`."""

    def __init__(self, holdings: Holdings, sync: SyncTable) -> None:
        self._held, self._sync = holdings, sync
        self.leftovers: Leftovers = Leftovers(holdings)
        self.trees: Trees = Trees(holdings)
        self.tidying: Tidying = Tidying(holdings, sync)
        self._pace = Pace(holdings.config.move_bytes_per_second, holdings.config.move_share_percent)
        self.answerer: Answerer = Answerer(holdings, sync, self.trees, self.leftovers, self._pace)
        self.agenda: Agenda = Agenda(holdings, sync, self.trees, self._pace)
        self._peers: dict[NodeKey, Wants] = self.agenda.peers
        self.settling: Settling = Settling(holdings, sync, self.agenda)
        self.claims: Claims = self.settling.claims
        self._talks = Talks(holdings)
        self.divergences: int = 0
        "Lasting differences that roots heard on gossip have led to."
        self.rounds: int = 0
        self.records_in: int = 0
        self.bytes_in: int = 0
        self.last_round_at: int = -1

    # -------------------------------------------------------------- events

    def view_changed(self, change: ViewChange, now: Instant) -> None:
        """Ask what the new view makes worth asking, and nothing of those that fell."""
        self.trees.view_changed(change.slots)
        self.agenda.view_changed(change, now)
        self._talks.view_changed(self._peers, change.fallen, change.slots)
        for key in change.fallen:
            self.answerer.forget(key)
        self.claims.drop(slot for slot in change.slots if not self._held.view.owns(slot))
        self._settle_all(now)
        if change.slots or change.risen or change.fallen:
            self.leftovers.find(now)

    def standstill(self, now: Instant) -> None:
        """Compare everything again: others may have written without this node."""
        self.agenda.standstill(now)
        self._talks.outdate()

    def root_heard(self, peer: NodeKey, root: int, now: Instant) -> None:
        """Compare a root that came with a ping or ack, at equal epochs."""
        if self.agenda.root_heard(peer, root, now):
            self.answerer.agree(peer, now)

    # -------------------------------------------------------------- asking

    def tick(self, now: Instant, served: int = 0) -> list[Effect]:
        """Send due questions, probes and nudges.

        `served` is the number of requests from clients so far: while it grows, pulls are paced.
        """
        self._pace.turned(served, now.mono)
        self.agenda.tick(now)
        effects = self._talks.probe(now)
        busy = self._talks.busy
        for key, talk in sorted(self._talks.items(), key=lambda item: item[1].sent_at):
            if busy >= PULLS_IN_FLIGHT:
                break
            if self.agenda.ask_at(talk.wants) <= now.mono and not talk.request:
                asked = self._ask(key, talk, now)
                effects += asked
                busy += len(asked)
        if self.settling.at <= now.mono:
            self._settle_all(now)
        effects += self.leftovers.tick(now)
        self.tidying.tick(now)
        return effects

    def wake_at(self) -> int:
        """Return when the next question, retry, round, nudge or piece of a plan is due."""
        if self.agenda.busy or self._pace.open:
            return 0
        due = min(self.leftovers.wake_at(), self.tidying.at, self.agenda.look_at())
        due = min(due, self.settling.at)
        busy = self._talks.busy
        for talk in self._talks:
            due = min(due, talk.overdue_at)
            if not talk.request and not talk.held_back and busy < PULLS_IN_FLIGHT:
                due = min(due, self.agenda.ask_at(talk.wants))
        return due

    def undeliverable(self, peer: NodeKey, request: int, now: Instant) -> None:
        """A message could not be queued: if it was the question in flight, nobody will answer."""
        self._talks.undeliverable(peer, request, now)

    def _ask(self, key: NodeKey, talk: Talk, now: Instant) -> list[Effect]:
        """Put the next question, if there is one; nothing while others are asked the same."""
        question = self._question(key, talk, now)
        if question is None:
            talk.held_back = True
            return []
        return self._talks.begin(key, question, now)

    def _question(self, key: NodeKey, talk: Talk, now: Instant) -> Question | None:
        """Return what comes next at the stage that the comparison with `key` is in."""
        if talk.wants.stage is Stage.ROOT:
            return Question(CompareRoot(root=self.trees.root(key)))
        if talk.wants.stage is Stage.CLOCKS:
            pull = self._pull(key, talk, self._talks.pulled_elsewhere(talk, now))
            if pull is not None:
                self._pace.asked(now.mono)
                return pull
        return self._compare(key, talk.wants)

    def _compare(self, key: NodeKey, wants: Wants) -> Question | None:
        holds_back = self.claims.holds_back
        free = (s for s in wants.wanted if s not in wants.differ and not holds_back(s, key))
        asked = tuple(islice(free, SLOTS_PER_COMPARE))
        if not asked:
            return None
        owed = self._sync.owed_by(key, asked)
        for slot in sorted(owed):  # What was seen is not what is held.
            wants.differ[slot] = None
        slots = tuple([slot for slot in asked if slot not in owed]) if owed else asked
        # A peer that has nothing equals 0: all else is pulled of a slot bound without it.
        digest, unasked = self._held.digest, self._held.unasked.of(key)
        digests = tuple([0 if slot in unasked else digest(slot) for slot in slots])
        return Question(Compare(slots=slots, digests=digests), slots)

    def _pull(self, key: NodeKey, talk: Talk, elsewhere: set[int]) -> Question | None:
        store, unasked = self._held.store, self._held.unasked
        shown: dict[int, Clock] = {}
        origins: dict[Origin, int] = {}
        asks: list[SlotAsk] = []
        owing: list[SlotOwed] = []
        size = 0
        for slot in talk.wants.differ:
            if slot in elsewhere or self.claims.holds_back(slot, key):
                continue
            partial = talk.partial.get(slot)
            ours, bound = unasked.clock_for(slot, key), slot in unasked.of(key)
            clock = pack_clock(ours, origins)
            spans = () if bound else pack_spans(store.spans(slot), origins)
            size += 16 + 6 * len(clock) + 6 * len(spans)
            if asks and (size > BATCH_BYTES or len(asks) >= talk.slots_per_pull):
                break
            after = partial.after if partial else NO_VERSION
            asks.append(SlotAsk(slot, after, clock, store.mark(slot), spans))
            if bound:
                shown[slot] = ours
            if self._sync.owes(slot, key):
                low, high, held = store.comparison.owed(slot)
                owing += [SlotOwed(slot, low, high, held)] if high else []
        if not asks:
            return None
        pull = Pull(origins=tuple(origins), slots=tuple(asks), owed=tuple(owing))
        owed = frozenset([one.slot for one in owing])
        return Question(pull, tuple(ask.slot for ask in asks), owed, shown)

    # -------------------------------------------------------------- answers

    def receive_reply(self, header: Header, reply: PullReply, now: Instant) -> list[Effect]:
        """Take the records and clocks of an answer; of one to a question forgotten, the records."""
        peer, request, epoch = header.sender, header.request, header.epoch
        talk = self._closed(peer, request, now)
        size = sum(map(record_bytes, reply.records))
        self.bytes_in += size
        self._pace.arrived(size, now.mono, serving=reply.serving)
        refused = self._apply(reply, talk, now)
        if talk is None:
            return []
        wants = talk.wants
        self._bury(reply, now)
        talk.slots_per_pull = min(max(2 * len(reply.slots), 4), SLOTS_PER_PULL)
        same_view = self._same_view(talk, epoch)
        answered = 0
        for answer in reply.slots:
            if answer.slot in wants.differ and answer.slot not in refused:
                self._take(peer, talk, answer, reply, now, same_view=same_view)
                answered += 1
        self._answered(talk, now, progress=bool(answered) and same_view)
        return []

    def receive_comparison(self, header: Header, reply: CompareReply, now: Instant) -> list[Effect]:
        """Take the answer to a comparison: equal slots are pulled already, with nothing to come."""
        peer, request, epoch = header.sender, header.request, header.epoch
        talk = self._closed(peer, request, now)
        if talk is None:
            return []
        wants = talk.wants
        same_view = self._same_view(talk, epoch)
        unequal = set(reply.differ)
        for slot in talk.asked:
            if slot in unequal:
                wants.differ[slot] = None
            elif same_view:
                wants.wanted.pop(slot, None)
                self.settling.equal(slot, peer, talk.sent_at, now)
        self._answered(talk, now, progress=same_view)
        return []

    def receive_roots(self, header: Header, reply: CompareRootReply, now: Instant) -> list[Effect]:
        """Take the answer to a root: slots of equal groups are pulled already, others wanted."""
        peer, request, epoch = header.sender, header.request, header.epoch
        talk = self._closed(peer, request, now)
        if talk is None:
            return []
        wants = talk.wants
        if not self._same_view(talk, epoch):
            wants.descents -= not talk.outdated
            if not wants.descents:
                wants.want(self.trees.shared(peer))
            self._answered(talk, now, progress=False)
            return []
        wants.descents = 0
        ours = self.trees.groups(peer)
        differ = differing(ours, reply.groups) if reply.groups else []
        if wants.doubted:
            self.divergences += bool(differ)
            if len(differ) > GROUPS_BUSY:
                return []
        self._descended(peer, talk, frozenset(differ), now, now_equal=bool(reply.groups))
        self._answered(talk, now, progress=True)
        return []

    def check(self) -> None:
        """Assert that questions are only put to live members, about what is wanted of them."""
        self.agenda.check()
        self._talks.check(self._peers)
        self.trees.check()
        self.claims.check()
        self._held.unasked.check()

    # -------------------------------------------------------------- inside

    def _closed(self, peer: NodeKey, request: int, now: Instant) -> Talk | None:
        """Return the talk in which `request` was the question in flight; it is over now."""
        self.agenda.spoke(peer, now)
        return self._talks.closed(peer, request)

    def _same_view(self, talk: Talk, epoch: int) -> bool:
        """Return whether this node sees the ring that it saw at the question, and the peer too."""
        return epoch == self._held.view.epoch == talk.epoch and not talk.outdated

    def _descended(
        self, peer: NodeKey, talk: Talk, unequal: frozenset[int], now: Instant, *, now_equal: bool
    ) -> None:
        """Want the slots of groups that differ; of the others nothing is to come."""
        wants = talk.wants
        equal = shared = self.trees.shared(peer)
        owed = self._sync.owed_by(peer, shared)
        for slot in sorted(owed):  # What was seen is equal, but not what is held.
            wants.wanted[slot] = wants.differ[slot] = None
        unasked = self._held.unasked.of(peer)
        if unequal or owed or unasked:
            also = owed | unasked
            wants.want(slot for slot in shared if slot in unasked)
            equal = [s for s in shared if s % GROUP_COUNT not in unequal and s not in also]
            wants.want(slot for slot in shared if slot % GROUP_COUNT in unequal)
        for slot in equal if wants.wanted else ():
            wants.wanted.pop(slot, None)
        self._sync.pulled_all(equal, peer, talk.sent_at)
        if len(self.claims):
            self._settle_all(now)
        if now_equal:  # An equal root speaks of what was here when it was sent.
            self.answerer.all_seen_by(peer, equal)

    def _answered(self, talk: Talk, now: Instant, *, progress: bool) -> None:
        talk.answered(now, progress=progress)
        if not talk.wants.wanted:
            self.rounds += 1
            self.last_round_at = now.mono

    def _apply(self, reply: PullReply, talk: Talk | None, now: Instant) -> set[int]:
        """Merge records; return the slots of those whose stamp is too far ahead of time."""
        held = self._held
        refused: set[int] = set()
        owed, unasked = (talk.owed, talk.unasked) if talk else (frozenset[int](), {})
        clocks = {one.slot: unpack_clock(one.clock, reply.origins) for one in reply.slots}
        for record in reply.records:
            slot = slot_of(record.key)
            if not held.view.owns(slot):
                continue  # It was lost since the question: a copy would be nobody's to release.
            sender, is_owed, asked = clocks.get(slot), slot in owed, unasked.get(slot)
            apply = held.intake.apply
            if apply(slot, record, now.ms, sender, owed=is_owed, asked=asked) is None:
                refused.add(slot)
            else:
                self.records_in += 1
        return refused

    def _bury(self, reply: PullReply, now: Instant) -> None:
        """Let go of what is older than records that the answerer has forgotten."""
        held = self._held
        for slot, words in reply.buried:
            graves = [
                (name, version)
                for name, version in unpack_graves(words)
                if held.intake.believes(version.stamp, now.ms)
            ]
            if held.view.owns(slot):
                held.store.forgetting.bury(slot, graves)

    def _take(
        self, peer: NodeKey, talk: Talk, answer: SlotAnswer, reply: PullReply, now: Instant,
        *, same_view: bool,
    ) -> None:  # fmt: skip
        slot, wants = answer.slot, talk.wants
        partial = talk.partial.pop(slot, None)
        if not self._held.view.owns(slot):
            wants.wanted.pop(slot, None)
            del wants.differ[slot]
            return
        if partial is None:
            clock = unpack_clock(answer.clock, reply.origins)
            spans = unpack_spans(answer.spans, reply.origins)
            partial = Partial(clock, spans, NO_VERSION, talk.sent_at, same_view)
        partial.same_view &= same_view
        if not answer.complete:
            versions = [r.version for r in reply.records if slot_of(r.key) == slot]
            partial.after = max(versions, default=partial.after)
            talk.partial[slot] = partial
            return
        # The mark of the last frame: what was forgotten since the first one never came.
        listing = Listing(partial.clock, partial.spans, answer.mark, answer.refill)
        told = self._tells_what_it_owes(peer, talk, slot, listing)
        claim = Claim(listing, partial.sent_at, partial.same_view and told)
        del wants.differ[slot]
        if not told:
            wants.again(slot, now.mono + OWED_AGAIN_NS)
        self.settling.came_whole(slot, peer, claim, now)

    def _tells_what_it_owes(self, peer: NodeKey, talk: Talk, slot: int, listing: Listing) -> bool:
        """Return whether an answer settles what is owed, if it was asked for that.

        An owner that is below the mark is not believed, but it catches up, and is asked again. A
        peer that is no owner does not catch up: what it has is in doubt for good.
        """
        held = self._held
        if slot not in talk.owed or peer not in held.view.slots.owners(slot):
            return True
        return held.store.comparison.trusts(slot, listing.clock)

    def _settle_all(self, now: Instant) -> None:
        self.settling.settle_all(now)
        self._talks.release()
