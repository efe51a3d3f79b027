"""The pytest plugin: a cluster for the whole session, empty at the start of each test.

It stands beside the package since pytest imports it in every project, at its start: who uses none
of its fixtures does not wait for dcc, and coverage does not find dcc imported before it has begun.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from dcc import Client, LocalCluster

TIMEOUT_SECONDS = 5.0
"Of a call of `dcc_cache`: a machine that runs tests is busy."


@pytest.fixture(scope="session")
def dcc_cluster_options() -> dict[str, Any]:
    """Arguments of `dcc.LocalCluster` for `dcc_cluster`; define a fixture of this name to change
    them."""
    return {"count": 2}


@pytest.fixture(scope="session")
def dcc_cluster(dcc_cluster_options: dict[str, Any]) -> Iterator[LocalCluster]:
    """A running `dcc.LocalCluster`; each process of pytest-xdist has one of its own."""
    from dcc import LocalCluster

    # A name of its own: no other process's node counts as one of ours, whose port it may come by.
    options = {"cluster": f"pytest-{os.getpid()}"} | dcc_cluster_options
    with LocalCluster(**options) as cluster:
        yield cluster


@pytest.fixture
def dcc_cache(dcc_cluster: LocalCluster) -> Iterator[Client]:
    """A `dcc.Client` of `dcc_cluster`, in which nothing is stored when the test begins."""
    with dcc_cluster.client(timeout=TIMEOUT_SECONDS) as client:
        client.clear()
        if "dcc.contrib.cache" in sys.modules:
            sys.modules["dcc.contrib.cache"].forget_stamps()
        yield client
