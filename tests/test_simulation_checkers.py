"""Every checker accepts a good history and sees the fault in a bad one."""

from __future__ import annotations

from dcc.types import Kind, Member, Record, Standing, Version, node_key
from simulations.checkers import (
    acknowledgement,
    clearing,
    convergence,
    deadlines,
    limits,
    monotony,
    provenance,
    silence,
    survival,
    views,
)
from simulations.history import End, Entry
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
    assert len(monotony.check_repair("n0", [ghost], [value], 0)) == 1
    assert monotony.check_repair("n0", [ghost, None], [record(V2), value], 0) == []


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


def test_repair_that_goes_on_at_rest_is_seen() -> None:
    assert silence.check(0, 0) == []
    assert len(silence.check(3, 0)) == 1


def test_at_rest_nothing_but_roots_travels() -> None:
    roots = {"CompareRoot": 9, "CompareRootReply": 9, "PushPull": 1, "Pull": 0}
    assert silence.check_traffic(roots, 0) == []
    assert len(silence.check_traffic(roots | {"Pull": 1}, 0)) == 1
    assert len(silence.check_traffic(roots | {"Compare": 1}, 0)) == 1
