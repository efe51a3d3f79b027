"""Changing one key: at most one coordinator, ever, for a write that may have happened.

A write goes to the primary. As long as it surely was not sent, or was refused before it was
executed, it may go on to the next target. Once it was sent and nothing came back it stays with
that node: it is repeated there under the same request id, which the node executes once, and at
the deadline the call ends as `MaybeStored`. A repeat names the boot that the first sending was
meant for, so a node that restarted in between refuses it instead of executing it again.

A refusal of a repeated write says nothing of the first sending (which may be executed yet), so
only an outcome ends such a call.
"""

from __future__ import annotations

from dataclasses import replace

from dcc.client.attempts import Attempt, Attempts
from dcc.client.outcomes import ASK_ANOTHER, CORRECTIONS_MAX, DECIDED, error_of, nobody
from dcc.client.rounds import Rounds
from dcc.client.routing import Target
from dcc.errors import DccError, MaybeStored, ProtocolError
from dcc.ring.hashing import slot_of
from dcc.types import Now
from dcc.units import NEVER
from dcc.wire.codec import Header
from dcc.wire.messages import Code, ErrorReply, Message, Outcome, Write, WriteReply


class Change:
    """The plan of one write."""

    def __init__(self, call: Attempts, write: Write) -> None:
        self.wake_at: int = NEVER
        self.done: bool = False
        self.result: WriteReply | None = None
        self.error: DccError | None = None
        self.write = write
        self._call = call
        self._message = write
        self._targets: list[Target] = []
        self._bound: Attempt | None = None
        "The one attempt that may have been executed."
        self._refusal: DccError | None = None
        self._corrections = 0
        self._rounds = Rounds(call)

    def resume(self, attempt: Attempt, seen: int) -> None:
        """Take over `attempt`, which was sent and named `seen` before the call began."""
        self._bound = attempt
        self._message = replace(self.write, seen=seen)

    def begin(self, now: Now) -> None:
        """Send to the first target."""
        if self._bound is not None:
            return
        self._targets = self._call.core.targets(slot_of(self.write.key))
        self._next(now)

    def answered(self, attempt: Attempt, header: Header, message: Message, now: Now) -> None:
        """Take an answer: the outcome, or a refusal."""
        match message:
            case WriteReply(outcome=Outcome.DONE | Outcome.NOT_DONE):
                self._call.core.saw(message.version.stamp)
                self._call.core.outlived.note(self.write.key, message.version.stamp)
                self._finish(message)
            case WriteReply(outcome=Outcome.MAYBE):
                self._call.core.saw(message.version.stamp)
                self._fail(MaybeStored(f"{attempt.address}: stored by fewer owners than asked for"))
            case ErrorReply():
                self._refused(attempt, message, now)
            case _:
                self._fail(ProtocolError(f"{attempt.address}: answered a write with a {message}"))

    def undeliverable(self, attempt: Attempt, now: Now) -> None:
        """Go on if nothing was sent; wait and repeat if an earlier sending was."""
        if attempt.sendings <= 1:
            self._bound = None
            self._next(now)
        else:
            attempt.silent_at = NEVER
            self.wake_at = now.mono + self._call.core.attempt_ns

    def silent(self, attempt: Attempt, now: Now) -> None:
        """Repeat to the same life of the same node."""
        self._repeat(attempt, now)

    def tick(self, now: Now) -> None:
        """Begin the next round, or repeat, when its time has come."""
        if now.mono < self.wake_at:
            return
        self.wake_at = NEVER
        if self._bound is not None:
            self._repeat(self._bound, now)
        else:
            if not self._targets:
                self._targets = self._call.core.targets(slot_of(self.write.key))
            self._next(now)

    def expired(self, now: Now) -> None:
        """End: indefinite if anything was sent, definite otherwise."""
        if self._bound is not None and self._bound.sendings:
            address = self._bound.address
            self._fail(MaybeStored(f"{address}: no answer in time; the write may be stored"))
        else:
            self._fail(nobody(self._refusal, self._call.tried, sent=False))

    def _next(self, now: Now) -> None:
        core = self._call.core
        if self._targets:
            target = self._targets.pop(0)
            self._message = replace(self.write, direct=target.direct, seen=core.seen, boot=0)
            self._bound = self._call.ask(
                self,
                target.address,
                self._message,
                now,
                direct=target.direct,
                patient=self.write.w != 1,
                knocks=True,
            )
        elif core.lost:
            self._fail(nobody(self._refusal, self._call.tried, sent=False))
        else:
            core.want_refresh(now)
            self.wake_at = self._rounds.next_at(now)

    def _repeat(self, attempt: Attempt, now: Now) -> None:
        self._call.repeat(attempt, replace(self._message, boot=attempt.boot), now)

    def _refused(self, attempt: Attempt, reply: ErrorReply, now: Now) -> None:
        error = error_of(reply, attempt.address)
        if reply.code is Code.MAYBE or reply.code in DECIDED:
            self._fail(error)
        elif attempt.sendings > 1:
            self._keep(attempt, reply.code, now)
        else:
            self._bound = None
            self._refused_before_execution(attempt, reply, error, now)

    def _keep(self, attempt: Attempt, code: Code, now: Now) -> None:
        """Wait for the outcome of the other sending; repeat unless it would be too late again."""
        self._call.reopen(attempt)
        if code is not Code.TOO_LATE:
            self.wake_at = self._rounds.next_at(now)

    def _refused_before_execution(
        self, attempt: Attempt, reply: ErrorReply, error: DccError, now: Now
    ) -> None:
        code = reply.code
        corrected = code is Code.TOO_LATE or (code is Code.CLOCK_SKEW and reply.stamp)
        same = Target(attempt.address, attempt.direct, True)
        if code is Code.OVERLOADED:
            self._refusal = error
            self._targets.insert(0, same)
            self.wake_at = self._rounds.next_at(now)
        elif corrected and self._corrections < CORRECTIONS_MAX:
            self._corrections += 1
            self._targets.insert(0, same)
            self._next(now)
        elif code in ASK_ANOTHER:
            self._refusal = error
            self._call.core.want_refresh(now)
            self._next(now)
        else:
            self._fail(error)

    def _finish(self, reply: WriteReply) -> None:
        if not self.done:
            self.done, self.result = True, reply

    def _fail(self, error: DccError) -> None:
        if not self.done:
            self.done, self.error = True, error
