"""What clients do besides single gets and writes, and how it is written down.

Calls of many keys, scans, the question whether the cluster has converged, and changes of the
number of copies. Drawn from a random stream of their own, so that a workload without them is what
it was. A call of many keys makes one entry for each key: to the checkers it is many calls at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from dcc.client.many import Written
from dcc.errors import DccError
from dcc.types import NO_VERSION, Version
from dcc.wire.messages import (
    ConvergedGet,
    ConvergedReply,
    GetMany,
    Op,
    Scan,
    SetReplicas,
    Status,
    WriteMany,
)
from simulations.answers import Answer
from simulations.history import End, Entry

Rare = GetMany | WriteMany | Scan | ConvergedGet | SetReplicas

MIX: tuple[tuple[type, int], ...] = (
    (GetMany, 40), (WriteMany, 25), (ConvergedGet, 20), (Scan, 12), (SetReplicas, 3),
)  # fmt: skip
"How often each is done, in percent; without a choice of copies no one changes their number."

KEYS_MOST = 12
"Of one call."


def draw(
    rng: Random, keys: Sequence[bytes], *, slots: int, w: int, seen: int, copies: Sequence[int]
) -> Rare:
    """Return one of these operations; the values of a `WriteMany` are still empty."""
    kind = _weighted(rng)
    if kind is SetReplicas and copies:
        return SetReplicas(replicas=copies[int(rng.random() * len(copies))])
    if kind is ConvergedGet:
        return ConvergedGet()
    if kind is Scan:
        return Scan(slots=tuple(range(slots)), prefix=b"p" if rng.random() < 0.5 else b"")
    if kind is WriteMany:
        plain = [key for key in keys if key.startswith(b"p")]
        op = Op.DELETE if rng.random() < 0.2 else Op.PUT
        items = tuple((key, b"") for key in _some(rng, plain))
        return WriteMany(op=op, items=items, w=w, seen=seen, versions=True)
    return GetMany(keys=_some(rng, keys))


def _weighted(rng: Random) -> type:
    at = rng.random() * sum(weight for _, weight in MIX)
    for kind, weight in MIX:
        at -= weight
        if at < 0:
            return kind
    return GetMany


def _some(rng: Random, keys: Sequence[bytes]) -> tuple[bytes, ...]:
    count = 2 + int(rng.random() * (KEYS_MOST - 1))
    drawn = [keys[int(rng.random() * len(keys))] for _ in range(count)]
    return tuple(dict.fromkeys(drawn))


def entries(operation: Rare, blank: Entry) -> list[Entry]:
    """Return the entries of a call that begins: `blank` has who calls and when."""
    match operation:
        case GetMany():
            return [replace(blank, verb="get", key=key) for key in operation.keys]
        case WriteMany():
            verb = "put" if operation.op is Op.PUT else "delete"
            return [
                replace(blank, verb=verb, key=key, value=value, w=operation.w)
                for key, value in operation.items
            ]
        case SetReplicas():
            return [replace(blank, verb="copies", key=b"", number=operation.replicas)]
        case Scan():
            return [replace(blank, verb="scan", key=operation.prefix)]
        case ConvergedGet():
            return [replace(blank, verb="converged", key=b"")]


def ended(
    begun: Sequence[Entry],
    outcome: Any,
    error: DccError | None,
    answers: Sequence[Answer],
    versions_of: Mapping[bytes, Sequence[Version]],
) -> None:
    """Write down how a call ended; `versions_of` tells under which versions values were stored."""
    for entry in begun:
        if error is not None:
            harmless = entry.verb in ("get", "scan", "converged")
            entry.end = End.FAILED if error.definite or harmless else End.UNKNOWN
            entry.error = type(error).__name__
        elif isinstance(outcome, Written):
            _written(entry, outcome, versions_of)
        elif entry.verb == "get":
            read(entry, outcome, answers, versions_of)
        elif isinstance(outcome, ConvergedReply):
            entry.end, entry.status = End.OK, str(outcome.converged).lower()
        elif entry.verb == "scan":
            entry.end, entry.status, entry.listed = End.OK, "listed", tuple(outcome)
            entry.told = tuple([one for one in answers if one.key.startswith(entry.key)])
        else:
            entry.end, entry.status = End.OK, "done"


def _written(
    entry: Entry, written: Written, versions_of: Mapping[bytes, Sequence[Version]]
) -> None:
    if entry.key in written.failed:
        entry.end = End.UNKNOWN if entry.key in written.maybe else End.FAILED
        entry.error = type(written.error).__name__
        return
    versions = versions_of.get(entry.value, ())
    # The reply names no versions, so what was deleted may have been deleted at any of them.
    known = entry.verb == "put" and len(versions) > 0
    entry.end, entry.status = (End.OK if known else End.UNKNOWN), "done"
    entry.version = versions[0] if known else NO_VERSION


def read(
    entry: Entry,
    hits: Mapping[bytes, bytes],
    answers: Sequence[Answer],
    versions_of: Mapping[bytes, Sequence[Version]],
) -> None:
    """Write down what a read found that tells the value alone."""
    mine = [answer for answer in answers if answer.key == entry.key]
    entry.end, entry.found = End.OK, hits.get(entry.key)
    if entry.found is None:
        sure = [answer for answer in mine if answer.status is Status.MISS]
        entry.status, entry.answer = ("miss", sure[-1]) if sure else ("unsure", None)
        return
    entry.status = "hit"
    versions = versions_of.get(entry.found, ())
    found = [one for one in mine if one.status is Status.HIT and one.version in versions]
    if found:
        entry.answer, entry.version = found[-1], found[-1].version
    elif versions:
        entry.version = versions[-1]
