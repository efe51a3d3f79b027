"""aiocache's acceptance tests, on dcc."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiocache import caches
from tests.acceptance.test_base import TestCache as TestCache
from tests.acceptance.test_decorators import TestCached as TestCached
from tests.acceptance.test_decorators import TestCachedStampede as TestCachedStampede
from tests.acceptance.test_decorators import TestMultiCachedDecorator as TestMultiCachedDecorator
from tests.acceptance.test_lock import TestOptimisticLock as TestOptimisticLock
from tests.acceptance.test_lock import TestRedLock as TestRedLock
from tests.acceptance.test_lock import lock as lock
from tests.acceptance.test_serializers import TestJsonSerializer as TestJsonSerializer
from tests.acceptance.test_serializers import TestPickleSerializer as TestPickleSerializer
from tests.acceptance.test_serializers import TestStringSerializer as TestStringSerializer
from tests.utils import KEY_LOCK, Keys

from dcc.contrib.aiocache import DccCache


@pytest.fixture(autouse=True)
def _no_caches() -> None:
    caches._caches = {}


@pytest.fixture
async def cache() -> AsyncIterator[DccCache]:
    async with DccCache(namespace="test", on_error="raise") as cache:
        await cache.clear()
        yield cache
        for key in (*Keys, KEY_LOCK):
            await cache.delete(key)
