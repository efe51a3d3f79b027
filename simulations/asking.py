"""What nodes were told of keys by those whom they asked, and what they have made of it.

A node that may have missed writes asks the others before it makes anything of a value: touches it,
or replaces it. One of them may have forgotten by then what it deleted; but if it has
seen the value, too, it can say that this is gone. The observer remembers what each life of a node
has held, also what that node has forgotten.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from dcc.errors import PeerError
from dcc.types import Kind, Record, Version
from dcc.units import MILLISECOND
from dcc.wire.codec import Codec
from dcc.wire.messages import Fetch

if TYPE_CHECKING:
    from simulations.processes import NodeProcess

RECENT_NS = 300 * MILLISECOND
"An answer that came within so long before a write is one to a question that the write has put."

QUESTIONS_MAX = 4_096

Newest = Callable[["NodeProcess", bytes], Record | None]
HeldSince = Callable[["NodeProcess", Version], int]
HasSeen = Callable[["NodeProcess", Record], bool]


class _Told(NamedTuple):
    by: NodeProcess
    life: int
    asked_ns: int
    answered_ns: int


class Asking:
    """Notes questions between nodes as they leave, and their answers as they come in."""

    def __init__(
        self, codec: Codec, newest: Newest, held_since: HeldSince, has_seen: HasSeen
    ) -> None:
        self._codec, self._newest, self._held_since = codec, newest, held_since
        self._has_seen = has_seen
        self._asked: dict[tuple[str, int, str, int], tuple[bytes, int]] = {}
        "Who asks and its life, who is asked, the number → the key, and when."
        self._told: dict[tuple[str, int, bytes], dict[str, _Told]] = {}
        self.made_of_gone: dict[Version, str] = {}
        "Versions stamped over a value by a node that was answered by who had seen it deleted."

    def asks(self, node: NodeProcess, of: NodeProcess, frames: list[bytes]) -> None:
        """Note that `node` asks another one about a key."""
        header, message = self._codec.decode(frames)
        assert isinstance(message, Fetch)
        while len(self._asked) >= QUESTIONS_MAX:
            del self._asked[next(iter(self._asked))]
        question = (node.name, node.life, of.name, header.request)
        self._asked[question] = (message.key, node.world.now_ns)

    def told(self, node: NodeProcess, by: NodeProcess, frames: list[bytes]) -> None:
        """Note the answer that `node` is about to take."""
        try:
            header, _ = self._codec.decode(frames)
        except PeerError:
            return  # Garbage by a fault.
        asked = self._asked.pop((node.name, node.life, by.name, header.request), None)
        if asked is not None:
            key, asked_ns = asked
            answers = self._told.setdefault((node.name, node.life, key), {})
            answers[by.name] = _Told(by, by.life, asked_ns, node.world.now_ns)

    def writes(self, node: NodeProcess, held: Record | None, record: Record) -> None:
        """Note a version that `node` stamps, beside what it `held` of the key until then."""
        if held is None or held.kind is not Kind.VALUE or record.kind is not Kind.VALUE:
            return
        now_ns = node.world.now_ns
        for told in self._told.get((node.name, node.life, record.key), {}).values():
            if told.life != told.by.life or told.answered_ns + RECENT_NS < now_ns:
                continue
            newest = self._newest(told.by, record.key)
            if newest is None or newest.kind is not Kind.TOMBSTONE or newest.version < held.version:
                continue
            if not self._has_seen(told.by, held):
                continue  # It cannot tell of what it has forgotten whether it was that key.
            if self._held_since(told.by, newest.version) < told.asked_ns:
                text = f"{held.version} at {node.name}, deleted by {newest.version}"
                self.made_of_gone[record.version] = f"{text}, as {told.by.name} has told"
