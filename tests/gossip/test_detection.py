"""Crashes: how soon the first member knows, how soon all know, and that nobody else is accused.

`python -m tests.gossip.test_detection MEMBERS TRIALS` prints the medians.
"""

from __future__ import annotations

import sys
from statistics import median

import pytest

from dcc.types import node_key
from dcc.units import SECOND
from tests.support.wired_membership import Net, name_of


def crash_trial(members: int, seed: int) -> tuple[float, float]:
    """Return (first detection, full dissemination) in seconds after one crash."""
    net = Net(seed, check=False)
    net.cluster(members)
    crashed_at, victim = net.now, members - 1
    net.crash(victim)
    assert net.run(120, until=lambda: len(net.named("member_dead", victim)) == members - 1)
    dead = net.named("member_dead")
    assert {entry[2].fields["key"] for entry in dead} == {node_key(name_of(victim))}
    return (dead[0][0] - crashed_at) / SECOND, (dead[-1][0] - crashed_at) / SECOND


@pytest.mark.parametrize(
    ("members", "trials", "detected", "known"),
    [(3, 60, 5.5, 5.6), (16, 20, 6.5, 6.7), (128, 1, 16.4, 16.3)],
)
def test_a_crash_is_detected_and_known_everywhere_in_time(
    members: int, trials: int, detected: float, known: float
) -> None:
    """Medians of the reference model, 5 % of slack; at 128 its 99th percentile for one trial."""
    results = [crash_trial(members, seed) for seed in range(trials)]
    assert median(first for first, _ in results) <= detected * 1.05
    assert median(last for _, last in results) <= known * 1.05


def print_medians(members: int, trials: int) -> None:
    results = [crash_trial(members, seed) for seed in range(trials)]
    firsts, lasts = zip(*results, strict=True)
    print(
        f"{members} members, {trials} trials: first detection {median(firsts):.2f} s,"
        f" known everywhere {median(lasts):.2f} s (worst {max(lasts):.2f} s)"
    )


if __name__ == "__main__":
    print_medians(int(sys.argv[1]), int(sys.argv[2]))
