"""What strangers send: no exception, no broken invariant, and no data lost.

Valid frames of every kind of message are mutated, in their bytes and in their fields, and given
to a node of a cluster that holds data, as they would come from a client's connection. There is no
authentication: whoever speaks the protocol as a member is believed, so what carries records, or is
a client's write or clear, may well change data. Nothing else may.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from functools import partial
from random import Random
from typing import Any

import pytest

from dcc.errors import PeerError
from dcc.types import FREE_CLAIM, Settings, node_key
from dcc.wire import messages as m
from dcc.wire.codec import Codec
from tests.support.garbling import CHANGES_DATA, Change, alter, cut, flip, shuffle
from tests.support.wire_samples import SAMPLES
from tests.support.wired_cores import Cores

KEYS = [b"key-%d" % n for n in range(60)]
HOUR_MS = 3_600_000
ROUNDS, FRAMES_A_ROUND = 25, 40


def filled(*names: str) -> Cores:
    """Return a cluster in which every node holds every key."""
    cores = Cores(*names, replicas=len(names) - 1)
    cores.settle()
    for key in KEYS:
        cores.put(names[0], key, b"value of " + key, w=len(names))
    cores.run(0.5)
    assert kept(cores) == set(KEYS)
    return cores


def kept(cores: Cores) -> set[bytes]:
    """Return the keys whose value some node still holds."""
    return {key for key in KEYS for name in cores.nodes if cores.held(name, key)}


class Garbler:
    """Makes frames that are nearly right for one cluster."""

    def __init__(self, cores: Cores, seed: int) -> None:
        self.rng, self.cores = Random(seed), cores
        self.a, self.b = cores["a"], cores["b"]

    def frames(self) -> list[bytes]:
        """Return one mutated message."""
        rng = self.rng
        sender, boot = rng.choice(
            [(5, 6), (self.b.key, self.b.boot), (self.a.key, self.a.boot), (rng.getrandbits(64), 1)]
        )
        codec = Codec("dcc", sender=sender, boot=boot)
        at = rng.choice([0, self.cores.ms, self.cores.ms + HOUR_MS])
        frames = codec.encode(
            self.fitting(rng.choice(SAMPLES)), request=rng.randrange(20), at=at,
            hops=rng.randrange(2), epoch=rng.choice([0, self.a.held.view.epoch]),
        )  # fmt: skip
        alter_here = partial(alter, odd=self.odd)
        changes: list[Change] = [flip, cut, alter_here, alter_here, shuffle]
        for _ in range(rng.randrange(3)):
            frames = rng.choice(changes)(rng, frames)
        return frames

    def fitting(self, message: m.Message) -> m.Message:
        """Return a sample with members, settings and versions of this very cluster."""
        rows = tuple(self.b.membership.members.values())
        known: dict[str, Any] = {
            "members": rows, "rumors": rows, "settings": self.settings(),
            "key": self.rng.choice(KEYS), "target": self.rng.choice([self.a.key, self.b.key]),
        }  # fmt: skip
        return replace(
            message, **{f.name: known[f.name] for f in fields(message) if f.name in known}
        )

    def settings(self) -> Settings:
        held = self.a.membership.settings
        ahead = (self.cores.ms + HOUR_MS) << 16
        return self.rng.choice(
            [
                held,
                held._replace(cleared=ahead),
                held._replace(cleared=(1 << 64) - 1),
                held._replace(replicas=1, replicas_stamp=ahead),
                held._replace(replicas=0, replicas_stamp=(1 << 64) - 1),
            ]
        )

    def odd(self) -> Any:
        rng, ms = self.rng, self.cores.ms
        return rng.choice(
            [
                0, 1, -1, 255, 16_383, 16_384, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, None, True,
                b"", b"x" * 600, "", "a", "\0", "h:1", [], [0], [[]], 1.5, float("nan"), -1e300,
                ms, ms << 16, (ms + HOUR_MS) << 16, self.a.key, self.b.key, self.a.boot,
                rng.choice(KEYS), rng.getrandbits(64),
            ]
        )  # fmt: skip


def decoded(frames: list[bytes]) -> m.Message | None:
    try:
        return Codec("dcc", sender=1, boot=1).decode(frames)[1]
    except PeerError:
        return None


def rounds(garbler: Garbler, *, harmless: bool) -> Iterator[int]:
    """Feed node a, round by round, with what may not (or may) change data."""
    cores, rng = garbler.cores, garbler.rng
    for number in range(ROUNDS):
        for _ in range(FRAMES_A_ROUND):
            frames = garbler.frames()
            if isinstance(decoded(frames), CHANGES_DATA) == harmless:
                continue
            if rng.random() < 0.2:
                topic = rng.choice([b"\xff" * 8, b"", frames[0][:8]])
                cores.carry("a", cores["a"].receive_gossip([topic, *frames], cores.now))
            else:
                cores.feed("a", frames, route=rng.choice([b"\0gar", b"\0bage"]))
        for _ in range(5):
            cores.step()
        cores.check()
        yield number


@pytest.mark.parametrize("seed", range(3))
def test_garbage_that_is_no_write_and_no_clear_loses_no_data(seed: int) -> None:
    cores = filled("a", "b")
    for number in rounds(Garbler(cores, seed), harmless=True):
        assert kept(cores) == set(KEYS), f"round {number}"


@pytest.mark.parametrize("seed", range(3))
def test_garbage_of_any_kind_breaks_no_invariant(seed: int) -> None:
    cores = filled("a", "b")
    for _ in rounds(Garbler(cores, seed), harmless=False):
        assert cores["a"].membership.me.name == "a"


@pytest.mark.parametrize("carrier", [m.Rumors, m.PushPull, m.PushPullReply, m.SettingsUpdate])
@pytest.mark.parametrize("ahead_ms", [1_000, None])
def test_settings_from_the_future_are_not_believed(
    carrier: type[Any], ahead_ms: int | None
) -> None:
    cores = filled("a", "b")
    b = cores["b"]
    held = b.membership.settings
    stamp = (1 << 64) - 1 if ahead_ms is None else (cores.ms + ahead_ms) << 16
    forged = Settings(0, stamp, stamp)
    rows = tuple(b.membership.members.values())
    parts = {
        "rumors": (), "members": rows, "joining": False, "settings": forged, "clock": FREE_CLAIM
    }  # fmt: skip
    message = carrier(**{f.name: parts[f.name] for f in fields(carrier)})
    frames = b.codec.encode(message, epoch=b.held.view.epoch, request=3, at=cores.ms)
    cores.feed("a", frames)
    cores.run(0.5)
    assert kept(cores) == set(KEYS)
    assert cores["a"].membership.settings == held
    assert cores["a"].counters.dropped["clock_skew"] > 0
    cores.put("a", KEYS[0], b"new", w=2)
    cores.run(0.2)
    assert cores.held("a", KEYS[0]) == cores.held("b", KEYS[0]) == b"new"


def test_a_node_that_joins_takes_no_settings_from_the_future() -> None:
    cores = filled("a", "b")
    cores.stopped = {"a", "b"}
    late = cores.add("c")
    a = cores["a"]
    forged = a.membership.settings._replace(cleared=(cores.ms + HOUR_MS) << 16)
    reply = m.PushPullReply(members=tuple(a.membership.members.values()), settings=forged)
    cores.feed("c", a.codec.encode(reply, request=1, at=cores.ms), route=b"")
    assert late.membership.joined
    assert late.membership.settings == a.membership.settings
    cores.stopped = set()
    cores.settle()
    assert node_key("c") in cores["a"].held.view.alive
    assert kept(cores) == set(KEYS)
