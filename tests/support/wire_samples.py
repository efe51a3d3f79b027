"""One message of every kind with no field at its default, and strategies for all of them.

The samples are what the golden bytes freeze; the strategies follow each class's own SHAPE, so
that a new field cannot be forgotten.
"""

from __future__ import annotations

from dataclasses import fields
from enum import IntEnum
from typing import Any, get_type_hints

from hypothesis import strategies as st

from dcc.limits import INLINE_VALUE_BYTES_MAX
from dcc.types import (
    PREV_UNKNOWN,
    Claim,
    Kind,
    Member,
    Pace,
    Record,
    Settings,
    Standing,
    Trust,
    Version,
)
from dcc.wire import messages as m
from dcc.wire import shapes as s

U64_MAX = (1 << 64) - 1
LARGE = b"large value " * 400
MEMBER = Member(
    "node-1", "127.0.0.1:6740", "127.0.0.1:6741", "zone-a", 1.5, 111411200001, 1700000000000,
    Standing.SUSPECT, 1700000000001, True, 77, True, True, 111411200000004,
)  # fmt: skip
VERSION = Version(111411200000000, 0xFEDCBA9876543210, 111411200000001)
SETTINGS = Settings(2, 111411200000002, 111411200000003)
CLAIM = Claim(-120_000, 7, Trust.CONFIRMED, True)
RECORDS = (
    Record(b"key-1", Kind.VALUE, b"value", VERSION, 1700000000002, 5),
    Record(b"key-2", Kind.VALUE, LARGE, VERSION, 0, PREV_UNKNOWN),
    Record(b"key-3", Kind.TOMBSTONE, b"", VERSION, 0, 0),
)
ORIGINS = ((7, 8), (9, U64_MAX))

SAMPLES: tuple[m.Message, ...] = (
    m.Get(key="schlüssel".encode(), direct=True, r=255, aside=True),
    m.GetReply(
        status=m.Status.HIT, version=VERSION, value=b"value", expires_at_ms=1700000000000, hot=True
    ),
    m.Write(
        op=m.Op.INCR,
        key=b"key",
        value=LARGE,
        ttl_ms=1,
        w=255,
        direct=True,
        seen=2,
        expected=VERSION,
        delta=-3,
        initial=4,
        boot=5,
        if_present=True,
    ),
    m.WriteReply(outcome=m.Outcome.MAYBE, version=VERSION, number=-(1 << 63)),
    m.ErrorReply(code=m.Code.CLOCK_SKEW, text="too far ahead", stamp=9),
    m.GetMany(keys=(b"a", b"b"), direct=True),
    m.GetManyReply(
        first=3,
        statuses=b"\x00\x01\x02\x03\x00",
        values=(b"v", LARGE),
        last=True,
        stamps=(1_700_000_000_000 << 16, 9),
        hot=(b"a",),
    ),
    m.WriteMany(
        op=m.Op.PUT,
        items=((b"a", b"1"), (b"b", LARGE)),
        ttl_ms=1,
        w=2,
        seen=3,
        boot=4,
        versions=True,
    ),
    m.WriteManyReply(outcomes=b"\x00\x01\x02\x03", stamp=5, stamps=(5, 0, 4, 0)),
    m.TopologyGet(),
    m.Topology(settings=SETTINGS, members=(MEMBER,), ready=True),
    m.StatsGet(hot_keys=True),
    m.StatsReply(stats=b'{"hits":1}'),
    m.Scan(slots=(0, 16383), prefix=b"user:", after=b"user:7"),
    m.ScanReply(
        done=1, keys=(b"user:8", b"user:9"), unsure=(16383,), old=(16383,), lacking=(16383,)
    ),
    m.Clear(seen=6, issued_ms=7),
    m.ClearReply(stamp=7, everywhere=True),
    m.Inspect(key=b"key"),
    m.InspectReply(records=RECORDS[:1], confirmed=True),
    m.SetReplicas(replicas=3, issued_ms=7),
    m.SettingsReply(settings=SETTINGS, everywhere=True),
    m.ConvergedGet(),
    m.ConvergedReply(converged=True, under_replicated=7, reasons=("node-2 is suspect",)),
    m.AuditGet(slots=(5, 6), above=(0, U64_MAX)),
    m.AuditReply(
        content=(U64_MAX, 0), seen=(1, 2), items=(3, 4), ghosts=(5, 6), forgotten=(0, U64_MAX)
    ),
    m.Watch(),
    m.Watched(every_ms=100),
    m.Fetch(key=b"key", version=VERSION, origins=((1, 2), (3, 4)), stamps=(5, 6)),
    m.FetchReply(records=RECORDS[2:], sure=False, gone=True),
    m.Replicate(seq=8, records=RECORDS),
    m.ReplicateAck(seq=8, moved=(0, 2), ignored=(1,)),
    m.Pull(
        origins=ORIGINS,
        slots=(s.SlotAsk(5, VERSION, (0, 11, 1, 12), 13, (1, 14, 15)),),
        owed=(s.SlotOwed(5, 3, 13, U64_MAX),),
    ),
    m.PullReply(
        origins=ORIGINS,
        slots=(s.SlotAnswer(5, True, (1, 14), 15, (U64_MAX,), (0, 16, 17)),),
        records=RECORDS,
        serving=True,
        buried=(s.SlotGraves(5, (U64_MAX, 3, 2, 1)),),
    ),
    m.Nudge(slots=(1, 2, 3)),
    m.SettingsUpdate(settings=SETTINGS),
    m.SettingsAck(settings=SETTINGS),
    m.Compare(slots=(5, 6), digests=(U64_MAX, 0)),
    m.CompareReply(differ=(5,)),
    m.CompareRoot(root=U64_MAX),
    m.CompareRootReply(groups=tuple(range(128))),
    m.StateGet(),
    m.State(ready=True, unsynced=1, leftovers=2, lag_ms=3, settings=4),
    m.Served(keys=(b"key-1", b"key-2")),
    m.Ping(seq=1, target=2, rumors=(MEMBER,), root=3, clock=CLAIM, pace=Pace.SLOW),
    m.Ack(seq=1, rumors=(MEMBER,), root=2, clock=CLAIM, heard_ms=-5),
    m.PingReq(seq=1, target=2, rumors=(MEMBER,)),
    m.Nack(seq=1),
    m.Rumors(rumors=(MEMBER,), settings=SETTINGS),
    m.PushPull(members=(MEMBER,), settings=SETTINGS, joining=True),
    m.PushPullReply(members=(MEMBER,), settings=SETTINGS, clock=CLAIM),
    m.Changes(number=9, keys=(U64_MAX, 5), stamps=(6, 7), cleared=4),
)

u64s = st.integers(0, U64_MAX)
i64s = st.integers(-(1 << 63), (1 << 63) - 1)
shifts = st.integers(-s.MS_MAX, s.MS_MAX)
ms = st.integers(0, 1 << 47)
slots = st.integers(0, 16_383)
keys = st.binary(min_size=1, max_size=512)
values = st.one_of(st.binary(max_size=200), st.just(b"x" * INLINE_VALUE_BYTES_MAX))
labels = st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]), max_size=20)
addresses = st.builds("{}:{}".format, st.sampled_from(["h", "a.b", "[::1]"]), st.integers(1, 65535))
versions = st.builds(Version, u64s, u64s, u64s)
settings = st.builds(Settings, st.integers(0, 9), u64s, u64s)
records = st.builds(
    lambda record: record if record.kind is Kind.VALUE else record._replace(value=b""),
    st.builds(Record, keys, st.sampled_from(Kind), values, versions, ms, st.integers(-1, U64_MAX)),
)
members = st.builds(
    Member, labels.filter(bool), addresses, addresses, labels, st.floats(0.001, 1e6), u64s, u64s,
    st.sampled_from(Standing), ms, st.booleans(), u64s, stamps_above=u64s,
)  # fmt: skip


def tuples(items: st.SearchStrategy[Any], most: int = 4) -> st.SearchStrategy[tuple[Any, ...]]:
    """Strategy for tuples of up to `most` items."""
    return st.lists(items, max_size=most).map(tuple)


clocks = tuples(st.tuples(st.integers(0, 1), u64s), 3).map(lambda pairs: sum(pairs, ()))
spans = tuples(st.tuples(st.integers(0, 1), st.integers(0, 9), st.integers(10, U64_MAX)), 3).map(
    lambda triples: sum(triples, ())
)
origins = st.just(ORIGINS)

BY_SHAPE: dict[s.Shape, st.SearchStrategy[Any]] = {
    s.U8: st.integers(0, 255),
    s.U32: st.integers(0, (1 << 32) - 1),
    s.U64: u64s,
    s.I64: i64s,
    s.MS: ms,
    s.BOOL: st.booleans(),
    s.KEY: keys,
    s.PREFIX: st.binary(max_size=512),
    s.TEXT: st.text(max_size=1_000),
    s.BLOB: st.binary(max_size=2_000),
    s.VALUE: values,
    s.VERSION: versions,
    s.SETTINGS: settings,
    s.CLAIM: st.builds(Claim, shifts, shifts, st.sampled_from(Trust), st.booleans()),
    s.MEMBERS: tuples(members),
    s.RECORDS: tuples(records),
    s.KEYS: tuples(keys),
    s.SLOTS: tuples(slots),
}
BY_NAME: dict[tuple[type[Any], str], st.SearchStrategy[Any]] = {
    (m.GetManyReply, "statuses"): st.lists(st.integers(1, 3), max_size=9).map(bytes),
    (m.GetManyReply, "values"): st.just(()),
    (m.GetManyReply, "stamps"): st.just(()),
    (m.WriteMany, "op"): st.sampled_from([m.Op.PUT, m.Op.DELETE]),
    (m.WriteMany, "items"): tuples(st.tuples(keys, values)),
    (m.WriteManyReply, "outcomes"): st.lists(st.integers(0, 3), max_size=9).map(bytes),
    (m.WriteManyReply, "stamps"): st.just(()),
    (m.ScanReply, "keys"): tuples(keys),
    (m.ReplicateAck, "moved"): tuples(st.integers(0, (1 << 32) - 1)),
    (m.ReplicateAck, "ignored"): tuples(st.integers(0, (1 << 32) - 1)),
    (m.Compare, "slots"): st.just((5, 6)),
    (m.Compare, "digests"): st.tuples(u64s, u64s),
    (m.CompareRootReply, "groups"): st.sampled_from([(), (U64_MAX,) * 128]),
    (m.ConvergedReply, "reasons"): tuples(labels),
    (m.AuditReply, "content"): st.tuples(u64s, u64s),
    (m.AuditReply, "seen"): st.tuples(u64s, u64s),
    (m.AuditReply, "items"): st.just((1, 2)),
    (m.AuditReply, "ghosts"): st.just((0, 3)),
    (m.AuditReply, "forgotten"): st.sampled_from([(), (0, 3)]),
    (m.Changes, "keys"): st.tuples(u64s, u64s),
    (m.Changes, "stamps"): st.tuples(u64s, u64s),
    (m.AuditGet, "slots"): st.just((1, 2)),
    (m.AuditGet, "above"): st.sampled_from([(), (0, 3)]),
    (m.SetReplicas, "replicas"): st.integers(0, 9),
    (m.Fetch, "origins"): origins,
    (m.Fetch, "stamps"): st.tuples(u64s, u64s),
    (m.Pull, "origins"): origins,
    (m.Pull, "owed"): tuples(st.builds(s.SlotOwed, slots, u64s, u64s, u64s)),
    (m.Pull, "slots"): tuples(st.builds(s.SlotAsk, slots, versions, clocks, u64s)),
    (m.PullReply, "origins"): origins,
    (m.PullReply, "buried"): tuples(
        st.builds(s.SlotGraves, slots, st.tuples(u64s, u64s, u64s, u64s))
    ),
    (m.PullReply, "slots"): tuples(
        st.builds(s.SlotAnswer, slots, st.booleans(), clocks, u64s, tuples(u64s), st.just(()))
    ),
}


def strategy_of(cls: type[Any]) -> st.SearchStrategy[Any]:
    """Strategy for valid messages of class `cls`."""
    hints = get_type_hints(cls)
    parts = {}
    for field, shape in zip(fields(cls), cls.SHAPE, strict=True):
        hint = hints[field.name]
        if (cls, field.name) in BY_NAME:
            parts[field.name] = BY_NAME[cls, field.name]
        elif isinstance(hint, type) and issubclass(hint, IntEnum):
            parts[field.name] = st.sampled_from(hint)
        else:
            parts[field.name] = BY_SHAPE[shape]
    return st.builds(cls, **parts)


# All of them at once: a message without a strategy shall not wait for a draw to be found out.
STRATEGIES = {cls: strategy_of(cls) for cls in m.WIRE.values()}
any_message: st.SearchStrategy[m.Message] = st.one_of(list(STRATEGIES.values()))
