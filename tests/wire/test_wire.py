"""The wire: what goes in comes out, its bytes are frozen, and no bytes do harm.

`DCC_GOLDEN=write python -m pytest tests/wire/test_wire.py` rewrites `golden/wire.txt`. Commit
a rewrite only if you understand its diff: a changed line breaks every running node of another
release.
"""

from __future__ import annotations

import os
import re
import tracemalloc
from dataclasses import MISSING, fields
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcc.errors import ForeignCluster, MalformedMessage, PeerError, UnsupportedVersion
from dcc.limits import EXTRA_FRAMES_MAX, FRAME_BYTES_MAX, INLINE_VALUE_BYTES_MAX, VALUE_BYTES_MAX
from dcc.types import NO_VERSION, Kind, Version
from dcc.wire import codec as wire
from dcc.wire import messages as m
from dcc.wire import shapes as s
from dcc.wire.codec import HEADER_FIELDS, Codec, Header
from tests.support.paths import GOLDEN, ROOT
from tests.support.wire_samples import LARGE, MEMBER, RECORDS, SAMPLES, U64_MAX, any_message, u64s

FROZEN = GOLDEN / "wire.txt"
OLDER = GOLDEN / "wire-first.txt"
"The same messages as they were first written, with fewer fields; never rewritten."
CODEC = Codec("dcc", sender=0x0123456789ABCDEF, boot=0x0FEDCBA987654321)
HEAD = {"epoch": 0x1111111111111111, "hops": 1, "request": 42, "at": 1_700_000_000_000}

samples = pytest.mark.parametrize("message", SAMPLES, ids=lambda message: type(message).__name__)


def encoded(message: m.Message) -> list[bytes]:
    return CODEC.encode(message, **HEAD)


def frame_of(items: list[Any]) -> bytes:
    packed: bytes = msgpack.packb(items)
    return CODEC.prefix + packed


def items_of(message: m.Message) -> list[Any]:
    return wire.unpack_items(encoded(message)[0])


# ------------------------------------------------------------------ there and back


def test_there_is_a_sample_of_every_message() -> None:
    assert [type(message) for message in SAMPLES] == list(m.WIRE.values())


@samples
def test_no_sample_leaves_a_field_at_its_default(message: m.Message) -> None:
    for field in fields(message):
        assert field.default is MISSING or getattr(message, field.name) != field.default


@given(any_message, u64s, u64s, u64s, u64s)
def test_a_message_comes_out_as_it_went_in(
    message: m.Message, epoch: int, hops: int, request: int, at: int
) -> None:
    frames = CODEC.encode(message, epoch=epoch, hops=hops, request=request, at=at)
    header, decoded = CODEC.decode(frames)
    assert decoded == message
    assert type(decoded) is type(message)
    assert header == Header(
        m.TAG[type(message)], CODEC._sender, CODEC._boot, epoch, hops, request, at
    )


@samples
def test_decoding_changes_no_frame_and_works_again(message: m.Message) -> None:
    frames = encoded(message)
    before = list(frames)
    assert CODEC.decode(frames) == CODEC.decode(frames)
    assert frames == before


@samples
def test_a_relay_keeps_the_fields_and_the_deadline_and_names_the_relayer(
    message: m.Message,
) -> None:
    relayer = Codec("dcc", sender=5, boot=6)
    header, decoded = CODEC.decode(relayer.relay(encoded(message), epoch=7, hops=1, request=8))
    assert decoded == message
    assert header == Header(m.TAG[type(message)], 5, 6, 7, 1, 8, HEAD["at"])


def test_a_small_value_travels_inline_and_a_large_one_in_a_frame() -> None:
    small = m.Write(op=m.Op.PUT, key=b"k", value=b"x" * (INLINE_VALUE_BYTES_MAX - 1))
    large = m.Write(op=m.Op.PUT, key=b"k", value=b"x" * INLINE_VALUE_BYTES_MAX)
    assert len(encoded(small)) == 1
    assert encoded(large)[1:] == [large.value]


# ------------------------------------------------------------------ frozen


def golden_lines() -> list[str]:
    lines = []
    for message in SAMPLES:
        name = type(message).__name__
        first, *behind = encoded(message)
        large = [f"+{len(frame)}" for frame in behind]
        lines.append(" ".join([str(m.TAG[type(message)]), name, first.hex(), *large]))
    return lines


def test_the_bytes_of_every_message_are_frozen() -> None:
    if os.environ.get("DCC_GOLDEN") == "write":
        FROZEN.write_text("\n".join(golden_lines()) + "\n")
    assert golden_lines() == FROZEN.read_text().splitlines()


def test_the_frozen_bytes_still_mean_the_same() -> None:
    for line, message in zip(FROZEN.read_text().splitlines(), SAMPLES, strict=True):
        _, _, first, *behind = line.split()
        frames = [bytes.fromhex(first), *[LARGE for _ in behind]]
        assert CODEC.decode(frames)[1] == message


def test_the_prefix_is_magic_version_and_five_bytes_of_the_clusters_hash() -> None:
    assert wire.cluster_prefix("dcc").hex() == "64630127c781dd20"


# ------------------------------------------------------------------ older and newer peers


@samples
def test_fields_appended_by_a_newer_peer_are_ignored(message: m.Message) -> None:
    first, *behind = encoded(message)
    items = wire.unpack_items(first)
    frames = [frame_of([*items, "new", [1, None], 2.5]), *behind]
    assert CODEC.decode(frames)[1] == message


def test_fields_appended_to_a_member_by_a_newer_peer_are_ignored() -> None:
    items = items_of(m.Ack(seq=1, rumors=(MEMBER,)))
    items[HEADER_FIELDS + 1][0].append("new")
    assert CODEC.decode([frame_of(items)])[1] == m.Ack(seq=1, rumors=(MEMBER,))


@samples
def test_fields_that_an_older_peer_does_not_send_take_their_defaults(message: m.Message) -> None:
    given_fields = fields(message)
    items = items_of(message)
    required = sum(field.default is MISSING for field in given_fields)
    frames = [frame_of(items[: HEADER_FIELDS + required]), *encoded(message)[1:]]
    decoded = CODEC.decode(frames)[1]
    for field in given_fields[required:]:
        assert getattr(decoded, field.name) == field.default
    for field in given_fields[:required]:
        assert getattr(decoded, field.name) == getattr(message, field.name)
    if required:
        with pytest.raises(MalformedMessage):
            CODEC.decode([frame_of(items[: HEADER_FIELDS + required - 1]), *encoded(message)[1:]])


def test_a_member_of_an_older_peer_is_read() -> None:
    items = items_of(m.Ack(seq=1, rumors=(MEMBER._replace(slow=True),)))
    for left in (
        MEMBER._replace(slow=True, stamps_above=0),
        MEMBER._replace(slow=False, stamps_above=0),
    ):
        del items[HEADER_FIELDS + 1][0][-1]
        assert CODEC.decode([frame_of(items)])[1] == m.Ack(seq=1, rumors=(left,))


@pytest.mark.parametrize("line", OLDER.read_text().splitlines())
def test_what_the_first_peers_sent_is_still_read(line: str) -> None:
    _, name, first, *behind = line.split()
    frames = [bytes.fromhex(first), *[LARGE for _ in behind]]
    assert type(CODEC.decode(frames)[1]).__name__ == name


# ------------------------------------------------------------------ harm


def harmless(frames: list[bytes]) -> None:
    """Decode to a message that survives another round trip, or raise PeerError."""
    try:
        _, message = CODEC.decode(frames)
    except PeerError:
        return
    assert CODEC.decode(encoded(message))[1] == message


def test_a_refusal_of_another_cluster_tells_its_name_and_nothing_unprintable() -> None:
    foreign = Codec("blue", sender=1, boot=1)
    named = m.ErrorReply(code=m.Code.WRONG_CLUSTER, text="it is of cluster 'blue'")
    ugly = m.ErrorReply(code=m.Code.WRONG_CLUSTER, text="\x1b[2Jboo")
    other = m.ErrorReply(code=m.Code.MAYBE, text="something else")
    for message, text in ((named, named.text), (ugly, ""), (other, ""), (m.TopologyGet(), "")):
        with pytest.raises(ForeignCluster) as caught:
            CODEC.decode(foreign.encode(message))
        assert str(caught.value) == (text or "a frame of a cluster of another name")


@given(st.lists(st.binary(max_size=200), max_size=3))
def test_any_bytes_are_a_message_or_a_peers_error(frames: list[bytes]) -> None:
    harmless(frames)
    if frames:
        harmless([CODEC.prefix + frames[0], *frames[1:]])


@given(st.sampled_from(SAMPLES), st.data())
def test_a_damaged_frame_is_a_message_or_a_peers_error(
    message: m.Message, data: st.DataObject
) -> None:
    frames = encoded(message)
    first = bytearray(frames[0])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(first) - 1))
        first[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        if not first:
            break
    harmless([bytes(first), *frames[1:]])
    harmless([bytes(first[: data.draw(st.integers(0, len(first)))]), *frames[1:]])


anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers(-(1 << 63), U64_MAX)
    | st.binary(max_size=20) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)  # fmt: skip


@given(st.sampled_from(SAMPLES), st.data())
def test_a_field_of_any_other_type_is_a_peers_error_or_fits(
    message: m.Message, data: st.DataObject
) -> None:
    items = items_of(message)
    place: list[Any] = items
    at = data.draw(st.integers(0, len(items) - 1))
    while type(place[at]) is list and place[at] and data.draw(st.booleans()):
        place = place[at]
        at = data.draw(st.integers(0, len(place) - 1))
    place[at] = data.draw(anything)
    harmless([frame_of(items), *encoded(message)[1:]])


@pytest.mark.parametrize(
    ("frames", "error"),
    [
        ([], MalformedMessage),
        ([b""], MalformedMessage),
        ([b"dc"], MalformedMessage),
        ([b"GET / HTTP/1.1\r\n\r\n"], MalformedMessage),
        ([CODEC.prefix], MalformedMessage),
        ([b"dc\x02" + CODEC.prefix[3:] + b"\x90"], UnsupportedVersion),
        ([wire.cluster_prefix("other") + b"\x90"], ForeignCluster),
        ([CODEC.prefix + b"\x90"], MalformedMessage),
        ([CODEC.prefix + b"\xc0"], MalformedMessage),
        ([frame_of([99, 1, 1, 0, 0, 0, 0])], MalformedMessage),
        ([frame_of([10, 1, 1, 0, 0, 0, -1])], MalformedMessage),
        ([frame_of([10, 1, 1, 0, 0, 0, 1.0])], MalformedMessage),
        ([frame_of([10, 1, 1, 0, 0, 0, True])], MalformedMessage),
        ([frame_of([10, 1, 1, 0, 0, 0])], MalformedMessage),
        ([frame_of([10, 1, 1, 0, 0, 0, 0]) + b"\xc0"], MalformedMessage),
        ([frame_of([10, 1, 1, 0, 0, 0, {1: 2}])], MalformedMessage),
        ([frame_of([10, 1, 1, 0, 0, 0, msgpack.ExtType(5, b"x")])], MalformedMessage),
        ([frame_of([10, 1, 1, 0, 0, 0, msgpack.Timestamp(1, 2)])], MalformedMessage),
        ([CODEC.prefix + b"x" * FRAME_BYTES_MAX], MalformedMessage),
        ([*encoded(m.Get(key=b"k")), b"small"], MalformedMessage),
        ([*encoded(m.Get(key=b"k")), *[LARGE] * (EXTRA_FRAMES_MAX + 1)], MalformedMessage),
        ([*encoded(m.Get(key=b"k")), b"x" * (VALUE_BYTES_MAX + 1)], MalformedMessage),
    ],
)
def test_what_is_no_message_has_its_own_error(frames: list[bytes], error: type[PeerError]) -> None:
    with pytest.raises(error):
        CODEC.decode(frames)


BAD_KIND: Any = 4
HIT = bytes([m.Status.HIT])
OUT_OF_RANGE: list[m.Message] = [
    m.Get(key=b""),
    m.Get(key=b"k" * 513),
    m.GetMany(keys=(b"k",) * 4_097),
    m.Scan(slots=(16_384,), prefix=b""),
    m.Write(op=m.Op.PUT, key=b"k", w=256),
    m.Write(op=m.Op.PUT, key=b"k", ttl_ms=-1),
    m.GetManyReply(first=0, statuses=HIT, values=(), last=True),
    m.GetManyReply(first=0, statuses=b"\x04", values=(), last=True),
    m.WriteMany(op=m.Op.INCR, items=()),
    m.WriteManyReply(outcomes=b"\x04", stamp=0),
    m.Pull(origins=((1, 2),), slots=(s.SlotAsk(0, NO_VERSION, (1, 5), 0),)),
    m.Pull(origins=((1, 2),), slots=(s.SlotAsk(0, NO_VERSION, (0,), 0),)),
    m.PullReply(origins=(), slots=(s.SlotAnswer(0, True, (0, 5), 0, (), ()),), records=()),
    m.PullReply(origins=(), slots=(s.SlotAnswer(0, True, (), 0, (), (0, 1, 2)),), records=()),
    m.PullReply(origins=((1, 2),), slots=(s.SlotAnswer(0, True, (), 0, (), (0, 1)),), records=()),
    m.PullReply(
        origins=((1, 2),), slots=(s.SlotAnswer(0, True, (), 0, (), (0, 2, 2)),), records=()
    ),
    m.Compare(slots=(1, 2), digests=(1,)),
    m.Replicate(seq=1, records=(RECORDS[0]._replace(key=b""),)),
    m.Replicate(seq=1, records=(RECORDS[0]._replace(kind=BAD_KIND),)),
    m.Replicate(seq=1, records=(RECORDS[0]._replace(kind=Kind.TOMBSTONE),)),
    m.Replicate(seq=1, records=(RECORDS[0]._replace(version=Version(1, 2, -3)),)),
    m.Replicate(seq=1, records=(RECORDS[0]._replace(expires_at_ms=(1 << 47) + 1),)),
    m.Replicate(seq=1, records=(RECORDS[0]._replace(prev=-2),)),
    m.Ack(seq=1, rumors=(MEMBER._replace(name=""),)),
    m.Ack(seq=1, rumors=(MEMBER._replace(name="two\nlines"),)),
    m.Ack(seq=1, rumors=(MEMBER._replace(name="\x1b[2J"),)),
    m.Ack(seq=1, rumors=(MEMBER._replace(request="no port"),)),
    m.Ack(seq=1, rumors=(MEMBER._replace(request="host:65536"),)),
    m.Ack(seq=1, rumors=(MEMBER._replace(gossip="host:0"),)),
    m.Ack(seq=1, rumors=(MEMBER._replace(gossip="ho st:1"),)),
    m.Ack(seq=1, rumors=(MEMBER._replace(weight=0.0),)),
    m.Ack(seq=1, rumors=(MEMBER._replace(weight=float("nan")),)),
    m.Ack(seq=1, rumors=(MEMBER._replace(weight=float("inf")),)),
]


@pytest.mark.parametrize("message", OUT_OF_RANGE, ids=repr)
def test_a_field_out_of_its_range_is_malformed(message: m.Message) -> None:
    with pytest.raises(MalformedMessage):
        CODEC.decode(encoded(message))


def test_a_weight_that_another_language_wrote_as_an_integer_is_a_weight() -> None:
    decoded = CODEC.decode(encoded(m.Ack(seq=1, rumors=(MEMBER._replace(weight=2),))))[1]
    assert isinstance(decoded, m.Ack)
    assert type(decoded.rumors[0].weight) is float


def test_a_value_frame_is_taken_once() -> None:
    """Else 4,096 records of one message could each count one frame of 16 MiB."""
    first, *behind = encoded(m.GetManyReply(first=0, statuses=HIT, values=(LARGE,), last=True))
    items = wire.unpack_items(first)
    items[HEADER_FIELDS + 1 : HEADER_FIELDS + 3] = [HIT * 2, [0, 0]]
    with pytest.raises(MalformedMessage):
        CODEC.decode([frame_of(items), *behind])


def peak_bytes(frame: bytes) -> int:
    tracemalloc.start()
    try:
        with pytest.raises(MalformedMessage):
            CODEC.decode([frame])
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


ARRAY32 = b"\xdd\x00\x01\x00\x00"
"An array that claims 65,536 items."


@pytest.mark.parametrize("length", [1_000, 1_032, 4_000, 60_000, FRAME_BYTES_MAX])
@pytest.mark.parametrize("claim", [ARRAY32, b"\xdc\x03\xff", b"\xdc\xff\xff", b"\x9f", b"\x91"])
def test_nested_claims_of_items_allocate_little(claim: bytes, length: int) -> None:
    """msgpack allocates at a header; unbounded, 5 KB of headers took 80 MB."""
    frame = (CODEC.prefix + claim * length)[:length]
    assert peak_bytes(frame) < 4_000_000


@pytest.mark.parametrize("filler", [b"\x90", b"\x91\x00", b"\x80", b"\xa0", b"\x00"])
def test_what_is_really_there_allocates_a_bounded_multiple(filler: bytes) -> None:
    block = b"\xdd" + (65_536).to_bytes(4, "big") + filler * 65_536
    frame = CODEC.prefix + b"\x93" + block
    assert peak_bytes((frame + block)[:FRAME_BYTES_MAX]) < 100 * FRAME_BYTES_MAX


# ------------------------------------------------------------------ the document


def test_the_protocol_document_lists_every_tag_and_field() -> None:
    document = (ROOT / "docs" / "protocol.md").read_text("utf-8")
    for tag, cls in m.WIRE.items():
        section = re.search(rf"^### {tag} {cls.__name__}\b(.*?)(?=^##|\Z)", document, re.M | re.S)
        assert section, f"### {tag} {cls.__name__} is missing in docs/protocol.md"
        documented = re.findall(r"^\| `(\w+)` \|", section[1], re.M)
        assert documented == [field.name for field in fields(cls)], f"fields of {cls.__name__}"


@pytest.mark.parametrize("kind", [m.Status, m.Op, m.Outcome, m.Code])
def test_the_protocol_document_lists_every_number(kind: Any) -> None:
    document = (ROOT / "docs" / "protocol.md").read_text("utf-8")
    for member in kind:
        assert re.search(rf"\b{int(member)} {member.name}\b", document), f"{kind.__name__} {member}"
