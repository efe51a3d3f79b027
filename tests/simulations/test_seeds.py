"""Seeds that once broke a promise; each has its sentence in the history of the file it mended."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simulations.draws import draw_plain, draw_scenario, draw_twisted
from simulations.runs import run

PLAIN = {
    118: "a pull's answer after the slot was lost left a copy that nobody released",
    150: "likewise",
    1005: "two nodes 49 s apart disagreed for ever about what has expired",
    2027: "a member paused for long came back with what others had forgotten the successor of",
    2061: "a slot that changed hands twice kept a gap that no pull could close",
    2069: "as 2027, with three copies",
    3138: "an owner aside of a silent primary acknowledged what the primary did not know yet",
    3311: "a gap of a live node, lost with the owner that had it, kept a slot from being released",
}


"Seeds from before scenarios got twists."

TWISTED = {
    11: "who stood in did not know it yet, said so, and was never asked again: w was not reached",
    266: "a record dropped for a full queue was not sent to who stands in: w was not reached",
    375: "a record dropped for a full queue was never offered anew to an owner with room",
    563: "likewise",
    50: "a connection to a restarted node waited seconds for its next attempt: w was not reached",
    623: "nodes joined by seeds that had all gone, which nobody can",
    639: "a client that took over from a dead one lost its first timer: a fault of the simulator",
    862: "the last node left, and the next one had nobody to join",
    1050: "a delete that found nobody sure left a tombstone, and a read after it was judged a loss",
    394: "an overloaded node read all clocks late, went by them, and executed a write too late",
    1577: "a former owner whose gap nobody could fill kept the slot for ever: notes did not count",
    2895: "a queued record whose successor all had forgotten was offered to a new owner",
    3314: "likewise: what had been deleted or had expired came back under an older version",
    3424: "likewise",
    4035: "a node joined by one that was leaving: a fault of the simulator",
    4139: "a write that expired while its writer waited was offered to no stand-in",
    2585: "a node left at once, as the last other one was suspected, with the only copies",
}

"Seeds since there are worlds."

DRAWN = {
    48: "a clear, repeated, took what was written after it: the client's clock was 96 ms ahead",
    58: "a scan took the list of somebody for the whole, the only owner being out of reach",
    125: "a scan by a ring that was no more asked nobody of whom its slots had moved to",
    234: "who stood still while it asked called the cluster converged by what it knew before",
    252: "a value came from the third holder in vain, two having told of its eviction",
    510: "one message's values, all waiting for copies, took more than the limit",
    670: "a quorum read asked nobody who was met while it waited for its quorum",
    719: "likewise",
    734: "a checker took for lost what a tombstone had replaced that only graves remembered",
    759: "a former owner with a forget mark and nothing else announced its slot for ever",
    701: "a simulated client put many without asking for their versions, as no client does",
}


@pytest.mark.parametrize("seed", DRAWN)
def test_a_drawn_seed_that_once_failed_is_clean(seed: int) -> None:
    assert run(draw_scenario(seed)).violations == []


@pytest.mark.parametrize("seed", PLAIN)
def test_a_plain_seed_that_once_failed_is_clean(seed: int) -> None:
    assert run(draw_plain(seed)).violations == []


@pytest.mark.parametrize("seed", TWISTED)
def test_a_seed_that_once_failed_is_clean(seed: int) -> None:
    assert run(draw_twisted(seed)).violations == []


def test_what_a_new_owner_has_not_got_yet_is_not_left_out_by_a_scan() -> None:
    """Another owner has it, whom the client does not reach since a cut has healed."""
    scenario = draw_scenario(33, "much-to-catch-up")
    often = replace(scenario.workload, rare_permille=361)
    assert run(replace(scenario, workload=often)).violations == []
