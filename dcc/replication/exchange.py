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

Answers count however late they come: a value of megabytes takes seconds on a slow link.
So no question is given up for its age. When an answer is overdue a *probe* is sent, a question
about nothing; its answer travels behind the one that is waited for, on the same connection, so if
it is the first to come the other is lost, and only then is the question put again. All that a
change of the view or a standstill takes from an answer under way is the claim to be in sync as of
its question. A slot is pulled from one peer at a time, so that no value comes from several.

A slot that does not fit one frame is continued behind the last version that came; records go in
ascending order of version and the clock of the *first* frame counts, so that a write which
happens meanwhile is either behind the continuation point or not covered.

Why it ends: each complete pull raises the asker's clock to at least the answerer's at that
time; without new writes all clocks of a slot reach their common maximum after each pair has
pulled once. What is worth comparing, and when, says `agenda`; here are the questions under way.

Source: Gonçalves et al., "DottedDB: Anti-Entropy without Merkle Trees, Deletes without
Tombstones", SRDS 2017, for clocks per node instead of digests of data; here per slot and per
boot, so that a slot can change hands and a cache may evict. The trees over them: `merkle`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import islice

from dcc.effects import Effect, Tell
from dcc.limits import BATCH_BYTES, GROUP_COUNT
from dcc.replication.agenda import MUTE_NS, Agenda, Wants
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
from dcc.replication.sync import SyncTable
from dcc.replication.tidying import Tidying
from dcc.replication.view import ViewChange
from dcc.ring.hashing import slot_of
from dcc.store.doubt import Listing
from dcc.types import NO_VERSION, NodeKey, Origin, Stamp, Version
from dcc.units import MILLISECOND, NEVER, SECOND
from dcc.wire.codec import Header
from dcc.wire.messages import (
    Compare,
    CompareReply,
    CompareRoot,
    CompareRootReply,
    Message,
    Pull,
    PullReply,
)
from dcc.wire.shapes import SlotAnswer, SlotAsk, SlotOwed

SLOTS_PER_COMPARE = 512
SLOTS_PER_PULL = 128
"Both bound the work of one turn to a few milliseconds."

SLOTS_PULLED_FIRST = 16
"Then twice as many as the last answer had room for: clocks that find none were sent in vain."

PULLS_IN_FLIGHT = 4
"""Peers asked at once; bounds what arrives while the node also serves. Whose answer is overdue does
not count."""

PATIENCE_FIRST_NS = 250 * MILLISECOND
PATIENCE_MOST_NS = 2 * SECOND
"""When an answer is overdue. It takes milliseconds, or seconds if it is large and the link slow, or
never comes: who has just been thought dead has no connection back yet. Doubles with each probe."""

PROBES_MAX = 16
"Probes to one peer that are remembered."

HELD_BACK_NS = 10 * SECOND
"How long a slot that is pulled from one peer is not pulled from another."

RETRY_NS, RETRY_DOUBLINGS = 200 * MILLISECOND, 3
"Pause before a peer is asked again that has another view; doubled each time, until it has not."

OWED_AGAIN_NS = 1 * SECOND
"When an owner that could not be believed is asked again for what it owes."

CLAIMS_NS = 1 * SECOND
"How often claims that wait are looked at without an event: somebody may have fallen silent."

GROUPS_BUSY = 32
"So many differing groups are writes everywhere, not divergence: that is left to the timer."


@dataclass(slots=True)
class _Partial:
    """A slot whose records did not fit one frame."""

    clock: dict[Origin, Stamp]
    spans: list[tuple[Origin, Stamp, Stamp]]
    after: Version
    sent_at: int
    same_view: bool
    "Whether both ends had the same view all the time."


@dataclass(slots=True)
class _Talk:
    """The question to one member that is under way, and what its answers have left open."""

    partial: dict[int, _Partial] = field(default_factory=dict)
    request: int = 0
    "The question that is not answered yet; 0 = none."
    pulls: bool = False
    "It is a `Pull`."
    asked: tuple[int, ...] = ()
    owed: frozenset[int] = frozenset()
    "The slots of which it asks for what this node is owed, too."
    sent_at: int = 0
    epoch: int = 0
    outdated: bool = False
    """Since it was put this node's view has changed, or it stood still: the answer counts, but says
    nothing of now."""
    slots_per_pull: int = SLOTS_PULLED_FIRST
    probes: list[int] = field(default_factory=list)
    "Questions about nothing that were sent behind it, oldest first."
    overdue_at: int = NEVER
    patience_ns: int = PATIENCE_FIRST_NS
    held_back: bool = False
    "All that is to be pulled from this peer is being pulled from others."


class Exchange:
    """Pulls what this node should hold; the other half of the talk is `answerer`."""

    def __init__(self, holdings: Holdings, sync: SyncTable) -> None:
        self._held, self._sync = holdings, sync
        self.leftovers = Leftovers(holdings)
        self.trees = Trees(holdings)
        self.tidying = Tidying(holdings, sync)
        self._pace = Pace(holdings.config.move_bytes_per_second, holdings.config.move_share_percent)
        self.answerer = Answerer(holdings, self.trees, self.leftovers, self._pace)
        self.agenda = Agenda(holdings, sync, self.trees, self._pace)
        self.claims = Claims(holdings.config.claims_bytes_max)
        self._claims_at = NEVER
        self._talks: dict[NodeKey, _Talk] = {}  # with the peers of the agenda
        self.divergences = 0
        "Lasting differences that roots heard on gossip have led to."
        self.rounds = self.records_in = self.bytes_in = 0
        self.last_round_at = -1

    # -------------------------------------------------------------- events

    def view_changed(self, change: ViewChange, now: Instant) -> None:
        """Ask what the new view makes worth asking, and nothing of those that fell."""
        self.trees.view_changed(change.slots)
        for key in change.fallen:
            self._talks.pop(key, None)
            self.answerer.forget(key)
        for key in change.risen:
            if key != self._held.key:
                self._talks[key] = _Talk()
        for talk in self._talks.values():
            for slot in change.slots if talk.partial else ():
                talk.partial.pop(slot, None)  # It may have been dropped and regained meanwhile.
            talk.held_back, talk.outdated = False, True
        self.claims.drop(slot for slot in change.slots if not self._held.view.owns(slot))
        self.agenda.view_changed(change, now)
        self._settle_all(now)
        if change.slots or change.risen or change.fallen:
            self.leftovers.find(now)

    def standstill(self, now: Instant) -> None:
        """Compare everything again: others may have written without this node."""
        self.agenda.standstill(now)
        for talk in self._talks.values():
            talk.outdated = True

    def root_heard(self, peer: NodeKey, root: int, now: Instant) -> None:
        """Compare a root that came with a ping or ack, at equal epochs."""
        if self.agenda.root_heard(peer, root, now):
            self.answerer.agree(peer, now)

    # -------------------------------------------------------------- asking

    def tick(self, now: Instant, served: int = 0) -> list[Effect]:
        """Send due questions, probes and nudges.

        `served` is the number of requests from clients so far: while it grows, pulls are paced.
        """
        effects: list[Effect] = []
        self._pace.turned(served, now.mono)
        self.agenda.tick(now)
        wants = self.agenda.peers
        for key, talk in self._talks.items():
            if talk.overdue_at <= now.mono:
                effects.append(self._probe(key, talk, now))
        busy = self._busy()
        for key, talk in sorted(self._talks.items(), key=lambda item: item[1].sent_at):
            if busy >= PULLS_IN_FLIGHT:
                break
            if self.agenda.ask_at(wants[key]) <= now.mono and not talk.request:
                asked = self._ask(key, wants[key], talk, now)
                effects += asked
                busy += len(asked)
        if self._claims_at <= now.mono:
            self._settle_all(now)
        effects += self.leftovers.tick(now)
        self.tidying.tick(now)
        return effects

    def wake_at(self) -> int:
        """Return when the next question, retry, round, nudge or piece of a plan is due."""
        if self.agenda.busy or self._pace.open:
            return 0
        due = min(self.leftovers.wake_at(), self.tidying.at, self.agenda.look_at())
        due = min(due, self._claims_at)
        busy = self._busy()
        for key, talk in self._talks.items():
            due = min(due, talk.overdue_at)
            if not talk.request and not talk.held_back and busy < PULLS_IN_FLIGHT:
                due = min(due, self.agenda.ask_at(self.agenda.peers[key]))
        return due

    def doubted(self, slot: int, now: Instant) -> None:
        """A write was not taken: it may be hidden by what somebody forgot whose mark came here.

        Holders who know better say so.
        """
        self._sync.owed(slot, now.mono)
        self._want_owed(slot)

    def undeliverable(self, peer: NodeKey, request: int, now: Instant) -> None:
        """A message could not be queued: if it was the question in flight, nobody will answer."""
        talk = self._talks.get(peer)
        if talk is not None and request and talk.request == request:
            self._end(talk)
            self.agenda.peers[peer].not_before = now.mono + RETRY_NS

    def receive_reply(self, header: Header, reply: PullReply, now: Instant) -> list[Effect]:
        """Take the records and clocks of an answer; of one to a question forgotten, the records."""
        peer, request, epoch = header.sender, header.request, header.epoch
        talk = self._closed(peer, request)
        size = sum(map(record_bytes, reply.records))
        self.bytes_in += size
        self._pace.arrived(size, now.mono, serving=reply.serving)
        refused = self._apply(reply, talk.owed if talk else frozenset(), now)
        if talk is None:
            return []
        wants = self.agenda.peers[peer]
        self._bury(reply, now)
        talk.slots_per_pull = min(max(2 * len(reply.slots), 4), SLOTS_PER_PULL)
        same_view = self._same_view(talk, epoch)
        answered = 0
        for answer in reply.slots:
            if answer.slot in wants.differ and answer.slot not in refused:
                self._take(peer, talk, answer, reply, now, same_view=same_view)
                answered += 1
        self._asked_again(wants, talk, now, progress=bool(answered) and same_view)
        return []

    def receive_comparison(self, header: Header, reply: CompareReply, now: Instant) -> list[Effect]:
        """Take the answer to a comparison: equal slots are pulled already, with nothing to come."""
        peer, request, epoch = header.sender, header.request, header.epoch
        talk = self._closed(peer, request)
        if talk is None:
            return []
        wants = self.agenda.peers[peer]
        same_view = self._same_view(talk, epoch)
        unequal = set(reply.differ)
        for slot in talk.asked:
            if slot in unequal:
                wants.differ[slot] = None
            elif same_view:
                wants.wanted.pop(slot, None)
                self._pulled(slot, peer, talk.sent_at, now)
        self._asked_again(wants, talk, now, progress=same_view)
        return []

    def receive_roots(self, header: Header, reply: CompareRootReply, now: Instant) -> list[Effect]:
        """Take the answer to a root: slots of equal groups are pulled already, others wanted."""
        peer, request, epoch = header.sender, header.request, header.epoch
        talk = self._closed(peer, request)
        if talk is None:
            return []
        wants = self.agenda.peers[peer]
        if not self._same_view(talk, epoch):
            wants.descents -= not talk.outdated
            if not wants.descents:
                wants.wanted.update(dict.fromkeys(self.trees.shared(peer)))
            self._asked_again(wants, talk, now, progress=False)
            return []
        wants.descents = 0
        ours = self.trees.groups(peer)
        differ = differing(ours, reply.groups) if reply.groups else []
        if wants.doubted:
            self.divergences += bool(differ)
            if len(differ) > GROUPS_BUSY:
                return []
        self._descended(peer, talk, frozenset(differ), now, now_equal=bool(reply.groups))
        self._asked_again(wants, talk, now, progress=True)
        return []

    def check(self) -> None:
        """Assert that questions are only put to live members, about slots that differ."""
        self.agenda.check()
        assert self._talks.keys() == self.agenda.peers.keys()
        for key, talk in self._talks.items():
            assert set(talk.partial) <= set(self.agenda.peers[key].differ)
        self.trees.check()
        self.claims.check()

    # -------------------------------------------------------------- inside

    def _closed(self, peer: NodeKey, request: int) -> _Talk | None:
        """Return the talk in which `request` was the question in flight; it is over now.

        The answer to a probe ends it as well: what was asked before is lost.
        """
        talk = self._talks.get(peer)
        if talk is None or not request:
            return None
        known = talk.request == request
        if known or request in talk.probes:
            self.agenda.peers[peer].silent_since = NEVER
            self._end(talk)
        return talk if known else None

    def _same_view(self, talk: _Talk, epoch: int) -> bool:
        """Return whether this node sees the ring that it saw at the question, and the peer too."""
        return epoch == self._held.view.epoch == talk.epoch and not talk.outdated

    def _end(self, talk: _Talk) -> None:
        talk.request, talk.overdue_at = 0, NEVER
        talk.probes.clear()
        talk.patience_ns = PATIENCE_FIRST_NS
        for other in self._talks.values():
            other.held_back = False

    def _busy(self) -> int:
        return sum(bool(talk.request) and not talk.probes for talk in self._talks.values())

    def _probe(self, key: NodeKey, talk: _Talk, now: Instant) -> Effect:
        """Ask about nothing, on the way of the question that is overdue."""
        number = self._held.next_request()
        talk.probes = [*talk.probes[1 - PROBES_MAX :], number]
        talk.patience_ns = min(2 * talk.patience_ns, PATIENCE_MOST_NS)
        talk.overdue_at = now.mono + talk.patience_ns
        nothing = Pull(origins=(), slots=()) if talk.pulls else Compare(slots=(), digests=())
        return Tell(key, nothing, number)

    def _descended(
        self, peer: NodeKey, talk: _Talk, unequal: frozenset[int], now: Instant, *, now_equal: bool
    ) -> None:
        """Want the slots of groups that differ; of the others nothing is to come."""
        wanted = self.agenda.peers[peer].wanted
        equal = shared = self.trees.shared(peer)
        owed = self._sync.owed_by(peer, shared)
        for slot in sorted(owed):  # What was seen is equal, but not what is held.
            wanted[slot] = self.agenda.peers[peer].differ[slot] = None
        if unequal or owed:
            equal = [s for s in shared if s % GROUP_COUNT not in unequal and s not in owed]
            others = (slot for slot in shared if slot % GROUP_COUNT in unequal)
            wanted.update(dict.fromkeys(others))
        for slot in equal if wanted else ():
            wanted.pop(slot, None)
        self._sync.pulled_all(equal, peer, talk.sent_at)
        if len(self.claims):
            self._settle_all(now)
        if now_equal:  # An equal root speaks of what was here when it was sent.
            self.answerer.all_seen_by(peer, equal)

    def _ask(self, key: NodeKey, wants: Wants, talk: _Talk, now: Instant) -> list[Effect]:
        """Put the next question, if there is one; nothing while others are asked the same."""
        message: Message | None = None
        if wants.differ:
            message = self._pull(key, wants, talk, self._pulled_elsewhere(talk, now))
        if message is not None:
            self._pace.asked(now.mono)
        elif wants.descents and not wants.differ:
            message = CompareRoot(root=self.trees.root(key))
        else:
            message = self._compare(key, wants, talk)
        if message is None:
            talk.held_back = True
            return []
        talk.request, talk.pulls = self._held.next_request(), isinstance(message, Pull)
        talk.sent_at, talk.epoch = now.mono, self._held.view.epoch
        talk.outdated = False
        talk.overdue_at = now.mono + talk.patience_ns
        wants.silent_since = min(wants.silent_since, now.mono)
        return [Tell(key, message, talk.request)]

    def _pulled_elsewhere(self, talk: _Talk, now: Instant) -> set[int]:
        """Return the slots that are just being pulled from other peers."""
        found: set[int] = set()
        for other in self._talks.values():
            if other is not talk and other.sent_at + HELD_BACK_NS > now.mono:
                found.update(other.partial)
                if other.request and other.pulls:
                    found.update(other.asked)
        return found

    def _compare(self, key: NodeKey, wants: Wants, talk: _Talk) -> Compare | None:
        free = (s for s in wants.wanted if s not in wants.differ and not self._waits(s, key))
        asked = tuple(islice(free, SLOTS_PER_COMPARE))
        owed = self._sync.owed_by(key, asked)
        for slot in sorted(owed):  # What was seen is not what is held.
            wants.differ[slot] = None
        talk.asked = tuple([slot for slot in asked if slot not in owed]) if owed else asked
        digest = self._held.store.comparison.digest
        digests = tuple([digest(slot) for slot in talk.asked])
        return Compare(slots=talk.asked, digests=digests) if asked else None

    def _waits(self, slot: int, key: NodeKey) -> bool:
        """Return whether a slot is not to be asked for: for the others' sake, or want of room."""
        claims = self.claims
        return key in claims.of(slot) or (claims.full and slot not in claims)

    def _pull(self, key: NodeKey, wants: Wants, talk: _Talk, elsewhere: set[int]) -> Pull | None:
        origins: dict[Origin, int] = {}
        asks: list[SlotAsk] = []
        owing: list[SlotOwed] = []
        size = 0
        for slot in wants.differ:
            if slot in elsewhere or self._waits(slot, key):
                continue
            partial = talk.partial.get(slot)
            clock = pack_clock(self._held.store.clock(slot), origins)
            spans = pack_spans(self._held.store.spans(slot), origins)
            size += 16 + 6 * len(clock) + 6 * len(spans)
            if asks and (size > BATCH_BYTES or len(asks) >= talk.slots_per_pull):
                break
            after = partial.after if partial else NO_VERSION
            asks.append(SlotAsk(slot, after, clock, self._held.store.mark(slot), spans))
            if self._sync.owes(slot, key):
                low, high, held = self._held.store.comparison.owed(slot)
                owing += [SlotOwed(slot, low, high, held)] if high else []
        if not asks:
            return None
        talk.asked = tuple(ask.slot for ask in asks)
        talk.owed = frozenset([one.slot for one in owing])
        return Pull(origins=tuple(origins), slots=tuple(asks), owed=tuple(owing))

    def _asked_again(self, wants: Wants, talk: _Talk, now: Instant, *, progress: bool) -> None:
        if progress:
            wants.in_vain = 0
        elif not talk.outdated:
            wants.not_before = now.mono + (RETRY_NS << wants.in_vain)
            wants.in_vain = min(wants.in_vain + 1, RETRY_DOUBLINGS)
        if not wants.wanted:
            self.rounds += 1
            self.last_round_at = now.mono

    def _apply(self, reply: PullReply, owed: Collection[int], now: Instant) -> set[int]:
        """Merge records; return the slots of those whose stamp is too far ahead of time."""
        held = self._held
        refused: set[int] = set()
        clocks = {one.slot: unpack_clock(one.clock, reply.origins) for one in reply.slots}
        for record in reply.records:
            slot = slot_of(record.key)
            if not held.view.owns(slot):
                continue  # It was lost since the question: a copy would be nobody's to release.
            sender, is_owed = clocks.get(slot), slot in owed
            if held.intake.apply(slot, record, now.ms, sender, owed=is_owed) is None:
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
        self, peer: NodeKey, talk: _Talk, answer: SlotAnswer, reply: PullReply, now: Instant,
        *, same_view: bool,
    ) -> None:  # fmt: skip
        slot, wants = answer.slot, self.agenda.peers[peer]
        partial = talk.partial.pop(slot, None)
        if not self._held.view.owns(slot):
            wants.wanted.pop(slot, None)
            del wants.differ[slot]
            return
        if partial is None:
            clock = unpack_clock(answer.clock, reply.origins)
            spans = unpack_spans(answer.spans, reply.origins)
            partial = _Partial(clock, spans, NO_VERSION, talk.sent_at, same_view)
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
            self.agenda.again(peer, slot, now.mono + OWED_AGAIN_NS)
        store = self._held.store
        if store.comparison.is_below(slot, listing) or store.comparison.misses(slot, listing.clock):
            self.claims.add(slot, peer, claim)
            for other in self._unheard(slot, now):
                self.agenda.peers[other].wanted[slot] = None
            self._claims_at = min(self._claims_at, now.mono + CLAIMS_NS)
        else:
            self._take_over(slot, peer, claim, 0)
        self._settle(slot, now)

    def _tells_what_it_owes(self, peer: NodeKey, talk: _Talk, slot: int, listing: Listing) -> bool:
        """Return whether an answer settles what is owed, if it was asked for that.

        Of an owner who is below the mark nothing is believed, but it catches up, and is asked
        again. Who is no owner does not: what it has is in doubt for good.
        """
        held = self._held
        if slot not in talk.owed or peer not in held.view.slots.owners(slot):
            return True
        return held.store.comparison.trusts(slot, listing.clock)

    def _take_over(self, slot: int, peer: NodeKey, claim: Claim, mark: Stamp) -> None:
        """Become the maximum of both: everything came, but for what is hidden under `mark`."""
        store, listing = self._held.store, claim.listing
        # Nobody knows more of this node's own writes than it does, unless it was told a lie: what
        # it writes from now on must not lie below that.
        self._held.clock.witness(max(listing.clock.get(self._held.origin, 0), mark))
        store.merge_clock(slot, listing.clock, mark)
        store.merge_spans(slot, listing.spans)
        if claim.same_view and peer in self.agenda.peers:
            self.agenda.peers[peer].wanted.pop(slot, None)
            self._sync.pulled(slot, peer, claim.sent_at)

    # -------------------------------------------------------------- claims

    def _unheard(self, slot: int, now: Instant) -> list[NodeKey]:
        """Return the holders of a slot with claims that are still to be pulled from."""
        since, claimed = self.claims.since(slot), self.claims.of(slot)
        peers = self.agenda.peers
        return [
            peer
            for peer in self._sync.holders(slot)
            if peer in peers
            and peer not in claimed
            and self._sync.last_pull(slot, peer) < since
            and peers[peer].silent_since + MUTE_NS > now.mono
        ]

    def _settle(self, slot: int, now: Instant) -> None:
        """Take over all that is claimed of a slot, once every other holder was pulled from."""
        if slot not in self.claims or self._unheard(slot, now):
            return
        store, sync = self._held.store, self._sync
        since, claims = self.claims.since(slot), self.claims.take(slot)
        below = [
            peer for peer, one in claims.items() if store.comparison.is_below(slot, one.listing)
        ]
        if store.refill(slot, [claims[peer].listing for peer in below]):
            since = now.mono  # Somebody may know better of what is gone: all are asked again.
        for peer, claim in claims.items():
            self._take_over(slot, peer, claim, claim.listing.mark if peer in below else 0)
        if store.comparison.owed(slot).high:
            sync.owed(slot, since)
            self._want_owed(slot)

    def _want_owed(self, slot: int) -> None:
        for peer in self._sync.holders(slot):
            wants = self.agenda.peers.get(peer)
            if wants is not None and self._sync.owes(slot, peer):
                wants.wanted[slot] = None

    def _settle_all(self, now: Instant) -> None:
        for slot in self.claims.slots():
            self._settle(slot, now)
        for slot in self.claims.slots():
            for peer in self._unheard(slot, now):
                self.agenda.peers[peer].wanted[slot] = None
        self._claims_at = now.mono + CLAIMS_NS if len(self.claims) else NEVER
        for talk in self._talks.values():
            talk.held_back = False

    def _pulled(self, slot: int, peer: NodeKey, sent_at: int, now: Instant) -> None:
        self._sync.pulled(slot, peer, sent_at)
        self._settle(slot, now)
