"""A cluster for the adapters' tests, and one that never answers."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from dcc import LocalCluster
from dcc.contrib.cache import close_shared_clients


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """Two nodes, for all tests of one file."""
    with LocalCluster(2) as cluster:
        yield cluster
        close_shared_clients()


@pytest.fixture
def url(cluster: LocalCluster) -> str:
    """The URL of the cluster, without a namespace."""
    return "dcc://" + ",".join(node.address for node in cluster.nodes)


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of something that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
