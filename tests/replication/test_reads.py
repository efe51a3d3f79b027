"""Reads that want the word of several owners, and the sample that tells how stale reads are."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcc.replication.quorum import ALL, QUORUM, needed
from dcc.replication.staleness import EVERY, SAMPLES_MAX, Staleness
from dcc.ring.hashing import slot_of
from dcc.types import NO_VERSION, Kind, NodeKey, Record, Version, node_key
from dcc.units import MILLISECOND
from dcc.wire import messages as m
from tests.support.wired_cores import Cores

MS_STAMP = 1 << 16


def cluster(*names: str, replicas: int = 2) -> Cores:
    cores = Cores(*names, replicas=replicas)
    cores.settle()
    return cores


@pytest.fixture(scope="module")
def shared() -> Cores:
    """Three nodes, which take a second or two to become a cluster; each test has its own keys."""
    return cluster("a", "b", "c")


@pytest.fixture
def three(shared: Cores) -> Iterator[Cores]:
    yield shared
    shared.lost = lambda _a, _b, _message: False
    shared.run(0.1)
    shared.replies.clear()


def read(cores: Cores, name: str, key: bytes, r: int, *, direct: bool = False) -> m.Message | None:
    """Return the answer, or None while there is none."""
    answers = cores.ask(name, m.Get(key=key, r=r, direct=direct))
    assert len(answers) <= 1
    return answers[0] if answers else None


def hit(cores: Cores, name: str, key: bytes, r: int, *, direct: bool = False) -> bytes:
    answer = read(cores, name, key, r, direct=direct)
    assert isinstance(answer, m.GetReply), answer
    assert answer.status is m.Status.HIT, answer
    return answer.value


def mute(cores: Cores, *names: str) -> None:
    """Let no answer to a fetch arrive from these nodes, which stay alive to all."""
    keys = {node_key(name) for name in names}
    cores.lost = lambda a, _b, message: a in keys and isinstance(message, m.FetchReply)


def plant(
    cores: Cores, name: str, key: bytes, value: bytes, *, age_ms: int, kind: Kind = Kind.VALUE
) -> Version:
    """Put a version at one node only, as if its replication had been lost."""
    node = cores[name]
    version = Version((cores.ms - age_ms) * MS_STAMP, node_key("gone"), 9)
    record = Record(key, kind, value, version, 0, -1)
    node.held.store.install(slot_of(key), record, cores.ms)
    return version


def late_words(cores: Cores, name: str) -> list[tuple[NodeKey, m.FetchReply]]:
    """Hold back the answers to `name`'s fetches; return where they gather."""
    late: list[tuple[NodeKey, m.FetchReply]] = []

    def lost(source: NodeKey, to: NodeKey, message: m.Message) -> bool:
        held_back = to == node_key(name) and isinstance(message, m.FetchReply)
        if held_back and isinstance(message, m.FetchReply):
            late.append((source, message))
        return held_back

    cores.lost = lost
    return late


# ------------------------------------------------------------------ one owner's word


def test_a_holder_that_lives_is_heard_out_even_if_it_is_slow() -> None:
    cores = cluster("a", "b", "c")
    key = cores.key_of("a", "b", "c")
    plant(cores, "b", key, b"v", age_ms=5_000)
    cores["a"].sync.standstill(cores.mono)
    late = late_words(cores, "a")
    deadline_ms = cores.ms + 1_000
    assert not cores.ask("a", m.Get(key=key), at=deadline_ms)
    cores.run(0.6)
    assert not cores.replies, "no guess while those who may know are alive and there is time"
    questions = cores["a"].questions
    (number,) = questions._open
    for source, words in late:
        outcome = questions.receive(source, number, words, cores["a"].turn(cores.now))
        effects = cores["a"]._copies.resume(outcome, cores["a"]._at)
        cores.carry("a", cores["a"]._emit(effects))
    reply = cores.replies[-1][1]
    assert isinstance(reply, m.GetReply)
    assert (reply.status, reply.value) == (m.Status.HIT, b"v")


def test_a_miss_ends_as_unsure_before_the_readers_time_is_over() -> None:
    cores = cluster("a", "b", "c")
    key = cores.key_of("a", "b", "c")
    cores["a"].sync.standstill(cores.mono)
    mute(cores, "b", "c")
    assert not cores.ask("a", m.Get(key=key), at=cores.ms + 1_000)
    began = cores.mono
    cores.until(lambda: bool(cores.replies), 1.0)
    assert cores.mono - began < 900 * MILLISECOND
    reply = cores.replies[-1][1]
    assert isinstance(reply, m.GetReply)
    assert reply.status is m.Status.UNSURE


def test_a_former_owner_that_is_asked_directly_answers_with_what_it_still_has() -> None:
    cores = cluster("a", "b", "c", replicas=0)
    key = cores.key_of("a")
    cores.put("a", key, b"v")
    cores.lost = lambda _a, _b, message: isinstance(message, m.PullReply)
    cores["a"].leave(cores.now)
    cores.run(1)
    assert node_key("a") not in cores["a"].held.view.route(slot_of(key))
    answer = read(cores, "a", key, 1, direct=True)
    assert isinstance(answer, m.GetReply)
    assert (answer.status, answer.value) == (m.Status.HIT, b"v")


# ------------------------------------------------------------------ how many


@given(st.integers(1, 10), st.integers(1, 10))
def test_any_two_quorums_share_an_owner(copies: int, count: int) -> None:
    assert 2 * needed(QUORUM, copies) > copies
    assert needed(QUORUM, copies) <= copies == needed(ALL, copies)
    assert needed(count, copies) == count


@pytest.mark.parametrize(("r", "asked"), [(1, 0), (2, 2), (QUORUM, 2), (3, 2), (ALL, 2)])
def test_more_than_one_word_asks_all_other_owners_even_with_a_hit_at_hand(
    three: Cores, r: int, asked: int
) -> None:
    key = three.fresh_key("a", "b", "c")
    three.put("a", key, b"v", w=3)
    fetches: list[NodeKey] = []

    def watch(_a: NodeKey, b: NodeKey, message: m.Message) -> bool:
        if isinstance(message, m.Fetch):
            fetches.append(b)
        return False

    three.lost = watch
    assert hit(three, "a", key, r) == b"v"
    assert len(fetches) == asked


@pytest.mark.parametrize("r", [2, QUORUM, ALL])
def test_the_newest_version_wins_over_the_one_at_hand(three: Cores, r: int) -> None:
    key = three.fresh_key("a", "b", "c")
    three.put("a", key, b"old", w=3)
    three.run(1)
    plant(three, "b", key, b"new", age_ms=10)
    plant(three, "c", key, b"new", age_ms=10)
    assert hit(three, "a", key, 1) == b"old"
    assert hit(three, "a", key, r) == b"new"
    assert three.held("a", key) == b"new"


def test_a_quorum_is_asked_of_owners_where_the_request_lands_too(three: Cores) -> None:
    key = three.fresh_key("a", "b", "c")
    three.put("a", key, b"old", w=3)
    three.run(1)
    plant(three, "a", key, b"new", age_ms=10)
    assert hit(three, "c", key, 1, direct=True) == b"old"
    assert hit(three, "c", key, ALL, direct=True) == b"new"


def test_a_node_that_is_no_owner_any_more_does_not_prefer_what_it_has_left() -> None:
    cores = cluster("a", "b", "c", "d", replicas=1)
    key = cores.fresh_key("a", "b")
    plant(cores, "d", key, b"left over", age_ms=900)
    cores.put("a", key, b"new", w=2)
    forwarded = cores["c"].codec.encode(m.Get(key=key, r=QUORUM), hops=1, request=3)
    answers: list[m.Message] = []

    def watch(_a: NodeKey, _b: NodeKey, message: m.Message) -> bool:
        answers.append(message)
        return False

    cores.lost = watch
    cores.carry("d", cores["d"].receive(b"", forwarded, cores.now))
    (reply,) = [one for one in answers if isinstance(one, m.GetReply)]
    assert reply.value == b"new"


def test_a_read_that_is_forwarded_keeps_its_number() -> None:
    cores = cluster("a", "b", "c", "d", replicas=1)
    key = cores.fresh_key("a", "b")
    cores.put("a", key, b"old", w=2)
    cores.run(1)
    plant(cores, "b", key, b"new", age_ms=10)
    assert hit(cores, "d", key, 1) == b"old"
    assert hit(cores, "d", key, QUORUM) == b"new"


def test_enough_answers_end_it_whoever_is_silent(three: Cores) -> None:
    key = three.fresh_key("a", "b", "c")
    three.put("a", key, b"v", w=3)
    mute(three, "c")
    assert hit(three, "a", key, 2) == b"v"
    assert read(three, "a", key, 3) is None
    before = len(three.replies)
    three.run(0.1)
    assert len(three.replies) == before, "a first value does not end it"


# ------------------------------------------------------------------ refusals


def refusal(answer: m.Message | None) -> str:
    assert isinstance(answer, m.ErrorReply), answer
    assert answer.code is m.Code.QUORUM_NOT_REACHED
    return answer.text


def test_fewer_live_owners_than_asked_for_is_refused_at_once(three: Cores) -> None:
    key = three.fresh_key("a", "b", "c")
    assert "r = 9, live owners and stand-ins 3" in refusal(read(three, "a", key, 9))
    alone = Cores("a", replicas=1)
    alone.settle()
    assert "live owners and stand-ins 1" in refusal(read(alone, "a", key, ALL))


def test_fewer_answers_than_asked_for_is_refused_at_the_deadline(three: Cores) -> None:
    key = three.fresh_key("a", "b", "c")
    three.put("a", key, b"v", w=3)
    mute(three, "b", "c")
    assert read(three, "a", key, 2) is None
    three.run(0.8)
    assert "r = 2, only 1 of the owners answered in time" in refusal(three.replies[-1][1])


def test_owners_that_cannot_be_sent_to_are_not_waited_for(three: Cores) -> None:
    key = three.fresh_key("a", "b", "c")
    core = three["a"]
    three.lost = lambda _a, _b, message: isinstance(message, m.Fetch)
    assert read(three, "a", key, 2) is None
    (number,) = core.questions._open
    before = len(three.replies)
    frames = core.codec.encode(m.Fetch(key=key), request=number)
    three.carry("a", core.undeliverable(node_key("b"), frames, three.now))
    assert len(three.replies) == before
    three.carry("a", core.undeliverable(node_key("c"), frames, three.now))
    refusal(three.replies[-1][1])


# ------------------------------------------------------------------ absence


def status(answer: m.Message | None) -> m.Status:
    assert isinstance(answer, m.GetReply), answer
    return answer.status


def test_a_miss_with_enough_answers_is_certain_where_a_plain_one_is(three: Cores) -> None:
    key = three.fresh_key("a", "b", "c")
    mute(three, "c")
    assert status(read(three, "a", key, 2)) is m.Status.MISS


def test_a_newest_version_that_is_a_deletion_is_absence(three: Cores) -> None:
    key = three.fresh_key("a", "b", "c")
    three.put("a", key, b"v", w=3)
    three.run(1)
    plant(three, "b", key, b"", age_ms=10, kind=Kind.TOMBSTONE)
    assert hit(three, "a", key, 1) == b"v"
    assert status(read(three, "a", key, ALL)) is not m.Status.HIT
    assert status(read(three, "a", key, 1)) is not m.Status.HIT


def test_an_evicted_newest_version_does_not_let_an_older_one_through(three: Cores) -> None:
    key = three.fresh_key("a", "b", "c")
    three.put("a", key, b"old", w=3)
    three.run(1)
    plant(three, "b", key, b"", age_ms=10, kind=Kind.EVICTED)
    mute(three, "c")
    # Nobody has asked c for the value of the newer version: it is not certainly gone.
    assert status(read(three, "a", key, 2)) is m.Status.UNSURE
    three.lost = lambda _a, _b, _message: False
    plant(three, "c", key, b"new", age_ms=10)
    assert hit(three, "a", key, 1) == b"new"


def test_a_holder_that_is_not_in_sync_and_silent_makes_a_quorum_read_fail() -> None:
    cores = cluster("a", "b", "c")
    key = cores.fresh_key("a", "b", "c")
    cores["a"].sync.standstill(cores.mono + 1)
    mute(cores, "c")
    assert read(cores, "a", key, 2) is None
    cores.run(0.8)
    assert "a holder that may know more" in refusal(cores.replies[-1][1])


def forgetful(*silent: str) -> tuple[Cores, bytes, Version]:
    """Return a cluster where b has forgotten what only c has left, and `silent` do not answer."""
    cores = cluster("a", "b", "c")
    key = cores.key_of("a", "b", "c")
    version = plant(cores, "c", key, b"acknowledged by b and c", age_ms=5_000)
    cores["b"].sync.standstill(cores.mono)
    silent_keys = {node_key(name) for name in silent}
    b = node_key("b")
    cores.lost = lambda source, _to, message: (
        (isinstance(message, m.FetchReply) and source in silent_keys)
        or (isinstance(message, m.CompareRoot | m.Compare | m.Pull) and source == b)
    )
    return cores, key, version


def test_an_owner_that_may_have_forgotten_does_not_make_a_quorum() -> None:
    cores, key, _ = forgetful("c")
    assert read(cores, "a", key, 2) is None, "b's empty word must not end it"
    cores.until(lambda: bool(cores.replies), 1.0)
    reply = cores.replies[-1][1]
    assert isinstance(reply, m.ErrorReply)
    assert reply.code is m.Code.QUORUM_NOT_REACHED
    cores, key, version = forgetful()
    answer = read(cores, "a", key, 2)
    assert isinstance(answer, m.GetReply)
    assert (answer.status, answer.version) == (m.Status.HIT, version)


def test_an_owner_that_may_have_forgotten_counts_once_all_have_answered() -> None:
    cores, key, version = forgetful()
    for r in (QUORUM, ALL):
        answer = read(cores, "a", key, r)
        assert isinstance(answer, m.GetReply)
        assert answer.version == version
    cores = cluster("a", "b", "c")
    for name in ("a", "b", "c"):
        cores[name].sync.standstill(cores.mono)
    cores.lost = lambda _a, _b, message: isinstance(message, m.CompareRoot | m.Compare | m.Pull)
    answer = read(cores, "a", cores.key_of("a", "b", "c"), QUORUM)
    assert isinstance(answer, m.GetReply)
    assert answer.status is m.Status.MISS


def test_a_holder_that_is_not_in_sync_is_asked_beside_the_quorum() -> None:
    """What was acknowledged in an older view may be known to a former owner alone."""
    cores = cluster("a", "b", "c", "d", replicas=1)
    key = cores.fresh_key("a", "b")
    cores.put("a", key, b"old", w=2)
    cores.run(1)
    cores["a"].sync.standstill(cores.mono + 1)
    plant(cores, "d", key, b"new", age_ms=10)
    assert hit(cores, "a", key, QUORUM) == b"new"


def test_who_may_know_better_by_the_time_of_the_answers_is_asked_before_a_quorums_hit() -> None:
    """A member may come back, or this node stand still, while the owners are asked."""
    cores = cluster("a", "b", "c", "d", replicas=1)
    key = cores.fresh_key("a", "b")
    cores.put("a", key, b"old", w=2)
    cores.run(1)
    plant(cores, "d", key, b"new", age_ms=10)

    def stand_still(_source: int, to: int, message: object) -> bool:
        a = cores["a"]
        if isinstance(message, m.FetchReply) and to == a.key and not a.sync.behind:
            a.sync.standstill(cores.mono + 1)
        return False

    cores.lost = stand_still
    assert hit(cores, "a", key, QUORUM) == b"new"


# ------------------------------------------------------------------ repair


def test_owners_that_answered_with_an_older_version_get_the_newest(three: Cores) -> None:
    key = three.fresh_key("a", "b", "c")
    three.put("a", key, b"old", w=3)
    three.run(3)
    plant(three, "b", key, b"new", age_ms=2_000)
    before = three["a"].reads.read_repairs
    assert hit(three, "a", key, ALL) == b"new"
    three.step()
    assert three.held("c", key) == b"new"
    assert three["a"].reads.read_repairs - before == 2  # its own copy and that of c


def test_a_version_that_is_still_on_its_way_is_not_sent_again(three: Cores) -> None:
    key = three.fresh_key("a", "b", "c")
    three.put("a", key, b"old", w=3)
    three.run(3)
    plant(three, "b", key, b"new", age_ms=500)
    assert hit(three, "a", key, ALL) == b"new"
    three.step()
    assert three.held("c", key) == b"old"


def test_many_reads_of_a_key_repair_an_owner_once(three: Cores) -> None:
    key = three.fresh_key("a", "b", "c")
    three.put("a", key, b"old", w=3)
    three.run(3)
    plant(three, "b", key, b"new", age_ms=2_000)
    repairs = []

    def watch(_a: NodeKey, _b: NodeKey, message: m.Message) -> bool:
        repairs.extend([1] if isinstance(message, m.Replicate) else [])
        return isinstance(message, m.Replicate)

    three.lost = watch
    for _ in range(5):
        assert hit(three, "a", key, ALL) == b"new"
    assert len(repairs) == 1


def test_a_repair_never_brings_back_what_an_owner_has_evicted(three: Cores) -> None:
    key = three.fresh_key("a", "b", "c")
    three.put("a", key, b"v", w=3)
    three.run(3)
    store = three["c"].held.store
    entry = store.peek(slot_of(key), key)
    assert entry is not None
    store._memory.remove(entry)
    assert hit(three, "a", key, ALL) == b"v"
    three.run(1)
    assert three.held("c", key) is None


# ------------------------------------------------------------------ staleness


def record(key: bytes, ms: int) -> Record:
    return Record(key, Kind.VALUE, b"", Version(ms * MS_STAMP, 1, 1), 0, 0)


def test_a_read_is_stale_when_a_newer_version_existed_as_it_was_served() -> None:
    sample = Staleness()
    sample.served(b"k", Version(100 * MS_STAMP, 1, 1), 500)
    sample.arrived([record(b"k", 100), record(b"k", 50), record(b"k", 500), record(b"x", 400)])
    assert (sample.sampled, sample.stale) == (1, 0)
    sample.arrived([record(b"k", 420)])
    assert (sample.stale, sample.age_sum_ms, sample.age_max_ms) == (1, 80, 80)
    sample.arrived([record(b"k", 430)])
    assert sample.stale == 1, "one read is stale once"


def test_the_sample_is_bounded_and_keeps_the_latest() -> None:
    sample = Staleness()
    for i in range(SAMPLES_MAX + 1):
        sample.served(b"%d" % i, NO_VERSION, 500)
        sample.check()
    sample.arrived([record(b"0", 400)])
    assert sample.stale == 0
    sample.arrived([record(b"1", 400), record(b"%d" % SAMPLES_MAX, 400)])
    assert sample.stale == 2


@pytest.mark.parametrize("path", ["short", "ordinary", "many"])
def test_one_served_hit_in_a_fixed_number_is_sampled(three: Cores, path: str) -> None:
    key = three.fresh_key("a", "b", "c")
    three.put("a", key, b"v" * (5_000 if path == "ordinary" else 1), w=3)
    before = three["a"].staleness.sampled
    for _ in range(2 * EVERY if path != "many" else 1):
        if path == "many":
            three.ask("a", m.GetMany(keys=(key,) * (2 * EVERY)))
        else:
            three.ask("a", m.Get(key=key))
    assert three["a"].staleness.sampled - before == 2


def test_a_replica_that_served_an_old_value_learns_it_from_replication(three: Cores) -> None:
    key = three.fresh_key("a", "b", "c")
    three.put("a", key, b"old", w=3)
    three.run(0.1)
    three.lost = lambda _a, _b, message: isinstance(message, m.Replicate)
    three.put("a", key, b"new")
    before = three["c"].stats(three.now)
    three.mono += 40 * MILLISECOND
    for _ in range(EVERY):
        assert hit(three, "c", key, 1, direct=True) == b"old"
    three.lost = lambda _a, _b, _message: False
    three.run(2)
    assert three.held("c", key) == b"new"
    after = three["c"].stats(three.now)
    assert after["sampled_reads"] - before["sampled_reads"] == 1
    assert after["stale_reads"] - before["stale_reads"] == 1
    assert after["stale_read_ratio"] == after["stale_reads"] / after["sampled_reads"]
    assert after["detail"]["staleness"]["age_max_seconds"] == pytest.approx(0.04, abs=0.02)
    assert after["detail"]["staleness"]["stale_reads_estimated"] == EVERY * after["stale_reads"]
    assert three["a"].staleness.stale == 0
