"""Hedged reads: when a second owner is asked, whose answer counts, and what it may cost."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from dcc.client.hedging import BURST, DELAY_LEAST_NS, READS_PER_HEDGE, REVIEWED_EVERY, Hedging
from dcc.client.shared import ATTEMPT_MOST_NS
from dcc.types import NO_VERSION
from dcc.units import MILLISECOND, SECOND
from dcc.wire.codec import Header
from dcc.wire.messages import Get, GetReply, Message, Status
from tests.support.client_driver import TRIP_NS, Bench

KEY = b"user:42"
CALM = 2 * REVIEWED_EVERY


def calm(names: str = "abc", **options: int) -> Bench:
    """Return a bench whose peers all have KEY, and whose client knows how quick they are."""
    bench = Bench(names, **options).learn()
    for peer in bench.peers.values():
        peer.data[KEY] = b"value"
    for _ in range(CALM):
        bench.do(Get(key=KEY))
    bench.sent.clear()
    return bench


def unsure(_header: Header, _message: Message) -> list[Message]:
    return [GetReply(status=Status.UNSURE, version=NO_VERSION, value=b"", expires_at_ms=0)]


def hedges(bench: Bench) -> int:
    return sum(event.event == "hedged" for event in bench.events)


def test_a_silent_primary_costs_a_get_the_hedges_delay_and_no_whole_attempt() -> None:
    bench = calm()
    primary, second = bench.order(KEY)[:2]
    bench.mute = {primary}
    begun = bench.mono
    assert bench.do(Get(key=KEY)).value == b"value"
    assert bench.mono - begun == DELAY_LEAST_NS + TRIP_NS
    assert [(s.address, s.message.direct) for s in bench.asked(Get)] == [
        (primary, False),
        (second, True),
    ]
    assert hedges(bench) == 1


def test_the_delay_is_what_only_one_read_in_twenty_exceeds() -> None:
    bench = Bench("a", replicas=0).learn()
    bench.peers["a:1"].data[KEY] = b"value"
    for n in range(128):
        bench.delay_ns["a:1"] = (n + 1) * MILLISECOND
        bench.do(Get(key=KEY))
    assert bench.core.hedging.delay_ns == (128 * 95 // 100 + 1) * MILLISECOND


def test_reads_that_are_as_quick_as_most_are_not_hedged() -> None:
    bench = calm()
    for _ in range(200):
        bench.do(Get(key=KEY))
    assert hedges(bench) == 0
    assert len(bench.asked(Get)) == 200


def test_a_client_that_knows_nothing_of_its_nodes_hedges_nothing() -> None:
    bench = Bench().learn()
    for peer in bench.peers.values():
        peer.data[KEY] = b"value"
    bench.mute = {bench.order(KEY)[0]}
    begun = bench.mono
    assert bench.do(Get(key=KEY)).value == b"value"
    assert bench.mono - begun == ATTEMPT_MOST_NS + TRIP_NS
    assert hedges(bench) == 0


def test_without_a_budget_a_get_waits_for_a_whole_attempt() -> None:
    bench = calm()
    bench.mute = {bench.order(KEY)[0]}
    for _ in range(BURST):
        bench.do(Get(key=KEY))
    assert hedges(bench) == BURST
    begun = bench.mono
    assert bench.do(Get(key=KEY)).value == b"value"
    assert bench.mono - begun == ATTEMPT_MOST_NS + TRIP_NS
    assert hedges(bench) == BURST


def test_a_slow_cluster_is_asked_five_per_cent_more_at_most() -> None:
    bench = calm("abcd", replicas=2)
    for address in bench.peers:
        bench.delay_ns[address] = 30 * MILLISECOND
    reads = 1_000
    for _ in range(reads):
        bench.do(Get(key=KEY))
    assert BURST <= hedges(bench) <= BURST + reads // READS_PER_HEDGE
    assert len(bench.asked(Get)) == reads + hedges(bench)
    settled = hedges(bench)
    for _ in range(100):
        bench.do(Get(key=KEY))
    assert hedges(bench) == settled, "the estimate has learnt that this is how it is"


def test_a_late_answer_of_the_primary_wins_over_a_replica_that_is_later() -> None:
    bench = calm()
    primary, second = bench.order(KEY)[:2]
    bench.delay_ns = {primary: 10 * MILLISECOND, second: 50 * MILLISECOND}
    call = bench.core.begin(Get(key=KEY), bench.now)
    begun = bench.mono
    bench.run(call)
    assert bench.mono - begun == 10 * MILLISECOND
    assert call.answered_by() == (primary, True)


def test_a_replicas_hit_is_taken_and_is_not_confirmed() -> None:
    bench = calm()
    primary, second = bench.order(KEY)[:2]
    bench.mute = {primary}
    call = bench.core.begin(Get(key=KEY), bench.now)
    bench.run(call)
    assert call.answered_by() == (second, False)


def test_a_replicas_unsure_miss_waits_for_the_primary() -> None:
    bench = calm("abcd", replicas=2)
    primary, second = bench.order(KEY)[:2]
    bench.delay_ns = {primary: 100 * MILLISECOND}
    bench.peers[second].answer = unsure
    call = bench.core.begin(Get(key=KEY), bench.now)
    begun = bench.mono
    assert bench.run(call).value == b"value"
    assert bench.mono - begun == 100 * MILLISECOND
    assert call.answered_by() == (primary, True)
    assert len(bench.asked(Get)) == 2, "no third owner while the primary may still answer"


def test_a_replicas_unsure_miss_and_a_silent_primary_lead_to_the_third() -> None:
    bench = calm("abcd", replicas=2)
    first, second, third = bench.order(KEY)[:3]
    bench.mute = {first}
    bench.peers[second].answer = unsure
    begun = bench.mono
    assert bench.do(Get(key=KEY)).value == b"value"
    assert bench.mono - begun == ATTEMPT_MOST_NS + TRIP_NS
    assert [sent.address for sent in bench.asked(Get)] == [first, second, third]


def test_sick_owners_and_members_that_own_nothing_are_no_hedge() -> None:
    bench = calm("abcd", replicas=1)
    primary, second = bench.order(KEY)[:2]
    bench.core.failed(second, bench.now)
    bench.mute = {primary}
    begun = bench.mono
    bench.do(Get(key=KEY))
    assert bench.mono - begun >= ATTEMPT_MOST_NS
    assert hedges(bench) == 0


def test_a_read_of_several_owners_is_not_hedged() -> None:
    bench = calm()
    bench.delay_ns[bench.order(KEY)[0]] = 100 * MILLISECOND
    bench.do(Get(key=KEY, r=2))
    assert hedges(bench) == 0


def test_a_get_that_the_hot_path_sent_is_hedged_where_it_stands() -> None:
    bench = calm()
    primary, second = bench.order(KEY)[:2]
    sent = bench.now
    bench.mono += DELAY_LEAST_NS
    core = bench.core
    call = core.resume(Get(key=KEY), [(primary, core.next_request(), [KEY])], sent, core.codec)
    assert bench.run(call).value == b"value"
    assert [one.address for one in bench.asked(Get)] == [second]
    assert bench.mono - sent.mono == DELAY_LEAST_NS + TRIP_NS


def test_who_owes_an_answer_for_an_attempts_time_is_silent() -> None:
    bench = calm()
    primary = bench.order(KEY)[0]
    bench.mute = {primary}
    call = bench.core.begin(Get(key=KEY), bench.now)
    since = bench.mono
    bench.run(call)
    assert call.attempts.outstanding() == {primary: since}
    assert not bench.core.overdue(primary, since, bench.now), "too early to tell"
    bench.wait(ATTEMPT_MOST_NS)
    assert bench.core.overdue(primary, since, bench.now)
    assert primary in bench.core.health.sick


def test_who_has_answered_something_since_is_not_silent() -> None:
    bench = calm()
    primary = bench.order(KEY)[0]
    since = bench.mono
    bench.do(Get(key=KEY))
    bench.wait(SECOND)
    assert bench.core.overdue(primary, since, bench.now)
    assert not bench.core.health.sick


@settings(deadline=None, max_examples=50)
@given(events=st.lists(st.tuples(st.integers(1, 300), st.integers(0, 400)), max_size=40))
def test_the_budget_holds_for_any_course_of_reads(events: list[tuple[int, int]]) -> None:
    hedging = Hedging(ATTEMPT_MOST_NS)
    reads = spent = 0
    for count, milliseconds in events:
        for _ in range(count):
            hedging.answered(milliseconds * MILLISECOND)
        reads += count
        spent += sum(hedging.spend() for _ in range(3))
        assert spent <= BURST + reads / READS_PER_HEDGE
        assert DELAY_LEAST_NS <= hedging.delay_ns <= ATTEMPT_MOST_NS
        saved = hedging.saved >= 1
        assert hedging.wait_ms * MILLISECOND == (hedging.delay_ns if saved else ATTEMPT_MOST_NS)
