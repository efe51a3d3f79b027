"""Every checker accepts a good history and sees the fault in a bad one."""

from __future__ import annotations

from dataclasses import replace

from dcc.client.many import Written
from dcc.client.stampede import Recipe
from dcc.errors import NodeUnavailable
from dcc.node.footprint import Row
from dcc.types import NO_VERSION, Kind, Member, Record, Standing, Version, node_key
from dcc.wire.messages import GetMany, Op, Status, WriteMany
from simulations import faults as f
from simulations import operations
from simulations.answers import Answer
from simulations.checkers import (
    acknowledgement,
    age,
    clearing,
    convergence,
    deadlines,
    gray,
    leases,
    limits,
    listing,
    made,
    monotony,
    nearness,
    outlived,
    provenance,
    sendings,
    silence,
    survival,
    truth,
    views,
)
from simulations.history import End, Entry
from simulations.makers import Making
from simulations.nearby import Held, NearHit
from simulations.observer import Observer

S = 1_000_000_000
V1, V2 = Version(1 << 16, 7, 1), Version(2 << 16, 7, 1)


def record(version: Version, kind: Kind = Kind.VALUE, value: bytes = b"v") -> Record:
    return Record(b"p1", kind, value if kind is Kind.VALUE else b"", version, 0, -1)


def put(at_s: int, value: bytes, version: Version, *, w: int = 1, ttl_ms: int = 0) -> Entry:
    return Entry(
        client="c0", verb="put", key=b"p1", value=value, w=w, ttl_ms=ttl_ms, end=End.OK,
        status="done", version=version, invoked_ns=at_s * S, deadline_ns=at_s * S + S,
        ended_ns=at_s * S + S // 2,
    )  # fmt: skip


def get(at_s: int, found: bytes | None, version: Version = V1) -> Entry:
    return Entry(
        client="c1", verb="get", key=b"p1", end=End.OK, status="hit" if found else "miss",
        found=found, version=version, invoked_ns=at_s * S, deadline_ns=at_s * S + S,
        ended_ns=at_s * S + S // 2,
    )  # fmt: skip


# ------------------------------------------------------------------ convergence


def converged(newest: Record, held: Record | None, *, covered: bool, may_evict: bool) -> bool:
    found = convergence.check(
        {b"p1": newest},
        {b"p1": ["n0"]},
        {"n0": {} if held is None else {b"p1": held}},
        lambda node, key, version: covered,
        may_evict=may_evict,
    )
    return not found


def test_an_owner_with_the_newest_version_has_converged() -> None:
    assert converged(record(V2), record(V2), covered=True, may_evict=False)


def test_an_owner_that_agrees_on_an_older_version_has_not() -> None:
    assert not converged(record(V2), record(V1), covered=True, may_evict=False)


def test_a_lost_value_is_no_convergence_unless_memory_was_short() -> None:
    ghost = record(V2, Kind.EVICTED)
    assert not converged(record(V2), ghost, covered=True, may_evict=False)
    assert converged(record(V2), ghost, covered=True, may_evict=True)
    assert not converged(record(V2), None, covered=True, may_evict=False)


def test_who_evicted_nothing_lacks_no_value_that_another_owner_holds() -> None:
    ghost, value = record(V2, Kind.EVICTED), record(V2)
    for mine, other, kept_all, count in (
        (ghost, value, True, 1),
        (ghost, value, False, 0),
        (None, value, True, 1),
        (ghost, ghost, True, 0),
        (value, ghost, True, 0),
    ):
        held = {"n0": {} if mine is None else {b"p1": mine}, "n1": {b"p1": other}}
        found = convergence.check(
            {b"p1": record(V2)}, {b"p1": ["n0", "n1"]}, held, lambda node, key, version: True,
            may_evict=True, kept_all={"n0": kept_all, "n1": False}.__getitem__,
        )  # fmt: skip
        assert len(found) == count


def test_a_tombstone_may_be_forgotten_only_by_who_has_seen_it() -> None:
    gone = record(V2, Kind.TOMBSTONE)
    assert converged(gone, None, covered=True, may_evict=False)
    assert not converged(gone, None, covered=False, may_evict=False)
    assert not converged(gone, record(V1), covered=True, may_evict=False)


def test_a_stale_copy_outside_the_owners_is_seen() -> None:
    for held, count in ((record(V2), 0), (record(V1), 1)):
        found = convergence.check(
            {b"p1": record(V2)},
            {b"p1": ["n0"]},
            {"n0": {b"p1": record(V2)}, "n1": {b"p1": held}},
            lambda node, key, version: True,
            may_evict=False,
        )
        assert len(found) == count


# ------------------------------------------------------------------ one version, one value


def test_a_version_that_means_two_things_is_seen() -> None:
    observer = Observer("dcc")
    observer.saw([record(V1, value=b"a"), record(V1, value=b"a"), record(V1, Kind.EVICTED)])
    assert observer.violations == []
    observer.saw([record(V1, value=b"b")])
    assert [found.promise for found in observer.violations] == ["one version, one value"]


# ------------------------------------------------------------------ survival


def unread(write: Entry, miss: Entry, *others: Entry, losses: tuple[int, ...] = ()) -> int:
    history = [write, *others, miss]
    return len(survival.check_reads(history, losses, 2, lambda start, end: True, S))


def test_a_certain_miss_of_an_acknowledged_key_is_seen() -> None:
    assert unread(put(1, b"a", V1), get(5, None)) == 1


def test_a_write_aside_of_the_primary_is_on_its_way_for_a_while() -> None:
    for w, at_s, count in ((1, 2, 0), (1, 4, 1), (2, 2, 1)):
        history = [put(1, b"a", V1, w=w), get(at_s, None)]
        found = survival.check_reads(history, (), 2, lambda start, end: True, S, {V1})
        assert len(found) == count, "one acknowledgement, and not longer than a copy takes"
    history = [put(1, b"a", V1), get(2, None)]
    assert len(survival.check_reads(history, (), 2, lambda start, end: True, S, {V2})) == 1


def test_a_write_survives_one_loss_less_than_owners_acknowledged() -> None:
    assert unread(put(1, b"a", V1, w=1), get(5, None), losses=(2 * S,)) == 0
    assert unread(put(1, b"a", V1, w=2), get(5, None), losses=(2 * S,)) == 1
    assert unread(put(1, b"a", V1, w=2), get(5, None), losses=(2 * S, 3 * S)) == 0


def test_a_loss_before_the_write_does_not_count() -> None:
    assert unread(put(4, b"a", V1, w=1), get(8, None), losses=(2 * S,)) == 1


def test_a_key_may_be_missed_once_it_was_deleted_or_has_expired() -> None:
    deleted = put(2, b"", V2)
    deleted.verb = "delete"
    assert unread(put(1, b"a", V1), get(5, None), deleted) == 0
    assert unread(put(1, b"a", V1, ttl_ms=2000), get(5, None)) == 0
    deleted.version = Version(0, 0, 1)
    assert unread(put(1, b"a", V1), get(5, None), deleted) == 1


def test_a_refused_delete_hides_nothing() -> None:
    refused = put(2, b"", V2)
    refused.verb, refused.end = "delete", End.FAILED
    assert unread(put(1, b"a", V1), get(5, None), refused) == 1


def test_a_miss_while_somebody_may_be_wrong_about_who_lives_is_no_proof() -> None:
    history = [put(1, b"a", V1), get(5, None)]
    assert survival.check_reads(history, (), 2, lambda start, end: False, S) == []


def test_a_write_of_which_nothing_is_left_is_seen() -> None:
    history = [put(1, b"a", V1, w=2)]
    assert survival.check_rest(history, (2 * S,), 2, lambda entry: True, 9 * S) == []
    assert len(survival.check_rest(history, (2 * S,), 2, lambda entry: False, 9 * S)) == 1
    assert survival.check_rest(history, (2 * S, 3 * S), 2, lambda entry: False, 9 * S) == []


def answered(
    read: Entry,
    *,
    leads: bool = True,
    known: Version = NO_VERSION,
    value: Version = NO_VERSION,
    asked: bool = False,
    evicted: bool = False,
    reached_ns: int = 0,
    aside: frozenset[Version] = frozenset(),
) -> Entry:
    status = Status.MISS if read.found is None else Status.HIT
    read.answer = Answer(
        "n0", read.ended_ns, read.key, status, read.version, leads, known, value, asked, evicted,
        reached_ns=reached_ns, aside=aside,
    )  # fmt: skip
    return read


def test_a_certain_miss_is_a_fault_in_any_world_if_its_node_could_know() -> None:
    write = put(1, b"a", V1)
    for miss, may_evict, count in (
        (answered(get(5, None), value=V1), False, 1),
        (answered(get(5, None), value=NO_VERSION), False, 0),
        (answered(get(5, None), value=V1), True, 1),
        (answered(get(5, None), value=V1, evicted=True), True, 0),
    ):
        found = survival.check_reads(
            [write, miss], (), 2, lambda start, end: False, S, may_evict=may_evict
        )
        assert len(found) == count


def test_where_memory_is_short_a_miss_in_a_calm_world_is_no_proof() -> None:
    history = [put(1, b"a", V1), answered(get(5, None))]
    assert survival.check_reads(history, (), 2, lambda s, e: True, S, may_evict=True) == []


# ------------------------------------------------------------------ age of hits


def old(
    hit: Entry, *, w: int = 2, calm: bool = False, losses: tuple[int, ...] = (), aside: bool = False
) -> int:
    """Return how often `hit`, which finds V1, is called old although V2 was written at 1 s."""
    history = [put(0, b"a", V1), put(1, b"b", V2, w=w), hit]
    return len(age.check(history, losses, 2, lambda s, e: calm, {V2} if aside else ()))


def test_a_hit_older_than_what_its_node_could_know_is_seen() -> None:
    assert old(answered(get(5, b"a"), known=V2)) == 1
    assert old(answered(get(5, b"b", V2), known=V2)) == 0, "it is the newest"
    assert old(answered(get(1, b"a"), known=V2)) == 0, "the write had not been answered yet"


def test_who_is_cut_off_or_has_asked_in_vain_may_serve_what_it_has() -> None:
    assert old(answered(get(5, b"a"), known=V1)) == 0
    assert old(answered(get(5, b"a"), known=V1, asked=True), calm=True) == 0


def test_in_a_calm_world_there_is_no_older_hit() -> None:
    assert old(answered(get(5, b"a"), known=V1), calm=True) == 1


def test_a_hit_may_be_old_once_as_many_memories_were_lost_as_had_acknowledged() -> None:
    for w, count in ((1, 0), (2, 1)):
        assert old(answered(get(5, b"a"), known=V2), w=w, losses=(3 * S,)) == count
    assert old(answered(get(5, b"a"), known=V2), losses=(3 * S, 4 * S)) == 0


def test_a_read_of_any_owner_may_lag_behind_as_long_as_a_copy_takes() -> None:
    lagging = answered(get(2, b"a"), leads=False, known=V2)
    late = answered(get(5, b"a"), leads=False, known=V2)
    assert old(lagging, calm=True) == 0
    assert old(late, calm=True) == 1
    assert old(late) == 0, "longer while links are bad"
    assert old(late, calm=True, losses=(3 * S,)) == 0, "or its writer is gone"
    late.r = 0
    assert old(late) == 1, "but a quorum meets the newest"
    for since_s, count in ((4, 0), (2, 1)):
        met = answered(get(5, b"a"), leads=False, known=V2, reached_ns=since_s * S)
        assert old(met, calm=True) == count, "a copy that could not come at once takes as long"


def test_a_copy_written_aside_is_missed_while_a_cut_keeps_it_from_the_primary() -> None:
    for w, aside, count in ((1, {V1}, 0), (2, {V1}, 1), (1, set[Version](), 1)):
        history = [put(1, b"a", V1, w=w), answered(get(5, None), value=V1, aside=frozenset(aside))]
        found = survival.check_reads(history, (), 2, lambda start, end: False, S, {V1})
        assert len(found) == count


def test_one_acknowledgement_aside_is_read_once_its_copy_has_arrived() -> None:
    soon, late = answered(get(2, b"a"), known=V2), answered(get(5, b"a"), known=V2)
    assert old(soon, w=1, calm=True, aside=True) == 0
    assert old(late, w=1, calm=True, aside=True) == 1
    assert old(soon, w=2, aside=True) == 1


# ------------------------------------------------------------------ what nodes say


def test_converged_is_compared_with_what_the_owners_hold() -> None:
    for held, count in ((record(V2), 0), (record(V1), 1)):
        found = truth.check(
            {b"p1": record(V2)}, {b"p1": ["n0"]}, {"n0": {b"p1": held}},
            lambda node, key, version: True, "n1", 0, may_evict=False,
        )  # fmt: skip
        assert [one.promise for one in found] == [truth.PROMISE] * count


def scanned(*listed: bytes, at_s: int = 5, prefix: bytes = b"") -> Entry:
    return Entry(
        client="c1", verb="scan", key=prefix, end=End.OK, status="listed", listed=listed,
        invoked_ns=at_s * S, deadline_ns=at_s * S + S, ended_ns=at_s * S + S // 2,
    )  # fmt: skip


def test_a_scan_lists_each_key_that_is_there_once_and_no_other() -> None:
    for scan, calm, count in (
        (scanned(b"p1"), True, 0),
        (scanned(), True, 1),
        (scanned(), False, 0),
        (scanned(prefix=b"q"), True, 0),
        (scanned(b"p1", b"p1"), True, 1),
        (scanned(b"p1", b"p7"), True, 1),
        (scanned(at_s=1), True, 0),
    ):
        always = (lambda start, end: True) if calm else (lambda start, end: False)
        assert len(listing.check([put(1, b"a", V1), scan], (), 2, always, S)) == count
    deleted = put(2, b"", V2)
    deleted.verb = "delete"
    assert listing.check([put(1, b"a", V1), deleted, scanned()], (), 2, lambda s, e: True, S) == []


def test_a_scan_lists_nothing_that_was_deleted_long_before() -> None:
    deleted = put(2, b"", V2, w=2)
    deleted.verb = "delete"
    knew = Answer("n1", 5 * S, b"p1", Status.HIT, V1, leads=True, known=V2, holders=("n0",))
    for told, more, count in (
        (knew, [], 1),
        (knew._replace(known=V1), [], 0),
        (knew._replace(leads=False), [], 0),
        (knew._replace(version=V2), [], 0),
        (knew, [put(3, b"b", Version(3 << 16, 7, 1))], 0),
        (knew, [put(3, b"b", NO_VERSION)], 0),
        (knew, [put(0, b"0", Version(1, 7, 1))], 1),
    ):
        scan = scanned(b"p1")
        scan.told = (told,)
        history = [put(1, b"a", V1), deleted, *more, scan]
        found = listing.check_deleted(history, (), 2, lambda start, end: False)
        assert [one.promise for one in found] == [listing.GONE] * count
        scan.listed = ()
        assert listing.check_deleted(history, (), 2, lambda start, end: False) == []


def test_a_call_of_many_keys_is_many_entries() -> None:
    blank = Entry(client="c0", verb="", key=b"")
    begun = operations.entries(GetMany(keys=(b"p1", b"p2", b"p3")), blank)
    sure = answered(get(1, None))
    assert sure.answer is not None
    answers = [sure.answer._replace(key=b"p2")]
    operations.ended(begun, {b"p1": b"a"}, None, answers, {b"a": [V1]})
    assert [(one.status, one.version) for one in begun] == [
        ("hit", V1), ("miss", NO_VERSION), ("unsure", NO_VERSION),
    ]  # fmt: skip


def test_of_many_writes_each_key_ends_in_its_own_way() -> None:
    items = ((b"p1", b"a"), (b"p2", b"b"), (b"p3", b"c"))
    begun = operations.entries(
        WriteMany(op=Op.PUT, items=items), Entry(client="c0", verb="", key=b"")
    )
    error = NodeUnavailable("gone")
    written = Written(1, (b"p2", b"p3"), frozenset((b"p3",)), error)
    operations.ended(begun, written, None, (), {b"a": [V1]})
    assert [one.end for one in begun] == [End.OK, End.FAILED, End.UNKNOWN]
    assert begun[0].version == V1


# ------------------------------------------------------------------ acknowledgement


def unacknowledged(entry: Entry, alive: set[int], *, executed: int = 1, calm: bool = True) -> int:
    versions = {entry.value: [V1, V2][:executed]}
    found = acknowledgement.check(
        [entry], versions, 2, lambda start, end: alive, lambda start, end: calm
    )
    return len(found)


def test_a_patient_write_that_enough_nodes_could_acknowledge_must_not_end_as_maybe() -> None:
    maybe = put(1, b"a", V1, w=2)
    maybe.end, maybe.ended_ns = End.UNKNOWN, 8 * S
    assert unacknowledged(maybe, {7, 8}) == 1
    assert unacknowledged(maybe, {7}) == 0, "too few lived on"
    assert unacknowledged(maybe, {8, 9}) == 0, "its coordinator died"
    assert unacknowledged(maybe, {7, 8}, executed=0) == 0, "nobody executed it"
    assert unacknowledged(maybe, {7, 8}, calm=False) == 0
    maybe.ended_ns = 3 * S
    assert unacknowledged(maybe, {7, 8}) == 0, "too short to notice who is dead"
    done = put(1, b"a", V1, w=2)
    done.ended_ns = 8 * S
    assert unacknowledged(done, {7, 8}) == 0


# ------------------------------------------------------------------ provenance


def test_a_value_that_was_written_may_be_read() -> None:
    assert provenance.check([put(1, b"a", V1), get(5, b"a")], S) == []


def test_a_value_from_nowhere_is_seen() -> None:
    assert len(provenance.check([put(1, b"a", V1), get(5, b"z")], S)) == 1


def test_a_value_of_a_refused_write_is_seen() -> None:
    refused = put(1, b"a", V1)
    refused.end = End.FAILED
    assert len(provenance.check([refused, get(5, b"a")], S)) == 1
    refused.end = End.UNKNOWN
    assert provenance.check([refused, get(5, b"a")], S) == []


def test_a_value_of_another_key_and_one_from_the_future_are_seen() -> None:
    other = put(1, b"a", V1)
    other.key = b"p2"
    assert len(provenance.check([other, get(5, b"a")], S)) == 1
    assert len(provenance.check([put(9, b"a", V1), get(5, b"a")], S)) == 1


def test_an_expired_value_is_seen() -> None:
    assert provenance.check([put(1, b"a", V1, ttl_ms=2000), get(3, b"a")], S) == []
    assert len(provenance.check([put(1, b"a", V1, ttl_ms=2000), get(9, b"a")], S)) == 1


def test_a_write_with_two_versions_happened_twice() -> None:
    history = [put(1, b"a", V1)]
    assert provenance.check_once(history, {b"a": [V1]}) == []
    assert len(provenance.check_once(history, {b"a": [V1, V2]})) == 1


def test_a_write_stamped_after_its_deadline_is_seen() -> None:
    history = [put(1, b"a", V1)]
    in_time, late = Version(1900 << 16, 7, 1), Version(9000 << 16, 7, 1)
    assert provenance.check_late(history, {b"a": [in_time]}, 0, S) == []
    assert len(provenance.check_late(history, {b"a": [late]}, 0, S)) == 1


# ------------------------------------------------------------------ clearing


def clear(at_s: int, version: Version) -> Entry:
    entry = put(at_s, b"", version)
    entry.verb, entry.key = "clear", b""
    return entry


def test_what_was_cleared_and_is_found_again_is_seen() -> None:
    for found, at_s, calm, count in (
        (V1, 5, True, 1), (V2, 5, True, 0), (V1, 1, True, 0), (V1, 5, False, 0),
    ):  # fmt: skip
        history = [put(1, b"a", found), clear(3, V2), get(at_s, b"a", found)]
        always = (lambda start, end: True) if calm else (lambda start, end: False)
        assert len(clearing.check(history, always)) == count


def test_a_key_may_be_missed_once_all_was_cleared() -> None:
    assert unread(put(1, b"a", V1), get(5, None), clear(2, V2)) == 0
    assert unread(put(1, b"a", V2), get(5, None), clear(2, V1)) == 1


# ------------------------------------------------------------------ the others


def test_a_call_that_ends_late_or_never_is_seen() -> None:
    late, never = get(1, b"a"), get(1, b"a")
    late.ended_ns, never.end = 3 * S, End.OPEN
    assert deadlines.check([get(1, b"a")], 9 * S, 0) == []
    assert len(deadlines.check([late, never], 9 * S, 0)) == 2


def test_a_version_that_falls_within_a_life_is_seen() -> None:
    watch = monotony.Monotony()
    for version in (V1, V2, V1):
        watch.observe(("n0", 1, b"p1"), record(version), lambda version: True, 0)
    assert len(watch.violations) == 1


def test_what_was_forgotten_must_not_come_back_older() -> None:
    watch = monotony.Monotony()
    for held in (record(V2, Kind.TOMBSTONE), None, record(V1)):
        watch.observe(("n0", 1, b"p1"), held, lambda version: True, 0)
    assert len(watch.violations) == 1


def test_an_older_tombstone_behind_a_forgotten_one_hides_nothing_that_exists() -> None:
    watch = monotony.Monotony()
    for held in (record(V2, Kind.TOMBSTONE), None, record(V1, Kind.TOMBSTONE)):
        watch.observe(("n0", 1, b"p1"), held, lambda version: True, 0)
    assert watch.violations == []
    watch.observe(("n0", 1, b"p1"), record(V1), lambda version: True, 0)
    assert len(watch.violations) == 1, "but what it was is not forgotten"


def test_another_life_and_a_released_slot_begin_anew() -> None:
    watch = monotony.Monotony()
    watch.observe(("n0", 1, b"p1"), record(V2), lambda version: True, 0)
    watch.observe(("n0", 2, b"p1"), record(V1), lambda version: True, 0)
    watch.observe(("n0", 1, b"p1"), None, lambda version: False, 0)
    watch.observe(("n0", 1, b"p1"), record(V1), lambda version: True, 0)
    assert watch.violations == []


def test_an_eviction_undone_by_repair_is_seen() -> None:
    ghost, value = record(V1, Kind.EVICTED), record(V1)
    assert len(monotony.check_repair("n0", [ghost], [value], 0, lambda _: True)) == 1
    assert monotony.check_repair("n0", [ghost], [value], 0, lambda _: False) == [], "heard of"
    assert monotony.check_repair("n0", [ghost, None], [record(V2), value], 0, lambda _: True) == []


def member(name: str, standing: Standing = Standing.ALIVE, boot: int = 1) -> Member:
    return Member(name, f"{name}:1", f"{name}:2", "", 1.0, boot, 1, standing, 0, False)


def test_views_must_name_the_living_and_only_them() -> None:
    a, b = node_key("a"), node_key("b")
    good = {a: member("a"), b: member("b")}
    assert views.check({"a": good, "b": good}, {a: 1, b: 1}) == []
    assert len(views.check({"a": good}, {a: 1})) == 1, "b is dead"
    assert len(views.check({"a": {a: member("a")}}, {a: 1, b: 1})) == 1, "b is unknown"
    suspect = {a: member("a"), b: member("b", Standing.SUSPECT)}
    assert len(views.check({"a": suspect}, {a: 1, b: 1})) == 1
    assert len(views.check({"a": good}, {a: 1, b: 2})) == 1, "b is another boot"
    assert views.check({"a": {a: member("a"), b: member("b", Standing.DEAD)}}, {a: 1}) == []


def test_a_store_above_its_limit_is_seen() -> None:
    assert limits.check({"n0": 10, "n1": 11}, {"n0": 10, "n1": 11}, 0) == []
    assert len(limits.check({"n0": 11, "n1": 11}, {"n0": 10, "n1": 11}, 0)) == 1


def test_limits_are_those_of_every_row() -> None:
    rows = [Row("fits", 10, lambda: 10), Row("grows", 10, lambda: 11)]
    [found] = limits.check_rows("n0", rows, 0)
    assert found.text == "n0: grows 11 bytes, at most 10"


def test_repair_that_goes_on_at_rest_is_seen() -> None:
    assert silence.check(0, 0) == []
    assert len(silence.check(3, 0)) == 1


def test_at_rest_nothing_but_roots_travels() -> None:
    roots = {"CompareRoot": 9, "CompareRootReply": 9, "PushPull": 1, "Pull": 0}
    assert silence.check_traffic(roots, 0) == []
    assert len(silence.check_traffic(roots | {"Pull": 1}, 0)) == 1
    assert len(silence.check_traffic(roots | {"Compare": 1}, 0)) == 1


# ------------------------------------------------------------------ what is sent, and waited for


def test_a_batch_that_is_sent_again_while_the_first_is_under_way_is_seen() -> None:
    link = ("n0", 1, "n1", 1)
    first, second = (bytes([1, number]) for number in (1, 2))
    for order, count in (
        ("send 1, land 1, send 2, land 2", 0),
        ("send 1, send 2, land 2", 0),  # The first was lost with its connection.
        ("send 1, send 2, land 1, land 2", 1),
        ("land 1", 0),
    ):
        watch = sendings.Sendings()
        for step in order.split(", "):
            verb, number = step.split()
            frame = first if number == "1" else second
            if verb == "send":
                watch.sent(link, 7, frame)
            else:
                watch.arrived(link, 7, frame, 0)
        assert [one.promise for one in watch.violations] == [sendings.AGAIN] * count


def test_a_replace_of_what_was_told_to_be_gone_is_seen_and_a_put_is_not() -> None:
    done = replace(put(1, b"new", V2), verb="replace")
    gone = {V2: "deleted"}
    assert made.check([done], gone)
    assert made.check([done], {V1: "deleted"}) == []
    assert made.check([put(1, b"new", V2)], gone) == [], "it asks for nothing"
    assert made.check([replace(done, status="not done")], gone) == []


def test_a_late_read_that_is_answered_is_seen() -> None:
    assert [one.promise for one in sendings.check_late([("n0 answered c0", 5)])] == [sendings.LATE]


def test_writes_that_wait_for_a_gray_node_once_it_was_found_out_are_seen() -> None:
    slow = f.Delay(at_ns=0, lasts_ns=60 * S, node="n1", extra_ns=S // 10)
    loss = f.Loss(at_ns=0, lasts_ns=60 * S, node="n1", permille=100)
    crash = f.Crash(at_ns=0, node="n2")

    def waited(at_s: int, late: int, w: int = 2) -> list[Entry]:
        writes = [put(at_s, b"%d" % number, V1, w=w) for number in range(40)]
        for write in writes[late:]:
            write.ended_ns = write.invoked_ns + S // 100
        return writes

    for history, faults, count in (
        (waited(30, 20), (slow, loss), 1),
        (waited(30, 3), (slow, loss), 0),
        (waited(5, 20), (slow, loss), 0),
        (waited(30, 20, w=3), (slow, loss), 0),
        (waited(30, 20), (slow, crash), 0),
        (waited(30, 20), (loss,), 0),
    ):
        assert len(gray.check(history, faults, 3)) == count


# ------------------------------------------------------------------ what a client has outlived


def gone_back(first: Entry, then: Entry) -> int:
    first.client = then.client
    return len(outlived.check([first, then]))


def test_a_client_that_reads_what_it_has_replaced_or_seen_replaced_is_seen() -> None:
    assert gone_back(put(1, b"b", V2), get(2, b"a", V1)) == 1
    assert gone_back(get(1, b"b", V2), get(2, b"a", V1)) == 1
    assert gone_back(put(1, b"b", V2), get(2, b"b", V2)) == 0
    assert gone_back(put(1, b"a", V1), get(2, b"b", V2)) == 0
    assert gone_back(put(1, b"b", V2), get(2, None)) == 0, "a miss is always allowed"


def test_only_what_ended_before_in_the_same_life_of_the_same_client_counts() -> None:
    overlapping = put(1, b"b", V2)
    overlapping.ended_ns = 3 * S
    assert gone_back(overlapping, get(2, b"a", V1)) == 0
    unknown = put(1, b"b", V2)
    unknown.end = End.UNKNOWN
    assert gone_back(unknown, get(2, b"a", V1)) == 0
    later_life = get(2, b"a", V1)
    later_life.life = 2
    assert gone_back(put(1, b"b", V2), later_life) == 0
    assert outlived.check([put(1, b"b", V2), get(2, b"a", V1)]) == [], "two clients"


def test_a_client_that_reads_what_it_has_cleared_is_seen() -> None:
    clear = put(1, b"", Version(V2.stamp + 1, 0, 0))
    clear.verb, clear.key = "clear", b""
    assert gone_back(clear, get(2, b"b", V2)) == 1
    assert gone_back(clear, get(2, b"b", Version(V2.stamp + 1, 7, 1))) == 0


# ------------------------------------------------------------------ values that are made


def made_at(*times: tuple[int, int], ttl_ms: int = 10_000, calm: bool = True) -> list[str]:
    recipe = Recipe(ttl_ms=ttl_ms, stale_ms=0, lease_ms=5_000, wait_ms=1, beta=0)
    makings = [Making("m", b"k", recipe, b * S, b * S, e * S) for b, e in times]
    return [found.promise for found in leases.check(makings, lambda start, end: calm)]


def test_values_made_side_by_side_or_again_are_seen() -> None:
    assert made_at((1, 3), (2, 4)) == [leases.ONE]
    assert made_at((1, 3), (4, 5)) == [leases.ONCE]
    assert made_at((1, 3), (4, 5), ttl_ms=1_000) == []
    assert made_at((1, 8), (7, 9)) == [], "behind the end of the lease"
    assert made_at((1, 3), (2, 4), calm=False) == []


# ------------------------------------------------------------------ near caches


def test_a_copy_beyond_its_bound_is_seen() -> None:
    held = [Held(1 * S, (7, 1), b"k", 5), Held(2 * S, (7, 1), b"k", 6)]

    def found(at_s: float, stamp: int, *, boot: int = 1, known: int = 0) -> list[str]:
        hit = NearHit(round(at_s * S), (7, boot), b"k", stamp, known)
        return [one.promise for one in nearness.check([hit], held, S // 4)]

    assert found(2.2, 5) == []
    assert found(2.3, 5) == [nearness.BOUND]
    assert found(9, 6) == []
    assert found(9, 5, boot=2) == [], "another life knows nothing of it"
    assert found(2.1, 5, known=6) == [nearness.OWN]
