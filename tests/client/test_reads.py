"""Reading one key, driven by hand: whom a get asks, when it goes on, and how it ends."""

from __future__ import annotations

import pytest

from dcc.client.shared import ATTEMPT_MOST_NS
from dcc.effects import Send
from dcc.errors import (
    NodeUnavailable,
    OperationTimeout,
    Overloaded,
    ProtocolError,
    QuorumNotReached,
    WrongCluster,
)
from dcc.types import NO_VERSION, Standing, Version
from dcc.units import MILLISECOND, SECOND
from dcc.wire.codec import Header
from dcc.wire.messages import (
    Code,
    ErrorReply,
    Get,
    GetReply,
    Message,
    Outcome,
    Status,
    TopologyGet,
    WriteReply,
)
from tests.support.client_driver import START_MS, TRIP_NS, Bench
from tests.support.client_peers import Peer

KEY = b"user:42"


def filled(names: str = "abc", **options: int) -> Bench:
    """Return a bench whose peers all have KEY."""
    bench = Bench(names, **options).learn()
    for peer in bench.peers.values():
        peer.data[KEY] = b"value"
    return bench


def unsure(_header: Header, _message: Message) -> list[Message]:
    return [GetReply(status=Status.UNSURE, version=NO_VERSION, value=b"", expires_at_ms=0)]


def refusing(bench: Bench, address: str, code: Code, *, times: int = 1) -> None:
    """Let a peer refuse its next gets."""
    peer = bench.peers[address]
    left = [times]

    def answer(header: Header, message: Message) -> list[Message]:
        if isinstance(message, Get) and left[0] > 0:
            left[0] -= 1
            return [ErrorReply(code=code, text="")]
        return peer.serve(header, message)

    peer.answer = answer


def test_the_first_call_learns_the_topology_and_then_asks_the_primary_only() -> None:
    bench = Bench()
    assert bench.do(Get(key=KEY)).status is Status.MISS
    gets = bench.asked(Get)
    assert [sent.address for sent in gets] == bench.order(KEY)[:1]
    assert gets[0].message == Get(key=KEY, direct=False)
    assert len(bench.asked(TopologyGet)) == len(bench.sent) - 1


def test_a_get_that_could_not_be_sent_goes_to_the_next_owner_at_once() -> None:
    bench = filled()
    primary, second = bench.order(KEY)[:2]
    bench.down = {primary}
    begun = bench.mono
    assert bench.do(Get(key=KEY)).value == b"value"
    assert bench.mono - begun == TRIP_NS
    [get] = bench.asked(Get)
    assert (get.address, get.message) == (second, Get(key=KEY, direct=True, aside=True))


def test_a_silent_primary_delays_a_get_by_one_attempt() -> None:
    bench = filled()
    primary, second = bench.order(KEY)[:2]
    bench.mute = {primary}
    begun = bench.mono
    assert bench.do(Get(key=KEY)).value == b"value"
    assert bench.mono - begun == ATTEMPT_MOST_NS + TRIP_NS
    assert [(s.address, s.message.direct) for s in bench.asked(Get)] == [
        (primary, False),
        (second, True),
    ]


def test_two_silent_owners_and_the_third_still_answer_within_a_call() -> None:
    bench = filled("abcde", replicas=2)
    bench.mute = set(bench.order(KEY)[:2])
    begun = bench.mono
    assert bench.do(Get(key=KEY)).value == b"value"
    assert bench.mono - begun == 2 * ATTEMPT_MOST_NS + TRIP_NS


def test_a_late_answer_of_the_first_attempt_is_taken() -> None:
    bench = filled()
    primary, second = bench.order(KEY)[:2]
    bench.delay_ns[primary] = ATTEMPT_MOST_NS + 10 * MILLISECOND
    bench.mute = {second}
    begun = bench.mono
    assert bench.do(Get(key=KEY)).value == b"value"
    assert bench.mono - begun == ATTEMPT_MOST_NS + 10 * MILLISECOND


def test_a_node_found_silent_is_asked_last_until_it_answers_a_probe() -> None:
    bench = filled()
    primary = bench.order(KEY)[0]
    bench.mute = {primary}
    bench.do(Get(key=KEY))
    begun, bench.sent = bench.mono, []
    bench.do(Get(key=KEY))
    assert bench.mono - begun == TRIP_NS, "the second get does not wait for the silent node"
    bench.mute.clear()
    for _ in range(8):
        bench.wait(SECOND)
        bench.do(Get(key=KEY))
    bench.sent.clear()
    bench.do(Get(key=KEY))
    assert [sent.address for sent in bench.asked(Get)] == [primary]


def test_probes_and_refreshes_together_are_at_most_one_a_second() -> None:
    bench = filled("abcde", replicas=2)
    bench.mute = {"a:1", "b:1"}
    for peer in bench.peers.values():
        peer.epoch = 12345
    begun = bench.mono
    while bench.mono < begun + 10 * SECOND:
        bench.do(Get(key=b"%d" % bench.mono))
        bench.wait(40 * MILLISECOND)
    assert 5 <= len(bench.asked(TopologyGet)) <= 10


def test_an_unsure_primary_is_believed() -> None:
    bench = filled()
    bench.peers[bench.order(KEY)[0]].answer = unsure
    assert bench.do(Get(key=KEY)).status is Status.UNSURE
    assert len(bench.asked(Get)) == 1


def test_an_unsure_primary_that_sees_another_ring_makes_the_call_ask_the_other_owners() -> None:
    bench = filled("abcd", replicas=2)
    first, second = bench.order(KEY)[:2]
    bench.peers[first].answer = unsure
    bench.peers[first].epoch = 4711
    assert bench.do(Get(key=KEY)).value == b"value"
    assert [sent.address for sent in bench.asked(Get)] == [first, second]


def test_an_unsure_replica_makes_the_call_ask_the_other_owners() -> None:
    bench = filled("abcd", replicas=2)
    first, second, third = bench.order(KEY)[:3]
    bench.down = {first}
    bench.peers[second].answer = unsure
    assert bench.do(Get(key=KEY)).value == b"value"
    assert [sent.address for sent in bench.asked(Get)] == [second, third]


def test_a_miss_stays_unsure_when_no_owner_knows_better() -> None:
    bench = filled("abcd", replicas=2)
    first, second, third = bench.order(KEY)[:3]
    bench.mute = {first}
    bench.peers[second].answer = bench.peers[third].answer = unsure
    begun = bench.mono
    assert bench.do(Get(key=KEY)).status is Status.UNSURE
    assert bench.mono - begun == ATTEMPT_MOST_NS + 2 * TRIP_NS


@pytest.mark.parametrize("code", [Code.NOT_OWNER, Code.NOT_READY, Code.OVERLOADED])
def test_a_node_that_is_the_wrong_one_to_ask_is_followed_by_the_next(code: Code) -> None:
    bench = filled()
    primary, second = bench.order(KEY)[:2]
    refusing(bench, primary, code)
    assert bench.do(Get(key=KEY)).value == b"value"
    assert [sent.address for sent in bench.asked(Get)] == [primary, second]
    bench.wait(2 * SECOND)
    bench.do(Get(key=KEY))
    assert len(bench.asked(TopologyGet)) == 1, "the refusal makes the client look again"


def test_a_call_that_everybody_refuses_tries_again_until_its_deadline() -> None:
    bench = filled("a", replicas=0)
    refusing(bench, "a:1", Code.OVERLOADED, times=3)
    assert bench.do(Get(key=KEY)).value == b"value"
    refusing(bench, "a:1", Code.OVERLOADED, times=1000)
    begun = bench.mono
    with pytest.raises(Overloaded) as caught:
        bench.do(Get(key=KEY))
    assert caught.value.definite
    assert bench.mono - begun == SECOND
    assert len(bench.asked(Get)) < 20, "with growing pauses"


def test_a_refusal_for_being_late_corrects_the_clock_and_asks_again() -> None:
    bench = filled("a", replicas=0)
    refusing(bench, "a:1", Code.TOO_LATE)
    bench.core.offset_ms -= 5_000
    assert bench.do(Get(key=KEY)).value == b"value"
    first, second = bench.asked(Get)
    assert second.header.at - first.header.at == pytest.approx(5_000, abs=5)


def test_requests_carry_the_deadline_in_cluster_time() -> None:
    bench = filled()
    begun = bench.mono
    bench.do(Get(key=KEY))
    [get] = bench.asked(Get)
    assert get.header.at == pytest.approx(START_MS + (begun + SECOND) // MILLISECOND, abs=2)


def test_without_any_answer_a_get_times_out_at_its_deadline() -> None:
    bench = filled()
    bench.mute = set(bench.peers)
    begun = bench.mono
    with pytest.raises(OperationTimeout) as caught:
        bench.do(Get(key=KEY))
    assert caught.value.definite
    assert bench.mono - begun == SECOND


def test_a_cluster_that_cannot_be_reached_costs_one_deadline_and_then_nothing() -> None:
    bench = filled()
    bench.down = set(bench.peers)
    begun = bench.mono
    with pytest.raises(NodeUnavailable):
        bench.do(Get(key=KEY))
    assert bench.mono - begun == SECOND, "a short outage is waited for"
    begun = bench.mono
    with pytest.raises(NodeUnavailable):
        bench.do(Get(key=KEY))
    assert bench.mono == begun, "a long one is not, call after call"
    bench.down.clear()
    assert bench.do(Get(key=KEY)).value == b"value"


def test_an_unreachable_cluster_is_told_so_before_any_topology_too() -> None:
    bench = Bench()
    bench.down = set(bench.peers)
    with pytest.raises(NodeUnavailable):
        bench.do(Get(key=KEY))
    begun = bench.mono
    with pytest.raises(NodeUnavailable):
        bench.do(Get(key=KEY))
    assert bench.mono == begun
    bench.down.clear()
    assert bench.do(Get(key=KEY)).status is Status.MISS


def test_nodes_of_another_cluster_are_an_error_of_their_own() -> None:
    bench = Bench("a")
    foreign = Peer("a", "a:1", cluster="other")
    bench.core.codec = foreign.codec
    bench.peers["a:1"].codec = foreign.codec
    bench.core.codec = Bench().core.codec
    call = bench.core.begin(Get(key=KEY), bench.now, timeout_ns=100 * MILLISECOND)
    call.start(bench.now)
    reply = foreign.encode(ErrorReply(code=Code.WRONG_CLUSTER, text="other"), 0)
    while not call.done:
        call.receive("a:1", reply, bench.now)
        bench.mono = min(call.wake_at(), bench.mono + SECOND)
        call.tick(bench.now)
    with pytest.raises(WrongCluster):
        call.outcome()


def test_garbage_is_dropped_and_the_answer_still_taken() -> None:
    bench = filled()
    call = bench.core.begin(Get(key=KEY), bench.now)
    bench.perform(call, call.start(bench.now))
    for garbage in ([b""], [], [b"dc\x01garbage"], [b"\xff" * 100], [b"dc\x09" + b"0" * 9]):
        address = "z:1"
        bench.perform(call, call.receive(address, garbage, bench.now))
    assert not call.done
    while not call.done:
        bench.step(call)
    assert call.outcome().value == b"value"


def test_a_reply_of_the_wrong_kind_is_a_protocol_error() -> None:
    bench = filled("a", replicas=0)
    wrong = WriteReply(outcome=Outcome.DONE, version=NO_VERSION)
    bench.peers["a:1"].answer = lambda header, message: [wrong]
    with pytest.raises(ProtocolError):
        bench.do(Get(key=KEY))


def test_an_answer_from_another_address_is_not_taken() -> None:
    bench = filled()
    primary, second = bench.order(KEY)[:2]
    call = bench.core.begin(Get(key=KEY), bench.now)
    [send] = call.start(bench.now)
    assert isinstance(send, Send)
    request = bench.peers[primary].codec.decode(send.frames)[0].request
    forged = GetReply(status=Status.HIT, version=Version(1, 1, 1), value=b"forged", expires_at_ms=0)
    call.receive(second, bench.peers[second].encode(forged, request), bench.now)
    assert not call.done


def test_replies_to_former_calls_are_dropped_and_told() -> None:
    bench = filled()
    primary = bench.order(KEY)[0]
    bench.delay_ns[primary] = ATTEMPT_MOST_NS + 50 * MILLISECOND
    bench.do(Get(key=KEY))
    assert primary in bench.core.health.sick
    bench.deliver_late()
    assert [event.event for event in bench.events] == ["topology_refresh", "late_reply"]
    assert primary not in bench.core.health.sick, "but the node is known to live"


def test_members_that_are_not_alive_are_asked_last() -> None:
    bench = filled("abcd", replicas=1)
    primary = bench.order(KEY)[0]
    bench.standings[primary] = Standing.SUSPECT
    bench.publish()
    bench.learn()
    assert bench.order(KEY)[-1] == primary
    bench.do(Get(key=KEY))
    [get] = bench.asked(Get)
    assert get.address != primary
    assert get.message == Get(key=KEY, direct=False), "the first live owner is the primary"


def test_a_changed_epoch_is_followed_by_one_refresh() -> None:
    bench = filled()
    bench.standings["a:1"] = Standing.DEAD
    bench.publish(epoch=2)
    bench.do(Get(key=KEY))
    bench.wait(2 * SECOND)
    for _ in range(20):
        bench.do(Get(key=KEY))
    bench.deliver_late()
    assert len(bench.asked(TopologyGet)) == 1
    assert bench.core.view is not None
    assert bench.core.view.epoch == 2


def test_reads_of_any_owner_spread_over_all_that_are_well() -> None:
    bench = filled("abcd", replicas=2)
    owners = bench.order(KEY)[:3]
    for _ in range(60):
        assert bench.do(Get(key=KEY, direct=True)).value == b"value"
    counts = {one: sum(sent.address == one for sent in bench.asked(Get)) for one in owners}
    assert min(counts.values()) > 5
    assert sum(counts.values()) == 60
    bench.mute = {owners[1]}
    bench.core.failed(owners[1], bench.now)
    bench.sent.clear()
    for _ in range(20):
        bench.do(Get(key=KEY, direct=True))
    assert owners[1] not in {sent.address for sent in bench.asked(Get)}


def test_reads_of_any_owner_spare_newcomers_unless_there_is_nobody_else() -> None:
    bench = filled("abcd", replicas=2)
    owners = bench.order(KEY)[:3]
    bench.filling = {owners[0]}
    bench.publish(epoch=2)
    bench.do(TopologyGet())
    assert bench.order(KEY)[:3] == [*owners[1:], owners[0]], "nor does it lead"
    bench.sent.clear()
    for _ in range(40):
        bench.do(Get(key=KEY, direct=True))
    assert {sent.address for sent in bench.asked(Get)} == set(owners[1:])
    bench.filling = set(owners)
    bench.publish(epoch=3)
    bench.do(TopologyGet())
    assert bench.order(KEY)[:3] == owners
    bench.sent.clear()
    for _ in range(40):
        bench.do(Get(key=KEY, direct=True))
    assert {sent.address for sent in bench.asked(Get)} == set(owners)


def test_a_node_that_is_not_ready_is_believed_only_if_nobody_else_is() -> None:
    bench = Bench()
    for address in ("a:1", "b:1"):
        bench.peers[address].ready = False
        bench.peers[address].members = bench.peers[address].members[:1]
    bench.do(Get(key=KEY))
    assert bench.core.view is not None
    assert len(bench.core.view.members) == 3
    alone = Bench("a")
    alone.peers["a:1"].ready = False
    assert alone.do(Get(key=KEY)).status is Status.MISS


def test_a_client_that_was_stopped_itself_takes_what_arrived_before_it_judges() -> None:
    bench = filled()
    call = bench.core.begin(Get(key=KEY), bench.now)
    bench.perform(call, call.start(bench.now))
    bench.mono += 20 * SECOND
    _, _, address, frames = bench.inbox.pop()
    call.receive(address, frames, bench.now)
    assert call.done
    assert call.outcome().value == b"value"
    assert not bench.core.health.sick


# ------------------------------------------------------------------ several owners


@pytest.mark.parametrize("r", [0, 2, 255])
def test_a_read_of_several_owners_is_one_question_to_the_primary(r: int) -> None:
    bench = filled()
    call = bench.core.begin(Get(key=KEY, r=r), bench.now)
    assert bench.run(call).value == b"value"
    [get] = bench.asked(Get)
    assert (get.address, get.message) == (bench.order(KEY)[0], Get(key=KEY, r=r))
    assert call.answered_by() == (get.address, True)


def test_too_few_owners_are_an_error_of_their_own_at_once() -> None:
    bench = filled()
    for address in bench.peers:
        refusing(bench, address, Code.QUORUM_NOT_REACHED)
    begun = bench.mono
    with pytest.raises(QuorumNotReached) as caught:
        bench.do(Get(key=KEY, r=2))
    assert caught.value.definite
    assert bench.mono - begun == TRIP_NS


def test_a_coordinator_that_waits_for_others_does_not_look_silent() -> None:
    bench = filled()
    primary = bench.order(KEY)[0]
    bench.delay_ns[primary] = 2 * ATTEMPT_MOST_NS
    bench.mute = set(bench.peers) - {primary}
    call = bench.core.begin(Get(key=KEY, r=2), bench.now)
    bench.perform(call, call.start(bench.now))
    while not call.done:
        bench.step(call)
        assert not bench.core.health.sick
    assert call.outcome().value == b"value"


def test_a_silent_coordinator_is_followed_by_another_with_the_same_question() -> None:
    bench = filled()
    primary, second = bench.order(KEY)[:2]
    bench.mute = {primary}
    bench.do(Get(key=KEY, r=2))
    assert [(one.address, one.message) for one in bench.asked(Get)] == [
        (primary, Get(key=KEY, r=2)),
        (second, Get(key=KEY, r=2, direct=True, aside=True)),
    ]


@pytest.mark.parametrize(
    ("r", "confirmed"), [(1, False), (2, False), (3, True), (0, True), (255, True)]
)
def test_a_hit_of_a_replica_is_confirmed_if_a_majority_was_asked(r: int, confirmed: bool) -> None:
    bench = filled("abcdef", replicas=3)
    bench.down = {bench.order(KEY)[0]}
    call = bench.core.begin(Get(key=KEY, r=r), bench.now)
    bench.run(call)
    assert call.answered_by() == (bench.order(KEY)[1], confirmed)


def test_a_miss_is_confirmed_and_an_unsure_one_is_not() -> None:
    bench = Bench().learn()
    call = bench.core.begin(Get(key=KEY), bench.now)
    bench.run(call)
    assert call.answered_by() == (bench.order(KEY)[0], True)
    for peer in bench.peers.values():
        peer.answer = unsure
    for r in (1, 0):
        call = bench.core.begin(Get(key=KEY, r=r), bench.now)
        bench.run(call)
        assert call.answered_by() == (bench.order(KEY)[0], False)
