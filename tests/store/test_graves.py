"""Graves: what is left of forgotten records, and what they keep away."""

from __future__ import annotations

from dcc.store.store import Applied
from dcc.units import MIB
from tests.store.test_store import SLOT, delete, make, put


def test_a_grave_lets_nothing_older_in_and_drops_what_is_there() -> None:
    store, other = make(), make()
    other.apply(SLOT, put(3, prev=0, origin=(8, 1)), 0)
    store.apply(SLOT, delete(5, prev=0), 0)
    assert store.forgetting.forget_covered(SLOT, []) == 1
    graves = store.graves.lacking(SLOT, other.clock(SLOT))
    assert graves
    assert not store.graves.lacking(SLOT, store.clock(SLOT)), "who covers it has seen it"
    other.forgetting.bury(SLOT, graves)
    assert other.peek(SLOT, b"k") is None
    for node in (store, other):
        assert node.apply(SLOT, put(4, prev=3, origin=(8, 1)), 0) is Applied.OLDER
        assert node.apply(SLOT, put(6, prev=4, origin=(8, 1)), 0) is Applied.NEWER
        node.check()


def test_graves_keep_to_their_share_of_the_memory() -> None:
    store = make(MIB)
    for n in range(2000):
        store.apply(SLOT, delete(5 + n, b"%d" % n, prev=4 + n if n else 0), 0)
        store.forgetting.forget_covered(SLOT, [])
    assert 0 < store.graves.bytes_used <= MIB // 64
    store.check()
