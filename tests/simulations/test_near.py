"""Near caches in the simulated world: under every fault no copy is older than its bound."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from dcc.client.near import BOUND_MS, Near
from dcc.types import Stamp
from dcc.units import MILLISECOND, SECOND
from dcc.wire.messages import Op, Write
from simulations import faults as f
from simulations.checkers import nearness
from simulations.history import Violation
from simulations.nearby import Ledger, Nearby
from simulations.network import GOSSIP, REQUEST, LinkSettings
from simulations.scenario import Scenario
from simulations.stage import Stage
from tests.support.planting import first_broken

SLACK_MS = 50
"Half of the longest round trip here: cluster time is no more exact."
KEYS = [b"k%d" % number for number in range(12)]
LOSSY = LinkSettings(delay_ns=MILLISECOND, jitter_ns=15 * MILLISECOND, loss_permille=100)
LASTS_NS = 30 * SECOND


def cut(left: str, right: str, at_s: float, lasts_s: float, planes: tuple[str, ...]) -> f.Fault:
    return f.Partition(
        at_ns=round(at_s * SECOND), lasts_ns=round(lasts_s * SECOND), left=(left,), right=(right,),
        planes=planes,
    )  # fmt: skip


def troubles(start_ns: int) -> tuple[f.Fault, ...]:
    """Return cuts between ears and nodes and among nodes, standstills, a restart, a join."""
    at = start_ns / SECOND
    return (
        cut("ears-c0", "n0", at + 2, 1.5, (GOSSIP,)),
        cut("ears-c0", "n1", at + 5, 0.6, (GOSSIP, REQUEST)),
        f.Pause(at_ns=start_ns + 8 * SECOND, lasts_ns=2 * SECOND, node="n2"),
        cut("n0", "n1", at + 12, 4, (GOSSIP, REQUEST)),
        f.Restart(at_ns=start_ns + 18 * SECOND, lasts_ns=SECOND // 5, node="n1"),
        f.Delay(at_ns=start_ns + 20 * SECOND, lasts_ns=3 * SECOND, node="n0", extra_ns=SECOND // 2),
        f.Join(at_ns=start_ns + 24 * SECOND, node="n3"),
    )


def played(seed: int, links: LinkSettings = LOSSY) -> tuple[list[Violation], Nearby]:
    """Let two clients write while one with a near cache reads and writes, in all such trouble."""
    ledger = Ledger()
    scenario = Scenario(seed=seed, nodes=3, replicas=1, links=links)
    with Stage(scenario, ledger.make) as stage:
        ledger.world = stage.world
        stage.warm_up()
        near = Nearby(stage, "c0")
        rng, end_ns = Random(f"{seed}/near"), stage.world.now_ns + LASTS_NS
        stage.world.schedule(troubles(stage.world.now_ns))

        def write(name: str) -> None:
            client, key = stage.client(name), KEYS[int(rng.random() * len(KEYS))]
            if not client.busy and stage.world.now_ns < end_ns:
                value = b"%d" % stage.world.now_ns
                put = Write(op=Op.PUT, key=key, value=value, seen=client.core.seen)
                client.call(put, lambda outcome, error: None)
            if name != "c0":
                again_ns = int(rng.random() * 400) * MILLISECOND
                stage.world.at(stage.world.now_ns + again_ns, write, name)

        def read(_: None) -> None:
            near.get(KEYS[int(rng.random() * len(KEYS))])
            if rng.random() < 0.01:
                write("c0")
            stage.world.at(stage.world.now_ns + 3 * MILLISECOND, read, None)

        stage.world.at(stage.world.now_ns, read, None)
        for name in ("w0", "w1"):
            stage.world.at(stage.world.now_ns, write, name)
        stage.play(LASTS_NS)
        bound_ns = (BOUND_MS + SLACK_MS) * MILLISECOND
        return nearness.check(near.hits, ledger.held, bound_ns), near


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_copy_is_older_than_its_bound(seed: int) -> None:
    violations, near = played(seed)
    assert violations == []
    assert len(near.hits) > 500
    assert near.near.invalidations > 20
    assert near.near.gaps > 20


def joined(seed: int) -> tuple[list[Violation], Nearby]:
    """Let two nodes join one while a client writes each key and another one reads near.

    Nobody is cut off, so whoever leads has what was written: a copy counts as old by what any node
    holds.
    """
    ledger = Ledger()
    scenario = Scenario(seed=seed, nodes=1, replicas=0)
    with Stage(scenario, ledger.make) as stage:
        ledger.world = stage.world
        stage.warm_up()
        near, rng = Nearby(stage, "c0"), Random(f"{seed}/joined")

        def write(number: int) -> None:
            client, key = stage.client("w0"), KEYS[number % len(KEYS)]
            if not client.busy:
                put = Write(op=Op.PUT, key=key, value=b"%d" % number, seen=client.core.seen)
                client.call(put, lambda outcome, error: None)
            stage.world.at(stage.world.now_ns + 10 * MILLISECOND, write, number + 1)

        def read(number: int) -> None:
            near.get(KEYS[number % len(KEYS)])
            stage.world.at(stage.world.now_ns + 3 * MILLISECOND, read, number + 1)

        stage.world.at(stage.world.now_ns, write, 0)
        stage.world.at(stage.world.now_ns, read, 0)
        stage.play(3 * SECOND + int(rng.random() * 2 * SECOND))
        at_ns = stage.world.now_ns
        stage.world.schedule(tuple(f.Join(at_ns=at_ns, node=name) for name in ("n1", "n2")))
        stage.play(6 * SECOND)
        anybody = (0, 0)
        held = [one._replace(origin=anybody) for one in ledger.held]
        hits = [one._replace(origin=anybody) for one in near.hits]
        return nearness.check(hits, held, (BOUND_MS + SLACK_MS) * MILLISECOND), near


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_while_nodes_join_no_copy_is_older_than_what_anybody_had(seed: int) -> None:
    violations, near = joined(seed)
    assert violations == []
    assert len(near.hits) > 500
    assert near.hits[-1].at_ns > near.client.world.now_ns - SECOND, "it keeps copies again"


def test_without_loss_nearly_all_reads_of_what_nobody_changes_are_near() -> None:
    with Stage(Scenario(seed=1, nodes=3, replicas=1)) as stage:
        stage.warm_up()
        near = Nearby(stage, "c0")
        for key in KEYS:
            stage.put("w0", key, b"v")
        stage.play(3 * SECOND)
        for _ in range(1_000):
            near.get(KEYS[len(near.hits) % len(KEYS)])
            stage.play(5 * MILLISECOND)
        assert len(near.hits) > 950
        assert near.near.gaps == 0


# ------------------------------------------------------------------ planted bugs


def gaps_unnoticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever number comes, nothing is taken for missed."""
    hear: Any = Near.hear

    def mutant(self: Any, header: Any, told: Any, mono: int, now_ms: int) -> None:
        stream = self._streams.get(header.sender)
        if stream is not None and stream.expected >= 0:
            stream.expected = max(stream.expected, told.number)
        hear(self, header, told, mono, now_ms)

    monkeypatch.setattr(Near, "hear", mutant)


def silence_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that was heard once is good for ever."""
    hear: Any = Near.hear

    def mutant(self: Any, header: Any, told: Any, mono: int, now_ms: int) -> None:
        hear(self, header, told, mono, now_ms)
        self._streams[header.sender].good_until = mono + 3_600 * SECOND

    monkeypatch.setattr(Near, "hear", mutant)


def fills_unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a read brings is kept, whatever was told meanwhile."""
    fill: Any = Near.fill

    def mutant(self: Any, *args: Any) -> None:
        known, self._noticed._recent = self._noticed._recent, {}
        before, self._noticed._before = self._noticed._before, {}
        fill(self, *args)
        self._noticed._recent, self._noticed._before = known, before

    monkeypatch.setattr(Near, "fill", mutant)


def own_writes_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client's own write leaves its copy."""

    def mutant(self: Any, name: int, stamp: Stamp) -> None:
        """Do nothing."""

    monkeypatch.setattr(Near, "forget", mutant)


def epochs_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever view a node has, it is good for copies."""
    hear: Any = Near.hear

    def mutant(self: Any, header: Any, told: Any, mono: int, now_ms: int) -> None:
        hear(self, header._replace(epoch=0), told, mono, now_ms)

    monkeypatch.setattr(Near, "hear", mutant)
    monkeypatch.setattr(Near, "route", lambda self, epoch: None)


PLANTED: dict[Callable[[pytest.MonkeyPatch], None], str] = {
    gaps_unnoticed: nearness.BOUND,
    silence_ignored: nearness.BOUND,
    fills_unchecked: nearness.BOUND,
    own_writes_kept: nearness.OWN,
}


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_planted_bug_of_a_near_cache_is_caught(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    assert PLANTED[plant] in first_broken(lambda seed: played(seed)[0])


def test_a_near_cache_that_ignores_epochs_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    epochs_ignored(monkeypatch)
    assert nearness.BOUND in {one.promise for one in joined(1)[0]}
