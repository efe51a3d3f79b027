"""What a node tells clients that listen: each change once, in order, or that nothing changed."""

from __future__ import annotations

from random import Random

from xxhash import xxh3_64_intdigest

from dcc.config import NodeConfig
from dcc.effects import Gossip
from dcc.node.core import NodeCore
from dcc.node.watchers import BEAT_MS, CHANGES_MAX, EACH, KEPT_NS, Watchers
from dcc.replication.holdings import Instant
from dcc.types import CLIENTS, Now
from dcc.units import MILLISECOND, SECOND
from dcc.wire.messages import Changes


def watchers() -> Watchers:
    config = NodeConfig(name="a", request="a:1", gossip="a:2")
    core = NodeCore(config, boot=1, rng=Random(1), now=Now(SECOND, SECOND))
    return core.machines.watchers


def told(of: Watchers, mono: int) -> list[Changes]:
    effects = of.tick(Instant(mono, 0))
    messages = [effect.message for effect in effects if isinstance(effect, Gossip)]
    assert all(isinstance(effect, Gossip) and effect.to == CLIENTS for effect in effects)
    return [message for message in messages if isinstance(message, Changes)]


def test_nobody_is_told_anything_who_does_not_listen() -> None:
    node = watchers()
    node.changed(b"k", 5)
    assert told(node, 10 * SECOND) == []
    assert node.wake_at() > 1 << 60


def test_each_change_is_told_once_and_in_order() -> None:
    node = watchers()
    node.changed(b"before", 4)
    assert node.watch(SECOND).every_ms == BEAT_MS
    node.changed(b"k", 5)
    node.changed(b"l", 6)
    keys = (xxh3_64_intdigest(b"k"), xxh3_64_intdigest(b"l"))
    assert told(node, SECOND) == [Changes(number=1, keys=keys, stamps=(5, 6))]
    assert told(node, SECOND + MILLISECOND) == []
    beat = SECOND + BEAT_MS * MILLISECOND
    assert node.wake_at() == beat
    assert told(node, beat) == [Changes(number=3, keys=(), stamps=())]


def test_many_changes_take_several_messages_and_too_many_are_a_gap() -> None:
    node = watchers()
    node.watch(SECOND)
    told(node, SECOND)
    for number in range(EACH + 1):
        node.changed(b"%d" % number, number + 1)
    assert [(one.number, len(one.keys)) for one in told(node, SECOND)] == [(0, EACH), (EACH, 1)]
    for number in range(CHANGES_MAX + 1):
        node.changed(b"%d" % number, 5)
    assert told(node, SECOND) == [Changes(number=EACH + CHANGES_MAX + 2, keys=(), stamps=())]


def test_what_happened_while_nobody_listened_is_a_gap() -> None:
    node = watchers()
    node.watch(SECOND)
    told(node, SECOND)
    assert told(node, SECOND + KEPT_NS) == []
    node.changed(b"missed", 5)
    node.watch(SECOND + 2 * KEPT_NS)
    assert told(node, SECOND + 2 * KEPT_NS) == [Changes(number=1, keys=(), stamps=())]
