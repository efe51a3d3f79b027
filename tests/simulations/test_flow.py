"""Large values on slow links: nothing is sent again while the first sending may be on its way."""

from __future__ import annotations

import pytest

from dcc.units import KIB, MIB, SECOND
from dcc.wire.messages import Op, Write
from simulations.scenario import Scenario
from simulations.stage import Stage

MBIT = 125_000
"Bytes a second."


def received(stage: Stage, name: str) -> int:
    """Return the bytes that all others have sent to a process."""
    sent = stage.world.network.wires.sent_bytes
    return sum(size for (_, to), size in sent.items() if to == name)


@pytest.mark.parametrize(
    ("mbit", "count", "size"), [(40, 1, 12 * MIB), (4, 2, 3 * MIB), (8, 40, 300 * KIB)]
)
def test_a_slow_link_fills_a_newcomer_once(mbit: int, count: int, size: int) -> None:
    with Stage(Scenario(seed=1, nodes=1, replicas=1)) as stage:
        stage.warm_up()
        for i in range(count):
            stage.put("c0", b"large%d" % i, bytes(size))
        for i in range(50):
            stage.put("c0", b"small%d" % i, b"s")
        stage.world.network.wires.bytes_per_second = mbit * MBIT
        stage.world.start("n1")
        stage.play(20 * SECOND + 2 * count * size * SECOND // (mbit * MBIT))
        assert all("n1" in stage.values(b"large%d" % i) for i in range(count))
        assert received(stage, "n1") <= 2 * count * size
        assert stage.core("n1").slots_ready


def test_a_large_put_on_a_slow_link_is_sent_once_to_each_owner_and_small_ones_go_on() -> None:
    with Stage(Scenario(seed=1, nodes=3, replicas=1)) as stage:
        stage.warm_up()
        stage.put("c1", b"small", b"v", w=2)
        stage.world.network.wires.bytes_per_second = 40 * MBIT
        ends: list[object] = []
        large = Write(op=Op.PUT, key=b"large", value=bytes(4 * MIB), w=1)
        stage.client("c0").call(large, lambda _outcome, error: ends.append(error))
        for _ in range(20):
            stage.put("c1", b"small", b"v", w=2)
            stage.play(SECOND // 10)
        stage.play(30 * SECOND)
        assert len(ends) == 1
        assert len(stage.values(b"large")) == 2
        wires = stage.world.network.wires.sent_bytes
        assert sum(size for size in wires.values() if size > MIB) < 3 * 4 * MIB
