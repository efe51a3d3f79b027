"""One call: an operation on its way to an answer, with one deadline for everything it tries.

A call owns what all operations have in common: request ids, the messages on their way
(`Attempt`), when a node counts as silent, and the question for the topology before the first
operation. What to ask next is decided by the operation's *plan* (`reads`, `writes`, `many`,
`asks`, `everywhere`), which the call tells of every event:

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
from dataclasses import dataclass
from typing import Any, Protocol

from dcc.client.routing import View
from dcc.client.shared import Shared
from dcc.effects import Effect, Notify, Send
from dcc.errors import (
    DccError,
    ForeignCluster,
    MalformedMessage,
    NodeUnavailable,
    UnsupportedVersion,
)
from dcc.limits import BATCH_BYTES
from dcc.types import Boot, Now
from dcc.units import MIB, MILLISECOND, NEVER, SECOND
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
    Topology,
    TopologyGet,
    Write,
    WriteMany,
)

Operation = (
    Get | Write | GetMany | WriteMany | TopologyGet | StatsGet | Scan | Clear | Inspect
    | SetReplicas | ConvergedGet | AuditGet
)  # fmt: skip
"What a call can be begun with: the message whose answer is wanted."

_OPS = {op: op.name.lower() for op in Op}


SLOWEST_BYTES = 1 * MIB
"A link that carries fewer bytes a second may be sent a large request twice."


@dataclass(slots=True)
class Attempt:
    """One message on its way to one node, until it is answered or surely was not sent."""

    plan: Plan
    address: str
    request: int
    frames: list[bytes]
    sent_at: int
    silent_at: int
    "When the node counts as silent; NEVER once it did."
    direct: bool
    boot: Boot
    "The boot of the node, by the topology in use when the message was first sent."
    patient: bool = False
    "The node may rightly take its time (it waits for other nodes): judged at the deadline only."
    sendings: int = 1
    "How often it was sent; 0 while it waits for the answer to a knock."


class Plan(Protocol):
    """What one operation does next. Implemented by the classes that the module's text lists."""

    wake_at: int
    done: bool
    result: Any
    error: DccError | None

    def begin(self, now: Now) -> None: ...
    def answered(self, attempt: Attempt, header: Header, message: Message, now: Now) -> None: ...
    def undeliverable(self, attempt: Attempt, now: Now) -> None: ...
    def silent(self, attempt: Attempt, now: Now) -> None: ...
    def tick(self, now: Now) -> None: ...
    def expired(self, now: Now) -> None: ...


class Call:
    """Drives one plan. The shell or the simulator carries out the effects."""

    def __init__(self, core: Shared, began: int, deadline: int, codec: Codec) -> None:
        self.core, self.began, self.deadline = core, began, deadline
        self.heard = False
        "Some node has answered something during this call."
        self.tried: dict[str, str] = {}
        "Address -> why it was asked in vain, the last time."
        self._codec = codec
        self._root: Plan
        self._learn: Plan | None
        self._open: dict[int, Attempt] = {}
        self._knocks: dict[int, tuple[Attempt, Message]] = {}
        "Request id of a knock -> the attempt that waits for its answer, and what it will send."
        self._effects: list[Effect] = []

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
            self._effects += self.core.do_chores(now, self._codec)
        return self._taken()

    def receive(self, address: str, frames: list[bytes], now: Now) -> list[Effect]:
        """Take frames that came from `address`; any bytes are safe."""
        try:
            header, message = self._codec.decode(frames)
        except (ForeignCluster, UnsupportedVersion) as error:
            self._refused(address, error, now)
            return self._taken()
        except MalformedMessage:
            self.notify("message_dropped", address=address, reason="malformed")
            return self._taken()
        return self.take(address, header, message, now)

    def take(self, address: str, header: Header, message: Message, now: Now) -> list[Effect]:
        """Take a message that came from `address`, decoded already."""
        self.heard = True
        self.core.heard(address, header, now)
        self._dispatch(address, header, message, now)
        return self._taken()

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
            return self._taken()
        for attempt in list(self._open.values()):
            if attempt.address == address and (
                attempt.frames is frames if frames is not None else attempt.sent_at == now.mono
            ):
                self.core.failed(address, now)
                self.tried[address] = reason
                if attempt.sendings <= 1:
                    del self._open[attempt.request]
                self._tell(attempt, "undeliverable", now)
        return self._taken()

    def tick(self, now: Now) -> list[Effect]:
        """Do what is due."""
        if self.done:
            return []
        over = now.mono >= self.deadline
        for attempt in [one for one in self._open.values() if one.silent_at <= now.mono]:
            if attempt.request in self._open and not self.done:
                busy_until = self.core.busy_until(attempt.address, attempt.sent_at, self.deadline)
                if busy_until > now.mono:
                    attempt.silent_at = busy_until
                    continue
                attempt.silent_at = NEVER
                waited_ms = (now.mono - attempt.sent_at) // MILLISECOND
                self.tried[attempt.address] = f"no answer within {waited_ms} ms"
                if not attempt.patient or not attempt.sendings:
                    self.core.silent(attempt.address, attempt.sent_at, now)
                if not over:
                    self._tell_silent(attempt, now)
        if over and not self.done:
            self._expire(now)
            return self._taken()
        plan = self._learn or self._root
        if plan.wake_at <= now.mono and not plan.done:
            plan.tick(now)
            self._after_learning(now)
        if not self.done:  # A long call must see how the ring has changed.
            self._effects += self.core.do_chores(now, self._codec)
        return self._taken()

    def wake_at(self) -> int:
        """Return when `tick` has something to do; NEVER once the call is done."""
        if self.done:
            return NEVER
        plan = self._learn or self._root
        due = min((one.silent_at for one in self._open.values()), default=NEVER)
        return min(due, plan.wake_at, self.deadline)

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

    # -------------------------------------------------------------- for plans

    @property
    def view(self) -> View:
        """The topology; plans begin only once there is one."""
        assert self.core.view is not None
        return self.core.view

    def ask(
        self,
        plan: Plan,
        address: str,
        message: Message,
        now: Now,
        *,
        direct: bool = False,
        patient: bool = False,
        knocks: bool = False,
    ) -> Attempt:
        """Send `message` to `address` for `plan` under a new request id.

        `knocks`: a node that has not been heard of late is asked for the topology first. If that
        finds no answer in time, the attempt ends as undeliverable.
        """
        core = self.core
        request = core.next_request()
        attempt = Attempt(plan, address, request, [], now.mono, NEVER, direct, 0, patient)
        self._open[request] = attempt
        if knocks and core.is_quiet(address, now.mono):
            self._knock(attempt, message, now)
        else:
            self._send(attempt, message, now)
        return attempt

    def was_sent(self, request: int) -> bool:
        """Return whether the open attempt `request` has been sent, so that it may have arrived."""
        return self._open[request].sendings > 0

    def outstanding(self) -> dict[str, int]:
        """Return who still owes an answer, and since when; NEVER if it may take its time."""
        owed: dict[str, int] = {}
        for one in self._open.values():
            since = NEVER if one.patient else one.sent_at
            owed[one.address] = min(since, owed.get(one.address, NEVER))
        return owed

    def adopt(
        self, plan: Plan, address: str, request: int, sent_at: int, boot: Boot = 0
    ) -> Attempt:
        """Take over what was already sent, a write to the life `boot` of the node at `address`."""
        silent_at = sent_at + self.core.attempt_ns
        attempt = Attempt(plan, address, request, [], sent_at, silent_at, direct=False, boot=boot)
        self._open[request] = attempt
        return attempt

    def repeat(self, attempt: Attempt, message: Message, now: Now) -> None:
        """Send `message` again under the attempt's own request id."""
        attempt.frames = self._encode(message, attempt.request)
        attempt.sendings += 1
        attempt.sent_at = now.mono
        attempt.silent_at = now.mono + self._patience_ns(attempt.frames)
        self._effects.append(Send(attempt.address, attempt.frames, request=attempt.request))

    def bear_with(self, address: str, now: Now) -> None:
        """Count the silence of `address` anew: it has just answered something else."""
        for attempt in self._open.values():
            if attempt.address == address and attempt.silent_at < NEVER:
                attempt.silent_at = now.mono + self.core.attempt_ns

    def drop(self, attempt: Attempt) -> None:
        """Stop waiting for `attempt`; its answer will be a late one."""
        self._open.pop(attempt.request, None)

    def reopen(self, attempt: Attempt) -> None:
        """Go on waiting for an answer to `attempt`: the one that came was not the last word."""
        attempt.silent_at = NEVER
        self._open[attempt.request] = attempt

    def waiting(self, plan: object) -> int:
        """Return how many attempts of `plan` are not answered yet, silent ones included."""
        return sum(attempt.plan is plan for attempt in self._open.values())

    def fresh(self, plan: object) -> bool:
        """Return whether an attempt of `plan` is neither answered nor silent yet."""
        return any(one.plan is plan and one.silent_at < NEVER for one in self._open.values())

    def notify(self, event: str, **fields: Any) -> None:
        """Tell that `event` happened."""
        self._effects.append(Notify(event, fields))

    # -------------------------------------------------------------- inside

    def _send(self, attempt: Attempt, message: Message, now: Now) -> None:
        """Send `message` for the first time."""
        view = self.core.view
        attempt.frames = self._encode(message, attempt.request)
        attempt.boot = view.boot_of(attempt.address) if view is not None else 0
        attempt.sendings, attempt.sent_at = 1, now.mono
        attempt.silent_at = now.mono + self._patience_ns(attempt.frames)
        self._effects.append(Send(attempt.address, attempt.frames, request=attempt.request))

    def _knock(self, attempt: Attempt, message: Message, now: Now) -> None:
        """Ask for the topology; `message` follows when there is an answer."""
        request = self.core.next_request()
        self._knocks[request] = attempt, message
        attempt.frames = self._encode(TopologyGet(), request)
        attempt.sendings, attempt.silent_at = 0, now.mono + self.core.attempt_ns
        self._effects.append(Send(attempt.address, attempt.frames, request=request))

    def _opened(self, header: Header, message: Message, now: Now) -> None:
        """Send what a knock was for, whatever its answer says."""
        attempt, waiting = self._knocks.pop(header.request)
        self.core.learn_clock(header.at, attempt.sent_at, now.mono)
        if isinstance(message, Topology) and message.ready:
            self.core.adopt(message, header, now)
        if self._open.get(attempt.request) is attempt and not self.done:
            self._send(attempt, waiting, now)

    def _tell_silent(self, attempt: Attempt, now: Now) -> None:
        """Tell a plan that a node is silent; a knock without an answer means that nothing left."""
        if attempt.sendings:
            self._tell(attempt, "silent", now)
        else:
            del self._open[attempt.request]
            self._tell(attempt, "undeliverable", now)

    def _patience_ns(self, frames: list[bytes]) -> int:
        """Return how long the answer to `frames` may take: large ones are on their way for long.

        To repeat a value of megabytes while it is would keep a slow link busy with copies.
        """
        large = max(0, sum(map(len, frames)) - BATCH_BYTES)
        return self.core.attempt_ns + large * SECOND // SLOWEST_BYTES

    def _encode(self, message: Message, request: int) -> list[bytes]:
        view = self.core.view
        return self._codec.encode(
            message,
            epoch=view.epoch if view is not None else 0,
            request=request,
            at=self.core.time_ms(self.deadline),
        )

    def _dispatch(self, address: str, header: Header, message: Message, now: Now) -> None:
        if header.request in self._knocks and self._knocks[header.request][0].address == address:
            self._opened(header, message, now)
            return
        attempt = self._open.get(header.request)
        if attempt is None or attempt.address != address or self.done:
            if isinstance(message, ErrorReply) and header.request == 0:
                self._refuse(address, header, message, now)
            elif not self.core.absorb(address, header, message, now):
                self.notify("late_reply", address=address, request=header.request)
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
            del self._open[header.request]
        attempt.plan.answered(attempt, header, message, now)
        self._settle(attempt, now)

    def _note_refusal(self, address: str, refusal: ErrorReply) -> None:
        """Remember why a node refused, and go on from the stamp of one that found ours ahead."""
        self.tried[address] = refusal.text or refusal.code.name.lower().replace("_", " ")
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
        for attempt in [one for one in self._open.values() if one.address == address]:
            if self._open.pop(attempt.request, None) is not None and not self.done:
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
        for attempt in [one for one in self._open.values() if one.plan is learn]:
            self.drop(attempt)
        if learn.error is not None:
            self._root.error = learn.error
            self._root.done = True
        else:
            self._root.begin(now)

    def _expire(self, now: Now) -> None:
        if not self.heard:
            self.core.lost = True
        for attempt in self._open.values():
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

    def _taken(self) -> list[Effect]:
        effects, self._effects = self._effects, []
        return effects


def command_of(operation: Operation) -> str:
    """Return the command that an operation is counted as, one of `timings.COMMANDS`."""
    if isinstance(operation, Write):
        return _OPS[operation.op]
    if isinstance(operation, Get):
        return "get"
    if isinstance(operation, GetMany):
        return "get_many"
    return "write_many" if isinstance(operation, WriteMany) else "other"
