"""What a caller may pass, and which error everything else is."""

from __future__ import annotations

from array import array
from collections import UserString
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcc.client import arguments as args
from dcc.client.operations import expected_version, stats_question
from dcc.client.sync import Client
from dcc.errors import InvalidKey, ValueTooLarge
from dcc.limits import KEY_BYTES_MAX, VALUE_BYTES_MAX
from dcc.types import Version


@pytest.mark.parametrize("key", ["", "x" * (KEY_BYTES_MAX + 1), "ä" * 257, "\ud800"])
def test_a_key_that_cannot_be_one_is_an_invalid_key(key: str) -> None:
    with pytest.raises(InvalidKey) as caught:
        args.key_bytes(key)
    assert isinstance(caught.value, ValueError)
    with pytest.raises(InvalidKey):
        args.keys_bytes(["fine", key])


@pytest.mark.parametrize("key", [b"bytes", 5, None, ["k"], UserString("k")])
def test_a_key_of_another_type_is_a_type_error(key: Any) -> None:
    with pytest.raises(TypeError):
        args.key_bytes(key)
    with pytest.raises(TypeError):
        args.keys_bytes(["fine", key])


@settings(deadline=None, max_examples=30)
@given(keys=st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=8), max_size=20))
def test_many_keys_become_what_each_becomes(keys: list[str]) -> None:
    assert args.keys_bytes(keys) == (keys, [args.key_bytes(key) for key in keys])


class Name(str):
    """A str of the caller's own."""


def test_the_longest_key_counts_bytes_and_a_kind_of_str_is_one() -> None:
    assert args.key_bytes("ä" * 256) == "ä".encode() * 256
    assert args.keys_bytes([Name("a"), "b"]) == (["a", "b"], [b"a", b"b"])


@pytest.mark.parametrize(
    "value",
    [b"ab", bytearray(b"ab"), memoryview(b"ab"), memoryview(b"a-b")[::2], array("B", b"ab")],
)
def test_values_are_anything_like_bytes(value: Any) -> None:
    assert args.value_bytes(value) == b"ab"


@pytest.mark.parametrize("value", ["text", 5, None, [1, 2], 1.5, {"a": 1}])
def test_a_value_of_another_type_is_a_type_error(value: Any) -> None:
    with pytest.raises(TypeError):
        args.value_bytes(value)


def test_a_value_beyond_the_limit_is_too_large() -> None:
    assert len(args.value_bytes(bytes(VALUE_BYTES_MAX))) == VALUE_BYTES_MAX
    with pytest.raises(ValueTooLarge):
        args.value_bytes(bytes(VALUE_BYTES_MAX + 1))


@pytest.mark.parametrize(
    ("ttl", "expected"),
    [(None, 0), (1, 1000), (0.5, 500), (1e-9, 1), (timedelta(seconds=2), 2000), (3600, 3_600_000)],
)
def test_a_ttl_is_whole_milliseconds_and_never_none_by_accident(ttl: Any, expected: int) -> None:
    assert args.ttl_ms(ttl) == expected


@pytest.mark.parametrize(
    "ttl", [0, -1, 0.0, -0.5, float("nan"), float("inf"), timedelta(0), timedelta(days=-1), 10**400]
)
def test_a_ttl_that_is_no_time_is_a_value_error(ttl: Any) -> None:
    with pytest.raises(ValueError):
        args.ttl_ms(ttl)


@pytest.mark.parametrize("ttl", ["1", True, b"1", [1], 1j])
def test_a_ttl_of_another_type_is_a_type_error(ttl: Any) -> None:
    with pytest.raises(TypeError):
        args.ttl_ms(ttl)


def test_w_is_a_count_or_one_of_two_words() -> None:
    assert [args.quorum("w", w) for w in (1, 10, "quorum", "all")] == [1, 10, 0, 255]
    for wrong in (0, -1, 11, 255, "most", ""):
        with pytest.raises(ValueError):
            args.quorum("w", wrong)
    for wrong_type in (True, None, 1.0):
        with pytest.raises(TypeError):
            args.quorum("w", wrong_type)  # type: ignore[arg-type]  # the point of the test


def test_numbers_have_64_bits_and_a_sign() -> None:
    assert args.signed_64("delta", -(2**63)) == -(2**63)
    for wrong in (2**63, -(2**63) - 1):
        with pytest.raises(ValueError):
            args.signed_64("delta", wrong)
    for wrong_type in (True, 1.0, "1"):
        with pytest.raises(TypeError):
            args.signed_64("delta", wrong_type)  # type: ignore[arg-type]  # the point of the test


def test_nodes_come_from_the_argument_or_the_environment_or_the_default() -> None:
    assert args.node_addresses(None, None) == ("127.0.0.1:6740",)
    assert args.node_addresses(None, "a:1,b:2") == ("a:1", "b:2")
    assert args.node_addresses(" a:1 , b:2,a:1", "c:3") == ("a:1", "b:2")
    assert args.node_addresses(["a:1", "b:2,[::1]:3"], None) == ("a:1", "b:2", "[::1]:3")


@pytest.mark.parametrize(
    "nodes",
    ["", ",", [], "host", "host:", ":1", "host:0", "host:65536", "tcp://a:1", "a b:1", "a:1/x"],
)
def test_nodes_that_are_no_addresses_are_a_value_error(nodes: Any) -> None:
    with pytest.raises(ValueError):
        args.node_addresses(nodes, None)


@pytest.mark.parametrize("nodes", [5, [5], [("a", 1)], [None]])
def test_nodes_of_another_type_are_a_type_error(nodes: Any) -> None:
    with pytest.raises(TypeError):
        args.node_addresses(nodes, None)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"timeout": None}, TypeError),
        ({"timeout": 0}, ValueError),
        ({"timeout": float("nan")}, ValueError),
        ({"timeout": float("inf")}, ValueError),
        ({"timeout": "1"}, TypeError),
        ({"default_ttl": 0}, ValueError),
        ({"read": "replica"}, ValueError),
        ({"read": None}, TypeError),
        ({"w": 0}, ValueError),
        ({"cluster": ""}, ValueError),
        ({"cluster": 5}, ValueError),
        ({"near_cache": 100}, TypeError),
        ({"serializer": None}, TypeError),
        ({"r": 0}, ValueError),
        ({"r": None}, TypeError),
        ({"session": True}, TypeError),
    ],
)
def test_an_impossible_option_or_one_of_a_later_part_is_refused_at_once(
    options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        Client("127.0.0.1:1", **options)


@pytest.mark.parametrize("version", [Version(-1, 1, 1), Version(1 << 64, 1, 1), Version(0, 0, 0)])
def test_a_version_that_cannot_travel_or_means_none_is_a_value_error(version: Version) -> None:
    with pytest.raises(ValueError, match="version"):
        expected_version(version)


@pytest.mark.parametrize("wish", ["yes", 1, None])
def test_a_wish_for_hot_keys_is_a_bool(wish: Any) -> None:
    with pytest.raises(TypeError, match="hot_keys"):
        stats_question(wish)


@pytest.mark.parametrize("stamp", ["1", 1.0, True, None])
def test_a_version_that_is_not_made_of_ints_is_a_type_error(stamp: Any) -> None:
    with pytest.raises(TypeError, match="version"):
        expected_version(Version(stamp, 1, 1))
