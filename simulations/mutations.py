"""Planted bugs: the production core with one thing wrong, to see that a checker notices.

A mutation replaces one method of one core object, in one process or in all; production code has
no switch for it. Each is a mistake that somebody could make, and names the promise it breaks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from dcc.config import NodeConfig
from dcc.node.core import NodeCore
from dcc.replication.holdings import Instant
from dcc.replication.sync import IN_SYNC
from dcc.store.store import Applied
from dcc.types import Boot, Now, Record
from dcc.units import NEVER
from dcc.wire.messages import Write
from simulations.stage import MakeCore

ONE = "n1"
"The node that has the bug, where one is enough."

Plant = Callable[[NodeCore], None]


def keeps_older(core: NodeCore) -> None:
    """One replica's merge keeps the older of two versions."""
    if core.config.name != ONE:
        return
    store = core.held.store
    merge: Any = store._merge

    def mutant(slot: int, record: Record, *more: Any, **named: Any) -> Any:
        held = store.peek(slot, record.key)
        if held is not None and record.version.node != core.key:
            return Applied.OLDER
        return merge(slot, record, *more, **named)

    _replace(store, "_merge", mutant)


def order_reversed(core: NodeCore) -> None:
    """One replica compares versions from the wrong end: boot, node, stamp."""
    if core.config.name != ONE:
        return
    store = core.held.store
    merge: Any = store._merge

    def mutant(slot: int, record: Record, *more: Any, **named: Any) -> Any:
        held = store.peek(slot, record.key)
        if held is None:
            return merge(slot, record, *more, **named)
        if record.version[::-1] <= held.version[::-1]:
            return Applied.OLDER
        store._memory.remove(held)
        return merge(slot, record, *more, **named)

    _replace(store, "_merge", mutant)


def second_version(core: NodeCore) -> None:
    """A write that is asked for again is executed again."""
    once = core.writes.once
    begin = once.begin

    def mutant(client: tuple[int, int], asker: Any, mono: int, *, again: bool) -> Any:
        if client in once._clients:
            once._clients[client].table.pop(asker.request, None)
        return begin(client, asker, mono, again=again)

    _replace(once, "begin", mutant)


def late_write(core: NodeCore) -> None:
    """A write is executed however late it is read."""
    handle = core.requests.handle

    def mutant(route: bytes, frames: list[bytes], header: Any, message: Any, at: Any) -> Any:
        if isinstance(message, Write):
            header = header._replace(at=0)
        return handle(route, frames, header, message, at)

    _replace(core.requests, "handle", mutant)


def early_answer(core: NodeCore) -> None:
    """A write is answered before any other owner has acknowledged it."""
    write_one = core.writes.write

    def mutant(client: Any, asker: Any, write: Write, until: int, at: Any) -> Any:
        message = Write(
            op=write.op, key=write.key, value=write.value, ttl_ms=write.ttl_ms, w=1,
            direct=write.direct, seen=write.seen, expected=write.expected, delta=write.delta,
            initial=write.initial, boot=write.boot,
        )  # fmt: skip
        return write_one(client, asker, message, until, at)

    _replace(core.writes, "write", mutant)


def forgotten_early(core: NodeCore) -> None:
    """A tombstone is forgotten before the other holders have seen it."""
    store, tidying = core.held.store, core.exchange.tidying
    tick = tidying.tick

    def mutant(now: Instant) -> None:
        if tidying.at <= now.mono:
            for slot in core.held.view.owned:
                store.forget_covered(slot, ())
        tick(now)

    _replace(tidying, "tick", mutant)


def unready_answers(core: NodeCore) -> None:
    """A primary that has not heard from the other holders calls a key absent for certain."""
    _replace(core.sync, "unsynced", lambda slot: IN_SYNC)


def sure_alone(core: NodeCore) -> None:
    """A node that was restarted without seeds takes itself for the whole cluster."""
    _replace(core.lifecycle, "_is_lone", lambda at: False)


def repair_resurrects(core: NodeCore) -> None:
    """Repair sends all that is held, and takes it, whatever was seen before."""
    store = core.held.store
    apply, lacking = store.apply, store.lacking

    def mutant(slot: int, record: Record, now_ms: int) -> Applied:
        applied = apply(slot, record, now_ms)
        return store.install(slot, record, now_ms) if applied is Applied.COVERED else applied

    _replace(store, "apply", mutant)
    _replace(store, "lacking", lambda slot, clock, after=(0, 0, 0): lacking(slot, {}, after))


def refill_without_mark(core: NodeCore) -> None:
    """The clock of who forgot is taken over, but not how much was forgotten."""
    store = core.held.store
    merge_clock = store.merge_clock
    _replace(store, "merge_clock", lambda slot, other, mark=0: merge_clock(slot, other))


def refill_without_list(core: NodeCore) -> None:
    """The clock of who forgot is taken over, and what it no longer lists is kept."""
    _replace(core.held.store, "refill", lambda *arguments: None)


def no_retargeting(core: NodeCore) -> None:
    """A write on its way to a node that dies is not sent to whoever stands in."""
    _replace(core.streams, "retarget", lambda now, unconfirmed=(): None)


def blind_expiry(core: NodeCore) -> None:
    """A get finds what has expired, and nobody sweeps it away before."""
    store = core.held.store
    get = store.get
    _replace(store, "sweep", lambda now_ms, limit=0: 0)
    _replace(store, "next_sweep_ms", lambda: NEVER)
    _replace(store, "get", lambda slot, key, now_ms: get(slot, key, now_ms - 60_000))


def no_eviction(core: NodeCore) -> None:
    """Nothing is evicted when memory is full."""
    _replace(core.held.store._memory, "make_room", lambda keep=None: True)


def one_stamp(core: NodeCore) -> None:
    """Two writes in one millisecond get one stamp."""
    clock = core.clock

    def mutant(cluster_ms: int, seen: int = 0) -> int:
        # Ten at a time, so that a run of few calls has such a millisecond.
        clock.last = cluster_ms // 10_000 * 10_000 << 16
        return clock.last

    _replace(clock, "next_stamp", mutant)


def no_exchange(core: NodeCore) -> None:
    """What a lost replication message carried is never repaired."""
    _replace(core.exchange, "receive_reply", lambda *arguments: [])


MUTATIONS: Mapping[str, Plant] = {
    plant.__name__.replace("_", "-"): plant
    for plant in (
        keeps_older, order_reversed, second_version, late_write, early_answer, forgotten_early,
        unready_answers, repair_resurrects, refill_without_mark, refill_without_list,
        no_retargeting, blind_expiry, no_eviction, one_stamp, no_exchange,
        sure_alone,
    )
}  # fmt: skip


def core_with(mutation: str) -> MakeCore:
    """Return the maker of node cores with the bug called `mutation`; '' for none."""
    if not mutation:
        return NodeCore
    plant = MUTATIONS[mutation]

    def make(config: NodeConfig, *, boot: Boot, rng: Random, now: Now) -> NodeCore:
        core = NodeCore(config, boot=boot, rng=rng, now=now)
        plant(core)
        return core

    return make


def _replace(owner: object, method: str, mutant: Callable[..., Any]) -> None:
    assert callable(getattr(owner, method)), "the production code has moved on: adapt the mutation"
    setattr(owner, method, mutant)
