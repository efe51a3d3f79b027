"""What one call has on its way: messages that wait for an answer, by request id.

This is what a plan sees of its call. It asks (`ask`), repeats, and looks at who has not answered
yet. When a node counts as silent is decided here for all operations, and so is the *knock*: a node
that has not been heard of late is asked for the topology before it is given what must not wait with
it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from dcc.client.routing import View
from dcc.client.shared import Shared
from dcc.effects import Effect, Notify, Send
from dcc.errors import DccError
from dcc.limits import BATCH_BYTES
from dcc.types import Boot, Now
from dcc.units import MIB, NEVER, SECOND
from dcc.wire.codec import Codec, Header
from dcc.wire.messages import Message, Topology, TopologyGet

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
    """What one operation does next. See `calls` for the events."""

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


class Attempts:
    """The messages of one call; the call itself carries their effects out."""

    def __init__(self, core: Shared, began: int, deadline: int, codec: Codec) -> None:
        self.core: Shared = core
        self.began: int = began
        self.deadline: int = deadline
        self.tried: dict[str, str] = {}
        "Address -> why it was asked in vain, the last time."
        self._codec = codec
        self._open: dict[int, Attempt] = {}
        self._knocks: dict[int, tuple[Attempt, Message]] = {}
        "Request id of a knock -> the attempt that waits for its answer, and what it will send."
        self._effects: list[Effect] = []

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

    def adopt(
        self,
        plan: Plan,
        address: str,
        request: int,
        sent_at: int,
        boot: Boot = 0,
        *,
        direct: bool = False,
    ) -> Attempt:
        """Take over what was already sent, a write to the life `boot` of the node at `address`."""
        silent_at = sent_at + self.core.attempt_ns
        attempt = Attempt(plan, address, request, [], sent_at, silent_at, direct, boot)
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

    def notify(self, event: str, **fields: Any) -> None:
        """Tell that `event` happened."""
        self._effects.append(Notify(event, fields))

    # -------------------------------------------------------------- who has not answered

    def was_sent(self, request: int) -> bool:
        """Return whether the open attempt `request` has been sent, so that it may have arrived."""
        return self._open[request].sendings > 0

    def waiting(self, plan: object) -> int:
        """Return how many attempts of `plan` are not answered yet, silent ones included."""
        return sum(attempt.plan is plan for attempt in self._open.values())

    def fresh(self, plan: object) -> bool:
        """Return whether an attempt of `plan` is neither answered nor silent yet."""
        return any(one.plan is plan and one.silent_at < NEVER for one in self._open.values())

    def outstanding(self) -> dict[str, int]:
        """Return who still owes an answer, and since when; NEVER if it may take its time."""
        owed: dict[str, int] = {}
        for one in self._open.values():
            since = NEVER if one.patient else one.sent_at
            owed[one.address] = min(since, owed.get(one.address, NEVER))
        return owed

    def open(self) -> list[Attempt]:
        """Return what is not answered, silent ones included."""
        return list(self._open.values())

    def is_open(self, attempt: Attempt) -> bool:
        """Return whether an answer to `attempt` is still waited for."""
        return attempt.request in self._open

    def wake_at(self) -> int:
        """Return when the next node counts as silent."""
        return min((one.silent_at for one in self._open.values()), default=NEVER)

    # -------------------------------------------------------------- for the call

    def asked(self, address: str, header: Header) -> Attempt | None:
        """Return the attempt that a message from `address` answers, None if it answers none."""
        attempt = self._open.get(header.request)
        return attempt if attempt is not None and attempt.address == address else None

    def answers_knock(
        self, address: str, header: Header, message: Message, now: Now, *, done: bool
    ) -> bool:
        """Take the answer to a knock, and send what that was for; False if it is none.

        Whatever the answer says, the node is there. Nothing is sent for a call that is `done`.
        """
        attempt, waiting = self._knocks.get(header.request, (None, None))
        if attempt is None or waiting is None or attempt.address != address:
            return False
        del self._knocks[header.request]
        self.core.learn_clock(header.at, attempt.sent_at, now.mono)
        if isinstance(message, Topology) and message.ready:
            self.core.adopt(message, header, now)
        if self._open.get(attempt.request) is attempt and not done:
            self._send(attempt, waiting, now)
        return True

    def do_chores(self, now: Now) -> None:
        """Send a refresh or a probe beside the call if one is due."""
        self._effects += self.core.do_chores(now, self._codec)

    def taken(self) -> list[Effect]:
        """Return the effects since the last time."""
        effects, self._effects = self._effects, []
        return effects

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
