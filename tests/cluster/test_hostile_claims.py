"""What is said by who cannot know it is not believed: no write that was acknowledged is lost."""

from __future__ import annotations

import pytest

from dcc.ring.hashing import slot_of
from dcc.types import PREV_UNKNOWN, Kind, Record, Version
from dcc.wire import messages as m
from tests.support.wired_cores import Cores


@pytest.fixture
def cores() -> Cores:
    made = Cores("a", "b", "c", replicas=1)
    made.settle()
    return made


def tell(cores: Cores, to: str, name: str, message: m.Message, request: int = 5) -> None:
    """Give a node what somebody says in the name of one of its members."""
    codec, epoch = cores[name].codec, cores[name].held.view.epoch
    frames = codec.encode(message, epoch=epoch, request=request, at=cores.ms)
    cores.feed(to, frames, route=b"\0liar")


def acks_of(cores: Cores) -> list[m.ReplicateAck]:
    """Return the list in which acknowledgements between nodes will be found."""
    acks: list[m.ReplicateAck] = []

    def watch(_from: int, _to: int, message: m.Message) -> bool:
        if isinstance(message, m.ReplicateAck):
            acks.append(message)
        return False

    cores.lost = watch
    return acks


def forged(cores: Cores, key: bytes, of: str, *, ahead_ms: int = 450, prev: int = 0) -> Record:
    """Return a tombstone of one of the members that it never wrote, from a little ahead."""
    version = Version((cores.ms + ahead_ms) << 16, cores[of].key, cores[of].boot)
    return Record(key, Kind.TOMBSTONE, b"", version, 0, prev)


def other_key_of(cores: Cores, key: bytes) -> bytes:
    """Return another key of the same slot."""
    number = 0
    while slot_of(other := b"other-%d" % number) != slot_of(key):
        number += 1
    return other


# ------------------------------------------------------------------ forged records


def test_a_write_that_a_lie_hides_is_not_acknowledged_by_who_ignores_it(cores: Cores) -> None:
    """Somebody speaks as a and says: there is no write of mine before 450 ms from now."""
    key = cores.key_of("a", "b")
    lie = forged(cores, other_key_of(cores, key), "a")
    tell(cores, "b", "a", m.Replicate(seq=1, records=(lie,)))
    acks = acks_of(cores)
    done = [reply for reply in cores.put("a", key, b"v", w=2) if isinstance(reply, m.WriteReply)]
    cores.run(0.1)
    kept = cores.held("b", key) == b"v"
    assert kept or not any(reply.outcome is m.Outcome.DONE for reply in done)
    assert kept or all(ack.moved or ack.ignored for ack in acks)


def test_what_a_lie_hid_ends_once_both_have_compared(cores: Cores) -> None:
    key = cores.key_of("a", "b")
    lie = forged(cores, other_key_of(cores, key), "a")
    tell(cores, "b", "a", m.Replicate(seq=1, records=(lie,)))
    cores.run(20)
    for name in cores.nodes:
        assert cores[name].machines.caught_up
    cores.put("a", key, b"new", w=2)
    cores.run(0.1)
    assert cores.held("b", key) == b"new"


def test_only_its_coordinator_says_what_came_before_a_write(cores: Cores) -> None:
    """Forged by c about a, so that b would ignore what a writes for half a second."""
    key = cores.key_of("a", "b")
    lie = forged(cores, other_key_of(cores, key), "a")
    tell(cores, "b", "c", m.Replicate(seq=1, records=(lie,)))
    cores.put("a", key, b"v", w=2)
    cores.run(0.1)
    assert cores.held("b", key) == b"v"


def test_origins_that_are_no_members_take_no_clocks(cores: Cores) -> None:
    key = cores.key_of("a", "b")
    before = cores["a"].held.store.clock_origins()
    stamp = cores.ms << 16
    records = tuple([
        Record(b"%s-%d" % (key, i), Kind.TOMBSTONE, b"", Version(stamp + i, 1_000 + i, stamp), 0, 0)
        for i in range(500)
    ])  # fmt: skip
    tell(cores, "a", "b", m.Replicate(seq=1, records=records))
    assert cores["a"].held.store.clock_origins() == before
    assert all(record.prev != PREV_UNKNOWN for record in records), "as was claimed"


# ------------------------------------------------------------------ forged answers


def test_what_a_node_asks_cannot_be_guessed_from_what_it_tells(cores: Cores) -> None:
    """Its boot stands in every topology; requests and batches are numbered from elsewhere."""
    first = [cores[name].held.next_request() for name in cores.nodes]
    for name, number in zip(cores.nodes, first, strict=True):
        assert number >> 32 != cores[name].boot >> 16 & 0xFFFF_FFFF
    assert len({number >> 32 for number in first}) == len(first)
    assert max(first) < 1 << 63
