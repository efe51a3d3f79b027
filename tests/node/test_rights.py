"""What each key entitles to: every message of the protocol, from every kind of key."""

from __future__ import annotations

import pytest

from dcc.effects import Effect, Notify, Reply
from dcc.node.routes import Sender
from dcc.types import Identity, Kind, Record, Role, Version, topic_of
from dcc.wire import messages as m
from dcc.wire.codec import Codec
from dcc.wire.shapes import MS_MAX
from tests.support.wire_samples import SAMPLES
from tests.support.wired_cores import Cores

ROUTE = b"\0\0\0\0\1"
ADMIN = Identity(Role.ADMIN, "chief")
CLIENT = Identity(Role.CLIENT, "app")
READER = Identity(Role.CLIENT, "reader", read_only=True)
BOUND = Identity(Role.CLIENT, "bound", prefixes=(b"app1:", b"app2:"))
OF_ADMINS: set[type[object]] = {m.Clear, m.SetReplicas}


@pytest.fixture
def cores() -> Cores:
    made = Cores("a", "b", replicas=1)
    made.settle()
    return made


def node(cores: Cores, name: str) -> Identity:
    return Identity(Role.NODE, name, cores[name].key)


def sent(
    cores: Cores, message: m.Message, who: Identity, sender: int = 77, *, hops: int = 0
) -> list[Effect]:
    """Hand node a a message that came on a connection of `who`."""
    codec = Codec("c", sender=sender, boot=cores["b"].boot)
    codec.prefix = cores["a"].codec.prefix
    frames = codec.encode(message, epoch=cores["a"].held.view.epoch, request=5)
    if hops:
        frames = codec.relay(frames, epoch=0, hops=hops, request=5)
    return cores["a"].receive(ROUTE, frames, cores.now, who)


def is_refused(cores: Cores, effects: list[Effect]) -> bool:
    replies = [one for one in effects if isinstance(one, Reply)]
    answers = [cores["b"].codec.decode(one.frames)[1] for one in replies]
    return any(isinstance(one, m.ErrorReply) and one.code is m.Code.NOT_ALLOWED for one in answers)


def routed(cores: Cores) -> list[tuple[m.Message, Sender]]:
    """Return a sample of every message that a node takes, and who may send it."""
    table = cores["a"]._routes
    return [(one, table[type(one)].sender) for one in SAMPLES if type(one) in table]


def test_a_client_may_send_requests_and_nothing_that_changes_the_cluster(cores: Cores) -> None:
    for message, sender in routed(cores):
        allowed = sender is Sender.CLIENT
        assert is_refused(cores, sent(cores, message, CLIENT)) is not allowed, message


def test_an_administrator_may_change_the_cluster_and_is_no_node(cores: Cores) -> None:
    for message, sender in routed(cores):
        allowed = sender in (Sender.CLIENT, Sender.ADMIN)
        assert is_refused(cores, sent(cores, message, ADMIN)) is not allowed, message
    assert {type(one) for one, sender in routed(cores) if sender is Sender.ADMIN} == OF_ADMINS


def test_nobody_but_a_node_passes_requests_on(cores: Cores) -> None:
    b = cores["b"].key
    for who in (CLIENT, ADMIN):
        assert is_refused(cores, sent(cores, m.Get(key=b"k"), who, b, hops=1))
    assert not is_refused(cores, sent(cores, m.Get(key=b"k"), node(cores, "b"), b, hops=1))


def test_a_node_makes_no_request_of_its_own(cores: Cores) -> None:
    """Or whoever has a node's key would clear the cluster with one message."""
    b = cores["b"].key
    for message, sender in routed(cores):
        if sender in (Sender.CLIENT, Sender.ADMIN):
            effects = sent(cores, message, node(cores, "b"), b)
            assert not [one for one in effects if not isinstance(one, Notify)], message
    assert cores["a"].counters.errors["not_allowed"]


def test_a_client_does_not_call_itself_by_an_absent_nodes_key(cores: Cores) -> None:
    absent = 99
    write = m.Write(op=m.Op.PUT, key=b"k", value=b"v")
    cores["a"].access.nodes = frozenset({cores["a"].key, cores["b"].key, absent})
    assert is_refused(cores, sent(cores, write, CLIENT, absent))
    assert not is_refused(cores, sent(cores, write, CLIENT, absent + 1))


def test_a_client_does_not_call_itself_by_a_members_key(cores: Cores) -> None:
    """Answers to writes are remembered by the sender's id, and told again to who repeats them."""
    write = m.Write(op=m.Op.PUT, key=b"k", value=b"v")
    assert is_refused(cores, sent(cores, write, CLIENT, cores["b"].key))
    assert not is_refused(cores, sent(cores, write, CLIENT))


def test_a_node_speaks_in_its_own_name_only(cores: Cores) -> None:
    before = cores["a"].held.store.items
    for message, sender in routed(cores):
        impostor = sent(cores, message, node(cores, "a"), cores["b"].key)
        told = [one for one in impostor if isinstance(one, Notify) and one.event == "not_allowed"]
        assert not [one for one in impostor if not isinstance(one, Notify)], message
        assert len(told) <= 1, sender
    assert cores["a"].held.store.items == before
    dropped = cores["a"].counters.dropped["not_allowed"]
    assert dropped == len(routed(cores))


def test_a_forged_batch_is_not_salvaged_either(cores: Cores) -> None:
    """A batch of which one record cannot be read is taken in part, from its own sender."""
    b, key = cores["b"], cores.key_of("b", "a")
    version = Version((cores.ms << 16) + 1, b.key, b.boot)
    bad = Record(cores.fresh_key("b", "a"), Kind.VALUE, b"v", version, MS_MAX + 1, 0)
    good = Record(key, Kind.VALUE, b"v", version._replace(stamp=version.stamp + 5), 0, 0)
    frames = b.codec.encode(m.Replicate(seq=1, records=(bad, good)), request=5, at=cores.ms)
    for who in (CLIENT, node(cores, "a")):
        cores["a"].receive(ROUTE, list(frames), cores.now, who)
        assert cores.held("a", key) is None
    cores["a"].receive(ROUTE, list(frames), cores.now, node(cores, "b"))
    assert cores.held("a", key) == b"v"


@pytest.mark.parametrize(
    ("message", "allowed"),
    [
        (m.Get(key=b"app1:x"), True),
        (m.Get(key=b"app2:"), True),
        (m.Get(key=b"app3:x"), False),
        (m.GetMany(keys=(b"app1:x", b"app2:y")), True),
        (m.GetMany(keys=(b"app1:x", b"other")), False),
        (m.Write(op=m.Op.PUT, key=b"app1:x", value=b""), True),
        (m.Write(op=m.Op.DELETE, key=b"app1"), False),
        (m.WriteMany(op=m.Op.PUT, items=((b"app1:x", b""), (b"b", b""))), False),
        (m.WriteMany(op=m.Op.PUT, items=((b"app1:x", b""),)), True),
        (m.Scan(slots=(1,), prefix=b"app1:x"), True),
        (m.Scan(slots=(1,), prefix=b"app"), False),
        (m.Scan(slots=(1,), prefix=b""), False),
        (m.Inspect(key=b"other"), False),
        (m.AuditGet(slots=(1,)), False),
        (m.TopologyGet(), True),
        (m.StatsGet(), True),
    ],
)
def test_a_client_that_is_bound_to_prefixes(
    cores: Cores, message: m.Message, *, allowed: bool
) -> None:
    assert is_refused(cores, sent(cores, message, BOUND)) is not allowed


def test_a_reader_changes_nothing(cores: Cores) -> None:
    for message, sender in routed(cores):
        allowed = sender is Sender.CLIENT and not isinstance(message, m.Write | m.WriteMany)
        assert is_refused(cores, sent(cores, message, READER)) is not allowed, message


def test_a_refusal_is_counted_each_time_and_told_once(cores: Cores) -> None:
    told = 0
    for _ in range(5):
        effects = sent(cores, m.Clear(), CLIENT)
        told += sum(isinstance(one, Notify) and one.event == "not_allowed" for one in effects)
    assert told == 1
    assert cores["a"].counters.errors["not_allowed"] == 5


# ------------------------------------------------------------------ who may be a member


def test_a_row_of_somebody_without_a_key_is_left_out(cores: Cores) -> None:
    a, b = cores["a"], cores["b"]
    a.access.nodes = frozenset({a.key, b.key})
    row = a.membership.members[b.key]
    uninvited = row._replace(name="uninvited", request="127.0.0.1:1", gossip="127.0.0.1:2")
    settings = a.membership.settings
    for message in (
        m.PushPull(members=(row, uninvited), settings=settings, joining=False),
        m.PushPullReply(members=(uninvited,), settings=settings),
        m.Rumors(rumors=(uninvited,), settings=settings),
    ):
        codec = b.codec
        frames = codec.encode(message, epoch=a.held.view.epoch, request=5, at=cores.ms)
        cores.feed("a", frames, route=ROUTE)
    cores.run(3)
    assert uninvited.key not in a.membership.members
    assert b.key in a.membership.alive()


def test_who_has_no_key_any_more_is_not_heard_on_either_plane(cores: Cores) -> None:
    a, b = cores["a"], cores["b"]
    a.access.nodes = frozenset({a.key})
    ping = b.codec.encode(
        m.PushPull(members=(b.membership.me,), settings=b.membership.settings), at=cores.ms
    )
    for effects in (
        a.receive(b"", list(ping), cores.now),
        a.receive(ROUTE, list(ping), cores.now, node(cores, "b")),
        a.receive_gossip([topic_of(a.key), *ping], cores.now),
    ):
        assert [one.fields["reason"] for one in effects if isinstance(one, Notify)] == [
            "unknown_node"
        ]
        assert not any(isinstance(one, Reply) for one in effects)


def test_what_a_seed_answers_is_about_membership_alone(cores: Cores) -> None:
    """Its connection shows that it is of the cluster, not which node it is."""
    a, b = cores["a"], cores["b"]
    a.access.nodes = frozenset({a.key, b.key})
    for message, sender in routed(cores):
        before = a.counters.dropped.get("not_allowed", 0)
        frames = b.codec.encode(message, epoch=a.held.view.epoch, request=5)
        a.receive(b"", frames, cores.now)
        refused = a.counters.dropped.get("not_allowed", 0) - before
        assert bool(refused) is not (sender is Sender.ANYBODY), message
