"""What a node accepts its peers can read, and what peers claim has bounds."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from dcc.effects import Answer, Reply
from dcc.limits import FRAME_BYTES_MAX, MEMBERS_MAX
from dcc.node.stats import packed
from dcc.replication.holdings import Instant
from dcc.ring.hashing import slot_of
from dcc.types import NO_VERSION, PREV_UNKNOWN, Kind, Member, Record, Standing, Version
from dcc.wire import messages as m
from dcc.wire.codec import Header
from dcc.wire.messages import TAG
from dcc.wire.shapes import MS_MAX, SlotAnswer
from tests.support.wired_cores import Cores

U64_MAX = (1 << 64) - 1
YEAR_MS = 365 * 24 * 3_600_000


@pytest.fixture
def cores() -> Cores:
    made = Cores("a", "b", replicas=1)
    made.settle()
    return made


def forged(cores: Cores, name: str, message: m.Message, *, to: str = "a", at: int = 0) -> Any:
    """Give a node what one of its members seems to say; return the effects' messages to it."""
    codec, epoch = cores[name].codec, cores[name].held.view.epoch
    frames = codec.encode(message, epoch=epoch, request=5, at=at or cores.ms)
    return cores.feed(to, frames, route=b"\0peer")


def code_of(replies: list[m.Message]) -> m.Code:
    [reply] = replies
    assert isinstance(reply, m.ErrorReply)
    return reply.code


# ------------------------------------------------------------------ values at the door


@pytest.mark.parametrize("op", [m.Op.PUT, m.Op.ADD, m.Op.TOUCH, m.Op.INCR, m.Op.REPLACE])
def test_an_expiry_that_no_peer_could_read_is_refused_and_nothing_is_stored(
    cores: Cores, op: m.Op
) -> None:
    key = cores.key_of("a", "b")
    if op in (m.Op.TOUCH, m.Op.REPLACE):
        cores.put("a", key, b"v", w=2)
    write = m.Write(op=op, key=key, value=b"x" * (op < m.Op.DELETE), ttl_ms=MS_MAX, delta=1)
    assert code_of(cores.ask("a", write)) is m.Code.MALFORMED
    cores.run(1)
    assert cores.held("a", key) == cores.held("b", key)
    assert cores["b"].counters.dropped.get("malformed", 0) == 0


def test_many_writes_leave_out_the_one_that_no_peer_could_read(cores: Cores) -> None:
    key = cores.key_of("a", "b")
    [reply] = cores.ask("a", m.WriteMany(op=m.Op.PUT, items=((key, b"v"),), ttl_ms=MS_MAX))
    assert isinstance(reply, m.WriteManyReply)
    assert reply.outcomes == bytes([m.Outcome.ELSEWHERE])


def test_a_key_that_is_no_text_is_refused(cores: Cores) -> None:
    write = m.Write(op=m.Op.PUT, key=b"\xff", value=b"v")
    assert code_of(cores.ask("a", write)) is m.Code.INVALID_KEY
    many = m.WriteMany(op=m.Op.PUT, items=((b"\xff", b"v"),))
    assert code_of(cores.ask("a", many)) is m.Code.INVALID_KEY


def test_a_request_that_could_not_be_passed_on_is_refused_by_whoever_takes_it(
    cores: Cores,
) -> None:
    first, *rest = cores.client.encode(m.Get(key=cores.key_of("b", "a")), request=9)
    items = msgpack.unpackb(first[8:])
    items.append(b"x" * (FRAME_BYTES_MAX - len(first) - 20))
    frame = first[:8] + msgpack.packb(items)
    assert len(frame) <= FRAME_BYTES_MAX
    assert code_of(cores.feed("a", [frame, *rest])) is m.Code.MALFORMED


# ------------------------------------------------------------------ a record that cannot be read


def pill(cores: Cores, of: bytes, **changes: Any) -> Record:
    """Return a record as a node of another release might hold it."""
    version = Version((cores.ms << 16) + 1, cores["b"].key, cores["b"].boot)
    return Record(of, Kind.VALUE, b"v", version, 0, 0)._replace(**changes)


@pytest.mark.parametrize("changes", [{"expires_at_ms": MS_MAX + 1}, {"kind": 9}, {"key": b"\xff"}])
def test_a_record_that_a_peer_refuses_is_isolated_and_counted(
    cores: Cores, changes: dict[str, Any]
) -> None:
    key, bad = cores.key_of("b", "a"), cores.fresh_key("b", "a")
    good = pill(cores, key)
    good = good._replace(version=good.version._replace(stamp=good.version.stamp + 5))
    batch = m.Replicate(seq=9, records=(pill(cores, bad, **changes), good))
    acks: list[m.Message] = []

    def noted(_from: object, _to: object, message: m.Message) -> bool:
        acks.append(message)
        return False

    cores.lost = noted
    forged(cores, "b", batch)
    assert cores.held("a", key) == b"v", "the rest of the batch is merged"
    [ack] = [one for one in acks if isinstance(one, m.ReplicateAck)]
    assert 0 in ack.moved, "nobody counts on a copy of it"
    assert cores["a"].counters.dropped["record_refused"] == 1
    entry = cores["a"].held.store.peek(slot_of(bad), bad)
    assert entry is None or entry.kind is Kind.EVICTED
    listed = cores.ask("a", m.Scan(slots=(slot_of(b"\xff"),), prefix=b""))
    assert [one.keys for one in listed if isinstance(one, m.ScanReply)] == [()]
    cores.check()


def test_a_node_joins_though_another_holds_what_it_cannot_read(cores: Cores) -> None:
    keys = [b"k%d" % i for i in range(300)]
    for key in keys:
        cores.put("a", key, b"v", w=2)
    for name in ("a", "b"):  # As if an older release had taken it.
        bad = pill(cores, b"pill", expires_at_ms=MS_MAX + 1)
        cores[name].held.store.apply(slot_of(b"pill"), bad, cores.ms)
    late = cores.add("c")
    cores.until(lambda: late.slots_ready, 20)
    cores.settle()
    assert late.counters.dropped.get("malformed", 0) == 0
    assert late.counters.dropped["record_refused"] > 0


# ------------------------------------------------------------------ time as others claim it


def test_clocks_a_year_ahead_move_nothing_and_expire_nothing(cores: Cores) -> None:
    key = cores.key_of("a", "b")
    cores.ask("a", m.Write(op=m.Op.PUT, key=key, value=b"v", ttl_ms=60_000, w=2))
    for at in (cores.ms + YEAR_MS, U64_MAX, 1 << 47):
        forged(cores, "b", m.Ping(seq=1, target=cores["a"].key), at=at)
    cores.run(0.5)
    assert abs(cores["a"].clock.offset_ms) < 100
    assert cores.held("a", key) == b"v"


def test_a_clock_of_another_boot_is_not_read(cores: Cores) -> None:
    b = cores["b"]
    b.codec._boot += 1
    forged(cores, "b", m.Ping(seq=1, target=cores["a"].key), at=cores.ms + 10_000_000)
    b.codec._boot -= 1
    assert abs(cores["a"].clock.offset_ms) < 100


@pytest.mark.parametrize("field", ["incarnation", "boot", "stamps_above"])
def test_a_row_from_the_future_is_left_out_and_breaks_no_encoder(cores: Cores, field: str) -> None:
    a = cores["a"]
    for name in ("a", "b"):
        row = a.membership.members[cores[name].key]._replace(standing=Standing.SUSPECT)
        fields: dict[str, Any] = {field: U64_MAX}
        far = row._replace(**fields)
        forged(cores, "b", m.Rumors(rumors=(far,), settings=a.membership.settings))
        forged(cores, "b", m.PushPull(members=(far,), settings=a.membership.settings))
    cores.run(3)
    assert cores.settled()
    assert a.membership.me.incarnation < 1 << 60


def test_a_slots_clock_from_the_future_is_not_taken_over(cores: Cores) -> None:
    a, key = cores["a"], cores.key_of("b", "a")
    slot, far = slot_of(key), (cores.ms + YEAR_MS) << 16
    origin = (cores["b"].key, cores["b"].boot)
    reply = m.PullReply(
        origins=(origin,), slots=(SlotAnswer(slot, True, (0, far), 0, (), ()),), records=()
    )
    header = Header(TAG[m.Nudge], *origin, 0, 0, 0, 0)
    a.exchange.agenda.nudged(header, m.Nudge(slots=(slot,)), a._at)
    assert a._door.in_time(reply, a._at).slots == ()
    marked = m.PullReply(origins=(), slots=(SlotAnswer(slot, True, (), far, (), ()),), records=())
    assert a._door.in_time(marked, a._at).slots == ()


# ------------------------------------------------------------------ answers that fit


def crowd(count: int) -> list[Member]:
    return [
        Member(
            f"{n:04d}" + "x" * 120, "h" * 240 + ":1", "h" * 240 + ":2", "z" * 120, 1.0, n + 1, 1,
            Standing.LEFT, 5, draining=False,
        )
        for n in range(count)
    ]  # fmt: skip


def test_a_topology_of_many_long_rows_is_cut_so_that_clients_can_read_it(cores: Cores) -> None:
    a = cores["a"]
    for row in crowd(900):
        a.membership.members[row.key] = row
    asked = cores.client.encode(m.TopologyGet(), request=3)
    [reply] = a.receive(b"\0abcd", asked, cores.now)
    assert isinstance(reply, Reply)
    assert len(reply.frames[0]) <= FRAME_BYTES_MAX
    topology = cores.client.decode(reply.frames)[1]
    assert isinstance(topology, m.Topology)
    assert {row.name for row in topology.members} >= {"a", "b"}


def test_statistics_of_a_large_cluster_fit_their_reply(cores: Cores) -> None:
    stats = cores["a"].stats(cores.now)
    names = {f"{n:04d}" + "x" * 124: "alive" for n in range(MEMBERS_MAX)}
    reply = m.StatsReply(stats=packed(stats | {"members": names}))
    assert cores.client.decode(cores.client.encode(reply))[1] == reply


def test_a_frame_that_nobody_would_read_is_a_refusal(cores: Cores) -> None:
    a = cores["a"]
    records = tuple(
        Record(b"k%d" % n, Kind.VALUE, bytes(4_000), NO_VERSION, 0, PREV_UNKNOWN) for n in range(80)
    )
    [reply] = a._emit([Answer(b"\0abcd", m.InspectReply(records=records, confirmed=True), 7)])[-1:]
    assert isinstance(reply, Reply)
    assert code_of([cores.client.decode(reply.frames)[1]]) is m.Code.OVERLOADED
    assert a.counters.dropped["oversized"] == 1


@pytest.mark.parametrize("what", ["scan", "audit"])
def test_a_question_that_names_a_slot_twice_is_refused(cores: Cores, what: str) -> None:
    slots = (5,) * 1_000
    message = m.Scan(slots=slots, prefix=b"") if what == "scan" else m.AuditGet(slots=slots)
    assert code_of(cores.ask("a", message)) is m.Code.MALFORMED


def test_a_peer_that_names_a_slot_twice_is_not_answered(cores: Cores) -> None:
    before = cores["a"].counters.dropped.get("malformed", 0)
    forged(cores, "b", m.Compare(slots=(5,) * 1_000, digests=(1,) * 1_000))
    assert cores["a"].counters.dropped["malformed"] == before + 1


def test_a_machine_whose_clock_was_never_set_joins(cores: Cores) -> None:
    rows = tuple(cores["a"].membership.members.values())
    settings = cores["a"].membership.settings
    late = cores.add("c")
    late.clock._base_ns = -cores.mono  # It believes that it is 1970.
    late.clock.settled = False
    at = Instant(cores.mono, 0)
    message = m.PushPullReply(members=rows, settings=settings)
    header = Header(m.TAG[m.PushPullReply], cores["a"].key, cores["a"].boot, 0, 0, 1, cores.ms)
    assert late._door.believed(header, message, at).members == rows
    far = header._replace(at=U64_MAX)
    ahead = rows[0]._replace(incarnation=U64_MAX)
    doubted = late._door.believed(far, m.PushPullReply(members=(ahead,), settings=settings), at)
    assert doubted.members == ()
