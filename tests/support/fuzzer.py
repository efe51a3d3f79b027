"""Frames that are nearly right: recorded messages, changed in their bytes and in their fields.

The corpus is `tests/golden/wire.txt`, which has every message once, and a sample of each kind with
the members, keys and times of the very node that is fuzzed.
"""

from __future__ import annotations

from dataclasses import fields, replace
from functools import partial
from random import Random
from typing import Any

from dcc.errors import PeerError
from dcc.node.outgoing import MEMBERSHIP
from dcc.types import FREE_CLAIM, NOT_HEARD, Member, Settings
from dcc.wire import messages as m
from dcc.wire.codec import PREFIX_BYTES, Codec
from tests.support.garbling import CHANGES_DATA, Change, alter, cut, flip, shuffle
from tests.support.paths import GOLDEN
from tests.support.wire_samples import SAMPLES

RECORDED = GOLDEN / "wire.txt"


def recorded(cluster: str = "dcc") -> list[list[bytes]]:
    """Return the recorded messages, as frames of the cluster called `cluster`."""
    prefix = Codec(cluster, sender=0, boot=0).prefix
    found = []
    for line in RECORDED.read_text().splitlines():
        if line and not line.startswith("#"):
            _, _, head, *more = line.split()
            sizes = [int(size) for size in more]
            found.append(
                [prefix + bytes.fromhex(head)[PREFIX_BYTES:], *[b"v" * size for size in sizes]]
            )
    return found


class Fuzzer:
    """Draws frames for one node from a seed."""

    def __init__(
        self, seed: int, *, rows: tuple[Member, ...], settings: Settings, epoch: int, now_ms: int
    ) -> None:
        self.rng = Random(seed)
        self.rows, self.settings, self.epoch, self.now_ms = rows, settings, epoch, now_ms
        self._recorded = recorded()

    def frames(self) -> list[bytes]:
        """Return one message, mostly changed."""
        rng = self.rng
        if rng.random() < 0.2:
            frames = list(rng.choice(self._recorded))
        else:
            row = rng.choice(self.rows)
            names = [(5, 6), (row.key, row.boot), (rng.getrandbits(64), 1)]
            sender, boot = rng.choice(names)
            frames = Codec("dcc", sender=sender, boot=boot).encode(
                self._fitting(rng.choice(SAMPLES)), request=rng.randrange(20),
                hops=rng.randrange(2), epoch=rng.choice([0, self.epoch]),
                at=rng.choice([0, self.now_ms, self.now_ms + 3_600_000]),
            )  # fmt: skip
        changes: list[Change] = [flip, cut, partial(alter, odd=self._odd), shuffle]
        for _ in range(rng.randrange(3)):
            frames = rng.choice(changes)(rng, frames)
        return frames

    def harmless(self) -> list[list[bytes]]:
        """Return some messages that change no data where they are believed: there are no keys yet.

        So none is a write, carries records of members, says that all was cleared, or tells another
        time in a member's name: time is what members say it is.
        """
        found = [self.frames() for _ in range(100)]
        return [frames for frames in found if frames and not self._changes_data(frames)]

    def _changes_data(self, frames: list[bytes]) -> bool:
        try:
            header, message = Codec("dcc", sender=1, boot=1).decode(list(frames))
        except PeerError:
            return False
        settings = getattr(message, "settings", self.settings)
        clock = getattr(message, "clock", FREE_CLAIM), getattr(message, "heard_ms", NOT_HEARD)
        tells_time = isinstance(message, MEMBERSHIP) and (
            header.at not in (0, self.now_ms) or clock != (FREE_CLAIM, NOT_HEARD)
        )
        return isinstance(message, CHANGES_DATA) or settings != self.settings or tells_time

    def _fitting(self, message: m.Message) -> m.Message:
        known: dict[str, Any] = {
            "members": self.rows, "rumors": self.rows, "settings": self.settings,
            "target": self.rng.choice(self.rows).key, "clock": FREE_CLAIM, "heard_ms": NOT_HEARD,
        }  # fmt: skip
        return replace(
            message, **{f.name: known[f.name] for f in fields(message) if f.name in known}
        )

    def _odd(self) -> Any:
        rng, ms = self.rng, self.now_ms
        row = rng.choice(self.rows)
        return rng.choice(
            [
                0, 1, -1, 255, 16_383, 16_384, (1 << 63) - 1, (1 << 64) - 1, None, True, b"",
                b"x" * 600, "", "a", "\0", "h:1", [], [0], [[]], 1.5, float("nan"), ms, ms << 16,
                (ms + 3_600_000) << 16, row.key, row.boot, rng.getrandbits(64),
            ]
        )  # fmt: skip
