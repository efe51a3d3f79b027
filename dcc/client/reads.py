"""Reading one key: from owner to owner until one of them knows.

A get goes to the primary. Undeliverable: the next target at once. Silent: the next target, asked
directly, while a late answer of the first still counts. A hit or an authoritative miss ends the
call. An unsure miss ends it when it comes through the primary, which has asked the other holders
itself, and nobody else is being waited for; from anybody else, or from a node that sees another
ring, it makes the call ask the remaining owners once, because one of them may know, and stands only
if none does. A call in which every target has failed pauses and starts over with the topology as it
then is, until the deadline.

A read that waits longer than most do is asked of a second owner before the first counts as
silent, as far as the budget of `hedging` goes. That owner's hit ends the call; its unsure miss
does not, as long as the first may still answer.

A hit that this client has outlived (`outlived`) is none: it makes the call ask the next owner, and
if nobody has anything newer it ends as an unsure miss.

A read of several owners (`r`) goes the same way. The node asked puts the question to the others
and answers for all, or refuses; it may take its time, so nothing is hedged.
"""

from __future__ import annotations

from dcc.client.arguments import ALL, QUORUM
from dcc.client.attempts import Attempt, Attempts
from dcc.client.outcomes import ASK_ANOTHER, CORRECTIONS_MAX, error_of
from dcc.client.rounds import OneByOne
from dcc.client.routing import Target
from dcc.errors import ProtocolError
from dcc.ring.hashing import slot_of
from dcc.types import NO_VERSION, Now, Stamp
from dcc.units import NEVER
from dcc.wire.codec import Header
from dcc.wire.messages import Code, ErrorReply, Get, GetReply, Message, Status

NOTHING = GetReply(status=Status.UNSURE, version=NO_VERSION, value=b"", expires_at_ms=0)


class Read(OneByOne):
    """The plan of one get. Its result is a `GetReply`."""

    def __init__(
        self,
        call: Attempts,
        key: bytes,
        *,
        spread: bool = False,
        r: int = 1,
        known: Stamp | None = None,
    ) -> None:
        super().__init__(call)
        self.address: str = ""
        "Who answered."
        self.confirmed: bool = False
        self.key = key
        self._known = call.core.outlived.known(key) if known is None else known
        "The newest stamp that this client knew of the key as the read began."
        self._spread, self._r = spread, r
        self._targets: list[Target] = []
        self._resumed: set[str] = set()
        self._hedged = r != 1
        "No further question is sent while one is fresh."
        self._unsure: GetReply | None = None
        self._corrections = 0

    def begin(self, now: Now) -> None:
        """Ask the first target, unless a question is on its way to it already."""
        self._aim()
        if self._resumed:
            self._targets = [one for one in self._targets if one.address not in self._resumed]
        else:
            self._next(now)

    def resume(self, attempt: Attempt, keys: list[bytes]) -> None:
        """Take over `attempt`, sent before the call began; before `begin`."""
        self._resumed.add(attempt.address)
        self._hedge_after(attempt.sent_at)

    def answered(self, attempt: Attempt, header: Header, message: Message, now: Now) -> None:
        """Take an answer: the end, or a reason to ask the next."""
        match message:
            case GetReply(status=Status.HIT) if message.version.stamp < self._known:
                self._call.notify("stale_refused", address=attempt.address)
                self._unsure, self.address = NOTHING, attempt.address
                if not self._call.fresh(self):
                    self._next(now)
            case GetReply(status=Status.UNSURE) if (
                attempt.direct
                or self._call.fresh(self)
                or (self._targets and header.epoch != self._call.view.epoch)
            ):
                self._unsure = message
                self.address = attempt.address
                if not self._call.fresh(self):
                    self._next(now)
            case GetReply(status=Status.HIT | Status.MISS | Status.UNSURE):
                core = self._call.core
                core.saw(message.version.stamp)
                if message.version.stamp > self._known:
                    core.outlived.note(self.key, message.version.stamp)
                if message.hot:
                    core.hot.note((self.key,), now.mono)
                if self._r == 1:
                    core.hedging.answered(now.mono - attempt.sent_at)
                self.address = attempt.address
                self.confirmed = message.status is Status.MISS or (
                    message.status is Status.HIT and (not attempt.direct or self._by_majority())
                )
                self._finish(message)
            case ErrorReply():
                self._refused(attempt, message, now)
            case _:
                self._fail(ProtocolError(f"{attempt.address}: answered a get with a {message}"))

    def tick(self, now: Now) -> None:
        """Hedge, or begin the next round, when its time has come."""
        if now.mono < self.wake_at:
            return
        self.wake_at: int = NEVER
        if self._call.fresh(self):
            self._hedge(now)
        else:
            self._begin_round(now)

    def expired(self, now: Now) -> None:
        """End with what there is."""
        if self._unsure is not None:
            self._finish(self._unsure)
        else:
            self._fail(self._nobody())

    def _begin_round(self, now: Now) -> None:
        self._aim()
        self._next(now)

    def _aim(self) -> None:
        targets = self._call.core.targets(slot_of(self.key))
        if self._spread:
            rng, sick = self._call.core.rng, self._call.core.health.sick
            owners = [one for one in targets if one.owner and one.address not in sick]
            if owners:
                first = rng.choice([one for one in owners if not one.follows] or owners)
                targets = [first, *(one for one in targets if one is not first)]
        self._targets = targets

    def _next(self, now: Now) -> None:
        self.wake_at = NEVER
        while self._targets:
            target = self._targets.pop(0)
            if self._unsure is None or target.owner:
                self._ask(target, now)
                self._hedge_after(now.mono)
                return
        if self._call.fresh(self):
            return  # Somebody was asked who is not silent yet, and may still know.
        if self._unsure is not None:
            self._finish(self._unsure)
        else:
            self._round_over(now)

    def _ask(self, target: Target, now: Now) -> None:
        aside = target.direct and not self._spread
        message = Get(key=self.key, direct=target.direct, r=self._r, aside=aside)
        patient = self._r != 1
        self._call.ask(self, target.address, message, now, direct=target.direct, patient=patient)

    def _hedge_after(self, sent_at: int) -> None:
        hedging = self._call.core.hedging
        if not self._hedged and hedging.delay_ns < self._call.core.attempt_ns:
            self.wake_at = sent_at + hedging.delay_ns

    def _hedge(self, now: Now) -> None:
        """Ask the next owner that is well too, if there is one and the budget allows it."""
        core = self._call.core
        for target in self._targets:
            if target.owner and target.address not in core.health.sick:
                if core.hedging.spend():
                    self._hedged = True
                    self._targets.remove(target)
                    self._ask(target, now)
                    self._call.notify("hedged", address=target.address)
                return

    def _by_majority(self) -> bool:
        """Return whether so many owners were asked that every majority has one of them."""
        return self._r in (QUORUM, ALL) or self._r > self._call.view.copies() // 2

    def _round_over(self, now: Now) -> None:
        self._call.core.want_refresh(now)
        if self._call.core.lost:
            self._fail(self._nobody())
        else:
            self.wake_at = self._rounds.next_at(now)

    def _refused(self, attempt: Attempt, reply: ErrorReply, now: Now) -> None:
        error = error_of(reply, attempt.address)
        if reply.code is Code.TOO_LATE and self._corrections < CORRECTIONS_MAX:
            self._corrections += 1
            self._targets.insert(0, Target(attempt.address, attempt.direct, True))
        elif reply.code in ASK_ANOTHER or reply.code is Code.OVERLOADED:
            self._refusal = error
            self._call.core.want_refresh(now)
        else:
            self._fail(error)
            return
        self._next(now)
