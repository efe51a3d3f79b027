"""Reading or changing many keys: one message each way per node, side by side.

Keys are grouped by the node to ask and cut into chunks that fit a frame; a node has one chunk on
its way at a time, which bounds what waits for it. A chunk that was not delivered, refused, or (for
reads) not answered in time is grouped anew, now past the node that failed. Keys that a node
cannot speak for alone, and those that failed twice, are asked singly by the plans of one key,
a bounded number at a time, which know every way round.

A chunk of writes that was sent stays with its node, like a single write, and is repeated there;
what it was to write counts as failed if no answer comes, and may be stored.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from dcc.client.calls import Attempt, Call
from dcc.client.outcomes import DECIDED, error_of
from dcc.client.reads import Read
from dcc.client.writes import Change
from dcc.errors import DccError, NodeUnavailable
from dcc.limits import BATCH_BYTES, BATCH_KEYS_MAX, EXTRA_FRAMES_MAX, INLINE_VALUE_BYTES_MAX
from dcc.ring.hashing import slot_of
from dcc.types import Now
from dcc.units import MIB, NEVER
from dcc.wire.codec import Header
from dcc.wire.messages import (
    Code,
    ErrorReply,
    GetMany,
    GetManyReply,
    Message,
    Outcome,
    Status,
    Write,
    WriteMany,
    WriteManyReply,
)

CHUNK_BYTES = 3 * BATCH_BYTES
"Keys and inline values of one chunk: three quarters of the largest frame."

CHUNK_VALUE_BYTES = 4 * MIB
"Values in frames of their own in one chunk; one larger value goes alone."

ITEM_BYTES = 16
"msgpack's and the shapes' own bytes for one key and one value, rounded up."

SINGLES_MAX = 32
"Keys asked singly at a time."

GROUPED_MAX = 2
"How often a key is grouped before it is asked singly."


class Written(NamedTuple):
    """What became of a `WriteMany`."""

    done: int
    "Keys put, or found and deleted."
    failed: tuple[bytes, ...]
    "Keys of which no outcome is known, or that were refused; in the order given."
    maybe: frozenset[bytes]
    "Those of the failed that may have been written."
    error: DccError | None
    "Why the last of them failed."


@dataclass(slots=True)
class _Lane:
    """What one node is to be asked, one chunk at a time."""

    chunks: deque[tuple[bytes, ...]] = field(default_factory=deque)
    busy: bool = False


class _Lanes:
    """Groups keys by node and keeps one chunk on its way to each."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self.lanes: dict[str, _Lane] = {}
        self.grouped: dict[bytes, int] = {}
        "How often a key was grouped again; most keys never are."

    def group(self, keys: Iterable[bytes]) -> tuple[dict[str, list[bytes]], list[bytes]]:
        """Return the keys by the node to ask, and those to be asked singly."""
        view, sick = self._call.view, self._call.core.health.sick
        known = view.primaries
        groups: defaultdict[str, list[bytes]] = defaultdict(list)
        singles: list[bytes] = []
        for key in keys:
            slot = slot_of(key)
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
            count = self.grouped[key] = self.grouped.get(key, 1) + 1
            (grouped if count <= GROUPED_MAX else singles).append(key)
        return grouped, singles

    def add(self, address: str, chunks: Iterable[tuple[bytes, ...]]) -> None:
        self.lanes.setdefault(address, _Lane()).chunks.extend(chunks)

    def next_chunks(self) -> Iterator[tuple[str, tuple[bytes, ...]]]:
        """Yield what can be sent now; each chunk's lane is busy from then on."""
        for address, lane in list(self.lanes.items()):
            if lane.chunks and not lane.busy:
                lane.busy = True
                yield address, lane.chunks.popleft()

    def occupy(self, address: str) -> None:
        """Note that a chunk is on its way to `address`."""
        self.lanes.setdefault(address, _Lane()).busy = True

    def free(self, address: str) -> None:
        """Note that the chunk on its way to `address` is over."""
        self.lanes[address].busy = False

    def abandon(self, address: str) -> list[bytes]:
        """Return the keys that still wait for `address`, which failed."""
        lane = self.lanes.pop(address, None)
        return [key for chunk in lane.chunks for key in chunk] if lane else []


class ReadMany:
    """The plan of one `get_many`. Its result has the hits only."""

    def __init__(self, call: Call, keys: tuple[bytes, ...]) -> None:
        self.wake_at = NEVER
        self.done = False
        self.result: dict[bytes, bytes] = {}
        self.error: DccError | None = None
        self._call = call
        self._open = dict.fromkeys(keys)
        "Keys of which nothing is known yet."
        self._lanes = _Lanes(call)
        self._singles: deque[bytes] = deque()
        self._reads: list[Read] = []
        self._chunks: dict[int, tuple[bytes, ...]] = {}
        self._failed: dict[bytes, DccError] = {}

    def begin(self, now: Now) -> None:
        """Send the first chunk to every node concerned."""
        under_way = {key for keys in self._chunks.values() for key in keys}
        self._group([key for key in self._open if key not in under_way])
        self._advance(now)

    def resume(self, attempt: Attempt, keys: list[bytes]) -> None:
        """Take over a chunk that was sent before the call began; before `begin`."""
        self._chunks[attempt.request] = tuple(keys)
        self._lanes.occupy(attempt.address)

    def answered(self, attempt: Attempt, header: Header, message: Message, now: Now) -> None:
        """Take one part of a chunk's answer."""
        keys = self._chunks.get(attempt.request)
        if keys is None:
            return
        if isinstance(message, GetManyReply) and self._take(keys, message):
            if message.last:
                self._close(attempt)
                self._singles.extend(key for key in keys if key in self._open)
        else:
            self._call.drop(attempt)
            self._close(attempt)
            self._retry(keys)
        self._advance(now)

    def undeliverable(self, attempt: Attempt, now: Now) -> None:
        """Group the keys that were to be asked there anew."""
        keys = self._close(attempt)
        self._retry([*keys, *self._lanes.abandon(attempt.address)])
        self._advance(now)

    def silent(self, attempt: Attempt, now: Now) -> None:
        """Ask others; what the silent node still answers is taken too."""
        keys = self._chunks.get(attempt.request, ())
        self._retry([*keys, *self._lanes.abandon(attempt.address)])
        self._advance(now)

    def tick(self, now: Now) -> None:
        """See to the keys that are asked singly."""
        for read in self._reads:
            if read.wake_at <= now.mono and not read.done:
                read.tick(now)
        self._advance(now)

    def expired(self, now: Now) -> None:
        """End: keys still open have failed."""
        for read in self._reads:
            if not read.done:
                read.expired(now)
        self._harvest()
        late = NodeUnavailable("no answer in time")
        self._failed.update(dict.fromkeys(self._open, late))
        self._open.clear()
        self._end()

    def _settled(self, key: bytes) -> bool:
        """Strike `key` off the open ones; false if it was settled before."""
        known = key in self._open
        self._open.pop(key, None)
        return known

    def _take(self, keys: tuple[bytes, ...], reply: GetManyReply) -> bool:
        """Note a part's hits and misses; false if it does not fit the question."""
        part = keys[reply.first : reply.first + len(reply.statuses)]
        if len(part) != len(reply.statuses) or reply.statuses.count(0) != len(reply.values):
            return False
        if len(part) == len(reply.values):
            self.result.update(zip(part, reply.values, strict=True))
            for key in part:
                self._open.pop(key, None)
            return True
        values = iter(reply.values)
        for key, status in zip(part, reply.statuses, strict=True):
            if status == 0:
                self.result[key] = next(values)
                self._open.pop(key, None)
            elif status < Status.ELSEWHERE:
                self._open.pop(key, None)
        return True

    def _close(self, attempt: Attempt) -> tuple[bytes, ...]:
        if attempt.address in self._lanes.lanes:
            self._lanes.free(attempt.address)
        return self._chunks.pop(attempt.request, ())

    def _retry(self, keys: Iterable[bytes]) -> None:
        grouped, singles = self._lanes.again(key for key in keys if key in self._open)
        self._singles.extend(singles)
        self._group(grouped)

    def _group(self, keys: Iterable[bytes]) -> None:
        groups, singles = self._lanes.group(keys)
        self._singles.extend(singles)
        for address, group in groups.items():
            self._lanes.add(address, _key_chunks(group))

    def _advance(self, now: Now) -> None:
        self._harvest()
        for address, keys in self._lanes.next_chunks():
            attempt = self._call.ask(self, address, GetMany(keys=keys), now)
            self._chunks[attempt.request] = keys
        while self._singles and len(self._reads) < SINGLES_MAX:
            key = self._singles.popleft()
            if key in self._open:
                read = Read(self._call, key)
                self._reads.append(read)
                read.begin(now)
                self._harvest()
        self.wake_at = min((read.wake_at for read in self._reads), default=NEVER)
        if not self._open:
            self._end()

    def _harvest(self) -> None:
        for read in [one for one in self._reads if one.done]:
            self._reads.remove(read)
            if not self._settled(read.key):
                continue  # A late answer to a chunk was faster.
            if read.error is not None:
                self._failed[read.key] = read.error
            elif read.result is not None and read.result.status is Status.HIT:
                self.result[read.key] = read.result.value

    def _end(self) -> None:
        self.done = True
        if self._failed:
            first = next(iter(self._failed.values()))
            self.error = NodeUnavailable(f"{len(self._failed)} keys could not be read: {first}")
            self.error.partial = self.result


class ChangeMany:
    """The plan of one `put_many` or `delete_many`. Its result is a `Written`."""

    def __init__(self, call: Call, request: WriteMany) -> None:
        self.wake_at = NEVER
        self.done = False
        self.result: Written | None = None
        self.error: DccError | None = None
        self._call, self._request = call, request
        self._values = dict(request.items)
        self._open = dict.fromkeys(self._values)
        self._done_count = 0
        self._lanes = _Lanes(call)
        self._singles: deque[bytes] = deque()
        self._writes: list[Change] = []
        self._chunks: dict[int, WriteMany] = {}
        self._failed: dict[bytes, DccError] = {}
        self._maybe: set[bytes] = set()

    def begin(self, now: Now) -> None:
        """Send the first chunk to every node concerned."""
        self._group(self._open)
        self._advance(now)

    def answered(self, attempt: Attempt, header: Header, message: Message, now: Now) -> None:
        """Take a chunk's outcomes, or its refusal."""
        request = self._chunks[attempt.request]
        keys = [key for key, _ in request.items]
        match message:
            case WriteManyReply() if len(message.outcomes) == len(keys):
                self._close(attempt)
                self._call.core.saw(message.stamp)
                self._take(keys, message.outcomes, attempt.address)
            case ErrorReply(code=Code.MAYBE):
                self._close(attempt)
                self._lose(keys, error_of(message, attempt.address), maybe=True)
            case ErrorReply() if message.code in DECIDED:
                self._close(attempt)
                self._lose(keys, error_of(message, attempt.address), maybe=False)
            case ErrorReply() if attempt.sendings > 1:
                self._call.reopen(attempt)
            case ErrorReply():
                self._close(attempt)
                self._retry(keys)
            case _:
                self._close(attempt)
                self._lose(keys, NodeUnavailable(f"{attempt.address}: no outcomes"), maybe=True)
        self._advance(now)

    def undeliverable(self, attempt: Attempt, now: Now) -> None:
        """Group the keys anew, unless an earlier sending of them may have arrived."""
        waiting = self._lanes.abandon(attempt.address)
        if attempt.sendings == 1:
            waiting += [key for key, _ in self._close(attempt).items]
        self._retry(waiting)
        self._advance(now)

    def silent(self, attempt: Attempt, now: Now) -> None:
        """Repeat to the same life of the same node; what was not sent yet goes elsewhere."""
        self._retry(self._lanes.abandon(attempt.address))
        request = replace(self._chunks[attempt.request], boot=attempt.boot)
        self._call.repeat(attempt, request, now)
        self._advance(now)

    def tick(self, now: Now) -> None:
        """See to the keys that are written singly."""
        for write in self._writes:
            if write.wake_at <= now.mono and not write.done:
                write.tick(now)
        self._advance(now)

    def expired(self, now: Now) -> None:
        """End: keys still open have failed; those that were sent may be stored."""
        for write in self._writes:
            if not write.done:
                write.expired(now)
        self._harvest()
        late = NodeUnavailable("no answer in time")
        for request in self._chunks.values():
            self._lose([key for key, _ in request.items], late, maybe=True)
        self._lose(list(self._open), late, maybe=False)
        self._end()

    def _settled(self, key: bytes) -> bool:
        """Strike `key` off the open ones; false if it was settled before."""
        known = key in self._open
        self._open.pop(key, None)
        return known

    def _take(self, keys: list[bytes], outcomes: bytes, address: str) -> None:
        for key, outcome in zip(keys, outcomes, strict=True):
            if outcome == Outcome.DONE or outcome == Outcome.NOT_DONE:
                if self._settled(key):
                    self._done_count += outcome == Outcome.DONE
            elif outcome == Outcome.ELSEWHERE:
                self._singles.append(key)
            else:
                error = NodeUnavailable(f"{address}: stored by fewer owners than asked for")
                self._lose([key], error, maybe=True)

    def _lose(self, keys: list[bytes], error: DccError, *, maybe: bool) -> None:
        for key in keys:
            if self._settled(key):
                self._failed[key] = error
                if maybe:
                    self._maybe.add(key)

    def _close(self, attempt: Attempt) -> WriteMany:
        if attempt.address in self._lanes.lanes:
            self._lanes.free(attempt.address)
        return self._chunks.pop(attempt.request)

    def _retry(self, keys: Iterable[bytes]) -> None:
        grouped, singles = self._lanes.again(keys)
        self._singles.extend(singles)
        self._group(grouped)

    def _group(self, keys: Iterable[bytes]) -> None:
        groups, singles = self._lanes.group(keys)
        self._singles.extend(singles)
        for address, group in groups.items():
            self._lanes.add(address, _item_chunks(group, self._values))

    def _advance(self, now: Now) -> None:
        self._harvest()
        for address, keys in self._lanes.next_chunks():
            items = tuple([(key, self._values[key]) for key in keys])
            request = replace(self._request, items=items, seen=self._call.core.seen, boot=0)
            attempt = self._call.ask(self, address, request, now, patient=request.w != 1)
            self._chunks[attempt.request] = request
        while self._singles and len(self._writes) < SINGLES_MAX:
            write = Change(self._call, self._single(self._singles.popleft()))
            self._writes.append(write)
            write.begin(now)
            self._harvest()
        self.wake_at = min((write.wake_at for write in self._writes), default=NEVER)
        if not self._open:
            self._end()

    def _single(self, key: bytes) -> Write:
        request = self._request
        return Write(
            op=request.op, key=key, value=self._values[key], ttl_ms=request.ttl_ms, w=request.w
        )

    def _harvest(self) -> None:
        for write in [one for one in self._writes if one.done]:
            self._writes.remove(write)
            key = write.write.key
            if write.error is not None:
                self._lose([key], write.error, maybe=not write.error.definite)
            elif self._settled(key) and write.result is not None:
                self._done_count += write.result.outcome is Outcome.DONE

    def _end(self) -> None:
        self.done = True
        failed = tuple(key for key in self._values if key in self._failed)
        error = self._failed[failed[-1]] if failed else None
        self.result = Written(self._done_count, failed, frozenset(self._maybe), error)


def _key_chunks(keys: list[bytes]) -> Iterator[tuple[bytes, ...]]:
    if len(keys) <= BATCH_KEYS_MAX and sum(map(len, keys)) + ITEM_BYTES * len(keys) <= CHUNK_BYTES:
        yield tuple(keys)
        return
    yield from _item_chunks(keys, dict.fromkeys(keys, b""))


def _item_chunks(keys: list[bytes], values: dict[bytes, bytes]) -> Iterator[tuple[bytes, ...]]:
    """Yield `keys` cut so that each chunk with its values fits one message."""
    chunk: list[bytes] = []
    inline_bytes = value_bytes = frames = 0
    for key in keys:
        size = len(values[key])
        large = size >= INLINE_VALUE_BYTES_MAX
        item_bytes = len(key) + ITEM_BYTES + (0 if large else size)
        if chunk and (
            len(chunk) == BATCH_KEYS_MAX
            or inline_bytes + item_bytes > CHUNK_BYTES
            or (large and (frames == EXTRA_FRAMES_MAX or value_bytes + size > CHUNK_VALUE_BYTES))
        ):
            yield tuple(chunk)
            chunk, inline_bytes, value_bytes, frames = [], 0, 0, 0
        chunk.append(key)
        inline_bytes += item_bytes
        if large:
            value_bytes += size
            frames += 1
    if chunk:
        yield tuple(chunk)
