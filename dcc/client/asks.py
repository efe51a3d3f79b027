"""Questions to nodes rather than to keys: topology, statistics, inspection, audit and scan."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import NamedTuple

from dcc.client.attempts import Attempt, Attempts
from dcc.client.outcomes import error_of, nobody
from dcc.client.rounds import OneByOne, Rounds
from dcc.client.routing import Target
from dcc.errors import DccError, ProtocolError
from dcc.ring.hashing import slot_of
from dcc.types import Member, Now, Standing
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
    Watch,
    Watched,
)
from dcc.wire.shapes import is_text

ASKED_AT_ONCE = 3
"Nodes asked for the topology side by side: two dead ones in the list cost no time."

RINGS_MAX = 4
"""Rings of others that one scan goes by. Between two sides of a cut there is no end to it, and what
both list is all there is."""


class Learn(OneByOne):
    """Ask for the topology until a ready node tells it; a node not ready yet is second best."""

    def __init__(self, call: Attempts) -> None:
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
                self.wake_at: int = min(self.wake_at, self._rounds.next_at(now))

    def _adopt(self, header: Header, topology: Topology, now: Now) -> None:
        if not self.done:
            self._finish(self._call.core.adopt(topology, header, now))


Told = StatsReply | InspectReply | AuditReply | Watched


class Audited(NamedTuple):
    """What one node says of some slots."""

    slots: tuple[int, ...]
    reply: AuditReply


class Gather:
    """Ask several nodes the same and return the answers of those that did, the reason of others.

    `StatsGet` and `Watch` go to every member, `Inspect` to the owners of its key, `AuditGet` to the
    live owners of its slots, each for its own (the answer is an `Audited`). The result maps node
    names to an answer or to the text of the error.
    """

    def __init__(self, call: Attempts, question: StatsGet | Inspect | AuditGet | Watch) -> None:
        self.wake_at = NEVER
        self.done: bool = False
        self.result: dict[str, Told | Audited | str] = {}
        self.error: DccError | None = None
        self._call, self._question = call, question
        self._names: dict[str, str] = {}
        self._slots: dict[str, tuple[int, ...]] = {}
        "Address -> what it was asked about in an audit."

    def begin(self, now: Now) -> None:
        """Ask all of them at once."""
        view = self._call.view
        questions: dict[Member, StatsGet | Inspect | AuditGet | Watch]
        match self._question:
            case StatsGet() | Watch() as question:
                questions = dict.fromkeys(view.members.values(), question)
            case Inspect() as question:
                questions = dict.fromkeys(view.owners(slot_of(question.key)), question)
            case AuditGet(slots=slots, above=above):
                shares, stamps = view.shares(slots), dict(zip(slots, above, strict=bool(above)))
                questions = {
                    member: AuditGet(slots=mine, above=tuple([stamps[s] for s in mine if stamps]))
                    for member, mine in shares.items()
                }
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
        elif isinstance(message, StatsReply | InspectReply | Watched):
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
    """List the keys of some slots: at their primaries, and at other holders of unsure slots.

    Keys are collected in a dict, so each is returned once however many nodes list it. A slot is
    settled when one node has listed it and was sure; or when an owner has, and so have the other
    owners and the live members near them, as far as they can be reached: one of them may be a
    former owner, who has what the new one is still to get. As long as no owner can be reached all
    are asked again, in rounds, until the deadline. So they are, for most of the call's time, while
    all who answer may lack keys and a live owner cannot be reached: what is missing may be there.

    A node that has been away lists keys that may be deleted, and says so. They count only if
    nobody becomes sure of the slot in most of the call's time: as a rule that node catches up
    within a second. Left out at once they would be holes, for some are nowhere else.

    A node that is unsure may be so because the slot has moved on, and this client does not know.
    So where one sees another ring, the unsure slots are listed once more by that one.
    """

    def __init__(self, call: Attempts, scan: Scan) -> None:
        self.wake_at: int = NEVER
        self.done: bool = False
        self.result: list[bytes] = []
        self.error: DccError | None = None
        self._call, self._prefix = call, scan.prefix
        self._slots = scan.slots
        self._keys: dict[bytes, None] = {}
        self._tried: dict[int, set[str]] = {slot: set() for slot in scan.slots}
        "Slot -> addresses that were asked for it."
        self._listed: set[int] = set()
        "By an owner, or by somebody who was sure."
        self._sure: set[int] = set()
        self._whole: set[int] = set()
        "By an owner who lacks nothing that another live holder has."
        self._unreached: set[int] = set()
        "Slots of which a live owner could not be reached."
        self._doubtful: dict[int, dict[bytes, None]] = {}
        "Slots of which nobody was sure, and somebody had been away -> the keys that one lists."
        self._patient_until = call.began + (call.deadline - call.began) * 3 // 4
        self._waiting: dict[int, None] = {}
        "Slots for the next round: no owner could be reached, or one that has been away was asked."
        self._rounds = Rounds(call)
        self._asked: dict[int, Scan] = {}
        self._aside: set[int] = set()
        "Requests to members that are no owners: they are not waited for once they are silent."
        self._elsewhere: dict[int, str] = {}
        "Unsure slots -> who was it and sees another ring."
        self._ring_asked, self._rings_left = 0, RINGS_MAX
        self._refusal: DccError | None = None

    def begin(self, now: Now) -> None:
        """Ask the first target of every slot."""
        self._ask(self._slots, now)
        self._settle(now)

    def answered(self, attempt: Attempt, header: Header, message: Message, now: Now) -> None:
        """Collect the keys; ask on where the reply was cut or unsure."""
        if attempt.request == self._ring_asked:
            self._follow(attempt, header, message, now)
            return
        scan = self._asked[attempt.request]
        if isinstance(message, ScanReply) and _sensible(scan, message):
            self._collect(attempt, header, message, now)
        else:
            if isinstance(message, ErrorReply):
                self._refusal = error_of(message, attempt.address)
                if message.code is Code.NOT_ALLOWED:  # By every other node, too.
                    self.expired(now)
                    return
            self._ask(self._close(attempt).slots, now)
        self._settle(now)

    def undeliverable(self, attempt: Attempt, now: Now) -> None:
        """Ask the next owners."""
        if attempt.request == self._ring_asked:
            self._stay(attempt.address)
        else:
            self._unreached.update(self._owned_by(attempt))
            self._ask(self._close(attempt).slots, now)
        self._settle(now)

    def silent(self, attempt: Attempt, now: Now) -> None:
        """Ask the next owners instead; where there is none, go on waiting for this one."""
        if attempt.request == self._ring_asked:
            return
        slots = self._asked[attempt.request].slots
        others = [slot for slot in slots if self._next_for(slot, owners_only=True) is not None]
        if len(others) == len(slots) or attempt.request in self._aside:
            self._call.drop(attempt)
            self._unreached.update(self._owned_by(attempt))
            others = list(self._close(attempt).slots)
        self._ask(others, now)
        self._settle(now)

    def tick(self, now: Now) -> None:
        """Begin the next round when its time has come."""
        if now.mono >= self.wake_at:
            self.wake_at = NEVER
            self._again(now)
            self._settle(now)

    def expired(self, now: Now) -> None:
        """End: with an error, since a list with holes would look like a whole one."""
        if not self.done:
            self.done = True
            self.error = nobody(self._refusal, self._call.tried, sent=bool(self._asked))

    def _collect(self, attempt: Attempt, header: Header, reply: ScanReply, now: Now) -> None:
        aside = attempt.request in self._aside
        scan = self._close(attempt)
        self._take_keys(scan, reply)
        done, rest = scan.slots[: reply.done], scan.slots[reply.done :]
        sure = set(done).difference(reply.unsure, reply.old)
        if scan.after and scan.slots[0] in self._doubtful:
            sure.discard(scan.slots[0])  # Of its first keys the node was not sure.
        self._sure |= sure
        unsure = [slot for slot in done if slot not in sure]
        for slot in sure:
            self._elsewhere.pop(slot, None)
            self._doubtful.pop(slot, None)
        if header.epoch != self._call.view.epoch:
            self._elsewhere.update(dict.fromkeys(unsure, attempt.address))
        self._listed.update(sure if aside else done)
        self._whole.update(() if aside else set(done).difference(reply.lacking))
        self._ask(unsure, now)
        if rest:
            last = reply.keys[-1] if reply.keys else b""
            after = last if last and slot_of(last) == rest[0] else b""
            if not reply.done and not after:
                self._ask(rest, now)  # No progress here: somebody else may do better.
            else:
                more = Scan(slots=rest, prefix=self._prefix, after=after)
                self._send(attempt.address, more, now, aside=aside)

    def _take_keys(self, scan: Scan, reply: ScanReply) -> None:
        old = set(reply.old).intersection(scan.slots) - self._sure
        for slot in old:
            self._doubtful.setdefault(slot, {})
        for key in filter(is_text, reply.keys):  # Others are no keys of ours.
            slot = slot_of(key) if reply.old else -1
            if slot in old:
                self._doubtful[slot][key] = None
            elif slot not in reply.old:
                self._keys[key] = None

    def _ask(self, slots: Iterable[int], now: Now) -> None:
        groups: dict[tuple[str, bool], list[int]] = {}
        for slot in slots:
            target = self._next_for(slot)
            if target is not None:
                self._tried[slot].add(target.address)
                groups.setdefault((target.address, not target.owner), []).append(slot)
            elif slot not in self._listed or self._may_have_holes(slot, now):
                self._waiting[slot] = None
        for (address, aside), group in groups.items():
            self._send(address, Scan(slots=tuple(group), prefix=self._prefix), now, aside=aside)

    def _next_for(self, slot: int, *, owners_only: bool = False) -> Target | None:
        """Return whom to ask next for a slot; nobody once all who may hold it were asked."""
        tried, core = self._tried[slot], self._call.core
        for target in core.targets(slot):
            if target.address in tried or (owners_only and not target.owner):
                continue
            if target.owner or slot not in self._listed or self._is_well(target.address):
                return target
        return None

    def _may_have_holes(self, slot: int, now: Now) -> bool:
        """Return whether a slot is asked for again: what is missing may be where nobody answers."""
        patient = now.mono < self._patient_until
        return patient and slot in self._unreached and slot not in self._whole

    def _owned_by(self, attempt: Attempt) -> Sequence[int]:
        """Return the slots of a question if it went to a live owner of them."""
        aside = attempt.request in self._aside
        return () if aside else self._asked[attempt.request].slots

    def _is_well(self, address: str) -> bool:
        member = self._call.view.by_address.get(address)
        alive = member is not None and member.standing is Standing.ALIVE
        return alive and address not in self._call.core.health.sick

    def _send(self, address: str, scan: Scan, now: Now, *, aside: bool) -> None:
        request = self._call.ask(self, address, scan, now).request
        self._asked[request] = scan
        if aside:
            self._aside.add(request)

    def _close(self, attempt: Attempt) -> Scan:
        self._aside.discard(attempt.request)
        return self._asked.pop(attempt.request)

    def _settle(self, now: Now) -> None:
        if self.done or self._asked or self._ring_asked:
            return
        if self._elsewhere and self._rings_left:
            self._rings_left -= 1
            address = next(iter(self._elsewhere.values()))
            self._ring_asked = self._call.ask(self, address, TopologyGet(), now).request
            return
        if now.mono < self._patient_until:
            self._waiting.update(dict.fromkeys(self._doubtful))
        if not self._waiting:
            self.done = True
            for keys in self._doubtful.values():
                self._keys.update(keys)
            self.result = list(self._keys)
        elif self._call.core.lost:
            self.expired(now)
        else:
            self._call.core.want_refresh(now)
            self.wake_at = self._rounds.next_at(now)
            if now.mono < self._patient_until < self.wake_at:
                self.wake_at = self._patient_until

    def _again(self, now: Now, also: Iterable[int] = ()) -> None:
        """Ask everybody again for the slots that wait, and for others."""
        slots = list({**self._waiting, **dict.fromkeys(also)})
        self._waiting.clear()
        for slot in slots:
            self._tried[slot].clear()
            self._doubtful.pop(slot, None)
        for noted in (self._listed, self._whole, self._unreached):
            noted.difference_update(slots)
        self._ask(slots, now)

    def _follow(self, attempt: Attempt, header: Header, message: Message, now: Now) -> None:
        """List what was unsure once more, by the ring of a node that sees another one."""
        if isinstance(message, Topology) and message.ready:
            self._ring_asked = 0
            self._call.core.adopt(message, header, now)
            slots = list(self._elsewhere)
            self._elsewhere.clear()
            self._again(now, slots)
        else:
            self._stay(attempt.address)
        self._settle(now)

    def _stay(self, address: str) -> None:
        """Go by the rings of others than `address`, which does not tell its own."""
        self._ring_asked = 0
        for slot in [slot for slot, who in self._elsewhere.items() if who == address]:
            del self._elsewhere[slot]


def _sensible(scan: Scan, reply: ScanReply) -> bool:
    return reply.done <= len(scan.slots)
