"""dcc for Starlette and FastAPI: a cache with the application's life, and one of whole responses.

app = FastAPI(lifespan=lifespan("dcc://127.0.0.1:6740/shop"))
app.add_middleware(ResponseCache, ttl=60)
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Unpack

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dcc.client.keywords import CacheOptions
from dcc.client.values import Values
from dcc.contrib.async_cache import AsyncCache
from dcc.contrib.responses import (
    Headers,
    Stored,
    header,
    key_of,
    matches,
    may_be_asked,
    of_not_modified,
    seconds_to_keep,
    with_etag,
    words,
)

NAMESPACE = "starlette"
STATE = "dcc"
"The cache is `app.state.dcc`."

BODY_BYTES_MAX = 1 << 20
"Larger responses pass by: they cost the cluster more than they save."

Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]


def lifespan(
    url: str | None = None, *, around: Lifespan | None = None, **options: Unpack[CacheOptions]
) -> Lifespan:
    """Return a lifespan for an application, which opens a cache and closes it at the end.

    Args:
        url: `dcc://host:port,…/namespace?option=…`; None: DCC_URL, else the default node.
        around: a lifespan of your own, which runs within.
        options: those of `dcc.contrib.cache.Cache`; values are JSON and the cache fails open
            unless told otherwise.
    """
    usual = {"namespace": NAMESPACE, "on_error": "miss", "serializer": "json"}

    @asynccontextmanager
    async def run(app: Any) -> AsyncIterator[Any]:
        async with AsyncCache(url, defaults=usual, **options) as cache:
            setattr(app.state, STATE, cache)
            if around is None:
                yield {}
            else:
                async with around(app) as state:
                    yield state

    return run


def get_cache(connection: HTTPConnection) -> AsyncCache:
    """Return the application's cache: `Depends(get_cache)` in FastAPI, a call in Starlette."""
    cache: AsyncCache = getattr(connection.app.state, STATE)
    return cache


class ResponseCache:
    """ASGI middleware: responses to GET that anybody may see are kept in the cluster.

    Kept is what is complete, has status 200, sets no cookie and forbids it by no Cache-Control;
    for as long as that says, else for `ttl`. Every such response gets an ETag, and a browser that
    has it already gets 304. Requests with Authorization, or with cookies unless `cookies` is set,
    are answered by the application alone.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        ttl: float | None = None,
        cookies: bool = False,
        body_bytes_max: int = BODY_BYTES_MAX,
    ) -> None:
        """Wrap `app`, whose lifespan must be of `lifespan`.

        Args:
            ttl: seconds for responses that say nothing; None: those are not kept.
            cookies: responses do not depend on cookies, unless they say `Vary: Cookie`.
            body_bytes_max: larger ones pass by.
        """
        self.app = app
        self._ttl, self._cookies, self._body_bytes_max = ttl, cookies, body_bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer from the cache, or let the application answer and keep that."""
        if scope["type"] != "http" or not may_be_asked(
            scope["method"], scope["headers"], cookies=self._cookies
        ):
            await self.app(scope, receive, send)
            return
        cache = getattr(scope["app"].state, STATE).with_values(Values("msgpack"))
        stored = await _found(cache, scope)
        if stored is not None:
            await _answer(scope, send, stored)
        elif scope["method"] == "GET":
            keeper = _Keeper(self, cache, scope, send)
            await self.app(scope, receive, keeper.send)
        else:
            await self.app(scope, receive, send)

    def seconds(self, start: Message) -> float:
        """Return for how long to keep a response that begins so; 0 = it passes by."""
        headers = start["headers"]
        length = header(headers, b"content-length")
        # Without a length it is a stream, which may never end.
        if not length.isdigit() or int(length) > self._body_bytes_max:
            return 0.0
        return seconds_to_keep(start["status"], headers, self._ttl)


class _Keeper:
    """Stands between an application and the server for one response."""

    def __init__(self, middleware: ResponseCache, cache: AsyncCache, scope: Scope, send: Send):
        self._middleware, self._cache = middleware, cache
        self._scope, self._send = scope, send
        self._start: Message | None = None
        self._seconds = 0.0
        self._body: list[bytes] = []

    async def send(self, message: Message) -> None:
        """Take one message of the application."""
        if message["type"] == "http.response.start":
            self._seconds = self._middleware.seconds(message)
            if self._seconds:
                self._start = message
                return
        if self._start is not None and message["type"] != "http.response.body":
            # A file that the server itself is to send, trailers: nothing to keep.
            await self._send(self._start)
            self._start = None
        if self._start is None:
            await self._send(message)
            return
        self._body.append(message.get("body", b""))
        if not message.get("more_body", False):
            await self._finish(self._start)

    async def _finish(self, start: Message) -> None:
        body = b"".join(self._body)
        stored = Stored(with_etag(start["headers"], body), body, time.time())
        await _keep(self._cache, self._scope, stored, self._seconds)
        await _answer(self._scope, self._send, stored, fresh=True)


async def _found(cache: AsyncCache, scope: Scope) -> Stored | None:
    value = await cache.get(_key(scope))
    if isinstance(value, dict):
        value = await cache.get(_key(scope, value.get("vary", [])))
    return Stored.unpacked(value)


async def _keep(cache: AsyncCache, scope: Scope, stored: Stored, seconds: float) -> None:
    vary = sorted(words(header(stored.headers, b"vary")))
    if vary:
        await cache.put(_key(scope), {"vary": vary}, ttl=seconds)
    await cache.put(_key(scope, vary), stored.packed(), ttl=seconds)


def _key(scope: Scope, vary: list[bytes] | None = None) -> str:
    headers: Headers = scope["headers"]
    place = [scope["scheme"], header(headers, b"host"), scope["path"], scope["query_string"]]
    for name in vary or []:
        place += [name, header(headers, name)]
    return f"response:{key_of(place)}"


async def _answer(scope: Scope, send: Send, stored: Stored, *, fresh: bool = False) -> None:
    headers, body, status = list(stored.headers), stored.body, 200
    asked = header(scope["headers"], b"if-none-match")
    if asked and matches(asked, header(headers, b"etag")):
        headers, body, status = list(of_not_modified(headers)), b"", 304
    elif scope["method"] == "HEAD":
        body = b""
    if fresh:
        headers.append((b"cache-status", b"dcc; fwd=miss; stored"))
    else:
        age = max(0, int(time.time() - stored.made_at))
        headers += [(b"age", b"%d" % age), (b"cache-status", b"dcc; hit")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
