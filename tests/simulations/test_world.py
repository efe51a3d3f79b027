"""The world itself: time, clocks and a network that behaves as TCP and PUB/SUB do.

The core here is a stand-in that writes down what it gets: what is tested is the world around it.
"""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcc.effects import Connect, Effect, Publish, Send
from dcc.types import TOPIC_ALL, Boot, Identity, Now, topic_of
from dcc.units import MILLISECOND, NEVER, SECOND
from simulations.clocks import ProcessClock
from simulations.faults import ClockStep, Loss, Partition, Pause, Restart, mangle
from simulations.network import REQUEST, LinkSettings
from simulations.processes import NodeProcess
from simulations.scenario import Scenario
from simulations.stage import Stage
from simulations.world import World


class Notebook:
    """A core that does nothing but write down what happened to it."""

    def __init__(self, node: NodeProcess, boot: Boot, rng: Random, now: Now) -> None:
        self.node, self.boot = node, boot
        self.got: list[bytes] = []
        self.gossip: list[bytes] = []
        self.lost: list[bytes] = []
        self.wake = NEVER
        self.woken: list[int] = []
        self.left = False

    def start(self, now: Now) -> list[Effect]:
        others = [one for one in self.node.world.nodes.values() if one is not self.node]
        return [Connect(one.key, one.request, one.gossip) for one in others]

    def serve(self, route: bytes, frame: bytes, now: Now) -> bytes | None:
        return None

    def receive(
        self, route: bytes, frames: list[bytes], now: Now, _who: Identity | None = None
    ) -> list[Effect]:
        self.got.append(frames[0])
        return []

    def receive_gossip(self, frames: list[bytes], now: Now) -> list[Effect]:
        self.gossip.append(frames[1])
        return []

    def undeliverable(self, to: int | str, frames: list[bytes], now: Now) -> list[Effect]:
        self.lost.append(frames[0])
        return []

    def tick(self, now: Now) -> list[Effect]:
        self.woken.append(now.mono)
        self.wake = NEVER
        return []

    def wake_at(self) -> int:
        return self.wake

    def leave(self, now: Now) -> list[Effect]:
        self.left = True
        return []

    def check(self) -> None:
        """There is nothing to assert."""


def pair(
    seed: int = 1, links: LinkSettings | None = None
) -> tuple[World, NodeProcess, NodeProcess]:
    world = World(seed, Notebook, links=links)
    a, b = world.add_node("n0"), world.add_node("n1")
    for name in ("n0", "n1"):
        world.start(name)
    world.run(10 * SECOND)
    return world, a, b


def notes(node: NodeProcess) -> Notebook:
    core = node.core
    assert isinstance(core, Notebook)
    return core


def send(source: NodeProcess, target: NodeProcess, *texts: bytes) -> None:
    source.carry_out([Send(target.key, [text]) for text in texts])


def numbered(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


def test_requests_arrive_once_and_in_order_however_bad_the_link() -> None:
    world, a, b = pair(links=LinkSettings(loss_permille=300, spike_permille=300))
    send(a, b, *numbered(200))
    world.run(world.now_ns + 60 * SECOND)
    assert notes(b).got == numbered(200)


def test_gossip_reaches_only_the_topic_and_may_get_lost_or_doubled() -> None:
    world, a, b = pair(links=LinkSettings(loss_permille=300, duplicate_permille=300))
    a.carry_out([Publish(topic_of(b.key), text) for text in numbered(200)])
    a.carry_out([Publish(topic_of(a.key), b"not for b")])
    world.run(world.now_ns + SECOND)
    got = notes(b).gossip
    assert set(got) < set(numbered(200)), "some were lost"
    assert len(set(got)) < len(got), "some came twice"
    a.carry_out([Publish(TOPIC_ALL, b"all")] * 20)
    world.run(world.now_ns + SECOND)
    assert b"all" in notes(b).gossip


def test_a_short_cut_delays_and_a_long_one_breaks_the_connection() -> None:
    world, a, b = pair()
    world.network.cut([("n0", "n1")], [REQUEST])
    send(a, b, b"held")
    world.run(world.now_ns + SECOND)
    assert notes(b).got == []
    world.network.mend([("n0", "n1")], [REQUEST])
    world.run(world.now_ns + SECOND)
    assert notes(b).got == [b"held"]

    world.network.cut([("n0", "n1")], [REQUEST])
    send(a, b, b"lost")
    world.run(world.now_ns + 10 * SECOND)
    send(a, b, b"refused")
    world.network.mend([("n0", "n1")], [REQUEST])
    world.run(world.now_ns + 20 * SECOND)
    send(a, b, b"again")
    world.run(world.now_ns + SECOND)
    assert notes(b).got == [b"held", b"again"]
    assert notes(a).lost == [b"refused"]


def test_cuts_add_up_and_are_mended_one_by_one() -> None:
    world, a, b = pair()
    for _ in range(2):
        world.network.cut([("n0", "n1")], [REQUEST])
    world.network.mend([("n0", "n1")], [REQUEST])
    send(a, b, b"x")
    world.run(world.now_ns + SECOND)
    assert notes(b).got == []
    world.network.mend_all()
    world.run(world.now_ns + SECOND)
    assert notes(b).got == [b"x"]


def test_what_a_stopped_process_was_sent_waits_for_it() -> None:
    world, a, b = pair()
    world.schedule((Pause(at_ns=world.now_ns, lasts_ns=2 * SECOND, node="n1"),))
    world.run(world.now_ns)
    send(a, b, *numbered(5))
    world.run(world.now_ns + SECOND)
    assert notes(b).got == []
    world.run(world.now_ns + 2 * SECOND)
    assert notes(b).got == numbered(5)


def test_a_restarted_process_remembers_nothing_and_gets_nothing_meant_for_its_past() -> None:
    world, a, b = pair()
    first = notes(b)
    world.schedule((Restart(at_ns=world.now_ns, lasts_ns=MILLISECOND // 10, node="n1"),))
    send(a, b, b"old")
    world.run(world.now_ns + SECOND)
    assert notes(b) is not first
    assert notes(b).boot > first.boot
    assert notes(b).got == []
    assert [loss.node for loss in world.losses] == ["n1"]


def test_a_timer_fires_on_the_nodes_own_clock() -> None:
    world, a, _ = pair()
    core = notes(a)
    due = a.now().mono + 123_456_789
    core.wake = due
    send(a, a, b"unknown peer, so this turn ends at once")
    world.run(world.now_ns + SECOND)
    assert core.woken
    assert due <= core.woken[0] < due + 2


def test_time_never_runs_backwards() -> None:
    with Stage(Scenario(seed=1, nodes=1)) as stage:
        stage.play(SECOND)
        with pytest.raises(ValueError, match="time runs forwards"):
            stage.play(-1)
        assert stage.world.now_ns == SECOND


def test_faults_end_when_the_world_heals() -> None:
    world, _, b = pair()
    world.schedule(
        (
            Pause(at_ns=world.now_ns, lasts_ns=100 * SECOND, node="n1"),
            Loss(at_ns=world.now_ns, lasts_ns=100 * SECOND, node="n0", permille=1000),
            Partition(at_ns=world.now_ns, lasts_ns=100 * SECOND, left=("n0",), right=("n1",)),
            ClockStep(at_ns=world.now_ns + SECOND, node="n0", by_ns=1),
        )
    )
    world.run(world.now_ns)
    assert b.paused
    world.heal(())
    world.run(world.now_ns + 2 * SECOND)
    assert not b.paused
    assert not world.network.extra_loss
    assert world.counts["ClockStep"] == 0, "none begins any more"


def test_the_same_seed_gives_the_same_trace_and_another_seed_another() -> None:
    def digest(seed: int) -> str:
        world, a, b = pair(seed, LinkSettings(loss_permille=100))
        send(a, b, *numbered(50))
        world.run(world.now_ns + 10 * SECOND)
        return world.digest()

    assert digest(1) == digest(1)
    assert digest(1) != digest(2)


@given(
    st.integers(0, 10**15),
    st.integers(-400_000, 400_000),
    st.integers(0, 10**12),
    st.integers(1, 10**12),
)
def test_a_clock_says_when_it_will_show_a_time(
    mono: int, drift: int, changed_at: int, wait: int
) -> None:
    clock = ProcessClock(mono_ns=mono, offset_ns=0, drift_ppm=drift)
    before = clock.read(changed_at)
    clock.set_drift(-drift, changed_at)
    assert clock.read(changed_at) == before, "no clock jumps when its speed changes"
    at = clock.when(before.mono + wait)
    assert clock.read(at).mono >= before.mono + wait > clock.read(at - 1).mono


def test_a_step_moves_the_wall_clock_alone() -> None:
    clock = ProcessClock(mono_ns=5, offset_ns=0, drift_ppm=0)
    before = clock.read(7)
    clock.step_wall(-3)
    assert clock.read(7) == Now(before.mono, before.wall - 3)


@given(st.integers(0, 2**32))
def test_no_decoder_accepts_mangled_frames(seed: int) -> None:
    from dcc.errors import PeerError
    from dcc.wire.codec import Codec
    from dcc.wire.messages import Get

    codec = Codec("dcc", sender=1, boot=2)
    frames = mangle(Random(seed), codec.encode(Get(key=b"k")))
    try:
        codec.decode(frames)
    except PeerError:
        return
    raise AssertionError("accepted")
