"""A node that leaves hands its slots over first, as long as there is anybody to take them."""

from __future__ import annotations

from dcc.effects import Notify
from dcc.ring.hashing import slot_of
from dcc.types import Standing
from dcc.units import MILLISECOND
from dcc.wire.messages import PullReply
from tests.support.wired_cores import Cores


def standing(cores: Cores, name: str, other: str) -> Standing:
    """Return what `name` thinks of `other`."""
    return cores[name].membership.members[cores[other].key].standing


def two() -> tuple[Cores, bytes]:
    """Return two nodes without copies, and a key that only the first holds."""
    cores = Cores("a", "b", replicas=0)
    cores.settle()
    key = cores.key_of("a")
    cores.put("a", key, b"v")
    return cores, key


def test_a_node_that_leaves_while_the_last_other_is_suspected_waits_for_it() -> None:
    cores, key = two()
    cores.stopped.add("b")
    cores.until(lambda: standing(cores, "a", "b") is Standing.SUSPECT)
    cores.carry("a", cores["a"].leave(cores.now))
    cores.run(0.3)
    assert standing(cores, "a", "b") is Standing.SUSPECT
    assert not cores["a"].left, "the only copy would be gone with it"
    cores.stopped.discard("b")
    cores.until(lambda: cores["a"].left)
    assert cores.held("b", key) == b"v"


def test_a_node_that_leaves_while_all_others_are_down_does_not_wait() -> None:
    cores, key = two()
    cores.stopped.add("b")
    cores.until(lambda: standing(cores, "a", "b") is Standing.DEAD)
    cores.carry("a", cores["a"].leave(cores.now))
    cores.run(1.0)
    assert cores["a"].left
    assert cores["a"].held.store.peek(slot_of(key), key) is not None


def test_a_leave_that_is_cut_off_says_what_it_takes_along() -> None:
    cores, _key = two()
    events: list[Notify] = []
    cores.lost = lambda _a, _b, message: isinstance(message, PullReply)
    leaver = cores["a"]
    for effect in leaver.leave(cores.now):
        cores.carry("a", [effect])
    while not leaver.left:
        cores.mono += 10 * MILLISECOND
        effects = leaver.tick(cores.now)
        events += [effect for effect in effects if isinstance(effect, Notify)]
        cores.carry("a", effects)
        cores.carry("b", cores["b"].tick(cores.now))
    [notice] = [event for event in events if event.event == "left_with_data"]
    assert notice.fields["slots"] > 0
