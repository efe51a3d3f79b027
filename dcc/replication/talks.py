"""The questions of the exchange that are under way: one to a peer, and probes after it.

Answers count however late they come: a value of megabytes takes seconds on a slow link. So no
question is given up for its age. When an answer is overdue a *probe* is sent, a question about
nothing; its answer travels after the one that is waited for, on the same connection, so if it is
the first to come the other is lost, and only then is the question put again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from dcc.effects import Effect, Tell
from dcc.replication.holdings import Holdings, Instant
from dcc.replication.wants import Stage, Wants
from dcc.store.clocks import Clock
from dcc.store.doubt import Span
from dcc.types import NodeKey, Origin, Stamp, Version
from dcc.units import MILLISECOND, NEVER, SECOND
from dcc.wire.messages import Compare, CompareRoot, Pull

SLOTS_PULLED_FIRST = 16
"Then twice as many as the last answer had room for: clocks of slots that do not fit are wasted."

PATIENCE_FIRST_NS = 250 * MILLISECOND
PATIENCE_MOST_NS = 2 * SECOND
"""When an answer is overdue. It takes milliseconds, or seconds if it is large and the link slow, or
never comes: a peer that was just thought dead has no connection back yet. Doubles with each
probe."""

PROBES_MAX = 16
"Probes to one peer that are remembered."

HELD_BACK_NS = 10 * SECOND
"How long a slot that is pulled from one peer is not pulled from another."

RETRY_NS, RETRY_DOUBLINGS = 200 * MILLISECOND, 3
"Pause before a peer is asked again that has another view; doubled each time, until it has not."


@dataclass(slots=True)
class Partial:
    """A slot whose records did not fit one frame."""

    clock: dict[Origin, Stamp]
    spans: list[Span]
    after: Version
    sent_at: int
    same_view: bool
    "Whether both ends had the same view all the time."


@dataclass(slots=True)
class Talk:
    """The question to one member that is under way, and what its answers have left open."""

    wants: Wants
    partial: dict[int, Partial] = field(default_factory=dict)
    request: int = 0
    "The question that is not answered yet; 0 = none."
    stage: Stage = Stage.CALM
    "What it is about, or was the last time; CALM = nothing was asked yet."
    asked: tuple[int, ...] = ()
    "The slots that it is about; none for ROOT, which is about all."
    owed: frozenset[int] = frozenset()
    "Those of them for which it asks for what this node is owed, too; CLOCKS only."
    unasked: Mapping[int, Clock] = field(default_factory=dict)
    "Those of them that were bound without the peer, and the clocks it was shown; CLOCKS only."
    sent_at: int = 0
    epoch: int = 0
    outdated: bool = False
    """Since it was put this node's view has changed, or it stood still: the answer counts, but says
    nothing of now."""
    slots_per_pull: int = SLOTS_PULLED_FIRST
    probes: list[int] = field(default_factory=list)
    "Questions about nothing that were sent after it, oldest first."
    overdue_at: int = NEVER
    patience_ns: int = PATIENCE_FIRST_NS
    held_back: bool = False
    "All that is to be pulled from this peer is being pulled from others."

    def answered(self, now: Instant, *, progress: bool) -> None:
        """Wait before the next question if the answer came from another view than this node's."""
        wants = self.wants
        if progress:
            wants.in_vain = 0
        elif not self.outdated:
            wants.not_before = now.mono + (RETRY_NS << wants.in_vain)
            wants.in_vain = min(wants.in_vain + 1, RETRY_DOUBLINGS)

    def check(self) -> None:
        """Assert what holds at each stage, and that only what differs is continued."""
        self.wants.check()
        assert self.partial.keys() <= self.wants.differ.keys()
        assert bool(self.request) == (self.overdue_at != NEVER)
        assert self.request or not self.probes
        assert self.owed <= set(self.asked)
        match self.stage:
            case Stage.CALM:
                assert not self.request
                assert not self.asked
            case Stage.ROOT:
                assert not self.asked
            case Stage.DIGESTS:
                assert not self.owed
            case Stage.CLOCKS:
                assert self.asked


class Question(NamedTuple):
    """A message to be sent, and the slots that it is about."""

    message: CompareRoot | Compare | Pull
    asked: tuple[int, ...] = ()
    owed: frozenset[int] = frozenset()
    unasked: Mapping[int, Clock] = {}


class Talks:
    """The talks with all live members, by key."""

    def __init__(self, holdings: Holdings) -> None:
        self._held = holdings
        self._talks: dict[NodeKey, Talk] = {}

    def __getitem__(self, peer: NodeKey) -> Talk:
        return self._talks[peer]

    def __iter__(self) -> Iterator[Talk]:
        return iter(self._talks.values())

    def items(self) -> Iterable[tuple[NodeKey, Talk]]:
        """Return all talks by peer."""
        return self._talks.items()

    # -------------------------------------------------------------- events

    def view_changed(
        self, peers: dict[NodeKey, Wants], fallen: Iterable[NodeKey], slots: Iterable[int]
    ) -> None:
        """Begin to talk with new `peers` and end it with `fallen`; `slots` have other members."""
        for key in fallen:
            self._talks.pop(key, None)
        for key, wants in peers.items():
            talk = self._talks.get(key)
            if talk is None or talk.wants is not wants:  # It rose, perhaps in another boot.
                self._talks[key] = Talk(wants)
        for talk in self:
            for slot in slots if talk.partial else ():
                talk.partial.pop(slot, None)  # It may have been dropped and regained meanwhile.
            talk.held_back, talk.outdated = False, True

    def outdate(self) -> None:
        """What was asked so far says nothing of now."""
        for talk in self:
            talk.outdated = True

    def release(self) -> None:
        """Ask again where nothing was to be asked, as all was pulled from others."""
        for talk in self:
            talk.held_back = False

    # -------------------------------------------------------------- one question

    def begin(self, peer: NodeKey, question: Question, now: Instant) -> list[Effect]:
        """Put a question."""
        talk = self._talks[peer]
        message, talk.asked, talk.owed, talk.unasked = question
        talk.request, talk.stage = self._held.next_request(), _STAGES[type(message)]
        talk.sent_at, talk.epoch = now.mono, self._held.view.epoch
        talk.outdated = False
        talk.overdue_at = now.mono + talk.patience_ns
        talk.wants.silent_since = min(talk.wants.silent_since, now.mono)
        return [Tell(peer, message, talk.request)]

    def probe(self, now: Instant) -> list[Effect]:
        """Ask about nothing, on the way of each question that is overdue."""
        return [
            self._probe(key, talk, now) for key, talk in self.items() if talk.overdue_at <= now.mono
        ]

    def closed(self, peer: NodeKey, request: int) -> Talk | None:
        """Return the talk in which `request` was the question in flight; it is over now.

        The answer to a probe ends it as well: what was asked before is lost.
        """
        talk = self._talks.get(peer)
        if talk is None or not request:
            return None
        known = talk.request == request
        if known or request in talk.probes:
            talk.wants.silent_since = NEVER
            self._end(talk)
        return talk if known else None

    def undeliverable(self, peer: NodeKey, request: int, now: Instant) -> None:
        """A message could not be queued: if it was the question in flight, nobody will answer."""
        talk = self._talks.get(peer)
        if talk is not None and request and talk.request == request:
            self._end(talk)
            talk.wants.not_before = now.mono + RETRY_NS

    # -------------------------------------------------------------- all of them

    @property
    def busy(self) -> int:
        """Peers whose answers are awaited and not overdue."""
        return sum(bool(talk.request) and not talk.probes for talk in self)

    def pulled_elsewhere(self, talk: Talk, now: Instant) -> set[int]:
        """Return the slots that are just being pulled from other peers."""
        found: set[int] = set()
        for other in self:
            if other is not talk and other.sent_at + HELD_BACK_NS > now.mono:
                found.update(other.partial)
                if other.request and other.stage is Stage.CLOCKS:
                    found.update(other.asked)
        return found

    def check(self, peers: dict[NodeKey, Wants]) -> None:
        """Assert that this node talks with `peers`, each about what it wants of it."""
        assert self._talks.keys() == peers.keys()
        for key, talk in self.items():
            assert talk.wants is peers[key]
            talk.check()

    # -------------------------------------------------------------- inside

    def _probe(self, peer: NodeKey, talk: Talk, now: Instant) -> Effect:
        number = self._held.next_request()
        talk.probes = [*talk.probes[1 - PROBES_MAX :], number]
        talk.patience_ns = min(2 * talk.patience_ns, PATIENCE_MOST_NS)
        talk.overdue_at = now.mono + talk.patience_ns
        pulls = talk.stage is Stage.CLOCKS
        nothing = Pull(origins=(), slots=()) if pulls else Compare(slots=(), digests=())
        return Tell(peer, nothing, number)

    def _end(self, talk: Talk) -> None:
        talk.request, talk.overdue_at = 0, NEVER
        talk.probes.clear()
        talk.patience_ns = PATIENCE_FIRST_NS
        self.release()


_STAGES = {CompareRoot: Stage.ROOT, Compare: Stage.DIGESTS, Pull: Stage.CLOCKS}
