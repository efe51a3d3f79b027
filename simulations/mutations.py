"""Planted bugs: the production core with one thing wrong, to see that a checker notices.

A mutation replaces one method of one core object, in one process or in all; production code has
no switch for it. Each is a mistake that somebody could make, and names the promise it breaks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from random import Random
from typing import Any

from dcc.config import NodeConfig
from dcc.node.admission import Request
from dcc.node.core import NodeCore
from dcc.replication.holdings import Instant
from dcc.replication.sync import IN_SYNC
from dcc.store.doubt import NOTHING_OWED
from dcc.store.store import Applied
from dcc.types import Boot, Member, Now, Record
from dcc.units import NEVER
from dcc.wire.messages import Clear, Fetch, Write
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
        once._remove(client, asker.request)
        return begin(client, asker, mono, again=again)

    _replace(once, "begin", mutant)


def late_write(core: NodeCore) -> None:
    """A write is executed however late it is read."""
    write = core.requests.write

    def mutant(request: Request, message: Any) -> Any:
        if isinstance(message, Write):
            request = request._replace(header=request.header._replace(at=0))
        return write(request, message)

    _replace(core.requests, "write", mutant)


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
    """A tombstone is forgotten before the other holders have seen it, with no room for graves."""
    unmarked(core)
    store, tidying = core.held.store, core.exchange.tidying
    tick = tidying.tick

    def mutant(now: Instant) -> None:
        if tidying.at <= now.mono:
            for slot in core.held.view.owned:
                store.forgetting.forget_covered(slot, ())
        tick(now)

    _replace(tidying, "tick", mutant)


def unready_answers(core: NodeCore) -> None:
    """A primary that has not heard from the other holders calls a key absent for certain."""
    _replace(core.sync, "unsynced", lambda slot: IN_SYNC)


def serves_in_doubt(core: NodeCore) -> None:
    """A node serves what it holds although others may have written without it."""
    _replace(core.certainty, "may_be_old", lambda slot: False)
    _replace(core.certainty, "_may_know_newer", lambda slot, *, aside: ())


def silent_given_up(core: NodeCore) -> None:
    """A node takes itself for caught up, for good, with those who have long been silent."""
    sync, caught_up = core.sync, core.sync.caught_up

    def mutant() -> None:
        sync.mute(frozenset())
        caught_up()

    _replace(sync, "caught_up", mutant)


def lists_in_doubt(core: NodeCore) -> None:
    """A node lists what it holds as if others could not have deleted it without it."""
    certainty, listings = core.certainty, core.listings
    scan, may_be_old = listings.scan, certainty.may_be_old

    def mutant(*question: Any) -> Any:
        _replace(certainty, "may_be_old", lambda slot: False)
        try:
            return scan(*question)
        finally:
            _replace(certainty, "may_be_old", may_be_old)

    _replace(listings, "scan", mutant)


def primary_uncounted(core: NodeCore) -> None:
    """A write made aside is answered though the primary, which lives, does not have it."""
    _replace(core.writes.confirming, "_primary_has", lambda write: True)


def taken_for_alive(core: NodeCore) -> None:
    """A member that is down for this node is told as much as any other, as of the same view."""
    view = core.held.view
    _replace(view, "epoch_for", lambda to: view.epoch)


def sure_alone(core: NodeCore) -> None:
    """A node that was restarted without seeds takes itself for the whole cluster."""
    _replace(core.lifecycle, "_is_lone", lambda at: False)


def repair_resurrects(core: NodeCore) -> None:
    """Repair sends all that is held, and takes it, whatever was seen before."""
    store = core.held.store
    apply, lacking = store.apply, store.comparison.lacking

    def mutant(slot: int, record: Record, now_ms: int, *more: Any, **named: Any) -> Applied:
        applied = apply(slot, record, now_ms, *more, **named)
        return store.install(slot, record, now_ms) if applied is Applied.COVERED else applied

    _replace(store, "apply", mutant)
    _replace(
        store.comparison,
        "lacking",
        lambda slot, clock, after=(0, 0, 0), *_: lacking(slot, {}, after),
    )


def refill_without_mark(core: NodeCore) -> None:
    """The clock of who forgot is taken over, but not how much was forgotten."""
    store = core.held.store
    merge_clock = store.merge_clock
    _replace(store, "merge_clock", lambda slot, other, mark=0: merge_clock(slot, other))


def refill_without_list(core: NodeCore) -> None:
    """The clock of who forgot is taken over, and what it no longer lists is kept."""
    _replace(core.held.store, "refill", lambda *arguments: None)


def evictions_believed(core: NodeCore) -> None:
    """What a holder has evicted is taken for evicted here, whoever else may have it."""
    _replace(core.exchange.settling, "unheard", lambda slot, now: [])
    _replace(core.held.store.comparison, "owed", lambda slot: NOTHING_OWED)


def begun_unsaid(core: NodeCore) -> None:
    """A newcomer does not say above which stamp it began to write."""
    membership = core.membership
    filled = membership.filled
    _replace(
        membership, "filled", lambda mono, ms, *, stamps_above: filled(mono, ms, stamps_above=0)
    )


def released_unpaid(core: NodeCore) -> None:
    """A former owner releases a slot to owners that have only seen it, and hold nothing."""
    _replace(core.held.store.comparison, "owes", lambda slot, owed: False)


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


def remembers_all(core: NodeCore) -> None:
    """The table of recent writes keeps to no budget in bytes."""
    _replace(core.writes.once, "_fit", lambda: None)


def no_reserve(core: NodeCore) -> None:
    """What grows beside the store is counted by nobody."""
    _replace(core.footprint, "settle", lambda: None)
    _replace(core.footprint, "wake_at", lambda turn_at: NEVER)


def time_by_votes(core: NodeCore) -> None:
    """Time is the median of the clocks that are there now, whoever comes or goes."""
    clock = core.clock
    _replace(clock, "_anchor", lambda: None)
    _replace(clock, "_anchored", lambda: [])


def late_word(core: NodeCore) -> None:
    """A node that starts believes what was long on its way as it believes an answer."""
    clock = core.clock
    _replace(clock, "_agreeing", lambda mono: clock._anchored())
    _replace(clock, "_answered", lambda readings: readings)


def old_word_believed(core: NodeCore) -> None:
    """A node that is slewed takes it that others, heard before, have stayed where they were."""
    clock = core.clock
    keep_up = clock._keep_up

    def mutant(mono: int) -> None:
        for reading in clock._others.values():
            if reading.claim is not None:
                stayed_ms = reading.claim.offset_ms - reading.offset(mono)
                reading.slewed_ms = clock._slewed_ms + stayed_ms
        keep_up(mono)

    _replace(clock, "_keep_up", mutant)


def corrected_at_once(core: NodeCore) -> None:
    """A founder whose clock was wrong is corrected by a step instead of slowly."""
    clock = core.clock
    follow = clock.follow

    def mutant(mono: int) -> None:
        clock._offset_ms = clock._target_ms
        follow(mono)

    _replace(clock, "follow", mutant)


def impatient(core: NodeCore) -> None:
    """A batch that was not acknowledged for a while is taken for lost."""
    streams = core.streams
    tick = streams.tick

    def mutant(now: Instant) -> Any:
        for stream in streams._streams.values():
            for lane in stream.lanes:
                for batch in lane.flight.values():
                    batch.lost = batch.lost or batch.resend_at <= now.mono
        return tick(now)

    _replace(streams, "tick", mutant)


def late_read(core: NodeCore) -> None:
    """A read is answered however late it is read."""
    _replace(core.lateness, "before", lambda at: 0)


def gray_leads(core: NodeCore) -> None:
    """A node that the others find slow leads its slots all the same."""
    _replace(core.membership._claims._pace, "is_slow", lambda alive, now, slow: False)


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


def forgets_unseen(core: NodeCore) -> None:
    """That a member is forgotten is told to nobody who judges by the members."""
    membership = core.membership
    claims, forget = membership._claims, membership._claims.forget

    def mutant() -> None:
        before = membership._table.changes
        forget()
        membership._table.changes = before

    _replace(claims, "forget", mutant)


def twin_unasked(core: NodeCore) -> None:
    """A node joins without asking who else has its name."""
    twins = core.membership._twins
    hear = twins.hear

    def mutant(claim: Member, *, by_itself: bool, joined: bool) -> Any:
        effects = hear(claim, by_itself=by_itself, joined=joined)
        twins._asked, twins._next_at = None, NEVER
        return effects

    _replace(twins, "hear", mutant)


def twin_believed(core: NodeCore) -> None:
    """A node that has moved is believed without asking the address that it has left."""
    _replace(core.membership._newcomers, "_rival_of", lambda row: None)
    twin_unasked(core)


def unreached_ready(core: NodeCore) -> None:
    """A node to which nobody can send takes itself for ready."""
    _replace(core.company, "lacks", lambda: [])


def rows_believed(core: NodeCore) -> None:
    """A row that somebody tells of is believed before its owner has answered."""
    membership = core.membership

    def mutant(row: Member, *, by_itself: bool) -> None:
        membership._newcomers._moved.append(row)

    _replace(membership._newcomers, "heard", mutant)


def fetch_unnamed(core: NodeCore) -> None:
    """Who asks for a key does not say which version it holds."""
    _replace(core.questions, "_fetch", lambda key: Fetch(key=key))


def remembers_for_ever(core: NodeCore) -> None:
    """The table of recent writes lets go of nothing because of its age."""
    _replace(core.writes.once, "tick", lambda mono: None)
    _replace(core.writes.once, "wake_at", lambda: NEVER)


def forgets_the_unmet(core: NodeCore) -> None:
    """A node forgets although it has never met its seeds, and has no room for graves."""
    core.membership.awaited.clear()
    unmarked(core)


def unmarked(core: NodeCore) -> None:
    """What is forgotten leaves no mark against older values of those who were not asked."""
    _replace(core.held.store.graves, "add", lambda slot, name, version: None)


def base_believed(core: NodeCore) -> None:
    """A base is taken to bind those, too, who were not there when it was made."""
    _replace(core.held.unasked, "view_changed", lambda: None)


def cleared_anew(core: NodeCore) -> None:
    """Each node that is asked for a clear gives it the time of its own doing."""
    administration = core.administration
    clear = administration.clear

    def mutant(request: Request, message: Clear) -> Any:
        return clear(request, replace(message, issued_ms=0))

    _replace(administration, "clear", mutant)


def rights_unlooked(core: NodeCore) -> None:
    """Nodes take a client with a key for the member whose name it gives."""
    _replace(core._rights, "refusal", lambda *_: "")


MUTATIONS: Mapping[str, Plant] = {
    plant.__name__.replace("_", "-"): plant
    for plant in (
        keeps_older, order_reversed, second_version, late_write, early_answer, forgotten_early,
        unready_answers, repair_resurrects, refill_without_mark, refill_without_list,
        evictions_believed, begun_unsaid, released_unpaid,
        no_retargeting, blind_expiry, no_eviction, one_stamp, no_exchange,
        sure_alone, serves_in_doubt, primary_uncounted, remembers_all, no_reserve, time_by_votes,
        corrected_at_once, old_word_believed, gray_leads, impatient, late_read, forgets_unseen,
        twin_unasked, twin_believed, unreached_ready, rows_believed, fetch_unnamed,
        remembers_for_ever, lists_in_doubt, silent_given_up,
        taken_for_alive, late_word,
        forgets_the_unmet, unmarked, base_believed, cleared_anew, rights_unlooked,
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
