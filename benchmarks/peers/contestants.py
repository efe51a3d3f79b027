"""Whoever is measured: one class a client library, all with the same few calls.

A worker process makes exactly one of them, so no library shares an interpreter with another.
Imports stand in the constructors: a library that is not installed costs its own rows only.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

TIMEOUT_SECONDS = 20


class Sync(Protocol):
    """A client whose calls block."""

    def get(self, key: str) -> object: ...
    def put(self, key: str, value: bytes) -> object: ...
    def get_many(self, keys: Sequence[str]) -> object: ...
    def put_many(self, items: Mapping[str, bytes]) -> object: ...


class Async(Protocol):
    """A client for asyncio."""

    async def open(self) -> None: ...
    async def get(self, key: str) -> object: ...
    async def close(self) -> None: ...


class Dcc:
    """`dcc.Client`; with the directory of keys behind a `#` in the address, if there is one."""

    def __init__(self, address: str) -> None:
        import dcc

        host, _, keys = address.partition("#")
        client = dcc.Client(host, timeout=TIMEOUT_SECONDS, keys=keys or None)
        self.get, self.put = client.get, client.put
        self.get_many, self.put_many = client.get_many, client.put_many


class RedisPy:
    """`redis.Redis`, with hiredis where that is installed."""

    def __init__(self, address: str) -> None:
        redis = importlib.import_module("redis")
        host, _, port = address.rpartition(":")
        self._client = redis.Redis(host=host, port=int(port), socket_timeout=TIMEOUT_SECONDS)
        self.get, self.put, self.get_many = self._client.get, self._client.set, self._client.mget

    def put_many(self, items: Mapping[str, bytes]) -> object:
        """Send one SET for each key in one pipeline, without a transaction."""
        with self._client.pipeline(transaction=False) as pipe:
            for key, value in items.items():
                pipe.set(key, value)
            return pipe.execute()


class PyMemcache:
    """`pymemcache.PooledClient`, which threads may share."""

    def __init__(self, address: str) -> None:
        base = importlib.import_module("pymemcache.client.base")
        host, _, port = address.rpartition(":")
        self._client = base.PooledClient(
            (host, int(port)), timeout=TIMEOUT_SECONDS, no_delay=True, max_pool_size=64
        )
        self.get, self.get_many = self._client.get, self._client.get_many

    def put(self, key: str, value: bytes) -> object:
        """Store, and wait for the server's word, as the others do."""
        return self._client.set(key, value, noreply=False)

    def put_many(self, items: Mapping[str, bytes]) -> object:
        """The same for several at once."""
        return self._client.set_many(items, noreply=False)


class Echo:
    """A bare DEALER: what ZeroMQ alone costs. It reads only."""

    def __init__(self, address: str) -> None:
        import zmq

        socket: zmq.Socket[bytes] = zmq.Context().socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(f"tcp://{address}")
        self._send, self._recv = socket.send, socket.recv

    def get(self, key: str) -> object:
        """Return what the bare ROUTER answers."""
        self._send(key.encode())
        return self._recv()


class DccAsync:
    """`dcc.AsyncClient`."""

    def __init__(self, address: str) -> None:
        import dcc

        self._client = dcc.AsyncClient(address, timeout=TIMEOUT_SECONDS)
        self.get = self._client.get

    async def open(self) -> None:
        """Connect."""
        await self._client.get("key")

    async def close(self) -> None:
        """Disconnect."""
        await self._client.aclose()


class RedisAsync:
    """`redis.asyncio.Redis` over a pool with a connection for each call in flight."""

    def __init__(self, address: str) -> None:
        redis = importlib.import_module("redis.asyncio")
        host, _, port = address.rpartition(":")
        self._client = redis.Redis(host=host, port=int(port))
        self.get = self._client.get

    async def open(self) -> None:
        """Connect."""
        await self._client.ping()

    async def close(self) -> None:
        """Disconnect."""
        await self._client.aclose()


class Glide:
    """`glide.GlideClient`: Valkey's client with a core in Rust, one multiplexed connection."""

    def __init__(self, address: str) -> None:
        self._glide = importlib.import_module("glide")
        self._host, _, self._port = address.rpartition(":")
        self.get: Callable[[str], Any]

    async def open(self) -> None:
        """Connect."""
        glide = self._glide
        config = glide.GlideClientConfiguration(
            [glide.NodeAddress(self._host, int(self._port))],
            request_timeout=1_000 * TIMEOUT_SECONDS,
        )
        self._client = await glide.GlideClient.create(config)
        self.get = self._client.get

    async def close(self) -> None:
        """Disconnect."""
        await self._client.close()


SYNC: Mapping[str, Callable[[str], Any]] = {
    "dcc": Dcc,
    "dcc with keys": Dcc,
    "redis-py": RedisPy,
    "pymemcache": PyMemcache,
    "bare ZeroMQ": Echo,
}
ASYNC: Mapping[str, Callable[[str], Any]] = {
    "dcc.AsyncClient": DccAsync,
    "redis.asyncio": RedisAsync,
    "valkey-glide": Glide,
}
SERVER_OF = {
    "dcc": "dcc",
    "dcc with keys": "dcc with keys",
    "dcc.AsyncClient": "dcc",
    "redis-py": "redis",
    "redis.asyncio": "redis",
    "valkey-glide": "redis",
    "pymemcache": "memcached",
    "bare ZeroMQ": "echo",
}
