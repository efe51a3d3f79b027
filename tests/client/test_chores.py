"""Refreshes and probes that run beside the calls."""

from __future__ import annotations

import random
import threading

from dcc.client.chores import CHORE_SPACING_NS
from dcc.client.core import ClientCore
from dcc.effects import Send
from dcc.types import Member, Now, Settings, Standing
from dcc.wire.codec import Codec, Header
from dcc.wire.messages import Topology


def test_a_chore_that_nobody_answers_ends_under_a_lock_that_is_not_reentrant() -> None:
    """The shell's lock is a plain one; taking it twice stopped every thread of a client."""
    core = ClientCore(
        ["a:1", "b:1"], client_id=1, boot=1, rng=random.Random(1), lock=threading.Lock()
    )
    core.chores.due_at = 0
    first = core.do_chores(Now(1, 1), core.codec)
    assert isinstance(first[0], Send)
    later = Now(1 + 2 * CHORE_SPACING_NS, 1)
    worker = threading.Thread(target=core.do_chores, args=(later, core.codec), daemon=True)
    worker.start()
    worker.join(5)
    assert not worker.is_alive(), "the second chore waits for a lock that it holds"
    again = core.do_chores(Now(later.mono + 10 * CHORE_SPACING_NS, 1), core.codec)
    assert isinstance(again[0], Send)


def told(*names: str, replicas: int = 1, incarnation: int = 5) -> tuple[Header, Topology]:
    """Return an answer as it comes off the wire: it shares no object with an earlier one."""
    members = tuple(
        Member(name, f"{name}:1", f"{name}:2", "", 1.0, 5, incarnation, Standing.ALIVE, 1, False)
        for name in names
    )
    answer = Topology(settings=Settings(replicas, 1, 0), members=members, ready=True)
    codec = Codec("dcc", sender=1, boot=1)
    header, message = codec.decode(codec.encode(answer, epoch=len(names) + 10 * replicas))
    assert isinstance(message, Topology)
    return header, message


def test_a_refresh_that_brings_nothing_new_keeps_the_routes() -> None:
    core = ClientCore(["a:1"], client_id=1, boot=1, rng=random.Random(1))
    seen: list[int] = []
    core.on_view = lambda view: seen.append(view.epoch)

    def adopt(header: Header, topology: Topology) -> object:
        return core.adopt(topology, header, Now(1, 1))

    first = adopt(*told("a", "b"))
    assert adopt(*told("a", "b")) is first is core.view
    others = [told("a", "b", incarnation=6), told("a", "b", replicas=2), told("a", "b", "c")]
    views = [adopt(*answer) for answer in others]
    assert len({first, *views}) == 4, "a member, the settings, another member"
    assert core.view is views[-1]
    header, topology = others[-1]
    assert adopt(header._replace(epoch=99), topology) is not views[-1]
    assert seen == [12, 12, 12, 22, 13, 99]
