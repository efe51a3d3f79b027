"""cachelib's tests of every cache, on dcc."""

from __future__ import annotations

from typing import Any

import pytest
from clear import ClearTests
from common import CommonTests
from delete_many_with_prefix import DeleteManyWithPrefixTests
from has import HasTests
from serializer import SerializerTests

from dcc.contrib.cachelib import DccCache


class Silly:
    """A serializer that is neither pickle nor JSON."""

    def dumps(self, value: Any) -> bytes:
        return repr(value).encode()

    def loads(self, data: bytes) -> Any:
        return eval(data)


@pytest.fixture(autouse=True, params=["pickle", Silly()], ids=["pickle", "silly"])
def cache_factory(request: Any, key_prefix: str | None) -> None:
    def factory(self: Any, **options: Any) -> DccCache:
        options = {"key_prefix": key_prefix, "serializer": request.param} | options
        cache = DccCache(on_error="raise", **options)
        cache.clear()
        return cache

    request.cls.cache_factory = factory


class TestDccCache(CommonTests, ClearTests, HasTests, DeleteManyWithPrefixTests, SerializerTests):
    """All that cachelib asks of a cache."""
