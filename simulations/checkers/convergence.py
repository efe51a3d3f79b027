"""Convergence: at rest, all owners of a key hold its newest version, and nobody an older one.

Newest means the newest that any living node held, or that was in flight, when the faults ended,
or that was written since. That the owners agree is too weak: a cluster that agrees on an old
version has lost a write. Where memory is short an owner may have given up the value, but what one
node evicts is its own loss: whoever evicted nothing lacks no value that another owner holds. A node
that is no owner may hold the newest until it has let go of the
slot; an older copy would be served, or spread, when that node stands in for an owner one day.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from dcc.types import Kind, Record, Version
from simulations.history import Violation

PROMISE = "convergence"


def check(
    newest: Mapping[bytes, Record],
    owners: Mapping[bytes, Sequence[str]],
    held: Mapping[str, Mapping[bytes, Record]],
    covers: Callable[[str, bytes, Version], bool],
    *,
    may_evict: bool,
    kept_all: Callable[[str], bool] = lambda owner: False,
) -> list[Violation]:
    """Return where an owner differs from the newest version, and who else holds an older one.

    Args:
        newest: key → its newest record; EXPIRED once its time is over.
        owners: key → names of its living owners, by the one view that all share.
        held: node → key → what it holds.
        covers: whether a node's slot clock says that it has seen a version of a key: then a
            record without a value may have been forgotten.
        may_evict: memory is short, so that an owner may have given up the value.
        kept_all: whether a node has evicted nothing in this life, so that it may not.

    Complexity: O(keys x nodes).
    """
    found: list[Violation] = []
    for key, expected in sorted(newest.items()):
        at_hand = any(_is_value(held[owner].get(key), expected) for owner in owners[key])
        for owner in owners[key]:
            record = held[owner].get(key)
            may_lack = may_evict and not (at_hand and kept_all(owner))
            problem = _problem(expected, record, may_lack=may_lack)
            forgotten = record is None and covers(owner, key, expected.version)
            if forgotten and (expected.kind is not Kind.VALUE or may_lack):
                continue
            if problem:
                text = f"{key.decode()} at {owner}: {problem}, newest is {_show(expected)}"
                found.append(Violation(PROMISE, text))
        for node in sorted(held.keys() - owners[key]):
            record = held[node].get(key)
            if record is not None and record.version < expected.version:
                text = f"{key.decode()} at {node}: stale {_show(record)}, newest {_show(expected)}"
                found.append(Violation(PROMISE, text))
    return found


def _is_value(record: Record | None, expected: Record) -> bool:
    value = record is not None and record.kind is Kind.VALUE is expected.kind
    return value and record is not None and record.version == expected.version


def _problem(expected: Record, record: Record | None, *, may_lack: bool) -> str:
    if record is None:
        return "nothing held"
    if record.version != expected.version:
        return f"holds {_show(record)}"
    if expected.kind is Kind.VALUE and record.kind is not Kind.VALUE:
        return "" if may_lack and record.kind is Kind.EVICTED else f"holds {_show(record)}"
    if expected.kind is Kind.TOMBSTONE and record.kind is not Kind.TOMBSTONE:
        return f"holds {_show(record)}"
    return ""


def _show(record: Record) -> str:
    return f"{record.kind.name} {record.version}"
