"""Replication streams: batches, acknowledgements, budgets, and what a view change does to them."""

from __future__ import annotations

from dcc.effects import Effect, Tell
from dcc.limits import BATCH_BYTES
from dcc.replication.lane import PROBE_MOST_NS, RESEND_NS, WINDOW_BATCHES
from dcc.replication.streams import GIVE_UP_NS, MOVED_RESEND_NS, Streams
from dcc.ring.hashing import slot_of
from dcc.types import Record, Standing
from dcc.units import MIB, SECOND
from dcc.wire.messages import Replicate, ReplicateAck
from tests.support.wired_replication import Plane, Planes


def world(replicas: int = 1) -> Planes:
    return Planes("a", "b", "c", replicas=replicas)


def owned_by(planes: Planes, first: str, second: str) -> bytes:
    """Return a key whose slot is owned by exactly these two, in this order."""
    wanted = (planes[first].key, planes[second].key)
    slots = planes["a"].held.view.slots
    return next(k for i in range(9_999) if slots.owners(slot_of(k := b"k%d" % i)) == wanted)


def batches(effects: list[Effect]) -> list[tuple[int, Replicate]]:
    found = []
    for effect in effects:
        assert isinstance(effect, Tell)
        assert isinstance(effect.to, int)
        assert isinstance(effect.message, Replicate)
        found.append((effect.to, effect.message))
    return found


def written(planes: Planes, key: bytes, value: bytes = b"v") -> tuple[Plane, Streams, Record]:
    plane = planes["a"]
    return plane, plane.streams, planes.put("a", key, value)


def test_what_was_written_in_a_turn_goes_out_in_one_batch() -> None:
    planes = world()
    key = owned_by(planes, "a", "b")
    _plane, streams, _record = written(planes, key)
    planes.put("a", key, b"again")
    [(to, batch)] = batches(streams.flush(planes.at))
    assert (to, len(batch.records)) == (planes["b"].key, 2)
    assert streams.flush(planes.at) == []


def found_lost(planes: Planes, streams: Streams) -> None:
    """Let the peer answer a probe and nothing that was sent before it."""
    planes.mono += PROBE_MOST_NS
    [(to, probe)] = [one for one in batches(streams.tick(planes.at)) if not one[1].records]
    assert streams.acknowledged(to, ReplicateAck(seq=probe.seq, moved=()), planes.mono) == []


def test_a_batch_that_may_be_on_its_way_is_not_sent_again_and_counts_however_late() -> None:
    planes = world()
    _plane, streams, record = written(planes, owned_by(planes, "a", "b"))
    [(to, batch)] = batches(streams.flush(planes.at))
    probes = 0
    for _ in range(600):
        planes.mono += SECOND // 10
        sent = batches(streams.tick(planes.at))
        assert all(not again.records for _to, again in sent)
        probes += len(sent)
        streams.check()
    assert 10 < probes < 30, "a few bytes every four seconds"
    ack = ReplicateAck(seq=batch.seq, moved=())
    assert streams.acknowledged(to, ack, planes.mono) == [record.version]
    streams.check()


def test_a_lost_batch_is_sent_again_and_given_up_in_the_end() -> None:
    planes = world()
    _plane, streams, record = written(planes, owned_by(planes, "a", "b"))
    first = batches(streams.flush(planes.at))
    found_lost(planes, streams)
    assert batches(streams.tick(planes.at)) == first
    found_lost(planes, streams)
    assert streams.tick(planes.at) == []
    assert (streams.dropped, streams.queued_total()) == (1, 0)
    late = ReplicateAck(seq=first[0][1].seq, moved=())
    assert streams.acknowledged(planes["b"].key, late, planes.mono) == []
    assert record.version


def test_what_was_sent_before_an_acknowledged_batch_is_lost() -> None:
    planes = world()
    key = owned_by(planes, "a", "b")
    _plane, streams, record = written(planes, key)
    [(to, lost)] = batches(streams.flush(planes.at))
    planes.put("a", key, b"again")
    [(_, batch)] = batches(streams.flush(planes.at))
    assert streams.acknowledged(to, ReplicateAck(seq=batch.seq, moved=()), planes.mono)
    assert streams.tick(planes.at) == [], "not at once"
    planes.mono += RESEND_NS
    assert batches(streams.tick(planes.at)) == [(to, lost)]
    assert lost.records == (record,)


def test_what_could_not_be_queued_is_sent_again() -> None:
    planes = world()
    _plane, streams, _record = written(planes, owned_by(planes, "a", "b"))
    [(to, batch)] = batches(streams.flush(planes.at))
    streams.undeliverable(to, batch.seq)
    planes.mono += RESEND_NS
    assert batches(streams.tick(planes.at)) == [(to, batch)]


def test_small_records_do_not_wait_behind_large_ones() -> None:
    planes = Planes("a", "b", "c", replicas=1, limit_bytes=256 * MIB)
    key = owned_by(planes, "a", "b")
    streams = planes["a"].streams
    for value in (b"x" * 12 * MIB, b"y" * 3 * MIB, b"small"):
        planes.put("a", key, value)
    small, large = streams.flush(planes.at)
    [(_, few), (to, one)] = batches([small, large])
    assert (len(few.records[0].value), len(one.records[0].value)) == (5, 12 * MIB)
    assert isinstance(small, Tell)
    assert isinstance(large, Tell)
    assert (small.bulk, large.bulk) == (False, True)
    streams.acknowledged(to, ReplicateAck(seq=one.seq, moved=()), planes.mono)
    [(_, other)] = batches(streams.flush(planes.at))
    assert len(other.records[0].value) == 3 * MIB, "one large record at a time"


def test_an_acknowledgement_names_the_versions_that_count() -> None:
    planes = world()
    _plane, streams, record = written(planes, owned_by(planes, "a", "b"))
    [(to, batch)] = batches(streams.flush(planes.at))
    ack = ReplicateAck(seq=batch.seq, moved=())
    assert streams.acknowledged(to, ack, planes.mono) == [record.version]
    assert streams.acknowledged(to, ack, planes.mono) == []
    streams.check()


def test_a_peer_too_far_behind_gets_no_more_memory() -> None:
    planes = world()
    key = owned_by(planes, "a", "b")
    plane = planes["a"]
    for i in range(40):
        planes.put("a", key, bytes([i]) * 1_000_000)
    plane.streams.flush(planes.at)
    queued = sum(plane.streams.queued().values()) * 1_000_000
    assert 0 < queued <= plane.held.config.queue_bytes_max
    assert plane.streams.dropped > 0
    plane.streams.check()


def test_batches_are_cut_and_few_are_in_flight() -> None:
    planes = world()
    key = owned_by(planes, "a", "b")
    for _ in range(400):
        planes.put("a", key, b"x" * 3_000)
    out = batches(planes["a"].streams.flush(planes.at))
    assert len(out) == WINDOW_BATCHES
    assert all(sum(len(r.value) for r in b.records) <= BATCH_BYTES for _to, b in out)


def test_an_unacknowledged_record_goes_to_the_stand_in_when_its_target_falls() -> None:
    planes = world()
    _plane, streams, record = written(planes, owned_by(planes, "a", "b"))
    streams.flush(planes.at)
    planes.standing[planes["b"].key] = Standing.SUSPECT
    planes.take_view()
    [(to, batch)] = batches(streams.flush(planes.at))
    assert (to, batch.records) == (planes["c"].key, (record,))


def test_a_record_that_was_moved_goes_to_the_owners_of_the_next_view() -> None:
    """The peer stored it but is no owner in its own, newer view: it does not count there."""
    planes = world()
    _plane, streams, record = written(planes, owned_by(planes, "a", "b"))
    [(to, batch)] = batches(streams.flush(planes.at))
    assert streams.acknowledged(to, ReplicateAck(seq=batch.seq, moved=(0,)), planes.mono) == []
    planes.draining.add(planes["b"].key)
    planes.take_view()
    [(to, batch)] = batches(streams.flush(planes.at))
    assert (to, batch.records) == (planes["c"].key, (record,))


def test_a_peer_that_did_not_know_yet_that_it_stands_in_is_asked_again() -> None:
    """Two nodes hear of a suspicion milliseconds apart; the write must not wait for the next."""
    planes = world()
    _plane, streams, record = written(planes, owned_by(planes, "a", "b"))
    [(to, batch)] = batches(streams.flush(planes.at))
    assert streams.acknowledged(to, ReplicateAck(seq=batch.seq, moved=(0,)), planes.mono) == []
    streams.check()
    assert streams.tick(planes.at) == []
    planes.mono += MOVED_RESEND_NS
    [(again, batch)] = batches(streams.tick(planes.at))
    assert (again, batch.records) == (to, (record,))
    ack = ReplicateAck(seq=batch.seq, moved=())
    assert streams.acknowledged(to, ack, planes.mono) == [record.version]
    assert streams.queued_total() == 0
    streams.check()


def test_a_peer_that_says_moved_for_ever_is_given_up() -> None:
    planes = world()
    _plane, streams, _record = written(planes, owned_by(planes, "a", "b"))
    [(to, batch)] = batches(streams.flush(planes.at))
    sent = 0
    for _ in range(2 * GIVE_UP_NS // MOVED_RESEND_NS):
        streams.acknowledged(to, ReplicateAck(seq=batch.seq, moved=(0,)), planes.mono)
        planes.mono += MOVED_RESEND_NS
        for _to, again in batches(streams.tick(planes.at)):
            batch = again
            sent += 1
    assert streams.queued_total() == 0
    assert 1 < sent <= GIVE_UP_NS // MOVED_RESEND_NS
    streams.check()


def test_a_write_that_somebody_waits_for_is_offered_anew_though_no_queue_has_it() -> None:
    planes = world()
    key = owned_by(planes, "a", "b")
    plane, streams, record = written(planes, key)
    [(to, batch)] = batches(streams.flush(planes.at))
    streams.undeliverable(to, batch.seq)
    planes.mono += GIVE_UP_NS
    streams.tick(planes.at)
    assert streams.queued_total() == 0, "given up, as if there had been no room"
    planes.standing[planes["b"].key] = Standing.SUSPECT
    planes.take_view()
    assert streams.flush(planes.at) == []
    streams.retarget(planes.at, [(record, set())])
    [(to, batch)] = batches(streams.flush(planes.at))
    assert (to, batch.records) == (planes["c"].key, (record,))
    streams.retarget(planes.at, [(record, {planes["c"].key})])
    assert streams.flush(planes.at) == [], "who has acknowledged it has it"
    assert plane.held.view.route(slot_of(key))[1] == planes["c"].key
