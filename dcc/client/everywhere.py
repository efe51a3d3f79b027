"""Questions that any node can answer, for it asks or tells all the others: one class for them.

`Clear` and `SetReplicas` raise what the whole cluster shares to a maximum, `ConvergedGet` changes
nothing: doing it twice does no more than once, so a silent node is followed by another, unlike
with a write. The node asked takes its time, because it waits for the others.

A `Clear` names the cluster time at which the call began. A node may execute it much later, when
another one has cleared long ago and the caller has gone on writing; what was written since stays.
That time, and what had been seen by then, is told alike to every node that is asked: by them all
give a repeated clear one stamp. Only a refusal, which may have just corrected them, changes them.
"""

from __future__ import annotations

from dataclasses import replace

from dcc.client.attempts import Attempt, Attempts
from dcc.client.outcomes import ASK_ANOTHER, CORRECTIONS_MAX, error_of
from dcc.client.rounds import OneByOne
from dcc.errors import DccError, MaybeStored, ProtocolError
from dcc.types import Now
from dcc.wire.codec import Header
from dcc.wire.messages import (
    Clear,
    ClearReply,
    Code,
    ConvergedGet,
    ConvergedReply,
    ErrorReply,
    Message,
    SetReplicas,
    SettingsReply,
)

ANOTHER_TIME = frozenset({Code.OVERLOADED, Code.TOO_LATE})
"Refusals that another node, or a later round, need not repeat."


class AskAnyNode(OneByOne):
    """The plan of a `Clear`, a `SetReplicas` or a `ConvergedGet`; its result is the reply."""

    def __init__(self, call: Attempts, question: Clear | SetReplicas | ConvergedGet) -> None:
        super().__init__(call)
        self._question = question
        self._addresses: list[str] = []
        self._corrections = 0
        self._issued_ms = 0
        "When the call began, as it is told; 0 = not known, or refused since."
        self._seen = call.core.seen

    def begin(self, now: Now) -> None:
        """Ask one node that is alive."""
        self._begin_round(now)

    def answered(self, attempt: Attempt, header: Header, message: Message, now: Now) -> None:
        """Take the outcome, or ask another node."""
        match message:
            case ConvergedReply() if isinstance(self._question, ConvergedGet):
                self._finish(message)
            case ClearReply() if isinstance(self._question, Clear):
                self._call.core.saw(message.stamp)
                if message.everywhere:
                    self._call.core.outlived.cleared(message.stamp)
                self._changed(message, everywhere=message.everywhere)
            case SettingsReply() if isinstance(self._question, SetReplicas):
                self._call.core.want_refresh(now)
                self._changed(message, everywhere=message.everywhere)
            case ErrorReply() if message.code in ASK_ANOTHER or message.code in ANOTHER_TIME:
                self._refusal = error_of(message, attempt.address)
                self._issued_ms = 0
                self._next(now)
            case ErrorReply(code=Code.CLOCK_SKEW) if (
                message.stamp and self._corrections < CORRECTIONS_MAX
            ):
                self._corrections += 1
                self._issued_ms = 0
                self._seen = self._call.core.seen
                self._addresses.insert(0, attempt.address)
                self._next(now)
            case ErrorReply():
                self._fail(self._perhaps(error_of(message, attempt.address)))
            case _:
                asked = type(self._question).__name__
                self._fail(ProtocolError(f"{attempt.address}: answered {asked} with a {message}"))

    def expired(self, now: Now) -> None:
        """End: some node may have done what was asked."""
        self._fail(self._perhaps(self._nobody()))

    def _perhaps(self, error: DccError) -> DccError:
        """Return `error`, or that a node which was asked as well may have done it."""
        if isinstance(self._question, ConvergedGet) or not self._call.waiting(self):
            return error
        return MaybeStored(f"it may be done or not: a node has not answered yet ({error})")

    def _changed(self, reply: ClearReply | SettingsReply, *, everywhere: bool) -> None:
        if everywhere:
            self._finish(reply)
        else:
            self._fail(MaybeStored("some members have not confirmed it yet; it spreads by gossip"))

    def _begin_round(self, now: Now) -> None:
        self._addresses = self._nodes()
        self._next(now)

    def _next(self, now: Now) -> None:
        if self._addresses:
            question, core = self._question, self._call.core
            if isinstance(question, Clear | SetReplicas):
                self._issued_ms = self._issued_ms or core.time_ms(self._call.began)
                question = replace(question, issued_ms=self._issued_ms)
            if isinstance(question, Clear):
                question = replace(question, seen=self._seen)
            self._call.ask(self, self._addresses.pop(0), question, now, patient=True)
        elif not self._call.fresh(self):
            self.wake_at: int = min(self.wake_at, self._rounds.next_at(now))
