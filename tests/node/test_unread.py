"""What clients have not read is bounded in bytes, and the process stays near its limit."""

from __future__ import annotations

import pytest
import zmq

from benchmarks.resident import measure, measure_large
from dcc.node.unread import CLIENT_SHARE, MARK_BYTES, Unread
from dcc.units import KIB, MIB
from dcc.wire.codec import Codec
from dcc.wire.messages import Code, ErrorReply, Get, GetReply, Op, Write
from tests.support.processes import Processes, wait_until


class Lent:
    """A frame that was lent, until it is given back."""

    done = False


def test_a_client_that_reads_nothing_keeps_to_its_share() -> None:
    unread = Unread(bytes_max=16 * MIB)
    lent = []
    while unread.admits(b"slow", MIB):
        assert unread.tracks(b"slow", MIB)
        lent.append(Lent())
        unread.sent(b"slow", MIB, lent[-1])
    assert unread.bytes_used == 16 * MIB // CLIENT_SHARE
    assert unread.admits(b"quick", 8 * MIB), "others have the rest"
    assert unread.admits(b"slow", 100), "a refusal always goes out"
    for one in lent:
        one.done = True
    assert unread.admits(b"slow", 20 * MIB), "who has nothing unread may have any value"
    assert unread.look() == 0


def test_many_clients_that_read_nothing_keep_to_the_budget() -> None:
    unread = Unread(bytes_max=16 * MIB)
    for client in range(100):
        route = b"%d" % client
        if unread.admits(route, MIB):
            unread.sent(route, MIB, Lent())
    assert unread.bytes_used == 16 * MIB


def test_small_replies_are_counted_by_the_one_that_is_tracked() -> None:
    unread = Unread()
    tracked = Lent()
    for n in range(64):
        size = KIB
        if unread.tracks(b"a", size):
            unread.sent(b"a", size, tracked)
            assert n == MARK_BYTES // KIB - 1
        else:
            unread.sent(b"a", size, None)
    assert unread.bytes_used == MARK_BYTES
    tracked.done = True
    assert unread.look() == 0


@pytest.mark.process
def test_a_client_that_reads_late_gets_refusals_and_then_values_again(
    processes: Processes,
) -> None:
    node = processes.node("--replicas", "0", "--max-memory", "32MiB")
    codec = Codec("dcc", sender=77, boot=5)
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVHWM, 1)
        socket.setsockopt(zmq.RCVBUF, 64 * KIB)
        socket.setsockopt(zmq.RCVTIMEO, 10_000)
        socket.connect(f"tcp://{node.address}")
        socket.send_multipart(codec.encode(Write(op=Op.PUT, key=b"k", value=bytes(MIB)), request=1))
        socket.recv_multipart()
        for request in range(2, 102):
            socket.send_multipart(codec.encode(Get(key=b"k"), request=request))
        answers = [codec.decode(socket.recv_multipart())[1] for _ in range(100)]
        refused = [one for one in answers if isinstance(one, ErrorReply)]
        assert {one.code for one in refused} <= {Code.OVERLOADED}
        assert len([one for one in answers if isinstance(one, GetReply)]) + len(refused) == 100

        def has_read_all() -> bool:
            # libzmq gives a sent frame back from its own thread, soon after the client has it.
            socket.send_multipart(codec.encode(Get(key=b"k"), request=200))
            return isinstance(codec.decode(socket.recv_multipart())[1], GetReply)

        wait_until(has_read_all, 5, node.text)


@pytest.mark.process
def test_the_process_stays_within_a_quarter_more_than_its_limit() -> None:
    figures = measure(limit_mib=32, clients=30, writes=1_000, readers=2)
    assert figures.good, figures.text()


@pytest.mark.process
def test_what_large_values_took_on_their_way_is_given_back() -> None:
    figures = measure_large(limit_mib=32, clients=20, value_mib=8)
    assert figures.last <= figures.most, figures.text()
