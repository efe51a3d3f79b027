"""Partitions, restarts, pauses and joins in small clusters on virtual time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from dcc.types import Standing
from tests.support.wired_membership import Cut, Net


def index_of(name: str) -> int:
    return int(name.split("-")[1])


def halves(count: int) -> Cut:
    """Nothing passes between the first half and the rest."""
    return lambda a, b, plane: (index_of(a) < count // 2) != (index_of(b) < count // 2)


def one_way(count: int) -> Cut:
    """The first half is not heard by the rest."""
    return lambda a, b, plane: index_of(a) < count // 2 <= index_of(b)


def bridged(count: int) -> Cut:
    """As `halves`, but the last node is heard by all and hears all."""
    cut = halves(count)
    last = count - 1
    return lambda a, b, plane: last not in (index_of(a), index_of(b)) and cut(a, b, plane)


def deaf(count: int) -> Cut:
    """Node 0 hears nobody, all others hear it."""
    return lambda a, b, plane: index_of(b) == 0


def heal(net: Net) -> None:
    net.cut = lambda a, b, plane: False
    net.events.clear()


def tally(net: Net) -> Counter[str]:
    return Counter(event.event for _, _, event in net.events)


@pytest.mark.parametrize("members", [3, 8])
def test_without_faults_nobody_is_ever_suspected(members: int) -> None:
    net = Net()
    net.cluster(members)
    net.run(120)
    assert tally(net) == {}


def test_idle_members_send_two_messages_per_period() -> None:
    """SWIM's load: a ping and an ack; push/pull comes every half minute."""
    net = Net(check=False)
    net.cluster(16)
    net.run(120)
    net.sent.clear()
    net.run(60)
    per_period = (net.sent["gossip Ping"] + net.sent["gossip Ack"]) / 16 / 60
    assert 1.9 <= per_period <= 2.1
    assert sum(net.sent.values()) / 16 / 60 <= 2.2


def test_gossip_loss_alone_is_no_reason_to_suspect_anybody() -> None:
    """The fallback ping on the request plane answers for it."""
    net = Net(3, loss=0.2, check=False)
    net.cluster(16)
    net.run(120)
    assert tally(net) == {}


# ------------------------------------------------------------------ P-M3, P-M4


@pytest.mark.parametrize("partition", [halves, one_way, deaf])
@pytest.mark.parametrize(("members", "seconds"), [(3, 20), (3, 600), (8, 20), (8, 60), (8, 600)])
def test_one_view_within_a_minute_after_a_partition(
    partition: Callable[[int], Cut], members: int, seconds: int
) -> None:
    net = Net(seconds + members, check=False)
    net.cluster(members)
    net.cut = partition(members)
    net.run(seconds)
    assert net.named("member_dead"), "the partition was not felt"
    heal(net)
    assert net.run(60, until=net.one_view)
    # Healing kills nobody: claims of death make suspects, who refute.
    assert len(net.named("member_dead")) <= 1
    for node in net.live():
        node.machine.check()


@pytest.mark.parametrize("seconds", [60, 600])
def test_a_partition_heals_without_any_seed_that_could_be_asked(seconds: int) -> None:
    net = Net(seconds, check=False)
    net.cluster(8, seeds=("10.9.9.9:7001",))
    net.cut = halves(8)
    net.run(seconds)
    heal(net)
    assert net.run(60, until=net.one_view)


def test_a_partition_with_loss_of_gossip_heals_too() -> None:
    net = Net(5, loss=0.2, check=False)
    net.cluster(16)
    net.cut = halves(16)
    net.run(90)
    heal(net)
    assert net.run(60, until=net.one_view)


@pytest.mark.parametrize("seed", range(3))
def test_across_a_bridge_nobody_is_declared_dead(seed: int) -> None:
    net = Net(seed, check=False)
    net.cluster(16)
    net.cut = bridged(16)
    net.run(150)
    assert net.named("member_dead") == []
    heal(net)
    assert net.run(60, until=net.one_view)


def test_without_the_gossip_plane_nobody_is_suspected() -> None:
    net = Net(check=False)
    net.cluster(8)
    net.cut = lambda a, b, plane: plane == "gossip"
    net.run(120)
    assert tally(net) == {}


def test_without_the_gossip_plane_a_crash_is_still_found() -> None:
    net = Net(check=False)
    net.cluster(8)
    net.cut = lambda a, b, plane: plane == "gossip"
    net.crash(7)
    assert net.run(120, until=lambda: len(net.named("member_dead", 7)) == 7)
    assert len(net.named("member_dead")) == 7


# ------------------------------------------------------------------ P-M5


@pytest.mark.parametrize("members", [3, 16])
def test_a_kill_and_restart_within_100_ms_is_one_update_and_no_death(members: int) -> None:
    net = Net(members)
    net.cluster(members, seeds=(0, 1))
    net.crash(members - 1)
    net.run(0.1)
    net.add(members - 1, seeds=(0, 1))
    assert net.run(5, until=net.one_view)
    net.run(30)
    assert tally(net)["member_updated"] == members - 1
    assert tally(net)["member_suspect"] == 0
    assert net.one_view()


def test_a_founder_without_seeds_that_restarts_is_found_by_the_others() -> None:
    net = Net()
    net.cluster(3)
    net.crash(0)
    net.run(0.1)
    net.add(0)
    assert net.run(10, until=net.one_view)
    assert net.named("member_dead") == []


def test_a_restart_with_a_clock_set_back_is_accepted() -> None:
    """The old life's incarnation is higher: the stale claim is answered, and refuted."""
    net = Net()
    net.cluster(3, seeds=(0, 1))
    net.crash(2)
    net.run(10)
    net.clock_ms -= 3_600_000
    net.add(2, seeds=(0, 1))
    net.clock_ms += 3_600_000
    assert net.run(10, until=net.one_view)


def test_a_mass_restart_of_a_third_settles_and_kills_nobody() -> None:
    net = Net(check=False)
    net.cluster(30, seeds=(0, 1, 2))
    for index in range(9):
        net.crash(index)
    net.run(0.1)
    for index in range(9):
        net.add(index, seeds=(0, 1, 2))
    assert net.run(15, until=net.one_view)
    assert net.named("member_dead") == []


def test_a_hundred_nodes_join_at_one_seed() -> None:
    net = Net(check=False)
    net.add(0)
    for index in range(1, 101):
        net.add(index, seeds=(0,))
    assert net.run(15, until=net.one_view)
    assert net.named("member_suspect") == []
    assert net.largest_gossip_bytes <= 1_400


@pytest.mark.parametrize("members", [3, 16])
def test_a_node_stopped_for_two_minutes_accuses_nobody_and_refutes(members: int) -> None:
    net = Net(members, check=False)
    net.cluster(members)
    net.pause(members - 1)
    net.run(120)
    assert net.live()[0].machine.members[net.nodes[members - 1].key].standing >= Standing.DEAD
    net.events.clear()
    net.resume(members - 1)
    assert net.run(2, until=net.one_view)
    net.run(30)
    assert net.named("member_dead") == []
    assert net.named("member_suspect") == []
    assert net.one_view()


def test_a_stopped_node_whose_queue_was_lost_learns_that_it_is_dead() -> None:
    """Nothing that waited tells it; it asks by itself."""
    net = Net(check=False)
    net.cluster(8)
    net.pause(7)
    net.run(120)
    net.nodes[7].waiting.clear()
    net.events.clear()
    net.resume(7)
    assert net.run(2, until=net.one_view)
    assert net.named("member_dead") == []


def test_nodes_that_are_blocked_for_a_while_accuse_nobody() -> None:
    """Without being told of a standstill: the late turn itself tells."""
    net = Net(check=False)
    net.cluster(8)
    for seconds in (0.6, 0.9, 1.5, 2.5):
        net.pause(7)
        net.run(seconds)
        net.resume(7, told=False)
        net.run(3)
    accusers = {who for _, who, event in net.events if event.event == "member_suspect"}
    assert all(event.fields["node"] == "node-7" for _, _, event in net.named("member_suspect")), (
        accusers
    )


# ------------------------------------------------------------------ joining, leaving


def test_three_nodes_that_list_each_other_form_one_cluster() -> None:
    net = Net()
    for index in range(3):
        net.add(index, seeds=(0, 1, 2))
    assert net.run(5, until=lambda: all(node.machine.joined for node in net.live()))
    assert net.run(5, until=net.one_view)


def test_a_node_started_before_its_seed_joins_when_it_comes() -> None:
    net = Net()
    net.add(1, seeds=(0,))
    net.run(60)
    assert not net.nodes[1].machine.joined
    assert len(net.named("seed_unreachable")) == 1
    net.add(0)
    assert net.run(8, until=net.one_view)


def test_clusters_founded_apart_merge_through_their_seeds() -> None:
    net = Net(check=False)
    net.cut = halves(4)
    for index in range(4):
        net.add(index, seeds=(0, 2), replicas=index)
    net.run(30)
    assert len(net.live()[0].machine.members) == 2
    net.cut = lambda a, b, plane: False
    assert net.run(45, until=net.one_view)
    assert len({node.machine.settings for node in net.live()}) == 1


def test_a_member_that_leaves_is_gone_everywhere_without_a_suspicion() -> None:
    net = Net()
    net.cluster(16)
    leaver = net.nodes[5]
    net.carry_out(leaver, leaver.machine.drain(net.now, net.cluster_ms))
    net.run(2)
    net.carry_out(leaver, leaver.machine.leave(net.now, net.cluster_ms))
    assert net.run(5, until=lambda: leaver.machine.gone(net.now))
    net.crash(5)
    net.run(30)
    assert len(net.named("member_left", 5)) == 16
    assert net.named("member_suspect") == []
    assert net.one_view()
