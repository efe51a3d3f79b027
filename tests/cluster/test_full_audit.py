"""The audit of a cluster that is full: nothing is wrong, and what is wrong is still seen."""

from __future__ import annotations

from collections.abc import Mapping

from dcc.client.audit import Audit, SlotAudit
from dcc.client.sweeps import WHOLE
from dcc.node.audit import content_of
from dcc.ring.hashing import slot_of
from dcc.types import Stamp
from dcc.units import MIB
from dcc.wire.messages import Op, WriteMany
from tests.support.wired_cores import Cores

NODES = ("a", "b")
VALUE = bytes(100)


def full() -> Cores:
    """Return two nodes of which each holds all slots, and forgot much of what it evicted."""
    cores = Cores(*NODES, replicas=1, memory_limit_bytes=2 * MIB)
    cores.settle()
    for first in range(0, 20_000, 500):
        items = tuple((b"k%d" % (first + number), VALUE) for number in range(500))
        # A batch that is not for one alone goes to each: both lead half of the slots.
        for name in NODES:
            cores.ask(name, WriteMany(op=Op.PUT, items=items, w=2))
        cores.step()
        for remainder, name in enumerate(NODES):  # So that they do not evict the same.
            for number in range(remainder, first, 7):
                cores.held(name, b"k%d" % number)
    cores.run(2)
    return cores


def audited(cores: Cores) -> Audit:
    """Return what `Client.audit` would."""
    found = look(cores, WHOLE)
    found.merge(look(cores, found.forget_differing()))
    return found


def look(cores: Cores, above: Mapping[int, Stamp]) -> Audit:
    found = Audit()
    for slot, stamp in above.items():
        answers = {
            name: SlotAudit(*content_of(cores[name].held.store, slot, cores.ms, stamp))
            for name in NODES
        }
        found.add(slot, answers, stamp)
    return found


def test_a_full_cluster_gives_no_alarm_and_a_value_that_is_missing_does() -> None:
    cores = full()
    found = audited(cores)
    assert (found.unexplained, found.behind) == ([], [])
    assert len(found.unknown) > 100, "they forgot what they evicted"
    assert found.clean
    lost: set[int] = set()
    store = cores["b"].held.store
    for number in range(20_000 - 1, 0, -1):
        key = b"k%d" % number
        slot = slot_of(key)
        if slot in lost or slot in found.evicted or not cores.held("a", key):
            continue
        entry = store.peek(slot, key)
        if entry is not None and entry.value:
            store._memory.remove(entry)
            lost.add(slot)
        if len(lost) == 20:
            break
    assert sorted(audited(cores).unexplained) == sorted(lost)
