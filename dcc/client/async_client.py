"""The asyncio client: the names and the meaning of `Client`, as coroutines.

An `AsyncClient` belongs to the event loop of its first call. It has no thread: its sockets are
read under the loop's own reader. Gets and puts that are made in one turn of the loop travel
together; each call keeps its own deadline, outcome and version, and cancelling one harms no other.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
import weakref
from collections.abc import AsyncIterator, Iterable, Mapping
from types import TracebackType
from typing import Any, NoReturn, TypeVar, overload

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
from dcc.client.asks import Audited
from dcc.client.async_loop import LoopDriver
from dcc.client.audit import Audit, compared
from dcc.client.calls import Call, Operation
from dcc.client.core import ClientCore
from dcc.client.counting import AsyncCountsNumbers
from dcc.client.dispatch import IN_FLIGHT_MAX
from dcc.client.events import Events
from dcc.client.keywords import EventHook
from dcc.client.link import read_clocks
from dcc.client.listener import NearReads, near_reads
from dcc.client.making import AsyncMakesValues
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
    slots_by_primary,
    stats_question,
    value_in,
    version_if_done,
)
from dcc.client.results import ClusterStats, Convergence, Entry, Latency, Lookup, Topology
from dcc.client.routing import View
from dcc.client.sweeps import WHOLE, audit_steps
from dcc.errors import ClientClosed, DccError, NodeUnavailable, WrongLoop
from dcc.keys import client_keys, no_keys
from dcc.types import Stamp, Version
from dcc.units import MILLISECOND
from dcc.wire.messages import (
    Clear,
    ConvergedGet,
    ConvergedReply,
    GetMany,
    GetReply,
    Inspect,
    InspectReply,
    Op,
    Scan,
    SetReplicas,
    StatsReply,
    TopologyGet,
    WriteReply,
)

D = TypeVar("D")


class AsyncClient(AsyncCountsNumbers, AsyncMakesValues):
    """A connection to a dcc cluster, for the coroutines of one event loop.

    >>> AsyncClient("127.0.0.1:6740", timeout=0)
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
        in_flight: int = IN_FLIGHT_MAX,
        on_event: EventHook | None = None,
    ) -> None:
        """Check the options; connections are made when first needed, on the loop running then.

        Args:
            in_flight: calls under way at a time; others wait, and end as `Overloaded` if their
                time is over before it is their turn.
            on_event: as for `Client`, but called in the loop, at times between two calls.

        All else is as for `Client`.
        """
        self.name = name
        self._ops = Operations(
            nodes, os.environ.get("DCC_NODES"), timeout=timeout, default_ttl=default_ttl,
            read=read, r=r, w=w, cluster=cluster,
        )  # fmt: skip
        if isinstance(in_flight, bool) or not isinstance(in_flight, int):
            raise TypeError(f"in_flight: int, got {type(in_flight).__name__}")
        if in_flight < 1:
            raise ValueError(f"in_flight: above 0, got {in_flight}")
        self._keys = client_keys(keys, os.environ.get("DCC_KEYS"), name)
        self._in_flight = in_flight
        self._near = near_reads(near_cache, self._ops, keyed=self._keys is not no_keys)
        self._events = Events(on_event)
        self._driver: LoopDriver | None = None
        self._closed = self._forked = False
        self._finalizer: weakref.finalize[Any, Any] | None = None
        _CLIENTS.add(self)

    # -------------------------------------------------------------- one key

    @overload
    async def get(
        self, key: str, default: None = None, *, r: Quorum | Unset = UNSET
    ) -> bytes | None: ...
    @overload
    async def get(self, key: str, default: D, *, r: Quorum | Unset = UNSET) -> bytes | D: ...
    async def get(self, key: str, default: object = None, *, r: Quorum | Unset = UNSET) -> object:
        """Return the value of `key`, or `default` if it is absent; as `Client.get`."""
        if r is UNSET and self._ops.plain and self._near is not None:
            value = self._near.find(key, time.monotonic_ns())
            if value is None:
                value = await self._read_near(self._near, key)
        elif r is UNSET and self._ops.plain:
            outcome = await self._bound().get(key_bytes(key))
            if isinstance(outcome, DccError):
                raise self._failed(outcome)
            value = outcome
        else:
            reply: GetReply = await self._call(self._ops.reading(key, r))
            value = value_in(reply)
        return default if value is None else value

    async def lookup(self, key: str, *, r: Quorum | Unset = UNSET) -> Lookup:
        """Return how a read of `key` ends, with all that is known: never raises for a miss."""
        call = await self._ended(self._ops.reading(key, r))
        reply: GetReply = self._outcome(call)
        address, confirmed = call.answered_by()
        core = call.core
        node = core.view.name_of(address) if core.view is not None else address
        return looked_up(reply, node, confirmed, core.cluster_ms(read_clocks()))

    async def entry(self, key: str, *, r: Quorum | Unset = UNSET) -> Entry | None:
        """Return value, version, expiry and age of `key`; None if it is absent."""
        return entry_of(await self.lookup(key, r=r))

    async def contains(self, key: str) -> bool:
        """Return whether `key` has a value now."""
        return (await self.lookup(key)).status == "hit"

    async def put(
        self,
        key: str,
        value: Value,
        *,
        ttl: Ttl | Unset = UNSET,
        w: Quorum | Unset = UNSET,
    ) -> Version:
        """Store `value` under `key` and return the version it got; as `Client.put`."""
        write = self._ops.writing(Op.PUT, key, value_bytes(value), ttl, w=w)
        outcome = await self._bound().put(write)
        if isinstance(outcome, DccError):
            raise self._failed(outcome)
        version: Version = outcome
        return version

    async def add(
        self, key: str, value: Value, *, ttl: Ttl | Unset = UNSET, w: Quorum | Unset = UNSET
    ) -> bool:
        """Store `value` if `key` is absent; return whether it was stored. No lock: see the docs."""
        return is_done(await self._write(Op.ADD, key, value_bytes(value), ttl, w=w))

    async def replace(
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
        reply = await self._write(Op.REPLACE, key, value_bytes(value), ttl, **more)
        return version_if_done(reply)

    async def delete(
        self, key: str, *, version: Version | None = None, w: Quorum | Unset = UNSET
    ) -> bool:
        """Delete `key` if it is present (and still at `version`); return whether it was.

        With a version, a key of which nobody can be sure just now counts as absent.
        """
        expected = expected_version(version)
        return is_done(await self._write(Op.DELETE, key, b"", None, expected=expected, w=w))

    async def touch(self, key: str, ttl: Ttl, *, w: Quorum | Unset = UNSET) -> bool:
        """Let `key` expire in `ttl` seconds from now (None = never); return whether it exists."""
        return is_done(await self._write(Op.TOUCH, key, b"", ttl, w=w))

    # -------------------------------------------------------------- many keys

    async def get_many(self, keys: Iterable[str], *, r: Quorum | Unset = UNSET) -> dict[str, bytes]:
        """Return the values of those of `keys` that are present; as `Client.get_many`."""
        names, raws = names_and_raws(keys)
        each = self._ops.reading_each(raws, r)
        if not names:
            self._bound()
            return {}
        if self._near is not None and self._ops.plain and r is UNSET:
            near = self._near.find_many(names)
            if near:
                return near | await self.get_many([name for name in names if name not in near])
        many = each if each is not None else GetMany(keys=tuple(dict.fromkeys(raws)))
        try:
            found: dict[bytes, bytes] = await self._call(many)
        except NodeUnavailable as error:
            name_partial(error, names, raws)
            raise
        return hits_by_name(names, raws, found)

    async def put_many(
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
        written = await self._write_many(Op.PUT, items, ttl, w)
        return failed_names(names, raws, written)

    async def delete_many(self, keys: Iterable[str], *, w: Quorum | Unset = UNSET) -> int:
        """Delete all of `keys`; return how many were present; as `Client.delete_many`."""
        names = {raw: name for name, raw in zip(*names_and_raws(keys), strict=True)}
        written = await self._write_many(Op.DELETE, dict.fromkeys(names, b""), None, w)
        return deleted(names, written)

    async def scan(self, prefix: str = "") -> AsyncIterator[str]:
        """Iterate over the keys that begin with `prefix`, in no order: `async for key in …`.

        Every key that is present from beginning to end comes once; keys that come or go
        meanwhile may or may not. Each step has the client's time-out.
        """
        raw = prefix_bytes(prefix)
        view = self._bound().core.view
        if view is None:
            view = await self._view()
        for slots in slots_by_primary(view):
            keys: list[bytes] = await self._call(Scan(slots=slots, prefix=raw))
            for key in keys:
                yield key.decode()

    async def clear(self) -> None:
        """Make everything written so far absent in the whole cluster, at once."""
        await self._call(Clear())

    # -------------------------------------------------------------- the cluster

    async def replicas(self) -> int:
        """Return the copies of each key beyond the primary, cluster-wide."""
        return (await self._view()).settings.replicas

    async def set_replicas(self, n: int) -> None:
        """Let the whole cluster keep `n` copies of each key beyond the primary, from now on."""
        await self._call(SetReplicas(replicas=replica_count(n)))

    async def converged(self) -> bool:
        """Return whether all nodes agree and every copy is known to be in its place."""
        return (await self.convergence()).converged

    async def convergence(self) -> Convergence:
        """Return whether the cluster has converged, how far it has come, and what is missing."""
        reply: ConvergedReply = await self._call(ConvergedGet())
        return convergence_of(reply)

    async def audit(self) -> Audit:
        """Return a comparison of what the owners of every slot hold, read from their data."""
        found = await self._audited(WHOLE)
        found.merge(await self._audited(found.forget_differing()))
        for node in (await self.topology()).nodes:
            if node.standing in ("suspect", "dead"):
                found.unreachable.setdefault(node.name, node.standing)
        return found

    async def topology(self) -> Topology:
        """Return the members and settings as some node sees them now."""
        return topology_of(await self._view())

    async def stats(self, *, hot_keys: bool = False) -> ClusterStats:
        """Return the statistics of every member that answers in time, as `Client.stats`."""
        answers: dict[str, StatsReply | str] = await self._call(stats_question(hot_keys))
        return cluster_stats(answers)

    async def inspect(self, key: str) -> dict[str, Entry | str | None]:
        """Return what each owner of `key` holds: an entry, None, or why there is no answer."""
        question = Inspect(key=key_bytes(key))
        answers: dict[str, InspectReply | str] = await self._call(question)
        now = self._bound().core.cluster_ms(read_clocks())
        return {name: inspected(name, answer, now) for name, answer in answers.items()}

    def counts(self) -> dict[str, int]:
        """Return how often this client met what, as `Client.counts`; no coroutine."""
        counts = dict(self._events.counts)
        if self._driver is not None:
            counts |= self._driver.core.hot.counts()
        return counts if self._near is None else counts | self._near.near.counts()

    def latencies(self) -> dict[str, Latency]:
        """Return how long calls have taken, from sending them, as `Client.latencies`."""
        return self._driver.core.timings.latencies() if self._driver is not None else {}

    # -------------------------------------------------------------- life

    async def aclose(self) -> None:
        """Close all connections; calls under way end with ClientClosed. May be repeated."""
        driver = self._driver
        if driver is not None and not driver.loop.is_closed() and not self._closed:
            self._bound()  # Another loop must not touch this one's readers.
        self._closed = True
        if self._finalizer is not None:
            self._finalizer.detach()
        if driver is not None:
            driver.close()
        if self._near is not None:
            self._near.close()

    def __reduce__(self) -> NoReturn:
        refuse_pickling(self._ops.addresses)

    async def __aenter__(self) -> AsyncClient:
        self._bound()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<dcc.AsyncClient {','.join(self._ops.addresses)} {state}>"

    # -------------------------------------------------------------- inside

    def _bound(self) -> LoopDriver:
        """Return the driver of the running loop, which the first call makes."""
        driver = self._driver
        if driver is None or driver.loop is not _running_loop() or self._closed:
            driver = self._bind()
        return driver

    def _bind(self) -> LoopDriver:
        if self._closed:
            raise ClientClosed("the client is closed")
        if self._forked:
            raise WrongLoop("this client was used before a fork; make one in the child process")
        loop = _running_loop()
        if loop is None:
            raise WrongLoop("there is no running event loop in this thread and process")
        if self._driver is not None:
            raise WrongLoop("this client belongs to another event loop; make one for each loop")
        client_id = int.from_bytes(os.urandom(8), "big") or 1
        boot = (time.time_ns() // MILLISECOND << 16) | int.from_bytes(os.urandom(2), "big")
        core = ClientCore(
            self._ops.addresses,
            cluster=self._ops.cluster,
            client_id=client_id,
            boot=boot,
            rng=random.Random(client_id),
            timeout_ns=self._ops.timeout_ns,
        )
        core.hot.enabled = self._ops.spreads_hot and self._near is None
        if self._near is not None:
            self._near.follow(core)
        self._driver = LoopDriver(core, loop, self._in_flight, self._events, self._keys)
        self._finalizer = weakref.finalize(self, _close_forgotten, self._driver)
        self._finalizer.atexit = False
        return self._driver

    async def _read_near(self, near: NearReads, key: str) -> bytes | None:
        """Return the value of `key` as a node has it, and keep it."""
        read = near.begin()
        call = await self._ended(self._ops.reading(key))
        reply: GetReply = self._outcome(call)
        near.fill(key, reply, call.answered_by()[0], call.core, read)
        return value_in(reply)

    def _present_core(self) -> ClientCore:
        return self._bound().core

    async def _ended(self, operation: Operation) -> Call:
        outcome = await self._bound().call(operation)
        if isinstance(outcome, DccError):
            raise self._failed(outcome)
        call: Call = outcome
        return call

    def _outcome(self, call: Call) -> Any:
        try:
            return call.outcome()
        except DccError as error:
            raise self._failed(error) from error.__cause__

    def _failed(self, error: DccError) -> DccError:
        """Return `error`, counted."""
        self._events.failed(error)
        return error

    async def _call(self, operation: Operation) -> Any:
        """Return the outcome of `operation`, within one deadline."""
        return self._outcome(await self._ended(operation))

    async def _view(self) -> View:
        view: View = await self._call(TopologyGet())
        return view

    async def _write(
        self, op: Op, key: str, value: bytes, ttl: Ttl | Unset, **more: Any
    ) -> WriteReply:
        reply: WriteReply = await self._call(self._ops.writing(op, key, value, ttl, **more))
        return reply

    async def _write_many(
        self, op: Op, items: dict[bytes, bytes], ttl: Ttl | Unset, w: Quorum | Unset
    ) -> Written:
        write = self._ops.writing_many(op, items, ttl, w)
        if not items:
            self._bound()
            return Written(0, (), frozenset(), None)
        written: Written = await self._call(write)
        return written

    async def _audited(self, above: Mapping[int, Stamp]) -> Audit:
        found = Audit()
        for question in audit_steps(above):
            answers: dict[str, Audited | str] = await self._call(question)
            found.merge(compared(answers, above))
        return found

    def _after_fork(self) -> None:
        """Give up in a child process; the parent's sockets are kept, untouched, for ever."""
        if self._driver is not None:
            _GRAVEYARD.append((self._driver, self._finalizer))
            self._forked = True
            if self._finalizer is not None:
                self._finalizer.detach()
            self._driver = self._finalizer = None


_CLIENTS: weakref.WeakSet[AsyncClient] = weakref.WeakSet()
_GRAVEYARD: list[object] = []
"What a forked child inherited of its parents; collecting it would close the parents' sockets."


def _mark_clients() -> None:
    for client in list(_CLIENTS):
        client._after_fork()


os.register_at_fork(after_in_child=_mark_clients)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _close_forgotten(driver: LoopDriver) -> None:
    """Close what a client left that nobody closed, on the loop's own thread if it still runs."""
    try:
        driver.loop.call_soon_threadsafe(driver.close)
    except RuntimeError:  # The loop is closed: nobody else can be at the sockets.
        driver.close()
