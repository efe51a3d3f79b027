"""What this node should compare with whom, and when: the agenda of the exchange.

What is worth comparing comes from events: a changed view, an own standstill, a gap in a stream, an
announcement of a node that holds what it does not own, roots on pings and acks that differ for
longer than writes are under way; and from a timer. Here it is gathered by peer; what is then said
to each of them is `exchange`'s. `wants` has what is wanted of one peer, and in which stage that is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice

from dcc.effects import Effect
from dcc.limits import SLOT_COUNT
from dcc.replication.holdings import Holdings, Instant
from dcc.replication.merkle import NOT_KNOWN, Trees
from dcc.replication.pace import Pace
from dcc.replication.sync import SyncTable
from dcc.replication.view import ViewChange
from dcc.replication.wants import Stage, Wants
from dcc.types import NodeKey
from dcc.units import MILLISECOND, NEVER, SECOND
from dcc.wire.codec import Header
from dcc.wire.messages import Nudge

SLOTS_PER_PLAN = 1_024
"Bounds the work of one turn to a few milliseconds."

MUTE_NS = 30 * SECOND
"A peer that gossip calls alive but that has answered nothing for this long delays nobody."

GAP_GRACE_NS = 500 * MILLISECOND
"A gap in a clock is usually a batch that is still on its way."

LASTING_NS = 1 * SECOND
"Roots that still differ after this long differ by more than writes under way."

DOUBTS_PAUSE_NS = 5 * SECOND
"Between two descents into one peer's tree that roots heard on gossip have caused."


class Agenda:
    """What is wanted of each peer; every live member but this node has a place in it."""

    def __init__(self, holdings: Holdings, sync: SyncTable, trees: Trees, pace: Pace) -> None:
        self._held, self._sync, self._trees, self._pace = holdings, sync, trees, pace
        self.peers: dict[NodeKey, Wants] = {}
        self._plans: deque[tuple[Iterator[int], frozenset[NodeKey] | None]] = deque()
        self._pieces = 0
        "Pieces of the trees to be recomputed before anybody descends."
        self._turned_at = 0

    # -------------------------------------------------------------- what is worth comparing

    def view_changed(self, change: ViewChange, now: Instant) -> None:
        """Plan for changed slots and risen members; drop plans for those that fell."""
        for key in change.fallen:
            self.peers.pop(key, None)
        for key in change.risen:
            if key != self._held.key:
                self.peers[key] = Wants(round_at=self._next_round(now))
        risen = frozenset(change.risen)
        if len(change.slots) == SLOT_COUNT:
            self._plans.clear()  # All is planned again.
            risen = frozenset()
        self._plans.append((iter(change.slots), None))
        if risen:
            self._plans.append((iter(self._held.view.owned), risen))
        if change.led and len(change.slots) < SLOT_COUNT:
            self._plans.append((iter(change.led), None))
        for wants in self.peers.values():
            self._descend(wants)

    def standstill(self, now: Instant) -> None:
        """Compare everything again: others may have written without this node."""
        for peer, wants in self.peers.items():
            wants.round_at = self._next_round(now)
            self.spoke(peer, now)  # What came meanwhile was not heard.
            self._descend(wants)
        self._plans = deque([(iter(self._held.view.owned), None)])

    def nudged(self, header: Header, nudge: Nudge, now: Instant) -> list[Effect]:
        """A member announced slots that it holds and this node may own."""
        peer = header.sender
        wants = self.peers.get(peer)
        if wants is None:
            return []
        for slot in nudge.slots:
            if self._held.view.owns(slot):
                self._sync.nudged(slot, peer, now.mono)
                wants.wanted[slot] = None
        return []

    def gap(self, peer: NodeKey, slot: int, now: Instant, *, refused: bool = False) -> None:
        """A record of `peer`'s stream left a gap: its predecessor has not been seen.

        Or it was itself `refused`; the store knows nothing of that.
        """
        wants = self.peers.get(peer)
        if wants is not None:
            wants.gaps.setdefault(slot, now.mono + GAP_GRACE_NS)
            if refused:
                wants.refused.add(slot)

    def root_heard(self, peer: NodeKey, root: int, now: Instant) -> bool:
        """Compare a root that came with a ping or ack, at equal epochs; doubt what differs.

        Returns whether both have seen the same.
        """
        wants = self.peers.get(peer)
        if wants is not None and wants.in_vain:  # The views are equal now.
            wants.in_vain = wants.not_before = 0
        mine = self._trees.root(peer)
        if wants is None or NOT_KNOWN in (root, mine):
            return False
        if mine == root:
            wants.doubt_at = NEVER
            return True
        if wants.doubt_at == NEVER and wants.calm_until <= now.mono:
            wants.doubt_at = now.mono + LASTING_NS
        return False

    @property
    def wanted_total(self) -> int:
        """Slots that are wanted of any peer, or looked at for a gap. O(peers)."""
        return sum(len(one.wanted) + len(one.differ) + len(one.gaps) for one in self.peers.values())

    # -------------------------------------------------------------- what is due

    @property
    def caught_up(self) -> bool:
        """Whether every slot owned here is in sync with every live holder of it that answers."""
        return not self._plans and not any(
            not self._sync.in_sync(slot, peer)
            for peer, wants in self.peers.items()
            if not self._is_mute(wants)
            for slot in wants.wanted
        )

    def spoke(self, peer: NodeKey, now: Instant) -> None:
        """Note that `peer` has not been silent until now, though a question may still be open."""
        wants = self.peers.get(peer)
        if wants is not None and wants.silent_since < NEVER:
            wants.silent_since = now.mono

    def tick(self, now: Instant) -> None:
        """Go on planning, and look at gaps, doubts and timers that are due."""
        self._turned_at = now.mono
        mute = [peer for peer, wants in self.peers.items() if self._is_mute(wants)]
        self._sync.mute(frozenset(mute))
        self._plan()
        if self._sync.behind and self.caught_up:
            self._sync.caught_up()
        if self._pieces:
            self._pieces = 0 if self._trees.refresh() else self._pieces - 1
        for wants in self.peers.values():
            self._look_at_gaps(wants, now)
            self._look_at_doubt(wants, now)
            if wants.round_at <= now.mono:
                wants.round_at = self._next_round(now)
                self._descend(wants)

    @property
    def busy(self) -> bool:
        """Whether a piece of a plan or of the trees waits for the next turn."""
        return bool(self._plans or self._pieces)

    def look_at(self) -> int:
        """Return when the next timer, gap or doubt is due."""
        due = NEVER
        for wants in self.peers.values():
            due = min(due, wants.round_at, wants.doubt_at, min(wants.gaps.values(), default=NEVER))
        return due

    def ask_at(self, wants: Wants) -> int:
        """Return when the next question to this peer may go out."""
        match wants.stage:
            case Stage.CALM:
                return NEVER
            case Stage.ROOT:  # A tree that is not up to date yet would only say: I do not know.
                return NEVER if self._pieces else wants.not_before
            case Stage.DIGESTS:
                return wants.not_before
            case Stage.CLOCKS:
                return max(wants.not_before, self._pace.free_at)

    def check(self) -> None:
        """Assert that plans are only made for live members."""
        for key in self.peers:
            assert key in self._held.view.alive, "a plan to pull from a member that is down"

    # -------------------------------------------------------------- inside

    def _is_mute(self, wants: Wants) -> bool:
        return wants.silent_since + MUTE_NS <= self._turned_at

    def _next_round(self, now: Instant) -> int:
        return now.mono + self._held.config.exchange_interval_ns

    def _plan(self) -> None:
        """Go on planning pulls: of slots that this node owns, from holders it may lag behind."""
        if not self._plans:
            return
        view, peers_of = self._held.view, self.peers
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

    def _descend(self, wants: Wants, *, doubted: bool = False) -> None:
        """Begin at the root before slots are compared one by one."""
        wants.descend(doubted=doubted)
        self._pieces = max(self._pieces, self._trees.pieces())

    def _look_at_doubt(self, wants: Wants, now: Instant) -> None:
        if wants.doubt_at <= now.mono:
            wants.doubt_at, wants.calm_until = NEVER, now.mono + DOUBTS_PAUSE_NS
            if not wants.descents:
                self._descend(wants, doubted=True)

    def _look_at_gaps(self, wants: Wants, now: Instant) -> None:
        for slot, at in sorted(wants.gaps.items()):
            if at <= now.mono:
                del wants.gaps[slot]
                lacking = slot in wants.refused or self._held.store.has_gaps(slot)
                wants.refused.discard(slot)
                if lacking and self._held.view.owns(slot):
                    wants.wanted[slot] = None
