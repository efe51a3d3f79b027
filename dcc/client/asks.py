"""Questions to nodes rather than to keys: topology, statistics, inspection, audit and scan."""

from __future__ import annotations

from itertools import zip_longest
from typing import NamedTuple

from dcc.client.calls import Attempt, Call
from dcc.client.outcomes import error_of, nobody
from dcc.client.rounds import OneByOne
from dcc.errors import DccError, NodeUnavailable, ProtocolError
from dcc.ring.hashing import slot_of
from dcc.types import Member, Now
from dcc.units import NEVER
from dcc.wire.codec import Header
from dcc.wire.messages import (
    AuditGet,
    AuditReply,
    Code,
    ErrorReply,
    Inspect,
    InspectReply,
    Message,
    Scan,
    ScanReply,
    StatsGet,
    StatsReply,
    Topology,
    TopologyGet,
)
from dcc.wire.shapes import is_text

ASKED_AT_ONCE = 3
"Nodes asked for the topology side by side: two dead ones in the list cost no time."


class Learn(OneByOne):
    """Ask for the topology until a ready node tells it; a node not ready yet is second best."""

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self._addresses: list[str] = []
        self._unready: tuple[int, Header, Topology] | None = None
        self._candidates: set[str] = set()
        self._foreign: set[str] = set()

    def begin(self, now: Now) -> None:
        """Ask some nodes, those that are well first, members and configured ones in turn."""
        core = self._call.core
        astray = core.astray
        known = self._nodes()
        if astray and core.view is not None:  # Somebody may be back who was down.
            known += [one for one in core.view.by_address if one not in known]
        configured = [address for address in core.nodes if address not in known]
        core.rng.shuffle(configured)
        both = [one for pair in zip_longest(known, configured) for one in pair if one is not None]
        self._addresses = sorted(both, key=core.health.sick.__contains__)
        self._candidates = set(both)
        for _ in range(ASKED_AT_ONCE if astray else 1):
            self._next(now)

    def answered(self, attempt: Attempt, header: Header, message: Message, now: Now) -> None:
        """Take the first topology of a ready node."""
        match message:
            case Topology() if message.ready:
                self._adopt(header, message, now)
            case Topology():
                size = len(message.members)
                if self._unready is None or size > self._unready[0]:
                    self._unready = (size, header, message)
                self._next(now)
            case ErrorReply():
                self._refusal = error_of(message, attempt.address)
                if message.code is Code.WRONG_CLUSTER:
                    self._foreign.add(attempt.address)
                self._next(now)
            case _:
                self._refusal = ProtocolError(f"{attempt.address}: no topology but a {message}")
                self._next(now)

    def expired(self, now: Now) -> None:
        """End with what there is."""
        if self._unready is not None:
            self._adopt(*self._unready[1:], now)
        else:
            self._fail(self._nobody())

    def _begin_round(self, now: Now) -> None:
        self.begin(now)

    def _next(self, now: Now) -> None:
        if self.done:
            return
        if self._addresses:
            self._call.ask(self, self._addresses.pop(0), TopologyGet(), now)
        elif not self._call.fresh(self):
            if self._unready is not None:
                # Everybody was asked: go by what a node told that is not in sync yet.
                self._adopt(*self._unready[1:], now)
            elif self._call.core.lost or self._foreign >= self._candidates:
                self._fail(self._nobody())
            else:
                self.wake_at = min(self.wake_at, self._rounds.next_at(now))

    def _adopt(self, header: Header, topology: Topology, now: Now) -> None:
        if not self.done:
            self._finish(self._call.core.adopt(topology, header, now))


Told = StatsReply | InspectReply | AuditReply


class Audited(NamedTuple):
    """What one node says of some slots."""

    slots: tuple[int, ...]
    reply: AuditReply


class Gather:
    """Ask several nodes the same and return the answers of those that did, the reason of others.

    `StatsGet` goes to every member, `Inspect` to the owners of its key, `AuditGet` to the live
    owners of its slots, each for its own (the answer is an `Audited`). The result maps node names
    to an answer or to the text of the error.
    """

    def __init__(self, call: Call, question: StatsGet | Inspect | AuditGet) -> None:
        self.wake_at = NEVER
        self.done = False
        self.result: dict[str, Told | Audited | str] = {}
        self.error: DccError | None = None
        self._call, self._question = call, question
        self._names: dict[str, str] = {}
        self._slots: dict[str, tuple[int, ...]] = {}
        "Address -> what it was asked about in an audit."

    def begin(self, now: Now) -> None:
        """Ask all of them at once."""
        view = self._call.view
        questions: dict[Member, StatsGet | Inspect | AuditGet]
        match self._question:
            case StatsGet() as question:
                questions = dict.fromkeys(view.members.values(), question)
            case Inspect() as question:
                questions = dict.fromkeys(view.owners(slot_of(question.key)), question)
            case AuditGet(slots=slots):
                shares = view.shares(slots)
                questions = {member: AuditGet(slots=mine) for member, mine in shares.items()}
                self._slots = {member.request: mine for member, mine in shares.items()}
        self._names = {member.request: member.name for member in questions}
        for member, asked in questions.items():
            patient = isinstance(asked, AuditGet)  # the node looks at all the data
            self._call.ask(self, member.request, asked, now, patient=patient)
        self._settle()

    def answered(self, attempt: Attempt, header: Header, message: Message, now: Now) -> None:
        """Note the answer."""
        slots = self._slots.get(attempt.address, ())
        if isinstance(message, AuditReply) and len(message.content) == len(slots) > 0:
            self._note(attempt, Audited(slots, message))
        elif isinstance(message, StatsReply | InspectReply):
            self._note(attempt, message)
        elif isinstance(message, ErrorReply):
            self._note(attempt, str(error_of(message, attempt.address)))
        else:
            self._note(attempt, "answered something else")

    def undeliverable(self, attempt: Attempt, now: Now) -> None:
        """Note the reason."""
        self._note(attempt, "unreachable")

    def silent(self, attempt: Attempt, now: Now) -> None:
        """Wait on: a slow node's figures are the interesting ones."""

    def tick(self, now: Now) -> None:
        """Nothing is ever due."""

    def expired(self, now: Now) -> None:
        """End with what there is."""
        for name in self._names.values():
            self.result.setdefault(name, "no answer in time")
        self.done = True

    def _note(self, attempt: Attempt, what: Told | Audited | str) -> None:
        self.result[self._names[attempt.address]] = what
        self._settle()

    def _settle(self) -> None:
        self.done = self.done or len(self.result) == len(self._names)


class ListKeys:
    """List the keys of some slots: at their primaries, and at other owners of unsure slots.

    Keys are collected in a dict, so each is returned once however many nodes list it. A slot
    is settled when one node has listed it and was sure, or every live owner has listed it.
    """

    def __init__(self, call: Call, scan: Scan) -> None:
        self.wake_at = NEVER
        self.done = False
        self.result: list[bytes] = []
        self.error: DccError | None = None
        self._call, self._prefix = call, scan.prefix
        self._slots = scan.slots
        self._keys: dict[bytes, None] = {}
        self._tried: dict[int, set[str]] = {slot: set() for slot in scan.slots}
        "Slot -> addresses that were asked for it."
        self._listed: set[int] = set()
        self._asked: dict[int, Scan] = {}
        self._refusal: DccError | None = None

    def begin(self, now: Now) -> None:
        """Ask the first target of every slot."""
        self._ask(self._slots, now)
        self._settle()

    def answered(self, attempt: Attempt, header: Header, message: Message, now: Now) -> None:
        """Collect the keys; ask on where the reply was cut or unsure."""
        scan = self._asked.pop(attempt.request)
        if isinstance(message, ScanReply) and _sensible(scan, message):
            self._collect(attempt, scan, message, now)
        else:
            if isinstance(message, ErrorReply):
                self._refusal = error_of(message, attempt.address)
            self._ask(scan.slots, now)
        self._settle()

    def undeliverable(self, attempt: Attempt, now: Now) -> None:
        """Ask the next owners."""
        self._ask(self._asked.pop(attempt.request).slots, now)
        self._settle()

    def silent(self, attempt: Attempt, now: Now) -> None:
        """Ask the next owners instead; where there is none, go on waiting for this one."""
        slots = self._asked[attempt.request].slots
        elsewhere = [slot for slot in slots if self._next_for(slot) is not None]
        if len(elsewhere) == len(slots):
            self._call.drop(attempt)
            del self._asked[attempt.request]
        self._ask(elsewhere, now)
        self._settle()

    def tick(self, now: Now) -> None:
        """Nothing is ever due."""

    def expired(self, now: Now) -> None:
        """End: with an error, since a list with holes would look like a whole one."""
        if not self.done:
            self.done = True
            self.error = nobody(self._refusal, self._call.tried, sent=bool(self._asked))

    def _collect(self, attempt: Attempt, scan: Scan, reply: ScanReply, now: Now) -> None:
        self._keys.update(dict.fromkeys(filter(is_text, reply.keys)))  # Others are no keys of ours.
        done, rest = scan.slots[: reply.done], scan.slots[reply.done :]
        self._listed.update(done)
        unsure = set(reply.unsure)
        self._ask([slot for slot in done if slot in unsure], now)
        if rest:
            last = reply.keys[-1] if reply.keys else b""
            after = last if last and slot_of(last) == rest[0] else b""
            if not reply.done and not after:
                self._ask(rest, now)  # No progress here: somebody else may do better.
            else:
                self._send(attempt.address, Scan(slots=rest, prefix=self._prefix, after=after), now)

    def _ask(self, slots: list[int] | tuple[int, ...], now: Now) -> None:
        groups: dict[str, list[int]] = {}
        for slot in slots:
            address = self._next_for(slot)
            if address is not None:
                self._tried[slot].add(address)
                groups.setdefault(address, []).append(slot)
            elif slot not in self._listed:
                self._refusal = self._refusal or NodeUnavailable("no owner could list its keys")
                self.done, self.error = True, self._refusal
        for address, group in groups.items():
            self._send(address, Scan(slots=tuple(group), prefix=self._prefix), now)

    def _next_for(self, slot: int) -> str | None:
        """Return whom to ask next for a slot; nobody once every live owner has listed it."""
        tried = self._tried[slot]
        for target in self._call.core.targets(slot):
            # A node that would have to forward holds nothing of the slot.
            holds = target.owner or (target.direct and slot not in self._listed)
            if holds and target.address not in tried:
                return target.address
        return None

    def _send(self, address: str, scan: Scan, now: Now) -> None:
        self._asked[self._call.ask(self, address, scan, now).request] = scan

    def _settle(self) -> None:
        if not self.done and not self._asked:
            self.done = True
            self.result = list(self._keys)


def _sensible(scan: Scan, reply: ScanReply) -> bool:
    return reply.done <= len(scan.slots)
