"""One call: an operation on its way to an answer, with one deadline for everything it tries.

A call owns what all operations have in common: the messages on their way (`attempts`), its end at
the deadline, and the question for the topology before the first operation. What to ask next is
decided by the operation's *plan* (`reads`, `writes`, `many`, `asks`, `everywhere`), which the call
tells of every event:

    begin        the topology is known
    answered     the attempt's reply is here (also after it was given up as silent)
    undeliverable  the attempt's frames surely never left
    silent       no answer for one attempt's time; it stays open, a late answer still counts
    tick         the instant `wake_at` of the plan came
    expired      the deadline came: the plan must be done after this

A plan ends by calling `finish` or `fail` once. Effects are `Send` (to a host:port) and `Notify`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dcc.client.attempts import Attempt, Attempts, Plan
from dcc.client.many import GetEach
from dcc.client.shared import Shared
from dcc.effects import Effect
from dcc.errors import (
    ForeignCluster,
    MalformedMessage,
    NodeUnavailable,
    UnsupportedVersion,
)
from dcc.types import Now
from dcc.units import MILLISECOND, NEVER
from dcc.wire.codec import Codec, Header
from dcc.wire.messages import (
    AuditGet,
    Clear,
    Code,
    ConvergedGet,
    ErrorReply,
    Get,
    GetMany,
    GetManyReply,
    Inspect,
    Message,
    Op,
    Scan,
    SetReplicas,
    StatsGet,
    TopologyGet,
    Watch,
    Write,
    WriteMany,
)

Operation = (
    Get | Write | GetMany | GetEach | WriteMany | TopologyGet | StatsGet | Scan | Clear | Inspect
    | SetReplicas | ConvergedGet | AuditGet | Watch
)  # fmt: skip
"What a call can be begun with: as a rule the message whose answer is wanted."

_OPS = {op: op.name.lower() for op in Op}


class Call:
    """Drives one plan. The shell or the simulator carries out the effects."""

    def __init__(self, core: Shared, began: int, deadline: int, codec: Codec) -> None:
        self.attempts: Attempts = Attempts(core, began, deadline, codec)
        "What plans see of the call."
        self.core: Shared = core
        self.deadline: int = deadline
        self.heard: bool = False
        "Some node has answered something during this call."
        self._codec = codec
        self._root: Plan
        self._learn: Plan | None

    def bind(self, root: Plan, learn: Plan | None) -> Call:
        """Say what this call is for, and how it gets a topology if it must have one first."""
        self._root, self._learn = root, learn
        return self

    # -------------------------------------------------------------- driving

    def start(self, now: Now) -> list[Effect]:
        """Begin; must be called once, before anything else."""
        if self._learn is not None:
            self._learn.begin(now)
            self._after_learning(now)
        else:
            self._root.begin(now)
            self.attempts.do_chores(now)
        return self.attempts.taken()

    def receive(self, address: str, frames: list[bytes], now: Now) -> list[Effect]:
        """Take frames that came from `address`; any bytes are safe."""
        try:
            header, message = self._codec.decode(frames)
        except (ForeignCluster, UnsupportedVersion) as error:
            self._refused(address, error, now)
            return self.attempts.taken()
        except MalformedMessage:
            self.attempts.notify("message_dropped", address=address, reason="malformed")
            return self.attempts.taken()
        return self.take(address, header, message, now)

    def take(self, address: str, header: Header, message: Message, now: Now) -> list[Effect]:
        """Take a message that came from `address`, decoded already."""
        self.heard = True
        self.core.heard(address, header, now)
        self._dispatch(address, header, message, now)
        return self.attempts.taken()

    def undeliverable(
        self,
        address: str,
        now: Now,
        frames: list[bytes] | None = None,
        reason: str = "no connection",
    ) -> list[Effect]:
        """Learn that a `Send` to `address` surely never left this process, and why.

        `frames` are the ones of that Send (the same list). Without them, everything that was
        sent to the address at this very instant is meant.
        """
        if frames is not None and self.core.chore_undeliverable(frames, now):
            return self.attempts.taken()
        for attempt in self.attempts.open():
            if attempt.address == address and (
                attempt.frames is frames if frames is not None else attempt.sent_at == now.mono
            ):
                self.core.failed(address, now)
                self.attempts.tried[address] = reason
                if attempt.sendings <= 1:
                    self.attempts.drop(attempt)
                self._tell(attempt, "undeliverable", now)
        return self.attempts.taken()

    def tick(self, now: Now) -> list[Effect]:
        """Do what is due."""
        if self.done:
            return []
        over = now.mono >= self.deadline
        for attempt in [one for one in self.attempts.open() if one.silent_at <= now.mono]:
            if self.attempts.is_open(attempt) and not self.done:
                busy_until = self.core.busy_until(attempt.address, attempt.sent_at, self.deadline)
                if busy_until > now.mono:
                    attempt.silent_at = busy_until
                    continue
                attempt.silent_at = NEVER
                waited_ms = (now.mono - attempt.sent_at) // MILLISECOND
                self.attempts.tried[attempt.address] = f"no answer within {waited_ms} ms"
                if not attempt.patient or not attempt.sendings:
                    self.core.silent(attempt.address, attempt.sent_at, now)
                if not over:
                    self._tell_silent(attempt, now)
        if over and not self.done:
            self._expire(now)
            return self.attempts.taken()
        plan = self._learn or self._root
        if plan.wake_at <= now.mono and not plan.done:
            plan.tick(now)
            self._after_learning(now)
        if not self.done:  # A long call must see how the ring has changed.
            self.attempts.do_chores(now)
        return self.attempts.taken()

    def wake_at(self) -> int:
        """Return when `tick` has something to do; NEVER once the call is done."""
        if self.done:
            return NEVER
        plan = self._learn or self._root
        return min(self.attempts.wake_at(), plan.wake_at, self.deadline)

    @property
    def done(self) -> bool:
        """The outcome is known."""
        return self._root.done

    def outcome(self) -> Any:
        """Return the operation's result, or raise its error. Only once `done`."""
        assert self.done, "asked for the outcome of a call that still runs"
        if self._root.error is not None:
            raise self._root.error
        return self._root.result

    def outcomes(self, keys: Iterable[bytes]) -> dict[bytes, Any]:
        """Return what is known by now of those of `keys` that are settled; a call of many only.

        A key's outcome is its value (None: absent), its `Version` where one was written and
        asked for, or its error, which no other key shares.
        """
        found: dict[bytes, Any] = self._root.outcomes(keys)  # type: ignore[attr-defined]
        return found

    def answered_by(self) -> tuple[str, bool]:
        """Return who answered a get, and whether that settles it; ("", False) for the others."""
        return getattr(self._root, "address", ""), getattr(self._root, "confirmed", False)

    # -------------------------------------------------------------- inside

    def _tell_silent(self, attempt: Attempt, now: Now) -> None:
        """Tell a plan that a node is silent; a knock without an answer means that nothing left."""
        if attempt.sendings:
            self._tell(attempt, "silent", now)
        else:
            self.attempts.drop(attempt)
            self._tell(attempt, "undeliverable", now)

    def _dispatch(self, address: str, header: Header, message: Message, now: Now) -> None:
        if self.attempts.answers_knock(address, header, message, now, done=self.done):
            return
        attempt = self.attempts.asked(address, header)
        if attempt is None or self.done:
            if isinstance(message, ErrorReply) and header.request == 0:
                self._refuse(address, header, message, now)
            elif not self.core.absorb(address, header, message, now):
                self.attempts.notify("late_reply", address=address, request=header.request)
            return
        refusal = message if isinstance(message, ErrorReply) else None
        if attempt.sendings == 1:
            late = refusal is not None and refusal.code is Code.TOO_LATE
            self.core.learn_clock(header.at, attempt.sent_at, now.mono, anew=late)
        if refusal is not None:
            self._note_refusal(address, refusal)
        if isinstance(message, GetManyReply) and not message.last:
            if attempt.silent_at < NEVER:  # Else it is silent already, which it can be once.
                attempt.silent_at = now.mono + self.core.attempt_ns
        else:
            self.attempts.drop(attempt)
        attempt.plan.answered(attempt, header, message, now)
        self._settle(attempt, now)

    def _note_refusal(self, address: str, refusal: ErrorReply) -> None:
        """Remember why a node refused, and go on from the stamp of one that found ours ahead."""
        self.attempts.tried[address] = refusal.text or refusal.code.name.lower().replace("_", " ")
        if refusal.code is Code.CLOCK_SKEW and refusal.stamp:
            self.core.refused_stamp(refusal.stamp)

    def _refused(self, address: str, error: Exception, now: Now) -> None:
        """A node that cannot even read our header, or we its: all that it was asked is refused."""
        code, text = Code.UNSUPPORTED_VERSION, str(error)
        if isinstance(error, ForeignCluster):
            code = Code.WRONG_CLUSTER
            text += f"; this client asks for '{self.core.cluster}' (its option `cluster`)"
        header = Header(0, 0, 0, 0, 0, 0, 0)
        self._refuse(address, header, ErrorReply(code=code, text=text), now)

    def _refuse(self, address: str, header: Header, message: ErrorReply, now: Now) -> None:
        self._note_refusal(address, message)
        if message.code is Code.WRONG_CLUSTER:
            self.core.refused_by(address, now)
        for attempt in [one for one in self.attempts.open() if one.address == address]:
            waited_for = self.attempts.is_open(attempt)
            self.attempts.drop(attempt)
            if waited_for and not self.done:
                attempt.plan.answered(attempt, header, message, now)
                self._settle(attempt, now)

    def _tell(self, attempt: Attempt, event: str, now: Now) -> None:
        getattr(attempt.plan, event)(attempt, now)
        self._settle(attempt, now)

    def _settle(self, attempt: Attempt, now: Now) -> None:
        """Let the plan that a part belongs to see what became of the part."""
        self._after_learning(now)
        if attempt.plan is not self._root and self._learn is None and not self._root.done:
            self._root.tick(now)

    def _after_learning(self, now: Now) -> None:
        learn = self._learn
        if learn is None or not learn.done:
            return
        self._learn = None
        for attempt in [one for one in self.attempts.open() if one.plan is learn]:
            self.attempts.drop(attempt)
        if learn.error is not None:
            self._root.error = learn.error
            self._root.done = True
        else:
            self._root.begin(now)

    def _expire(self, now: Now) -> None:
        if not self.heard:
            self.core.lost = True
        for attempt in self.attempts.open():
            if attempt.patient:
                self.core.silent(attempt.address, attempt.sent_at, now)
        if self._learn is not None:
            self._learn.expired(now)
            self._root.error = self._learn.error or NodeUnavailable("no node told the topology")
            self._root.done = True
            self._learn = None
        else:
            self._root.expired(now)
        assert self.done, "a plan must end at its deadline"


def command_of(operation: Operation) -> str:
    """Return the command that an operation is counted as, one of `timings.COMMANDS`."""
    if isinstance(operation, Write):
        return _OPS[operation.op]
    if isinstance(operation, Get):
        return "get"
    if isinstance(operation, GetMany | GetEach):
        return "get_many"
    return "write_many" if isinstance(operation, WriteMany) else "other"
