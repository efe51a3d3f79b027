"""The keywords of clients and caches as types, for programs that pass them on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypedDict

from dcc.client.arguments import Quorum, ReadPolicy, Ttl
from dcc.client.near import NearCache
from dcc.client.values import Serializer

EventHook = Callable[[str, Mapping[str, Any]], object]
"Called with the name of an event and its fields."


class _Common(TypedDict, total=False):
    timeout: float
    default_ttl: Ttl
    read: ReadPolicy
    r: Quorum
    w: Quorum
    name: str | None
    cluster: str
    keys: str | Path | None


class ClientOptions(_Common, total=False):
    """Keywords of `Client` beside the nodes."""

    near_cache: NearCache | None
    on_event: EventHook | None


class AsyncClientOptions(ClientOptions, total=False):
    """Keywords of `AsyncClient` beside the nodes."""

    in_flight: int


class CacheOptions(_Common, total=False):
    """Keywords of `Cache` and `AsyncCache` that a URL can say, too."""

    serializer: Literal["json", "msgpack", "pickle"] | Serializer | None
    compress: int | str | None
    on_error: Literal["raise", "miss"]
    clear_age: float
