"""`converged`: whether the cluster has one view, all copies are in place, and nobody is behind.

Each node knows only its own share: which of its slots are known to be complete. So the
node that is asked asks every live member for its `State`, its own included, and judges by them all:

    asked node                         every live member
      | StateGet                          |
      |---------------------------------->| counts its slots, in pieces
      | State, with the sender's epoch    |
      |<----------------------------------|
      | judge: one epoch, one setting, all ALIVE, nobody with something left to do

It answers when all have answered or after `ROUND_NS`; a silent member is a reason. A yes holds for
the moment of the answer only, but it cannot come too early: a state is told after the question, in
the view whose epoch it carries, and counting starts again when the view changes meanwhile or the
node stood still. Nothing else makes a slot less complete, so a count under way serves all that ask.

Counting is cheap while the verdicts of `SyncTable` are kept (about 2 ms for all slots); after a
change of the view each is judged again (some 50 ms), hence the pieces.

A look at the statistics makes the node judge again, once a second at most; what the metrics and
HTTP show is the latest judgement and when it was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dcc.effects import Effect, Tell
from dcc.limits import SLOT_COUNT
from dcc.node.lifecycle import Lifecycle
from dcc.node.machines import Machines
from dcc.replication.holdings import Asker, Instant
from dcc.replication.sync import IN_SYNC
from dcc.types import Member, NodeKey, Standing
from dcc.units import MILLISECOND, NEVER, SECOND
from dcc.wire.codec import Header
from dcc.wire.messages import ConvergedReply, State, StateGet

ROUND_NS = 500 * MILLISECOND
"How long states are awaited at most; nor longer than three quarters of the asker's own time."

ROUNDS_MAX = 64
"Questions at once; more are refused."

SLOTS_PER_TURN = 1_024

LAG_MAX_MS = 2_000
"A write that was not acknowledged for this long is not merely on its way."

REASONS_MAX = 64
"Of a reply; the last one says how many there are besides."

LATEST_AGE_NS = 1 * SECOND

U32_MAX = (1 << 32) - 1


@dataclass(slots=True)
class _Count:
    """A count of this node's slots under way."""

    epoch: int
    alive: frozenset[NodeKey]
    next_slot: int = 0
    unsynced: int = 0
    missing: int = 0
    "Copies whose owner is not alive."


@dataclass(slots=True)
class _Round:
    """One question of all members' states."""

    asker: Asker | None
    "None: for the statistics."
    waiting: set[NodeKey]
    began: int
    until: int
    states: dict[NodeKey, tuple[int, State]] = field(default_factory=dict)
    missing: int = 0


class Converging:
    """Answers whether the cluster has converged, and others that ask the same of this node."""

    def __init__(self, machines: Machines, lifecycle: Lifecycle) -> None:
        self._machines, self._held = machines, machines.held
        self._lifecycle = lifecycle
        self._rounds: dict[int, _Round] = {}
        self._peers_asking: list[Asker] = []
        self._count: _Count | None = None
        self._latest: tuple[ConvergedReply, int] | None = None
        self._refresh = False

    def __len__(self) -> int:
        return len(self._rounds)

    # -------------------------------------------------------------- asking

    def begin(self, asker: Asker | None, until: int, now: Instant) -> list[Effect]:
        """Ask every live member; the answer comes well before `until`, so that it counts."""
        assert len(self._rounds) <= ROUNDS_MAX
        alive = self._held.view.alive
        number = self._held.next_request()
        longest = min((until - now.mono) * 3 // 4, ROUND_NS)
        self._rounds[number] = _Round(asker, set(alive), now.mono, now.mono + longest)
        self._count = self._count or self._fresh()
        return [Tell(peer, StateGet(), number) for peer in sorted(alive - {self._held.key})]

    def told(self, header: Header, state: State, now: Instant) -> list[Effect]:
        """Take one member's state."""
        question = self._rounds.get(header.request)
        if question is None or header.sender not in question.waiting:
            return []
        self._take(question, header.sender, header.epoch, state)
        return self._finished(now)

    def look(self) -> None:
        """Judge again with the next tick, unless that was done within the last second."""
        self._refresh = True

    def latest(self, mono: int) -> dict[str, Any] | None:
        """Return the latest judgement, JSON-ready, and how long ago it was asked for.

        None while there was none.
        """
        if self._latest is None:
            return None
        reply, at = self._latest
        return {
            "converged": reply.converged,
            "under_replicated": reply.under_replicated,
            "reasons": list(reply.reasons),
            "age_seconds": (mono - at) / SECOND,
        }

    # -------------------------------------------------------------- being asked

    def asked(self, header: Header, _message: StateGet, _now: Instant) -> list[Effect]:
        """Tell a member this node's state, once it is counted."""
        if len(self._peers_asking) < ROUNDS_MAX * len(self._held.view.boots):
            self._peers_asking.append(Asker(b"", header.sender, header.request))
            self._count = self._count or self._fresh()
        return []

    # -------------------------------------------------------------- time

    def tick(self, now: Instant) -> list[Effect]:
        """Go on counting; answer the askers that have waited long enough."""
        effects: list[Effect] = []
        if self._refresh:
            self._refresh = False
            effects += self._look_again(now)
        if self._count is not None:
            effects += self._go_on_counting(self._count, now)
        return effects + self._finished(now)

    def wake_at(self) -> int:
        """Return 0 while there is something to count, else the earliest deadline."""
        if self._refresh or (self._count is not None and not self._machines.view_pace.due):
            return 0
        return min((question.until for question in self._rounds.values()), default=NEVER)

    def stood_still(self) -> None:
        """Count again, for questions under way, too: nothing is in sync any more."""
        for question in self._rounds.values():
            question.states.pop(self._held.key, None)
            question.waiting.add(self._held.key)
        if self._count is not None or self._rounds:
            self._count = self._fresh()

    # -------------------------------------------------------------- inside

    def _look_again(self, now: Instant) -> list[Effect]:
        under_way = any(question.asker is None for question in self._rounds.values())
        fresh = self._latest is not None and now.mono - self._latest[1] < LATEST_AGE_NS
        if under_way or fresh or not self._machines.serving or len(self._rounds) >= ROUNDS_MAX:
            return []
        return self.begin(None, now.mono + 2 * ROUND_NS, now)

    def _fresh(self) -> _Count:
        return _Count(self._held.view.epoch, self._held.view.alive)

    def _go_on_counting(self, count: _Count, now: Instant) -> list[Effect]:
        view, unsynced = self._held.view, self._machines.sync.unsynced
        if self._machines.view_pace.due:
            # All may agree on new settings, and on the old ring for a moment.
            self._count = self._fresh()
            return []
        if count.epoch != view.epoch or count.alive != view.alive:
            count = self._count = self._fresh()
        down = len(count.alive) < len(view.boots)
        end = min(count.next_slot + SLOTS_PER_TURN, SLOT_COUNT)
        for slot in range(count.next_slot, end):
            count.unsynced += view.owns(slot) and unsynced(slot) is not IN_SYNC
            if down:
                count.missing += sum(key not in count.alive for key in view.slots.owners(slot))
        count.next_slot = end
        if end < SLOT_COUNT:
            return []
        self._count = None
        return self._counted(count, now)

    def _lag_ns(self, now: Instant) -> int:
        """Return for how long a live member has lacked something, streams given up included.

        What a stream has dropped is missing there until both have been seen to agree since.
        """
        machines = self._machines
        oldest = now.mono - machines.streams.lag_ns(now.mono)
        for peer, gap in machines.streams.gaps.items():
            if (
                peer in self._held.view.alive
                and machines.exchange.answerer.agreed_at(peer) <= gap.last_at
            ):
                oldest = min(oldest, gap.first_at)
        return now.mono - oldest

    def _counted(self, count: _Count, now: Instant) -> list[Effect]:
        machines = self._machines
        state = State(
            ready=self._lifecycle.ready,
            unsynced=count.unsynced,
            leftovers=len(machines.exchange.leftovers),
            lag_ms=min(self._lag_ns(now) // MILLISECOND, U32_MAX),
            settings=machines.membership.settings.replicas_stamp,
        )
        effects: list[Effect] = [asker.answer(state) for asker in self._peers_asking]
        self._peers_asking.clear()
        for question in self._rounds.values():
            if self._held.key in question.waiting:
                question.missing = count.missing
                self._take(question, self._held.key, self._held.view.epoch, state)
        return effects

    def _take(self, question: _Round, key: NodeKey, epoch: int, state: State) -> None:
        question.waiting.discard(key)
        question.states[key] = (epoch, state)

    def _finished(self, now: Instant) -> list[Effect]:
        """Judge and answer the rounds that are over."""
        over = [n for n, q in self._rounds.items() if not q.waiting or q.until <= now.mono]
        membership = self._machines.membership
        effects: list[Effect] = []
        for number in over:
            question = self._rounds.pop(number)
            reply = judge(
                membership.members, self._held.view.epoch, membership.settings.replicas_stamp,
                question.states, question.missing,
            )  # fmt: skip
            self._latest = (reply, question.began)
            if question.asker is not None:
                effects.append(question.asker.answer(reply))
        return effects


def judge(
    members: Mapping[NodeKey, Member],
    epoch: int,
    replicas_stamp: int,
    states: Mapping[NodeKey, tuple[int, State]],
    missing: int,
) -> ConvergedReply:
    """Return what the states of all members amount to, seen from a node with this epoch.

    `missing` copies have an owner that is not alive. Copies of members that did not answer are
    not known; they are not in the sum, but then the answer is no in any case. O(members).
    """
    reasons: list[str] = []
    for key, member in sorted(members.items(), key=lambda item: item[1].name):
        if not member.in_ring:
            continue
        if member.standing is not Standing.ALIVE:
            reasons.append(f"node {member.name} is {member.standing.name.lower()}")
        elif key not in states:
            reasons.append(f"no answer from {member.name}")
        else:
            if member.draining:
                reasons.append(f"node {member.name} is leaving")
            elif member.filling:
                reasons.append(f"node {member.name} is new and not filled yet")
            reasons += _reasons_of(member.name, *states[key], epoch, replicas_stamp)
    if missing:
        reasons.append(f"{missing} copies belong to nodes that are not alive")
    under = missing + sum(state.unsynced for _epoch, state in states.values())
    if len(reasons) > REASONS_MAX:
        more = len(reasons) - REASONS_MAX + 1
        reasons[REASONS_MAX - 1 :] = [f"and {more} more reasons"]
    return ConvergedReply(
        converged=not reasons, under_replicated=min(under, 0xFFFF_FFFF), reasons=tuple(reasons)
    )


def _reasons_of(
    name: str, their_epoch: int, state: State, epoch: int, replicas_stamp: int
) -> list[str]:
    found = []
    if their_epoch != epoch:
        found.append(f"{name} sees another ring")
    if state.settings != replicas_stamp:
        found.append(f"{name} knows another number of copies")
    if not state.ready:
        found.append(f"{name} is not ready")
    if state.unsynced:
        found.append(f"{name}: {state.unsynced} slots not complete")
    if state.leftovers:
        found.append(f"{name}: {state.leftovers} slots to hand over")
    if state.lag_ms > LAG_MAX_MS:
        found.append(f"{name}: a write waits for {state.lag_ms} ms to be replicated")
    return found
