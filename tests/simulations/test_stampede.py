"""Values are made once, whoever misses them: step by step, under faults, and with bugs planted."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from dcc.client.stampede import SUFFIX, Recipe, Stampede, lease_key
from dcc.errors import OperationTimeout
from dcc.units import MILLISECOND, NEVER, SECOND
from dcc.wire.messages import Get, Op, Write
from simulations.checkers import leases
from simulations.faults import Partition
from simulations.history import Violation
from simulations.makers import FactoryFailed, Maker, Making, patient
from simulations.network import LinkSettings
from simulations.scenario import Scenario
from simulations.stage import Stage
from tests.support.planting import first_broken

KEY = b"costly"
RECIPE = Recipe(ttl_ms=60_000, stale_ms=0, lease_ms=2_000, wait_ms=6_000, beta=0)
THREE = Scenario(seed=1, nodes=3, replicas=1)


def makers(stage: Stage, count: int, takes_ns: int = 300 * MILLISECOND, **how: Any) -> list[Maker]:
    return [Maker(stage, f"m{number}", lambda: takes_ns, **how) for number in range(count)]


def makings(*of: Maker) -> list[Making]:
    return sorted((one for maker in of for one in maker.makings), key=lambda one: one.began_ns)


def all_done(stage: Stage, them: list[Maker]) -> list[bytes | Exception]:
    for maker in them:
        patient(maker, stage)
    return [maker.outcomes[-1] for maker in them]


# ------------------------------------------------------------------ step by step


def test_of_many_that_miss_at_once_one_makes_the_value() -> None:
    with Stage(THREE) as stage:
        stage.warm_up()
        them = makers(stage, 20)
        for maker in them:
            maker.want(KEY, RECIPE)
        assert set(all_done(stage, them)) == {b"%s/1" % makings(*them)[0].who.encode()}
        assert len(makings(*them)) == 1
        assert stage.get("other", lease_key(KEY)).value == b"", "the lease is given back"


def test_who_dies_with_the_lease_is_followed_within_it() -> None:
    with Stage(THREE) as stage:
        stage.warm_up()
        first, *others = makers(stage, 5)
        first.want(KEY, RECIPE)
        stage.play(100 * MILLISECOND)
        for maker in others:
            maker.want(KEY, RECIPE)
        died_ns = stage.world.now_ns
        first.die()
        assert len(set(all_done(stage, others))) == 1
        lost, made = makings(first, *others)
        assert lost.ended_ns == NEVER
        assert made.began_ns - died_ns < RECIPE.lease_ms * MILLISECOND + 400 * MILLISECOND


def test_when_factories_raise_the_others_try_in_turn() -> None:
    left = [3]

    def fails() -> bool:
        left[0] -= 1
        return left[0] >= 0

    with Stage(THREE) as stage:
        stage.warm_up()
        them = makers(stage, 10, fails=fails)
        for maker in them:
            maker.want(KEY, RECIPE)
        outcomes = all_done(stage, them)
        assert sum(isinstance(one, FactoryFailed) for one in outcomes) == 3
        assert sum(isinstance(one, bytes) for one in outcomes) == 7
        made = makings(*them)
        assert len(made) == 4
        assert all(b.began_ns >= a.ended_ns for a, b in pairwise(made))


def test_who_waits_gives_up_after_its_time() -> None:
    with Stage(THREE) as stage:
        stage.warm_up()
        slow, waiting = makers(stage, 2, takes_ns=8 * SECOND)
        recipe = RECIPE._replace(lease_ms=20_000, wait_ms=1_000)
        slow.want(KEY, recipe)
        stage.play(100 * MILLISECOND)
        begun_ns = stage.world.now_ns
        waiting.want(KEY, recipe)
        assert isinstance(all_done(stage, [waiting])[0], OperationTimeout)
        assert SECOND <= stage.world.now_ns - begun_ns < 1_500 * MILLISECOND
        assert waiting.makings == []


def test_a_stale_value_is_handed_out_while_one_makes_it_anew() -> None:
    recipe = RECIPE._replace(ttl_ms=1_000, stale_ms=30_000)
    with Stage(THREE) as stage:
        stage.warm_up()
        first, *others = makers(stage, 5)
        first.want(KEY, recipe)
        old = all_done(stage, [first])[0]
        stage.play(2 * SECOND)
        for maker in (first, *others):
            maker.want(KEY, recipe)
        outcomes = all_done(stage, [first, *others])
        assert outcomes.count(old) == 4
        assert len(makings(first, *others)) == 2
        first.want(KEY, recipe)
        assert all_done(stage, [first])[0] not in (old, None)
        assert len(makings(first, *others)) == 2


def test_a_value_is_made_anew_early_by_chance_and_by_one() -> None:
    recipe = RECIPE._replace(ttl_ms=10_000, beta=3.0)
    with Stage(THREE) as stage:
        stage.warm_up()
        (maker,) = makers(stage, 1, takes_ns=SECOND)
        maker.want(KEY, recipe)
        all_done(stage, [maker])
        written_ns = stage.world.now_ns
        while len(maker.makings) == 1:
            stage.play(50 * MILLISECOND)
            maker.want(KEY, recipe)
            all_done(stage, [maker])
        assert maker.makings[1].began_ns < written_ns + 10 * SECOND, "before the end"
        assert isinstance(maker.outcomes[-1], bytes)


def test_a_fresh_value_survives_a_factory_that_fails_to_make_it_anew() -> None:
    recipe = RECIPE._replace(ttl_ms=3_000, beta=1_000.0)
    failing: list[bool] = []
    with Stage(THREE) as stage:
        stage.warm_up()
        (maker,) = makers(stage, 1, fails=lambda: bool(failing))
        maker.want(KEY, recipe)
        (value,) = all_done(stage, [maker])
        failing.append(True)
        maker.want(KEY, recipe)
        assert all_done(stage, [maker]) == [value]
        assert len(maker.makings) == 2


def invalidate(stage: Stage) -> None:
    for step in (Write(op=Op.DELETE, key=lease_key(KEY)), Write(op=Op.DELETE, key=KEY)):
        stage.call("c0", step)


@pytest.mark.parametrize("nodes", [1, 3])
@pytest.mark.parametrize("refreshing", [False, True])
@pytest.mark.parametrize(
    ("lease_ms", "at_ms"),
    [
        pytest.param(2_000, 100, id="while the lease is held"),
        pytest.param(200, 100, id="and then the lease would have ended"),
        pytest.param(200, 250, id="after the lease has ended"),
    ],
)
def test_what_is_invalidated_while_it_is_made_is_not_stored(
    nodes: int, refreshing: bool, lease_ms: int, at_ms: int
) -> None:
    recipe = RECIPE._replace(lease_ms=lease_ms)
    with Stage(replace(THREE, nodes=nodes, replicas=min(1, nodes - 1))) as stage:
        stage.warm_up()
        maker, other = makers(stage, 2, takes_ns=500 * MILLISECOND)
        if refreshing:
            maker.refresh(KEY, recipe)
        else:
            maker.want(KEY, recipe)
        stage.play(at_ms * MILLISECOND)
        assert len(maker.makings) == 1, "the factory has read"
        invalidate(stage)
        assert isinstance(all_done(stage, [maker])[0], bytes), "its caller has it"
        assert stage.get("c0", KEY).value == b""
        other.want(KEY, RECIPE)
        all_done(stage, [other])
        assert stage.get("c0", KEY).value == other.outcomes[-1]


def test_a_holder_that_does_not_renew_its_lease_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def mutant(_self: Any, lease: Any, _recipe: Recipe) -> Generator[Any, Any, Any]:
        yield Get(key=lease.key)
        return lease

    monkeypatch.setattr(Stampede, "_renew", mutant)
    with pytest.raises(AssertionError):
        test_what_is_invalidated_while_it_is_made_is_not_stored(1, False, 2_000, 100)


def test_who_refreshes_takes_the_lease_over() -> None:
    with Stage(THREE) as stage:
        stage.warm_up()
        slow, fast = Maker(stage, "slow", lambda: SECOND), Maker(stage, "fast", lambda: SECOND // 5)
        slow.want(KEY, RECIPE)
        stage.play(100 * MILLISECOND)
        fast.refresh(KEY, RECIPE)
        assert all_done(stage, [slow, fast]) == [b"slow/1", b"fast/1"]
        assert stage.get("c0", KEY).value == b"fast/1", (
            "what was made of older things is not stored"
        )
        assert stage.get("c0", lease_key(KEY)).value == b"", "the lease is given back"


def test_a_factory_that_outlasts_its_lease_stores_nothing() -> None:
    recipe = RECIPE._replace(lease_ms=500)
    with Stage(THREE) as stage:
        stage.warm_up()
        slow, fast = Maker(stage, "slow", lambda: SECOND), Maker(stage, "fast", lambda: SECOND // 5)
        slow.want(KEY, recipe)
        assert all_done(stage, [slow]) == [b"slow/1"]
        assert stage.get("c0", KEY).value == b"", "it may have been invalidated meanwhile"
        slow.want(KEY, recipe)
        stage.play(600 * MILLISECOND)
        fast.want(KEY, recipe)
        all_done(stage, [slow, fast])
        assert stage.get("c0", KEY).value == b"fast/1"


def test_each_side_of_a_cut_makes_it_once() -> None:
    with Stage(replace(THREE, nodes=4, replicas=1)) as stage:
        stage.warm_up()
        them = makers(stage, 8)
        sides = (("n0", "n1", "m0", "m1", "m2", "m3"), ("n2", "n3", "m4", "m5", "m6", "m7"))
        cut = Partition(
            at_ns=stage.world.now_ns, lasts_ns=60 * SECOND, left=sides[0], right=sides[1]
        )
        stage.world.schedule((cut,))
        stage.play(20 * SECOND)
        for maker in them:
            maker.want(KEY, RECIPE)
        outcomes = all_done(stage, them)
        assert all(isinstance(one, bytes) for one in outcomes)
        assert len(set(outcomes[:4])) == len(set(outcomes[4:])) == 1
        assert len(makings(*them[:4])) == len(makings(*them[4:])) == 1


# ------------------------------------------------------------------ many keys, many programs


def busy(seed: int) -> list[Violation]:
    """Let eight programs want three values for a while; some factories are too slow or fail."""
    recipe = Recipe(ttl_ms=2_500, stale_ms=0, lease_ms=1_000, wait_ms=30_000, beta=0)
    links = LinkSettings(delay_ns=MILLISECOND, jitter_ns=60 * MILLISECOND)
    with Stage(replace(THREE, seed=seed, links=links)) as stage:
        stage.warm_up()
        rng = Random(f"{seed}/busy")
        end_ns = stage.world.now_ns + 25 * SECOND

        def takes_ns() -> int:
            ms = 50 + int(rng.random() * 300)
            return (ms + 1_000 if rng.random() < 0.2 else ms) * MILLISECOND

        def fails() -> bool:
            return rng.random() < 0.3

        them = [Maker(stage, f"m{number}", takes_ns, fails) for number in range(8)]

        def wants(maker: Maker) -> None:
            if stage.world.now_ns < end_ns:
                key = b"k%d" % int(rng.random() * 3)
                maker.want(key, recipe, lambda: later(maker))

        def later(maker: Maker) -> None:
            pause_ns = 1 + int(rng.random() * 100) * MILLISECOND
            stage.world.at(stage.world.now_ns + pause_ns, wants, maker)

        for maker in them:
            later(maker)
        stage.play(32 * SECOND)
        found = leases.check(makings(*them), lambda start, end: True)
        assert len(makings(*them)) > 15
        outcomes = [one for maker in them for one in maker.outcomes]
        assert all(isinstance(one, bytes | FactoryFailed) for one in outcomes)
        return found


@pytest.mark.parametrize("seed", [1, 2])
def test_while_all_is_well_a_value_is_made_by_one_and_once(seed: int) -> None:
    assert busy(seed) == []


def lease_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for the lease takes it that it is his."""
    take: Any = Stampede._take

    def mutant(self: Any, key: bytes, recipe: Recipe) -> Generator[Any, Any, Any]:
        lease = yield from take(self, key, recipe)
        found = yield Get(key=lease_key(key))
        taken = yield from self._found(lease_key(key), found.value)
        return lease or taken

    monkeypatch.setattr(Stampede, "_take", mutant)


def not_looked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has the lease does not look whether the value has come meanwhile."""
    quietly: Any = Stampede._quietly

    def mutant(self: Any, operation: Any) -> Generator[Any, Any, Any]:
        if isinstance(operation, Get) and not operation.key.endswith(SUFFIX):
            return None
        return (yield from quietly(self, operation))

    monkeypatch.setattr(Stampede, "_quietly", mutant)


def released_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease is released whoever has it by now."""

    def mutant(self: Any, lease: Any) -> Generator[Any, Any, None]:
        yield Write(op=Op.DELETE, key=lease.key)

    monkeypatch.setattr(Stampede, "_release", mutant)


PLANTED: dict[Callable[[pytest.MonkeyPatch], None], str] = {
    lease_ignored: leases.ONE,
    not_looked_again: leases.ONCE,
    released_for_others: leases.ONE,
}


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_planted_bug_of_leases_is_caught(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    assert PLANTED[plant] in first_broken(busy)
