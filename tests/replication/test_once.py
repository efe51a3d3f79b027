"""A repeated write is executed once."""

from __future__ import annotations

import sys
import tracemalloc
from random import Random

from dcc.effects import Answer, Effect
from dcc.replication.holdings import Asker
from dcc.replication.once import CLIENT_BYTES, CLIENTS_MAX, KEEP_NS, REQUESTS_MAX, Once
from dcc.types import Version
from dcc.wire.messages import Code, ErrorReply, Outcome, WriteManyReply, WriteReply

CLIENT = (7, 1)
REPLY = WriteReply(outcome=Outcome.DONE, version=Version(1, 1, 1))


def asker(request: int, route: bytes = b"route") -> Asker:
    return Asker(route, 0, request)


def test_a_new_request_is_to_be_executed() -> None:
    assert Once().begin(CLIENT, asker(1), 0) is None


def test_a_repetition_gets_the_first_answer() -> None:
    once = Once()
    once.begin(CLIENT, asker(1), 0)
    assert once.finish(CLIENT, asker(1), REPLY) == Answer(b"route", REPLY, 1)
    assert once.begin(CLIENT, asker(1, b"other"), 1) == [Answer(b"other", REPLY, 1)]


def test_a_repetition_of_an_open_request_takes_its_place_in_waiting() -> None:
    once = Once()
    once.begin(CLIENT, asker(1), 0)
    assert once.begin(CLIENT, asker(1, b"other"), 1) == []
    assert once.finish(CLIENT, asker(1), REPLY) == Answer(b"other", REPLY, 1)


def test_a_refused_request_may_be_tried_again() -> None:
    once = Once()
    once.begin(CLIENT, asker(1), 0)
    once.finish(CLIENT, asker(1), ErrorReply(code=Code.NOT_READY, text=""))
    assert once.begin(CLIENT, asker(1), 1) is None


def test_two_lives_of_a_client_do_not_share_request_ids() -> None:
    once = Once()
    once.begin(CLIENT, asker(1), 0)
    assert once.begin((7, 2), asker(1), 0) is None


def test_the_table_is_bounded_per_client_over_clients_and_in_time() -> None:
    once = Once()
    for request in range(REQUESTS_MAX + 10):
        once.begin(CLIENT, asker(request), 0)
    for client in range(CLIENTS_MAX + 10):
        once.begin((client, 5), asker(1), 0)
    once.check()
    aged = Once()
    aged.begin(CLIENT, asker(1), 0)
    aged.begin(CLIENT, asker(2), KEEP_NS + 1)
    aged.tick(KEEP_NS + 1)
    assert len(aged) == 1


def refused_as_forgotten(effects: list[Effect] | None) -> bool:
    [answer] = effects or []
    assert isinstance(answer, Answer)
    assert isinstance(answer.message, ErrorReply)
    return answer.message.code is Code.MAYBE


def test_a_repetition_of_what_fell_out_for_want_of_room_is_not_executed_again() -> None:
    once = Once()
    for request in range(1, REQUESTS_MAX + 3):
        once.begin(CLIENT, asker(request), 0)
    assert refused_as_forgotten(once.begin(CLIENT, asker(2), 1))


def test_a_repetition_of_what_fell_out_for_its_age_is_not_executed_again() -> None:
    once = Once()
    once.begin(CLIENT, asker(1), 0)
    once.finish(CLIENT, asker(1), REPLY)
    once.tick(KEEP_NS + 1)
    assert refused_as_forgotten(once.begin(CLIENT, asker(1), KEEP_NS + 1, again=True))


def test_a_repetition_by_a_client_that_may_have_fallen_out_is_not_executed_again() -> None:
    once = Once()
    assert once.begin(CLIENT, asker(1), 0, again=True) is None, "the first sending was lost"
    once.finish(CLIENT, asker(1), REPLY)
    for client in range(CLIENTS_MAX):
        once.begin((client, 5), asker(1), 0)
    assert refused_as_forgotten(once.begin(CLIENT, asker(1), 1, again=True))
    assert once.begin(CLIENT, asker(2), 1) is None, "a first sending is new whoever sends it"


def test_requests_of_clients_that_are_gone_leave_when_their_minute_is_over() -> None:
    once = Once()
    for client in range(50):
        for request in range(1, 101):
            once.begin((client, 5), asker(request), client * 1_000)
    assert once.wake_at() == KEEP_NS
    while once.wake_at() <= KEEP_NS + 24_000:
        once.tick(KEEP_NS + 24_000)
    once.check()
    assert len(once) == 25 * 100
    once.tick(2 * KEEP_NS)
    once.tick(2 * KEEP_NS)
    assert once.bytes_used == 50 * CLIENT_BYTES, "their floors stay: they may repeat"
    assert refused_as_forgotten(once.begin((3, 5), asker(100), 2 * KEEP_NS, again=True))


def test_the_budget_in_bytes_holds_and_the_oldest_go_first() -> None:
    once = Once(bytes_max=100_000)
    for client in range(300):
        for request in range(1, 11):
            once.begin((client, 5), asker(request), client)
            once.finish((client, 5), asker(request), REPLY)
            assert once.bytes_used <= 100_000
    once.check()
    assert once.begin((299, 5), asker(10, b"x"), 300, again=True) == [Answer(b"x", REPLY, 10)]
    assert refused_as_forgotten(once.begin((0, 5), asker(1), 300, again=True))


def test_what_is_counted_is_what_is_allocated_or_more() -> None:
    rng = Random(1)
    once = Once(bytes_max=1 << 30)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(40):
            who = (rng.getrandbits(63), rng.getrandbits(63))
            for request in range(500):
                one = Asker(rng.randbytes(5), 0, (1 << 40) + request, "put", 1 << 50)
                reply = WriteReply(
                    outcome=Outcome.DONE, version=Version((1 << 60) + request, 1 << 63, 5)
                )
                once.begin(who, one, (1 << 50) + request)
                once.finish(who, one, reply)
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 0.7 * once.bytes_used < taken < once.bytes_used


def test_an_answer_that_names_stamps_is_counted_with_them_and_given_again() -> None:
    once = Once()
    stamps = tuple((1 << 57) + n for n in range(100))
    told = WriteManyReply(outcomes=bytes(100), stamp=7, stamps=stamps)
    once.begin(CLIENT, asker(1), 0)
    before = once.bytes_used
    once.finish(CLIENT, asker(1), told)
    assert once.bytes_used - before == 100 + 100 * (sys.getsizeof(stamps[0]) + 8)
    assert once.begin(CLIENT, asker(1), 1, again=True) == [Answer(b"route", told, 1)]
    once.check()
