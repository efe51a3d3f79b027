"""The audit: what counts as equal, explained, behind and wrong, and whom it asks."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcc.client.asks import Audited
from dcc.client.audit import Audit, SlotAudit, compared
from dcc.client.sync import Client
from dcc.limits import SLOT_COUNT
from dcc.ring.hashing import slot_of
from dcc.types import Standing
from dcc.wire.messages import AuditGet, AuditReply, Code, ErrorReply
from tests.support.client_driver import Bench
from tests.support.client_peers import PeerThread, member

SAME = SlotAudit(content=7, seen=5, items=3, ghosts=0)


def judged(*ones: SlotAudit, above: int = 0) -> str:
    """Return which count of an audit a slot with these answers falls into."""
    audit = Audit()
    audit.add(1, {str(number): one for number, one in enumerate(ones)}, above)
    names = ("alone", "equal", "evicted", "unexplained", "unknown", "behind")
    [name] = [name for name in names if getattr(audit, name)]
    assert audit.compared == (name != "alone")
    assert audit.clean == (name in ("alone", "equal", "evicted", "unknown"))
    return name


def test_equal_content_after_equal_writes_is_equal() -> None:
    assert judged(SAME, SAME, SAME) == "equal"
    assert judged(SAME, SAME._replace(ghosts=4)) == "equal"


def test_one_owner_alone_is_no_comparison() -> None:
    assert judged(SAME) == "alone"


def test_owners_that_have_not_seen_the_same_are_behind_whatever_they_hold() -> None:
    assert judged(SAME, SAME._replace(seen=6)) == "behind"
    assert judged(SAME, SAME._replace(content=8, seen=6, items=2, ghosts=1)) == "behind"


@pytest.mark.parametrize(
    ("mine", "ghosts", "theirs", "their_ghosts", "verdict"),
    [
        (3, 0, 2, 1, "evicted"),
        (3, 0, 1, 1, "unexplained"),
        (3, 0, 2, 0, "unexplained"),
        (3, 5, 2, 0, "unexplained"),
        (3, 1, 3, 1, "evicted"),
        (3, 1, 3, 0, "unexplained"),
        (0, 3, 3, 0, "evicted"),
    ],
)
def test_eviction_explains_as_many_missing_values_as_were_evicted(
    mine: int, ghosts: int, theirs: int, their_ghosts: int, verdict: str
) -> None:
    one = SlotAudit(1, 5, mine, ghosts)
    other = SlotAudit(2, 5, theirs, their_ghosts)
    assert judged(one, other) == judged(other, one) == verdict


def test_what_is_older_than_forgotten_evictions_is_not_known_and_what_is_younger_is() -> None:
    whole = SlotAudit(1, 5, 3, 0)
    lacking = SlotAudit(2, 5, 2, 0, forgotten=40)
    assert judged(whole, lacking) == judged(lacking, whole) == "unknown"
    assert judged(whole, lacking._replace(forgotten=0)) == "unexplained"
    assert judged(whole, lacking, above=40) == "unexplained", "a younger one is missing"
    assert judged(whole, lacking, above=39) == "unknown", "more was forgotten meanwhile"
    assert judged(whole, whole, above=40) == "unknown", "older ones differ"
    assert judged(whole, lacking._replace(ghosts=1), above=40) == "unknown"
    assert judged(whole, lacking._replace(seen=6), above=40) == "behind"


def test_the_second_look_is_at_what_is_younger_than_what_was_forgotten() -> None:
    audit = Audit()
    audit.add(1, {"a": SlotAudit(1, 5, 3, 0), "b": SlotAudit(2, 5, 2, 0, forgotten=40)})
    audit.add(2, {"a": SlotAudit(1, 5, 3, 0), "b": SlotAudit(2, 5, 2, 0)})
    audit.add(3, {"a": SlotAudit(1, 5, 3, 0, forgotten=9), "b": SlotAudit(2, 6, 2, 0)})
    audit.add(4, {"a": SlotAudit(1, 5, 3, 0, forgotten=9), "b": SlotAudit(1, 5, 3, 0)})
    assert audit.forget_differing() == {1: 40, 2: 0, 3: 0}
    assert (audit.compared, audit.equal, audit.unknown, audit.unexplained) == (1, 1, [], [])


def test_of_a_node_that_does_not_tell_what_it_forgot_nothing_is_known() -> None:
    old = AuditReply(content=(1,), seen=(5,), items=(1,), ghosts=(0,))
    new = AuditReply(content=(2,), seen=(5,), items=(2,), ghosts=(0,), forgotten=(0,))
    assert compared({"a": Audited((7,), new), "b": Audited((7,), old)}, {}).unknown == [7]


values = st.dictionaries(st.integers(0, 9), st.integers(0, 3), max_size=8)


@given(whole=values, kept=st.lists(st.sets(st.integers(0, 9)), min_size=2, max_size=4))
def test_evictions_from_one_whole_are_always_explained(
    whole: dict[int, int], kept: list[set[int]]
) -> None:
    """Whatever each owner evicted of the same data is legal, however unequal they are."""
    ones = []
    for mine in kept:
        held = {key: value for key, value in whole.items() if key in mine}
        content = hash(frozenset(held.items())) & 0xFFFF_FFFF if held else 0
        ones.append(SlotAudit(content, 1, len(held), len(whole) - len(held)))
    assert judged(*ones) in ("equal", "evicted")


def test_every_live_owner_is_asked_for_the_slots_that_it_owns() -> None:
    bench = Bench("abc").learn()
    bench.standings["c:1"] = Standing.DEAD
    bench.publish()
    bench.learn()
    slots = tuple(range(300))
    answers = bench.do(AuditGet(slots=slots))
    assert bench.core.view is not None
    asked = {sent.address: sent.message.slots for sent in bench.asked(AuditGet)}
    assert sorted(asked) == ["a:1", "b:1"]
    for address, mine in asked.items():
        owned = [s for s in slots
                 if address in {one.request for one in bench.core.view.owners(s)}]  # fmt: skip
        assert list(mine) == owned
        assert answers[address[0]].slots == mine


def test_an_owner_without_an_answer_or_with_a_senseless_one_is_told() -> None:
    bench = Bench("abcd", replicas=3).learn()
    short = AuditReply(content=(1,), seen=(1,), items=(1,), ghosts=(0,))
    bench.peers["a:1"].answer = lambda header, message: [short]
    bench.peers["b:1"].answer = lambda header, message: [ErrorReply(code=Code.NOT_READY, text="")]
    bench.mute = {"c:1"}
    found = compared(bench.do(AuditGet(slots=(1, 2, 3))), {})
    assert sorted(found.unreachable) == ["a", "b", "c"]
    assert (found.alone, found.compared) == (3, 0)
    assert not found.clean


def test_an_owner_that_is_not_alive_keeps_an_audit_from_being_clean() -> None:
    with PeerThread("a") as a, PeerThread("b") as b, Client(a.address) as cache:
        a.peer.members = (a.peer.members[0], member("b", b.address, standing=Standing.DEAD))
        found = cache.audit()
        assert found.unreachable.keys() == {"b"}
        assert not found.clean
        assert b.peer.asked == []


def test_what_differs_is_looked_at_once_more() -> None:
    """A difference that a write in flight explains is gone at the second look."""
    key = b"k"
    with PeerThread("a") as a, PeerThread("b") as b, Client([a.address, b.address]) as cache:
        peers = (a.peer, b.peer)
        for peer in peers:
            peer.members = (a.peer.members[0], b.peer.members[0])
        a.peer.data[key] = b"new"
        asked: list[Any] = []

        def late(header: Any, message: Any) -> Any:
            reply = b.peer.serve(header, message)
            if isinstance(message, AuditGet):
                asked.append(message.slots)
                if slot_of(key) in message.slots:
                    b.peer.data[key] = b"new"
            return reply

        b.peer.answer = late
        found = cache.audit()
        assert found.clean
        assert (found.compared, found.equal) == (SLOT_COUNT, SLOT_COUNT)
        assert asked[-1] == (slot_of(key),)
        b.peer.data[key] = b"other"
        b.peer.answer = b.peer.serve
        found = cache.audit()
        assert found.unexplained == [slot_of(key)]
        assert found.compared == SLOT_COUNT


def test_nobody_answered_is_not_clean() -> None:
    found = compared({"a": "no answer in time", "b": "unreachable"}, {})
    assert not found.clean
    nothing = AuditReply(content=(), seen=(), items=(), ghosts=())
    assert isinstance(compared({"a": Audited((), nothing)}, {}), Audit)
