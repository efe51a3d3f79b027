"""Two nodes of one name: the first stays if it answers, and only one of two ever goes."""

from __future__ import annotations

from typing import Any

import pytest

from dcc.effects import Tell
from dcc.gossip.twin import LIVES_MAX
from dcc.types import Member, Standing
from dcc.wire.messages import Ack
from tests.gossip.test_membership import MS, Bench, events, row
from tests.support.wired_membership import Net, Node


def twin_row(**other: Any) -> Member:
    return row("me", request="other:1", gossip="other:2", **other)


def started(count: int = 3, **options: bool) -> Net:
    net = Net(**options)
    net.cluster(count, seeds=(0,))
    return net


def twin_of(net: Net, index: int, at: int, *seeds: int) -> Node:
    """Start another node under the name of `index`, at an address of its own."""
    first = net.nodes[index]
    twin = net.add(at, name=first.name, seeds=seeds or (0,))
    net.nodes[index] = first
    return twin


def believed(net: Net, name: str) -> set[str]:
    """Addresses at which the others believe a node of this name."""
    return {
        member.request
        for node in net.live()
        if node.name != name and not node.machine.displaced
        for member in node.machine.members.values()
        if member.name == name
    }


@pytest.mark.parametrize("clock_ms", [-3_600_000, 0, 3_600_000])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_second_node_of_a_name_goes_and_nobody_notices(clock_ms: int, seed: int) -> None:
    """Whatever its clock says, and whether or not the first one is its seed."""
    net = started()
    first, boot = net.nodes[2], net.nodes[2].machine.me.boot
    net.clock_ms += clock_ms
    second = twin_of(net, 2, 3, seed)
    net.clock_ms -= clock_ms
    assert net.run(2, until=lambda: second.machine.displaced)
    net.run(30)
    assert not first.machine.displaced
    assert not second.machine.joined
    assert believed(net, first.name) == {first.config.request}
    assert {node.machine.members[first.key].boot for node in net.live()[:3]} == {boot}
    assert not net.named("member_suspect")
    fields = next(event for _, _, event in net.named("name_conflict") if event.fields["lost"])
    assert fields.fields["theirs"] == first.config.request
    assert fields.fields["ours"] == second.config.request


def test_a_copy_that_is_started_again_and_again_fails_again_and_again() -> None:
    net = started()
    for at in range(3, 23):
        second = twin_of(net, 2, at)
        net.run(2)
        assert second.machine.displaced
        net.crash(at)
    net.run(5)
    assert not net.nodes[2].machine.displaced
    assert net.nodes[2].machine.score == 0, "it does not take itself for slow"
    assert not net.named("member_suspect")


@pytest.mark.parametrize("apart_ms", [0, 1, 20, 300])
def test_of_two_that_start_together_one_stays(apart_ms: int) -> None:
    net = started(2)
    first = net.add(2, seeds=(0, 1))
    net.run(apart_ms / 1_000 + 0.001)
    second = twin_of(net, 2, 3, 1, 0)
    net.run(60)
    assert [first.machine.displaced, second.machine.displaced].count(True) == 1
    stays = second if first.machine.displaced else first
    assert stays.machine.joined
    assert believed(net, first.name) == {stays.config.request}


def test_of_three_that_form_a_cluster_two_of_one_name_do_not_both_go() -> None:
    net = Net()
    for index, name in enumerate(("node-0", "node-1", "node-1")):
        net.add(index, name=name, seeds=(0, 1, 2))
        net.run(0.1)
    net.run(60)
    gone = [node for node in net.nodes.values() if node.machine.displaced]
    assert [node.name for node in gone] == ["node-1"]
    assert sum(node.machine.joined for node in net.nodes.values()) == 2


@pytest.mark.parametrize("down_s", [0, 1, 30])
def test_a_node_that_died_comes_back_at_another_address(down_s: int) -> None:
    net = started()
    net.crash(2)
    net.run(down_s)
    moved = net.add(2, host="10.9.9.9", seeds=(0,))
    assert net.run(8, until=lambda: moved.machine.joined)
    net.run(5)
    assert not net.named("name_conflict")
    assert believed(net, moved.name) == {moved.config.request}


def test_a_node_that_was_replaced_while_it_stood_still_goes() -> None:
    net = started()
    old = net.nodes[2]
    net.pause(2)
    net.run(30)
    new = twin_of(net, 2, 3)
    net.run(30)
    assert new.machine.joined
    net.resume(2)
    net.run(60)
    assert old.machine.displaced
    assert not new.machine.displaced
    assert believed(net, new.name) == {new.config.request}


def test_of_two_that_joined_apart_the_later_goes() -> None:
    net = started()
    first = net.nodes[2]
    net.add(7)
    twin = twin_of(net, 2, 8, 7)
    net.run(20)
    assert first.machine.joined
    assert twin.machine.joined
    net.add(9, seeds=(0, 7))
    net.run(90)
    assert twin.machine.displaced
    assert not first.machine.displaced
    assert believed(net, first.name) == {first.config.request}


def test_a_twin_that_nobody_answers_for_is_outbid() -> None:
    """By whatever number: it may be invented, or a life that has ended."""
    for boot in (MS - 9, MS + 9):
        bench = Bench("a")
        bench.gossip("a", twin_row(incarnation=MS + 9, boot=boot << 16))
        bench.pass_time(2)
        assert not bench.machine.displaced
        assert bench.machine.me.incarnation == MS + 10
        assert bench.machine.score == 0


def test_a_twin_is_asked_three_times_and_no_other_answer_counts() -> None:
    bench = Bench("a")
    claim = twin_row(incarnation=MS + 9, boot=(MS + 9) << 16)
    told = bench.gossip("a", claim) + bench.pass_time(3)
    asked = [each for each in told if isinstance(each, Tell) and each.to == "other:1"]
    assert len(asked) == 3
    assert len({each.request for each in asked}) == 1
    for boot, seq in (((MS + 8) << 16, asked[0].request), ((MS + 9) << 16, 5)):
        bench.receive("me", Ack(seq=seq), boot=boot, request_plane=True)
    assert not bench.machine.displaced


def test_an_earlier_twin_that_has_joined_displaces_when_it_answers() -> None:
    bench = Bench("a")
    claim = twin_row(incarnation=MS - 9, boot=(MS - 9) << 16)
    bench.gossip("a", claim)
    told = bench.pass_time(1)
    asked = next(each for each in told if isinstance(each, Tell) and each.to == "other:1")
    ack = Ack(seq=asked.request)
    effects = bench.receive("me", ack, boot=(MS - 9) << 16, request_plane=True)
    assert events(effects) == ["name_conflict"]
    assert bench.machine.displaced
    assert not bench.machine.joined
    assert bench.pass_time(60) == []


def test_many_invented_lives_take_a_bounded_place() -> None:
    bench = Bench("a")
    for life in range(2 * LIVES_MAX):
        boot = (MS - 1_000 + life) << 16
        bench.push_pull(twin_row(boot=boot, incarnation=MS - 1_000))
        bench.pass_time(2)
    bench.machine.check()
    assert not bench.machine.displaced


def test_what_is_said_of_a_dead_life_elsewhere_is_refuted_at_once() -> None:
    bench = Bench("a")
    claim = twin_row(incarnation=MS + 7, boot=(MS - 9) << 16, standing=Standing.DEAD)
    assert "refuted" in events(bench.gossip("a", claim))
