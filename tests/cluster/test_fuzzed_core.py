"""A node that is given a hundred thousand frames by strangers serves, and has lost nothing."""

from __future__ import annotations

import os

import pytest

from tests.cluster.test_garbage import KEYS, filled, kept
from tests.support.fuzzer import Fuzzer

SOAK = os.environ.get("HYPOTHESIS_PROFILE") == "soak"
FRAMES = 1_000_000 if SOAK else 100_000


@pytest.mark.slow
@pytest.mark.timeout(3_600 if SOAK else 300)
def test_frames_that_are_no_write_and_no_clear_lose_nothing() -> None:
    cores = filled("a", "b")
    node = cores["a"]
    fuzzer = Fuzzer(
        1, rows=tuple(node.membership.members.values()), settings=node.membership.settings,
        epoch=node.held.view.epoch, now_ms=cores.ms,
    )  # fmt: skip
    used = node.held.store.bytes_used
    for _ in range(FRAMES // 100):
        for frames in fuzzer.harmless():
            cores.feed("a", frames, route=b"\0fuzz")
        cores.replies.clear()
        cores.step()
        fuzzer.now_ms = cores.ms
    cores.run(20)
    assert kept(cores) == set(KEYS)
    cores.put("a", b"after", b"v", w=2)
    cores.run(0.2)
    assert cores.held("a", b"after") == cores.held("b", b"after") == b"v"
    assert node.held.store.bytes_used < 2 * used + 100_000
