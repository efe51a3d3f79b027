"""An `AsyncClient` behind the blocking client's interface, so that both pass the same tests."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Iterator
from typing import Any

from dcc import AsyncClient
from dcc.client.core import ClientCore


class Blocking:
    """Runs each call on an event loop of its own, to its end. For one thread."""

    def __init__(self, *nodes: Any, **options: Any) -> None:
        self.loop = asyncio.new_event_loop()
        self.client = AsyncClient(*nodes, **options)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.client, name)
        if not inspect.iscoroutinefunction(method):
            return method
        return lambda *args, **options: self.run(method(*args, **options))

    def run(self, awaitable: Awaitable[Any]) -> Any:
        """Return the outcome of an awaitable."""
        return self.loop.run_until_complete(awaitable)

    def scan(self, prefix: str = "") -> Iterator[str]:
        """Yield what the client's asynchronous iterator yields."""
        keys: AsyncIterator[str] = self.client.scan(prefix)
        try:
            while True:
                yield self.run(anext(keys))
        except StopAsyncIteration:
            pass

    @property
    def replicas(self) -> int:
        """A property of the blocking client, a coroutine of this one."""
        count: int = self.run(self.client.replicas())
        return count

    def __contains__(self, key: str) -> bool:
        return bool(self.run(self.client.contains(key)))

    @property
    def _core(self) -> ClientCore:
        assert self.client._driver is not None
        return self.client._driver.core

    def __repr__(self) -> str:
        return repr(self.client)

    def close(self) -> None:
        """Close the client; its loop stays, to say what later calls get."""
        self.run(self.client.aclose())

    def end(self) -> None:
        """Close the loop, too."""
        self.close()
        self.run(self.loop.shutdown_asyncgens())
        self.loop.close()

    def __enter__(self) -> Blocking:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
