"""How fast copies move: by bytes, and by the time that pulls take from clients."""

from __future__ import annotations

from dcc.replication.answerer import RECORDS_MAX
from dcc.replication.pace import ANSWER_NS, PAUSE_MAX_NS, SERVING_NS, Pace
from dcc.units import MIB, MILLISECOND, SECOND
from dcc.wire.messages import PullReply, Replicate
from tests.support.wired_replication import Planes

TOOK = 1 * MILLISECOND
SHARE = 10  # A pause of nine times as long: one part in so many.


def test_bytes_are_paced_by_the_rate_whoever_is_served() -> None:
    pace = Pace(MIB, 10)
    pace.arrived(MIB // 2, 0, serving=False)
    pace.turned(0, 0)
    assert pace.free_at == SECOND // 2
    pace.arrived(MIB // 2, 0, serving=False)
    assert pace.free_at == SECOND, "what came together is paid for together"


def test_while_clients_are_served_pulls_get_a_tenth_of_the_time() -> None:
    pace = Pace(1 << 40, 10)
    pace.arrived(100, SECOND, serving=False)
    assert pace.open
    pace.turned(1, SECOND + TOOK)
    assert not pace.open
    assert pace.free_at == SECOND + SHARE * TOOK


def test_a_node_that_serves_nobody_does_not_pause() -> None:
    pace = Pace(1 << 40, 10)
    pace.turned(5, 0)
    now = SERVING_NS + 1
    pace.arrived(100, now, serving=False)
    pace.turned(5, now + TOOK)
    assert pace.free_at <= now + TOOK


def test_who_pulls_from_a_node_that_serves_clients_pauses_too() -> None:
    pace = Pace(1 << 40, 10)
    pace.arrived(100, SECOND, serving=True)
    pace.turned(0, SECOND + TOOK)
    assert pace.free_at == SECOND + SHARE * TOOK
    assert not pace.serves(SECOND + TOOK), "that others serve is not said of this node"
    later = SECOND + SERVING_NS
    pace.arrived(100, later, serving=False)
    pace.turned(0, later + TOOK)
    assert pace.free_at <= later + TOOK


def test_answers_of_one_turn_pause_once_for_all_of_it() -> None:
    pace = Pace(1 << 40, 10)
    pace.arrived(100, 0, serving=False)
    pace.arrived(100, TOOK, serving=False)
    pace.turned(1, 2 * TOOK)
    assert pace.free_at == 2 * TOOK + (SHARE - 1) * 2 * TOOK


def test_a_larger_share_pauses_less() -> None:
    pace = Pace(1 << 40, 50)
    pace.arrived(100, SECOND, serving=False)
    pace.turned(1, SECOND + TOOK)
    assert pace.free_at == SECOND + 2 * TOOK
    everything = Pace(1 << 40, 100)
    everything.arrived(100, SECOND, serving=False)
    everything.turned(1, SECOND + TOOK)
    assert everything.free_at <= SECOND + TOOK


def test_a_pause_has_an_end_however_long_a_turn_takes() -> None:
    pace = Pace(1 << 40, 10)
    pace.arrived(100, SECOND, serving=False)
    pace.turned(1, 2 * SECOND)
    assert pace.free_at == 2 * SECOND + PAUSE_MAX_NS


def test_while_clients_are_served_peers_are_pulled_from_one_by_one() -> None:
    pace = Pace(1 << 40, 10)
    pace.turned(1, SECOND)
    pace.asked(SECOND)
    assert pace.free_at == SECOND + ANSWER_NS, "whoever is silent holds the others up no longer"
    pace.arrived(0, SECOND + MILLISECOND, serving=False)
    assert pace.free_at == SECOND + MILLISECOND
    pace.turned(1, SECOND + MILLISECOND + TOOK)
    assert pace.free_at == SECOND + MILLISECOND + SHARE * TOOK


def test_a_node_that_serves_nobody_pulls_from_all_at_once() -> None:
    pace = Pace(1 << 40, 10)
    pace.asked(SECOND)
    assert pace.free_at <= SECOND


def test_many_small_records_come_in_short_answers() -> None:
    """A turn that takes thousands of them would keep readers waiting; see `benchmarks.moves`."""
    world = Planes("a", "b", replicas=1)
    world.run(1)
    world.lost = lambda _a, _to, message: isinstance(message, Replicate)
    keys = [b"small-%d" % i for i in range(40 * RECORDS_MAX)]
    for key in keys:
        world.put("a", key, b"v")
    world.run(130)
    replies = [len(m.records) for m in world.carried if isinstance(m, PullReply)]
    assert sum(replies) == len(keys)
    assert max(replies) <= RECORDS_MAX
    assert all(world["b"].value(key, world.at) == b"v" for key in keys)


def test_while_clients_are_served_a_pause_follows_each_answer_that_is_taken() -> None:
    pace, now = Pace(bytes_per_second=1 << 40, share_percent=50), 10 * SECOND
    pace.arrived(1, now, serving=False)
    pace.turned(0, now + MILLISECOND)
    assert pace.free_at <= now + MILLISECOND, "nobody is served: go on at once"
    pace.turned(1, now + MILLISECOND)
    pace.arrived(1, now + MILLISECOND, serving=False)
    pace.turned(2, now + 3 * MILLISECOND)
    assert pace.free_at == now + 5 * MILLISECOND, "half of the time: as long as the turn took"
    pace.arrived(1, now + SECOND, serving=False)
    pace.turned(3, now + 2 * SECOND)
    assert pace.free_at == now + 2 * SECOND + PAUSE_MAX_NS


def test_what_moves_keeps_to_its_rate_whether_clients_are_served_or_not() -> None:
    pace, now = Pace(bytes_per_second=1_000, share_percent=50), 10 * SECOND
    pace.arrived(500, now, serving=False)
    pace.arrived(500, now, serving=False)
    assert pace.free_at == now + SECOND
