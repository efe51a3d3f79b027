"""The parts of membership one by one: deadlines, suspicions, rumors, table, seeds."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcc.config import NodeConfig
from dcc.deadlines import Deadlines
from dcc.gossip.dissemination import RumorQueue, packed_bytes, retransmit_limit
from dcc.gossip.joining import Seeds
from dcc.gossip.pushpull import PushPuller
from dcc.gossip.suspicion import Suspicions, timeout_ns
from dcc.gossip.table import Table
from dcc.limits import GOSSIP_BYTES_MAX
from dcc.types import Member, Settings, Standing
from dcc.units import NEVER, SECOND
from dcc.wire.codec import Codec
from dcc.wire.messages import Ack, Ping, PingReq, Rumors

U64_MAX = (1 << 64) - 1


def row(name: str = "a", *, incarnation: int = 5, standing: Standing = Standing.ALIVE) -> Member:
    return Member(name, f"{name}:1", f"{name}:2", "", 1.0, 7, incarnation, standing, 9, False)


# ------------------------------------------------------------------ deadlines


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from("scp"), st.integers(0, 5), st.integers(0, 40)), max_size=120)
)
def test_deadlines_behave_like_a_dictionary_that_is_searched(
    steps: list[tuple[str, int, int]],
) -> None:
    deadlines, model = Deadlines(), dict[int, int]()
    for step, key, at in steps:
        if step == "s":
            deadlines.set(key, at)
            model[key] = at
        elif step == "c":
            deadlines.cancel(key)
            model.pop(key, None)
        else:
            due = sorted((each, k) for k, each in model.items() if each <= at)
            assert deadlines.pop_due(at) == [k for _, k in due]
            for _, k in due:
                del model[k]
        deadlines.check()
        assert deadlines.next_at() == min(model.values(), default=NEVER)


def test_moving_a_deadline_for_ever_needs_bounded_memory() -> None:
    deadlines = Deadlines()
    for at in range(10_000):
        deadlines.set(1, at)
        deadlines.check()


# ------------------------------------------------------------------ suspicion


def suspicions() -> Suspicions:
    return Suspicions(period_ns=SECOND, ack_timeout_ns=SECOND // 2)


def ends_at(machine: Suspicions, now: int) -> int:
    """Let a suspicion run out, and return when it did."""
    while True:
        now = max(now, machine.next_at())
        machine.pop_looks(now)
        machine.check()
        if machine.pop_ended(now):
            return now


def test_a_suspicion_that_nobody_confirms_takes_the_longest_time() -> None:
    machine = suspicions()
    machine.start(1, accuser=10, members=128, now=0)
    assert ends_at(machine, 0) == timeout_ns(128, 0, SECOND)


def test_the_same_accuser_twice_is_no_confirmation() -> None:
    """Lifeguard, Local Health Aware Suspicion: confirmations are independent."""
    machine = suspicions()
    machine.start(1, accuser=10, members=128, now=0)
    assert not machine.confirm(1, accuser=10, now=SECOND)
    assert machine.confirm(1, accuser=11, now=SECOND)
    assert not machine.confirm(1, accuser=11, now=SECOND)
    assert ends_at(machine, SECOND) == timeout_ns(128, 1, SECOND)


def test_two_confirmations_bring_the_shortest_time_and_a_third_changes_nothing() -> None:
    machine = suspicions()
    machine.start(1, accuser=10, members=128, now=0)
    assert machine.confirm(1, accuser=11, now=SECOND)
    assert machine.confirm(1, accuser=12, now=SECOND)
    assert not machine.confirm(1, accuser=13, now=SECOND)
    assert ends_at(machine, SECOND) == timeout_ns(128, 2, SECOND)


def test_nobody_is_declared_dead_without_a_last_look_and_time_for_its_answer() -> None:
    """A late confirmation may end the time-out at once; the look is still given its time."""
    machine = suspicions()
    machine.start(1, accuser=10, members=128, now=0)
    late = 40 * SECOND
    machine.confirm(1, accuser=11, now=late)
    machine.confirm(1, accuser=12, now=late)
    assert machine.pop_ended(late) == []
    assert machine.pop_looks(late) == [1]
    assert machine.pop_ended(late) == []
    assert ends_at(machine, late) == late + SECOND // 2


def test_a_claim_of_death_counts_only_after_two_periods_of_suspicion() -> None:
    machine = suspicions()
    machine.start(1, accuser=10, members=128, now=0)
    assert not machine.called_dead(1, now=SECOND)
    assert machine.called_dead(1, now=2 * SECOND)
    machine.start(2, accuser=10, members=128, now=0)
    machine.cancel(1)
    machine.called_dead(2, now=SECOND)
    assert ends_at(machine, SECOND) == 2 * SECOND


# ------------------------------------------------------------------ rumors


names = st.text(min_size=1, max_size=30).filter(lambda text: len(text.encode()) <= 128)
members = st.builds(
    Member,
    name=names,
    request=st.text("h", min_size=3, max_size=262),
    gossip=st.text("h", min_size=3, max_size=262),
    zone=st.text("zé", max_size=60),
    weight=st.floats(0.1, 1e6),
    boot=st.integers(0, U64_MAX),
    incarnation=st.integers(0, U64_MAX),
    standing=st.sampled_from(Standing),
    since_ms=st.integers(0, 1 << 47),
    draining=st.booleans(),
    accuser=st.integers(0, U64_MAX),
    stamps_above=st.integers(0, U64_MAX),
)


@settings(deadline=None, max_examples=60)
@given(st.lists(members, max_size=40, unique_by=lambda member: member.name), st.booleans())
def test_no_gossip_packet_exceeds_its_bytes(rows: list[Member], buddy: bool) -> None:
    queue = RumorQueue()
    for each in rows:
        queue.put(each.key, each)
    first = tuple(rows[:1]) if buddy else ()
    codec = Codec("c", sender=U64_MAX, boot=U64_MAX)
    worst = Settings(9, U64_MAX, U64_MAX)
    while queue:
        rumors = queue.take(4, first=first)
        queue.check()
        for message in (
            Ping(seq=U64_MAX, target=U64_MAX, rumors=rumors),
            PingReq(seq=U64_MAX, target=U64_MAX, rumors=rumors),
            Ack(seq=U64_MAX, rumors=rumors),
            Rumors(rumors=rumors, settings=worst),
        ):
            frames = codec.encode(message, epoch=U64_MAX, at=U64_MAX, request=U64_MAX)
            # The topic is 8 bytes more.
            assert len(frames) == 1
            assert len(frames[0]) + 8 <= GOSSIP_BYTES_MAX
        if rumors == first:
            break


@settings(deadline=None, max_examples=30)
@given(members)
def test_the_size_of_a_row_is_never_underestimated(member: Member) -> None:
    codec = Codec("c", sender=1, boot=1)
    empty, one = Ack(seq=1), Ack(seq=1, rumors=(member,))
    grown = len(codec.encode(one)[0]) - len(codec.encode(empty)[0])
    assert grown <= packed_bytes(member)


def test_each_rumor_is_sent_as_often_as_the_limit_says() -> None:
    queue = RumorQueue()
    for name in "abc":
        queue.put(row(name).key, row(name))
    limit = retransmit_limit(16)
    taken = [member.name for _ in range(limit) for member in queue.take(limit)]
    assert {name: taken.count(name) for name in "abc"} == dict.fromkeys("abc", limit)
    assert not queue


def test_the_least_sent_rumors_go_first() -> None:
    queue = RumorQueue()
    old = [row(f"{'o' * 100}{i}") for i in range(30)]
    for each in old:
        queue.put(each.key, each)
    sent: list[str] = []
    while len(sent) < len(old):
        packet = queue.take(9)
        assert 0 < len(packet) < len(old)
        sent += [each.name for each in packet]
    # One round reaches every rumor before any goes a second time.
    assert sorted(sent)[: len(old)] == sorted(each.name for each in old)
    news = row("news")
    queue.put(news.key, news)
    assert queue.take(9)[0] == news


def test_a_newer_rumor_replaces_the_queued_one() -> None:
    queue = RumorQueue()
    queue.put(row().key, row(incarnation=5))
    queue.take(9)
    queue.put(row().key, row(incarnation=6))
    assert queue.take(9) == (row(incarnation=6),)
    assert len(queue) == 1


# ------------------------------------------------------------------ table


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.sampled_from(Standing)), max_size=80), st.integers()
)
def test_the_lists_of_the_table_always_agree_with_its_rows(
    steps: list[tuple[int, Standing]], seed: int
) -> None:
    table, rng = Table(row("me")), random.Random(seed)
    for index, standing in steps:
        member = row(f"n{index}", standing=standing)
        table.put(member.key, member)
        table.check()
        chosen = table.some_peers(3, rng, (member.key,))
        assert len(chosen) == len(set(chosen))
        assert set(chosen) <= set(table.peers) - {member.key}
    for key in table.gone(1 << 62):
        table.forget(key)
        table.check()


# ------------------------------------------------------------------ seeds


def seeds(*addresses: str, own: str = "me:1") -> Seeds:
    config = NodeConfig(name="me", request=own, gossip="me:2", seeds=addresses)
    return Seeds(config, row("me").key, random.Random(1))


@pytest.mark.parametrize("addresses", [(), ("me:1",)])
def test_a_node_with_nobody_to_ask_founds_at_once(addresses: tuple[str, ...]) -> None:
    machine = seeds(*addresses)
    machine.start(0)
    assert machine.founds(0)


def test_a_node_among_its_seeds_founds_after_five_silent_seconds() -> None:
    machine = seeds("me:1", "b:1")
    machine.start(0)
    assert not machine.founds(5 * SECOND - 1)
    assert machine.founds(5 * SECOND)


def test_a_node_that_is_no_seed_never_founds_alone() -> None:
    machine = seeds("b:1")
    machine.start(0)
    assert not machine.founds(10_000 * SECOND)


def test_a_node_recognises_itself_behind_another_address() -> None:
    machine = seeds("alias:1", "b:1")
    machine.start(0)
    assert sorted(machine.attempt(0)) == ["alias:1", "b:1"]
    machine.answered("alias:1", row("me").key)
    assert machine.attempt(SECOND) == ["b:1"]
    assert machine.founds(5 * SECOND)


def test_joining_nodes_that_find_each_other_form_a_cluster_after_a_period() -> None:
    machine = seeds("b:1")
    machine.start(0)
    machine.found_joiner(3 * SECOND)
    assert not machine.founds(4 * SECOND - 1)
    assert machine.founds(4 * SECOND)


def test_a_silent_seed_is_reported_once_until_it_answers() -> None:
    machine = seeds("b:1")
    machine.start(0)
    machine.attempt(0)
    assert machine.newly_silent(SECOND // 2) == []
    assert machine.newly_silent(5 * SECOND) == ["b:1"]
    machine.attempt(6 * SECOND)
    assert machine.newly_silent(20 * SECOND) == []
    machine.answered("b:1", 3)
    machine.attempt(21 * SECOND)
    assert machine.newly_silent(30 * SECOND) == ["b:1"]


def test_pauses_between_attempts_grow_to_a_bound() -> None:
    machine = seeds("b:1")
    machine.start(0)
    now, pauses = 0, []
    for _ in range(12):
        machine.attempt(now)
        pauses.append(machine.attempt_at - now)
        now = machine.attempt_at
    assert pauses[0] <= 0.15 * SECOND
    assert 2.5 * SECOND <= pauses[-1] <= 7.5 * SECOND


def test_a_seed_is_awaited_until_its_row_is_known_or_members_would_be_forgotten() -> None:
    def started() -> tuple[Table, PushPuller]:
        table = Table(row("me"))
        config = NodeConfig(name="me", request="me:1", gossip="me:2", seeds=("b:1", "me:1"))
        asker = PushPuller(table, seeds("b:1", "me:1"), config, random.Random(1))
        asker.start(0)
        return table, asker

    table, _ = started()
    table.put(row("c").key, row("c"))
    assert table.awaited == {"b:1": None}, "another member is not the seed"
    table.put(row("b").key, row("b", standing=Standing.DEAD))
    assert not table.awaited, "it is remembered as any member that is down"
    table, asker = started()
    asker.tick(24 * 3_600 * SECOND - 1, Settings(1, 0, 0))
    assert table.awaited
    asker.tick(24 * 3_600 * SECOND, Settings(1, 0, 0))
    assert not table.awaited
