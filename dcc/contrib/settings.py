"""What a cache was told, from a URL, the environment and keywords, checked and merged."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, Self
from urllib.parse import quote

from dcc.client.arguments import node_addresses, refuse_pickling
from dcc.client.url import CACHE_OPTIONS, CLIENT_OPTIONS, SCHEME, parse_url
from dcc.client.values import Values
from dcc.contrib.plans import CLEAR_AGE_SECONDS, NAMESPACE_BYTES_MAX, Space


@dataclass(frozen=True)
class Settings:
    """All that makes one cache differ from another."""

    nodes: tuple[str, ...]
    namespace: str | None
    values: Values
    fail_open: bool
    clear_age: float
    client: dict[str, Any]
    "Keywords of `Client`."

    @property
    def client_key(self) -> tuple[object, ...]:
        """Equal for caches that can share a client."""
        return (self.nodes, *sorted(self.client.items()))

    @property
    def cluster_key(self) -> tuple[object, ...]:
        """Equal for caches of one cluster."""
        return (self.nodes, self.client.get("cluster", "dcc"))


class OfOneProcess:
    """What has connections: it can be copied, the copy has the same ones, but not pickled."""

    settings: Settings

    def __copy__(self) -> Self:
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

    def __reduce__(self) -> NoReturn:
        refuse_pickling(self.settings.nodes)


def settings_of(
    url: str | None,
    nodes: str | Iterable[str] | None,
    namespace: str | None,
    given: Mapping[str, Any],
    defaults: Mapping[str, Any],
) -> Settings:
    """Return the settings; TypeError or ValueError name what cannot be.

    Keywords go before the URL, the URL (or DCC_URL, where none is given) before `defaults`.
    `nodes` are used instead of those of the URL; with neither DCC_NODES are, and then the default
    node. The namespace "" is none, for who wants that though there is a default.
    """
    unknown = sorted(given.keys() - CLIENT_OPTIONS.keys() - CACHE_OPTIONS.keys())
    if unknown:
        known = ", ".join(["nodes", "namespace", *CLIENT_OPTIONS, *CACHE_OPTIONS])
        raise TypeError(f"unknown option {unknown[0]!r}; there are {known}")
    if url is not None and not isinstance(url, str):
        raise TypeError(f"url: str, got {type(url).__name__}")
    text = url if url is not None or nodes is not None else os.environ.get("DCC_URL")
    options = dict(defaults)
    if text:
        said = parse_url(text if "://" in text else f"{SCHEME}://{text}")
        nodes = said.nodes if nodes is None else nodes
        namespace = said.namespace if namespace is None else namespace
        options.update(said.options)
    options.update(given)
    on_error = options.pop("on_error", "raise")
    if on_error not in ("raise", "miss"):
        raise ValueError(f'on_error: "raise" or "miss", got {on_error!r}')
    usual = options.pop("namespace", None)
    namespace = (usual if namespace is None else namespace) or None
    if namespace is not None:
        Space(namespace)
    return Settings(
        nodes=node_addresses(nodes, os.environ.get("DCC_NODES")),
        namespace=namespace,
        values=Values(options.pop("serializer", None), options.pop("compress", None)),
        fail_open=on_error == "miss",
        clear_age=float(options.pop("clear_age", CLEAR_AGE_SECONDS)),
        client=options,
    )


def namespace_from(prefix: str) -> str:
    """Return a namespace that is this key prefix's own, for frameworks that know no namespaces.

    >>> namespace_from("shop:v1:")
    'shop%3Av1%3A'
    """
    name = quote(prefix, safe="")
    if len(name) <= NAMESPACE_BYTES_MAX:
        return name
    return hashlib.blake2b(prefix.encode(), digest_size=20).hexdigest()
