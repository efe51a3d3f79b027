"""Keys that are hot: found at the nodes that serve them, told to clients, served by all owners."""

from __future__ import annotations

import pytest

from dcc.client.results import ClusterStats, HotKey, NodeStats
from dcc.replication.hot import FADES_NS, PLACES, RATE, SHARE
from dcc.replication.served import EVERY
from dcc.units import MILLISECOND, SECOND
from dcc.wire.messages import Get, GetMany, GetManyReply, GetReply, StatsGet, StatsReply, Status
from tests.support.wired_cores import Cores

STEP = 50 * MILLISECOND


def cluster(*names: str) -> Cores:
    cores = Cores(*(names or ("a", "b", "c")), replicas=1)
    cores.settle()
    return cores


def read(cores: Cores, name: str, key: bytes, rate: int, seconds: float) -> list[GetReply]:
    """Read `key` at `name` so many times a second; return the answers."""
    answers: list[GetReply] = []
    for _ in range(int(seconds * SECOND / STEP)):
        for _ in range(rate * STEP // SECOND):
            answers += [
                one
                for one in cores.ask(name, Get(key=key, direct=True))
                if isinstance(one, GetReply)
            ]
        cores.step(STEP)
    return answers


def is_hot(answers: list[GetReply]) -> bool:
    return any(answer.hot for answer in answers)


def test_a_key_that_is_read_much_is_hot_and_one_answer_in_eight_says_so() -> None:
    cores = cluster()
    key = cores.key_of("a", "b")
    cores.put("a", key, b"v")
    assert not is_hot(read(cores, "a", key, 2 * RATE, 0.5)), "nothing is judged yet"
    read(cores, "a", key, 2 * RATE, 2)
    later = read(cores, "a", key, 2 * RATE, 1)
    assert sum(answer.hot for answer in later) == len(later) // EVERY
    assert cores["a"].machines.hot.hot == 1
    cores.check()


def test_a_key_that_is_read_now_and_then_or_is_a_small_part_of_all_is_not() -> None:
    cores = cluster()
    seldom, key = cores.key_of("a", "b"), cores.fresh_key("a", "b")
    others = [cores.fresh_key("a", "b") for _ in range(3 * SHARE)]
    for one in (seldom, key, *others):
        cores.put("a", one, b"v")
    assert not is_hot(read(cores, "a", seldom, RATE // 2, 4))
    for _ in range(50):
        cores.ask("a", GetMany(keys=(key, *others) * 4))
        cores.step(STEP)
    assert cores["a"].machines.hot.hot == 0


def test_a_key_with_one_owner_is_never_hot() -> None:
    cores = cluster("a")
    cores.put("a", b"k", b"v")
    assert not is_hot(read(cores, "a", b"k", 4 * RATE, 3))


def test_it_stays_hot_while_each_owner_serves_its_part_and_ends_with_the_reads() -> None:
    cores = cluster()
    key = cores.key_of("a", "b")
    cores.put("a", key, b"v")
    read(cores, "a", key, 2 * RATE, 3)
    for _ in range(5):
        assert is_hot(read(cores, "a", key, RATE, 1)), "the other owner serves as many"
    cores.run(8 * FADES_NS / SECOND)
    assert cores["a"].machines.hot.hot == 0
    assert not is_hot(read(cores, "a", key, EVERY * 20, 0.1))


def test_the_other_owners_serve_what_they_hold_of_many_keys_if_asked_so() -> None:
    cores = cluster()
    mine, theirs = cores.key_of("b", "a"), cores.key_of("a", "b")
    absent, foreign = cores.fresh_key("a", "b"), cores.key_of("a", "c")
    for name, key in (("b", mine), ("a", theirs), ("a", foreign)):
        cores.put(name, key, b"of " + name.encode())
    cores.run(1)
    for large in (b"", bytes(5_000)):  # By the short path, and by the ordinary one.
        if large:
            cores.put("b", mine, large)
            cores.run(1)
        [alone] = cores.ask("b", GetMany(keys=(mine, theirs)))
        [direct] = cores.ask("b", GetMany(keys=(mine, theirs, absent), direct=True))
        [beyond] = cores.ask("b", GetMany(keys=(foreign,), direct=True))
        assert isinstance(alone, GetManyReply)
        assert isinstance(direct, GetManyReply)
        assert isinstance(beyond, GetManyReply)
        assert list(alone.statuses) == [Status.HIT, Status.ELSEWHERE]
        assert list(direct.statuses) == [Status.HIT, Status.HIT, Status.ELSEWHERE]
        assert direct.values == (large or b"of b", b"of a")
        assert list(beyond.statuses) == [Status.ELSEWHERE]


def test_many_keys_at_a_time_are_counted_and_told_as_well() -> None:
    cores = cluster()
    key, other = cores.key_of("a", "b"), cores.fresh_key("a", "b")
    for one in (key, other):
        cores.put("a", one, b"v")
    hot: set[bytes] = set()
    for _ in range(60):
        for reply in cores.ask("a", GetMany(keys=(key,) * (RATE // 4) + (other,))):
            assert isinstance(reply, GetManyReply)
            hot.update(reply.hot)
        cores.step(STEP)
    assert key in hot


def test_who_asks_is_told_the_keys_read_most_and_figures_have_none() -> None:
    cores = cluster()
    key = cores.key_of("a", "b")
    cores.put("a", key, b"v")
    read(cores, "a", key, 2 * RATE, 4)
    nodes: dict[str, NodeStats] = {}
    for name in ("a", "b"):
        [plain] = cores.ask(name, StatsGet())
        [told] = cores.ask(name, StatsGet(hot_keys=True))
        assert isinstance(plain, StatsReply)
        assert isinstance(told, StatsReply)
        assert "hottest" not in NodeStats.from_json(plain.stats).detail
        nodes[name] = NodeStats.from_json(told.stats)
    [first] = ClusterStats(nodes, NodeStats.total(nodes.values())).hot_keys()
    assert (first.key, first.hot, list(first.nodes)) == (key.decode(), True, ["a"])
    assert RATE < first.rate < 4 * RATE


@pytest.mark.parametrize(
    "odd", [None, 3, {"k": 1}, ["k"], [["k"]], [[1, 2.0, True]], [["k", -1, True]]]
)
def test_what_a_strange_node_tells_of_its_keys_is_left_out(odd: object) -> None:
    good = [["b", 3.0, False], ["a", 3, True], ["c", 0.5, False]]
    nodes = {
        "one": NodeStats(detail={"hottest": good}),
        "two": NodeStats(detail={"hottest": [["c", 9.5, True]]}),
        "odd": NodeStats(detail={"hottest": odd}),
    }
    found = ClusterStats(nodes, NodeStats()).hot_keys(2)
    assert found == [
        HotKey("c", 10.0, {"one": 0.5, "two": 9.5}, True), HotKey("a", 3.0, {"one": 3.0}, True),
    ]  # fmt: skip


def test_however_many_keys_are_read_no_more_are_counted_than_there_are_places() -> None:
    cores = cluster("a")
    core = cores["a"]
    for n in range(2 * PLACES):
        core.machines.hot.served(b"%d" % n)
    core.check()
    [row] = [row for row in core.footprint.rows if row.name == "hot_keys"]
    assert 0 < row.used() == row.bytes_max
