"""The blocking client: arguments in, one call through the core, results out.

A `Client` may be shared between threads. Calls do not hop through another thread: each borrows a
channel (sockets of its own) for as long as it lasts. A child process after fork gets its own
sockets, identity and pool, and never touches its parent's.
"""

from __future__ import annotations

import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, TypeVar

import zmq

from dcc.client.answers import (
    cluster_stats,
    convergence_of,
    entry_of,
    info_of,
    inspected,
    looked_up,
)
from dcc.client.arguments import (
    UNSET,
    Ttl,
    Unset,
    Value,
    key_bytes,
    keys_bytes,
    node_addresses,
    prefix_bytes,
    quorum,
    replica_count,
    signed_64,
    timeout_ns,
    ttl_ms,
    value_bytes,
)
from dcc.client.asks import Audited
from dcc.client.audit import Audit, compared
from dcc.client.calls import Operation
from dcc.client.channel import Channel, Pool, read_clocks
from dcc.client.core import ClientCore
from dcc.client.many import Written
from dcc.client.results import ClusterStats, Convergence, Entry, Lookup, Topology
from dcc.client.routing import View
from dcc.errors import ClientClosed, DccError, MaybeStored, NodeUnavailable
from dcc.limits import SLOT_COUNT
from dcc.types import NO_VERSION, Now, Version
from dcc.units import MILLISECOND
from dcc.wire.messages import (
    AuditGet,
    Clear,
    ConvergedGet,
    ConvergedReply,
    Get,
    GetReply,
    Inspect,
    InspectReply,
    Op,
    Outcome,
    Scan,
    SetReplicas,
    StatsGet,
    StatsReply,
    Status,
    TopologyGet,
    Write,
    WriteMany,
    WriteReply,
)

T = TypeVar("T")

SCAN_SLOTS = 512
"Slots asked for in one step of a scan: a step is one call with a deadline of its own."

AUDIT_SLOTS = 1_024
"Slots in one step of an audit, which nodes answer by looking at all their entries in them."


class Client:
    """A connection to a dcc cluster, safe to share between threads.

    >>> Client("127.0.0.1:6740", timeout=0)
    Traceback (most recent call last):
    ValueError: timeout: above 0, at most 3600.0 seconds; got 0
    """

    def __init__(
        self,
        nodes: str | Iterable[str] | None = None,
        *,
        timeout: float = 1.0,
        default_ttl: Ttl = None,
        read: str = "primary",
        r: int | str = 1,
        w: int | str = 1,
        name: str | None = None,
        cluster: str = "dcc",
    ) -> None:
        """Check the options; connections are made when first needed.

        Args:
            nodes: "host:port", several with commas, or a list of them. None: the environment
                variable DCC_NODES, else 127.0.0.1:6740. Any one that lives is enough.
            timeout: seconds; deadline of a whole call, retries included. At most 3600.
            default_ttl: seconds (int, float, timedelta) for writes that say none; None = never.
            read: "primary", or "any" to spread reads over all owners, which may lag behind.
            r: owners that must answer a read, of whom the newest version wins: a count, "quorum"
                (a majority of the copies) or "all". 1 = one owner's word, by the fastest path.
            w: owners that must have a write before it is answered: likewise; for every call that
                writes.
            name: says who this client is, for your own use.
            cluster: name of the cluster; nodes of another one refuse.

        Raises:
            TypeError, ValueError: an option of the wrong type or out of range.
        """
        self.name = name
        self._addresses = node_addresses(nodes, os.environ.get("DCC_NODES"))
        self._timeout_ns = timeout_ns(timeout)
        self._default_ttl_ms = ttl_ms(default_ttl)
        self._spread = _read_policy(read)
        self._r, self._w = quorum("r", r), quorum("w", w)
        if not isinstance(cluster, str) or not 0 < len(cluster.encode()) <= 128:
            raise ValueError("cluster: a name of 1..128 bytes")
        self._closed = False
        client_id, boot, lock = _identity()
        self._core = ClientCore(
            self._addresses,
            cluster=cluster,
            client_id=client_id,
            boot=boot,
            rng=random.Random(client_id),
            timeout_ns=self._timeout_ns,
            lock=lock,
        )
        self._pool = Pool(self._core)
        self._finalizer = weakref.finalize(self, Pool.close, self._pool)
        # At exit the sockets go with the process; waiting for other threads could hang it.
        self._finalizer.atexit = False
        _CLIENTS.add(self)

    # -------------------------------------------------------------- one key

    def get(
        self, key: str, default: bytes | None = None, *, r: int | str | Unset = UNSET
    ) -> bytes | None:
        """Return the value of `key`, or `default` if it is absent.

        Args:
            r: owners that must answer, of whom the newest version wins; unset = the client's own.

        Raises:
            QuorumNotReached: fewer than r owners are alive, or have answered.
            NodeUnavailable: no node could be reached. OperationTimeout: none answered in time.
        """
        operation = self._reading(key, r)
        if operation.direct or operation.r != 1:
            reply: GetReply = self._call(operation)
            value = reply.value if reply.status is Status.HIT else None
        else:
            value = self._borrow(lambda channel, now: channel.get(operation.key, now))
        return default if value is None else value

    def lookup(self, key: str, *, r: int | str | Unset = UNSET) -> Lookup:
        """Return how a read of `key` ends, with all that is known: never raises for a miss."""
        operation = self._reading(key, r)
        return self._borrow(lambda channel, now: self._looked_up(channel, operation, now))

    def entry(self, key: str, *, r: int | str | Unset = UNSET) -> Entry | None:
        """Return value, version, expiry and age of `key`; None if it is absent."""
        return entry_of(self.lookup(key, r=r))

    def contains(self, key: str) -> bool:
        """Return whether `key` has a value now."""
        return self.lookup(key).status == "hit"

    def __contains__(self, key: str) -> bool:
        return self.contains(key)

    def put(
        self,
        key: str,
        value: Value,
        *,
        ttl: Ttl | Unset = UNSET,
        w: int | str | Unset = UNSET,
    ) -> Version:
        """Store `value` under `key` and return the version it got.

        Args:
            ttl: seconds until it expires, above 0; None = never; unset = the client's default.
            w: owners that must have it before this returns; unset = the client's own.

        Raises:
            MaybeStored: no answer, or fewer than w owners in time; it may be stored.
            QuorumNotReached: fewer than w owners are alive; nothing was stored.
            NodeUnavailable, Overloaded, ValueTooLarge, ClockSkew: nothing was stored.
        """
        return self._write(Op.PUT, key, value_bytes(value), ttl, w=w).version

    def add(self, key: str, value: Value, *, ttl: Ttl | Unset = UNSET) -> bool:
        """Store `value` if `key` is absent; return whether it was stored. No lock: see the docs."""
        return _done(self._write(Op.ADD, key, value_bytes(value), ttl))

    def replace(
        self,
        key: str,
        value: Value,
        *,
        version: Version | None = None,
        ttl: Ttl | Unset = UNSET,
    ) -> bool:
        """Store `value` if `key` is present (and still at `version`); return whether it was."""
        if version is not None and not isinstance(version, Version):
            raise TypeError(f"version: Version or None, got {type(version).__name__}")
        expected = version or NO_VERSION
        return _done(self._write(Op.REPLACE, key, value_bytes(value), ttl, expected=expected))

    def delete(self, key: str) -> bool:
        """Delete `key`; return whether it was present."""
        return _done(self._write(Op.DELETE, key, b"", None))

    def touch(self, key: str, ttl: Ttl) -> bool:
        """Let `key` expire in `ttl` seconds from now (None = never); return whether it exists."""
        return _done(self._write(Op.TOUCH, key, b"", ttl))

    def incr(self, key: str, delta: int = 1, *, initial: int = 0, ttl: Ttl | Unset = UNSET) -> int:
        """Add `delta` to the ASCII integer of `key` and return the sum; 64 bits with a sign.

        An absent key counts as `initial`, and then takes `ttl`. NotANumber if the value is none.
        """
        signed_64("delta", delta)
        signed_64("initial", initial)
        return self._write(Op.INCR, key, b"", ttl, delta=delta, initial=initial).number

    def decr(self, key: str, delta: int = 1, *, initial: int = 0, ttl: Ttl | Unset = UNSET) -> int:
        """Subtract `delta`; otherwise as `incr`."""
        signed_64("delta", delta)
        return self.incr(key, signed_64("delta", -delta), initial=initial, ttl=ttl)

    # -------------------------------------------------------------- many keys

    def get_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Return the values of those of `keys` that are present. Not a snapshot.

        Each key is asked of one owner, its primary, whatever the client's own `r` is.

        Raises:
            NodeUnavailable: some keys could not be asked for; `.partial` has the others' hits.
        """
        names, raws = _names(keys)
        if not names:
            self._open_or_raise()
            return {}
        try:
            found = self._borrow(lambda channel, now: channel.get_many(raws, now))
        except NodeUnavailable as error:
            hits = error.partial if isinstance(error.partial, dict) else {}
            error.partial = {n: hits[r] for n, r in zip(names, raws, strict=True) if r in hits}
            raise
        values = map(found.get, raws)
        return {name: v for name, v in zip(names, values, strict=True) if v is not None}

    def put_many(self, mapping: Mapping[str, Value], *, ttl: Ttl | Unset = UNSET) -> list[str]:
        """Store all of `mapping`; return the keys that failed (and may or may not be stored)."""
        names, raws = keys_bytes(mapping)
        items = dict(zip(raws, map(value_bytes, mapping.values()), strict=True))
        written = self._write_many(Op.PUT, items, self._ttl_ms(ttl))
        if not written.failed:
            return []
        failed = set(written.failed)
        return [name for name, raw in zip(names, raws, strict=True) if raw in failed]

    def delete_many(self, keys: Iterable[str]) -> int:
        """Delete all of `keys`; return how many were present.

        Raises:
            NodeUnavailable: of some keys nothing was deleted; `.partial` lists them.
            MaybeStored: some keys may be deleted or not.
        """
        names = {raw: name for name, raw in zip(*_names(keys), strict=True)}
        written = self._write_many(Op.DELETE, dict.fromkeys(names, b""), 0)
        if written.failed:
            text = (
                f"{len(written.failed)} keys failed, {written.done} were deleted: {written.error}"
            )
            if written.maybe:
                raise MaybeStored(text) from written.error
            error = NodeUnavailable(text)
            error.definite = not written.done
            error.partial = [names[raw] for raw in written.failed]
            raise error from written.error
        return written.done

    def scan(self, prefix: str = "") -> Iterator[str]:
        """Iterate over the keys that begin with `prefix`, in no order.

        Every key that is present from beginning to end comes once; keys that come or go
        meanwhile may or may not. Each step has the client's time-out.
        """
        raw = prefix_bytes(prefix)
        return self._scanned(raw, self._slots_by_primary())

    def clear(self) -> None:
        """Make everything written so far absent in the whole cluster, at once.

        Raises:
            MaybeStored: not every live member has confirmed in time; it spreads by gossip.
        """
        self._call(Clear())

    # -------------------------------------------------------------- the cluster

    @property
    def replicas(self) -> int:
        """Copies of each key beyond the primary, cluster-wide."""
        view: View = self._call(TopologyGet())
        return view.settings.replicas

    def set_replicas(self, n: int) -> None:
        """Let the whole cluster keep `n` copies of each key beyond the primary, from now on.

        Returns once every live member knows; data then moves in the background, which
        `convergence` shows. Reads and writes go on meanwhile.

        Raises:
            ValueError: not 0..9.
            MaybeStored: not every live member has confirmed in time; it spreads by gossip.
        """
        self._call(SetReplicas(replicas=replica_count(n)))

    def converged(self) -> bool:
        """Return whether all nodes agree and every copy is known to be in its place."""
        return self.convergence().converged

    def convergence(self) -> Convergence:
        """Return whether the cluster has converged, how far it has come, and what is missing."""
        reply: ConvergedReply = self._call(ConvergedGet())
        return convergence_of(reply)

    def audit(self) -> Audit:
        """Return a comparison of what the owners of every slot hold, read from their data.

        For operators: every node looks at every entry. What differs is looked at once more, at
        the end, because writes go on meanwhile. Each of its steps has the client's time-out.
        """
        found = self._audited(range(SLOT_COUNT))
        found.merge(self._audited(found.forget_differing()))
        for node in self.topology().nodes:
            if node.standing in ("suspect", "dead"):
                found.unreachable.setdefault(node.name, node.standing)
        return found

    def topology(self) -> Topology:
        """Return the members and settings as some node sees them now."""
        view: View = self._call(TopologyGet())
        return Topology(
            epoch=view.epoch,
            replicas=view.settings.replicas,
            nodes=tuple(info_of(member) for member in view.listed),
            _owners=lambda key: tuple(member.name for member in view.owners_of(key_bytes(key))),
        )

    def stats(self) -> ClusterStats:
        """Return the statistics of every member that answers in time, and their total."""
        answers: dict[str, StatsReply | str] = self._call(StatsGet())
        return cluster_stats(answers)

    def inspect(self, key: str) -> dict[str, Entry | str | None]:
        """Return what each owner of `key` holds: an entry, None, or why there is no answer.

        A record without a value (deleted, evicted, expired) is told as text, with its version.
        """
        answers: dict[str, InspectReply | str] = self._call(Inspect(key=key_bytes(key)))
        now = self._core.cluster_ms(read_clocks())
        return {name: inspected(name, answer, now) for name, answer in answers.items()}

    def counts(self) -> dict[str, int]:
        """Return how often this client met what: late_reply, dropped, hedged,
        topology_refresh."""
        return dict(self._pool.counts)

    # -------------------------------------------------------------- life

    def close(self) -> None:
        """Close all connections; calls of other threads end with ClientClosed. May be repeated."""
        self._closed = True
        self._finalizer()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<dcc.Client {','.join(self._addresses)} {state}>"

    # -------------------------------------------------------------- inside

    def _call(self, operation: Operation) -> Any:
        """Return the outcome of `operation`, within one deadline."""
        return self._borrow(
            lambda channel, now: channel.run(
                self._core.begin(operation, now, codec=channel.codec), now
            )
        )

    def _borrow(self, use: Callable[[Channel, Now], T]) -> T:
        pool = self._pool
        now = read_clocks()
        channel = pool.take(now.mono + self._timeout_ns)
        try:
            result = use(channel, now)
        except DccError:
            pool.give(channel)
            raise
        except zmq.ContextTerminated:
            pool.discard(channel)
            closed = ClientClosed("the client was closed during the call")
            closed.definite = False
            raise closed from None
        except BaseException:
            # Interrupted somewhere between two frames: the sockets are in no known state.
            pool.discard(channel)
            raise
        pool.give(channel)
        return result

    def _looked_up(self, channel: Channel, operation: Get, now: Now) -> Lookup:
        core = self._core
        call = core.begin(operation, now, codec=channel.codec)
        reply: GetReply = channel.run(call, now)
        address, confirmed = call.answered_by()
        node = core.view.name_of(address) if core.view is not None else address
        return looked_up(reply, node, confirmed, core.cluster_ms(read_clocks()))

    def _reading(self, key: str, r: int | str | Unset) -> Get:
        wanted = self._r if isinstance(r, Unset) else quorum("r", r)
        return Get(key=key_bytes(key), direct=self._spread, r=wanted)

    def _write(
        self,
        op: Op,
        key: str,
        value: bytes,
        ttl: Ttl | Unset,
        *,
        w: int | str | Unset = UNSET,
        expected: Version = NO_VERSION,
        delta: int = 0,
        initial: int = 0,
    ) -> WriteReply:
        reply: WriteReply = self._call(
            Write(
                op=op,
                key=key_bytes(key),
                value=value,
                ttl_ms=self._ttl_ms(ttl),
                w=self._w if isinstance(w, Unset) else quorum("w", w),
                expected=expected,
                delta=delta,
                initial=initial,
            )
        )
        return reply

    def _write_many(self, op: Op, items: dict[bytes, bytes], ttl: int) -> Written:
        if not items:
            self._open_or_raise()
            return Written(0, (), frozenset(), None)
        request = WriteMany(op=op, items=tuple(items.items()), ttl_ms=ttl, w=self._w)
        written: Written = self._call(request)
        return written

    def _scanned(self, prefix: bytes, groups: list[tuple[int, ...]]) -> Iterator[str]:
        for slots in groups:
            keys: list[bytes] = self._call(Scan(slots=slots, prefix=prefix))
            for key in keys:
                yield key.decode()

    def _audited(self, slots: Iterable[int]) -> Audit:
        wanted, found = sorted(slots), Audit()
        for start in range(0, len(wanted), AUDIT_SLOTS):
            question = AuditGet(slots=tuple(wanted[start : start + AUDIT_SLOTS]))
            answers: dict[str, Audited | str] = self._call(question)
            found.merge(compared(answers))
        return found

    def _slots_by_primary(self) -> list[tuple[int, ...]]:
        """Return all slots in steps, each of slots of one primary."""
        view: View = self._core.view or self._call(TopologyGet())
        groups: dict[str | None, list[int]] = {}
        for slot in range(SLOT_COUNT):
            groups.setdefault(view.primary(slot), []).append(slot)
        return [
            tuple(group[start : start + SCAN_SLOTS])
            for group in groups.values()
            for start in range(0, len(group), SCAN_SLOTS)
        ]

    def _ttl_ms(self, ttl: Ttl | Unset) -> int:
        return self._default_ttl_ms if isinstance(ttl, Unset) else ttl_ms(ttl)

    def _open_or_raise(self) -> None:
        if self._closed:
            raise ClientClosed("the client is closed")

    def _after_fork(self) -> None:
        """Start over in a child process; the parent's sockets are kept, untouched, for ever."""
        _GRAVEYARD.append((self._core, self._pool, self._finalizer))
        self._finalizer.detach()
        client_id, boot, lock = _identity()
        self._core = self._core.heir(client_id, boot, lock)
        self._pool = Pool(self._core)
        self._finalizer = weakref.finalize(self, Pool.close, self._pool)
        self._finalizer.atexit = False
        if self._closed:
            self._finalizer()


_CLIENTS: weakref.WeakSet[Client] = weakref.WeakSet()
_GRAVEYARD: list[object] = []
"What a forked child inherited of its parents; collecting it would close the parents' sockets."


def _renew_clients() -> None:
    for client in list(_CLIENTS):
        client._after_fork()


os.register_at_fork(after_in_child=_renew_clients)


def _identity() -> tuple[int, int, threading.Lock]:
    """Return a random client id, a boot and a lock for a new core."""
    client_id = int.from_bytes(os.urandom(8), "big") or 1
    boot = (time.time_ns() // MILLISECOND << 16) | int.from_bytes(os.urandom(2), "big")
    return client_id, boot, threading.Lock()


def _read_policy(read: str) -> bool:
    if not isinstance(read, str):
        raise TypeError(f'read: "primary" or "any", got {type(read).__name__}')
    if read not in ("primary", "any"):
        raise ValueError(f'read: "primary" or "any", got {read!r}')
    return read == "any"


def _names(keys: Iterable[str]) -> tuple[list[str], list[bytes]]:
    if isinstance(keys, str | bytes):
        raise TypeError("keys: an iterable of str, not one str")
    return keys_bytes(keys)


def _done(reply: WriteReply) -> bool:
    return reply.outcome is Outcome.DONE
