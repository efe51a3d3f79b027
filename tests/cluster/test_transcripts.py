"""Conversations that a reader of the documents sees, word for word as the cores hold them.

`DCC_GOLDEN=write python -m pytest tests/cluster/test_transcripts.py` writes the files in
`tests/golden/transcripts/` anew. A changed line is a changed protocol: understand it first.
"""

from __future__ import annotations

from dcc.types import Standing
from dcc.units import SECOND
from dcc.wire import messages as m
from dcc.wire.messages import Get, Replicate
from tests.support import transcripts
from tests.support.paths import GOLDEN
from tests.support.transcripts import Transcript
from tests.support.wired_cores import Cores

CLIENTS = (m.Write, m.WriteReply, m.Get, m.GetReply)
REPLICATION = (m.Replicate, m.ReplicateAck, m.Fetch, m.FetchReply)
EXCHANGE = (
    m.CompareRoot, m.CompareRootReply, m.Compare, m.CompareReply, m.Pull, m.PullReply,
)  # fmt: skip


def settled(*names: str) -> Cores:
    """Return a cluster that has said all that it has to say about its start."""
    cores = Cores(*names, replicas=1)
    cores.settle()
    cores.run(20)
    return cores


def test_an_exchange() -> None:
    cores = settled("a", "b")
    key = cores.key_of("a", "b")
    with Transcript(cores, *CLIENTS, *REPLICATION, *EXCHANGE) as transcript:
        transcript.say("a leads the key; the copy for b is lost on its way")
        cores.lost = lambda _source, _to, message: isinstance(message, Replicate)
        cores.put("a", key, b"new")
        cores.step()
        transcript.say("the next pings tell that the roots differ")
        cores.until(lambda: cores.held("b", key) == b"new")
    transcripts.check("exchange", transcript)


def test_a_put_with_a_stand_in() -> None:
    cores = settled("a", "b", "c")
    key = cores.key_of("a", "b")
    cores.stopped.add("b")
    row = cores["b"].key
    cores.until(lambda: cores["a"].membership.members[row].standing is Standing.DEAD)
    cores.run(1)
    with Transcript(cores, *CLIENTS, *REPLICATION) as transcript:
        transcript.say("a and b own the key; b is down, and c stands in for it")
        (reply,) = cores.ask("a", m.Write(op=m.Op.PUT, key=key, value=b"new", w=2))
    assert isinstance(reply, m.WriteReply)
    assert reply.outcome is m.Outcome.DONE
    transcripts.check("stand-in", transcript)


def test_a_join() -> None:
    cores = settled("a")
    cores.put("a", b"key-1", b"one")
    cores.run(1)
    with Transcript(cores) as transcript:
        transcript.say("b starts: it knows the address of a and nothing else")
        cores.add("b")
        cores.until(lambda: cores.held("b", b"key-1") == b"one")
        transcript.say("b has all that it owns, and tells the others that it may lead")
        cores.settle()
    transcripts.check("join", transcript)


def test_a_read_with_an_unsure_miss() -> None:
    cores = settled("a", "b")
    key = cores.key_of("a", "b")
    with Transcript(cores, *CLIENTS, *REPLICATION) as transcript:
        transcript.say("a leads the key; it stood still, and what it asks b is lost")
        cores.lost = lambda source, _to, _message: source == cores["a"].key
        cores.step(2 * SECOND)
        statuses = [read(cores, key)]
        transcript.say("now its question arrives: b has nothing either")
        cores.lost = lambda _source, _to, _message: False
        statuses += [read(cores, key)]
    assert statuses == [m.Status.UNSURE, m.Status.MISS]
    transcripts.check("unsure-miss", transcript)


def read(cores: Cores, key: bytes) -> m.Status:
    before = len(cores.replies)
    cores.ask("a", Get(key=key))
    cores.until(lambda: len(cores.replies) > before, 2.0)
    reply = cores.replies[-1][1]
    assert isinstance(reply, m.GetReply)
    return reply.status


def test_every_transcript_has_its_test() -> None:
    files = {path.stem for path in (GOLDEN / "transcripts").iterdir()}
    assert files == {"exchange", "stand-in", "join", "unsure-miss"}


def test_a_changed_field_changes_the_transcript() -> None:
    def told(value: bytes) -> list[str]:
        with Transcript(cores := settled("a")) as transcript:
            cores.put("a", b"key-1", value)
        return transcript.lines

    assert told(b"one") == told(b"one")
    assert told(b"one") != told(b"two")
