"""Refreshes and probes that run beside the calls."""

from __future__ import annotations

import random
import threading

from dcc.client.chores import CHORE_SPACING_NS
from dcc.client.core import ClientCore
from dcc.effects import Send
from dcc.types import Now


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
