"""Reading or changing many keys: one message each way per node, side by side; see `groups`.

A chunk of reads that was not delivered, refused or not answered in time is asked of others.

A chunk of writes that was sent stays with its node, like a single write, and is repeated there;
what it was to write counts as failed if no answer comes, and may be stored. Chunks of writes are
small, and a node has two of them: one at work, one that waits for it. So each is answered soon,
and every answer is a sign of life for the other: a node that has much to do but gets on with it
is waited for, and what is not done at the deadline is told key by key.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from dcc.client.attempts import Attempt, Attempts, Plan
from dcc.client.groups import ManyKeys, item_chunks, key_chunks
from dcc.client.outcomes import DECIDED, error_of
from dcc.client.reads import Read
from dcc.client.writes import Change
from dcc.errors import DccError, MaybeStored, NodeUnavailable, NotAllowed, OperationTimeout
from dcc.types import NO_VERSION, Now, Version
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

READS_AT_ONCE = 1
WRITES_AT_ONCE = 2
"Chunks on their way to one node."


class GetEach(NamedTuple):
    """What a call of many keys is begun with whose reads want several owners each."""

    keys: tuple[bytes, ...]
    r: int
    "Owners that must answer for each key, as it travels."


class Written(NamedTuple):
    """What became of a `WriteMany`."""

    done: int
    "Keys put, or found and deleted."
    failed: tuple[bytes, ...]
    "Keys of which no outcome is known, or that were refused; in the order given."
    maybe: frozenset[bytes]
    "Those of the failed that may have been written."
    error: DccError | None
    "Why the last of them failed; `NotAllowed` if any of them was not."


class ReadMany(ManyKeys):
    """The plan of one `get_many`. Its result has the hits only."""

    def __init__(self, call: Attempts, keys: tuple[bytes, ...]) -> None:
        super().__init__(call, keys, READS_AT_ONCE)
        self.result: dict[bytes, bytes] = {}
        self._chunks: dict[int, tuple[bytes, ...]] = {}
        self._silent: set[int] = set()
        "Requests that are not waited for any more, though an answer would be taken."

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
        keys = self._chunks[attempt.request]
        if isinstance(message, GetManyReply) and self._take(keys, message, header.epoch):
            if message.hot:
                self._call.core.hot.note([key for key in message.hot if key in keys], now.mono)
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
        keys = self._chunks[attempt.request]
        self._lanes.free(attempt.address)
        self._silent.add(attempt.request)
        self._retry(keys)
        self._group(self._lanes.abandon(attempt.address))
        self._advance(now)

    def expired(self, now: Now) -> None:
        """End: keys still open have failed."""
        self._expire_singles(now)
        sent = {key for keys in self._chunks.values() for key in keys}
        late = OperationTimeout("no node answered in time")
        never = NodeUnavailable("no node could be reached in time")
        self._failed.update({key: late if key in sent else never for key in self._open})
        self._open.clear()
        self._end()

    def _outcome(self, key: bytes) -> bytes | DccError | None:
        error = self._failed.get(key)
        return error.again() if error is not None else self.result.get(key)

    def _take(self, keys: tuple[bytes, ...], reply: GetManyReply, epoch: int) -> bool:
        """Note a part's hits and misses; false if it does not fit the question.

        What is unsure to a node that sees another ring is asked singly, so of other owners too.
        """
        part = keys[reply.first : reply.first + len(reply.statuses)]
        if len(part) != len(reply.statuses) or reply.statuses.count(0) != len(reply.values):
            return False
        hits = [key for key, status in zip(part, reply.statuses, strict=True) if status == 0]
        # A node that tells no stamps may serve what it likes of keys of which nothing is known.
        stamps = reply.stamps or (0,) * len(hits)
        core = self._call.core
        core.saw(max(stamps, default=0))
        for key, value, stamp in zip(hits, reply.values, stamps, strict=True):
            if stamp >= core.outlived.known(key):
                self.result[key] = value
                self._open.pop(key, None)
        core.outlived.note_all(zip(hits, stamps, strict=True))
        settled = Status.UNSURE if epoch == self._call.view.epoch else Status.MISS
        for key, status in zip(part, reply.statuses, strict=True):
            if status == 0:
                continue
            if status <= settled:
                self._open.pop(key, None)
        return True

    def _close(self, attempt: Attempt) -> tuple[bytes, ...]:
        if attempt.request not in self._silent:
            self._lanes.free(attempt.address)
        return self._chunks.pop(attempt.request)

    def _cut(self, keys: list[bytes]) -> Iterable[tuple[bytes, ...]]:
        return key_chunks(keys)

    def _send(self, address: str, keys: tuple[bytes, ...], now: Now) -> None:
        attempt = self._call.ask(self, address, GetMany(keys=keys), now)
        self._chunks[attempt.request] = keys

    def _single(self, key: bytes) -> Plan:
        return Read(self._call, key)

    def _take_single(self, key: bytes, plan: Plan) -> None:
        if not self._settled(key):
            return  # A late answer to a chunk was faster.
        if plan.error is not None:
            self._failed[key] = plan.error
        elif plan.result is not None and plan.result.status is Status.HIT:
            self.result[key] = plan.result.value

    def _end(self) -> None:
        self.done = True
        if self._failed:
            errors = list(self._failed.values())
            self.error = next((one for one in errors if isinstance(one, NotAllowed)), None)
            if self.error is not None:  # It does not pass with time, unlike all others.
                return
            text = f"{len(errors)} keys could not be read: {errors[0]}"
            self.error = missing = NodeUnavailable(text)
            missing.partial, missing.__cause__ = self.result, errors[0]


class ReadEach(ReadMany):
    """The plan of a `get_many` that wants several owners: each key is read by a plan of its own.

    A message for each key, since the node asked puts each question to other owners.
    """

    def __init__(self, call: Attempts, wanted: GetEach) -> None:
        super().__init__(call, wanted.keys)
        self._r = wanted.r

    def begin(self, now: Now) -> None:
        """Begin with the first keys."""
        self._singles.extend(self._open)
        self._advance(now)

    def _single(self, key: bytes) -> Plan:
        return Read(self._call, key, r=self._r)


class ChangeMany(ManyKeys):
    """The plan of one `put_many` or `delete_many`. Its result is a `Written`."""

    def __init__(self, call: Attempts, request: WriteMany) -> None:
        self._values = dict(request.items)
        super().__init__(call, self._values, WRITES_AT_ONCE)
        self._request = request
        self._done_count = 0
        self._chunks: dict[int, WriteMany] = {}
        self._maybe: set[bytes] = set()
        self._versions: dict[bytes, Version] = {}
        "Of the keys that were written, if the request asks for them."

    def begin(self, now: Now) -> None:
        """Send the first chunks to every node concerned."""
        self._group(self._open)
        self._advance(now)

    def answered(self, attempt: Attempt, header: Header, message: Message, now: Now) -> None:
        """Take a chunk's outcomes, or its refusal."""
        request = self._chunks[attempt.request]
        keys = [key for key, _ in request.items]
        self._call.bear_with(attempt.address, now)
        match message:
            case WriteManyReply() if len(message.outcomes) == len(keys):
                self._close(attempt)
                self._call.core.saw(message.stamp)
                self._take(keys, message.outcomes, attempt.address)
                self._call.core.outlived.note_all(zip(keys, message.stamps, strict=False))
                if message.stamps:
                    versions = [Version(s, header.sender, header.boot) for s in message.stamps]
                    self._versions.update(zip(keys, versions, strict=True))
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
        if attempt.sendings <= 1:
            waiting += [key for key, _ in self._close(attempt).items]
        self._retry(waiting)
        self._advance(now)

    def silent(self, attempt: Attempt, now: Now) -> None:
        """Repeat to the same life of the same node; what was not sent yet may go elsewhere."""
        if attempt.address in self._call.core.health.sick:
            self._group(self._lanes.abandon(attempt.address))
        request = replace(self._chunks[attempt.request], boot=attempt.boot)
        self._call.repeat(attempt, request, now)
        self._advance(now)

    def expired(self, now: Now) -> None:
        """End: keys still open have failed; those that were sent may be stored."""
        self._expire_singles(now)
        late = NodeUnavailable("no answer in time")
        for number, request in self._chunks.items():
            sent = self._call.was_sent(number)
            self._lose([key for key, _ in request.items], late, maybe=sent)
        self._lose(list(self._open), late, maybe=False)
        self._end()

    def _outcome(self, key: bytes) -> Version | DccError:
        error = self._failed.get(key)
        if error is None:
            return self._versions.get(key, NO_VERSION)
        if key in self._maybe and error.definite:
            return MaybeStored(f"the write may be stored: {error}")
        return error.again()

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
        self._lanes.free(attempt.address)
        return self._chunks.pop(attempt.request)

    def _cut(self, keys: list[bytes]) -> Iterable[tuple[bytes, ...]]:
        return item_chunks(keys, self._values)

    def _send(self, address: str, keys: tuple[bytes, ...], now: Now) -> None:
        items = tuple([(key, self._values[key]) for key in keys])
        request = replace(self._request, items=items, seen=self._call.core.seen, boot=0)
        patient = request.w != 1
        attempt = self._call.ask(self, address, request, now, patient=patient, knocks=True)
        self._chunks[attempt.request] = request

    def _single(self, key: bytes) -> Plan:
        request = self._request
        value, ttl_ms = self._values[key], request.ttl_ms
        write = Write(op=request.op, key=key, value=value, ttl_ms=ttl_ms, w=request.w)
        return Change(self._call, write)

    def _take_single(self, key: bytes, plan: Plan) -> None:
        if plan.error is not None:
            self._lose([key], plan.error, maybe=not plan.error.definite)
        elif self._settled(key) and plan.result is not None:
            self._done_count += plan.result.outcome is Outcome.DONE
            if self._request.versions:
                self._versions[key] = plan.result.version

    def _end(self) -> None:
        self.done = True
        failed = tuple(key for key in self._values if key in self._failed)
        errors = [self._failed[key] for key in failed]
        # What is not allowed does not pass with time, unlike all else.
        lasting = [one for one in errors if isinstance(one, NotAllowed)]
        error = (lasting or errors or [None])[-1]
        self.result = Written(self._done_count, failed, frozenset(self._maybe), error)
