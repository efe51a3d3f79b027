"""What type checkers make of calls: mypy reads this file, and it runs, too."""

from __future__ import annotations

import inspect
from typing import assert_type

import pytest

from dcc import AsyncClient, Cache, Client, LocalCluster, Lookup, Node, Version
from dcc.client.keywords import AsyncClientOptions, CacheOptions, ClientOptions
from dcc.client.url import CACHE_OPTIONS, CLIENT_OPTIONS
from dcc.config import NodeConfig
from dcc.node.keywords import ClusterOptions, NodeOptions
from dcc.node.options import OPTIONS


@pytest.mark.process
def test_what_a_get_returns_is_told_by_its_default() -> None:
    with LocalCluster(1, replicas=0) as cluster:
        client: Client = cluster.client(timeout=5)
        client.put("a", b"1")
        assert assert_type(client.get("a", b""), bytes) == b"1"
        assert assert_type(client.get("a"), bytes | None) == b"1"
        assert assert_type(client.get("b", 0), bytes | int) == 0
        assert assert_type(client.incr("n", initial=None), int | None) is None
        assert assert_type(client.incr("n", initial=4), int) == 5
        assert_type(client.decr("n"), int)
        assert_type(client.replace("a", b"2"), Version | None)
        if client.lookup("b").status == "hit":
            raise AssertionError


async def coroutines_tell_the_same(client: AsyncClient, lookup: Lookup) -> None:
    """Never called: what it says is for the type checker."""
    assert_type(await client.get("a", b""), bytes)
    assert_type(await client.get("a"), bytes | None)
    assert_type(await client.get("b", 0), bytes | int)
    assert_type(await client.incr("a"), int)
    assert_type(await client.decr("a", initial=None), int | None)
    assert_type(await client.replace("a", b""), Version | None)
    await client.get("a", r="most")  # type: ignore[call-overload]
    await client.put("a", b"", w="most")  # type: ignore[arg-type]
    AsyncClient(read="some")  # type: ignore[arg-type]
    lookup.status == "found"  # type: ignore[comparison-overlap]  # noqa: B015


def never_called_either() -> None:
    """What is no option, or has the wrong type, is seen before a program runs."""
    Cache(on_error="none")  # type: ignore[arg-type]
    Cache(nodes="127.0.0.1:6740", retries=3)  # type: ignore[call-arg]
    Node(max_memory=1.5)  # type: ignore[arg-type]
    LocalCluster(3, zones="a")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("kind", "options"), [(Client, ClientOptions), (AsyncClient, AsyncClientOptions)]
)
def test_the_types_of_the_options_have_all_that_a_client_takes(kind: type, options: type) -> None:
    taken = inspect.signature(kind).parameters
    assert keys(options) == taken.keys() - {"nodes"}


def test_the_types_of_the_options_have_all_that_a_cache_takes() -> None:
    assert keys(CacheOptions) == CLIENT_OPTIONS.keys() | CACHE_OPTIONS.keys()


def test_the_types_of_the_options_have_all_that_a_node_takes() -> None:
    named = {option.name.replace("-", "_") for option in OPTIONS}
    tuning = {name for name in NodeConfig.__slots__ if name.endswith(("_ns", "_ms", "_max"))}
    of_the_program = {"bind", "http", "http_token", "log_format", "log_level"}
    assert keys(NodeOptions) == (named | tuning) - of_the_program
    assert keys(ClusterOptions) == keys(NodeOptions) - {"replicas"}


def keys(options: type) -> frozenset[str]:
    """Return the names in a TypedDict."""
    found: frozenset[str] = options.__optional_keys__  # type: ignore[attr-defined]
    return found
