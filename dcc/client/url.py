"""One text that says how to reach a cluster and how to use it: `dcc://host:port,…/namespace?…`.

Every framework has a place for a URL; so everything can be said in one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from dcc.client.arguments import DEFAULT_NODE, node_addresses

SCHEME = "dcc"
DEFAULT_PORT = DEFAULT_NODE.rpartition(":")[2]


def _count(text: str) -> int | str:
    return int(text) if text.lstrip("-").isdecimal() else text


def _seconds_or_never(text: str) -> float | None:
    return None if text.lower() in ("none", "never") else float(text)


CLIENT_OPTIONS: Mapping[str, Callable[[str], Any]] = {
    "timeout": float,
    "default_ttl": _seconds_or_never,
    "read": str,
    "r": _count,
    "w": _count,
    "name": str,
    "cluster": str,
    "keys": str,
}
"Those of `Client`, and how to read them."

CACHE_OPTIONS: Mapping[str, Callable[[str], Any]] = {
    "serializer": str,
    "compress": str,
    "on_error": str,
    "clear_age": float,
}
"Those of `dcc.contrib.cache.Cache`."


@dataclass(frozen=True, slots=True)
class Url:
    """What a URL says."""

    nodes: tuple[str, ...]
    namespace: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    "Name -> value of the right type, for those that were given."


def parse_url(text: str) -> Url:
    """Return what `text` says; ValueError if it is no such URL, or names an unknown option.

    A host without a port means port 6740; without hosts, the default node.

    >>> parse_url("dcc://a:1,b/shop?timeout=0.2&w=all")
    Url(nodes=('a:1', 'b:6740'), namespace='shop', options={'timeout': 0.2, 'w': 'all'})
    """
    parts = urlsplit(text)
    if parts.scheme != SCHEME:
        raise ValueError(f"url: dcc://host:port,…/namespace?option=…; got {text!r}")
    if "@" in parts.netloc or parts.fragment:
        raise ValueError(f"url: no user, password or fragment; got {text!r}")
    nodes = ",".join(_with_port(host) for host in parts.netloc.split(",") if host)
    known = {**CLIENT_OPTIONS, **CACHE_OPTIONS}
    options: dict[str, Any] = {}
    for name, value in parse_qsl(
        parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)
    ):
        if name not in known:
            raise ValueError(f"url: option {name!r} is unknown; there are {', '.join(known)}")
        try:
            options[name] = known[name](value)
        except ValueError as error:
            raise ValueError(f"url: {name}={value!r}: {error}") from None
    namespace = unquote(parts.path.strip("/")) or None
    return Url(node_addresses(nodes or None, None), namespace, options)


def _with_port(host: str) -> str:
    bare = host.endswith("]") if host.startswith("[") else ":" not in host
    return f"{host}:{DEFAULT_PORT}" if bare else host
