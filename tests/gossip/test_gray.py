"""Who is slow: by what the others measure, with hysteresis, and by more than half of them."""

from __future__ import annotations

from dcc.gossip.gray import CALM_NS, SAMPLES, VOICE_NS, PaceJudge
from dcc.types import Pace
from dcc.units import MILLISECOND, SECOND

A, B, C, D = 1, 2, 3, 4


def measured(**milliseconds: int) -> PaceJudge:
    judge = PaceJudge()
    for name, took in milliseconds.items():
        measure(judge, {"b": B, "c": C, "d": D}[name], took)
    return judge


def measure(judge: PaceJudge, key: int, milliseconds: int, times: int = SAMPLES) -> None:
    for _ in range(times):
        judge.took(key, milliseconds * MILLISECOND)
    judge.check()


def test_who_takes_ten_times_as_long_as_the_others_is_slow() -> None:
    judge = measured(b=4, c=4, d=41)
    assert [judge.of(key) for key in (B, C, D)] == [Pace.WELL, Pace.WELL, Pace.SLOW]


def test_who_is_slow_itself_finds_all_alike() -> None:
    judge = measured(b=100, c=120, d=90)
    assert [judge.of(key) for key in (B, C, D)] == [Pace.WELL] * 3


def test_a_few_milliseconds_are_never_slow() -> None:
    assert measured(b=1, c=1, d=25).of(D) is Pace.WELL


def test_of_two_members_none_is_slow_and_few_pings_tell_nothing() -> None:
    judge = measured(b=500)
    assert judge.of(B) is Pace.UNKNOWN
    measure(judge, C, 1, times=2)
    assert (judge.of(B), judge.of(C)) == (Pace.UNKNOWN, Pace.UNKNOWN)
    measure(judge, C, 1, times=1)
    assert (judge.of(B), judge.of(C)) == (Pace.SLOW, Pace.WELL)


def test_one_long_ping_is_forgiven_and_a_third_of_them_is_not() -> None:
    judge = measured(b=1, c=1)
    measure(judge, C, 400, times=1)
    assert judge.of(C) is Pace.WELL
    measure(judge, C, 400, times=1)
    assert judge.of(C) is Pace.SLOW


def test_between_the_bounds_a_judgement_stays_what_it_was() -> None:
    for before, expected in ((1, Pace.WELL), (200, Pace.SLOW)):
        judge = measured(b=5, c=before)
        judge.of(C)
        measure(judge, C, 25)
        assert judge.of(C) is expected
    measure(judge, C, 14)
    assert judge.of(C) is Pace.WELL


def test_a_member_that_is_forgotten_begins_anew() -> None:
    judge = measured(b=1, c=100)
    assert judge.of(C) is Pace.SLOW
    judge.forget(C)
    judge.check()
    measure(judge, C, 20)
    assert judge.of(C) is Pace.WELL


def test_more_than_half_of_those_who_judge_must_say_so_and_two_at_least() -> None:
    alive = (A, B, C, D)
    for said, expected in (
        ({A: Pace.SLOW}, False),
        ({A: Pace.SLOW, B: Pace.SLOW}, True),
        ({A: Pace.SLOW, B: Pace.SLOW, C: Pace.WELL}, True),
        ({A: Pace.SLOW, B: Pace.SLOW, C: Pace.WELL, D: Pace.WELL}, False),
        ({A: Pace.SLOW, B: Pace.SLOW, C: Pace.UNKNOWN, D: Pace.UNKNOWN}, True),
        ({A: Pace.SLOW, 9: Pace.SLOW}, False),
    ):
        judge = PaceJudge()
        for voter, pace in said.items():
            judge.heard(voter, pace, 0)
        assert judge.is_slow(alive, 1, slow=False) is expected


def test_who_was_slow_stays_so_until_all_have_been_calm_for_a_while() -> None:
    judge, alive = PaceJudge(), (A, B)
    for voter in alive:
        judge.heard(voter, Pace.SLOW, 0)
    assert judge.is_slow(alive, SECOND, slow=False)
    for voter in alive:
        judge.heard(voter, Pace.WELL, 2 * SECOND)
    assert judge.is_slow(alive, SECOND + CALM_NS - 1, slow=True)
    assert not judge.is_slow(alive, SECOND + CALM_NS, slow=True)


def test_a_judgement_does_not_count_for_ever() -> None:
    judge, alive = PaceJudge(), (A, B)
    for voter in alive:
        judge.heard(voter, Pace.SLOW, 0)
    assert judge.is_slow(alive, VOICE_NS - 1, slow=False)
    assert not judge.is_slow(alive, VOICE_NS + CALM_NS, slow=True)
