"""What a GET costs: a dcc node beside a bare ZeroMQ loop, and a dcc client beside redis-py.

    python -m benchmarks.hot_path [--rounds 7] [--requests 200000]

Three figures, each the median of the rounds; within a round the contestants take turns, so that a
busy machine slows all of them down:

1. CPU time of the whole server process, all threads, per GET of 100 bytes at depth 100. The bare
   loop is a ROUTER with single non-blocking `recv` and `send` and a dict look-up: what pyzmq costs
   before anybody has decoded, decided or counted anything.
2. p50 of a single synchronous get, in the caller's time.
3. p50 of a get of 100 keys at once.

The client's own frames are built before the clock starts, and its CPU time is not counted in 1.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import zmq

from dcc.wire import messages as m
from dcc.wire.codec import Codec

KEYS = [f"key:{i:06}" for i in range(1_000)]
VALUE = b"v" * 100
DEPTH = 100
MANY = 100
SYNC_PART, MANY_PART = 10, 1_000
"A round of synchronous calls is this much shorter than one of pipelined requests."
START_SECONDS = 20.0
NOBLOCK, MORE = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE)

# ---------------------------------------------------------------- the bare loop

ECHO = """
import sys, zmq
NOBLOCK, MORE = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE)
value = b"v" * 100
table = {b"key:%06d" % i: value for i in range(1000)}
router = zmq.Context().socket(zmq.ROUTER)
port = router.bind_to_random_port("tcp://127.0.0.1")
print(port, flush=True)
recv, send, look_up, polled = router.recv, router.send, table.get, [(router, int(zmq.POLLIN))]
while True:
    zmq.zmq_poll(polled, 1000)
    try:
        for _ in range(64):
            route = recv(NOBLOCK)
            key = recv(NOBLOCK)
            send(route, MORE)
            send(look_up(key, value), NOBLOCK)
    except zmq.Again:
        pass
"""


@contextmanager
def started(argv: Sequence[str]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a server for the block; yields the process and its first line."""
    server = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        line = server.stdout.readline().strip()
        if not line:
            raise SystemExit(f"{argv[0]} ended without a word")
        yield server, line
    finally:
        server.kill()
        server.wait()
        assert server.stdout is not None
        server.stdout.close()


def cpu_seconds(pid: int) -> float:
    """CPU time of all threads of a process, to the nanosecond (Linux: its CPU clock's id)."""
    return time.clock_gettime(~pid << 3 | 2)


# ---------------------------------------------------------------- pipelined requests


def dealer(context: zmq.Context[zmq.Socket[bytes]], address: str) -> zmq.Socket[bytes]:
    """Return a DEALER connected to `address`."""
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.RCVTIMEO, 10_000)
    socket.connect(f"tcp://{address}")
    return socket


def pipeline(socket: zmq.Socket[bytes], requests: Sequence[bytes], count: int) -> None:
    """Send `count` of `requests` in turn and take all replies, `DEPTH` at a time under way."""
    send, recv, size = socket.send, socket.recv, len(requests)
    for i in range(DEPTH):
        send(requests[i % size])
    for i in range(DEPTH, count):
        recv()
        send(requests[i % size])
    for _ in range(DEPTH):
        recv()


def cpu_per_request(pid: int, socket: zmq.Socket[bytes], frames: list[bytes], count: int) -> float:
    """Return the server's CPU microseconds for one of `count` pipelined requests."""
    before = cpu_seconds(pid)
    pipeline(socket, frames, count)
    return (cpu_seconds(pid) - before) / count * 1e6


def fill(socket: zmq.Socket[bytes], codec: Codec) -> None:
    """Store the keys through raw requests."""
    for i, key in enumerate(KEYS):
        write = m.Write(op=m.Op.PUT, key=key.encode(), value=VALUE)
        socket.send_multipart(codec.encode(write, request=i + 1))
    for _ in KEYS:
        _, reply = codec.decode(socket.recv_multipart())
        if not isinstance(reply, m.WriteReply):
            raise SystemExit(f"the node did not store: {reply}")


def verified(socket: zmq.Socket[bytes], codec: Codec, frame: bytes) -> None:
    """Check once that what is measured is a hit."""
    socket.send(frame)
    _, reply = codec.decode(socket.recv_multipart())
    if not (isinstance(reply, m.GetReply) and reply.value == VALUE):
        raise SystemExit(f"the node did not answer with the value: {reply}")


# ---------------------------------------------------------------- calls one by one


def p50(call: Callable[[int], object], count: int) -> float:
    """Return the median microseconds of `call(i)`."""
    clock, times = time.perf_counter_ns, []
    for i in range(count):
        before = clock()
        call(i)
        times.append(clock() - before)
    return statistics.median(times) / 1e3


def echo_call(socket: zmq.Socket[bytes]) -> Callable[[int], object]:
    """One request to the bare loop and its reply."""
    keys = [key.encode() for key in KEYS]

    def call(i: int) -> object:
        socket.send(keys[i % len(keys)])
        return socket.recv()

    return call


@dataclass
class Row:
    """One contestant's figures over the rounds."""

    name: str
    unit: str
    measure: Callable[[], float]
    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The figure that counts."""
        return statistics.median(self.values)


def play(rows: Sequence[Row], rounds: int) -> None:
    """Let the contestants take turns, `rounds` times."""
    for _ in range(rounds):
        for row in rows:
            row.values.append(row.measure())


def report(title: str, rows: Sequence[Row], limits: Sequence[tuple[str, float]]) -> None:
    """Print the medians, and how the first compares with the others."""
    print(title)
    for row in rows:
        spread = f"{min(row.values):.2f} to {max(row.values):.2f}"
        print(f"  {row.name:34} {row.median:8.2f} {row.unit}   ({spread})")
    medians = {row.name: row.median for row in rows}
    for name, limit in limits:
        if name in medians:
            ratio = rows[0].median / medians[name]
            verdict = "ok" if ratio <= limit else "MISSED"
            print(f"  {ratio:.2f} times {name}; at most {limit}: {verdict}")
    print()


# ---------------------------------------------------------------- Redis


@contextmanager
def redis_client() -> Iterator[Any]:
    """A redis-py client of a server of our own without persistence; None if there is none."""
    try:
        import redis
    except ImportError:
        print("Redis: skipped: redis-py is not installed\n")
        yield None
        return
    if shutil.which("redis-server") is None:
        print("Redis: skipped: no redis-server\n")
        yield None
        return
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/socket"
        port = free_port()
        argv = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "",
                "--appendonly", "no", "--unixsocket", path, "--dir", directory]  # fmt: skip
        with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as server:
            try:
                client = redis.Redis(port=port)
                wait_for_redis(client, redis.ConnectionError)
                for key in KEYS:
                    client.set(key, VALUE)
                yield client
            finally:
                server.kill()


def wait_for_redis(client: Any, refused: type[Exception]) -> None:
    """Return once the server answers."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            client.ping()
        except refused:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def free_port() -> int:
    """Return a loopback port that was free a moment ago: redis-server cannot pick one."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# ---------------------------------------------------------------- the run


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.hot_path",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=200_000, help="of one round")
    options = parser.parse_args(argv)
    count = max(options.requests, 2 * DEPTH)
    node_argv = [sys.executable, "-m", "dcc.node", "--bind", "127.0.0.1:0",
                 "--log-level", "error"]  # fmt: skip
    with ExitStack() as stack:
        context = stack.enter_context(zmq.Context())
        echo, port = stack.enter_context(started([sys.executable, "-c", ECHO]))
        node, ready = stack.enter_context(started(node_argv))
        address = dict(word.split("=", 1) for word in ready.split()[1:])["request"]
        to_echo = stack.enter_context(dealer(context, f"127.0.0.1:{port}"))
        to_node = stack.enter_context(dealer(context, address))
        codec = Codec("dcc", sender=1, boot=1)
        fill(to_node, codec)
        gets = [codec.encode(m.Get(key=key.encode()), request=7)[0] for key in KEYS]
        keys = [key.encode() for key in KEYS]
        verified(to_node, codec, gets[0])
        rows = [
            Row("dcc node", "µs", lambda: cpu_per_request(node.pid, to_node, gets, count)),
            Row("bare ROUTER loop", "µs", lambda: cpu_per_request(echo.pid, to_echo, keys, count)),
        ]
        play(rows, options.rounds)
        report(f"server CPU per GET, {count} at depth {DEPTH}", rows, [("bare ROUTER loop", 2.5)])
        redis = stack.enter_context(redis_client())
        calls(stack, address, to_echo, redis, count, options.rounds)


def calls(
    stack: ExitStack, address: str, to_echo: zmq.Socket[bytes], redis: Any, count: int, rounds: int
) -> None:
    """Measure single calls and calls of many keys through the clients."""
    from dcc import Client

    client = stack.enter_context(Client(address, timeout=10))
    single, many = max(count // SYNC_PART, 100), max(count // MANY_PART, 20)
    some = KEYS[:MANY]
    if client.get(KEYS[0]) != VALUE or len(client.get_many(some)) != MANY:
        raise SystemExit("the client did not read what was stored")
    rows = [
        Row("dcc Client.get", "µs", lambda: p50(lambda i: client.get(KEYS[i % len(KEYS)]), single)),
        Row("bare ROUTER loop", "µs", lambda: p50(echo_call(to_echo), single)),
    ]
    lots = [Row("dcc Client.get_many", "µs", lambda: p50(lambda _: client.get_many(some), many))]
    if redis is not None:
        name = "redis-py"
        rows.append(Row(name, "µs", lambda: p50(lambda i: redis.get(KEYS[i % len(KEYS)]), single)))
        lots.append(Row(name, "µs", lambda: p50(lambda _: redis.mget(some), many)))
    play(rows, rounds)
    report(f"p50 of a get, {single} a round", rows, [("bare ROUTER loop", 1.5), ("redis-py", 2.0)])
    play(lots, rounds)
    report(f"p50 of a get of {MANY} keys, {many} a round", lots, [("redis-py", 3.0)])


if __name__ == "__main__":
    main()
