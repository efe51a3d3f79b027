"""Which peers this node is in sync with: what it may have missed of each slot, and where it is.

This node is *in sync* with a peer for a slot when it has pulled everything the peer had seen of
it (see `exchange`), at equal epochs, in a pull that was sent after the latest of

- this node's own start and its last standstill (it may have missed anything meanwhile, and others
  may have thought it dead: having to refute an accusation counts as one),
- the last change of the slot's near members (the peer may have become a holder, or this node),
- the moment from which the peer has been alive in its present boot,
- the last taking over of a clock that covers what its holder had forgotten (see `claims`): the peer
  may have what this node only claims to have seen.

From then on every write that the peer coordinates is sent here as well, since it has this node for
alive: else it would have answered under no epoch (`View.epoch_for`). So a primary that is in
sync with every other holder and lacks a key knows that nobody has it (`certainty`).

Holders are the owners, the members that stand in for them, and former owners that have not released
the slot. Former owners are found in three ways: placement moves little, so they are among the three
members after the owners in the order; where many members come at once they are the first in the
order that are not filling (`View.former`); and they announce themselves (`Nudge`). In a cut any
member may have stood in: one that is met again is taken for a holder of every slot until compared,
and so is one that was not there when a slot was folded (`unasked`).

Ends: every pair is pulled again after each of those events, so in a quiet network all become in
sync; without an answer nothing is claimed.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence

from dcc.limits import SLOT_COUNT
from dcc.replication.unasked import Unasked
from dcc.replication.view import View
from dcc.types import NodeKey


class Inquiry:
    """Whom to ask, and whether their answers decide."""

    __slots__ = ("decides", "peers")

    def __init__(self, peers: tuple[NodeKey, ...], *, decides: bool) -> None:
        self.peers: tuple[NodeKey, ...] = peers
        "Live holders that may know more than this node; the most promising one comes first."
        self.decides: bool = decides
        "Whether nobody else may know more: False while a holder that may is down."

    def followed_by(self, more: Iterable[NodeKey]) -> Inquiry:
        """Return the same with `more` peers at its end, each once."""
        added = tuple([peer for peer in more if peer not in self.peers])
        return Inquiry(self.peers + added, decides=self.decides) if added else self


IN_SYNC = Inquiry((), decides=True)
"Nobody has to be asked. The only such answer of `SyncTable.unsynced`, so it is compared by `is`."


class SyncTable:
    """The times of completed pulls, judged against the view."""

    def __init__(self, view: View, unasked: Unasked, started: int) -> None:
        self._view, self._unasked = view, unasked
        self._restart_at = started
        self.behind: bool = False
        """Whether others may have written without this node, since it stood still, did not lead, or
        they could not be reached: until it has caught up, what it holds may be old, not only what
        it lacks be missing. Slots that are in sync already are not in doubt, nor is what only
        members that have long been silent could know better."""
        self._pulled: dict[NodeKey, array[int]] = {}
        self._owed_since = array("q", bytes(8 * SLOT_COUNT))
        "Before then nobody was asked for what this node claims to have seen without having it."
        self._any_owed = False
        self._nudgers: dict[
            int, dict[NodeKey, int]
        ] = {}  # slot -> peer that said to hold it -> when
        self._verdicts: dict[int, Inquiry] = {}
        self._strays: frozenset[NodeKey] = frozenset()
        """Members met again, until this node has caught up: apart from it they may have stood in
        for owners of any slot."""
        self._mute: frozenset[NodeKey] = frozenset()
        "Members that are alive by gossip, and have long been silent."

    def standstill(self, mono: int) -> None:
        """This node may have missed anything up to `mono`."""
        self._restart_at = mono
        self._mute = frozenset()
        self._verdicts = {}
        self.behind = True

    def missed_writes(self, met: tuple[NodeKey, ...]) -> None:
        """Others may have written what is not here: see `ViewChange.missed`."""
        self.behind = True
        if self._view.me not in self._view.filling:  # A newcomer has met all, and missed nothing.
            self._strays = self._strays.union(met)
            self._verdicts = {}

    def mute(self, silent: frozenset[NodeKey]) -> None:
        """Ask none of the `silent` before a hit: alive by gossip, they have long answered nothing.

        They may have what is missing here all the same. So this node stays behind, and asks them
        from when they answer again until it has caught up with them.
        """
        if silent != self._mute:
            self._mute = silent
            self._verdicts = {}

    def caught_up(self) -> None:
        """Every slot owned here is in sync again with every live holder of it that answers.

        But what it does not own it is never in sync for, and it may lead such slots while so many
        are down that all owners of one can be.
        """
        if len(self._view.boots) - len(self._view.alive) > self._view.replicas:
            return
        self.behind = bool(self._mute)
        strays = self._strays & self._mute
        if strays != self._strays:
            self._strays = strays
            self._verdicts = {}

    def view_changed(self, gone: tuple[NodeKey, ...]) -> None:
        """Forget verdicts, and all about members no longer in the ring or in another boot."""
        self._verdicts = {}
        for key in gone:
            self._pulled.pop(key, None)
            for slot in [s for s, keys in self._nudgers.items() if key in keys]:
                self.settle_nudge(slot, key)

    def pulled(self, slot: int, peer: NodeKey, sent_at: int) -> None:
        """Note that all the peer had seen of `slot` at `sent_at` or later is held here."""
        self._times(peer)[slot] = sent_at
        self.asked(slot, peer)

    def asked(self, slot: int, peer: NodeKey) -> None:
        """Note that nothing `peer` holds of `slot` is missing here because of its base."""
        self._unasked.asked(slot, peer)
        self._verdicts.pop(slot, None)

    def pulled_all(self, slots: Iterable[int], peer: NodeKey, sent_at: int) -> None:
        """Note the same of many slots. O(slots + verdicts)."""
        times = self._times(peer)
        for slot in slots:
            times[slot] = sent_at
        verdicts = self._verdicts.items()
        self._verdicts = {slot: verdict for slot, verdict in verdicts if verdict is IN_SYNC}

    def owed(self, slot: int, since: int) -> None:
        """Note that a clock was taken over without all it covers: who was not asked `since` may
        have more of it."""
        self._owed_since[slot] = since
        self._any_owed = True
        self._verdicts.pop(slot, None)

    def owes(self, slot: int, peer: NodeKey) -> bool:
        """Return whether `peer` was not asked yet for what this node is owed of `slot`."""
        return self.last_pull(slot, peer) < self._owed_since[slot]

    def owed_by(self, peer: NodeKey, slots: Sequence[int]) -> set[int]:
        """Return those of `slots` of which `peer` was not asked yet for what is owed."""
        if not self._any_owed:
            return set()
        return {slot for slot in slots if self.owes(slot, peer)}

    def nudged(self, slot: int, peer: NodeKey, mono: int) -> None:
        """Note that `peer` holds `slot` without owning it."""
        self._nudgers.setdefault(slot, {})[peer] = mono
        self._verdicts.pop(slot, None)

    @property
    def nudges(self) -> int:
        """Announcements remembered."""
        return sum(map(len, self._nudgers.values()))

    def nudged_since(self, slot: int, mono: int) -> bool:
        """Return whether somebody announced lately to hold `slot`: it is not released yet."""
        return bool(self.nudgers(slot, mono))

    def settle_nudge(self, slot: int, peer: NodeKey) -> None:
        """Forget a nudge: the peer has released the slot, or owns it now."""
        keys = self._nudgers.get(slot)
        if keys is not None:
            keys.pop(peer, None)
            if not keys:
                del self._nudgers[slot]
            self._verdicts.pop(slot, None)

    def nudgers(self, slot: int, since: int = 0) -> tuple[NodeKey, ...]:
        """Return peers that said to hold `slot` without owning it, at `since` or later, sorted."""
        found = self._nudgers.get(slot, {})
        return tuple(sorted([key for key, at in found.items() if at >= since]))

    def last_pull(self, slot: int, peer: NodeKey) -> int:
        """Return when the last complete pull was sent, monotonic ns; -1 = never."""
        times = self._pulled.get(peer)
        return times[slot] if times is not None else -1

    def in_sync(self, slot: int, peer: NodeKey) -> bool:
        """Return whether this node is in sync with a live `peer` for `slot`; O(1)."""
        alive_since = self._view.alive_since.get(peer)
        if alive_since is None:
            return False
        needed = max(self._restart_at, self._view.holder_since[slot], alive_since)
        return self.last_pull(slot, peer) >= max(needed, self._owed_since[slot])

    def unsynced(self, slot: int) -> Inquiry:
        """Return the holders of `slot` that this node is not in sync with; amortised O(1)."""
        found = self._verdicts.get(slot)
        if found is None:
            found = self._verdicts[slot] = self._judge(slot)
        return found

    def newer_at(self, slot: int) -> tuple[NodeKey, ...]:
        """Return peers that answer, and may hold what was written without this node. Amortised
        O(1).

        Those it may have missed writes of come first, then the other live owners, which may have
        heard already from one that is silent; nobody if there are none of the first.
        """
        mute, view = self._mute, self._view
        unsynced = self.unsynced(slot) if self.behind else IN_SYNC
        peers = [peer for peer in unsynced.peers if peer not in mute]
        if not peers:
            return ()
        others = [peer for peer in view.route(slot) if peer not in peers and peer not in mute]
        return (*peers, *(peer for peer in others if peer != view.me))

    def holders(self, slot: int) -> tuple[NodeKey, ...]:
        """Return every peer that may hold something of `slot`, this node not among them."""
        near, me = self._view.slots.near(slot), self._view.me
        near += self._view.former(slot)
        if slot in self._unasked.aside:
            near = (*near, *(key for key in self._unasked.holders(slot) if key not in near))
        if slot in self._nudgers:
            near = (*near, *(key for key in self.nudgers(slot) if key not in near))
        if self._strays:
            alive = self._view.alive
            strays = [
                key for key in sorted(self._strays - self._mute) if key in alive and key not in near
            ]
            near = (*near, *strays)
        return tuple([key for key in near if key != me])

    def _times(self, peer: NodeKey) -> array[int]:
        times = self._pulled.get(peer)
        if times is None:
            times = self._pulled[peer] = array("q", [-1]) * SLOT_COUNT
        return times

    def _judge(self, slot: int) -> Inquiry:
        ask: list[NodeKey] = []
        decides = True
        owners = self._view.slots.owners(slot)
        for peer in self.holders(slot):
            if peer in self._view.alive:
                if not self.in_sync(slot, peer):
                    ask.append(peer)
            elif peer in owners or not self._was_emptied(slot, peer):
                decides = False
        if not ask and decides:
            return IN_SYNC
        ask.sort(key=self._view.following.__contains__)  # The likely ones come first.
        return Inquiry(tuple(ask), decides=decides)

    def _was_emptied(self, slot: int, peer: NodeKey) -> bool:
        # A member that is down and owns nothing here can hold the slot only as a former owner;
        # one pull since the members around the slot changed has brought all of that over.
        needed = max(self._restart_at, self._view.holder_since[slot])
        return self.last_pull(slot, peer) >= needed
