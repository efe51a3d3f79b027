"""Who may send what: the table of a real core, and that a node goes by it."""

from __future__ import annotations

from typing import Any

import pytest

from dcc.effects import Effect, Notify, Reply
from dcc.node.routes import Sender
from dcc.wire import messages as m
from dcc.wire.codec import Codec
from tests.support.wire_samples import SAMPLES
from tests.support.wired_cores import Cores

ROUTE = b"\0a client"
STRANGER, BOOT = 0xABCD, 7
ANSWERS_TO_CLIENTS = {
    m.GetManyReply, m.WriteManyReply, m.Topology, m.StatsReply, m.ScanReply, m.ClearReply,
    m.InspectReply, m.SettingsReply, m.ConvergedReply, m.AuditReply, m.Watched, m.Changes,
}  # fmt: skip


@pytest.fixture(scope="module")
def cores() -> Cores:
    settled = Cores("a", "b", replicas=1)
    settled.settle()
    return settled


def sender_of(cores: Cores, message: m.Message) -> Sender:
    return cores["a"]._routes[type(message)].sender


def samples_of(cores: Cores, sender: Sender) -> list[m.Message]:
    found = [one for one in SAMPLES if type(one) not in ANSWERS_TO_CLIENTS]
    return [one for one in found if sender_of(cores, one) is sender]


def sent(cores: Cores, message: m.Message, sender: tuple[int, int]) -> list[Effect]:
    """Hand node a a message on the request plane, from `sender` with its boot."""
    codec = Codec("c", sender=sender[0], boot=sender[1])
    codec.prefix = cores["a"].codec.prefix
    frames = codec.encode(message, epoch=cores["a"].held.view.epoch, request=5)
    return cores["a"].receive(ROUTE, frames, cores.now)


def reasons(effects: list[Effect]) -> list[str]:
    return [
        effect.fields["reason"]
        for effect in effects
        if isinstance(effect, Notify) and effect.event == "message_dropped"
    ]


def test_a_node_has_a_row_for_every_message_but_the_answers_to_clients(cores: Cores) -> None:
    assert set(m.TAG) - set(cores["a"]._routes) == ANSWERS_TO_CLIENTS


def test_what_has_no_row_is_dropped(cores: Cores) -> None:
    for message in SAMPLES:
        if type(message) in ANSWERS_TO_CLIENTS:
            assert reasons(sent(cores, message, (STRANGER, BOOT))) == ["unexpected"], message


def test_a_members_message_is_dropped_from_everybody_else(cores: Cores) -> None:
    a, b = cores["a"], cores["b"]
    strangers = {
        (STRANGER, BOOT): "unknown_sender",
        (b.key, b.boot - 1): "other_boot",
        (a.key, a.boot): "unknown_sender",
    }
    for message in samples_of(cores, Sender.MEMBER):
        for sender, reason in strangers.items():
            if sender == (a.key, a.boot):
                reason = "other_boot"  # Known, and not the one that is meant.
            assert reasons(sent(cores, message, sender)) == [reason], message


def test_a_members_message_reaches_its_handler_from_the_member(
    cores: Cores, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = cores["a"], cores["b"]
    handled: list[type] = []

    def note(_header: Any, message: Any, _at: Any) -> list[Effect]:
        handled.append(type(message))
        return []

    samples = samples_of(cores, Sender.MEMBER)
    rows = {kind: row._replace(handler=lambda: note) for kind, row in a._routes.items()}
    monkeypatch.setattr(a, "_routes", rows)
    for message in samples:
        assert reasons(sent(cores, message, (b.key, b.boot))) in ([], ["clock_skew"]), message
    assert handled == [type(message) for message in samples]


def test_a_clients_request_is_answered_for_anybody(cores: Cores) -> None:
    client = (STRANGER, BOOT)
    for message in (m.Get(key=b"k"), m.GetMany(keys=(b"k",)), m.TopologyGet(), m.StatsGet()):
        assert sender_of(cores, message) is Sender.CLIENT
        assert any(isinstance(effect, Reply) for effect in sent(cores, message, client))


def test_an_answer_that_nobody_asked_for_is_dropped(cores: Cores) -> None:
    dropped = cores["a"].counters.dropped
    for message in samples_of(cores, Sender.ASKED):
        before = dropped.get("late_reply", 0)
        assert sent(cores, message, (STRANGER, BOOT)) == []
        assert dropped["late_reply"] == before + 1


def test_gossip_carries_what_anybody_may_send_and_nothing_else(cores: Cores) -> None:
    a, b = cores["a"], cores["b"]
    for message in SAMPLES:
        frames = b.codec.encode(message, epoch=a.held.view.epoch)
        if len(frames) > 1:
            continue  # Large values do not travel there.
        dropped = reasons(a.receive_gossip([b"topic", frames[0]], cores.now))
        row = a._routes.get(type(message))
        if row is None or row.sender is not Sender.ANYBODY:
            assert dropped == ["malformed"], message
        else:
            assert "malformed" not in dropped, message


def test_handlers_are_looked_up_at_each_message(cores: Cores) -> None:
    """So a planted bug is in effect wherever it replaces a method."""
    administration = cores["a"].administration
    before = administration.topology
    vars(administration)["topology"] = lambda _request, _message: []
    try:
        assert sent(cores, m.TopologyGet(), (STRANGER, BOOT)) == []
    finally:
        administration.topology = before  # type: ignore[method-assign]
    assert sent(cores, m.TopologyGet(), (STRANGER, BOOT)) != []
