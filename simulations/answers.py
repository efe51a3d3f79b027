"""Who answered a read, and what that node could have known: what judging an answer takes.

A reply says what was found, not who decided it (a node that forwards hands the answer on) nor
what was to be had elsewhere at that instant. Both are noted here as a reply leaves a node.

What a node *could have known* of a key is what is held by those with whom it shares a view at that
instant: each has the other for alive, in the life that it is in. Of that, it could know

- what was written by somebody with whom it shares a view now: copies of it are sent here;
- what was written by somebody with whom it shared a view then, and was held elsewhere before that
  one went: whoever leads because a writer has gone asks the others, once;
- what a holder held already when the two met: whoever was away asks until it has caught up.

So nobody can know what is written across a cut, not even if there is a bridge that sees both sides;
a node that was away can know as soon as it is among the others again. Whoever was asked about the
key since the read came in, and has not answered, is left out: more than ask a node cannot do. So is
who has left every question without an answer for long (`silences`).
A write that went round its primary may take `ASIDE_NS` to get there, from the write on, or from
when a link that was cut lets it pass: neither of the two may have noticed the cut yet, and just
that makes clients go round. What is so young is noted apart, because the primary has to know of it
only if it was answered as one that others hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

from dcc.errors import PeerError
from dcc.node.core import NodeCore
from dcc.ring.hashing import slot_of
from dcc.types import NO_VERSION, PREV_UNKNOWN, Kind, Record, Version
from dcc.units import NEVER, SECOND
from dcc.wire.codec import Codec
from dcc.wire.messages import (
    TAG,
    Fetch,
    Get,
    GetMany,
    GetManyReply,
    GetReply,
    Scan,
    ScanReply,
    Status,
)
from simulations.processes import NodeProcess
from simulations.silences import Silences

ASKING = frozenset((TAG[Get], TAG[GetMany], TAG[Scan]))
ANSWERING = frozenset((TAG[GetReply], TAG[GetManyReply], TAG[ScanReply]))
FETCH = TAG[Fetch]

ASIDE_NS = 2 * SECOND
"As long as a copy may be on its way in a calm network."

OPEN_MAX = 4_096
"Reads that are remembered; whoever has no answer by then has given up long ago."


class Process(Protocol):
    """A client or a node that asks."""

    name: str
    life: int


class Answer(NamedTuple):
    """What one node said of one key, and what it could have known as it said so.

    A key in a listing is a hit, unless it is listed as one that may be deleted.
    """

    node: str
    at_ns: int
    key: bytes
    status: Status
    version: Version
    "Of a hit."
    leads: bool
    "Whether the node is the key's primary in its own view."
    known: Version = NO_VERSION
    "The newest version, of any kind, that is held where the node could have asked and has not."
    value: Version = NO_VERSION
    "The newest of them that is a value which a read would find there."
    asked: bool = False
    "Whether it has asked somebody since the read came in, or for long in vain."
    evicted: bool = False
    "Whether it has evicted anything in this life."
    holders: tuple[str, ...] = ()
    "Who holds a version newer than what was answered, where the node could have asked."
    reached_ns: int = 0
    "Since when all of those can send it what they have; NEVER if one of them cannot."
    aside: frozenset[Version] = frozenset()
    "What was written aside of the node that leads so lately that its copy may be on its way."


class _Question(NamedTuple):
    keys: tuple[bytes, ...]
    since_ns: int
    late: bool
    "Whether its deadline had passed when it was read."


LATE_MS = 5
"How far behind its deadline a read is late for certain."

Asked = tuple[str, int, str, int]
"Who asks and its life, who is asked, the number of the request."


class Answers:
    """Notes reads as they come in and as their answers leave."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self.served_late: list[tuple[str, int]] = []
        "Reads that were answered although they came behind their deadline, and when."
        self._questions: dict[Asked, _Question] = {}
        self._fetched: dict[tuple[str, str, bytes], int] = {}
        "Asker, asked, key → when last."
        self._given: dict[tuple[str, int, int], tuple[Answer, ...]] = {}
        "Who asked, its life, the number of the request → what was answered."
        self.silences = Silences()
        self._met: dict[frozenset[str], int] = {}
        "Two nodes that share a view → since when."
        self._held_since: dict[tuple[str, int, Version], int] = {}
        "Node, its life, a version → when it was first seen there."
        self.written_ns: dict[Version, int] = {}
        "Version → when its writer stamped it, in world time."
        self._aside: set[Version] = set()
        "Stamped by a node that was not the primary by its own view."
        self._written_among: dict[Version, frozenset[str]] = {}
        "With whom its writer shared a view as a version was written."
        self._alive: dict[tuple[str, int], frozenset[int]] = {}
        "Node and its life → whom it has for alive."
        self._lost_ns: dict[tuple[str, int, int], int] = {}
        "Node, its life, a member that it has not for alive any more → since when."
        self._relayed: tuple[Answer, ...] = ()
        "What the message that a node is taking in says, if it is an answer to a forwarded read."

    # -------------------------------------------------------------- told by the world

    def coming_in(
        self, node: NodeProcess, tag: int, asker: Process | None, frames: list[bytes]
    ) -> None:
        """Note a message that `node` is about to take: a read, or the answer to a forwarded one."""
        self._relayed = ()
        if tag not in ASKING and tag not in ANSWERING:
            return
        try:
            header, message = self._codec.decode(frames)
        except PeerError:
            return  # Garbage by a fault.
        if tag in ANSWERING:
            self._relayed = self._given.pop((node.name, node.life, header.request), ())
        elif asker is not None:
            assert isinstance(message, Get | GetMany | Scan)
            keys = () if isinstance(message, Scan) else _keys(message)
            asked = (asker.name, asker.life, node.name, header.request)
            if asked not in self._questions:
                _bound(self._questions)
                clock = _core(node).clock
                now_ms = clock.cluster_ms(node.now().mono) if clock.settled else 0
                late = 0 < header.at < now_ms - LATE_MS and len(keys) > 0
                self._questions[asked] = _Question(keys, node.world.now_ns, late)

    def fetched(self, node: NodeProcess, of: NodeProcess, frames: list[bytes]) -> None:
        """Note that `node` asks another one about a key."""
        _, message = self._codec.decode(frames)
        assert isinstance(message, Fetch)
        self._fetched[node.name, of.name, message.key] = node.world.now_ns

    def leaving(self, node: NodeProcess, asker: Process, frames: list[bytes]) -> None:
        """Note the answer to a read as it leaves `node` for whoever has asked."""
        header, message = self._codec.decode(frames)
        question = self._questions.get((asker.name, asker.life, node.name, header.request))
        if question is None:
            return
        if question.late:
            text = f"{node.name} answered {asker.name} about {question.keys[0].decode()}"
            self.served_late.append((text, node.world.now_ns))
        told: tuple[Answer, ...]
        if isinstance(message, GetReply):
            said = (question.keys[0], message.status, message.version)
            relayed = [one for one in self._relayed if one[2:5] == said]
            told = tuple(relayed) or (self._answer(node, question, *said),)
        elif isinstance(message, ScanReply):
            told = tuple(self._listed(node, question, message))
        else:
            assert isinstance(message, GetManyReply)
            told = tuple(self._answers(node, question, message))
        _bound(self._given)
        place = (asker.name, asker.life, header.request)
        self._given[place] = (*self._given.get(place, ()), *told)

    def view_changed(self, node: NodeProcess) -> None:
        """Note with whom `node` shares a view from now on, and with whom no more."""
        sharing = {other.name for other in sharing_view(node)}
        for pair in [pair for pair in self._met if node.name in pair]:
            if not pair - {node.name} <= sharing:
                del self._met[pair]
        for name in sorted(sharing):
            pair = frozenset((node.name, name))
            if pair not in self._met:
                self._met[pair] = node.world.now_ns
                self.silences.met(node, name)
        life, alive = (node.name, node.life), frozenset(_core(node).held.view.alive)
        for key in self._alive.get(life, frozenset()) - alive:
            self._lost_ns[*life, key] = node.world.now_ns
        for key in alive:
            self._lost_ns.pop((*life, key), None)
        self._alive[life] = alive

    def written(self, node: NodeProcess, version: Version, *, aside: bool) -> None:
        """Note that `node` has just stamped a version, maybe `aside` of the primary."""
        if aside:
            self._aside.add(version)
        self.written_ns[version] = node.world.now_ns
        self._written_among[version] = frozenset(other.name for other in sharing_view(node))
        self.held(node, version)

    def held(self, node: NodeProcess, version: Version) -> None:
        """Note that `node` holds a version, of any kind."""
        place = (node.name, node.life, version)
        self._held_since.setdefault(place, node.world.now_ns)

    def held_since(self, node: NodeProcess, version: Version) -> int:
        """Return since when `node` is known to hold a version in this life; NEVER if it is not."""
        return self._held_since.get((node.name, node.life, version), NEVER)

    def has_held(self, node: NodeProcess, version: Version) -> bool:
        """Return whether `node` was seen to hold a version in its present life."""
        return (node.name, node.life, version) in self._held_since

    # -------------------------------------------------------------- told to clients

    def taken(self, client: Process, frames: list[bytes]) -> tuple[int, tuple[Answer, ...]]:
        """Return the number of the request that the reply in `frames` answers, and what it says."""
        header, _ = self._codec.decode(frames)
        told = self._given.pop((client.name, client.life, header.request), ())
        return header.request, told

    # -------------------------------------------------------------- inside

    def _answers(
        self, node: NodeProcess, question: _Question, many: GetManyReply
    ) -> Iterator[Answer]:
        keys = question.keys[many.first : many.first + len(many.statuses)]
        for key, status in zip(keys, many.statuses, strict=True):
            if status == Status.ELSEWHERE:
                continue
            held = _held(node, key) if status == Status.HIT else None
            version = held.version if held is not None else NO_VERSION
            yield self._answer(node, question, key, Status(status), version)

    def _listed(self, node: NodeProcess, question: _Question, reply: ScanReply) -> Iterator[Answer]:
        for key in reply.keys:
            held = _held(node, key)
            if held is not None and slot_of(key) not in reply.old:
                yield self._answer(node, question, key, Status.HIT, held.version)

    def _answer(
        self, node: NodeProcess, question: _Question, key: bytes, status: Status, version: Version
    ) -> Answer:
        core = _core(node)
        known = value = NO_VERSION
        asked = False
        holders: list[str] = []
        young: set[Version] = set()
        sharing = list(sharing_view(node))
        for other in sharing:
            in_vain = self._fetched.get((node.name, other.name, key), -1) >= question.since_ns
            if in_vain or self.silences.is_mute(node, other):
                asked = True
                continue
            record = _held(other, key)
            if record is None or record.version.stamp <= core.held.store.cleared:
                continue
            if not self._could_know(node, sharing, other, record.version):
                continue
            if self._is_under_way(node, other, record.version):
                young.add(record.version)
            else:
                known = max(known, record.version)
                holders += [other.name] if record.version > version else []
                if record.kind is Kind.VALUE and not _over(node, record):
                    value = max(value, record.version)
        leads = core.held.view.is_primary(slot_of(key))
        evicted = core.held.store.evicted_total > 0
        at_ns, passes_since = node.world.now_ns, node.world.network.passes_since
        reached_ns = max([passes_since(one, node.name) for one in holders], default=0)
        return Answer(
            node.name, at_ns, key, status, version, leads, known, value, asked, evicted,
            tuple(holders), reached_ns, frozenset(young),
        )  # fmt: skip

    def _is_under_way(self, node: NodeProcess, holder: NodeProcess, version: Version) -> bool:
        """Return whether what was written aside may not have come here from any who has it."""
        if version not in self._aside:
            return False
        passes_ns = node.world.network.passes_since(holder.name, node.name)
        return node.world.now_ns < max(self.written_ns[version], passes_ns) + ASIDE_NS

    def _could_know(
        self, node: NodeProcess, sharing: list[NodeProcess], holder: NodeProcess, version: Version
    ) -> bool:
        """Return whether `node` could know of a version that `holder` has."""
        writers = [one for one in sharing if (one.key, one.boot) == version.origin]
        if writers:
            return True
        now_ns = node.world.now_ns
        since_ns = self._held_since.get((holder.name, holder.life, version), now_ns)
        if node.name in self._written_among.get(version, ()):
            writer, _ = version.origin
            if since_ns < self._lost_ns.get((node.name, node.life, writer), NEVER):
                return True
        return since_ns < self._met.get(frozenset((node.name, holder.name)), now_ns)


def sharing_view(node: NodeProcess) -> Iterator[NodeProcess]:
    """Return the other nodes that `node` has for alive and that have it for alive."""
    mine = _core(node).held.view
    for other in node.world.living():
        if other is node or mine.boots.get(other.key) != other.boot:
            continue
        theirs = _core(other).held.view
        mutual = other.key in mine.alive and node.key in theirs.alive
        if mutual and theirs.boots.get(node.key) == node.boot:
            yield other


def _core(node: NodeProcess) -> NodeCore:
    assert isinstance(node.core, NodeCore)
    return node.core


def _held(node: NodeProcess, key: bytes) -> Record | None:
    entry = _core(node).held.store.peek(slot_of(key), key)
    return None if entry is None else entry.record(PREV_UNKNOWN)


def _keys(message: Get | GetMany) -> tuple[bytes, ...]:
    return (message.key,) if isinstance(message, Get) else message.keys


def _over(node: NodeProcess, record: Record) -> bool:
    """Whether a record has expired by the clock of `node`, or is about to."""
    now_ms = _core(node).clock.cluster_ms(node.now().mono)
    return 0 < record.expires_at_ms <= now_ms


def _bound(table: dict[Any, Any]) -> None:
    while len(table) >= OPEN_MAX:
        del table[next(iter(table))]
