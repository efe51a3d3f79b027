"""What the whole cluster agrees on: settings, whether it has converged, what it really holds."""

from __future__ import annotations

import json
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from dcc.node.audit import AUDIT_SLOTS_MAX, ENTRIES_PER_TURN
from dcc.node.converging import LAG_MAX_MS, REASONS_MAX, ROUNDS_MAX, judge
from dcc.node.settings import CLEAR_LEEWAY_MS
from dcc.ring.hashing import slot_of
from dcc.types import Kind, Member, NodeKey, Settings, Standing, node_key
from dcc.units import MILLISECOND, SECOND
from dcc.wire import messages as m
from tests.support.processes import NodeProcess, Processes, wait_until
from tests.support.wired_cores import Cores

EPOCH = 7


def cluster() -> Cores:
    cores = Cores("a", "b", "c", replicas=1)
    cores.settle()
    return cores


@pytest.fixture
def fresh() -> Cores:
    """Three nodes for a test that changes who they are, or how many copies they keep."""
    return cluster()


@pytest.fixture(scope="module")
def shared() -> Cores:
    return cluster()


@pytest.fixture
def three(shared: Cores) -> Iterator[Cores]:
    """Three nodes that other tests use too; they take a second or two to become a cluster."""
    yield shared
    shared.lost = lambda _a, _b, _message: False
    shared.run(1)
    shared.replies.clear()


def answer(cores: Cores, name: str, message: m.Message, seconds: float = 2, at: int = 0) -> object:
    """Return what a node answers within some time."""
    before, end = len(cores.replies), cores.mono + int(seconds * SECOND)
    cores.ask(name, message, at=at)
    while len(cores.replies) == before:
        assert cores.mono < end, "no answer in time"
        cores.step(5 * MILLISECOND)  # Counting goes on with each turn, and a loop has many.
    return cores.replies[before][1]


def pause(cores: Cores) -> None:
    """Let a while pass in many turns."""
    for _ in range(120):
        cores.step(5 * MILLISECOND)


def converged(cores: Cores, name: str) -> m.ConvergedReply:
    reply = answer(cores, name, m.ConvergedGet())
    assert isinstance(reply, m.ConvergedReply)
    return reply


def settings_of(cores: Cores) -> list[Settings]:
    return [cores[name].membership.settings for name in sorted(cores.nodes)]


# ------------------------------------------------------------------ the judgement alone


def member(name: str, standing: Standing = Standing.ALIVE, *, draining: bool = False) -> Member:
    return Member(name, "h:1", "h:2", "", 1.0, 1, 1, standing, 0, draining)


def state(
    *, ready: bool = True, unsynced: int = 0, leftovers: int = 0, lag_ms: int = 0, settings: int = 5
) -> m.State:
    return m.State(
        ready=ready, unsynced=unsynced, leftovers=leftovers, lag_ms=lag_ms, settings=settings
    )


def judged(
    *members: Member, other: tuple[int, m.State] | None = (EPOCH, state()), missing: int = 0
) -> m.ConvergedReply:
    """Judge a cluster of `a`, which is fine, and `members`, the first of which said `other`."""
    table = {node_key(one.name): one for one in (member("a"), *members)}
    states: dict[NodeKey, tuple[int, m.State]] = {node_key("a"): (EPOCH, state())}
    if members and other is not None:
        states[members[0].key] = other
    return judge(table, EPOCH, 5, states, missing)


def test_a_cluster_with_nothing_left_to_do_has_converged() -> None:
    assert judged() == m.ConvergedReply(converged=True, under_replicated=0, reasons=())
    assert judged(member("b")).converged
    assert judged(member("b"), other=(EPOCH, state(lag_ms=LAG_MAX_MS))).converged


@pytest.mark.parametrize("standing", [Standing.REMOVED, Standing.LEFT])
def test_who_is_out_of_the_ring_is_not_waited_for(standing: Standing) -> None:
    assert judged(member("b", standing), other=None).converged


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (judged(member("b", Standing.SUSPECT)), "node b is suspect"),
        (judged(member("b", Standing.DEAD), other=None), "node b is dead"),
        (judged(member("b", draining=True)), "node b is leaving"),
        (judged(member("b"), other=None), "no answer from b"),
        (judged(member("b"), other=(8, state())), "b sees another ring"),
        (judged(member("b"), other=(EPOCH, state(settings=4))), "b knows another number of copies"),
        (judged(member("b"), other=(EPOCH, state(ready=False))), "b is not ready"),
        (judged(member("b"), other=(EPOCH, state(unsynced=12))), "b: 12 slots not complete"),
        (judged(member("b"), other=(EPOCH, state(leftovers=3))), "b: 3 slots to hand over"),
        (
            judged(member("b"), other=(EPOCH, state(lag_ms=LAG_MAX_MS + 1))),
            "b: a write waits for 2001 ms to be replicated",
        ),
        (judged(missing=9), "9 copies belong to nodes that are not alive"),
    ],
)
def test_each_thing_left_to_do_is_the_one_reason(reply: m.ConvergedReply, reason: str) -> None:
    assert (reply.converged, reply.reasons) == (False, (reason,))


def test_copies_not_known_to_be_complete_are_summed() -> None:
    assert judged(member("b"), other=(EPOCH, state(unsynced=12)), missing=30).under_replicated == 42


def test_reasons_are_bounded_and_say_how_many_there_are_besides() -> None:
    many = judged(*(member(f"n{i}") for i in range(100)), other=None)
    assert len(many.reasons) == REASONS_MAX
    assert many.reasons[-1] == "and 37 more reasons"


# ------------------------------------------------------------------ the question


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_any_node_says_yes_when_all_is_in_place(three: Cores, name: str) -> None:
    assert converged(three, name) == m.ConvergedReply(
        converged=True, under_replicated=0, reasons=()
    )


def test_a_node_alone_has_converged() -> None:
    alone = Cores("a", replicas=2)
    alone.settle()
    assert converged(alone, "a").converged


def test_it_is_no_from_a_crash_until_the_copies_are_made_anew(fresh: Cores) -> None:
    fresh.stopped.add("c")
    assert converged(fresh, "a").reasons == ("no answer from c",)
    fresh.until(lambda: fresh["c"].key not in fresh["a"].membership.alive())
    missing = converged(fresh, "a")
    assert not missing.converged
    lost = sum(fresh["c"].key in fresh["a"].held.view.slots.owners(slot) for slot in range(16_384))
    assert f"{lost} copies belong to nodes that are not alive" in missing.reasons
    assert missing.under_replicated >= lost
    fresh.until(lambda: fresh["c"].key not in fresh["a"].held.view.boots, 120)
    assert not converged(fresh, "a").converged
    fresh.until(lambda: converged(fresh, "a").converged, 10)
    assert len(fresh["a"].held.view.boots) == 2


def test_it_is_no_while_a_joining_node_is_being_filled(fresh: Cores) -> None:
    for i in range(200):
        fresh.put("a", b"key-%d" % i, b"v")
    fresh.run(1)
    fresh.lost = lambda _a, _b, message: isinstance(message, m.Compare | m.CompareRoot)
    fresh.add("d")
    fresh.until(lambda: len(fresh["a"].membership.alive()) == 4)
    fresh.run(1)
    reply = converged(fresh, "a")
    assert not reply.converged
    assert reply.under_replicated > 0
    assert any(one.startswith("d: ") for one in reply.reasons)
    fresh.lost = lambda _a, _b, _message: False
    fresh.until(lambda: converged(fresh, "a").converged)
    assert all(converged(fresh, name).converged for name in fresh.nodes)


def test_it_is_no_while_somebody_leaves(fresh: Cores) -> None:
    for i in range(100):
        fresh.put("c", b"key-%d" % i, b"v")
    fresh.run(1)
    fresh.lost = lambda _a, _b, message: isinstance(message, m.Pull)
    fresh.carry("c", fresh["c"].leave(fresh.now))
    fresh.run(1)
    reply = converged(fresh, "a")
    assert not reply.converged
    assert {"node c is leaving", "c is not ready"} <= set(reply.reasons)
    assert any(one.startswith("c: ") and "to hand over" in one for one in reply.reasons)


def test_it_is_no_while_a_write_is_not_replicated_for_long(three: Cores) -> None:
    three.lost = lambda _a, _b, message: isinstance(message, m.Replicate)
    three.put("a", three.fresh_key("a", "b"), b"v")
    three.run(1.5)
    assert converged(three, "c").converged
    three.run(1)
    (reason,) = converged(three, "c").reasons
    assert reason.startswith("a: a write waits for 2")


def test_a_node_that_stood_still_while_it_counted_counts_anew(fresh: Cores) -> None:
    core = fresh["a"]
    fresh.lost = lambda _a, _b, message: isinstance(message, m.Compare | m.CompareRoot)
    fresh.ask("a", m.ConvergedGet())
    for _ in range(3):
        fresh.carry("a", core.tick(fresh.now))
    core._stood_still(core._at)
    pause(fresh)
    (reply,) = [one for _name, one in fresh.replies if isinstance(one, m.ConvergedReply)]
    assert f"a: {len(core.held.view.owned)} slots not complete" in reply.reasons


def test_a_node_that_stood_still_after_it_had_counted_counts_anew(fresh: Cores) -> None:
    """Its own share was counted, and the others' answers waited for it to go on."""
    core = fresh["a"]
    waits = (m.State, m.Compare, m.CompareRoot)
    fresh.lost = lambda _a, _b, message: isinstance(message, waits)
    fresh.ask("a", m.ConvergedGet())
    for _ in range(40):
        fresh.carry("a", core.tick(fresh.now))
    (question,) = core.converging._rounds.values()
    assert core.key in question.states, "it has counted"
    core._stood_still(core._at)
    pause(fresh)
    (reply,) = [one for _name, one in fresh.replies if isinstance(one, m.ConvergedReply)]
    assert f"a: {len(core.held.view.owned)} slots not complete" in reply.reasons


def test_a_view_that_changes_while_slots_are_counted_is_counted_anew(fresh: Cores) -> None:
    fresh.lost = lambda _a, _b, message: isinstance(message, m.Compare | m.CompareRoot)
    fresh.ask("a", m.ConvergedGet())
    core = fresh["a"]
    for _ in range(10):
        fresh.carry("a", core.tick(fresh.now))
    count_before = core.converging._count
    assert count_before is not None
    assert count_before.unsynced == 0
    for name in fresh.nodes:
        settings = Settings(2, fresh.ms << 16, 0)
        fresh.carry(name, fresh[name]._views.change_settings(settings, fresh[name]._at))
    pause(fresh)
    (reply,) = [one for _name, one in fresh.replies if isinstance(one, m.ConvergedReply)]
    assert "a: 16384 slots not complete" in reply.reasons


def test_a_silent_member_holds_the_answer_up_for_a_bounded_time(three: Cores) -> None:
    three.lost = lambda _a, _b, message: isinstance(message, m.State)
    for at, least, most in ((0, 480, 520), (three.ms + 500 + 200, 140, 160)):
        began = three.mono
        reply = answer(three, "a", m.ConvergedGet(), at=at)
        assert isinstance(reply, m.ConvergedReply)
        assert reply.reasons == ("no answer from b", "no answer from c")
        assert least * MILLISECOND <= three.mono - began <= most * MILLISECOND


def test_too_many_questions_at_once_are_refused(three: Cores) -> None:
    three.lost = lambda _a, _b, message: isinstance(message, m.State)
    for _ in range(ROUNDS_MAX):
        assert three.ask("a", m.ConvergedGet()) == []
    (refusal,) = three.ask("a", m.ConvergedGet())
    assert isinstance(refusal, m.ErrorReply)
    assert refusal.code is m.Code.OVERLOADED


def test_whoever_looks_at_the_statistics_finds_a_judgement_of_the_last_second(
    three: Cores,
) -> None:
    core = three["a"]
    three.run(1)
    core.stats(three.now)
    pause(three)
    found = core.stats(three.now)["detail"]["convergence"]
    assert (found["converged"], found["under_replicated"], found["reasons"]) == (True, 0, [])
    assert found["age_seconds"] <= 0.6
    three.run(5)
    assert core.stats(three.now)["detail"]["convergence"]["age_seconds"] > 1, "nobody looked"
    pause(three)
    assert core.stats(three.now)["detail"]["convergence"]["age_seconds"] <= 0.6


# ------------------------------------------------------------------ settings


def test_the_number_of_copies_changes_everywhere_and_moves_the_copies(fresh: Cores) -> None:
    key = fresh.fresh_key("a", "b")
    fresh.put("a", key, b"v", w=2)
    reply = answer(fresh, "c", m.SetReplicas(replicas=2))
    assert isinstance(reply, m.SettingsReply)
    assert (reply.settings.replicas, reply.everywhere) == (2, True)
    assert settings_of(fresh) == [reply.settings] * 3
    fresh.until(lambda: converged(fresh, "b").converged)
    assert fresh.held("c", key) == b"v"
    assert answer(fresh, "a", m.SetReplicas(replicas=0))
    fresh.until(lambda: converged(fresh, "b").converged)
    assert [fresh.held(name, key) for name in "abc"].count(b"v") == 1


def test_setting_the_same_number_again_changes_nothing(fresh: Cores) -> None:
    first = answer(fresh, "a", m.SetReplicas(replicas=2))
    again = answer(fresh, "b", m.SetReplicas(replicas=2))
    assert first == again
    assert isinstance(first, m.SettingsReply)
    assert first.settings.replicas_stamp


def test_the_start_option_becomes_the_clusters_word_when_it_is_set(fresh: Cores) -> None:
    """Otherwise a node started with a larger option would raise it by joining."""
    reply = answer(fresh, "a", m.SetReplicas(replicas=1))
    assert isinstance(reply, m.SettingsReply)
    assert reply.settings.replicas_stamp > 0


def test_the_later_of_two_settings_wins_at_every_node(fresh: Cores) -> None:
    fresh.lost = lambda _a, _b, message: isinstance(message, m.SettingsUpdate)
    fresh.ask("a", m.SetReplicas(replicas=2))
    fresh.mono += 5 * MILLISECOND
    fresh.ask("b", m.SetReplicas(replicas=0))
    fresh.lost = lambda _a, _b, _message: False
    fresh.run(3)
    assert {one.replicas for one in settings_of(fresh)} == {0}


@pytest.mark.parametrize("message", [m.SetReplicas(replicas=2), m.Clear()])
def test_a_member_that_does_not_acknowledge_makes_it_not_everywhere(
    fresh: Cores, message: m.Message
) -> None:
    fresh.lost = lambda _a, b, sent: b == fresh["c"].key and isinstance(sent, m.SettingsUpdate)
    began = fresh.mono
    reply = answer(fresh, "a", message, at=fresh.ms + 300)
    assert isinstance(reply, m.SettingsReply | m.ClearReply)
    assert not reply.everywhere
    assert 280 * MILLISECOND <= fresh.mono - began <= 340 * MILLISECOND
    fresh.run(3)
    assert len(set(settings_of(fresh))) == 1, "gossip has told it"


@pytest.mark.parametrize("message", [m.SetReplicas(replicas=2), m.Clear()])
def test_a_change_that_is_read_too_late_is_not_made(three: Cores, message: m.Message) -> None:
    before = settings_of(three)
    (refusal,) = three.ask("a", message, at=three.ms - 1)
    assert isinstance(refusal, m.ErrorReply)
    assert refusal.code is m.Code.TOO_LATE
    assert settings_of(three) == before


@pytest.mark.parametrize("message", [m.SetReplicas(replicas=2), m.Clear(), m.ConvergedGet()])
def test_a_node_that_has_not_joined_refuses(fresh: Cores, message: m.Message) -> None:
    fresh.stopped |= {"a", "b", "c"}
    fresh.add("d")
    (refusal,) = fresh.ask("d", message)
    assert isinstance(refusal, m.ErrorReply)
    assert refusal.code is m.Code.NOT_READY


# ------------------------------------------------------------------ clear


def test_a_clear_wipes_nothing_that_was_written_after_it_was_asked_for(three: Cores) -> None:
    early, late = three.fresh_key("a", "b"), three.fresh_key("b", "c")
    three.put("a", early, b"v")
    three.mono += SECOND // 10
    issued_ms = three.ms
    three.mono += 2 * CLEAR_LEEWAY_MS * MILLISECOND
    three.put("b", late, b"v")
    three.mono += SECOND // 10
    reply = answer(three, "c", m.Clear(issued_ms=issued_ms))
    assert reply == m.ClearReply(stamp=issued_ms + CLEAR_LEEWAY_MS << 16, everywhere=True)
    assert (three.held("a", early), three.held("b", late)) == (None, b"v")
    answer(three, "c", m.Clear())
    assert three.held("b", late) is None, "without a time everything goes"


def test_a_clear_repeated_at_another_node_spares_what_was_written_after_the_first(
    three: Cores,
) -> None:
    """Nobody heard the first node's answer in time, so another one is asked the same."""
    key = three.fresh_key("b", "c")
    asked = m.Clear(issued_ms=three.ms)
    three.mono += MILLISECOND
    first = answer(three, "a", asked)
    three.mono += MILLISECOND
    three.put("b", key, b"v")
    three.mono += SECOND // 4
    assert answer(three, "c", asked) == first
    assert three.held("b", key) == b"v"


def test_a_clear_by_a_clock_that_is_ahead_takes_time_no_further_than_its_leeway(
    three: Cores,
) -> None:
    for _ in range(20):
        latest_ms = three.ms + 2 * CLEAR_LEEWAY_MS
        reply = answer(three, "a", m.Clear(issued_ms=three.ms + 3_600_000))
        assert isinstance(reply, m.ClearReply)
        assert reply.stamp >> 16 <= latest_ms + 20


def test_a_clear_always_covers_what_its_caller_has_seen(three: Cores) -> None:
    key = three.fresh_key("a", "b")
    (written,) = three.put("a", key, b"v")
    assert isinstance(written, m.WriteReply)
    seen = written.version.stamp
    reply = answer(three, "a", m.Clear(seen=seen, issued_ms=three.ms - 100))
    assert isinstance(reply, m.ClearReply)
    assert reply.stamp == seen + 1
    assert three.held("a", key) is None


def test_a_clear_older_than_the_last_one_changes_nothing_and_says_so(three: Cores) -> None:
    issued_ms = three.ms
    three.mono += SECOND
    newer = answer(three, "a", m.Clear())
    assert isinstance(newer, m.ClearReply)
    three.mono += SECOND // 10
    key = three.fresh_key("a", "b")
    three.put("a", key, b"v")
    assert answer(three, "b", m.Clear(issued_ms=issued_ms)) == newer
    assert {one.cleared for one in settings_of(three)} == {newer.stamp}
    assert three.held("a", key) == b"v"


# ------------------------------------------------------------------ audit


def audit(cores: Cores, name: str, *slots: int) -> m.AuditReply:
    reply = answer(cores, name, m.AuditGet(slots=slots))
    assert isinstance(reply, m.AuditReply)
    return reply


def test_holders_of_the_same_versions_have_the_same_content(three: Cores) -> None:
    key = three.fresh_key("a", "b")
    slot = slot_of(key)
    nothing = m.AuditReply(content=(0,), seen=(0,), items=(0,), ghosts=(0,), forgotten=(0,))
    assert audit(three, "a", slot) == nothing
    three.put("a", key, b"v", w=2)
    first = audit(three, "a", slot)
    assert first == audit(three, "b", slot)
    assert first.items == (1,)
    assert first.content != (0,)
    assert first.seen == (three["a"].held.store.comparison.digest(slot),)
    assert audit(three, "c", slot).items == (0,)
    three.run(0.1)
    three.put("a", key, b"v", w=2)
    assert audit(three, "a", slot).content != first.content, "another version of the same value"


def test_content_that_differs_because_of_eviction_is_told_apart(three: Cores) -> None:
    key = three.fresh_key("a", "b")
    slot = slot_of(key)
    three.put("a", key, b"v", w=2)
    store = three["b"].held.store
    entry = store.peek(slot, key)
    assert entry is not None
    store._memory.strip(entry, Kind.EVICTED)
    a, b = audit(three, "a", slot), audit(three, "b", slot)
    assert (a.seen, a.ghosts, b.ghosts) == (b.seen, (0,), (1,))
    ghost = m.AuditReply(content=(0,), seen=a.seen, items=(0,), ghosts=(1,), forgotten=(0,))
    assert b == ghost


def test_forgotten_evictions_are_told_and_what_is_stamped_above_them_is_read_alone(
    three: Cores,
) -> None:
    key = three.fresh_key("a", "b")
    slot = slot_of(key)
    three.put("a", key, b"v", w=2)
    whole = audit(three, "a", slot)
    store = three["b"].held.store
    entry = store.peek(slot, key)
    assert entry is not None
    stamp = entry.version.stamp
    store._memory.strip(entry, Kind.EVICTED)
    store._memory.note_lost(entry)
    store._memory.remove(entry)
    assert audit(three, "b", slot).forgotten == (stamp,)
    above = m.AuditGet(slots=(slot,), above=(stamp,))
    for name, mark in (("a", 0), ("b", stamp)):
        assert answer(three, name, above) == m.AuditReply(
            content=(0,), seen=whole.seen, items=(0,), ghosts=(0,), forgotten=(mark,)
        )
    below = m.AuditGet(slots=(slot,), above=(stamp - 1,))
    assert answer(three, "a", below) == whole


def test_the_expired_and_the_cleared_are_not_content(three: Cores) -> None:
    key, other = three.fresh_key("a", "b"), three.fresh_key("a", "c")
    three.ask("a", m.Write(op=m.Op.PUT, key=key, value=b"v", ttl_ms=100))
    three.put("a", other, b"v")
    slots = (slot_of(key), slot_of(other))
    assert audit(three, "a", *slots).items == (1, 1)
    three.mono += 150 * MILLISECOND
    assert audit(three, "a", *slots).items == (0, 1)
    answer(three, "a", m.Clear())
    assert audit(three, "a", *slots).content == (0, 0)


def test_many_slots_are_answered_in_order_over_several_turns(three: Cores) -> None:
    keys = [b"key-%d" % i for i in range(2 * ENTRIES_PER_TURN)]
    for first in range(0, len(keys), 1_000):
        items = tuple((key, b"v") for key in keys[first : first + 1_000])
        for name in three.nodes:
            three.ask(name, m.WriteMany(op=m.Op.PUT, items=items))
    three.run(1)
    slots = tuple(range(AUDIT_SLOTS_MAX - 1, -1, -1))
    three.ask("a", m.AuditGet(slots=slots))
    assert not isinstance(three.replies[-1][1], m.AuditReply), "not all in one turn"
    three.run(0.2)
    reply = three.replies[-1][1]
    assert isinstance(reply, m.AuditReply)
    held = three["a"].held.store
    assert reply.items == tuple(len(held.keys(slot, three.ms)) for slot in slots)
    assert sum(reply.items) > 100


def test_a_question_about_more_slots_than_allowed_is_refused(three: Cores) -> None:
    (refusal,) = three.ask("a", m.AuditGet(slots=tuple(range(AUDIT_SLOTS_MAX + 1))))
    assert isinstance(refusal, m.ErrorReply)
    assert refusal.code is m.Code.MALFORMED


# ------------------------------------------------------------------ over HTTP


def page(node: NodeProcess) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(f"http://{node.ready['http']}/api/v1/converged") as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.mark.process
def test_the_page_says_yes_by_its_status_and_why_not_in_its_body(processes: Processes) -> None:
    first = processes.node("--http", "127.0.0.1:0", "--name", "one")
    wait_until(lambda: page(first)[0] == 200, 30, first.text)
    for _ in range(2):
        began = time.monotonic()
        body = page(first)[1]
        assert body["age_seconds"] < time.monotonic() - began, "judged after it was asked"
    second = processes.node("--seed", first.address, "--name", "two")
    assert second.ready
    wait_until(lambda: page(first)[0] == 200 and "two" in members(first), 30, first.text)
    second.signal(signal.SIGSTOP)
    wait_until(lambda: page(first)[0] == 503, 30, first.text)
    assert any("two" in reason for reason in page(first)[1]["reasons"])
    second.signal(signal.SIGCONT)
    wait_until(lambda: page(first)[0] == 200, 30, first.text)


def members(node: NodeProcess) -> dict[str, str]:
    url = f"http://{node.ready['http']}/api/v1/status"
    with urllib.request.urlopen(url) as answer:
        found: dict[str, str] = json.load(answer)["members"]
    return found
