"""Whatever the codec accepts, it encodes to what means the same, and then to the same bytes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from dcc.errors import PeerError
from dcc.types import Settings
from dcc.wire.codec import Codec
from tests.support.fuzzer import Fuzzer, recorded
from tests.support.wire_samples import MEMBER

MS = 1_700_000_000_000
CODEC = Codec("dcc", sender=1, boot=1)


def again(frames: list[bytes]) -> tuple[object, list[bytes]] | None:
    """Return what `frames` mean, and their sender's encoding of it; None if they mean nothing."""
    try:
        header, message = CODEC.decode(list(frames))
    except PeerError:
        return None
    sender = Codec("dcc", sender=header.sender, boot=header.boot)
    encoded = sender.encode(
        message, epoch=header.epoch, hops=header.hops, request=header.request, at=header.at
    )
    return (header, message), encoded


def test_recorded_messages_are_encoded_to_themselves() -> None:
    for frames in recorded():
        understood = again(frames)
        assert understood is not None
        assert understood[1] == frames


@settings(max_examples=300)
@given(st.integers(0, (1 << 32) - 1))
def test_what_is_accepted_is_encoded_to_what_means_the_same(seed: int) -> None:
    fuzzer = Fuzzer(seed, rows=(MEMBER,), settings=Settings(1, 1, 0), epoch=7, now_ms=MS)
    for _ in range(20):
        first = again(fuzzer.frames())
        if first is not None:
            second = again(first[1])
            assert second is not None, "what one sends, the others can read"
            assert second[1] == first[1], "and would send as it is"
