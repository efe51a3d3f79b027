"""How fast copies move: within the rate, and seldom while clients are served."""

from __future__ import annotations

from dcc.replication.pace import PAUSE_MAX_NS, Pace
from dcc.units import MILLISECOND, SECOND


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
