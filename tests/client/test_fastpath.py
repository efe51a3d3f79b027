"""The hot path says and understands exactly what the codec does."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcc.client.fastpath import PLAIN_KEYS_MAX, Answer, FastPath, Hits, plain_groups
from dcc.types import NO_VERSION, Version
from dcc.wire.codec import PREFIX_BYTES, Codec
from dcc.wire.messages import (
    Get,
    GetMany,
    GetManyReply,
    GetReply,
    Op,
    Outcome,
    Status,
    Write,
    WriteReply,
)
from tests.support.client_driver import Bench

CODEC = Codec("dcc", sender=77, boot=88)
NODE = Codec("dcc", sender=5, boot=6)
FAST = FastPath(CODEC, sender=77, boot=88)
REQUEST, EPOCH = 1234, 99
PAIR = [b"a", b"b"]
"What answers of many are about."

u64 = st.integers(0, (1 << 64) - 1)


@given(
    key=st.binary(min_size=1, max_size=512), epoch=u64, request=u64, at=u64, direct=st.booleans()
)
def test_a_question_says_what_the_codecs_bytes_say(
    key: bytes, epoch: int, request: int, at: int, direct: bool
) -> None:
    frames = CODEC.encode(Get(key=key, direct=direct), epoch=epoch, request=request, at=at)
    short = [FAST.question(key, epoch, request, at, direct)]
    assert NODE.decode(short) == NODE.decode(frames)
    assert len(short[0]) == len(frames[0]) - 2, "`r` and `aside` are left out"


@given(
    op=st.sampled_from(Op), value=st.binary(max_size=200), seen=u64, epoch=u64, request=u64, at=u64,
    ttl=st.integers(0, 1 << 46), delta=st.integers(-(1 << 63), (1 << 63) - 1),
)  # fmt: skip
def test_a_write_is_the_codecs_bytes(
    op: Op, value: bytes, seen: int, epoch: int, request: int, at: int, ttl: int, delta: int
) -> None:
    write = Write(op=op, key=b"k", value=value, ttl_ms=ttl, expected=Version(1, 2, 3), delta=delta)
    told = replace(write, seen=seen)
    frames = CODEC.encode(told, epoch=epoch, request=request, at=at)
    assert [FAST.change(write, seen, epoch, request, at)] == frames


def written(outcome: Outcome, number: int = 0) -> bytes:
    message = WriteReply(outcome=outcome, version=Version(8, 1, 2), number=number)
    return NODE.encode(message, epoch=EPOCH, request=REQUEST, at=3)[0]


def test_what_became_of_a_write_is_told_if_it_is_settled() -> None:
    for outcome in (Outcome.DONE, Outcome.NOT_DONE):
        reply = WriteReply(outcome=outcome, version=Version(8, 1, 2), number=-5)
        assert FAST.written(written(outcome, -5), REQUEST, EPOCH) == reply
    assert FAST.written(written(Outcome.MAYBE), REQUEST, EPOCH) is None
    assert FAST.written(written(Outcome.DONE), REQUEST + 1, EPOCH) is None
    assert FAST.written(written(Outcome.DONE), REQUEST, EPOCH + 1) is None
    assert FAST.written(reply_of_a_read(), REQUEST, EPOCH) is None


def reply_of_a_read() -> bytes:
    return reply(Status.HIT, b"value", Version(8, 1, 2))


def reply(status: Status, value: bytes, version: Version, *, hot: bool = False) -> bytes:
    message = GetReply(status=status, version=version, value=value, expires_at_ms=7, hot=hot)
    return NODE.encode(message, epoch=EPOCH, request=REQUEST, at=3)[0]


@given(value=st.binary(max_size=200), stamp=u64, hot=st.booleans())
def test_a_hit_is_its_value_and_stamp_and_says_whether_its_key_is_hot(
    value: bytes, stamp: int, hot: bool
) -> None:
    frame = reply(Status.HIT, value, Version(stamp, 1, 2), hot=hot)
    assert FAST.answer(frame, REQUEST, EPOCH) == Answer(value, stamp, hot)


def test_replies_of_nodes_that_say_nothing_of_hot_keys_are_understood() -> None:
    one = msgpack.unpackb(reply(Status.HIT, b"value", Version(8, 1, 2))[PREFIX_BYTES:])
    many = msgpack.unpackb(reply_of_many(b"\0\1", (b"v",))[PREFIX_BYTES:])
    one, many = (NODE.prefix + msgpack.packb(items[:-1]) for items in (one, many))
    assert FAST.answer(one, REQUEST, EPOCH) == Answer(b"value", 8)
    assert FAST.answer_many(many, PAIR, REQUEST, EPOCH) == Hits([b"a"], [b"v"], [7], [])


def test_a_miss_is_absence_and_all_else_takes_the_ordinary_path() -> None:
    miss = reply(Status.MISS, b"", NO_VERSION)
    assert FAST.answer(miss, REQUEST, EPOCH) == Answer(None, 0)
    assert FAST.answer(miss, REQUEST + 1, EPOCH) is None
    assert FAST.answer(miss, REQUEST, EPOCH + 1) is None
    assert FAST.answer(reply(Status.UNSURE, b"", NO_VERSION), REQUEST, EPOCH) is None
    assert FAST.answer(reply(Status.HIT, bytes(5000), NO_VERSION), REQUEST, EPOCH) is None


junk = st.one_of(
    st.none(), st.booleans(), st.floats(), st.integers(-(1 << 63), (1 << 64) - 1),
    st.binary(max_size=8), st.text(max_size=4), st.lists(st.integers(0, 9), max_size=4),
)  # fmt: skip


@given(places=st.dictionaries(st.integers(0, 11), junk, max_size=2), cut=st.integers(0, 12))
def test_whatever_it_takes_the_codec_reads_in_the_same_way(
    places: dict[int, Any], cut: int
) -> None:
    items = msgpack.unpackb(reply(Status.HIT, b"value", Version(8, 1, 2))[PREFIX_BYTES:])
    for place, thing in places.items():
        if place < len(items):
            items[place] = thing
    frame = NODE.prefix + msgpack.packb(items[:cut] if cut < 3 else items)
    answer = FAST.answer(frame, REQUEST, EPOCH)
    assert answer is None or answer == meant(frame)


@given(places=st.dictionaries(st.integers(0, 10), junk, max_size=2), cut=st.integers(0, 11))
def test_what_it_takes_for_written_the_codec_reads_in_the_same_way(
    places: dict[int, Any], cut: int
) -> None:
    items = msgpack.unpackb(written(Outcome.DONE, 4)[PREFIX_BYTES:])
    for place, thing in places.items():
        if place < len(items):
            items[place] = thing
    frame = NODE.prefix + msgpack.packb(items[:cut] if cut < 3 else items)
    answer = FAST.written(frame, REQUEST, EPOCH)
    assert answer is None or answer == meant(frame)


def meant(frame: bytes) -> object:
    """Return what the codec makes of an answer, as the hot path would tell it."""
    header, message = CODEC.decode([frame])
    assert (header.request, header.epoch) == (REQUEST, EPOCH)
    if isinstance(message, GetReply):
        hit = message.status is Status.HIT
        if not hit:
            return Answer(None, 0)
        return Answer(message.value, message.version.stamp, message.hot)
    if isinstance(message, GetManyReply):
        statuses = zip(PAIR, message.statuses, strict=True)
        hits = [key for key, status in statuses if status == Status.HIT]
        return Hits(hits, list(message.values), list(message.stamps), list(message.hot))
    return message


@pytest.mark.parametrize("what", ["read", "write", "reads"])
@given(at=st.integers(0, 1_000), byte=st.integers(0, 255))
def test_whatever_it_takes_with_a_changed_byte_the_codec_reads_in_the_same_way(
    what: str, at: int, byte: int
) -> None:
    good = {
        "read": reply_of_a_read(),
        "write": written(Outcome.DONE, 4),
        "reads": reply_of_many(b"\0\1", (b"value",)),
    }[what]
    changed = bytearray(good)
    changed[at % len(good)] = byte
    frame = bytes(changed)
    for answer in (
        FAST.answer(frame, REQUEST, EPOCH),
        FAST.written(frame, REQUEST, EPOCH),
        FAST.answer_many(frame, PAIR, REQUEST, EPOCH),
    ):
        assert answer is None or answer == meant(frame)


@given(frame=st.binary(max_size=60), behind=st.booleans())
def test_no_bytes_harm_it(frame: bytes, behind: bool) -> None:
    whole = NODE.prefix + frame if behind else frame
    for read in (FAST.answer, FAST.written):
        answer = read(whole, REQUEST, EPOCH)
        assert answer is None or answer == meant(whole)


keys_lists = st.lists(st.binary(min_size=1, max_size=20), max_size=20, unique=True)


@given(keys=keys_lists, epoch=u64, request=u64, at=u64, direct=st.booleans())
def test_a_question_of_many_says_what_the_codecs_bytes_say(
    keys: list[bytes], epoch: int, request: int, at: int, direct: bool
) -> None:
    many = GetMany(keys=tuple(keys), direct=direct)
    frames = CODEC.encode(many, epoch=epoch, request=request, at=at)
    short = [FAST.question_many(keys, epoch, request, at, direct)]
    assert NODE.decode(short) == NODE.decode(frames)
    assert len(short[0]) == len(frames[0]) - (not direct), "the default is left out"


def reply_of_many(statuses: bytes, values: tuple[bytes, ...], **other: Any) -> bytes:
    fields: dict[str, Any] = {"first": 0, "last": True} | other
    fields.setdefault("stamps", tuple(range(7, 7 + len(values))))
    message = GetManyReply(statuses=statuses, values=values, **fields)
    return NODE.encode(message, epoch=EPOCH, request=REQUEST, at=3)[0]


@given(keys=keys_lists, draw=st.randoms(use_true_random=False))
def test_an_answer_of_many_is_its_hits(keys: list[bytes], draw: random.Random) -> None:
    statuses = bytes(draw.choice([Status.HIT, Status.MISS, Status.UNSURE]) for _ in keys)
    hits = {key: draw.randbytes(9) for key, one in zip(keys, statuses, strict=True) if not one}
    frame = reply_of_many(statuses, tuple(hits.values()))
    stamps = list(range(7, 7 + len(hits)))
    found = FAST.answer_many(frame, keys, REQUEST, EPOCH)
    assert found == Hits(list(hits), list(hits.values()), stamps, [])


def test_an_answer_of_many_names_hot_keys_among_those_asked_for() -> None:
    named = reply_of_many(b"\0\0", (b"v", b"w"), hot=(b"b",))
    found = FAST.answer_many(named, PAIR, REQUEST, EPOCH)
    assert found == Hits(PAIR, [b"v", b"w"], [7, 8], [b"b"])
    strange = reply_of_many(b"\0\0", (b"v", b"w"), hot=(b"c",))
    assert FAST.answer_many(strange, PAIR, REQUEST, EPOCH) is None


@pytest.mark.parametrize(
    "frame",
    [
        reply_of_many(b"\0\3", (b"v",)),
        reply_of_many(b"\0\1", (b"v",), last=False),
        reply_of_many(b"\0\1", (b"v",), first=1),
        reply_of_many(b"\0", (b"v",)),
        reply_of_many(b"\0\1\1", (b"v",)),
        reply_of_many(b"\0\0", (b"v",)),
        reply_of_many(b"\0\1", (b"v", b"w")),
        reply_of_many(b"\0\1", (bytes(5000),)),
        reply_of_many(b"\0\1", (b"v",))[:-1],
        reply_of_many(b"\0\1", (b"v",), stamps=()),
        b"",
    ],
)
def test_an_answer_of_many_that_is_not_plain_takes_the_ordinary_path(frame: bytes) -> None:
    assert FAST.answer_many(frame, PAIR, REQUEST, EPOCH) is None


@given(places=st.dictionaries(st.integers(0, 12), junk, max_size=2))
def test_whatever_it_takes_of_many_the_codec_reads_in_the_same_way(places: dict[int, Any]) -> None:
    items = msgpack.unpackb(reply_of_many(b"\0\1", (b"v",))[PREFIX_BYTES:])
    for place, thing in places.items():
        items[place] = thing
    frame = NODE.prefix + msgpack.packb(items)
    answer = FAST.answer_many(frame, PAIR, REQUEST, EPOCH)
    assert answer is None or answer == meant(frame)


def test_keys_are_grouped_by_well_primaries_or_left_to_the_ordinary_path() -> None:
    bench = Bench().learn()
    view = bench.core.view
    assert view is not None
    keys = [b"%d" % n for n in range(100)]
    groups = plain_groups(view, {}, keys)
    assert groups is not None
    assert sorted(key for group in groups.values() for key in group) == sorted(keys)
    assert all(bench.order(key)[0] == one for one, group in groups.items() for key in group)
    assert plain_groups(view, {"a:1"}, keys) is None
    assert plain_groups(view, {}, [b"%d" % n for n in range(PLAIN_KEYS_MAX + 1)]) is None


def test_the_ordinary_call_goes_on_where_the_hot_path_stands() -> None:
    bench = Bench("ab", replicas=1).learn()
    keys = [b"%d" % n for n in range(40)]
    for peer in bench.peers.values():
        peer.data.update({key: b"v" + key for key in keys})
    theirs = [key for key in keys if bench.order(key)[0] == "a:1"]
    assert 0 < len(theirs) < 40
    sent = bench.now
    call = bench.core.resume(
        GetMany(keys=tuple(keys)), [("a:1", 555, theirs)], sent, bench.core.codec
    )
    values = tuple(b"v" + key for key in theirs)
    statuses = bytes(len(theirs))
    late = bench.peers["a:1"].encode(
        GetManyReply(first=0, statuses=statuses, values=values, last=True), 555
    )
    bench.inbox.append((bench.mono + 1000, 0, "a:1", late))
    assert bench.run(call) == {key: b"v" + key for key in keys}
    assert [one.address for one in bench.asked(GetMany)] == ["b:1"]


def test_a_resumed_get_asks_the_next_owner_when_the_first_stays_silent() -> None:
    bench = Bench("ab", replicas=1).learn()
    primary, second = bench.order(b"k")[:2]
    call = bench.core.resume(Get(key=b"k"), [(primary, 5, [b"k"])], bench.now, bench.core.codec)
    assert bench.run(call).status is Status.MISS
    assert [one.address for one in bench.asked(Get)] == [second]
