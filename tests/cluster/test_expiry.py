"""A key expires at one instant, whichever of its copies is read."""

from __future__ import annotations

from dcc.ring.hashing import slot_of
from dcc.units import MILLISECOND
from dcc.wire.messages import Get, GetReply, Op, Status, Write
from tests.support.wired_cores import Cores


def test_all_copies_expire_at_the_same_instant() -> None:
    names = ("a", "b", "c")
    cores = Cores(*names, replicas=2)
    cores.settle()
    key = cores.key_of(*names)
    cores.ask("a", Write(op=Op.PUT, key=key, value=b"v", ttl_ms=3_000, w=3))
    cores.run(1)
    copies = [cores[name].held.store.peek(slot_of(key), key) for name in names]
    [end_ms] = {copy.expires_at_ms for copy in copies if copy is not None}
    assert None not in copies
    cores.until(lambda: cores.ms >= end_ms - 20)
    cores.step((end_ms - 1 - cores.ms) * MILLISECOND)
    assert {read(cores, name, key) for name in names} == {Status.HIT}
    cores.step(MILLISECOND)
    assert cores.ms == end_ms
    assert Status.HIT not in {read(cores, name, key) for name in names}


def read(cores: Cores, name: str, key: bytes) -> Status | None:
    """Return what a node answers of itself at once; None if it asks others first."""
    for reply in cores.ask(name, Get(key=key, direct=True)):
        assert isinstance(reply, GetReply)
        return reply.status
    return None
