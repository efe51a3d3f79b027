"""What one client's calls ask for, and what their outcomes mean to the caller.

Arguments in, an operation out; an outcome in, a result out or an error raised. The shells only
carry the operation to the core and the outcome back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from dcc.client.arguments import (
    UNSET,
    Ttl,
    Unset,
    key_bytes,
    keys_bytes,
    node_addresses,
    quorum,
    timeout_ns,
    ttl_ms,
)
from dcc.client.many import GetEach, Written
from dcc.client.routing import View
from dcc.client.stampede import SUFFIX
from dcc.errors import InvalidKey, MaybeStored, NodeUnavailable, NotAllowed
from dcc.limits import SLOT_COUNT
from dcc.types import NO_VERSION, Version
from dcc.wire.messages import (
    Get,
    GetReply,
    Op,
    Outcome,
    StatsGet,
    Status,
    Write,
    WriteMany,
    WriteReply,
)

SCAN_SLOTS = 512
"Slots asked for in one step of a scan: a step is one call with a deadline of its own."

TAKING_AWAY = (Op.DELETE, Op.TOUCH)
"Operations that put nothing under a key."

AUDIT_SLOTS = 1_024
"Slots in one step of an audit, which nodes answer by looking at all their entries in them."


class Operations:
    """The checked options of one client, and the operations that they make of arguments."""

    def __init__(
        self,
        nodes: str | Iterable[str] | None,
        environment: str | None,
        *,
        timeout: float,
        default_ttl: Ttl,
        read: str,
        r: int | str,
        w: int | str,
        cluster: str,
    ) -> None:
        self.addresses: tuple[str, ...] = node_addresses(nodes, environment)
        self.timeout_ns: int = timeout_ns(timeout)
        self.cluster = cluster
        self._default_ttl_ms = ttl_ms(default_ttl)
        self._spread = _read_policy(read) == "any"
        self._r = quorum("r", r)
        self.w: int = quorum("w", w)
        if not isinstance(cluster, str) or not 0 < len(cluster.encode()) <= 128:
            raise ValueError("cluster: a name of 1..128 bytes")
        self.plain: bool = not self._spread and self._r == 1
        "A get that says no `r` asks one node for each key, which takes the fastest path."
        self.spreads_hot: bool = read == "auto" and self._r == 1
        "Gets of hot keys ask all owners in turn."

    def reading(self, key: str, r: int | str | Unset = UNSET) -> Get:
        """Return the operation of a read."""
        wanted = self._r if isinstance(r, Unset) else quorum("r", r)
        return Get(key=key_bytes(key), direct=self._spread, r=wanted)

    def reading_each(self, raws: Iterable[bytes], r: int | str | Unset) -> GetEach | None:
        """Return the operation of a read of many keys; None where one owner each is enough."""
        wanted = self._r if isinstance(r, Unset) else quorum("r", r)
        return None if wanted == 1 else GetEach(tuple(dict.fromkeys(raws)), wanted)

    def writing(
        self,
        op: Op,
        key: str,
        value: bytes,
        ttl: Ttl | Unset,
        *,
        w: int | str | Unset = UNSET,
        expected: Version = NO_VERSION,
        delta: int = 0,
        initial: int | None = 0,
    ) -> Write:
        """Return the operation of a write; `initial` None: an absent key stays absent."""
        raw = key_bytes(key)
        if raw.endswith(SUFFIX) and op not in TAKING_AWAY:
            raise _leases_own(raw)
        return Write(
            op=op,
            key=raw,
            value=value,
            ttl_ms=self.ttl_ms(ttl),
            w=self._acknowledged(w),
            expected=expected,
            delta=delta,
            initial=initial or 0,
            if_present=initial is None,
        )

    def writing_many(
        self, op: Op, items: dict[bytes, bytes], ttl: Ttl | Unset, w: int | str | Unset
    ) -> WriteMany:
        """Return the operation that writes all of `items`."""
        if op not in TAKING_AWAY:
            for raw in items:
                if raw.endswith(SUFFIX):
                    raise _leases_own(raw)
        listed = tuple(items.items())
        return WriteMany(
            op=op, items=listed, ttl_ms=self.ttl_ms(ttl), w=self._acknowledged(w), versions=True
        )

    def _acknowledged(self, w: int | str | Unset) -> int:
        return self.w if isinstance(w, Unset) else quorum("w", w)

    def ttl_ms(self, ttl: Ttl | Unset) -> int:
        """Return a ttl as it travels, the client's own if none was given."""
        return self._default_ttl_ms if isinstance(ttl, Unset) else ttl_ms(ttl)


def expected_version(version: Version | None) -> Version:
    """Return the condition of a replace or delete as it travels."""
    if version is not None and not isinstance(version, Version):
        raise TypeError(f"version: Version or None, got {type(version).__name__}")
    if version is not None:
        for part in version:
            if type(part) is not int:
                raise TypeError(f"version: made of ints, got {type(part).__name__}")
            if not 0 <= part < 1 << 64:
                raise ValueError(f"version: parts of 64 bits without a sign, got {version}")
        if version == NO_VERSION:
            raise ValueError("version: no entry has that of one that is not there")
    return version or NO_VERSION


def stats_question(hot_keys: bool) -> StatsGet:
    """Return the question for statistics. TypeError unless `hot_keys` is a bool."""
    if type(hot_keys) is not bool:
        raise TypeError(f"hot_keys: bool, got {type(hot_keys).__name__}")
    return StatsGet(hot_keys=hot_keys)


def names_and_raws(keys: Iterable[str]) -> tuple[list[str], list[bytes]]:
    """Return `keys` and their bytes; one str is not taken for many keys."""
    if isinstance(keys, str | bytes):
        raise TypeError("keys: an iterable of str, not one str")
    return keys_bytes(keys)


def slots_by_primary(view: View) -> list[tuple[int, ...]]:
    """Return all slots in the steps of a scan, each of slots of one primary."""
    groups: dict[str | None, list[int]] = {}
    for slot in range(SLOT_COUNT):
        groups.setdefault(view.primary(slot), []).append(slot)
    return [
        tuple(group[start : start + SCAN_SLOTS])
        for group in groups.values()
        for start in range(0, len(group), SCAN_SLOTS)
    ]


# ------------------------------------------------------------------ outcomes


def value_in(reply: GetReply) -> bytes | None:
    """Return the value of a hit, None for any other answer."""
    return reply.value if reply.status is Status.HIT else None


def version_if_done(reply: WriteReply) -> Version | None:
    """Return the version that a write with a condition got, None if it was not done."""
    return reply.version if reply.outcome is Outcome.DONE else None


def is_done(reply: WriteReply) -> bool:
    """Return whether a write that had a condition was done."""
    return reply.outcome is Outcome.DONE


def hits_by_name(
    names: Sequence[str], raws: Sequence[bytes], hits: Mapping[bytes, bytes]
) -> dict[str, bytes]:
    """Return the hits of a call of many under the names that the caller gave."""
    values = map(hits.get, raws)
    return {name: v for name, v in zip(names, values, strict=True) if v is not None}


def name_partial(error: NodeUnavailable, names: Sequence[str], raws: Sequence[bytes]) -> None:
    """Put the hits that a failed `get_many` did get under the names that the caller gave."""
    hits = error.partial if isinstance(error.partial, dict) else {}
    error.partial = hits_by_name(names, raws, hits)


def failed_names(names: Sequence[str], raws: Sequence[bytes], written: Written) -> list[str]:
    """Return the keys of a `put_many` that failed; raise the error if some are not allowed."""
    if not written.failed:
        return []
    failed = set(written.failed)
    found = [name for name, raw in zip(names, raws, strict=True) if raw in failed]
    if isinstance(written.error, NotAllowed):
        raise _not_allowed(written, found)
    return found


def deleted(names: Mapping[bytes, str], written: Written) -> int:
    """Return how many keys a `delete_many` found; raise the error if some failed."""
    if not written.failed:
        return written.done
    if isinstance(written.error, NotAllowed):
        raise _not_allowed(written, [names[raw] for raw in written.failed])
    text = f"{len(written.failed)} keys failed, {written.done} were deleted: {written.error}"
    if written.maybe:
        raise MaybeStored(text) from written.error
    error = NodeUnavailable(text)
    error.definite = not written.done
    error.partial = [names[raw] for raw in written.failed]
    raise error from written.error


def _leases_own(raw: bytes) -> InvalidKey:
    """Return the error of a write of a key that `get_or_put` uses for leases.

    A value there would keep every caller waiting for one who makes the value of another key.
    """
    return InvalidKey(f"key: {raw.decode()!r} ends with {SUFFIX.decode()!r}, as leases do")


def _not_allowed(written: Written, failed: list[str]) -> NotAllowed:
    """Return the error of a call of many keys of which some are not allowed."""
    error = NotAllowed(str(written.error))
    error.definite = not (written.done or written.maybe)
    error.partial = failed
    return error


def _read_policy(read: str) -> str:
    if not isinstance(read, str):
        raise TypeError(f'read: "auto", "primary" or "any", got {type(read).__name__}')
    if read not in ("auto", "primary", "any"):
        raise ValueError(f'read: "auto", "primary" or "any", got {read!r}')
    return read
