"""The options of a node's sockets, each with its reason, and how a message is put on one."""

from __future__ import annotations

from collections.abc import Sequence

import zmq

from dcc.limits import VALUE_BYTES_MAX
from dcc.node.unread import Tracker
from dcc.sending import send
from dcc.units import KIB

NOBLOCK = int(zmq.NOBLOCK)
"Plain ints: an enum member costs a conversion on every call."
NOBLOCK_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)
SHARED_BYTES_MIN = 32 * KIB
"Frames from here on are sent without a copy: below, the bookkeeping costs more than memcpy."

# Every option has a reason; what is not set here keeps libzmq's default (TCP_NODELAY is one).
COMMON = {
    zmq.LINGER: 0,  # Closing never waits for a peer that is gone.
    # The kernel's probes, not libzmq's heartbeats: its timer of a connection that has gone while
    # its receiving limit was reached runs into an assertion, and takes the process with it.
    zmq.TCP_KEEPALIVE: 1,
    zmq.TCP_KEEPALIVE_IDLE: 1,  # Something is always on its way, to be acknowledged by TCP.
    zmq.TCP_KEEPALIVE_INTVL: 1,
    zmq.TCP_KEEPALIVE_CNT: 3,
    zmq.TCP_MAXRT: 3_000,  # A cut cable is noticed in 3 s, not after TCP's 15 minutes.
    zmq.HANDSHAKE_IVL: 3_000,  # A peer that connects and stays silent keeps no descriptor.
}
CONNECTING = {
    zmq.CONNECT_TIMEOUT: 2_000,  # The kernel's own is two minutes.
    zmq.RECONNECT_IVL_MAX: 5_000,  # Back off from a dead peer, yet be there soon when it is back.
}
ROUTER = COMMON | {
    zmq.ROUTER_MANDATORY: 1,  # A reply that nobody gets is an error here, not silence.
    zmq.MAXMSGSIZE: VALUE_BYTES_MAX,  # Checked by libzmq before it allocates; per frame.
    zmq.RCVHWM: 1_000,  # Per client; beyond it TCP holds the sender back.
    zmq.SNDHWM: 1_000,  # Per client; in bytes it is bounded by `unread`.
}  # fmt: skip
DEALER = COMMON | CONNECTING | {
    zmq.IMMEDIATE: 1,  # Queue only to live connections: a send to nobody fails at once.
    zmq.MAXMSGSIZE: VALUE_BYTES_MAX,
    zmq.RCVHWM: 64,  # Only a seed's answers come in here.
    zmq.SNDHWM: 1_000,  # Replication has its own, smaller window; this is the last bound.
}  # fmt: skip
PUB = COMMON | {
    zmq.SNDHWM: 256,  # Gossip is soon stale; older is dropped for a slow subscriber.
    zmq.MAXMSGSIZE: 64,  # A topic is 8 bytes; of a longer one libzmq keeps a node for each byte.
}  # fmt: skip
SUB = COMMON | CONNECTING | {
    zmq.RCVHWM: 256,  # Per member, as above.
    zmq.MAXMSGSIZE: 16 * KIB,  # Gossip is at most 1,400 bytes today.
}  # fmt: skip


def put(socket: zmq.Socket[bytes], frames: Sequence[bytes], *, more: bool = False) -> bool:
    """Send a whole message without waiting; False if it was refused or dropped.

    If libzmq drops the connection between two frames it goes on to swallow the message's other
    frames, and must be given them: the next message would lose its head instead.
    """
    last = -1 if more else len(frames) - 1
    whole = True
    for i, frame in enumerate(frames):
        try:
            flags = NOBLOCK if i == last else NOBLOCK_MORE
            send(socket, frame, flags, len(frame) < SHARED_BYTES_MIN)
        except zmq.ZMQError:
            if i == 0:
                return False
            whole = False
    return whole


def put_tracked(socket: zmq.Socket[bytes], frames: Sequence[bytes]) -> Tracker | None:
    """Send a whole message as `put` does, and return what tells when its last frame is gone.

    None if it was refused or dropped.
    """
    if not put(socket, frames[:-1], more=True):
        return None
    try:
        return socket.send(frames[-1], NOBLOCK, copy=False, track=True)
    except zmq.ZMQError:
        return None
