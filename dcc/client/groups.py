"""Many keys of one call, grouped by the node to ask: what reading and changing many have in common.

Keys are grouped by their primaries and cut into chunks that fit a message; a node has a bounded
number of chunks on their way at a time, which bounds what waits for it. A chunk that a node did
not take is grouped anew, now past that node. Keys that a node cannot speak for alone, and those
that were grouped in vain too often, are asked singly by the plans of one key, a bounded number
at a time, which know every way round.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from dcc.client.attempts import Attempts, Plan
from dcc.errors import DccError
from dcc.limits import (
    BATCH_BYTES,
    BATCH_KEYS_MAX,
    BATCH_WRITES_MAX,
    EXTRA_FRAMES_MAX,
    INLINE_VALUE_BYTES_MAX,
)
from dcc.ring.hashing import slots_of
from dcc.types import Now
from dcc.units import MIB, NEVER

CHUNK_BYTES = 3 * BATCH_BYTES
"Keys of one chunk of reads: three quarters of the largest frame."

WRITE_CHUNK_BYTES = BATCH_BYTES
"Keys and inline values of one chunk of writes."

WRITE_CHUNK_KEYS = BATCH_WRITES_MAX // 2
"Small enough that a node answers long before it counts as silent, by a factor of ten."

CHUNK_VALUE_BYTES = 4 * MIB
"Values in frames of their own in one chunk; one larger value goes alone."

ITEM_BYTES = 16
"msgpack's and the shapes' own bytes for one key and one value, rounded up."

SINGLES_MAX = 32
"Keys asked singly at a time."

GROUPED_MAX = 2
"How often a key is grouped before it is asked singly."


@dataclass(slots=True)
class _Lane:
    """What one node is to be asked."""

    waiting: deque[Iterator[tuple[bytes, ...]]] = field(default_factory=deque)
    "Chunks that are cut when their turn comes, so that the first is on its way soon."
    under_way: int = 0

    def next_chunk(self) -> tuple[bytes, ...] | None:
        """Return the next chunk that waits, if any."""
        while self.waiting:
            for chunk in self.waiting[0]:
                return chunk
            self.waiting.popleft()
        return None


class Lanes:
    """Groups keys by node and keeps at most `most` chunks on their way to each."""

    def __init__(self, call: Attempts, most: int) -> None:
        self._call, self._most = call, most
        self._lanes: dict[str, _Lane] = {}
        self._grouped: dict[bytes, int] = {}
        "How often a key was grouped again; most keys never are."

    def group(self, keys: Iterable[bytes]) -> tuple[dict[str, list[bytes]], list[bytes]]:
        """Return the keys by the node to ask, and those to be asked singly."""
        view, sick = self._call.view, self._call.core.health.sick
        known = view.primaries
        groups: defaultdict[str, list[bytes]] = defaultdict(list)
        singles: list[bytes] = []
        keys = list(keys)
        for key, slot in zip(keys, slots_of(keys), strict=True):
            address = known[slot] or view.primary(slot)
            if address is None or address in sick:
                targets = self._call.core.targets(slot)
                if not targets:
                    singles.append(key)
                    continue
                address = targets[0].address
            groups[address].append(key)
        return groups, singles

    def again(self, keys: Iterable[bytes]) -> tuple[list[bytes], list[bytes]]:
        """Return which of `keys` may be grouped once more, and which must go singly."""
        grouped: list[bytes] = []
        singles: list[bytes] = []
        for key in keys:
            count = self._grouped[key] = self._grouped.get(key, 1) + 1
            (grouped if count <= GROUPED_MAX else singles).append(key)
        return grouped, singles

    def add(self, address: str, chunks: Iterable[tuple[bytes, ...]]) -> None:
        """Let `chunks` wait for their turn at `address`."""
        self._lanes.setdefault(address, _Lane()).waiting.append(iter(chunks))

    def next_chunks(self) -> Iterator[tuple[str, tuple[bytes, ...]]]:
        """Yield what can be sent now; each counts as under way from then on."""
        for address, lane in list(self._lanes.items()):
            while lane.under_way < self._most and (chunk := lane.next_chunk()) is not None:
                lane.under_way += 1
                yield address, chunk

    def occupy(self, address: str) -> None:
        """Note that a chunk is on its way to `address`."""
        self._lanes.setdefault(address, _Lane()).under_way += 1

    def free(self, address: str) -> None:
        """Note that a chunk on its way to `address` is over."""
        lane = self._lanes[address]
        assert lane.under_way > 0, "a chunk ends once"
        lane.under_way -= 1

    def abandon(self, address: str) -> list[bytes]:
        """Return the keys that still wait for `address`, which failed."""
        lane = self._lanes.get(address)
        if lane is None:
            return []
        waiting = [key for chunks in lane.waiting for chunk in chunks for key in chunk]
        lane.waiting.clear()
        return waiting


class ManyKeys(ABC):
    """The common part of the plans of many keys.

    They say how keys are cut (`_cut`), how a chunk is sent (`_send`), which plan asks for one key
    (`_single`) and what its end means (`_take_single`), and how it all ends (`_end`).
    """

    def __init__(self, call: Attempts, keys: Iterable[bytes], most: int) -> None:
        self.wake_at: int = NEVER
        self.done = False
        self.result: Any = None
        self.error: DccError | None = None
        self._call = call
        self._open = dict.fromkeys(keys)
        "Keys of which nothing is known yet."
        self._failed: dict[bytes, DccError] = {}
        self._lanes = Lanes(call, most)
        self._singles: deque[bytes] = deque()
        "Keys that wait for a plan of their own."
        self._plans: dict[bytes, Plan] = {}
        "Those under way."

    def outcomes(self, keys: Iterable[bytes]) -> dict[bytes, Any]:
        """Return what is known of those of `keys` that are settled; see `Call.outcomes`."""
        return {key: self._outcome(key) for key in keys if key not in self._open}

    def tick(self, now: Now) -> None:
        """See to the keys that are asked singly."""
        for plan in self._plans.values():
            if plan.wake_at <= now.mono and not plan.done:
                plan.tick(now)
        self._advance(now)

    def _expire_singles(self, now: Now) -> None:
        for plan in self._plans.values():
            if not plan.done:
                plan.expired(now)
        self._harvest()

    def _settled(self, key: bytes) -> bool:
        """Strike `key` off the open ones; false if it was settled before."""
        known = key in self._open
        self._open.pop(key, None)
        return known

    def _retry(self, keys: Iterable[bytes]) -> None:
        grouped, singles = self._lanes.again(key for key in keys if key in self._open)
        self._singles.extend(singles)
        self._group(grouped)

    def _group(self, keys: Iterable[bytes]) -> None:
        groups, singles = self._lanes.group(keys)
        self._singles.extend(singles)
        for address, group in groups.items():
            self._lanes.add(address, self._cut(group))

    def _advance(self, now: Now) -> None:
        self._harvest()
        for address, keys in self._lanes.next_chunks():
            self._send(address, keys, now)
        while self._singles and len(self._plans) < SINGLES_MAX:
            key = self._singles.popleft()
            if key in self._open and key not in self._plans:
                plan = self._plans[key] = self._single(key)
                plan.begin(now)
                self._harvest()
        self.wake_at = min((plan.wake_at for plan in self._plans.values()), default=NEVER)
        if not self._open:
            self._end()

    def _harvest(self) -> None:
        for key in [key for key, plan in self._plans.items() if plan.done]:
            self._take_single(key, self._plans.pop(key))

    @abstractmethod
    def _outcome(self, key: bytes) -> Any:
        """Return the outcome of a key that is settled."""

    @abstractmethod
    def _cut(self, keys: list[bytes]) -> Iterable[tuple[bytes, ...]]:
        """Return the keys of one node in pieces that fit a message each."""

    @abstractmethod
    def _send(self, address: str, keys: tuple[bytes, ...], now: Now) -> None:
        """Send one piece to a node."""

    @abstractmethod
    def _single(self, key: bytes) -> Plan:
        """Return the plan by which a key goes on alone."""

    @abstractmethod
    def _take_single(self, key: bytes, plan: Plan) -> None:
        """Take what became of a key that went alone."""

    @abstractmethod
    def _end(self) -> None:
        """End the call: nothing is open any more."""


def key_chunks(keys: list[bytes]) -> Iterator[tuple[bytes, ...]]:
    """Yield `keys` cut so that each chunk fits one message."""
    if len(keys) <= BATCH_KEYS_MAX and sum(map(len, keys)) + ITEM_BYTES * len(keys) <= CHUNK_BYTES:
        yield tuple(keys)
        return
    yield from _cut(keys, dict.fromkeys(keys, b""), BATCH_KEYS_MAX, CHUNK_BYTES)


def item_chunks(keys: list[bytes], values: dict[bytes, bytes]) -> Iterator[tuple[bytes, ...]]:
    """Yield `keys` cut so that each chunk with its values is one message of writes."""
    return _cut(keys, values, WRITE_CHUNK_KEYS, WRITE_CHUNK_BYTES)


def _cut(
    keys: list[bytes], values: dict[bytes, bytes], keys_max: int, bytes_max: int
) -> Iterator[tuple[bytes, ...]]:
    start = 0
    while start < len(keys):
        chunk = keys[start : start + keys_max]
        sizes = [len(values[key]) for key in chunk]
        whole_bytes = sum(map(len, chunk)) + sum(sizes) + ITEM_BYTES * len(chunk)
        if max(sizes) >= INLINE_VALUE_BYTES_MAX or whole_bytes > bytes_max:
            chunk = chunk[: _fitting(chunk, sizes, bytes_max)]
        yield tuple(chunk)
        start += len(chunk)


def _fitting(keys: list[bytes], sizes: list[int], bytes_max: int) -> int:
    """Return how many of `keys`, one at least, fit a message with values of `sizes` bytes."""
    inline_bytes = value_bytes = frames = 0
    for count, (key, size) in enumerate(zip(keys, sizes, strict=True)):
        inline_bytes += len(key) + ITEM_BYTES
        if size < INLINE_VALUE_BYTES_MAX:
            inline_bytes += size
        else:
            value_bytes += size
            frames += 1
        too_large = value_bytes > CHUNK_VALUE_BYTES and frames > 1
        if count and (inline_bytes > bytes_max or too_large or frames > EXTRA_FRAMES_MAX):
            return count
    return len(keys)
