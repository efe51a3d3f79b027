"""What has come in on a node's sockets, taken in turn and within bounds.

At most `TURN_MESSAGES_MAX` messages of one socket are taken in a turn, and for no longer than
`BATCH_NS`, so that no socket starves another. A get that is answered from this node's own store
never becomes an effect: its reply is sent where it was made.
"""

from __future__ import annotations

from collections.abc import Callable

import zmq

from dcc.effects import Effect
from dcc.limits import EXTRA_FRAMES_MAX
from dcc.node import clocks
from dcc.node.clocks import Clocks
from dcc.node.contract import Core
from dcc.node.security import Closed
from dcc.node.sockets import NOBLOCK, NOBLOCK_MORE
from dcc.node.transport import Transport
from dcc.sending import send
from dcc.units import MILLISECOND

TURN_MESSAGES_MAX = 64
"Messages from one socket in a turn: about a millisecond of work."
BATCH_NS = 10 * MILLISECOND
"Messages of one socket that take longer are left for the next turn; one at least is taken."
SKIPPED_FRAMES_MAX = 1_000
"Frames of one oversized message that are thrown away in a turn."


class Reception:
    """Receives for one core. Of the loop's thread only."""

    def __init__(
        self,
        core: Core,
        transport: Transport,
        clocks: Clocks,
        carry_out: Callable[[list[Effect]], None],
    ) -> None:
        self._core, self._transport, self._clocks = core, transport, clocks
        self._carry_out = carry_out
        self._skipping = False
        "The rest of an oversized message is still to be thrown away."

    def requests(self) -> None:
        """Serve what has come in on the ROUTER.

        Asking libzmq whether a frame was its message's last costs more than receiving both frames
        of a small request. So a client that was answered before is trusted (`Transport.answered`)
        to send what the short path serves in one frame. If there are more after it, the first of
        them is taken for a routing id here; it is none that was ever answered, and is looked at
        with care. Should it be one by chance, what follows it is found to be the next message.

        Replies of the short path are sent together, in order: one by one each would wake
        libzmq's I/O thread, which costs a system call here and two there.
        """
        router, known, now = self._transport.router, self._transport.answered, self._clocks.now
        recv, serve = router.recv, self._core.serve
        began, until = now.mono, now.mono + BATCH_NS
        replies: list[bytes] = []
        served = 0
        if self._skipping:
            self._skip(router)
        try:
            for n in range(0 if self._skipping else TURN_MESSAGES_MAX):
                route = recv(NOBLOCK)
                if route in known:
                    frame = recv(NOBLOCK)
                    reply = serve(route, frame, now)
                    if reply is not None:
                        if not reply:  # It came too late: nobody waits for an answer.
                            continue
                        replies += (route, reply)
                        served += 1
                        if n == 0:  # Often the only one, and somebody waits for it.
                            self._send_replies(replies)
                        continue
                    self._send_replies(replies)
                    self._slowly(route, frame)
                else:
                    self._send_replies(replies)
                    self._carefully(route)
                if self._clocks.late(until):
                    break
                now = self._clocks.now
        except zmq.Again:
            pass
        finally:
            self._send_replies(replies)
            if served:  # A clock read for each would be a tenth of the work: the mean counts.
                took = clocks.mono_ns() - began
                self._core.observe("get", took // served, served)

    def requests_by_connection(self, closed: Closed | None) -> None:
        """Serve what has come in on the ROUTER of a node with keys, or of one that is flooded.

        libzmq is asked for the sender of each message. It is not remembered by routing id: of
        65,000 ids that were drawn and have gone, some client would guess one in minutes.
        """
        router, core, until = self._transport.router, self._core, self._clocks.now.mono + BATCH_NS
        floods = self._transport.floods
        replies: list[bytes] = []
        began, served = self._clocks.now.mono, 0
        if self._skipping:
            self._skip(router)
        try:
            for _ in range(0 if self._skipping else TURN_MESSAGES_MAX):
                head = router.recv(NOBLOCK, False)
                frame = router.recv(NOBLOCK, False) if head.more else head
                route, frames = head.bytes, [frame.bytes]
                who = closed.who_sent(head, route) if closed is not None else None
                if floods.watching:
                    floods.note(head)
                if frame.more:
                    frames = self._rest(router, frames)
                if frame is head or (who is None and closed is not None):
                    continue
                reply = None
                if len(frames) == 1 and (who is None or not who.limited):
                    reply = core.serve(route, frames[0], self._clocks.now)
                if reply:
                    replies += (route, reply)
                    served += 1
                elif reply is None:
                    self._send_replies(replies)
                    self._carry_out(core.receive(route, frames, self._clocks.now, who))
                if self._clocks.late(until):
                    break
        except zmq.Again:
            pass
        finally:
            self._send_replies(replies)
            if served:
                core.observe("get", (clocks.mono_ns() - began) // served, served)

    def _slowly(self, route: bytes, frame: bytes) -> None:
        """Receive the rest after `frame`, which the short path left alone."""
        frames = self._rest(self._transport.router, [frame])
        if frame in self._transport.answered and len(frames) > 1:  # Out of step: a routing id.
            route = frames.pop(0)
            reply = self._core.serve(route, frames[0], self._clocks.now)
            if reply is not None:  # As it would have been in step, whatever follows it.
                self._transport.strays += len(frames) - 1
                if reply:
                    self._transport.reply(route, [reply])
                return
        self._carry_out(self._core.receive(route, frames, self._clocks.now))

    def _carefully(self, route: bytes) -> None:
        """Receive the rest after what may be a routing id, and end in step in any case."""
        frames = self._rest(self._transport.router, [])
        if frames:
            self._carry_out(self._core.receive(route, frames, self._clocks.now))
        else:
            self._transport.strays += 1

    def _send_replies(self, replies: list[bytes]) -> None:
        """Send and remove `replies`, routing id and frame in turn."""
        router = self._transport.router
        for i in range(0, len(replies), 2):
            try:
                send(router, replies[i], NOBLOCK_MORE)
                send(router, replies[i + 1], NOBLOCK)
            except zmq.ZMQError:  # The client is gone, or does not read.
                self._transport.replies_lost += 1
        replies.clear()

    def _rest(self, socket: zmq.Socket[bytes], frames: list[bytes]) -> list[bytes]:
        """Return `frames` and those that libzmq has after them, no more than the limit.

        One too many is kept, so that the codec sees that the message breaks the limit.
        """
        more = socket.getsockopt(zmq.RCVMORE)
        while more and len(frames) <= EXTRA_FRAMES_MAX + 1:
            frames.append(socket.recv(NOBLOCK))
            more = socket.getsockopt(zmq.RCVMORE)
        if more:
            self._skipping = True
            self._skip(socket)
        return frames

    def _skip(self, socket: zmq.Socket[bytes]) -> None:
        """Throw away frames of an oversized message; the next turns go on where this one ends."""
        for _ in range(SKIPPED_FRAMES_MAX):
            if not socket.recv(NOBLOCK, False).more:
                self._skipping = False
                return

    def gossip(self) -> None:
        """Take what has come in on SUB."""
        sub, until = self._transport.sub, self._clocks.now.mono + BATCH_NS
        for _ in range(TURN_MESSAGES_MAX):
            try:
                frames = sub.recv_multipart(NOBLOCK)
            except zmq.Again:
                return
            self._carry_out(self._core.receive_gossip(frames, self._clocks.now))
            if self._clocks.late(until):
                return

    def seed_answers(self) -> None:
        """Take what seeds have answered on the connections of their own."""
        for address, socket in self._transport.seed_sockets:
            until = self._clocks.now.mono + BATCH_NS
            for _ in range(TURN_MESSAGES_MAX):
                try:
                    frames = socket.recv_multipart(NOBLOCK)
                except zmq.Again:
                    break
                self._transport.heard(address, self._clocks.now.mono)
                self._carry_out(self._core.receive(b"", frames, self._clocks.now))
                if self._clocks.late(until):
                    break
