"""Questions to nodes rather than to keys: topology, statistics, inspection, scan and clear."""

from __future__ import annotations

from dcc.client.calls import Attempt, Call
from dcc.client.outcomes import ASK_ANOTHER, error_of, nobody
from dcc.client.reads import Rounds
from dcc.client.routing import View
from dcc.errors import DccError, MaybeStored, NodeUnavailable, ProtocolError
from dcc.ring.hashing import slot_of
from dcc.types import Now
from dcc.units import NEVER
from dcc.wire.codec import Header
from dcc.wire.messages import (
    Clear,
    ClearReply,
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

ASKED_AT_ONCE = 3
"Nodes asked for the topology side by side: two dead ones in the list cost no time."


class Learn:
    """Ask for the topology until a ready node tells it; a node not ready yet is second best."""

    def __init__(self, call: Call) -> None:
        self.wake_at = NEVER
        self.done = False
        self.result: View | None = None
        self.error: DccError | None = None
        self._call = call
        self._addresses: list[str] = []
        self._unready: tuple[int, Header, Topology] | None = None
        self._refusal: DccError | None = None
        self._foreign: set[str] = set()
        self._rounds = Rounds(call)

    def begin(self, now: Now) -> None:
        """Ask some nodes, in random order, those that are well first."""
        core = self._call.core
        view = core.view
        known = sorted(view.alive.values()) if view is not None else []
        configured = [address for address in core.nodes if address not in known]
        core.rng.shuffle(known)
        core.rng.shuffle(configured)
        self._addresses = sorted(known + configured, key=core.health.sick.__contains__)
        for _ in range(ASKED_AT_ONCE if view is None else 1):
            self._next(now)

    def answered(self, attempt: Attempt, header: Header, message: Message, now: Now) -> None:
        """Take the first topology of a ready node."""
        match message:
            case Topology() if message.ready:
                self._finish(header, message, now)
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

    def undeliverable(self, attempt: Attempt, now: Now) -> None:
        """Ask another."""
        self._next(now)

    def silent(self, attempt: Attempt, now: Now) -> None:
        """Ask another as well."""
        self._next(now)

    def tick(self, now: Now) -> None:
        """Begin the next round when its time has come."""
        if now.mono >= self.wake_at:
            self.wake_at = NEVER
            self.begin(now)

    def expired(self, now: Now) -> None:
        """End with what there is."""
        if self._unready is not None and not self.done:
            _, header, topology = self._unready
            self._finish(header, topology, now)
        else:
            self._fail(nobody(self._refusal, sent=self._call.waiting(self) > 0))

    def _next(self, now: Now) -> None:
        if self.done:
            return
        if self._addresses:
            self._call.ask(self, self._addresses.pop(0), TopologyGet(), now)
        elif not self._call.fresh(self):
            if self._unready is not None:
                # Everybody was asked: go by what a node told that is not in sync yet.
                _, header, topology = self._unready
                self._finish(header, topology, now)
            elif self._call.core.lost or self._foreign.issuperset(self._call.core.nodes):
                self._fail(nobody(self._refusal, sent=self._call.waiting(self) > 0))
            else:
                self.wake_at = min(self.wake_at, self._rounds.next_at(now))

    def _finish(self, header: Header, topology: Topology, now: Now) -> None:
        if not self.done:
            self.done = True
            self.result = self._call.core.adopt(topology, header, now)

    def _fail(self, error: DccError) -> None:
        if not self.done:
            self.done, self.error = True, error


class Gather:
    """Ask several nodes the same and return the answers of those that did, the reason of others.

    `StatsGet` goes to every member, `Inspect` to the owners of its key. The result maps node
    names to a reply or to the text of the error.
    """

    def __init__(self, call: Call, question: StatsGet | Inspect) -> None:
        self.wake_at = NEVER
        self.done = False
        self.result: dict[str, StatsReply | InspectReply | str] = {}
        self.error: DccError | None = None
        self._call, self._question = call, question
        self._names: dict[str, str] = {}

    def begin(self, now: Now) -> None:
        """Ask all of them at once."""
        view = self._call.view
        question = self._question
        members = (
            view.owners(slot_of(question.key))
            if isinstance(question, Inspect)
            else tuple(view.members.values())
        )
        self._names = {member.request: member.name for member in members}
        for address in self._names:
            self._call.ask(self, address, question, now)
        self._settle()

    def answered(self, attempt: Attempt, header: Header, message: Message, now: Now) -> None:
        """Note the answer."""
        if isinstance(message, StatsReply | InspectReply):
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

    def _note(self, attempt: Attempt, what: StatsReply | InspectReply | str) -> None:
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
        """Ask the next owners instead."""
        self._call.drop(attempt)
        self._ask(self._asked.pop(attempt.request).slots, now)
        self._settle()

    def tick(self, now: Now) -> None:
        """Nothing is ever due."""

    def expired(self, now: Now) -> None:
        """End: with an error, since a list with holes would look like a whole one."""
        if not self.done:
            self.done = True
            self.error = nobody(self._refusal, sent=bool(self._asked))

    def _collect(self, attempt: Attempt, scan: Scan, reply: ScanReply, now: Now) -> None:
        self._keys.update(dict.fromkeys(reply.keys))
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


class ClearAll:
    """Ask any node to raise the cluster's `cleared` stamp.

    Clearing twice clears no less, so a silent node is followed by another, unlike with a write.
    """

    def __init__(self, call: Call) -> None:
        self.wake_at = NEVER
        self.done = False
        self.result: ClearReply | None = None
        self.error: DccError | None = None
        self._call = call
        self._addresses: list[str] = []
        self._refusal: DccError | None = None
        self._rounds = Rounds(call)

    def begin(self, now: Now) -> None:
        """Ask one node that is alive."""
        core = self._call.core
        known = sorted(self._call.view.alive.values())
        core.rng.shuffle(known)
        self._addresses = sorted(known, key=core.health.sick.__contains__)
        self._next(now)

    def answered(self, attempt: Attempt, header: Header, message: Message, now: Now) -> None:
        """Take the outcome, or ask another node."""
        match message:
            case ClearReply():
                self._call.core.saw(message.stamp)
                self.done, self.result = True, message
                if not message.everywhere:
                    self.error = MaybeStored("some members have not confirmed the clearing yet")
            case ErrorReply() if message.code in ASK_ANOTHER or message.code in (
                Code.OVERLOADED,
                Code.TOO_LATE,
            ):
                self._refusal = error_of(message, attempt.address)
                self._next(now)
            case ErrorReply():
                self.done, self.error = True, error_of(message, attempt.address)
            case _:
                self.done = True
                self.error = ProtocolError(f"{attempt.address}: no clearing but a {message}")

    def undeliverable(self, attempt: Attempt, now: Now) -> None:
        """Ask another."""
        self._next(now)

    def silent(self, attempt: Attempt, now: Now) -> None:
        """Ask another as well."""
        self._next(now)

    def tick(self, now: Now) -> None:
        """Begin the next round when its time has come."""
        if now.mono >= self.wake_at:
            self.wake_at = NEVER
            self.begin(now)

    def expired(self, now: Now) -> None:
        """End: some node may have taken the stamp."""
        if not self.done:
            waiting = self._call.waiting(self) > 0
            text = "no answer in time; entries may be cleared or not"
            self.done = True
            self.error = MaybeStored(text) if waiting else nobody(self._refusal, sent=False)

    def _next(self, now: Now) -> None:
        if self._addresses:
            message = Clear(seen=self._call.core.seen)
            self._call.ask(self, self._addresses.pop(0), message, now, patient=True)
        elif not self._call.fresh(self):
            self.wake_at = min(self.wake_at, self._rounds.next_at(now))
