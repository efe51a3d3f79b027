"""What one node's data plane shares: view, store, clock, intake of foreign records, request ids.

`Holdings` decides nothing; it exists so that coordinator, streams and exchange speak of the same
slot map and the same store. `Instant` is one turn's time for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import NamedTuple

from xxhash import xxh3_64_intdigest

from dcc.clock import ClusterClock
from dcc.config import NodeConfig
from dcc.effects import Answer, Effect, Tell
from dcc.replication.intake import Intake, uncounted
from dcc.replication.unasked import Unasked
from dcc.replication.view import View
from dcc.ring.hashing import slot_of
from dcc.store.clocks import digest_of
from dcc.store.store import Store
from dcc.types import Boot, NodeKey, Origin, Record
from dcc.wire.messages import Message


class Instant(NamedTuple):
    """One turn's time."""

    mono: int
    "Monotonic ns: timers and deadlines."
    ms: int
    "Cluster ms: stamps, expiry, deadlines that travel."


class Asker(NamedTuple):
    """Where the answer to a request goes."""

    route: bytes
    "The ROUTER's routing id of a client; empty when a node forwarded the request."
    peer: NodeKey
    "The node that forwarded it; 0 for a client."
    request: int
    "The asker's own number for it."
    command: str = ""
    began_at: int = 0
    "Monotonic ns; with the command what latency is counted under."

    def answer(self, message: Message) -> Effect:
        """Return the effect that sends `message` back as the answer."""
        if self.peer:
            return Tell(self.peer, message, self.request)
        return Answer(self.route, message, self.request, self.command, self.began_at)


class Holdings:
    """The parts of one node that its data-plane machines share."""

    def __init__(
        self,
        config: NodeConfig,
        *,
        key: NodeKey,
        boot: Boot,
        clock: ClusterClock,
        requests_from: int = 0,
        refused: Callable[[str], None] = uncounted,
    ) -> None:
        self.config = config
        self.key: NodeKey = key
        self.boot: Boot = boot
        self.origin: Origin = (key, boot)
        self.clock = clock
        self.view: View = View(key)
        self.store: Store = Store(
            memory_limit_bytes=config.memory_limit_bytes,
            eviction=config.eviction,
            value_bytes_max=config.value_bytes_max,
        )
        self.intake: Intake = Intake(self.view, self.store, clock, refused)
        self.unasked: Unasked = Unasked(self.view, self.store, self.origin)
        # Ids of an earlier boot must not meet those of this one, and nobody is to guess what is
        # asked: an answer that names the right id is believed. So they begin anywhere.
        self._request = requests_from

    def records_of(self, key: bytes) -> tuple[Record, ...]:
        """Return what is held of `key`, valueless records included: none or one record."""
        entry = self.store.peek(slot_of(key), key)
        if entry is None or entry.version.stamp <= self.store.cleared:
            return ()
        return (entry.record(),)

    def next_request(self) -> int:
        """Return a request id that this boot has not used."""
        self._request += 1
        return self._request

    def digest(self, slot: int) -> int:
        """Return the digest of what was seen of a slot: equal to nobody's while it is put aside."""
        seen = self.store.comparison.digest(slot)
        aside = slot in self.unasked.aside
        return digest_of([seen, self.key, self.boot]) if aside else seen


def secret(rng: Random) -> int:
    """Return 62 bits that nobody can guess; the generator goes on as if it was not asked."""
    return xxh3_64_intdigest(repr(rng.getstate()).encode()) >> 2
