"""Keys that a node served are named to their other owners, which then keep them."""

from __future__ import annotations

from dataclasses import replace

from dcc.effects import Tell
from dcc.limits import BATCH_BYTES
from dcc.replication import served
from dcc.replication.served import EVERY, INTERVAL_NS, ServedKeys
from dcc.ring.hashing import slot_of
from dcc.types import Kind, NodeKey, node_key
from dcc.units import SECOND
from dcc.wire.messages import Get, GetMany, Message, Served
from simulations import crash_hits
from tests.support.wired_cores import Cores

NAMED_WITHIN = 2 * INTERVAL_NS / SECOND


def watched() -> tuple[Cores, list[tuple[NodeKey, tuple[bytes, ...]]]]:
    """Return three nodes with two copies, and the list of names that grows as they are sent."""
    cores = Cores("a", "b", "c", replicas=1)
    cores.settle()
    names: list[tuple[NodeKey, tuple[bytes, ...]]] = []

    def listen(_source: NodeKey, target: NodeKey, message: Message) -> bool:
        if isinstance(message, Served):
            names.append((target, message.keys))
        return False

    cores.lost = listen
    return cores, names


def test_a_key_that_is_read_is_named_once_to_the_other_owner_alone() -> None:
    cores, names = watched()
    key = cores.key_of("a", "b")
    cores.put("a", key, b"v")
    cores.run(NAMED_WITHIN)
    assert names == [], "a write names nothing"
    for _ in range(3 * EVERY):
        cores.get("a", key)
    cores.run(NAMED_WITHIN)
    assert names == [(node_key("b"), (key,))]
    assert cores["b"].served.heard == 1
    cores.run(5)
    assert len(names) == 1, "what was named is forgotten"


def test_reads_of_many_keys_name_one_in_so_many() -> None:
    cores, names = watched()
    keys = [cores.fresh_key("a", "b") for _ in range(4 * EVERY)]
    for key in keys:
        cores.put("a", key, b"v")
    cores.ask("a", GetMany(keys=tuple(keys)))
    cores.run(NAMED_WITHIN)
    [(target, named)] = names
    assert target == node_key("b")
    assert len(named) == 4
    assert set(named) < set(keys)


def test_reads_on_the_ordinary_path_count_too() -> None:
    cores, names = watched()
    key = cores.key_of("a", "b")
    cores.put("a", key, b"v")
    for _ in range(2 * EVERY):
        cores.ask("a", Get(key=key, r=2))
        cores.step()
    cores.run(NAMED_WITHIN)
    assert (node_key("b"), (key,)) in names


def test_what_is_named_outlives_what_is_not_at_an_owner_that_nobody_reads() -> None:
    cores, _names = watched()
    hot, cold = cores.fresh_key("a", "b"), cores.fresh_key("a", "b")
    for key in (hot, cold):
        cores.put("a", key, b"v" * 16_000)
    for _ in range(EVERY):
        cores.get("a", hot)
    cores.run(NAMED_WITHIN)
    store = cores["b"].held.store
    while (found := store.peek(slot_of(cold), cold)) is not None and found.kind is Kind.VALUE:
        cores.put("a", cores.fresh_key("a", "b"), b"v" * 16_000)
        cores.step()
    kept = store.peek(slot_of(hot), hot)
    assert kept is not None
    assert kept.kind is Kind.VALUE, "it was written before the other"


def test_names_are_bounded_in_number_and_in_bytes() -> None:
    cores = Cores("a", "b", replicas=1)
    cores.settle()
    keys = ServedKeys(cores["a"].held)
    at = cores["a"].turn(cores.now)
    for i in range(5_000):
        keys.served(b"%0512d" % i)
    keys.tick(at)
    [tell] = keys.tick(at._replace(mono=at.mono + INTERVAL_NS))
    assert isinstance(tell, Tell)
    assert isinstance(tell.message, Served)
    assert 0 < sum(len(key) for key in tell.message.keys) <= BATCH_BYTES
    assert keys.tick(at._replace(mono=at.mono + 9 * INTERVAL_NS)) == []


def test_none_are_named_where_the_option_says_so() -> None:
    cores = Cores("a", "b", replicas=1)
    cores.settle()
    held = cores["a"].held
    held.config = replace(held.config, named_keys_per_second=0)
    keys = ServedKeys(held)
    keys.served(b"k")
    assert keys.tick(cores["a"].turn(cores.now)) == []


def test_after_a_crash_of_a_full_cache_more_of_what_was_popular_is_left() -> None:
    """The figures are printed by `python -m simulations crash-hits`; see docs/decisions.md."""
    assert served.EVERY == 8
    without = crash_hits.measure(named=0, eviction="lru", reads=8_000, seed=1)
    named = crash_hits.measure(named=1_000, eviction="lru", reads=8_000, seed=1)
    assert named.after_crash > without.after_crash + 0.1
    assert named.healthy > without.healthy - 0.05
