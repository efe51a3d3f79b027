"""The blocking client: arguments in, one call through the core, results out.

A `Client` may be shared between threads. Calls do not hop through another thread: each borrows a
channel (sockets of its own) for as long as it lasts.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, NoReturn, TypeVar, overload

from dcc.client import hotpath
from dcc.client.answers import (
    cluster_stats,
    convergence_of,
    entry_of,
    inspected,
    looked_up,
    topology_of,
)
from dcc.client.arguments import (
    UNSET,
    Quorum,
    ReadPolicy,
    Ttl,
    Unset,
    Value,
    key_bytes,
    keys_bytes,
    prefix_bytes,
    refuse_pickling,
    replica_count,
    value_bytes,
)
from dcc.client.audit import Audit
from dcc.client.calls import Operation, command_of
from dcc.client.channel import Channel
from dcc.client.core import ClientCore
from dcc.client.counting import CountsNumbers
from dcc.client.events import Events
from dcc.client.keywords import EventHook
from dcc.client.lending import Lender
from dcc.client.link import read_clocks
from dcc.client.listener import NearReads, near_reads
from dcc.client.making import MakesValues
from dcc.client.many import Written
from dcc.client.near import NearCache
from dcc.client.operations import (
    Operations,
    deleted,
    expected_version,
    failed_names,
    hits_by_name,
    is_done,
    name_partial,
    names_and_raws,
    stats_question,
    value_in,
    version_if_done,
)
from dcc.client.pool import Pool
from dcc.client.results import ClusterStats, Convergence, Entry, Latency, Lookup, Topology
from dcc.client.routing import View
from dcc.client.sweeps import WHOLE, audited, scanned
from dcc.errors import ClientClosed, NodeUnavailable
from dcc.keys import client_keys, no_keys
from dcc.types import Now, Version
from dcc.wire.messages import (
    Clear,
    ConvergedGet,
    ConvergedReply,
    Get,
    GetReply,
    Inspect,
    InspectReply,
    Op,
    SetReplicas,
    StatsReply,
    TopologyGet,
    WriteReply,
)

D = TypeVar("D")


class Client(CountsNumbers, MakesValues):
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
        read: ReadPolicy = "auto",
        r: Quorum = 1,
        w: Quorum = 1,
        name: str | None = None,
        cluster: str = "dcc",
        keys: str | os.PathLike[str] | None = None,
        near_cache: NearCache | None = None,
        on_event: EventHook | None = None,
    ) -> None:
        """Check the options; connections are made when first needed.

        Args:
            nodes: "host:port", several with commas, or a list of them. None: the environment
                variable DCC_NODES, else 127.0.0.1:6740. Any one that lives is enough.
            timeout: seconds; deadline of a whole call, retries included. At most 3600.
            default_ttl: seconds (int, float, timedelta) for writes that say none; None = never.
            read: "primary"; or "any" to spread reads over all owners, which may lag behind; or
                "auto" to spread those of hot keys alone (docs/hot-keys.md). With a near cache
                "auto" is "primary".
            r: owners that must answer a read, of whom the newest version wins: a count, "quorum"
                (a majority of the copies) or "all". 1 = one owner's word, by the fastest path.
            w: owners that must have a write before it is answered: likewise; for every call that
                writes.
            name: says who this client is, for your own use; with `keys`, whose key it uses.
            cluster: name of the cluster; nodes of another one refuse.
            keys: directory of key files, read again when they change (docs/security.md). None: the
                environment variable DCC_KEYS, else no keys. Without `name` there must be one
                private key of a client or administrator in it.
            near_cache: keeps copies in this process, see docs/near-cache.md; None = no copies.
            on_event: called with the name and the fields of what befalls calls, in their threads
                and before they end; it should be quick. See docs/observability.md.

        Raises:
            TypeError, ValueError: an option of the wrong type or out of range.
            ConfigError: a key file is missing or wrong, or others may read a private one.
        """
        self.name = name
        self._ops = Operations(
            nodes, os.environ.get("DCC_NODES"), timeout=timeout, default_ttl=default_ttl,
            read=read, r=r, w=w, cluster=cluster,
        )  # fmt: skip
        self._lender = Lender(
            self._ops.addresses, cluster, self._ops.timeout_ns, Events(on_event),
            client_keys(keys, os.environ.get("DCC_KEYS"), name),
        )  # fmt: skip
        self._near = near_reads(
            near_cache, self._ops, keyed=self._lender.pool().keys is not no_keys
        )
        self._core.hot.enabled = self._ops.spreads_hot and self._near is None
        if self._near is not None:
            self._near.follow(self._core)
        # At exit the sockets go with the process.
        weakref.finalize(self, Lender.close, self._lender).atexit = False

    # -------------------------------------------------------------- one key

    @overload
    def get(self, key: str, default: None = None, *, r: Quorum | Unset = UNSET) -> bytes | None: ...
    @overload
    def get(self, key: str, default: D, *, r: Quorum | Unset = UNSET) -> bytes | D: ...
    def get(self, key: str, default: object = None, *, r: Quorum | Unset = UNSET) -> object:
        """Return the value of `key`, or `default` if it is absent.

        Args:
            r: owners that must answer, of whom the newest version wins; unset = the client's own.

        Raises:
            QuorumNotReached: fewer than r owners are alive, or have answered.
            NodeUnavailable: no node could be reached.
            OperationTimeout: none answered in time.
        """
        if r is UNSET and self._ops.plain:
            if self._near is not None:
                value = self._near.find(key, time.monotonic_ns())
                if value is None:
                    value = self._read_near(self._near, key)
            else:
                value = self._lender.borrow("get", hotpath.get, key_bytes(key))
        else:
            operation = self._ops.reading(key, r)
            if operation.direct or operation.r != 1:
                reply: GetReply = self._call(operation)
                value = value_in(reply)
            else:
                value = self._lender.borrow("get", hotpath.get, operation.key)
        return default if value is None else value

    def lookup(self, key: str, *, r: Quorum | Unset = UNSET) -> Lookup:
        """Return how a read of `key` ends, with all that is known: never raises for a miss."""
        operation = self._ops.reading(key, r)
        return self._lender.borrow("get", _looked_up, operation)

    def entry(self, key: str, *, r: Quorum | Unset = UNSET) -> Entry | None:
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
        w: Quorum | Unset = UNSET,
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

    def add(
        self, key: str, value: Value, *, ttl: Ttl | Unset = UNSET, w: Quorum | Unset = UNSET
    ) -> bool:
        """Store `value` if `key` is absent; return whether it was stored. No lock: see the docs."""
        return is_done(self._write(Op.ADD, key, value_bytes(value), ttl, w=w))

    def replace(
        self,
        key: str,
        value: Value,
        *,
        version: Version | None = None,
        ttl: Ttl | Unset = UNSET,
        w: Quorum | Unset = UNSET,
    ) -> Version | None:
        """Store `value` if `key` is present (and still at `version`); return its new version.

        None if nothing was stored, which is the only result that is false.
        """
        more = {"expected": expected_version(version), "w": w}
        reply = self._write(Op.REPLACE, key, value_bytes(value), ttl, **more)
        return version_if_done(reply)

    def delete(
        self, key: str, *, version: Version | None = None, w: Quorum | Unset = UNSET
    ) -> bool:
        """Delete `key` if it is present (and still at `version`); return whether it was.

        With a version, a key of which nobody can be sure just now counts as absent.
        """
        expected = expected_version(version)
        return is_done(self._write(Op.DELETE, key, b"", None, expected=expected, w=w))

    def touch(self, key: str, ttl: Ttl, *, w: Quorum | Unset = UNSET) -> bool:
        """Let `key` expire in `ttl` seconds from now (None = never); return whether it exists."""
        return is_done(self._write(Op.TOUCH, key, b"", ttl, w=w))

    # -------------------------------------------------------------- many keys

    def get_many(self, keys: Iterable[str], *, r: Quorum | Unset = UNSET) -> dict[str, bytes]:
        """Return the values of those of `keys` that are present. Not a snapshot.

        Args:
            r: owners that must answer for each key, as for `get`; unset = the client's own. With
                1 a node is asked for all its keys by one message, else for each by one of its own.

        Raises:
            NodeUnavailable: some keys could not be asked for, or not of r owners; `.partial` has
                the others' hits.
        """
        names, raws = names_and_raws(keys)
        each = self._ops.reading_each(raws, r)
        if not names:
            self._open_or_raise()
            return {}
        if self._near is not None and self._ops.plain and r is UNSET:
            near = self._near.find_many(names)
            if near:
                return near | self.get_many([name for name in names if name not in near])
        try:
            if each is not None:
                found: dict[bytes, bytes] = self._call(each)
            else:
                found = self._lender.borrow("get_many", hotpath.get_many, raws)
        except NodeUnavailable as error:
            name_partial(error, names, raws)
            raise
        return hits_by_name(names, raws, found)

    def put_many(
        self,
        mapping: Mapping[str, Value],
        *,
        ttl: Ttl | Unset = UNSET,
        w: Quorum | Unset = UNSET,
    ) -> list[str]:
        """Store all of `mapping`; return the keys that failed (and may or may not be stored).

        NotAllowed: this client's key does not allow some of them; `.partial` lists the failed.
        """
        names, raws = keys_bytes(mapping)
        items = dict(zip(raws, map(value_bytes, mapping.values()), strict=True))
        written = self._write_many(Op.PUT, items, ttl, w)
        return failed_names(names, raws, written)

    def delete_many(self, keys: Iterable[str], *, w: Quorum | Unset = UNSET) -> int:
        """Delete all of `keys`; return how many were present.

        Raises:
            NodeUnavailable: of some keys nothing was deleted; `.partial` lists them.
            MaybeStored: some keys may be deleted or not.
        """
        names = {raw: name for name, raw in zip(*names_and_raws(keys), strict=True)}
        written = self._write_many(Op.DELETE, dict.fromkeys(names, b""), None, w)
        return deleted(names, written)

    def scan(self, prefix: str = "") -> Iterator[str]:
        """Iterate over the keys that begin with `prefix`, in no order.

        Every key that is present from beginning to end comes once; keys that come or go
        meanwhile may or may not. Each step has the client's time-out.
        """
        raw = prefix_bytes(prefix)
        view: View = self._core.view or self._call(TopologyGet())
        return scanned(self._call, raw, view)

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
        found = audited(self._call, WHOLE)
        found.merge(audited(self._call, found.forget_differing()))
        for node in self.topology().nodes:
            if node.standing in ("suspect", "dead"):
                found.unreachable.setdefault(node.name, node.standing)
        return found

    def topology(self) -> Topology:
        """Return the members and settings as some node sees them now."""
        return topology_of(self._call(TopologyGet()))

    def stats(self, *, hot_keys: bool = False) -> ClusterStats:
        """Return the statistics of every member that answers in time, and their total.

        Args:
            hot_keys: with the keys that are read most, for `ClusterStats.hot_keys`.

        Raises:
            NotAllowed: the key of this client is bound to some keys, and it wants the hot ones.
        """
        answers: dict[str, StatsReply | str] = self._call(stats_question(hot_keys))
        return cluster_stats(answers)

    def inspect(self, key: str) -> dict[str, Entry | str | None]:
        """Return what each owner of `key` holds: an entry, None, or why there is no answer.

        A record without a value (deleted, evicted, expired) is told as text, with its version.
        """
        answers: dict[str, InspectReply | str] = self._call(Inspect(key=key_bytes(key)))
        now = self._core.cluster_ms(read_clocks())
        return {name: inspected(name, answer, now) for name, answer in answers.items()}

    def counts(self) -> dict[str, int]:
        """Return how often this client met what, in this process: events (late_reply, dropped,
        hedged, stale_refused, topology_refresh, not_opened), spread_reads of hot keys, and errors
        by the names of classes."""
        counts = self._pool.events.counts | self._core.hot.counts()
        return counts if self._near is None else counts | self._near.near.counts()

    def latencies(self) -> dict[str, Latency]:
        """Return how long the calls of this process have taken, by command.

        Commands are get, get_many, put, add, replace, delete, touch, incr, write_many, other.
        """
        return self._core.timings.latencies()

    # -------------------------------------------------------------- life

    def close(self) -> None:
        """Close all connections; calls of other threads end with ClientClosed. May be repeated."""
        self._lender.close()
        if self._near is not None:
            self._near.close()

    def __reduce__(self) -> NoReturn:
        refuse_pickling(self._ops.addresses)

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
        state = "closed" if self._lender.closed else "open"
        return f"<dcc.Client {','.join(self._ops.addresses)} {state}>"

    # -------------------------------------------------------------- inside

    @property
    def _pool(self) -> Pool:
        return self._lender.pool()

    @property
    def _core(self) -> ClientCore:
        return self._lender.pool().core

    def _read_near(self, near: NearReads, key: str) -> bytes | None:
        """Return the value of `key` as a node has it, and keep it."""
        read, operation = near.begin(), self._ops.reading(key)
        reply, address = self._lender.borrow("get", _read_from, operation)
        near.fill(key, reply, address, self._core, read)
        return value_in(reply)

    def _present_core(self) -> ClientCore:
        return self._core

    def _call(self, operation: Operation) -> Any:
        """Return the outcome of `operation`, within one deadline."""
        return self._lender.borrow(command_of(operation), _called, operation)

    def _write(self, op: Op, key: str, value: bytes, ttl: Ttl | Unset, **more: Any) -> WriteReply:
        write = self._ops.writing(op, key, value, ttl, **more)
        return self._lender.borrow(command_of(write), hotpath.change, write)

    def _write_many(
        self, op: Op, items: dict[bytes, bytes], ttl: Ttl | Unset, w: Quorum | Unset
    ) -> Written:
        write = self._ops.writing_many(op, items, ttl, w)
        if not items:
            self._open_or_raise()
            return Written(0, (), frozenset(), None)
        written: Written = self._call(write)
        return written

    def _open_or_raise(self) -> None:
        if self._lender.closed:
            raise ClientClosed("the client is closed")


def _called(channel: Channel, operation: Operation, now: Now) -> Any:
    return channel.run(channel.core.begin(operation, now, codec=channel.codec), now)


def _read_from(channel: Channel, operation: Get, now: Now) -> tuple[GetReply, str]:
    call = channel.core.begin(operation, now, codec=channel.codec)
    reply: GetReply = channel.run(call, now)
    return reply, call.answered_by()[0]


def _looked_up(channel: Channel, operation: Get, now: Now) -> Lookup:
    core = channel.core
    call = core.begin(operation, now, codec=channel.codec)
    reply: GetReply = channel.run(call, now)
    address, confirmed = call.answered_by()
    node = core.view.name_of(address) if core.view is not None else address
    return looked_up(reply, node, confirmed, core.cluster_ms(read_clocks()))
