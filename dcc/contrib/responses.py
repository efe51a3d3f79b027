"""What a shared cache of HTTP responses may keep, and how it is answered from: RFC 9111, in short.

Pure functions over ASGI's headers (lists of pairs of bytes, names in lower case).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Headers = Sequence[tuple[bytes, bytes]]

FORBIDDING = (b"private", b"no-store", b"no-cache")
OF_NOT_MODIFIED = (b"cache-control", b"content-location", b"date", b"etag", b"expires", b"vary")
"Headers that a 304 carries."


@dataclass(frozen=True, slots=True)
class Stored:
    """A response as it is kept."""

    headers: Headers
    body: bytes
    made_at: float

    def packed(self) -> list[Any]:
        """Return it as what msgpack can hold."""
        return [[list(pair) for pair in self.headers], self.body, self.made_at]

    @classmethod
    def unpacked(cls, value: Any) -> Stored | None:
        """Return what was packed; None if it is none."""
        match value:
            case [list(headers), bytes(body), float(made_at)]:
                return cls([(name, text) for name, text in headers], body, made_at)
        return None


def header(headers: Headers, name: bytes) -> bytes:
    """Return the values of a header, with commas; empty if there is none.

    >>> header([(b"vary", b"accept"), (b"vary", b"origin")], b"vary")
    b'accept,origin'
    """
    return b",".join(text for key, text in headers if key.lower() == name)


def words(text: bytes) -> list[bytes]:
    """Return the parts of a list in a header, in lower case.

    >>> words(b"Max-Age=60, private")
    [b'max-age=60', b'private']
    """
    return [part for part in (raw.strip().lower() for raw in text.split(b",")) if part]


def may_be_asked(method: str, headers: Headers, *, cookies: bool) -> bool:
    """Return whether a request may be answered from a cache of everybody."""
    if method not in ("GET", "HEAD") or header(headers, b"authorization"):
        return False
    if header(headers, b"range") or (header(headers, b"cookie") and not cookies):
        return False
    control = words(header(headers, b"cache-control"))
    return not {b"no-store", b"no-cache", b"max-age=0"} & set(control)


def seconds_to_keep(status: int, headers: Headers, ttl: float | None) -> float:
    """Return for how many seconds a response may be kept; 0 = not at all.

    Its own s-maxage goes before its max-age, and that before `ttl`.

    >>> seconds_to_keep(200, [(b"cache-control", b"public, max-age=60")], None)
    60.0
    >>> seconds_to_keep(200, [(b"set-cookie", b"a=b")], 60)
    0.0
    """
    control = words(header(headers, b"cache-control"))
    refused = any(word.partition(b"=")[0] in FORBIDDING for word in control)
    if status != 200 or refused or header(headers, b"set-cookie"):
        return 0.0
    if b"*" in words(header(headers, b"vary")):
        return 0.0
    for name in (b"s-maxage=", b"max-age="):
        for word in control:
            text = word.removeprefix(name)
            if text != word:
                return float(text) if text.isdigit() else 0.0
    return float(ttl or 0)


def with_etag(headers: Headers, body: bytes) -> Headers:
    """Return `headers` with an ETag made of the body, unless they have one."""
    if header(headers, b"etag"):
        return headers
    mark = hashlib.blake2b(body, digest_size=12).hexdigest().encode()
    return [*headers, (b"etag", b'"' + mark + b'"')]


def matches(asked: bytes, etag: bytes) -> bool:
    """Return whether If-None-Match names this ETag; weak and strong are the same here.

    >>> matches(b'W/"a", "b"', b'"b"'), matches(b"*", b'"b"'), matches(b'"a"', b'"b"')
    (True, True, False)
    """
    tags = [raw.strip().removeprefix(b"W/") for raw in asked.split(b",")]
    return b"*" in tags or etag.removeprefix(b"W/") in tags


def of_not_modified(headers: Headers) -> Headers:
    """Return those headers that a 304 carries."""
    return [pair for pair in headers if pair[0].lower() in OF_NOT_MODIFIED]


def key_of(parts: Iterable[str | bytes]) -> str:
    """Return a key for these parts: their hash, because paths are long and headers private."""
    machine = hashlib.blake2b(digest_size=20)
    for part in parts:
        raw = part if isinstance(part, bytes) else part.encode("utf-8", "surrogatepass")
        machine.update(len(raw).to_bytes(4, "big") + raw)
    return machine.hexdigest()
