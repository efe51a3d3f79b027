"""A newcomer owns its slots at once, but others lead them until it has pulled everything."""

from __future__ import annotations

from dcc.ring.hashing import slot_of
from dcc.types import NodeKey, Standing, node_key
from dcc.units import MILLISECOND
from dcc.wire.messages import (
    Ack,
    ConvergedGet,
    ConvergedReply,
    Get,
    GetReply,
    Message,
    Outcome,
    Ping,
    PullReply,
    PushPull,
    PushPullReply,
    Replicate,
    Status,
    WriteReply,
)
from tests.support.wired_cores import Cores

KEYS = [b"key-%d" % i for i in range(400)]


def grown(*, starved: bool) -> Cores:
    """Return three nodes with data and a fourth, "n", that may be kept from getting any."""
    cores = Cores("a", "b", "c", replicas=1)
    cores.settle()
    for key in KEYS:
        store(cores, "a", key, b"old", w=2)
    if starved:
        cores.lost = starve
    cores.add("n")
    cores.until(lambda: all(node_key("n") in core.held.view.boots for core in cores.nodes.values()))
    return cores


def store(cores: Cores, name: str, key: bytes, value: bytes, *, w: int) -> None:
    """Put `key` through a node and see that it was acknowledged."""
    before = len(cores.replies)
    cores.put(name, key, value, w=w)
    cores.until(lambda: len(cores.replies) > before, 1.0)
    reply = cores.replies[-1][1]
    assert isinstance(reply, WriteReply)
    assert reply.outcome is Outcome.DONE


def starve(_source: NodeKey, target: NodeKey, message: Message) -> bool:
    return target == node_key("n") and isinstance(message, PullReply)


def led_by_newcomer(cores: Cores) -> list[bytes]:
    """Return the keys for which "n" comes first in the order."""
    return [
        key for key in KEYS if cores["a"].held.view.slots.order(slot_of(key))[0] == node_key("n")
    ]


def value_at(cores: Cores, name: str, key: bytes) -> bytes | None:
    """Return what a read at a node brings, in time and without a doubt."""
    before = len(cores.replies)
    cores.ask(name, Get(key=key))
    cores.until(lambda: len(cores.replies) > before, 1.0)
    reply = cores.replies[-1][1]
    assert isinstance(reply, GetReply)
    assert reply.status is not Status.UNSURE
    return reply.value if reply.status is Status.HIT else None


def test_others_lead_the_slots_of_a_newcomer_until_it_has_them() -> None:
    cores = grown(starved=True)
    cores.run(5)
    mine = led_by_newcomer(cores)
    assert len(mine) > 30
    newcomer = node_key("n")
    for name in ("a", "b", "c", "n"):
        view = cores[name].held.view
        routes = [view.route(slot_of(key)) for key in mine]
        assert all(route[0] != newcomer and route[1] == newcomer for route in routes)
    for key in mine[:30]:
        primary = next(n for n in "abc" if cores[n].held.view.is_primary(slot_of(key)))
        reply = cores.get(primary, key)
        assert reply is not None, "it is answered at once, by one that has it"
        assert reply.value == b"old"
        assert value_at(cores, "n", key) == b"old", "whoever asks the newcomer is forwarded"
    assert not cores["n"].slots_ready
    cores.lost = lambda _a, _b, _message: False
    cores.settle()
    assert all(cores["a"].held.view.is_primary(slot_of(key)) is False for key in mine)
    assert all(cores["n"].held.view.is_primary(slot_of(key)) for key in mine)
    assert [cores.held("n", key) for key in mine] == [b"old"] * len(mine)


def test_its_acknowledgement_counts_while_it_fills() -> None:
    cores = grown(starved=True)
    cores.run(1)
    key = led_by_newcomer(cores)[0]
    store(cores, "a", key, b"new", w=2)
    assert cores.held("n", key) == b"new"


def test_the_first_reads_behind_the_change_of_lead_ask_for_what_came_meanwhile() -> None:
    """The old primary goes on taking writes until it hears of the change; one copy is late."""
    cores = grown(starved=False)
    key = led_by_newcomer(cores)[0]
    newcomer = cores["n"]
    cores.until(lambda: cores.held("n", key) == b"old" and newcomer.membership.me.filling)

    def late(_source: NodeKey, target: NodeKey, message: Message) -> bool:
        return target == newcomer.key and isinstance(message, Replicate | PullReply)

    cores.until(lambda: not newcomer.membership.me.filling)
    cores.lost = late
    primary = next(name for name in "abc" if cores[name].held.view.is_primary(slot_of(key)))
    store(cores, primary, key, b"new", w=1)
    cores.until(lambda: newcomer.held.view.is_primary(slot_of(key)))
    assert cores.held("n", key) == b"old"
    assert value_at(cores, "n", key) == b"new"


def test_nodes_that_are_all_new_lead_at_once() -> None:
    cores = Cores("a", replicas=1)
    assert not cores["a"].membership.me.filling, "there is nobody to pull from"
    cores.add("b")
    cores.settle()
    assert all(not member.filling for member in cores["a"].membership.members.values())


def test_only_a_newcomer_is_left_to_lead() -> None:
    """Copies that nobody else has are asked of the newcomer, who asks whoever may have them."""
    cores = grown(starved=True)
    key = next(
        key for key in led_by_newcomer(cores)
        if cores["a"].held.view.slots.order(slot_of(key))[1] == node_key("b")
    )  # fmt: skip
    cores.run(1)
    cores.stopped = {"b"}
    view = cores["a"].held.view
    cores.until(lambda: cores["a"].membership.members[node_key("b")].standing is Standing.DEAD)
    cores.run(0.5)
    assert view.route(slot_of(key))[0] == node_key("n"), "an owner comes before a stand-in"
    assert value_at(cores, "n", key) == b"old", "the former owner still has it"


def test_a_cluster_with_a_newcomer_has_not_converged() -> None:
    cores = grown(starved=True)
    cores.run(3)
    before = len(cores.replies)
    cores.ask("a", ConvergedGet())
    while len(cores.replies) == before:
        cores.step(5 * MILLISECOND)
    reply = cores.replies[before][1]
    assert isinstance(reply, ConvergedReply)
    assert not reply.converged
    assert "node n is new and not filled yet" in reply.reasons


def test_one_dead_link_does_not_keep_a_newcomer_filling_for_ever() -> None:
    """It is alive by gossip, and answers nothing on the request plane."""
    cores = Cores("a", "b", "c", "d", replicas=1)
    cores.settle()
    for key in KEYS[:100]:
        cores.put("a", key, b"v", w=2)
    pair = {node_key("n"), node_key("d")}

    def dead(source: NodeKey, target: NodeKey, message: Message) -> bool:
        membership = isinstance(message, Ping | Ack | PushPull | PushPullReply)
        return {source, target} == pair and not membership

    cores.lost = dead
    newcomer = cores.add("n")
    cores.run(20)
    assert newcomer.membership.me.filling
    cores.until(lambda: not newcomer.membership.me.filling, 60)
    cores.run(0.2)
    assert any(newcomer.held.view.is_primary(slot_of(key)) for key in KEYS)


def test_a_newcomer_that_leaves_again_is_no_hint_any_more() -> None:
    cores = Cores("a", "b", replicas=0)
    cores.settle()
    for key in KEYS[:300]:
        cores.put("a", key, b"v")
    cores.run(1)
    cores.lost = starve
    cores.add("n")
    cores.run(5)
    assert cores["a"].stats(cores.now)["detail"]["hints"]["n"] > 10
    cores.carry("n", cores["n"].leave(cores.now))
    cores.until(lambda: cores["n"].left)
    cores.run(5)
    for name in ("a", "b"):
        assert len(cores[name].exchange.leftovers) == 0
        assert cores[name].stats(cores.now)["detail"]["hints"] == {}
