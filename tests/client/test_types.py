"""What type checkers make of calls: mypy reads this file, and it runs, too."""

from __future__ import annotations

from typing import assert_type

import pytest

from dcc import AsyncClient, Client, LocalCluster, Lookup


@pytest.mark.process
def test_what_a_get_returns_is_told_by_its_default() -> None:
    with LocalCluster(1, replicas=0) as cluster:
        client: Client = cluster.client(timeout=5)
        client.put("a", b"1")
        assert assert_type(client.get("a", b""), bytes) == b"1"
        assert assert_type(client.get("a"), bytes | None) == b"1"
        assert assert_type(client.get("b", 0), bytes | int) == 0
        if client.lookup("b").status == "hit":
            raise AssertionError


async def coroutines_tell_the_same(client: AsyncClient, lookup: Lookup) -> None:
    """Never called: what it says is for the type checker."""
    assert_type(await client.get("a", b""), bytes)
    assert_type(await client.get("a"), bytes | None)
    assert_type(await client.get("b", 0), bytes | int)
    await client.get("a", r="most")  # type: ignore[call-overload]
    await client.put("a", b"", w="most")  # type: ignore[arg-type]
    AsyncClient(read="some")  # type: ignore[arg-type]
    lookup.status == "found"  # type: ignore[comparison-overlap]  # noqa: B015
