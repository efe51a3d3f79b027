"""Ways in which the frames of a valid message are made nearly right."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import msgpack

from dcc.wire import messages as m
from dcc.wire.codec import PREFIX_BYTES

CHANGES_DATA = (
    m.Write, m.WriteMany, m.Clear, m.SetReplicas, m.Replicate, m.FetchReply, m.PullReply,
)  # fmt: skip
"What a client may ask for, and what carries members' records and lists of keys."

Change = Callable[[Random, list[bytes]], list[bytes]]


def flip(rng: Random, frames: list[bytes]) -> list[bytes]:
    """Turn up to three bits, none of the prefix unless the frame ends there."""
    data = bytearray(frames[0])
    for _ in range(rng.randrange(1, 4)):
        if data:
            first = min(PREFIX_BYTES, len(data) - 1)
            data[rng.randrange(first, len(data))] ^= 1 << rng.randrange(8)
    return [bytes(data), *frames[1:]]


def cut(rng: Random, frames: list[bytes]) -> list[bytes]:
    """Leave an end of the message out."""
    return [frames[0][: rng.randrange(len(frames[0]) + 1)], *frames[1:]]


def shuffle(rng: Random, frames: list[bytes]) -> list[bytes]:
    """Leave frames out at the end, and put others there."""
    extra = rng.choice([[], [b""], [b"x" * 5_000], frames])
    return [*frames[: rng.randrange(1, len(frames) + 1)], *extra]


def alter(rng: Random, frames: list[bytes], odd: Callable[[], Any]) -> list[bytes]:
    """Put what `odd` draws into one place of the message."""
    try:
        items = msgpack.unpackb(frames[0][PREFIX_BYTES:])
    except (ValueError, msgpack.UnpackException):
        return frames
    if not isinstance(items, list) or not items:
        return frames
    place, index = items, rng.randrange(len(items))
    while isinstance(place[index], list) and place[index] and rng.random() < 0.8:
        place = place[index]
        index = rng.randrange(len(place))
    place[index] = odd()
    return [frames[0][:PREFIX_BYTES] + msgpack.packb(items), *frames[1:]]
