"""Real clients with keys of every kind at real nodes: what each may do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

import dcc
from dcc.cli.main import main
from dcc.keys import Credentials, Directory, present
from dcc.types import Role, Settings, node_key
from dcc.wire import messages as m
from dcc.wire.codec import Codec
from tests.support.key_ground import Ground, dcc_keys
from tests.support.processes import NodeProcess, wait_until

pytestmark = pytest.mark.process

Speak = Callable[[NodeProcess, str, str, m.Message], m.Message | None]


@pytest.fixture
def speak(ground: Ground) -> Iterator[Speak]:
    """Give what sends one message with a key, in a member's name, and returns the answer."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    ring, sockets = Directory(ground.directory), []

    def send(node: NodeProcess, key: str, sender: str, message: m.Message) -> m.Message | None:
        socket = context.socket(zmq.DEALER)
        sockets.append(socket)
        present(socket, Credentials(ring.own(key, tuple(Role))[1], ring.servers()), 0)
        socket.connect(f"tcp://{node.address}")
        codec = Codec("dcc", sender=node_key(sender), boot=6)
        at = time.time_ns() // 1_000_000
        socket.send_multipart(codec.encode(message, request=1, at=at + 5_000))
        if not socket.poll(1_500):
            return None
        return codec.decode(socket.recv_multipart())[1]

    yield send
    for socket in sockets:
        socket.close(0)
    context.term()


def test_a_client_reads_and_writes_and_changes_nothing_that_all_share(ground: Ground) -> None:
    node = ground.node("a")
    client, chief = ground.client(), ground.client("chief")
    client.put("key", b"value")
    with pytest.raises(dcc.NotAllowed, match="only administrators"):
        client.clear()
    with pytest.raises(dcc.NotAllowed, match="only administrators"):
        client.set_replicas(2)
    assert client.get("key") == b"value"
    assert client.replicas == 1
    wait_until(lambda: len(node.events("not_allowed")) == 2, 5, node.text)
    assert [one["message"] for one in node.events("not_allowed")] == ["Clear", "SetReplicas"]
    chief.set_replicas(2)
    assert client.replicas == 2
    chief.clear()
    assert client.get("key") is None


def test_a_reader_and_a_client_with_a_prefix(ground: Ground) -> None:
    dcc_keys(ground.directory, "new", "reader", "--role", "client", "--read-only")
    dcc_keys(ground.directory, "new", "app1", "--role", "client", "--prefix", "app1:")
    ground.cluster()
    chief, reader, app1 = (ground.client(name) for name in ("chief", "reader", "app1"))
    for key in ("app1:a", "app1:b", "other"):
        chief.put(key, b"v")
    assert reader.get("other") == b"v"
    began = time.monotonic()
    for change in (
        lambda: reader.put("x", b"v"),
        lambda: reader.delete("other"),
        lambda: reader.put_many({"x": b"v", "y": b"v"}),
        lambda: reader.delete_many(["x", "other"]),
    ):
        with pytest.raises(dcc.NotAllowed, match="for reading only"):
            change()
    app1.put("app1:c", b"v")
    assert app1.get_many(["app1:a", "app1:b"]) == {"app1:a": b"v", "app1:b": b"v"}
    assert sorted(app1.scan("app1:")) == ["app1:a", "app1:b", "app1:c"]
    for use in (
        lambda: app1.get("other"),
        lambda: app1.put("other", b"w"),
        lambda: app1.get_many(["app1:a", "other"]),
        lambda: list(app1.scan()),
    ):
        with pytest.raises(dcc.NotAllowed, match="begins with none"):
            use()
    many = {f"app1:{n}": b"v" for n in range(500)} | {"other": b"w"}
    with pytest.raises(dcc.NotAllowed, match="begins with none") as refused:
        app1.put_many(many)
    assert refused.value.definite is False, "keys in other messages are stored"
    assert isinstance(refused.value.partial, list)
    stored = many.keys() - refused.value.partial
    assert "other" not in stored
    assert stored == chief.get_many(many).keys() - {"other"}
    assert time.monotonic() - began < 4, "each is refused at once"
    assert chief.get("other") == b"v"


def test_a_client_that_speaks_as_a_node_changes_nothing(ground: Ground, speak: Speak) -> None:
    a = ground.node("a")
    chief = ground.client("chief")
    chief.put("key", b"v")
    settings = chief.replicas
    forged = m.PushPull(members=(), settings=Settings(5, 1 << 60, 0))
    for key in ("app", "chief"):
        answer = speak(a, key, "b", forged)
        assert isinstance(answer, m.ErrorReply)
        assert answer.code is m.Code.NOT_ALLOWED
    assert chief.replicas == settings
    assert {one["who"] for one in a.events("not_allowed")} == {"app", "chief"}


def test_a_node_that_speaks_in_another_ones_name_is_not_heard(ground: Ground, speak: Speak) -> None:
    a = ground.node("a")
    chief = ground.client("chief")
    update = m.SettingsUpdate(settings=Settings(5, 1 << 50, 0))
    for _ in range(3):
        assert speak(a, "b", "c", update) is None
    wait_until(lambda: a.events("not_allowed"), 5, a.text)
    assert len(a.events("not_allowed")) == 1
    assert a.events("not_allowed")[0]["who"] == "b"
    detail = chief.stats().nodes["a"].detail
    assert detail["dropped"]["not_allowed"] == 3
    assert chief.replicas == 1


def test_a_node_with_the_key_of_another_one_does_not_start(ground: Ground, tmp_path: Path) -> None:
    node = ground.processes.node("--keys", str(ground.directory), "--name", "stranger")
    assert node.wait(30) == 2
    assert "secrets/stranger.secret" in node.text()
    secret = ground.directory / "secrets/b.secret"
    (ground.directory / "secrets/stranger.secret").write_bytes(secret.read_bytes())
    (ground.directory / "secrets/stranger.secret").chmod(0o600)
    node = ground.processes.node("--keys", str(ground.directory), "--name", "stranger")
    assert node.wait(30) == 2
    assert "lacks this node's own key" in node.text()


def test_private_files_that_others_may_read_are_refused_by_all(
    ground: Ground, capsys: pytest.CaptureFixture[str]
) -> None:
    (ground.directory / "server.secret").chmod(0o640)
    node = ground.processes.node("--keys", str(ground.directory), "--name", "a")
    assert node.wait(30) == 2
    assert "chmod 600" in node.text()
    (ground.directory / "secrets/app.secret").chmod(0o604)
    with pytest.raises(dcc.ConfigError, match="chmod 600"):
        dcc.Client("127.0.0.1:1", keys=ground.directory, name="app")
    words = ["--keys", str(ground.directory), "--key-name", "app", "get", "key"]
    assert main(words) == 64
    assert "chmod 600" in capsys.readouterr().err


def test_the_command_has_a_key_too(ground: Ground, capsys: pytest.CaptureFixture[str]) -> None:
    node = ground.node("a")
    words = ["-n", node.address, "--keys", str(ground.directory), "--key-name", "app"]
    assert main([*words, "put", "key", "value"]) == 0
    capsys.readouterr()
    assert main([*words, "get", "key"]) == 0
    assert capsys.readouterr().out == "value"
    assert main([*words, "replicas", "2"]) == 1
    assert "only administrators" in capsys.readouterr().err
    assert main(["-n", node.address, "get", "key"]) == 2
    assert "lets in only whoever has a key" in capsys.readouterr().err
