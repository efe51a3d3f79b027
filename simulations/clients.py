"""A client process of the simulated world: a shell around the production client core.

It does one call at a time, as one thread of an application does. Its sockets keep what is sent
while a connection is being made, and report what surely did not leave.

An ordinary get or write goes by the production fast path where that would: one frame to the
primary, and at the first surprise a call that goes on from there. What the fast path reads in an
answer is compared with what the codec reads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any, NamedTuple

from dcc.client.calls import Call, Operation
from dcc.client.core import ClientCore
from dcc.client.fastpath import Answer as PlainAnswer
from dcc.client.fastpath import FastPath
from dcc.client.routing import View
from dcc.effects import Effect, Notify, Send
from dcc.errors import DccError
from dcc.limits import INLINE_VALUE_BYTES_MAX
from dcc.ring.hashing import slot_of
from dcc.types import NodeKey, Now, Stamp
from dcc.units import MILLISECOND, NEVER
from dcc.wire.messages import Get, GetReply, Write, WriteReply
from simulations.answers import ANSWERING, Answer
from simulations.network import REQUEST, Connection, Frames, State
from simulations.observer import tag_of
from simulations.world import World

Done = Callable[[Any, DccError | None], None]
"Told how a call ended: the outcome, or the error."


class _Plain(NamedTuple):
    """A get or write on the fast path: one message, and nothing else under way."""

    operation: Get | Write
    address: str
    request: int
    epoch: int
    boot: int
    seen: int
    known: Stamp
    "The newest stamp that the client knew of the key."
    sent: Now
    due: int
    "Monotonic ns until which the answer is waited for alone."
    direct: bool
    "The node is asked as a holder, because the key is hot."


class ClientProcess:
    """One client, one call at a time; may die and be replaced."""

    def __init__(self, world: World, name: str, nodes: tuple[str, ...], timeout_ns: int) -> None:
        self.world, self.name = world, name
        self.clock = world.client_clock(name)
        self.life = 0
        self.alive = True
        self.paused = False
        self.key: NodeKey = 0
        self.on_death: Callable[[], None] | None = None
        self.answers: list[Answer] = []
        "What the reads of the present call, or the last one, were answered by whom."
        self._nodes, self._timeout_ns = nodes, timeout_ns
        self._call: Call | None = None
        self._plain: _Plain | None = None
        self._done: Done | None = None
        self._wake_ns = NEVER
        self._first_request = 0
        "Of the present call: replies to lower numbers are late."
        self._to: dict[str, Connection] = {}
        self._begin_life()

    def _begin_life(self) -> None:
        self.life += 1
        rng = Random(f"{self.world.seed}/client/{self.name}/{self.life}")
        self._plain = None
        boot = (self.clock.read(self.world.now_ns).wall // MILLISECOND) << 16
        self.key = int(rng.random() * (1 << 53)) | 1
        self.core = ClientCore(
            self._nodes,
            cluster="dcc",
            client_id=self.key,
            boot=boot | int(rng.random() * 65536),
            rng=rng,
            timeout_ns=self._timeout_ns,
        )
        self._fast = FastPath(self.core.codec, sender=self.key, boot=self.core.boot)

    def restart(self) -> None:
        """Die in the middle of whatever is under way; a new client takes over the name."""
        self.world.network.died(self, silent=False)
        self._call = self._done = None
        self._wake_ns = NEVER
        self._to.clear()
        self._begin_life()
        if self.on_death is not None:
            self.on_death()

    # -------------------------------------------------------------- calls

    @property
    def busy(self) -> bool:
        """A call is under way."""
        return self._call is not None or self._plain is not None

    def call(self, operation: Operation, done: Done) -> None:
        """Begin a call; `done` is told when it has ended."""
        assert not self.busy, "one call at a time"
        now = self.clock.read(self.world.now_ns)
        self.answers, self._first_request = [], self.core.next_request()
        self._done = done
        if isinstance(operation, Get | Write) and self._ask_plainly(operation, now):
            return
        if isinstance(operation, Get) and _is_plain(operation):
            operation = replace(operation, direct=operation.key in self.core.hot.keys)
        self._call = self.core.begin(operation, now)
        self._carry_out(self._call.start(now))
        self._after_input()

    def arrived(self, connection: Connection, frames: Frames) -> bool:
        """Take frames from the network, also when nobody waits for them any more."""
        now = self.clock.read(self.world.now_ns)
        if self.world.observer is not None and tag_of(frames[0]) in ANSWERING:
            number, told = self.world.observer.answers.taken(self, frames)
            if number >= self._first_request:
                self.answers += told
        if self._plain is not None and connection.address == self._plain.address:
            self._plainly_answered(self._plain, frames, now)
        elif self._call is None:
            self._carry_out(self.core.receive(connection.address, frames, now))
        else:
            self._carry_out(self._call.receive(connection.address, frames, now))
            self._after_input()
        return True

    # -------------------------------------------------------------- the fast path

    def _ask_plainly(self, operation: Get | Write, now: Now) -> bool:
        """Return whether the fast path takes an operation; its message is sent then."""
        core, view = self.core, self.core.view
        if view is None or now.mono >= core.chores.due_at or not _is_plain(operation):
            return False
        address, direct = self._way_to(operation, view, now)
        connection = self._to.get(address) if address else None
        if address is None or connection is None or connection.state is not State.OPEN:
            return False
        if address in core.health.sick:
            return False
        if isinstance(operation, Write) and core.is_quiet(address, now.mono):
            return False
        request, epoch, seen = core.next_request(), view.epoch, core.seen
        known = core.outlived.known(operation.key)
        at = core.time_ms(now.mono + core.timeout_ns)
        if isinstance(operation, Get):
            wait_ms = core.hedging.wait_ms
            frame = self._fast.question(operation.key, epoch, request, at, direct)
            self.world.counts["fast reads"] += 1
            self.world.counts["spread reads"] += direct
        else:
            wait_ms = core.attempt_ms
            frame = self._fast.change(operation, seen, epoch, request, at)
            self.world.counts["fast writes"] += 1
        due = now.mono + wait_ms * MILLISECOND
        boot = view.boot_of(address)
        self._plain = _Plain(
            operation, address, request, epoch, boot, seen, known, now, due, direct
        )
        self._send(connection, [frame])
        self._wake_at(due)
        return True

    def _way_to(self, operation: Get | Write, view: View, now: Now) -> tuple[str | None, bool]:
        """Return whom to ask, and whether as a holder of a hot key."""
        core = self.core
        if isinstance(operation, Get) and operation.key in core.hot.keys:
            owner = core.hot.owner(operation.key, view, core.health.sick, now.mono)
            if owner is not None:
                return owner, True
        return view.primary(slot_of(operation.key)), False

    def _plainly_answered(self, plain: _Plain, frames: Frames, now: Now) -> None:
        reply = self._read_plainly(plain, frames, now) if len(frames) == 1 else None
        if reply is None:
            self._go_on(plain, [frames], now)
            return
        self.core.lost = False
        self.core.heard_at[plain.address] = plain.sent.mono
        self.core.learn_clock(self._fast.at, plain.sent.mono, now.mono)
        self.core.saw(reply.version.stamp)
        self.core.outlived.note(plain.operation.key, reply.version.stamp)
        self._plain = None
        done, self._done = self._done, None
        assert done is not None
        done(reply, None)

    def _read_plainly(
        self, plain: _Plain, frames: Frames, now: Now
    ) -> GetReply | WriteReply | None:
        """Return what the codec reads, which the fast path has to read as well, or None."""
        answer: Any
        if isinstance(plain.operation, Get):
            answer = self._fast.answer(frames[0], plain.request, plain.epoch)
        else:
            answer = self._fast.written(frames[0], plain.request, plain.epoch)
        if answer is None or _is_outlived(answer, plain.known):
            return None
        header, reply = self.core.codec.decode(frames)
        assert self._fast.at == header.at
        if isinstance(reply, WriteReply):
            assert answer == reply
            return reply
        assert isinstance(reply, GetReply)
        stamp = reply.version.stamp
        assert answer == (reply.value if stamp else None, stamp, reply.hot)
        if reply.hot:
            self.core.hot.note((plain.operation.key,), now.mono)
        self.core.hedging.answered(now.mono - plain.sent.mono)
        return reply

    def _go_on(self, plain: _Plain, arrived: list[Frames], now: Now) -> None:
        """Hand over to a call, which goes on where the fast path stands."""
        self._plain = None
        core, operation = self.core, plain.operation
        if isinstance(operation, Get):
            under_way = [(plain.address, plain.request, [operation.key])]
            self._call = core.resume(
                operation,
                under_way,
                plain.sent,
                core.codec,
                known=plain.known,
                direct=plain.direct,
            )
        else:
            self._call = core.resume_write(
                operation, plain.address, plain.request, plain.boot, plain.seen, plain.sent,
                core.codec,
            )  # fmt: skip
        effects = self._call.start(now)
        for frames in arrived:
            effects += self._call.receive(plain.address, frames, now)
        self._carry_out(effects)
        self._after_input()

    def stray(self, frames: Frames) -> None:
        """Drop them: a client listens to nobody but those it connected to."""

    def undeliverable(self, connection: Connection, frames: Frames) -> None:
        """Learn, one turn later, that a send did not leave."""
        what = (self.life, connection.address, frames)
        self.world.at(self.world.now_ns, self._undelivered, what)

    def _undelivered(self, what: tuple[int, str, Frames]) -> None:
        life, address, frames = what
        if life != self.life:
            return
        if self._plain is not None and self._plain.address == address:
            self._go_on(self._plain, [], self.clock.read(self.world.now_ns))
        if self._call is not None:
            now = self.clock.read(self.world.now_ns)
            self._carry_out(self._call.undeliverable(address, now, frames))
            self._after_input()

    def _after_input(self) -> None:
        call = self._call
        assert call is not None
        if call.done:
            self._finish(call)
            return
        self._wake_at(call.wake_at())

    def _wake_at(self, mono: int) -> None:
        at = max(self.clock.when(mono), self.world.now_ns)
        if at < self._wake_ns or self._wake_ns <= self.world.now_ns:
            self._wake_ns = at
            self.world.at(at, self._woken, (self.life, at))

    def _woken(self, what: tuple[int, int]) -> None:
        life, at = what
        if life != self.life or at != self._wake_ns:
            return
        self._wake_ns = NEVER
        now = self.clock.read(self.world.now_ns)
        if self._plain is not None:
            if now.mono < self._plain.due:
                self._wake_at(self._plain.due)
            else:
                self._go_on(self._plain, [], now)
        elif self._call is not None:
            if self._call.wake_at() <= now.mono:
                self._carry_out(self._call.tick(now))
            self._after_input()

    def _finish(self, call: Call) -> None:
        done, self._call, self._done = self._done, None, None
        assert done is not None
        try:
            outcome = call.outcome()
        except DccError as error:
            done(None, error)
        else:
            done(outcome, None)

    def _carry_out(self, effects: list[Effect]) -> None:
        network = self.world.network
        for effect in effects:
            if isinstance(effect, Send):
                assert isinstance(effect.to, str)
                connection = self._to.get(effect.to)
                if connection is None:
                    connection = network.connect(self, effect.to, REQUEST, effect.to)
                    self._to[effect.to] = connection
                self._send(connection, effect.frames)
            elif isinstance(effect, Notify):
                self.world.counts[effect.event] += 1

    def _send(self, connection: Connection, frames: Frames) -> None:
        if self.world.observer is not None:
            observer, now_ns = self.world.observer, self.world.now_ns
            observer.of_client(self.name, connection.target, frames, now_ns)
        self.world.network.send(connection, frames)


def _is_plain(operation: Get | Write) -> bool:
    if isinstance(operation, Get):
        return not operation.direct and operation.r == 1
    return operation.w == 1 and len(operation.value) < INLINE_VALUE_BYTES_MAX


def _is_outlived(answer: PlainAnswer | WriteReply, known: Stamp) -> bool:
    if isinstance(answer, WriteReply) or answer.value is None:
        return False
    return answer.stamp < known
