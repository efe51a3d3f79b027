"""A client of another cluster is told at once, not after its whole patience."""

from __future__ import annotations

import time

import pytest

import dcc
from dcc import LocalCluster


@pytest.mark.process
def test_a_client_that_every_node_refuses_does_not_wait_for_its_deadline() -> None:
    with LocalCluster(1) as cluster:
        address = cluster.nodes[0].address
        began = time.monotonic()
        with (
            dcc.Client(address, cluster="another", timeout=20) as client,
            pytest.raises(dcc.WrongCluster) as refused,
        ):
            client.get("key")
    assert refused.value.definite
    assert time.monotonic() - began < 10
