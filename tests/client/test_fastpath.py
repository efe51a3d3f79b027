"""The hot path says and understands exactly what the codec does."""

from __future__ import annotations

from typing import Any

import msgpack
from hypothesis import given
from hypothesis import strategies as st

from dcc.client.fastpath import Answer, FastPath
from dcc.errors import PeerError
from dcc.types import NO_VERSION, Version
from dcc.wire.codec import PREFIX_BYTES, Codec
from dcc.wire.messages import Get, GetReply, Status

CODEC = Codec("dcc", sender=77, boot=88)
NODE = Codec("dcc", sender=5, boot=6)
FAST = FastPath(CODEC, sender=77, boot=88)
REQUEST, EPOCH = 1234, 99

u64 = st.integers(0, (1 << 64) - 1)


@given(key=st.binary(min_size=1, max_size=512), epoch=u64, request=u64, at=u64)
def test_a_question_is_the_codecs_bytes(key: bytes, epoch: int, request: int, at: int) -> None:
    frames = CODEC.encode(Get(key=key), epoch=epoch, request=request, at=at)
    assert [FAST.question(key, epoch, request, at)] == frames


def reply(status: Status, value: bytes, version: Version) -> bytes:
    message = GetReply(status=status, version=version, value=value, expires_at_ms=7)
    return NODE.encode(message, epoch=EPOCH, request=REQUEST, at=3)[0]


@given(value=st.binary(max_size=200), stamp=u64)
def test_a_hit_is_its_value_and_stamp(value: bytes, stamp: int) -> None:
    frame = reply(Status.HIT, value, Version(stamp, 1, 2))
    assert FAST.answer(frame, REQUEST, EPOCH) == Answer(value, stamp)


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
    if answer is not None:
        header, message = CODEC.decode([frame])
        assert (header.request, header.epoch) == (REQUEST, EPOCH)
        assert isinstance(message, GetReply)
        hit = message.status is Status.HIT
        assert answer == Answer(message.value if hit else None, message.version.stamp if hit else 0)


@given(frame=st.binary(max_size=60), behind=st.booleans())
def test_no_bytes_harm_it(frame: bytes, behind: bool) -> None:
    whole = NODE.prefix + frame if behind else frame
    answer = FAST.answer(whole, REQUEST, EPOCH)
    if answer is not None:
        try:
            CODEC.decode([whole])
        except PeerError as error:
            raise AssertionError("taken, but the codec refuses it") from error
