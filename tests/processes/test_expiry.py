"""Expiry is no divergence: three real nodes forget what has expired without a word about it.

Each node finds out by its own clock, at its own moment. While that goes on, for `SPREAD_SECONDS`
more than writing took, the nodes are made to compare all they hold (a node that stood still does
so), and nothing may be sent.

    DCC_TEST_TTL_KEYS=200000 DCC_TEST_TTL_SECONDS=60 pytest -s tests/processes/test_expiry.py
"""

from __future__ import annotations

import os
import signal
import time

import pytest

import dcc
from tests.support.processes import Processes, wait_until

KEYS = int(os.environ.get("DCC_TEST_TTL_KEYS", "20000"))
TTL_SECONDS = float(os.environ.get("DCC_TEST_TTL_SECONDS", "6"))
BLOCK = 500
SPREAD_SECONDS = 12.0
"From the first key's end to the last one's, besides the time that writing takes."
STILL_SECONDS = 1.5
"More than the second from which on a node knows that it stood still; less than makes it dead."

pytestmark = [pytest.mark.process, pytest.mark.timeout(150 + 3 * TTL_SECONDS)]


def exchanged(client: dcc.Client, what: str) -> dict[str, int]:
    """Return a count of the exchange, by node."""
    nodes = client.stats().nodes
    assert len(nodes) == 3
    return {name: one.detail["exchange"][what] for name, one in nodes.items()}


def test_no_entry_is_exchanged_while_and_after_keys_expire(processes: Processes) -> None:
    nodes = processes.nodes(3, "--replicas", "2")
    with dcc.Client([node.address for node in nodes], timeout=10) as client:

        def total() -> dcc.NodeStats:
            return client.stats().total

        def idle() -> bool:
            return total().slots_ready and total().replication_lag_seconds == 0

        def compare_all() -> None:
            before = exchanged(client, "rounds")
            for node in nodes:
                node.signal(signal.SIGSTOP)
                time.sleep(STILL_SECONDS)
                node.signal(signal.SIGCONT)
            wait_until(lambda: all_above(exchanged(client, "rounds"), before) and idle(), 60)

        began, again = time.monotonic(), 0
        for first in range(0, KEYS, BLOCK):
            block = {f"key-{i}": b"." * 100 for i in range(first, first + BLOCK)}
            ttl = TTL_SECONDS + SPREAD_SECONDS * first / KEYS
            while block:  # A starved machine may leave some of them undecided.
                block = dict.fromkeys(client.put_many(block, ttl=ttl), b"." * 100)
                again += len(block)
        written = time.monotonic() - began
        wait_until(idle, 60)
        quiet = exchanged(client, "records")
        wait_until(lambda: total().expired > 0, TTL_SECONDS + 30)
        compare_all()
        at_expiry = total()
        wait_until(lambda: total().items == 0, TTL_SECONDS + SPREAD_SECONDS + 30)
        gone = time.monotonic() - began
        compare_all()
        after, end = exchanged(client, "records"), total()
        assert client.get_many([f"key-{i}" for i in range(0, KEYS, KEYS // 100)]) == {}
    print(
        f"\n{KEYS} keys with a ttl of {TTL_SECONDS:g} s on 3 nodes: written in {written:.1f} s,"
        f" {again} of them again,"
        f" {at_expiry.items} values left after the first comparison, all gone {gone:.1f} s after"
        f" the first write; {end.expired} expired; records exchanged until quiet"
        f" {sum(quiet.values())}, since then {sum(after.values()) - sum(quiet.values())}"
    )
    assert at_expiry.items > 0, "some had expired and others not, all the time of the comparison"
    assert end.expired == 3 * KEYS
    assert after == quiet


def all_above(now: dict[str, int], before: dict[str, int]) -> bool:
    """Return whether every node's count has risen."""
    return all(now[name] > count for name, count in before.items())
