"""Many calls at a time over one connection to each node: what an event loop drives.

    calls of a turn --flush--> room? --> topology known? --> sent, together where that is possible
                                 |             |
                              waiting       unlearned

*Together.* The gets of a turn are grouped by their primaries; each node gets one `GetMany`, or a
plain `Get` for a lone key. That is the hot path: no call of the core, no message object. Whatever
is not plain (a silent node, an answer in parts, an unsure miss, a refusal) is handed to a call
of the core that goes on where the hot path stands. The puts of a turn that agree in ttl and w
travel as one `WriteMany`, of which each caller gets its own key's outcome. A caller is told as
soon as its key is settled, whatever keeps the others.

*Answers* find their call by the number of the request. What no call waits for is late: dropped
and counted. A refusal without a number is one of everything that its sender was asked.

*Room.* At most `in_flight_max` calls are under way; the others wait, in order, until their
deadline, when they end as `Overloaded`: nothing of them was sent.

*Cancelled* calls that were not sent are not sent. Those under way end with their next step; who
still owes an answer to them is judged silent by the core all the same.
"""

from __future__ import annotations

from collections import defaultdict, deque
from typing import Any

from dcc.client.calls import Call, Operation, command_of
from dcc.client.core import ClientCore
from dcc.client.fastpath import PLAIN_KEYS_MAX, FastPath
from dcc.client.flights import (
    Flight,
    Gets,
    Question,
    Turn,
    Waiter,
    grouped,
    refuse,
    settle,
    together,
    value_of,
    version_of,
)
from dcc.deadlines import Deadlines
from dcc.effects import Effect, Notify, Send
from dcc.errors import (
    ClientClosed,
    DccError,
    ForeignCluster,
    MalformedMessage,
    OperationTimeout,
    Overloaded,
    UnsupportedVersion,
)
from dcc.ring.hashing import slot_of
from dcc.types import Now
from dcc.units import MILLISECOND, NEVER
from dcc.wire.messages import ErrorReply, Get, GetMany, Op, TopologyGet, Write, WriteMany

IN_FLIGHT_MAX = 10_000
"A node answers so many gets in well under a second; more would only grow the queues."


class Dispatcher:
    """The calls of one client on one event loop. See the module's text for its rules."""

    def __init__(self, core: ClientCore, in_flight_max: int = IN_FLIGHT_MAX) -> None:
        self.core = core
        core.shared = True
        self.in_flight: int = 0
        "Calls under way."
        self._in_flight_max = in_flight_max
        self._too_many = f"{in_flight_max} calls at a time; none ended in time for another"
        self._fast = FastPath(core.codec, sender=core.client_id, boot=core.boot)
        self._turn: Turn | None = None
        self._waiting: deque[Turn] = deque()
        self._unlearned: deque[Turn] = deque()
        "Those that wait for the topology, which is being asked for."
        self._routes: dict[int, Question | Flight] = {}
        "Request number -> what its answer is for."
        self._flights: dict[int, Flight] = {}
        self._learner: Flight | None = None
        self._due = Deadlines()
        "When questions, by their request numbers, and flights, by their own, have something to do."
        self._debts: dict[str, int] = {}
        "Address -> since when it owes an answer to a call that has ended."
        self._effects: list[Effect] = []

    # -------------------------------------------------------------- calls

    def turn(self) -> Turn | None:
        """Return the turn that collects calls, if there is one."""
        return self._turn

    def begin_turn(self, mono: int) -> Turn:
        """Begin to collect the calls of a turn, which is to be flushed at its end."""
        assert self._turn is None, "a turn ends by being flushed"
        self._turn = Turn(mono + self.core.timeout_ns)
        return self._turn

    def flush(self, now: Now) -> list[Effect]:
        """Send what was collected."""
        turn, self._turn = self._turn, None
        if turn is not None:
            if turn.deadline <= now.mono:
                refuse(turn, OperationTimeout("the event loop was busy until the deadline"))
            else:
                self._waiting.append(turn)
                self._admit(now)
        return self._taken()

    # -------------------------------------------------------------- what happens

    def receive(self, address: str, frames: list[bytes], now: Now) -> list[Effect]:
        """Take frames that came from `address`; any bytes are safe."""
        if len(frames) != 1 or not self._take_plain(address, frames[0], now):
            self._take(address, frames, now)
        if self._waiting:
            self._admit(now)
        return self._taken()

    def undeliverable(self, send: Send, now: Now, reason: str = "no connection") -> list[Effect]:
        """Learn that a `Send` surely never left this process, and why."""
        address = send.to
        assert isinstance(address, str)
        what = self._routes.get(send.request)
        if isinstance(what, Flight):
            self._carry(what, what.call.undeliverable(address, now, send.frames, reason), now)
        elif not self.core.chore_undeliverable(send.frames, now):
            self.core.failed(address, now)
            if what is not None:
                gets = (what.keys, what.waiters)
                self._close(what)
                self._read(gets, what.deadline, now)
        if self._waiting:
            self._admit(now)
        return self._taken()

    def tick(self, now: Now) -> list[Effect]:
        """Do what is due."""
        for number in self._due.pop_due(now.mono):
            what = self._flights.get(number) or self._routes.get(number)
            if what is not None:
                self._overdue(what, now)
        for address, since in list(self._debts.items()):
            if self.core.overdue(address, since, now):
                del self._debts[address]
        if self._waiting:
            self._admit(now)
        return self._taken()

    def wake_at(self) -> int:
        """Return when `tick` has something to do."""
        due = self._due.next_at()
        if self._waiting:
            due = min(due, self._waiting[0].deadline)
        if self._debts:
            due = min(due, min(self._debts.values()) + self.core.attempt_ns)
        return due

    def close(self) -> None:
        """End all calls with `ClientClosed`, which is definite for those that were not sent."""
        closed = ClientClosed("the client was closed during the call")
        for turn in [*self._unlearned, *self._waiting, *([self._turn] if self._turn else [])]:
            refuse(turn, closed)
        maybe = closed.again()
        maybe.definite = False
        waiters = [waiter for flight in self._flights.values() for waiter in flight.waiters()]
        for what in self._routes.values():
            if isinstance(what, Question):
                waiters += what.waiters
        for waiter in waiters:
            settle(waiter, maybe.again())
        self._turn = None
        for table in (self._unlearned, self._waiting, self._routes, self._flights, self._debts):
            table.clear()
        self._due = Deadlines()
        self.in_flight = 0

    def check(self) -> None:
        """Assert the invariants: what is under way is counted, and is due some time."""
        questions = [one for one in self._routes.values() if isinstance(one, Question)]
        weight = sum(len(one.keys) for one in questions) + sum(map(len, self._unlearned))
        weight += sum(flight.weight for flight in self._flights.values())
        assert weight == self.in_flight <= self._in_flight_max
        assert len(self._due) == len(questions) + len(self._flights)
        assert not self._unlearned or self._learner is not None
        for flight in self._flights.values():
            assert all(self._routes[request] is flight for request in flight.requests)
        numbers = sum(len(flight.requests) for flight in self._flights.values())
        assert len(self._routes) == len(questions) + numbers

    # -------------------------------------------------------------- from a turn to messages

    def _admit(self, now: Now) -> None:
        """Send the calls that wait, in order, as far as there is room."""
        while self._waiting:
            turn = self._waiting[0]
            turn.drop_given_up()
            if turn.deadline <= now.mono or not len(turn):
                refuse(self._waiting.popleft(), Overloaded(self._too_many))
                continue
            room = self._in_flight_max - self.in_flight
            if room <= 0:
                return
            if len(turn) > room:
                turn = turn.split(room)
            else:
                self._waiting.popleft()
            self.in_flight += len(turn)
            if self.core.view is None:
                self._unlearned.append(turn)
                if len(self._unlearned) == 1:
                    self._learn(now)
            else:
                self._send(turn, now)

    def _learn(self, now: Now) -> None:
        """Ask for the topology on behalf of all calls that wait for it."""
        call = self._begin(TopologyGet(), self._unlearned[0].deadline, now)
        self._learner = Flight(call, self.core.next_request(), command="other")
        self._start(self._learner, now)

    def _learned(self, call: Call, now: Now) -> None:
        """Send what waited for the topology; without one the first turn fails, the next asks."""
        self._learner = None
        if self.core.view is not None:
            while self._unlearned:
                self._send_late(self._unlearned.popleft(), now)
            return
        turn = self._unlearned.popleft()
        self.in_flight -= len(turn)
        try:
            call.outcome()
        except DccError as error:
            refuse(turn, error)
        if self._unlearned:
            self._learn(now)

    def _send_late(self, turn: Turn, now: Now) -> None:
        """Send what has waited for the topology, unless it is too late or nobody cares."""
        count = len(turn)
        if turn.deadline <= now.mono:
            refuse(turn.split(count), OperationTimeout("no node answered in time"))
        turn.drop_given_up()
        self.in_flight -= count - len(turn)
        self._send(turn, now)

    def _send(self, turn: Turn, now: Now) -> None:
        if turn.keys:
            self._send_gets((turn.keys, turn.readers), turn.deadline, now)
        if turn.writes:
            self._send_puts(turn.writes, turn.deadline, now)
        for operation, waiter in turn.operations:
            self._fly(operation, turn.deadline, now, waiter=waiter)
        if now.mono >= self.core.chores.due_at:
            self._effects += self.core.do_chores(now, self.core.codec)

    def _send_gets(self, gets: Gets, deadline: int, now: Now) -> None:
        view, sick = self.core.view, self.core.health.sick
        assert view is not None
        primaries, hot = view.primaries, self.core.hot
        groups: defaultdict[str | None, Gets] = defaultdict(lambda: ([], []))
        holders: set[str] = set()
        for key, waiter in zip(*gets, strict=True):
            address = hot.owner(key, view, sick, now.mono) if key in hot.keys else None
            if address is None:
                slot = slot_of(key)
                address = primaries[slot] or view.primary(slot)
            else:
                holders.add(address)
                hot.spread += 1
            keys, waiters = groups[address]
            keys.append(key)
            waiters.append(waiter)
        for address, (keys, waiters) in groups.items():
            for start in range(0, len(keys), PLAIN_KEYS_MAX):
                end = start + PLAIN_KEYS_MAX
                part = (keys[start:end], waiters[start:end])
                if address is None or address in sick:
                    self._read(part, deadline, now)
                else:
                    self._ask(address, part, deadline, now, direct=address in holders)

    def _ask(self, address: str, gets: Gets, deadline: int, now: Now, *, direct: bool) -> None:
        """Send plain gets to one node."""
        core = self.core
        assert core.view is not None
        request, epoch, at = core.next_request(), core.view.epoch, core.time_ms(deadline)
        keys = gets[0]
        if len(keys) == 1:
            frame = self._fast.question(keys[0], epoch, request, at, direct)
            known = core.outlived.known(keys[0])
            due = now.mono + core.hedging.wait_ms * MILLISECOND
        else:
            frame = self._fast.question_many(keys, epoch, request, at, direct)
            known = 0
            due = now.mono + core.attempt_ns
        self._routes[request] = Question(address, request, gets, now, deadline, known, direct)
        self._due.set(request, min(due, deadline))
        self._effects.append(Send(address, [frame], request=request))

    def _read(self, gets: Gets, deadline: int, now: Now) -> None:
        """Read by a call of the core; those who wait count as under way already."""
        keys, waiters = gets
        if len(keys) == 1:
            get = Get(key=keys[0])
            self._fly(get, deadline, now, waiter=waiters[0], outcome_of=value_of)
        else:
            many = GetMany(keys=tuple(keys))
            self._fly(many, deadline, now, command="get", by_key=grouped(keys, waiters))

    def _send_puts(self, writes: list[tuple[Write, Waiter]], deadline: int, now: Now) -> None:
        for group in together(writes):
            if len(group) == 1:
                write, waiter = group[0]
                self._fly(write, deadline, now, waiter=waiter, outcome_of=version_of)
                continue
            first = group[0][0]
            many = WriteMany(
                op=Op.PUT,
                items=tuple([(write.key, write.value) for write, _ in group]),
                ttl_ms=first.ttl_ms,
                w=first.w,
                versions=True,
            )
            by_key = {write.key: [waiter] for write, waiter in group}
            self._fly(many, deadline, now, command="put", by_key=by_key)

    def _fly(self, operation: Operation, deadline: int, now: Now, **who: Any) -> None:
        """Start a call of the core for those who wait for it, as `Flight` takes them."""
        call = self._begin(operation, deadline, now)
        who.setdefault("command", command_of(operation))
        self._start(Flight(call, self.core.next_request(), **who), now)

    def _begin(self, operation: Operation, deadline: int, now: Now) -> Call:
        return self.core.begin(operation, now, timeout_ns=deadline - now.mono)

    # -------------------------------------------------------------- answers

    def _take_plain(self, address: str, frame: bytes, now: Now) -> bool:
        """Settle what a plain answer to a question settles; false: the ordinary path looks."""
        items = self._fast.unpack(frame)
        if items is None or len(items) < 6 or type(items[5]) is not int:
            return False
        question = self._routes.get(items[5])
        if type(question) is not Question or question.address != address:
            return False
        core, keys, waiters = self.core, question.keys, question.waiters
        assert core.view is not None
        if len(keys) == 1:
            answer = self._fast.one_in(items, question.request, core.view.epoch)
            if answer is None or (answer.value is not None and answer.stamp < question.known):
                return False
            if answer.stamp > question.known:
                core.outlived.note(keys[0], answer.stamp)
            core.hedging.answered(now.mono - question.sent.mono)
            core.saw(answer.stamp)
            if answer.hot:
                core.hot.note(keys, now.mono)
            settle(waiters[0], answer.value)
        else:
            hits = self._fast.many_in(items, keys, question.request, core.view.epoch)
            if hits is None or not core.outlived.admits(hits.keys, hits.stamps):
                return False
            core.saw(max(hits.stamps, default=0))
            if hits.hot:
                core.hot.note(hits.hot, now.mono)
            found = dict(zip(hits.keys, hits.values, strict=True))
            for key, waiter in zip(keys, waiters, strict=True):
                if not waiter.done():
                    waiter.set_result(found.get(key))
        core.lost = False
        core.heard_at[address] = now.mono
        core.learn_clock(self._fast.at, question.sent.mono, now.mono)
        core.timings.observe("get", now.mono - question.sent.mono, len(keys))
        self.in_flight -= len(keys)
        self._close(question)
        return True

    def _take(self, address: str, frames: list[bytes], now: Now) -> None:
        try:
            header, message = self.core.codec.decode(frames)
        except (ForeignCluster, UnsupportedVersion):
            self._take_for_all(address, frames, now)
            return
        except MalformedMessage:
            self._effects.append(
                Notify("message_dropped", {"address": address, "reason": "malformed"})
            )
            return
        if not header.request and isinstance(message, ErrorReply):
            self._take_for_all(address, frames, now)
            return
        what = self._routes.get(header.request)
        if isinstance(what, Question):
            what = self._go_on(what, now) if what.address == address else None
        if what is None:
            self._effects += self.core.take(address, header, message, now)
        else:
            self._carry(what, what.call.take(address, header, message, now), now)

    def _take_for_all(self, address: str, frames: list[bytes], now: Now) -> None:
        """Let every call see what concerns all that its sender was asked."""
        flights = dict.fromkeys(
            self._go_on(what, now) if isinstance(what, Question) else what
            for what in [*self._flights.values(), *self._routes.values()]
            if isinstance(what, Flight) or what.address == address
        )
        if not flights:
            self._effects += self.core.receive(address, frames, now)
        for flight in flights:
            if not flight.call.done:
                self._carry(flight, flight.call.receive(address, frames, now), now)

    def _go_on(self, question: Question, now: Now) -> Flight:
        """Hand a question that was sent to a call of the core, and who waits to its flight."""
        keys, waiters = question.keys, question.waiters
        operation = Get(key=keys[0]) if len(keys) == 1 else GetMany(keys=tuple(keys))
        under_way = [(question.address, question.request, keys)]
        core = self.core
        call = core.resume(
            operation, under_way, question.sent, core.codec, question.deadline,
            question.known if len(keys) == 1 else None, direct=question.direct,
        )  # fmt: skip
        number = core.next_request()
        if len(keys) == 1:
            flight = Flight(call, number, waiter=waiters[0], outcome_of=value_of)
        else:
            flight = Flight(call, number, by_key=grouped(keys, waiters))
        self._close(question)
        self._route(question.request, flight)
        self._start(flight, now)
        return flight

    # -------------------------------------------------------------- calls of the core

    def _start(self, flight: Flight, now: Now) -> None:
        self._flights[flight.number] = flight
        self._carry(flight, flight.call.start(now), now)

    def _route(self, request: int, flight: Flight) -> None:
        self._routes[request] = flight
        flight.requests[request] = None

    def _carry(self, flight: Flight, effects: list[Effect], now: Now) -> None:
        """Take what a call wants done, tell what it has settled, and see when it is due."""
        for effect in effects:
            if isinstance(effect, Send) and effect.request:
                self._route(effect.request, flight)
        self._effects += effects
        call = flight.call
        if flight.by_key:
            self._tell_settled(flight)
        if call.done:
            self._end(flight, now)
            return
        self._due.set(flight.number, call.wake_at())

    def _tell_settled(self, flight: Flight) -> None:
        settled = flight.call.outcomes(flight.by_key)
        for key, outcome in settled.items():
            for waiter in flight.by_key.pop(key):
                told = outcome.again() if isinstance(outcome, DccError) else outcome
                settle(waiter, told)

    def _end(self, flight: Flight, now: Now) -> None:
        self._land(flight)
        took = now.mono - flight.call.attempts.began
        self.core.timings.observe(flight.command, took, flight.weight)
        if flight.by_key:
            self._fail_rest(flight)
        if flight.waiter is not None:
            settle(flight.waiter, flight.outcome_of(flight.call))
        if flight is self._learner:
            self._learned(flight.call, now)

    def _land(self, flight: Flight) -> None:
        """Forget a call that has ended; remember who still owes it an answer."""
        for request in flight.requests:
            del self._routes[request]
        del self._flights[flight.number]
        self._due.cancel(flight.number)
        self.in_flight -= flight.weight
        for address, since in flight.call.attempts.outstanding().items():
            if since < NEVER:
                self._owed(address, since)

    def _fail_rest(self, flight: Flight) -> None:
        """Tell those whose keys were never asked for why: the topology was not to be had."""
        by_key, flight.by_key = flight.by_key, {}
        try:
            flight.call.outcome()
        except DccError as error:
            for waiters in by_key.values():
                for waiter in waiters:
                    settle(waiter, error.again())

    def _overdue(self, what: Question | Flight, now: Now) -> None:
        if isinstance(what, Flight):
            if what.is_wanted or what is self._learner:
                self._carry(what, what.call.tick(now), now)
            else:
                self._land(what)
        elif what.is_wanted:
            sent, many = what.sent.mono, len(what.keys) > 1
            busy_until = self.core.busy_until(what.address, sent, what.deadline) if many else 0
            if busy_until > now.mono:
                self._due.set(what.request, busy_until)
            else:
                self._go_on(what, now)
        else:
            self.in_flight -= len(what.keys)
            self._owed(what.address, what.sent.mono)
            self._close(what)

    def _owed(self, address: str, since: int) -> None:
        self._debts[address] = min(since, self._debts.get(address, NEVER))

    def _close(self, question: Question) -> None:
        del self._routes[question.request]
        self._due.cancel(question.request)

    def _taken(self) -> list[Effect]:
        effects, self._effects = self._effects, []
        return effects
