"""What is judged of real processes under faults: from outside, and no less strictly in calm."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dcc.types import Version
from dcc.units import SECOND
from dcc.wire.messages import Status
from simulations import faults as f
from simulations.answers import Answer
from simulations.chaos import plan
from simulations.chaos.history import read_histories
from simulations.chaos.judging import Judge, Seen
from simulations.history import End, Entry

END_NS = 200 * SECOND
FIRST, SECOND_ONE = Version(1 << 40, 1, 1), Version(2 << 40, 1, 1)


def put(at_s: float, w: int, version: Version = FIRST, value: bytes = b"c0/1.") -> Entry:
    at_ns = int(at_s * SECOND)
    return Entry(
        client="c0s", verb="put", key=b"k0-1", value=value, w=w, invoked_ns=at_ns,
        deadline_ns=at_ns + SECOND, ended_ns=at_ns + SECOND // 100, end=End.OK, status="done",
        version=version,
    )  # fmt: skip


def get(at_s: float, status: str, version: Version = FIRST) -> Entry:
    at_ns = int(at_s * SECOND)
    entry = Entry(
        client="c1s", verb="get", key=b"k0-1", invoked_ns=at_ns, deadline_ns=at_ns + SECOND,
        ended_ns=at_ns + SECOND // 100, end=End.OK, status=status,
    )  # fmt: skip
    if status == "hit":
        entry.found, entry.version = b"c0/1.", version
        entry.answer = Answer("n0", at_ns, b"k0-1", Status.HIT, version, leads=True)
    return entry


def judged(
    *history: Entry,
    events: tuple[plan.Event, ...] = (),
    losses: tuple[float, ...] = (),
    converged: tuple[float, ...] = (),
) -> set[str]:
    """Return which promises broke; the wall clock showed so much that no stamp is late."""
    seen = Seen(
        events=events, losses=[int(at * SECOND) for at in losses],
        agreed=[at * SECOND for at in range(200)], converged=[int(at * SECOND) for at in converged],
        epoch_ns=1 << 60, end_ns=END_NS,
    )  # fmt: skip
    return {one.promise for one in Judge(list(history), seen).violations()}


LOST = {"promised writes survive"}


def test_a_sure_miss_of_what_was_promised_is_a_fault_and_an_unsure_one_is_none() -> None:
    assert judged(put(10, 2), get(20, "hit")) == set()
    assert judged(put(10, 2), get(20, "unsure")) == set()
    assert judged(put(10, 2), get(20, "miss")) == LOST


@pytest.mark.parametrize(
    ("losses", "converged", "broken"),
    [((12,), (), LOST), ((12, 14), (), set()), ((12, 30), (20,), LOST), ((12, 30), (13,), set()),
     ((12, 30, 31), (20,), LOST), ((12, 30, 31, 32), (20,), set())],
)  # fmt: skip
def test_a_promise_begins_anew_once_the_cluster_has_converged(
    losses: tuple[float, ...], converged: tuple[float, ...], broken: set[str]
) -> None:
    """Two owners acknowledged; all three have it again at 20 s, unless that was before the copy."""
    assert judged(put(10, 2), get(40, "miss"), losses=losses, converged=converged) == broken


def test_nothing_is_promised_while_nodes_may_be_mistaken_about_who_lives() -> None:
    cut = f.Partition(at_ns=15 * SECOND, lasts_ns=5 * SECOND, left=("n0",), right=("n1",))
    assert judged(put(10, 2), get(18, "miss"), events=(cut,)) == set()
    assert judged(put(10, 2), get(18, "miss")) == LOST


def test_a_hit_of_an_older_value_is_a_fault_in_calm() -> None:
    old = {"no hit is older than what its node could have known"}
    history = put(10, 1), put(20, 2, SECOND_ONE, b"c0/2."), get(30, "hit", FIRST)
    assert judged(*history) == old
    restart = f.Restart(at_ns=26 * SECOND, lasts_ns=SECOND, node="n1")
    assert judged(*history, events=(restart,)) == set(), "it may have asked in vain"


def test_an_error_that_is_not_dccs_is_a_fault() -> None:
    broken = put(10, 1)
    broken.end, broken.error, broken.status = End.UNKNOWN, "KeyError('x')", ""
    assert judged(broken) == {"every error is typed"}


def test_a_history_is_read_from_what_a_client_has_written(tmp_path: Path) -> None:
    """A call whose process was killed is unknown, and a value that was read tells its version."""
    begin = {"client": "c0s", "values": [], "w": 1, "ttl": None}
    lines = [
        begin | {"begin": 1, "verb": "add", "keys": ["k0-1"], "values": ["c0/1."], "at": 5},
        {"end": 1, "at": 6, "status": "done"},
        begin | {"begin": 2, "verb": "entry", "keys": ["k0-1"], "at": 7},
        {"end": 2, "at": 8, "status": "hit", "found": ["c0/1."], "version": str(FIRST)},
        begin | {"begin": 3, "verb": "delete", "keys": ["p0-1"], "at": 9},
        begin | {"begin": 4, "verb": "get", "keys": ["k0-2"], "at": 9},
        {"end": 4, "at": 10, "error": "OperationTimeout", "definite": False},
    ]
    text = "\n".join(map(json.dumps, lines)) + '\n{"begin": 5, "ver'
    (tmp_path / "c0-3.jsonl").write_text(text)
    found = {entry.verb + entry.key.decode(): entry for entry in read_histories(tmp_path)}
    assert (found["addk0-1"].end, found["addk0-1"].version) == (End.OK, FIRST)
    assert found["getk0-1"].found == b"c0/1."
    assert (found["deletep0-1"].end, found["deletep0-1"].error) == (End.UNKNOWN, "ClientDied")
    assert found["getk0-2"].end is End.FAILED
    assert {entry.life for entry in found.values()} == {3}


def test_a_plan_is_that_of_its_seed_and_has_every_kind_of_event() -> None:
    hour = plan.draw(1, 3_600 * SECOND)
    assert hour == plan.draw(1, 3_600 * SECOND) != plan.draw(2, 3_600 * SECOND)
    assert {type(event).__name__ for event in hour} == {
        "Partition", "Restart", "Pause", "Loss", "Delay", "Narrow", "ClockStep", "ClientDeath",
        "Logs", "Join", "Leave",
    }  # fmt: skip
    assert {event.one_way for event in hour if isinstance(event, f.Partition)} == {True, False}
