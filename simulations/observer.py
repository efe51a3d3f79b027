"""What an all-seeing observer of one run knows: every record on a wire or in a store.

Nodes cannot see this; checkers need it. The ledger remembers for every version what it meant the
first time it was seen, so that a second meaning is noticed the moment it appears.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

from xxhash import xxh3_64_intdigest

from dcc.errors import PeerError
from dcc.node.core import NodeCore
from dcc.ring.hashing import slot_of
from dcc.types import PREV_UNKNOWN, Kind, Record, Version
from dcc.units import NEVER
from dcc.wire.codec import HEADER_FIELDS, Codec, unpack_items
from dcc.wire.messages import (
    TAG,
    WIRE,
    ConvergedReply,
    FetchReply,
    InspectReply,
    PullReply,
    Replicate,
    Write,
    WriteMany,
)
from simulations.answers import ANSWERING, FETCH, Answers, Process
from simulations.asking import Asking
from simulations.checkers import monotony
from simulations.checkers.sendings import Link, Sendings
from simulations.history import Violation
from simulations.network import Endpoint
from simulations.processes import NodeProcess
from simulations.silences import COMPARING, REPLIES

CARRIERS = frozenset(TAG[kind] for kind in (Replicate, PullReply, FetchReply, InspectReply))
WRITES = frozenset((TAG[Write], TAG[WriteMany]))
STREAMED = frozenset(TAG[kind] for kind in (Replicate, PullReply))
FETCH_REPLY = TAG[FetchReply]
CONVERGED_REPLY = TAG[ConvergedReply]
PULL_REPLY = TAG[PullReply]
REPLICATE = TAG[Replicate]
ARRAY16 = 0xDC


class Meaning(NamedTuple):
    """What a version says; for ever."""

    key: bytes
    deleted: bool
    value: bytes
    expires_at_ms: int


def tag_of(frame: bytes) -> int:
    """Return the tag of a well-formed frame without decoding it, else some number."""
    if len(frame) < 12:
        return 0
    return frame[11] if frame[8] == ARRAY16 else frame[9]


def core_of(node: NodeProcess) -> NodeCore:
    """Return the production core of a node; the world itself would run any other as well."""
    assert isinstance(node.core, NodeCore)
    return node.core


def held_record(node: NodeProcess, key: bytes) -> Record | None:
    """Return what a node holds of a key, of any kind, without touching it."""
    entry = core_of(node).held.store.peek(slot_of(key), key)
    return None if entry is None else entry.record(PREV_UNKNOWN)


def has_seen(node: NodeProcess, record: Record) -> bool:
    """Return whether the clock of a living node covers a record, whatever it holds."""
    store = core_of(node).held.store if node.alive else None
    return store is not None and store.covers(slot_of(record.key), record.version)


def batch_of(frames: list[bytes]) -> int:
    """Return the number of a batch of replication."""
    number = unpack_items(frames[0])[HEADER_FIELDS]
    assert isinstance(number, int)
    return number


def _link(sender: Process, receiver: Process) -> Link:
    return (sender.name, sender.life, receiver.name, receiver.life)


class Observer:
    """Reads what is sent and what is held; decides nothing for the nodes."""

    def __init__(self, cluster: str) -> None:
        self._codec = Codec(cluster, sender=0, boot=0)
        self.meanings: dict[Version, Meaning] = {}
        self.versions_of: dict[bytes, list[Version]] = {}
        "Value → versions it was written under, in order of appearance."
        self.aside: set[Version] = set()
        "Stamped by a node that was not the primary by its own view."
        self.violations: list[Violation] = []
        self.monotony = monotony.Monotony()
        self.sendings = Sendings()
        self.now_ns = 0
        self.records = 0
        self.repaired = 0
        "Records in answers to pulls."
        self.sent: Counter[str] = Counter()
        "Messages of nodes on the request plane to each other, by name."
        self.on_held: Callable[[Record], None] | None = None
        "Told of every record that a node writes, or holds behind a message."
        self.on_converged: Callable[[NodeProcess], None] | None = None
        "Told when a node says that the cluster has converged."
        self.answers = Answers(self._codec)
        self.asking = Asking(self._codec, self.newest, self.answers.held_since, has_seen)
        self._evicted: set[tuple[str, int, Version]] = set()
        self._message: tuple[bytes, ...] = ()
        self._held: list[Record | None] = []

    def frames(self, node: NodeProcess, to: NodeProcess | None, frames: list[bytes]) -> None:
        """Note a message of `node` on its way to another one, and the records it carries."""
        tag = tag_of(frames[0])
        if to is not None and tag == FETCH:
            self.answers.fetched(node, to, frames)
            self.asking.asks(node, to, frames)
        elif to is not None and tag in COMPARING:
            self.answers.silences.asks(node, to, frames)
        elif to is not None and tag in ANSWERING:
            self.answers.leaving(node, to, frames)
        if to is not None and tag == REPLICATE:
            self.sendings.sent(_link(node, to), batch_of(frames), frames[0])
        if tag in WIRE:
            self.sent[WIRE[tag].__name__] += 1
        if tag in CARRIERS:
            records = self.records_in(frames)
            self.saw(records)
            if tag == PULL_REPLY:
                self.repaired += len(records)

    def of_client(self, client: str, to: Endpoint | None, frames: list[bytes], now_ns: int) -> None:
        """Note a message of a client to a node; None if there is none at that address."""
        stopped_ns = getattr(to, "paused_ns", NEVER)
        if to is not None and stopped_ns < NEVER and tag_of(frames[0]) in WRITES:
            header, _ = self._codec.decode(frames)
            self.sendings.written(client, to.name, header.request, now_ns - stopped_ns, now_ns)

    def records_in(self, frames: list[bytes]) -> tuple[Record, ...]:
        """Return the records that a message carries."""
        _, message = self._codec.decode(frames)
        assert isinstance(message, Replicate | PullReply | FetchReply | InspectReply)
        return message.records

    def attach(self, node: NodeProcess, core: Any) -> None:
        """Note what `core`, the new life of `node`, will write on its own account.

        Some of it never travels, and may be forgotten before anybody looks.
        """
        store = core.held.store
        write = store.write

        def noted(slot: int, record: Record, *more: Any) -> Any:
            self.asking.writes(node, held_record(node, record.key), record)
            applied = write(slot, record, *more)
            self.saw((record,))
            aside = not core.held.view.is_primary(slot)
            self.answers.written(node, record.version, aside=aside)
            if aside:
                self.aside.add(record.version)
            place = (node.name, node.life, record.key)
            covers = partial(store.covers, slot)
            self.monotony.observe(place, record, covers, node.world.now_ns)
            if self.on_held is not None:
                self.on_held(record)
            return applied

        store.write = noted
        evict = store._memory.evict

        def evicting(entry: Any) -> None:
            self._evicted.add((node.name, node.life, entry.version))
            evict(entry)

        store._memory.evict = evicting

    def answering(self, node: NodeProcess, asker: Process, frames: list[bytes]) -> None:
        """Note a reply of `node` on its way back to whoever asked."""
        tag = tag_of(frames[0])
        if tag in ANSWERING:
            self.answers.leaving(node, asker, frames)
        elif tag == CONVERGED_REPLY and self.on_converged is not None:
            _, said = self._codec.decode(frames)
            if isinstance(said, ConvergedReply) and said.converged:
                self.on_converged(node)

    def before(self, node: NodeProcess, asker: Process | None, frames: list[bytes]) -> None:
        """Look at a node before it takes a message of the request plane that `asker` sent.

        What it holds of the keys in a message of replication or repair is remembered.
        """
        self._message = ()
        tag = tag_of(frames[0])
        self.answers.coming_in(node, tag, asker, frames)
        if tag in REPLIES and asker is not None and asker.name in node.world.nodes:
            self.answers.silences.hears(node, node.world.nodes[asker.name], frames)
        if tag == FETCH_REPLY and asker is not None and asker.name in node.world.nodes:
            self.asking.told(node, node.world.nodes[asker.name], frames)
        if tag not in STREAMED:
            return
        try:
            records = self.records_in(frames)
        except PeerError:
            return  # Garbage by a fault; the node will see it too.
        if asker is not None and tag == REPLICATE:
            now_ns = node.world.now_ns
            self.sendings.arrived(_link(asker, node), batch_of(frames), frames[0], now_ns)
        self._message = tuple(record.key for record in records)
        self._held = [held_record(node, key) for key in self._message]

    def after(self, node: NodeProcess) -> None:
        """Compare with what it holds behind the message."""
        if not self._message or not node.alive:
            return
        now_ns = node.world.now_ns
        after = [held_record(node, key) for key in self._message]
        self.violations += monotony.check_repair(
            node.name, self._held, after, now_ns,
            lambda version: (node.name, node.life, version) in self._evicted,
        )  # fmt: skip
        for key, record in zip(self._message, after, strict=True):
            self._watch(node, key, record)
            if record is not None and self.on_held is not None:
                self.on_held(record)

    def newest(self, node: NodeProcess, key: bytes) -> Record | None:
        """Return the newest record of `key` that this life of a node is known to have held.

        Or that others have held, forgotten, and told it of; of a dead node nobody can see these.
        """
        version = self.monotony.newest((node.name, node.life, key))
        if node.alive:
            graves = dict(core_of(node).held.store.graves.lacking(slot_of(key), {}))
            version = max(version, graves.get(xxh3_64_intdigest(key), version))
        meaning = self.meanings.get(version)
        if meaning is None:
            return None
        kind = Kind.TOMBSTONE if meaning.deleted else Kind.VALUE
        return Record(key, kind, b"", version, meaning.expires_at_ms, PREV_UNKNOWN)

    def _watch(self, node: NodeProcess, key: bytes, record: Record | None) -> None:
        core = core_of(node)
        covers = partial(core.held.store.covers, slot_of(key))
        place = (node.name, node.life, key)
        self.monotony.observe(place, record, covers, node.world.now_ns)
        if record is not None:
            self.answers.held(node, record.version)

    def survey(self, node: NodeProcess, keys: Iterable[bytes]) -> dict[bytes, Record]:
        """Return what a node holds of `keys`, and note it."""
        found: dict[bytes, Record] = {}
        for key in keys:
            record = held_record(node, key)
            if record is not None:
                found[key] = record
            self._watch(node, key, record)
        self.saw(found.values())
        return found

    def saw(self, records: Iterable[Record]) -> None:
        """Note records wherever they were seen; only values and tombstones say what they mean."""
        for record in records:
            self.records += 1
            if record.kind > Kind.TOMBSTONE:
                continue
            deleted = record.kind is Kind.TOMBSTONE
            meaning = Meaning(record.key, deleted, record.value, record.expires_at_ms)
            known = self.meanings.get(record.version)
            if known is None:
                self.meanings[record.version] = meaning
                if not deleted:
                    self.versions_of.setdefault(record.value, []).append(record.version)
            elif known != meaning:
                text = f"{record.version} is {_show(known)} and {_show(meaning)}"
                self.violations.append(Violation("one version, one value", text, self.now_ns))


def _show(meaning: Meaning) -> str:
    what = "deleted" if meaning.deleted else f"{meaning.value[:24]!r}"
    return f"{meaning.key.decode(errors='replace')} = {what} until {meaning.expires_at_ms}"
