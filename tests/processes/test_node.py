"""The node as a process: its one line, its exit codes, and what it survives on its sockets."""

from __future__ import annotations

import json
import os
import random
import signal
import socket as net
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import zmq

from dcc.limits import FRAME_BYTES_MAX, VALUE_BYTES_MAX
from dcc.node.__main__ import EXIT_NAME_TAKEN
from dcc.types import TOPIC_ALL, node_key, topic_of
from dcc.wire import messages as m
from dcc.wire.codec import MAGIC, PREFIX_BYTES, PROTOCOL_VERSION, Codec
from tests.support.paths import ROOT
from tests.support.processes import NodeProcess, Processes, clean_environment, wait_until

pytestmark = pytest.mark.process

Asks = Callable[..., "Asker"]


class Asker:
    """A raw DEALER that speaks the protocol, or anything else."""

    def __init__(self, socket: zmq.Socket[bytes], cluster: str = "dcc") -> None:
        self.socket, self.codec = socket, Codec(cluster, sender=5, boot=6)

    def raw(self, *frames: bytes) -> None:
        """Send frames as they are."""
        self.socket.send_multipart(frames)

    def ask(self, message: m.Message, request: int = 1) -> Any:
        """Send a request and return the reply to it; replies to others are skipped."""
        self.socket.send_multipart(self.codec.encode(message, request=request))
        while True:
            header, reply = self.codec.decode(self.socket.recv_multipart())
            if header.request == request:
                return reply

    def serves(self, request: int = 99) -> None:
        """Assert that a write and a read still work."""
        written = self.ask(m.Write(op=m.Op.PUT, key=b"probe", value=b"%d" % request), request)
        assert isinstance(written, m.WriteReply), written
        read = self.ask(m.Get(key=b"probe"), request + 1)
        assert isinstance(read, m.GetReply), read
        assert (read.status, read.value) == (m.Status.HIT, b"%d" % request)


@pytest.fixture
def ask() -> Iterator[Asks]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    sockets = []

    def connect(node: NodeProcess, cluster: str = "dcc") -> Asker:
        socket = context.socket(zmq.DEALER)
        socket.setsockopt(zmq.RCVTIMEO, 15_000)
        socket.connect(f"tcp://{node.address}")
        sockets.append(socket)
        return Asker(socket, cluster)

    yield connect
    context.destroy(linger=0)


def refused(*options: str, env: dict[str, str] | None = None) -> str:
    """Run a node that cannot start; return its one line."""
    argv = [sys.executable, "-m", "dcc.node", *options]
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=60, env=clean_environment(env or {}), cwd=ROOT
    )
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_ready_is_exactly_one_line_with_the_addresses_and_logs_go_elsewhere(
    processes: Processes,
) -> None:
    node = processes.node("--http", "127.0.0.1:0", "--name", "alice")
    ready = node.ready
    assert set(ready) == {"event", "node", "request", "gossip", "http"}
    assert ready["node"] == "alice"
    for name in ("request", "gossip", "http"):
        host, port = ready[name].rsplit(":", 1)
        assert (host, int(port) > 0) == ("127.0.0.1", True)
    node.signal(signal.SIGTERM)
    assert node.wait() == 0, node.text()
    assert len(node.out) == 1
    assert node.events("node_stopped")
    assert all(json.loads(line)["level"] for line in node.err)


def test_console_logs_announce_ready_in_plain_words(processes: Processes) -> None:
    argv = ("-m", "dcc.node", "--bind", "127.0.0.1:0")
    node = processes.python(*argv)
    wait_until(lambda: node.out, 30, node.text)
    words = node.out[0].split()
    assert words[0] == "node_ready"
    assert words[-1] == "http=null"
    assert words[2].startswith("request=127.0.0.1:")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_gracefully(processes: Processes, number: int) -> None:
    node = processes.node()
    assert node.ready
    node.signal(number)
    assert node.wait() == 0, node.text()


def test_a_second_signal_ends_a_leave_at_once(processes: Processes) -> None:
    """The other node is stopped, so the hand-over would wait for its whole time-out."""
    first, second = processes.nodes(2, "--leave-timeout", "120")
    second.signal(signal.SIGSTOP)
    first.signal(signal.SIGTERM)
    wait_until(lambda: first.events("asked_to_leave"), 10, first.text)
    if first.popen.poll() is None:
        first.signal(signal.SIGTERM)
    assert first.wait(10) in (0, 128 + signal.SIGTERM), first.text()


def test_a_bad_option_is_one_line_and_exit_code_2() -> None:
    assert "--replicas" in refused("--replicas", "many")
    assert "DCC" not in refused("--nonsense")
    assert "environment" in refused(env={"DCC_REPLICAS": "many"})
    assert "--insecure" in refused("--bind", "0.0.0.0:0", "--advertise", "192.0.2.1:1")
    assert "/no/file" in refused("--config", "/no/file")


def test_an_address_in_use_is_one_line_and_exit_code_2() -> None:
    with net.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert "address in use" in refused("--bind", address, "--gossip-bind", "127.0.0.1:0")
        assert "address in use" in refused("--bind", "127.0.0.1:0", "--gossip-bind", address)
        assert "address already in use" in refused("--bind", "127.0.0.1:0", "--http", address)


def test_show_config_prints_and_starts_nothing(processes: Processes) -> None:
    shown = processes.python("-m", "dcc.node", "--show-config", env={"DCC_REPLICAS": "2"})
    assert shown.wait() == 0
    rows = {line.split()[0]: line.split()[1:] for line in shown.out}
    assert rows["replicas"] == ["2", "environment"]
    assert rows["bind"] == ["127.0.0.1:6740", "default"]


def test_a_node_without_a_seed_to_reach_is_not_ready_keeps_trying_and_joins_in_the_end(
    processes: Processes,
) -> None:
    with net.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{reserved.getsockname()[1]}"
    waiting = processes.node("--seed", address, "--http", "127.0.0.1:0")
    wait_until(lambda: waiting.events("node_starting"), 30, waiting.text)
    http = waiting.events("node_starting")[0]["http"]
    wait_until(lambda: fetch(http, "/livez")[0] == 200, 10, waiting.text)
    assert fetch(http, "/readyz")[0] == 503
    assert waiting.out == []
    seed = processes.node("--bind", address, "--gossip-bind", "127.0.0.1:0")
    assert seed.ready["request"] == address
    assert waiting.ready
    wait_until(lambda: fetch(http, "/readyz")[0] == 200, 60, waiting.text)


def fetch(address: str, path: str) -> tuple[int, str]:
    """Return status and body of an HTTP GET."""
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_http_serves_probes_metrics_and_status(processes: Processes, ask: Asks) -> None:
    node = processes.node("--http", "127.0.0.1:0", "--name", "web")
    http = node.ready["http"]
    asker = ask(node)
    asker.serves()
    asker.ask(m.Get(key=b"absent"), 7)  # Unsure: the node is alone, and has just begun.
    assert fetch(http, "/livez") == (200, "ok\n")
    wait_until(lambda: fetch(http, "/readyz") == (200, "ok\n"), 10, node.text)
    assert fetch(http, "/nonsense")[0] == 404
    wait_until(lambda: '"hits": 1' in fetch(http, "/api/v1/status")[1], 10, node.text)
    status = json.loads(fetch(http, "/api/v1/status")[1])
    assert (status["name"], status["items"]) == ("web", 1)
    assert (status["misses"], status["unsure"]) == (0, 1)
    assert status["members"] == {"web": "alive"}
    assert status["shell"]["bugs"] == 0
    metrics = fetch(http, "/metrics")[1].splitlines()
    for line in (
        'dcc_commands_total{command="get",status="hit"} 1.0',
        'dcc_commands_total{command="get",status="unsure"} 1.0',
        'dcc_commands_total{command="put",status="answered"} 1.0',
        "dcc_items 1.0",
        "dcc_memory_limit_bytes 2.68435456e+08",
        'dcc_members{state="alive"} 1.0',
        "dcc_ring_owned_ratio 1.0",
        "dcc_bugs_total 0.0",
    ):
        assert line in metrics, "\n".join(metrics)


def test_http_turns_away_what_is_no_request_and_goes_on(processes: Processes) -> None:
    node = processes.node("--http", "127.0.0.1:0")
    host, port = node.ready["http"].rsplit(":", 1)
    idle = [net.create_connection((host, int(port)), timeout=10) for _ in range(30)]
    for connection in idle[:5]:
        connection.sendall(os.urandom(300) + b"\r\n\r\n")
    for connection in idle:
        connection.close()
    wait_until(lambda: fetch(node.ready["http"], "/livez")[0] == 200, 15, node.text)


def test_random_bytes_and_broken_frames_are_dropped_counted_and_survived(
    processes: Processes, ask: Asks
) -> None:
    node = processes.node()
    rude, polite = ask(node), ask(node)
    rude.serves()
    polite.serves()
    rng = random.Random(7)
    get = rude.codec.encode(m.Get(key=b"probe"), request=3)[0]
    write = rude.codec.encode(m.Write(op=m.Op.PUT, key=b"k", value=b"v"), request=4)[0]
    for _ in range(300):
        rude.raw(rng.randbytes(rng.randrange(200)))
        rude.raw(get[: rng.randrange(len(get))])
        rude.raw(write[: rng.randrange(len(write))], rng.randbytes(5_000))
        flipped = bytearray(get)
        flipped[rng.randrange(PREFIX_BYTES, len(flipped))] ^= 1 << rng.randrange(8)
        rude.raw(bytes(flipped))
        rude.raw(rude.codec.prefix + rng.randbytes(40))
        rude.raw(*[rng.randbytes(3) for _ in range(rng.randrange(1, 9))])
        rude.raw(get, b"more", get)
        rude.raw(b"")
        rude.raw(rude.codec.prefix + b"\xdd\xff\xff\xff\xff" * 20)
        rude.raw(rude.codec.prefix + b"\x91" * 5_000)
    rude.raw(rude.codec.prefix + bytes(FRAME_BYTES_MAX))
    rude.raw(*[b"x"] * 5_000)
    polite.serves(200)
    rude.serves(10_000)
    stats = json.loads(polite.ask(m.StatsGet(), 300).stats)
    assert stats["detail"]["dropped"]["malformed"] > 500
    assert not node.events("bug"), node.text()


def test_a_frame_above_the_limit_ends_its_connection_only(processes: Processes, ask: Asks) -> None:
    node = processes.node()
    rude, polite = ask(node), ask(node)
    polite.serves()
    rude.raw(bytes(VALUE_BYTES_MAX + 1))
    polite.serves(200)
    rude.serves(300)


def test_bytes_that_are_not_zmtp_are_survived(processes: Processes, ask: Asks) -> None:
    node = processes.node()
    asker = ask(node)
    asker.serves()
    rng = random.Random(3)
    for address in (node.ready["request"], node.ready["gossip"]):
        host, port = address.rsplit(":", 1)
        for _ in range(20):
            with net.create_connection((host, int(port)), timeout=10) as connection:
                try:
                    connection.sendall(rng.randbytes(rng.randrange(1, 2_000)))
                except OSError:
                    pass
    asker.serves(200)
    assert not node.events("bug"), node.text()


def test_another_cluster_and_a_newer_protocol_are_refused_by_name(
    processes: Processes, ask: Asks
) -> None:
    node = processes.node()
    stranger, polite = ask(node, "other"), ask(node)
    stranger.raw(*stranger.codec.encode(m.Get(key=b"k"), request=1))
    _, reply = polite.codec.decode(stranger.socket.recv_multipart())
    assert isinstance(reply, m.ErrorReply)
    assert reply.code == m.Code.WRONG_CLUSTER
    newer = MAGIC + bytes([PROTOCOL_VERSION + 1]) + polite.codec.prefix[3:] + b"\x90"
    stranger.raw(newer)
    _, reply = polite.codec.decode(stranger.socket.recv_multipart())
    assert isinstance(reply, m.ErrorReply)
    assert reply.code == m.Code.UNSUPPORTED_VERSION
    polite.serves()
    stats = json.loads(polite.ask(m.StatsGet(), 300).stats)
    dropped = stats["detail"]["dropped"]
    assert (dropped["foreign_cluster"], dropped["unsupported_version"]) == (1, 1)


def test_a_node_of_another_cluster_never_joins_and_both_say_so(processes: Processes) -> None:
    one = processes.node("--name", "one")
    other = processes.node("--name", "other", "--cluster", "elsewhere", "--seed", one.address)
    assert one.ready
    wait_until(lambda: _says_wrong_cluster(one), 20, one.text)
    wait_until(lambda: _says_wrong_cluster(other), 20, other.text)
    assert other.out == []


def _says_wrong_cluster(node: NodeProcess) -> bool:
    return any("cluster" in line and "warning" in line for line in node.err)


def test_garbage_on_the_gossip_plane_is_dropped_and_survived(
    processes: Processes, ask: Asks
) -> None:
    """A member's own PUB turns hostile: it joins, and then publishes anything but gossip."""
    node = processes.node("--name", "victim")
    asker = ask(node)
    asker.serves()
    rng = random.Random(11)
    with (
        zmq.Context() as context,
        context.socket(zmq.PUB) as pub,
        context.socket(zmq.ROUTER) as router,
    ):
        pub.setsockopt(zmq.LINGER, 0)
        router.setsockopt(zmq.LINGER, 0)
        port = pub.bind_to_random_port("tcp://127.0.0.1")
        join(asker, f"127.0.0.1:{port}", router)

        def hostile() -> bool:
            for topic in (TOPIC_ALL, topic_of(node_key("victim"))):
                pub.send_multipart([topic, rng.randbytes(rng.randrange(300))])
                pub.send_multipart([topic])
                pub.send_multipart([topic, b"a", b"b"])
                pub.send_multipart([topic, Codec("other", sender=1, boot=1).prefix + b"\x90"])
                pub.send_multipart([topic, MAGIC + b"\x09" + bytes(20)])
                pub.send_multipart([topic, *asker.codec.encode(m.Get(key=b"k"), request=1)])
            dropped = json.loads(asker.ask(m.StatsGet(), 300).stats)["detail"]["dropped"]
            return all(
                dropped.get(reason, 0) >= 5
                for reason in ("malformed", "foreign_cluster", "unsupported_version")
            )

        wait_until(hostile, 20, node.text)
    asker.serves(400)
    assert not node.events("bug"), node.text()


def join(asker: Asker, gossip: str, router: zmq.Socket[bytes]) -> None:
    """Make the node believe in a member whose PUB is at `gossip` and that owns next to nothing.

    A newcomer is believed once it answers a ping, which it does here through `router`.
    """
    import time

    from dcc.types import Member, Settings, Standing

    port = router.bind_to_random_port("tcp://127.0.0.1")
    router.setsockopt(zmq.RCVTIMEO, 20_000)
    now_ms = time.time_ns() // 1_000_000
    boot = now_ms << 16
    codec = Codec("dcc", sender=node_key("evil"), boot=boot)
    me = Member(
        "evil", f"127.0.0.1:{port}", gossip, "", 1e-6, boot, now_ms, Standing.ALIVE, now_ms, False
    )
    view = m.PushPull(members=(me,), settings=Settings(1, 0, 0), joining=True)
    asker.socket.send_multipart(codec.encode(view, request=77, at=now_ms))
    while not isinstance(codec.decode(asker.socket.recv_multipart())[1], m.PushPullReply):
        pass
    while True:
        route, *frames = router.recv_multipart()
        header, message = codec.decode(frames)
        if isinstance(message, m.Ping):
            ack = codec.encode(m.Ack(seq=message.seq), request=header.request, at=now_ms)
            router.send_multipart([route, *ack])
            return


def test_a_full_standard_error_never_stops_a_node(ask: Asks) -> None:
    """Nobody reads its output: after 64 KiB the pipe is full, and lines are dropped instead."""
    argv = [sys.executable, "-m", "dcc.node", "--bind", "127.0.0.1:0", "--log-format", "json",
            "--log-level", "debug"]  # fmt: skip
    with subprocess.Popen(
        argv, cwd=ROOT, env=clean_environment({}), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    ) as node:  # fmt: skip
        try:
            assert node.stdout is not None
            ready = json.loads(node.stdout.readline())
            asker = ask(_At(ready["request"]))
            asker.serves()
            for _ in range(60):
                for _ in range(100):
                    asker.raw(b"garbage" + b"!" * 1_000)
                asker.serves(200)
        finally:
            node.kill()


class _At:
    """What `ask` needs of a node."""

    def __init__(self, address: str) -> None:
        self.address = address


def test_a_second_node_of_a_name_ends_with_a_code_of_its_own_however_often(
    processes: Processes,
) -> None:
    seed = processes.node()
    first = processes.node("--name", "twin", "--seed", seed.address)
    assert first.ready
    for seeds in (seed.address, first.address):
        second = processes.node("--name", "twin", "--seed", seeds)
        assert second.wait() == EXIT_NAME_TAKEN, second.text()
        lost = second.events("name_conflict")[-1]
        assert (lost["level"], lost["lost"], lost["theirs"]) == ("error", True, first.address)
        assert lost["ours"] not in ("", first.address)
    assert first.popen.poll() is None
    first.popen.kill()
    moved = processes.node("--name", "twin", "--seed", seed.address)
    assert moved.ready, "the first one does not answer"
