"""Scan, clear, statistics, inspection and topology, driven by hand."""

from __future__ import annotations

import pytest

from dcc.client.asks import RINGS_MAX
from dcc.client.shared import ATTEMPT_MOST_NS
from dcc.errors import MaybeStored, NodeUnavailable, OperationTimeout
from dcc.limits import SLOT_COUNT
from dcc.ring.hashing import slot_of
from dcc.types import Kind, Record, Standing, Version
from dcc.units import SECOND
from dcc.wire.codec import Header
from dcc.wire.messages import (
    Clear,
    ClearReply,
    Code,
    ErrorReply,
    Inspect,
    InspectReply,
    Message,
    Scan,
    ScanReply,
    StatsGet,
    StatsReply,
    TopologyGet,
)
from tests.support.client_driver import TRIP_NS, Bench
from tests.support.client_peers import Answer, Peer

KEYS = sorted(b"key:%d" % number for number in range(300))
ALL = Scan(slots=tuple(range(SLOT_COUNT)), prefix=b"")


def cluster(**options: int) -> Bench:
    """Return a bench in which every peer holds what it owns, and no more."""
    bench = Bench("abc", **options).learn()
    for key in KEYS:
        for address in bench.order(key)[:2]:
            bench.peers[address].data[key] = b"v"
    return bench


def held(peer: Peer, scan: Scan) -> list[bytes]:
    """Return the keys of the slots in the order in which a node lists them."""
    place = {slot: number for number, slot in enumerate(scan.slots)}
    keys = [key for key in sorted(peer.data) if slot_of(key) in place]
    return sorted(keys, key=lambda key: place[slot_of(key)])


def test_a_scan_lists_every_key_once() -> None:
    bench = cluster()
    assert sorted(bench.do(ALL)) == KEYS
    assert sorted(sent.address for sent in bench.asked(Scan)) == ["a:1", "b:1", "c:1"]


def test_a_scan_goes_on_where_a_reply_was_cut() -> None:
    bench = cluster()
    for peer in bench.peers.values():

        def answer(header: Header, message: Message, peer: Peer = peer) -> list[Message]:
            assert isinstance(message, Scan)
            keys = [key for key in held(peer, message) if key > message.after or
                    slot_of(key) != message.slots[0]]  # fmt: skip
            if len(keys) <= 10:
                return [ScanReply(done=len(message.slots), keys=tuple(keys), unsure=())]
            done = message.slots.index(slot_of(keys[9]))
            return [ScanReply(done=done, keys=tuple(keys[:10]), unsure=())]

        peer.answer = answer
    found = bench.do(ALL, timeout_ns=20 * SECOND)
    assert sorted(found) == KEYS
    assert len(bench.asked(Scan)) > 20


def test_slots_that_a_node_cannot_speak_for_alone_are_asked_of_their_other_owners_too() -> None:
    bench = cluster()
    peer = bench.peers["a:1"]
    for key in list(peer.data)[::2]:
        del peer.data[key]

    def answer(header: Header, message: Message) -> list[Message]:
        assert isinstance(message, Scan)
        keys = tuple(held(peer, message))
        return [ScanReply(done=len(message.slots), keys=keys, unsure=message.slots)]

    peer.answer = answer
    assert sorted(bench.do(ALL)) == KEYS


@pytest.mark.parametrize("how", ["down", "mute", "refuse", "stuck"])
def test_a_scan_goes_round_a_node_that_fails(how: str) -> None:
    bench = cluster()
    peer = bench.peers["a:1"]
    if how == "down":
        bench.down = {"a:1"}
    elif how == "mute":
        bench.mute = {"a:1"}
    elif how == "refuse":
        peer.answer = lambda header, message: [ErrorReply(code=Code.NOT_READY, text="")]
    else:
        peer.answer = lambda header, message: [ScanReply(done=0, keys=(), unsure=())]
    assert sorted(bench.do(ALL)) == KEYS


def test_a_scan_waits_for_owners_that_are_all_late() -> None:
    bench = cluster()
    bench.delay_ns = dict.fromkeys(("a:1", "b:1", "c:1"), ATTEMPT_MOST_NS * 3 // 2)
    assert sorted(bench.do(ALL)) == KEYS


def test_a_scan_with_holes_is_an_error_and_never_a_short_list() -> None:
    bench = cluster()
    bench.down = {"a:1", "b:1", "c:1"}
    with pytest.raises(NodeUnavailable):
        bench.do(ALL)
    bench = cluster()
    bench.mute = {"a:1", "b:1", "c:1"}
    with pytest.raises((NodeUnavailable, OperationTimeout)):
        bench.do(ALL)


def unsure(bench: Bench) -> None:
    """Let every peer list what it holds, and be sure of nothing that it is not told to lead."""
    for peer in bench.peers.values():

        def answer(header: Header, message: Message, peer: Peer = peer) -> list[Message]:
            if not isinstance(message, Scan):
                return peer.serve(header, message)
            keys = tuple(held(peer, message))
            return [ScanReply(done=len(message.slots), keys=keys, unsure=message.slots)]

        peer.answer = answer


def test_a_scan_follows_its_slots_to_a_ring_that_the_client_does_not_know_yet() -> None:
    bench = Bench("abc", replicas=0)
    bench.standings["c:1"] = Standing.REMOVED
    bench.publish()
    bench.learn()
    bench.standings["c:1"] = Standing.ALIVE
    bench.publish(epoch=2)
    bench.peers["c:1"].data = dict.fromkeys(KEYS, b"v")  # The others have released all of it.
    unsure(bench)
    assert sorted(bench.do(ALL)) == KEYS
    assert len(bench.asked(TopologyGet)) == 1


def test_a_scan_between_two_rings_ends() -> None:
    bench = cluster()
    unsure(bench)
    for epoch, peer in enumerate(bench.peers.values(), start=2):
        peer.epoch = epoch
    assert sorted(bench.do(ALL)) == KEYS
    assert len(bench.asked(TopologyGet)) <= RINGS_MAX


def test_what_new_owners_are_still_to_get_a_scan_finds_at_the_former_owner() -> None:
    bench = Bench("abcd", replicas=1).learn()
    unsure(bench)
    for key in KEYS:
        bench.peers[bench.order(key)[2]].data[key] = b"v"
    assert sorted(bench.do(ALL)) == KEYS


def away(bench: Bench, *, until_ns: int = 0) -> Bench:
    """Let "a:1" have missed until then that every second key was deleted, and say so."""
    peer, gone = bench.peers["a:1"], KEYS[::2]
    unsure(bench)
    for address in ("b:1", "c:1"):
        for key in gone:
            bench.peers[address].data.pop(key, None)

    def answer(header: Header, message: Message) -> list[Message]:
        if not isinstance(message, Scan):
            return peer.serve(header, message)
        slots = message.slots
        if bench.mono < until_ns:
            keys = held(peer, message)
            return [ScanReply(done=len(slots), keys=tuple(keys), unsure=slots, old=slots)]
        keys = [key for key in held(peer, message) if key not in gone]
        return [ScanReply(done=len(slots), keys=tuple(keys), unsure=())]

    peer.answer = answer
    return bench


def test_a_scan_waits_for_a_node_that_has_been_away_rather_than_list_what_was_deleted() -> None:
    bench = cluster()
    away(bench, until_ns=bench.mono + SECOND // 2)
    assert sorted(bench.do(ALL, timeout_ns=2 * SECOND)) == KEYS[1::2]


def test_a_scan_that_waited_in_vain_leaves_nothing_out() -> None:
    bench = cluster()
    began, timeout_ns = bench.mono, 2 * SECOND
    away(bench, until_ns=began + 100 * SECOND)
    mine = [key for key in KEYS[::2] if "a:1" in bench.order(key)[:2]]
    assert sorted(bench.do(ALL, timeout_ns=timeout_ns)) == sorted([*KEYS[1::2], *mine])
    assert bench.mono - began < timeout_ns


def new_owner(bench: Bench, *, lacking: bool, until_ns: int) -> None:
    """Let "a:1" have the keys or not yet, and "b:1", which has, be out of reach until then."""
    peer = bench.peers["a:1"]
    unsure(bench)
    bench.down = {"b:1"}
    if lacking:
        peer.data.clear()

    def answer(header: Header, message: Message) -> list[Message]:
        if bench.mono >= until_ns:
            bench.down = set()
        if not isinstance(message, Scan):
            return peer.serve(header, message)
        slots, keys = message.slots, tuple(held(peer, message))
        poor = slots if lacking else ()
        return [ScanReply(done=len(slots), keys=keys, unsure=slots, lacking=poor)]

    peer.answer = answer


def test_a_scan_waits_for_an_owner_out_of_reach_while_the_other_may_lack_keys() -> None:
    bench = cluster()
    new_owner(bench, lacking=True, until_ns=bench.mono + SECOND // 2)
    assert sorted(bench.do(ALL, timeout_ns=2 * SECOND)) == KEYS


def test_a_scan_does_not_wait_for_an_owner_out_of_reach_if_the_other_has_all() -> None:
    bench = cluster()
    began = bench.mono
    new_owner(bench, lacking=False, until_ns=began + 100 * SECOND)
    assert sorted(bench.do(ALL, timeout_ns=2 * SECOND)) == KEYS
    assert bench.mono - began < SECOND // 4


def test_a_scan_that_waited_in_vain_for_an_owner_ends_with_what_there_is() -> None:
    bench = cluster()
    began = bench.mono
    new_owner(bench, lacking=True, until_ns=began + 100 * SECOND)
    there = [key for key in KEYS if "c:1" in bench.order(key)[:2]]
    assert sorted(bench.do(ALL, timeout_ns=2 * SECOND)) == there
    assert SECOND < bench.mono - began < 2 * SECOND


def test_the_first_keys_of_a_listing_that_became_sure_in_between_are_no_hole() -> None:
    bench = cluster()
    peer = bench.peers["a:1"]
    for other in ("b:1", "c:1"):
        bench.peers[other].data.clear()
    unsure(bench)
    slot = slot_of(KEYS[0])
    peer.data = {KEYS[0]: b"v"}
    parts = [
        ScanReply(done=0, keys=(KEYS[0],), unsure=(), old=(slot,)),
        ScanReply(done=1, keys=(), unsure=()),
        ScanReply(done=1, keys=(KEYS[0],), unsure=()),
    ]

    def answer(header: Header, message: Message) -> list[Message]:
        if not isinstance(message, Scan):
            return peer.serve(header, message)
        return [parts.pop(0) if len(parts) > 1 else parts[0]]

    peer.answer = answer
    assert bench.do(Scan(slots=(slot,), prefix=b""), timeout_ns=2 * SECOND) == [KEYS[0]]


def test_members_beyond_the_owners_hold_no_scan_up() -> None:
    bench = cluster()
    unsure(bench)
    owners = {slot_of(key): bench.order(key)[:2] for key in KEYS}
    for address, peer in bench.peers.items():
        listed = peer.answer

        def answer(
            header: Header, message: Message, address: str = address, listed: Answer = listed
        ) -> list[Message]:
            assert isinstance(message, Scan)
            mine = any(address in owners.get(slot, ()) for slot in message.slots)
            return listed(header, message) if mine else []

        peer.answer = answer
    began = bench.mono
    some = tuple(slot for slot in owners if "c:1" not in owners[slot])
    found = bench.do(Scan(slots=some, prefix=b""), timeout_ns=20 * SECOND)
    assert sorted(found) == [key for key in KEYS if slot_of(key) in some]
    assert bench.mono - began < SECOND


@pytest.mark.parametrize("mended", [True, False])
def test_a_scan_does_without_the_only_owner_never(mended: bool) -> None:
    bench = Bench("abc", replicas=0).learn()
    unsure(bench)
    for key in KEYS:
        bench.peers[bench.order(key)[0]].data[key] = b"v"
    bench.down = {"a:1"}
    call = bench.core.begin(ALL, bench.now)
    bench.perform(call, call.start(bench.now))
    began = bench.mono
    while not call.done:
        if mended and bench.mono > began + SECOND // 4:
            bench.down = set()
        bench.step(call)
    if mended:
        assert sorted(call.outcome()) == KEYS
    else:
        with pytest.raises(NodeUnavailable):
            call.outcome()


def test_clearing_goes_on_to_another_node_when_one_is_silent() -> None:
    bench = cluster()
    bench.mute = {"a:1", "b:1"}
    begun = bench.mono
    assert bench.do(Clear()).everywhere
    assert bench.mono - begun <= 2 * ATTEMPT_MOST_NS + TRIP_NS
    assert not bench.peers["c:1"].data


def test_a_clearing_that_not_everybody_confirmed_is_indefinite() -> None:
    bench = cluster()
    for peer in bench.peers.values():
        peer.answer = lambda header, message: [ClearReply(stamp=9, everywhere=False)]
    with pytest.raises(MaybeStored):
        bench.do(Clear())
    bench = cluster()
    bench.mute = set(bench.peers)
    with pytest.raises(MaybeStored):
        bench.do(Clear())
    bench.mute, bench.down = set(), set(bench.peers)
    with pytest.raises(NodeUnavailable):
        bench.do(Clear())


def test_statistics_tell_who_did_not_answer_and_why() -> None:
    bench = cluster()
    bench.mute, bench.down = {"a:1"}, {"b:1"}
    begun = bench.mono
    answers = bench.do(StatsGet())
    assert bench.mono - begun == SECOND
    assert answers["a"] == "no answer in time"
    assert answers["b"] == "unreachable"
    assert isinstance(answers["c"], StatsReply)


def test_inspection_asks_every_owner_dead_ones_included() -> None:
    bench = cluster()
    key = KEYS[0]
    first, second = bench.order(key)[:2]
    bench.standings[first] = Standing.DEAD
    bench.publish()
    bench.learn()
    record = Record(key, Kind.VALUE, b"v", Version(1, 2, 3), 0, 0)
    for peer in bench.peers.values():
        peer.answer = lambda header, message: [InspectReply(records=(record,), confirmed=False)]
    bench.down = {first}
    answers = bench.do(Inspect(key=key))
    assert answers == {
        first[0]: "unreachable",
        second[0]: InspectReply(records=(record,), confirmed=False),
    }


def test_the_topology_is_asked_of_one_node_at_a_time_once_it_is_known() -> None:
    bench = cluster()
    assert len(bench.do(TopologyGet()).members) == 3
    assert len(bench.sent) == 1
    bench.down = {bench.sent[0].address}
    bench.sent.clear()
    for _ in range(5):
        bench.do(TopologyGet())
    assert len(bench.sent) == 5
