"""How a comparison with a peer goes from stage to stage, and when a question is put again."""

from __future__ import annotations

import pytest

from dcc.replication.talks import PATIENCE_FIRST_NS, Talk
from dcc.replication.wants import DESCENTS_MAX, Stage, Wants
from dcc.types import NodeKey
from dcc.units import MILLISECOND, SECOND
from dcc.wire.messages import Compare, CompareRoot, Pull, PullReply, Replicate
from tests.support.wired_replication import Planes


def pair() -> Planes:
    """Return two nodes of which "b" has missed one write, and knows of no gap."""
    world = Planes("a", "b", replicas=1)
    world.run(3)
    world.lost = lambda _a, _b, message: isinstance(message, Replicate)
    world.put("a", b"key", b"v")
    world.step(50 * MILLISECOND)
    world.carried.clear()
    return world


def value(world: Planes, name: str) -> bytes | None:
    return world[name].value(b"key", world.at)


# ------------------------------------------------------------------ stages


def test_the_stage_is_what_remains_to_be_compared() -> None:
    wants = Wants()
    stages = [wants.stage]
    wants.want([7, 135])
    stages.append(wants.stage)
    wants.descend()
    assert wants.descents == DESCENTS_MAX
    stages.append(wants.stage)
    wants.differ[7] = None
    stages.append(wants.stage)
    wants.descents = 0
    del wants.differ[7]
    stages.append(wants.stage)
    wants.wanted.clear()
    stages.append(wants.stage)
    assert stages == [
        Stage.CALM, Stage.DIGESTS, Stage.ROOT, Stage.CLOCKS, Stage.DIGESTS, Stage.CALM,
    ]  # fmt: skip
    wants.again(7, 5)
    wants.check()
    assert wants.stage is Stage.CALM, "it is looked at again later"


def test_an_exchange_goes_from_the_root_to_digests_to_clocks_and_is_calm() -> None:
    world = pair()
    b = world["b"]
    b.exchange.standstill(world.at)
    wants = b.exchange.agenda.peers[world["a"].key]
    assert b.exchange.agenda.peers[world["a"].key].stage is Stage.ROOT
    asked: list[tuple[Stage, type]] = []
    begin = b.exchange._talks.begin

    def watched(peer: NodeKey, question, now):  # type: ignore[no-untyped-def]
        asked.append((wants.stage, type(question.message)))
        return begin(peer, question, now)

    b.exchange._talks.begin = watched  # type: ignore[method-assign]
    world.run(1)
    questions = {Stage.ROOT: CompareRoot, Stage.DIGESTS: Compare, Stage.CLOCKS: Pull}
    assert list(dict.fromkeys(asked)) == list(questions.items()), "each is put at its stage"
    assert wants.stage is Stage.CALM
    assert value(world, "b") == b"v"


@pytest.mark.parametrize("stage", [Stage.ROOT, Stage.DIGESTS])
def test_a_question_that_fits_no_stage_is_seen(stage: Stage) -> None:
    talk = Talk(Wants(), stage=stage, asked=(7,), owed=frozenset([7]))
    with pytest.raises(AssertionError):
        talk.check()


# ------------------------------------------------------------------ questions that are overdue


def pulls_of(world: Planes) -> tuple[int, int]:
    """Return how many pulls were sent that ask for slots, and how many probes."""
    pulls = [message for message in world.carried if isinstance(message, Pull)]
    return sum(bool(one.slots) for one in pulls), sum(not one.slots for one in pulls)


def test_a_question_without_an_answer_is_not_put_again_for_its_age() -> None:
    world = pair()
    world.lost = lambda _a, _b, message: isinstance(message, Replicate | PullReply)
    world["b"].exchange.standstill(world.at)
    world.run(4)
    asked, probes = pulls_of(world)
    assert asked == 1
    assert probes >= 3, "each after twice the time"
    assert value(world, "b") is None


def test_a_question_is_lost_if_a_probe_behind_it_is_answered_first() -> None:
    world = pair()
    lost: list[PullReply] = []

    def first_reply(_source: NodeKey, _to: NodeKey, message: object) -> bool:
        if isinstance(message, PullReply) and message.slots and not lost:
            lost.append(message)
            return True
        return isinstance(message, Replicate)

    world.lost = first_reply
    world["b"].exchange.standstill(world.at)
    world.run(PATIENCE_FIRST_NS / SECOND)
    assert pulls_of(world) == (1, 0)
    world.run(1)
    assert pulls_of(world) == (2, 1)
    assert value(world, "b") == b"v"
