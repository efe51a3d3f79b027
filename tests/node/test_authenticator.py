"""Who answers for the key files while a node runs: what goes wrong neither opens nor ends it."""

from __future__ import annotations

import os
import socket as net
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from dcc.errors import ConfigError
from dcc.keys import (
    FILE_BYTES_MAX,
    Credentials,
    Directory,
    Signature,
    make_pair,
    present,
    read_public,
)
from dcc.node.connections import hang_up
from dcc.node.security import Closed
from dcc.node.zap import REQUESTS, Authenticator, Refusals
from dcc.types import Role
from tests.support.key_ground import dcc_keys


@pytest.fixture
def made(tmp_path: Path) -> Path:
    directory = tmp_path / "keys"
    dcc_keys(directory, "new", "a", "--role", "node")
    dcc_keys(directory, "new", "app", "--role", "client")
    return directory


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    made: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield made
    made.destroy(linger=0)


@pytest.fixture
def authenticator(made: Path) -> Iterator[Authenticator]:
    opened = Authenticator(Directory(made), Refusals())
    yield opened
    opened.close()


@pytest.fixture
def closed(made: Path) -> Iterator[Closed]:
    opened = Closed(made, "a")
    yield opened
    opened.close()


def seen(authenticator: Authenticator) -> tuple[set[str], list[str]]:
    """Read the files again; return who is allowed then, and what was told."""
    authenticator._read_again()
    told = authenticator.refusals.told
    events = [told.get()[0] for _ in range(told.qsize())]
    return {who.name for who in authenticator.allowed.values()}, events


@pytest.mark.parametrize("part", ["", "nodes"])
def test_a_directory_that_is_away_revokes_nobody(
    made: Path, authenticator: Authenticator, part: str
) -> None:
    aside = made.with_name("aside")
    (made / part).rename(aside)
    assert seen(authenticator) == ({"a", "app"}, ["keys_unreadable"])
    assert seen(authenticator) == ({"a", "app"}, [])
    if part:
        (made / part).mkdir()
        assert seen(authenticator) == ({"a", "app"}, []), "the same is told once"
        (made / part).rmdir()
    aside.rename(made / part)
    dcc_keys(made, "revoke", "app")
    assert seen(authenticator) == ({"a"}, ["keys_read"])


class Counted(Directory):
    """Counts how often every single file was looked at."""

    looks = 0

    def signature(self, *, whole: bool) -> Signature:
        self.looks += 1
        return super().signature(whole=whole)


def test_thousands_of_files_are_not_looked_at_one_by_one_all_the_time(made: Path) -> None:
    for number in range(2_000):
        public = make_pair().public.decode()
        (made / f"clients/c{number}.pub").write_text(f'public = ["{public}"]')
    directory = Counted(made)
    opened = Authenticator(directory, Refusals())
    try:
        began = time.monotonic()
        opened._read_again()
        cost = time.monotonic() - began
        before = directory.looks
        for _ in range(10):
            opened._read_again()
        waited = time.monotonic() - began - cost
        assert directory.looks - before <= waited / cost + 1, "a fiftieth of the time, or one look"
        dcc_keys(made, "revoke", "c7")
        names, events = seen(opened)
        assert "c7" not in names
        assert events == ["keys_read"], "what comes or goes is seen at once"
    finally:
        opened.close()


@pytest.mark.parametrize("text", ["public = " + "1" * 5_000, "public = " + "[" * 20_000])
def test_a_file_that_the_parser_chokes_on_is_no_key_file(
    made: Path, authenticator: Authenticator, text: str
) -> None:
    (made / "clients/bad.pub").write_text(text)
    assert seen(authenticator) == ({"a", "app"}, ["keys_unreadable"])


def test_a_file_is_read_whole_or_refused(made: Path) -> None:
    """A right that is taken away behind the limit must not be left out."""
    file = made / "clients/app.pub"
    begin = file.read_text()
    end = "read_only = true\n"
    file.write_text(begin + "\n" * (FILE_BYTES_MAX - len(begin) - len(end)) + end)
    assert read_public(file).read_only
    file.write_text(begin + "\n" * (FILE_BYTES_MAX - len(begin)) + end)
    with pytest.raises(ConfigError, match=r"app\.pub has more than"):
        read_public(file)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("place", ["clients/pipe.pub", "servers/pipe.pub"])
def test_a_pipe_keeps_nobody_waiting(made: Path, place: str) -> None:
    os.mkfifo(made / place, 0o600)
    with pytest.raises(ConfigError, match="no regular file"):
        Directory(made).allowed() if place[0] == "c" else Directory(made).servers()


def test_a_bug_is_told_once_and_does_not_end_the_thread(
    made: Path, authenticator: Authenticator, context: zmq.Context[zmq.Socket[bytes]]
) -> None:
    directory, authenticator._directory = authenticator._directory, None  # type: ignore[assignment]
    authenticator.start(context)
    try:
        assert authenticator.refusals.told.get(timeout=10)[0] == "keys_failed"
        authenticator.look()
        authenticator._directory = directory
        dcc_keys(made, "revoke", "app")
        authenticator.look()
        event, fields = authenticator.refusals.told.get(timeout=10)
        assert (event, fields["removed"]) == ("keys_read", ["app"])
    finally:
        authenticator.close()


def test_nobody_is_let_in_if_there_is_nobody_to_ask(
    made: Path, closed: Closed, context: zmq.Context[zmq.Socket[bytes]]
) -> None:
    server, client = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    for option, value in closed.serving(REQUESTS).items():
        server.setsockopt(option, value)
    port = server.bind_to_random_port("tcp://127.0.0.1")
    ring = Directory(made)
    present(client, Credentials(make_pair(), ring.servers()), 0)
    client.connect(f"tcp://127.0.0.1:{port}")
    client.send(b"let me in")
    assert not server.poll(500)
    closed.start(context)
    friend = context.socket(zmq.DEALER)
    present(friend, Credentials(ring.own("app", (Role.CLIENT,))[1], ring.servers()), 0)
    friend.connect(f"tcp://127.0.0.1:{port}")
    friend.send(b"and me")
    try:
        assert server.poll(10_000)
        assert server.recv_multipart()[1] == b"and me"
    finally:
        for socket in (server, client, friend):
            socket.close(0)


def test_who_was_not_asked_about_is_nobody(
    closed: Closed, context: zmq.Context[zmq.Socket[bytes]]
) -> None:
    server, client = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    port = server.bind_to_random_port("tcp://127.0.0.1")
    client.connect(f"tcp://127.0.0.1:{port}")
    client.send(b"x")
    assert server.poll(10_000)
    head = server.recv(copy=False)
    assert closed.who_sent(head, head.bytes) is None
    assert sum(closed.refusals.counts().values()) == 1
    server.close(0)
    client.close(0)


def test_a_nameless_unix_socket_is_no_connection_to_hang_up() -> None:
    ours, theirs = net.socketpair()
    with ours, theirs:
        hang_up(ours.fileno(), frozenset({1}))
        ours.send(b"x")
        assert theirs.recv(1) == b"x"


def test_the_end_waits_for_no_file_system(
    authenticator: Authenticator,
    context: zmq.Context[zmq.Socket[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dcc.node.zap.CLOSE_S", 0.2)
    hold, held = net.socketpair()

    def hang(*, whole: bool) -> None:
        held.recv(1)

    monkeypatch.setattr(authenticator._directory, "signature", hang)
    authenticator.start(context)
    began = time.monotonic()
    authenticator.close()
    assert time.monotonic() - began < 5
    hold.send(b"x")
    assert authenticator._thread is not None
    authenticator._thread.join(10)
    assert not authenticator._thread.is_alive()
    hold.close()
    held.close()
