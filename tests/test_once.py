"""A repeated write is executed once."""

from __future__ import annotations

from dcc.effects import Answer, Effect
from dcc.replication.holdings import Asker
from dcc.replication.once import CLIENTS_MAX, KEEP_NS, REQUESTS_MAX, Once
from dcc.types import Version
from dcc.wire.messages import Code, ErrorReply, Outcome, WriteReply

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
    assert len(aged._clients[CLIENT].table) == 1


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
    once.begin(CLIENT, asker(2), KEEP_NS + 1)
    assert refused_as_forgotten(once.begin(CLIENT, asker(1), KEEP_NS + 1, again=True))


def test_a_repetition_by_a_client_that_may_have_fallen_out_is_not_executed_again() -> None:
    once = Once()
    assert once.begin(CLIENT, asker(1), 0, again=True) is None, "the first sending was lost"
    once.finish(CLIENT, asker(1), REPLY)
    for client in range(CLIENTS_MAX):
        once.begin((client, 5), asker(1), 0)
    assert refused_as_forgotten(once.begin(CLIENT, asker(1), 1, again=True))
    assert once.begin(CLIENT, asker(2), 1) is None, "a first sending is new whoever sends it"
