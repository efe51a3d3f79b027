"""The checkers of company: each accepts what is right and sees what is not."""

from __future__ import annotations

from dcc.types import Member, Standing, node_key
from dcc.units import SECOND
from simulations.checkers import company, limits

AT = 5 * SECOND


def test_a_second_node_of_a_name_is_seen_once_it_has_had_its_time() -> None:
    for seconds, first_lives, count in ((9.0, True, 1), (7.0, True, 0), (9.0, False, 0)):
        found = company.check_names(
            "o0", seconds=seconds, patience_s=8.0, first_lives=first_lives, at_ns=AT
        )
        assert [one.promise for one in found] == [company.FIRST_STAYS] * count


def test_a_first_node_that_gives_way_is_seen() -> None:
    assert len(company.check_displaced(["n1"], AT)) == 1
    assert company.check_displaced([], AT) == []


def test_a_ready_node_that_nobody_reaches_is_seen() -> None:
    assert len(company.check_reached("o0", ready=True, at_ns=AT)) == 1
    assert company.check_reached("o0", ready=False, at_ns=AT) == []


def test_an_invented_member_is_seen() -> None:
    row = Member("x", "x:1", "x:2", "", 1.0, 1, 1, Standing.ALIVE, 1, draining=False)
    for rows, invented, count in (
        ([row], {"x"}, 1), ([row], {"y"}, 0), ([row._replace(standing=Standing.DEAD)], {"x"}, 0),
    ):  # fmt: skip
        keys = frozenset(node_key(name) for name in invented)
        assert len(company.check_members("n0", rows, keys, AT)) == count


def test_a_write_that_is_remembered_for_too_long_is_seen() -> None:
    for age_s, count in ((66, 1), (64, 0), (0, 0)):
        found = limits.check_remembered("n0", age_s * SECOND, 60 * SECOND, AT)
        assert [one.promise for one in found] == [limits.PROMISE] * count
