"""What reaches the wrong node, or comes from the wrong one: passed on once, refused, or dropped."""

from __future__ import annotations

import pytest

from dcc.node.views import VIEWS_PAUSE_NS
from dcc.ring.hashing import slot_of
from dcc.types import Kind, NodeKey, Record, Version
from dcc.units import SECOND
from dcc.wire import messages as m
from dcc.wire.codec import Codec
from tests.support.wired_cores import Cores


@pytest.fixture(scope="module")
def three() -> Cores:
    cores = Cores("a", "b", "c", replicas=1)
    cores.settle()
    return cores


def watched(cores: Cores) -> list[m.Message]:
    """Return a list that fills with what nodes send each other on the request plane."""
    sent: list[m.Message] = []

    def lost(_source: NodeKey, _to: NodeKey, message: m.Message) -> bool:
        sent.append(message)
        return False

    cores.lost = lost
    return sent


def put(key: bytes, *, direct: bool = False) -> m.Write:
    return m.Write(op=m.Op.PUT, key=key, value=b"v", direct=direct)


def test_a_request_at_the_wrong_node_is_passed_on_once(three: Cores) -> None:
    key, sent = three.fresh_key("a", "b"), watched(three)
    (reply,) = three.ask("c", put(key))
    assert isinstance(reply, m.WriteReply)
    assert [one for one in sent if isinstance(one, m.Write)] == [put(key)]
    assert three.held("a", key) == b"v"


def test_a_request_that_was_passed_on_already_goes_no_further(three: Cores) -> None:
    key, sent = three.fresh_key("a", "b"), watched(three)
    frames = three["b"].codec.encode(put(key), hops=1, request=1)
    three.carry("c", three["c"].receive(b"\1b", frames, three.now))
    assert not [one for one in sent if isinstance(one, m.Write)]
    assert three["c"].counters.errors == {"not_owner": 1}
    assert three.held("a", key) is three.held("c", key) is None


@pytest.mark.parametrize("earlier", [1, 0])
def test_a_copy_sent_in_an_earlier_boot_is_not_taken(three: Cores, earlier: int) -> None:
    a, b, key = three["a"], three["b"], three.fresh_key("a", "b")
    before = a.counters.dropped.get("other_boot", 0)
    version = Version(three.ms << 16, b.key, b.held.boot - earlier)
    record = Record(key, Kind.VALUE, b"v", version, 0, 0)
    codec = Codec("dcc", sender=b.key, boot=b.held.boot - earlier)
    frames = codec.encode(m.Replicate(seq=1, records=(record,)), epoch=a.held.view.epoch)
    three.carry("a", a.receive(b"\1b", frames, three.now))
    assert a.counters.dropped.get("other_boot", 0) - before == earlier
    assert three.held("a", key) == (None if earlier else b"v")


def test_a_peer_that_sees_another_ring_is_offered_this_nodes_view_once_in_a_while(
    three: Cores,
) -> None:
    a, b, sent = three["a"], three["b"], watched(three)
    nudge = b.codec.encode(m.Nudge(slots=()), epoch=a.held.view.epoch ^ 1)
    same = b.codec.encode(m.Nudge(slots=()), epoch=a.held.view.epoch)

    def offers(frames: list[bytes]) -> int:
        sent.clear()
        three.carry("a", a.receive(b"\1b", frames, three.now))
        return sum(isinstance(one, m.PushPull) for one in sent)

    three.run(VIEWS_PAUSE_NS / SECOND)
    assert offers(same) == 0
    assert [offers(nudge), offers(nudge)] == [1, 0]
    three.run(VIEWS_PAUSE_NS / SECOND)
    assert offers(nudge) == 1


def test_a_node_whose_stamps_lie_ahead_lets_another_owner_stamp(three: Cores) -> None:
    key, sent = three.fresh_key("a", "b"), watched(three)
    three["a"].clock.witness((three.ms + 400) << 16)
    (reply,) = three.ask("a", put(key))
    assert isinstance(reply, m.WriteReply)
    assert reply.version.node == three["b"].key
    assert [one for one in sent if isinstance(one, m.Write)] == [put(key)]
    assert three["b"].held.store.covers(slot_of(key), reply.version)
