"""Eviction policies beside the simplest code that means the same, and on a real trace."""

from __future__ import annotations

import lzma
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcc.config import EVICTION_POLICIES
from dcc.store.entry import NOWHERE, Entry
from dcc.store.eviction import POLICIES, RANKS_MAX, Lfu, Lru, Policy
from dcc.types import NO_VERSION, Kind
from tests.support.paths import ROOT

TRACES = ROOT.parent / "shared" / "traces"


def entry(name: int) -> Entry:
    return Entry(b"%d" % name, 0, Kind.VALUE, b"v", NO_VERSION, 0, 0)


def evict(policy: Policy) -> Entry | None:
    victim = policy.victim()
    if victim is not None:
        policy.remove(victim)
    return victim


steps = st.lists(
    st.tuples(st.sampled_from(("use", "use", "use", "remove", "evict")), st.integers(0, 9)),
    max_size=120,
)


@given(steps=steps)
def test_lru_evicts_what_was_used_longest_ago(steps: list[tuple[str, int]]) -> None:
    policy, held, order = Lru(), {n: entry(n) for n in range(10)}, list[int]()
    for step, name in steps:
        if step == "use":
            policy.hit(held[name]) if name in order else policy.add(held[name])
            order = [*(n for n in order if n != name), name]
        elif step == "remove" and name in order:
            policy.remove(held[name])
            order.remove(name)
        elif step == "evict":
            assert evict(policy) is (held[order.pop(0)] if order else None)
        assert [e.key for e in policy] == [b"%d" % n for n in order]


@given(steps=steps)
def test_lfu_evicts_what_has_the_fewest_hits_by_the_aged_count(
    steps: list[tuple[str, int]],
) -> None:
    """The reference: arrive with 1 + the age, a hit adds 1, the age is the last victim's count."""
    policy, held, counts, age = Lfu(), {n: entry(n) for n in range(10)}, dict[int, int](), 0
    for step, name in steps:
        if step == "use":
            if name in counts:
                policy.hit(held[name])
                counts[name] += 1
            else:
                policy.add(held[name])
                counts[name] = age + 1
        elif step == "remove" and name in counts:
            policy.remove(held[name])
            del counts[name]
        elif step == "evict":
            victim = evict(policy)
            assert (victim is None) == (not counts)
            if victim is not None:
                age = max(age, counts.pop(int(victim.key)))
                assert all(count >= age for count in counts.values())
        assert sorted(int(e.key) for e in policy) == sorted(counts)


def test_lfu_breaks_ties_by_arrival() -> None:
    policy = Lfu()
    entries = [entry(n) for n in range(5)]
    for each in entries:
        policy.add(each)
    assert [evict(policy) for _ in entries] == entries


def test_lfu_keeps_what_is_popular_through_a_scan() -> None:
    policy = Lfu()
    popular = entry(0)
    policy.add(popular)
    for n in range(1, 5):
        policy.add(entry(n))
    for _ in range(4):
        policy.hit(popular)
    for n in range(100, 110):
        assert evict(policy) is not popular
        policy.add(entry(n))


def test_lfu_lets_go_of_what_was_popular_long_ago() -> None:
    """However many hits: after RANKS_MAX turnovers of the others without a hit it is gone."""
    policy = Lfu()
    former = entry(0)
    policy.add(former)
    for _ in range(10_000):
        policy.hit(former)
    population = 10
    for n in range(1, population):
        policy.add(entry(n))
    for n in range(1000, 1000 + population * (RANKS_MAX + 2)):
        if evict(policy) is former:
            return
        policy.add(entry(n))
    pytest.fail("the entry outlived everything")


def test_lfu_finds_a_victim_among_entries_that_were_all_hit_as_often_as_counts() -> None:
    policy = Lfu()
    entries = [entry(n) for n in range(20)]
    for each in entries:
        policy.add(each)
        for _ in range(RANKS_MAX + 5):
            policy.hit(each)
    found = [evict(policy) for _ in entries]
    assert sorted(e.key for e in found if e) == sorted(e.key for e in entries)
    assert policy.victim() is None


@pytest.mark.parametrize("name", EVICTION_POLICIES)
def test_every_configured_policy_exists_and_lets_go_of_removed_entries(name: str) -> None:
    policy = POLICIES[name]()
    gone = entry(1)
    policy.add(gone)
    policy.hit(gone)
    policy.remove(gone)
    assert policy.victim() is None
    assert gone.older is gone.newer is NOWHERE


def test_leaving_twice_is_caught() -> None:
    policy = Lru()
    with pytest.raises(AssertionError):
        policy.remove(entry(1))


@pytest.mark.parametrize("name", EVICTION_POLICIES)
def test_a_long_random_history_keeps_every_entry_in_exactly_one_place(name: str) -> None:
    rng, policy, held = random.Random(7), POLICIES[name](), dict[bytes, Entry]()
    for _ in range(20_000):
        made = entry(int(rng.paretovariate(0.8)) % 500)
        if made.key in held:
            policy.hit(held[made.key])
            continue
        if len(held) == 50:
            victim = evict(policy)
            assert victim is not None
            del held[victim.key]
        held[made.key] = made
        policy.add(made)
    assert sorted(e.key for e in policy) == sorted(held)


def miss_ratio(policy: Policy, keys: list[str], capacity: int) -> float:
    held: dict[str, Entry] = {}
    misses = 0
    for key in keys:
        found = held.get(key)
        if found is not None:
            policy.hit(found)
            continue
        misses += 1
        if len(held) == capacity:
            victim = evict(policy)
            assert victim is not None
            del held[victim.key.decode()]
        held[key] = made = Entry(key.encode(), 0, Kind.VALUE, b"", NO_VERSION, 0, 0)
        policy.add(made)
    return misses / len(keys)


def test_miss_ratios_on_a_real_trace_are_those_of_the_references() -> None:
    """LRU is exact (libcachesim 0.3.5: 0.6083); aged LFU must beat it, plain LFU does not."""
    path = TRACES / "cache2k_web07.csv.xz"
    if not path.exists():
        pytest.skip(f"the trace {path} is not there")
    with lzma.open(path, "rt") as lines:
        column = next(lines).strip().split(",").index("key")
        keys = [line.strip().split(",")[column] for line in lines]
    assert miss_ratio(Lru(), keys, 205) == pytest.approx(0.6083, abs=5e-5)
    assert miss_ratio(Lfu(), keys, 205) < 0.59
