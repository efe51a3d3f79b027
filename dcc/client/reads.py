"""Reading one key: from owner to owner until one of them knows.

A get goes to the primary. Undeliverable: the next target at once. Silent: the next target, asked
directly, while a late answer of the first still counts. A hit or an authoritative miss ends the
call. An unsure miss ends it when it comes through the primary, which has asked the other holders
itself; from anybody else it makes the call ask the remaining owners once, because one of them may
know, and stands only if none does. A call in which every target has failed pauses and starts over
with the topology as it then is, until the deadline.
"""

from __future__ import annotations

from dcc.client.calls import Attempt, Call
from dcc.client.outcomes import ASK_ANOTHER, error_of, nobody
from dcc.client.routing import Target
from dcc.errors import DccError, ProtocolError
from dcc.ring.hashing import slot_of
from dcc.types import Now
from dcc.units import MILLISECOND, NEVER
from dcc.wire.codec import Header
from dcc.wire.messages import Code, ErrorReply, Get, GetReply, Message, Status

PAUSE_FIRST_NS = 10 * MILLISECOND
PAUSE_MOST_NS = 160 * MILLISECOND
TOO_LATE_MAX = 2
"Times a call corrects its idea of cluster time before it believes that it is late."


class Rounds:
    """Growing, random pauses between rounds over all targets."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._pause_ns = PAUSE_FIRST_NS

    def next_at(self, now: Now) -> int:
        """Return when the next round begins."""
        pause = round(self._pause_ns * self._call.core.rng.uniform(0.5, 1.5))
        self._pause_ns = min(self._pause_ns * 2, PAUSE_MOST_NS)
        return now.mono + pause


class Read:
    """The plan of one get."""

    def __init__(self, call: Call, key: bytes, *, spread: bool = False) -> None:
        self.wake_at = NEVER
        self.done = False
        self.result: GetReply | None = None
        self.error: DccError | None = None
        self.address = ""
        "Who answered."
        self.confirmed = False
        self.key = key
        self._call, self._spread = call, spread
        self._targets: list[Target] = []
        self._resumed: set[str] = set()
        self._refusal: DccError | None = None
        self._unsure: GetReply | None = None
        self._too_late = 0
        self._rounds = Rounds(call)

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

    def answered(self, attempt: Attempt, header: Header, message: Message, now: Now) -> None:
        """Take an answer: the end, or a reason to ask the next."""
        match message:
            case GetReply(status=Status.UNSURE) if attempt.direct:
                self._unsure = message
                self.address = attempt.address
                self._next(now)
            case GetReply(status=Status.HIT | Status.MISS | Status.UNSURE):
                self._call.core.saw(message.version.stamp)
                self.address = attempt.address
                self.confirmed = message.status is Status.MISS or (
                    message.status is Status.HIT and not attempt.direct
                )
                self._finish(message)
            case ErrorReply():
                self._refused(attempt, header, message, now)
            case _:
                self._fail(ProtocolError(f"{attempt.address}: answered a get with a {message}"))

    def undeliverable(self, attempt: Attempt, now: Now) -> None:
        """Go on at once."""
        self._next(now)

    def silent(self, attempt: Attempt, now: Now) -> None:
        """Ask the next as well."""
        self._next(now)

    def tick(self, now: Now) -> None:
        """Begin the next round when its time has come."""
        if now.mono >= self.wake_at:
            self.wake_at = NEVER
            self._aim()
            self._next(now)

    def expired(self, now: Now) -> None:
        """End with what there is."""
        if self._unsure is not None:
            self._finish(self._unsure)
        else:
            self._fail(nobody(self._refusal, sent=self._call.waiting(self) > 0))

    def _aim(self) -> None:
        targets = self._call.core.targets(slot_of(self.key))
        if self._spread:
            rng, sick = self._call.core.rng, self._call.core.health.sick
            owners = [one for one in targets if one.owner and one.address not in sick]
            if owners:
                first = rng.choice(owners)
                targets = [first, *(one for one in targets if one is not first)]
        self._targets = targets

    def _next(self, now: Now) -> None:
        while self._targets:
            target = self._targets.pop(0)
            if self._unsure is not None and not target.owner:
                continue
            message = Get(key=self.key, direct=target.direct)
            self._call.ask(self, target.address, message, now, direct=target.direct)
            return
        if self._call.fresh(self):
            return  # Somebody was asked who is not silent yet, and may still know.
        if self._unsure is not None:
            self._finish(self._unsure)
        else:
            self._round_over(now)

    def _round_over(self, now: Now) -> None:
        self._call.core.want_refresh(now)
        if self._call.core.lost:
            self._fail(nobody(self._refusal, sent=self._call.waiting(self) > 0))
        else:
            self.wake_at = self._rounds.next_at(now)

    def _refused(self, attempt: Attempt, header: Header, reply: ErrorReply, now: Now) -> None:
        error = error_of(reply, attempt.address)
        if reply.code is Code.TOO_LATE and self._too_late < TOO_LATE_MAX:
            self._too_late += 1
            self._call.core.learn_clock(header.at, attempt.sent_at, now, anew=True)
            self._targets.insert(0, Target(attempt.address, attempt.direct, True))
        elif reply.code in ASK_ANOTHER or reply.code is Code.OVERLOADED:
            self._refusal = error
            self._call.core.want_refresh(now)
        else:
            self._fail(error)
            return
        self._next(now)

    def _finish(self, reply: GetReply) -> None:
        if not self.done:
            self.done, self.result = True, reply

    def _fail(self, error: DccError) -> None:
        if not self.done:
            self.done, self.error = True, error
