"""The loop of a node: the one thread that owns its sockets and its core.

A turn is: wait until something arrives or the core's time has come; read both clocks; take at
most `TURN_MESSAGES_MAX` messages from each socket, and for no longer than `BATCH_NS`, gossip first,
so that no plane starves another; let the core tick; carry out what it asked for. A get that is
answered from this node's own store never becomes an effect: its reply is sent where it was made.

One message may hold thousands of keys and take longer than the skew of clocks that is borne. What
comes behind it is judged by the time at which it is looked at: the clocks are read again once the
last reading is `FRESH_NS` old. Only messages that the core looked at can make it so, and only
behind them is it asked.

Other threads and signal handlers never touch the core. They leave a wish and write a byte to a
socket pair that the loop polls.

A bug in the core ends one turn, not the node: it is logged with its traceback once for each
place it comes from, and counted.
"""

from __future__ import annotations

import os
import random
import socket as net
import time
import traceback
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import replace
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Protocol

import zmq

from dcc.config import NodeConfig
from dcc.effects import Connect, Disconnect, Effect, Notify, Publish, Reply, Send
from dcc.limits import EXTRA_FRAMES_MAX
from dcc.node.access import Access
from dcc.node.binding import expand_seeds
from dcc.node.core import NodeCore
from dcc.node.counters import Load
from dcc.node.logs import Log
from dcc.node.options import Options
from dcc.node.security import Closed, Open
from dcc.node.transport import NOBLOCK, NOBLOCK_MORE, Pollables, Transport
from dcc.sending import send
from dcc.types import Boot, Identity, NodeKey, Now, node_key, topic_of
from dcc.units import MILLISECOND, SECOND

TURN_MESSAGES_MAX = 64
"Messages from one socket in a turn: about a millisecond of work."
BATCH_NS = 10 * MILLISECOND
"Messages of one socket that take longer are left for the next turn; one at least is taken."
FRESH_NS = 2 * MILLISECOND
"How old a reading of the clocks may be when the core is given a message."
SKIPPED_FRAMES_MAX = 1_000
"Frames of one oversized message that are thrown away in a turn."
POLL_MAX_NS = 1 * SECOND
"The loop turns at least this often, so that liveness can be told from outside."
UPKEEP_NS = 100 * MILLISECOND
"How often the transport is looked after while it has anything to look after."
BUG_PAUSE_NS = 10 * MILLISECOND
"After a bug: a tick that always fails must not take the whole processor."
BUGS_MAX = 64
"Places of bugs that are told apart."
SNAPSHOT_AGE_NS = 1 * SECOND
LAG_WINDOW_NS = 1 * SECOND
FILES_WARNING_NS = 600 * SECOND
"Between two warnings that descriptors are short."
LEAVE_GRACE_NS = 5 * SECOND
"What a leave may take beyond the core's own time-out before the shell ends it."


class Core(Protocol):
    """What the loop needs of `NodeCore`; see docs/architecture.md for the contract."""

    access: Access
    load: Load

    @property
    def ready(self) -> bool: ...
    @property
    def slots_ready(self) -> bool: ...
    @property
    def left(self) -> bool: ...
    @property
    def displaced(self) -> bool: ...
    def start(self, now: Now) -> list[Effect]: ...
    def serve(self, route: bytes, frame: bytes, now: Now) -> bytes | None: ...
    def receive(
        self, route: bytes, frames: list[bytes], now: Now, who: Identity | None = None
    ) -> list[Effect]: ...
    def receive_gossip(self, frames: list[bytes], now: Now) -> list[Effect]: ...
    def undeliverable(self, to: NodeKey | str, frames: list[bytes], now: Now) -> list[Effect]: ...
    def tick(self, now: Now) -> list[Effect]: ...
    def wake_at(self) -> int: ...
    def leave(self, now: Now) -> list[Effect]: ...
    def unsent(self, frames: list[bytes]) -> list[bytes]: ...
    def stats(self, now: Now) -> dict[str, Any]: ...
    def observe(self, command: str, duration_ns: int, times: int) -> None: ...


mono_ns: Callable[[], int] = (
    partial(time.clock_gettime_ns, time.CLOCK_BOOTTIME)
    if hasattr(time, "CLOCK_BOOTTIME")
    else time.monotonic_ns
)
"""The node's monotonic clock, for everything that is compared with `Now.mono`.

Where there is one, it is the clock that goes on while the machine is suspended: a laptop that
wakes up must see that it stood still, and cluster time, which is made from it, must not be hours
behind. It costs about one and a half times `time.monotonic_ns`.
"""


def read_clocks() -> Now:
    """Return both clocks now."""
    return Now(mono_ns(), time.time_ns())


class Loop:
    """Runs one core on one transport until it has left or is told to stop.

    `leave`, `stop`, `snapshot` and the public attributes may be used from other threads; `leave`
    and `stop` from signal handlers too. Everything else belongs to the thread that calls `run`.
    """

    def __init__(
        self,
        core: Core,
        transport: Transport,
        config: NodeConfig,
        *,
        log: Log,
        on_ready: Callable[[], None],
    ) -> None:
        self.config = config
        self._core, self._transport, self._log, self._on_ready = core, transport, log, on_ready
        self._inner, self._outer = net.socketpair()
        for end in (self._inner, self._outer):
            end.setblocking(False)
        transport.watch(self._inner.fileno())
        transport.on_names(self._wake)
        self._closed = transport.security if isinstance(transport.security, Closed) else None
        "Where keys are used: who is allowed."
        transport.security.refusals.on_news = partial(self._wish, "keys")
        self._tell_access()
        self._wishes: SimpleQueue[str] = SimpleQueue()
        self._asked: SimpleQueue[Future[dict[str, Any]]] = SimpleQueue()
        self._snapshot: dict[str, Any] = {}
        self._snapshot_at = -SNAPSHOT_AGE_NS
        self._stopping = self._announced = False
        self._files_warned_at = -FILES_WARNING_NS
        self._leave_by: int | None = None
        self._skipping = False
        self._wake_at = self._paused_until = 0
        self._touched = True
        "The core was called, so it may want to be woken earlier; the short path never does."
        self._worst_lag_ns = self._lag_from = self._unread = 0
        self._bugs: dict[str, int] = {}
        self._now = read_clocks()
        "The last reading of the clocks; what the core is told."
        self.turned_at = self._now.mono
        "Monotonic time of the last turn."

    # ------------------------------------------------------------ for other threads

    def leave(self) -> None:
        """Ask the node to hand its data over and end; `run` returns when it has."""
        self._wish("leave")

    def stop(self) -> None:
        """Ask `run` to return after this turn; to others it looks like a crash."""
        self._wish("stop")

    def snapshot(
        self, timeout_s: float, *, age_max_ns: int = SNAPSHOT_AGE_NS
    ) -> dict[str, Any] | None:
        """Return the node's statistics, at most so old; None if the loop does not answer."""
        if mono_ns() - self._snapshot_at < age_max_ns:
            return self._snapshot
        asked: Future[dict[str, Any]] = Future()
        self._asked.put(asked)
        self._wake()
        try:
            return asked.result(timeout_s)
        except (FutureTimeout, CancelledError):
            asked.cancel()
            return None

    @property
    def displaced(self) -> bool:
        """Whether another node took this one's name, which ended `run`."""
        return self._core.displaced

    @property
    def bugs(self) -> int:
        """Turns that a bug ended."""
        return sum(self._bugs.values())

    def _wish(self, wish: str) -> None:
        self._wishes.put(wish)
        self._wake()

    def _wake(self) -> None:
        try:
            self._outer.send(b"\0")
        except OSError:  # Full: it is awake already. Closed: it has ended.
            pass

    # ------------------------------------------------------------ the loop

    def run(self) -> None:
        """Turn until the core has left or `stop` was called, then close all sockets."""
        try:
            self._guarded(self._start)
            while not self._ended():
                self._guarded(self._turn)
        finally:
            self._transport.close()
            self._refuse_snapshots()
            self._inner.close()
            self._outer.close()

    def _start(self) -> None:
        self._now = read_clocks()
        self._carry_out(self._core.start(self._now))

    def _ended(self) -> bool:
        if self._stopping or self._core.left:
            return True
        return self._leave_by is not None and mono_ns() > self._leave_by

    def _guarded(self, part: Callable[[], None]) -> None:
        """Run `part`; whatever it raises is a bug that the node survives."""
        try:
            part()
        except Exception as error:
            self._bug(error)

    def _bug(self, error: Exception) -> None:
        where = traceback.extract_tb(error.__traceback__)[-1]
        kind = f"{type(error).__name__} at {os.path.basename(where.filename)}:{where.lineno}"
        if kind not in self._bugs and len(self._bugs) >= BUGS_MAX:
            kind = "others"
        self._touched = True
        known = kind in self._bugs
        self._bugs[kind] = self._bugs.get(kind, 0) + 1
        self._paused_until = mono_ns() + BUG_PAUSE_NS
        if not known:
            text = "".join(traceback.format_exception(error))
            self._log("bug", {"kind": kind, "traceback": text})

    def _turn(self) -> None:
        transport, core = self._transport, self._core
        before = mono_ns()
        timeout_ns = self._timeout_ns(before)
        ready: Pollables = zmq.zmq_poll(transport.pollables(), -(-timeout_ns // MILLISECOND))
        self._now = read_clocks()
        self._note_lag(before, timeout_ns, self._now.mono)
        for source, _events in ready:
            if source is transport.router:
                if self._closed is None:
                    self._take_requests()
                else:
                    self._take_from_known(self._closed)
            elif source is transport.sub:
                self._take_gossip()
            elif type(source) is int:
                self._take_wishes()
        if not transport.idle:
            self._take_seed_answers()
            transport.upkeep(self._now.mono)
        if transport.look_at <= self._now.mono and transport.look(self._now.mono):
            self._warn_of_files()
        if transport.undelivered:
            self._tell_undelivered()
        if self._touched:  # What a turn costs is counted by these, see `replication.pace`.
            self._now = read_clocks()
            self._touched, self._wake_at = False, core.wake_at()
        if transport.unread.bytes_used or self._unread:
            self._unread = self._core.load.replies_bytes = transport.unread.look()
        now = self._now
        if self._wake_at <= now.mono and now.mono >= self._paused_until:
            self._carry_out(core.tick(now))
            self._touched, self._wake_at = False, core.wake_at()
        if not self._announced and core.ready:
            self._announced = True
            self._on_ready()

    def _late(self, until: int) -> bool:
        """Read the clocks again if the last reading is old; return whether `until` has passed."""
        mono = mono_ns()
        if mono - self._now.mono >= FRESH_NS:
            self._now = read_clocks()
        return mono >= until

    def _timeout_ns(self, now: int) -> int:
        wake_at = min(self._wake_at, now + POLL_MAX_NS, self._transport.look_at)
        if wake_at < self._paused_until:
            wake_at = self._paused_until
        if not self._transport.idle:
            wake_at = min(wake_at, now + UPKEEP_NS)
        if self._transport.undelivered:
            return 0
        return max(0, wake_at - now)

    def _note_lag(self, before: int, timeout_ns: int, now: int) -> None:
        """Keep the longest time in which nobody looked at the sockets, for each second.

        It is the work of the last turn, and what the poll overslept; a poll that returned early
        overslept nothing.
        """
        lag = before - self.turned_at + max(0, now - before - timeout_ns - MILLISECOND)
        self.turned_at = now
        self._worst_lag_ns = max(self._worst_lag_ns, lag)
        if now - self._lag_from >= LAG_WINDOW_NS:
            self._core.load.loop_lag_ns = self._worst_lag_ns
            self._worst_lag_ns, self._lag_from = 0, now

    # ------------------------------------------------------------ what comes in

    def _take_requests(self) -> None:
        """Serve what has come in on the ROUTER.

        Asking libzmq whether a frame was its message's last costs more than receiving both frames
        of a small request. So whoever was answered before is trusted (`Transport.answered`) to
        send what the short path serves in one frame. If there are more behind it, the first of
        them is taken for a routing id here; it is none that was ever answered, and is looked at
        with care. Should it be one by chance, what follows it is found to be the next message.

        Replies of the short path are sent together, in order: one by one each would wake
        libzmq's I/O thread, which costs a system call here and two there.
        """
        router, known, now = self._transport.router, self._transport.answered, self._now
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
                    self._take_slowly(route, frame)
                else:
                    self._send_replies(replies)
                    self._take_carefully(route)
                if self._late(until):
                    break
                now = self._now
        except zmq.Again:
            pass
        finally:
            self._send_replies(replies)
            if served:  # A clock read for each would be a tenth of the work: the mean counts.
                took = mono_ns() - began
                self._core.observe("get", took // served, served)

    def _take_from_known(self, closed: Closed) -> None:
        """Serve what has come in on the ROUTER of a node with keys.

        Who sent a message is asked of libzmq for each one. It is not remembered by routing id: of
        65,000 ids that were drawn and have gone, some client would guess one in minutes.
        """
        router, core, until = self._transport.router, self._core, self._now.mono + BATCH_NS
        replies: list[bytes] = []
        began, served = self._now.mono, 0
        if self._skipping:
            self._skip(router)
        try:
            for _ in range(0 if self._skipping else TURN_MESSAGES_MAX):
                head = router.recv(NOBLOCK, False)
                frame = router.recv(NOBLOCK, False) if head.more else head
                route, frames = head.bytes, [frame.bytes]
                who = closed.who_sent(head, route)
                if frame.more:
                    frames = self._rest(router, frames)
                if who is None or frame is head:
                    continue
                reply = None
                if len(frames) == 1 and not who.limited:
                    reply = core.serve(route, frames[0], self._now)
                if reply:
                    replies += (route, reply)
                    served += 1
                elif reply is None:
                    self._send_replies(replies)
                    self._carry_out(core.receive(route, frames, self._now, who))
                if self._late(until):
                    break
        except zmq.Again:
            pass
        finally:
            self._send_replies(replies)
            if served:
                core.observe("get", (mono_ns() - began) // served, served)

    def _take_slowly(self, route: bytes, frame: bytes) -> None:
        """Receive the rest behind `frame`, which the short path left alone."""
        frames = self._rest(self._transport.router, [frame])
        if frame in self._transport.answered and len(frames) > 1:  # Out of step: a routing id.
            route = frames.pop(0)
            reply = self._core.serve(route, frames[0], self._now)
            if reply is not None:  # As it would have been in step, whatever is behind it.
                self._transport.strays += len(frames) - 1
                if reply:
                    self._transport.reply(route, [reply])
                return
        self._carry_out(self._core.receive(route, frames, self._now))

    def _take_carefully(self, route: bytes) -> None:
        """Receive the rest behind what may be a routing id, and end in step in any case."""
        frames = self._rest(self._transport.router, [])
        if frames:
            self._carry_out(self._core.receive(route, frames, self._now))
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
        """Return `frames` and those that libzmq has behind them, no more than the limit.

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

    def _take_gossip(self) -> None:
        sub, until = self._transport.sub, self._now.mono + BATCH_NS
        for _ in range(TURN_MESSAGES_MAX):
            try:
                frames = sub.recv_multipart(NOBLOCK)
            except zmq.Again:
                return
            self._carry_out(self._core.receive_gossip(frames, self._now))
            if self._late(until):
                return

    def _take_seed_answers(self) -> None:
        for address, socket in self._transport.seed_sockets:
            until = self._now.mono + BATCH_NS
            for _ in range(TURN_MESSAGES_MAX):
                try:
                    frames = socket.recv_multipart(NOBLOCK)
                except zmq.Again:
                    break
                self._transport.heard(address, self._now.mono)
                self._carry_out(self._core.receive(b"", frames, self._now))
                if self._late(until):
                    break

    def _take_wishes(self) -> None:
        self._touched = True
        try:
            self._inner.recv(4096)
        except BlockingIOError:
            pass
        self._transport.names_answered(self._now.mono)
        for wish in _drained(self._wishes):
            if wish == "keys":
                self._take_keys()
                continue
            self._log("asked_to_" + wish, {})
            if wish == "stop":
                self._stopping = True
            elif self._leave_by is None:
                self._leave_by = self._now.mono + self.config.leave_timeout_ns + LEAVE_GRACE_NS
                self._carry_out(self._core.leave(self._now))
        for asked in _drained(self._asked):
            self._answer(asked)

    def _take_keys(self) -> None:
        """Hear what is to be told of keys, and end the connections of whoever may not have one."""
        for event, fields in _drained(self._transport.security.refusals.told):
            self._log(event, fields)
            if event == "keys_read":
                self._tell_access()
                self._transport.enforce()

    def _tell_access(self) -> None:
        security, access = self._transport.security, self._core.access
        access.nodes, access.refused = security.nodes, security.refusals.counts

    def read_keys(self) -> None:
        """Look at the key files now, if there are any. From signal handlers, too."""
        if self._closed is not None:
            self._closed.authenticator.look()

    def _answer(self, asked: Future[dict[str, Any]]) -> None:
        now = self._now
        if now.mono != self._snapshot_at:
            self._snapshot = self._core.stats(now) | {"shell": self.counts()}
            self._snapshot_at = now.mono
        try:
            asked.set_result(self._snapshot)
        except InvalidStateError:  # Whoever asked has given up.
            pass

    def counts(self) -> dict[str, int]:
        """Return what the shell itself counts."""
        return {
            "bugs": self.bugs,
            "replies_lost": self._transport.replies_lost,
            "sends_lost": self._transport.sends_lost,
            "strays": self._transport.strays,
            "connections": self._transport.connections,
        }

    def _refuse_snapshots(self) -> None:
        for asked in _drained(self._asked):
            asked.cancel()

    # ------------------------------------------------------------ what goes out

    def _tell_undelivered(self) -> None:
        """Tell the core of failed sends; what fails anew meanwhile waits for the next turn."""
        failed, self._transport.undelivered = self._transport.undelivered, []
        for to, frames in failed:
            self._carry_out(self._core.undeliverable(to, frames, self._now))

    def _carry_out(self, effects: list[Effect]) -> None:
        # Like a get of the short path, an answer to a get_many alone makes nothing due.
        if len(effects) != 1 or getattr(effects[0], "command", "") != "get_many":
            self._touched = True
        transport, now = self._transport, self._now
        for effect in effects:
            match effect:
                case Reply(route, frames):
                    if not transport.reply(route, frames):
                        self._transport.replies_lost += 1
                        transport.reply(route, self._core.unsent(frames))
                    if effect.command:
                        took = mono_ns() - effect.began_at
                        self._core.observe(effect.command, took, 1)
                case Send(to, frames, bulk):
                    transport.send(to, frames, now.mono, bulk=bulk)
                case Publish(topic, payload):
                    transport.publish(topic, payload)
                case Notify(event, fields):
                    self._log(event, fields)
                case Connect(key, request, gossip):
                    transport.connect(key, request, gossip, now.mono)
                    self._check_files()
                case Disconnect(key):
                    transport.disconnect(key)
                case _:
                    raise AssertionError(f"{type(effect).__name__} is no effect of a core")

    def _check_files(self) -> None:
        if self._transport.files_short or self._transport.deaf:
            self._warn_of_files()

    def _warn_of_files(self) -> None:
        if self._now.mono - self._files_warned_at >= FILES_WARNING_NS:
            self._files_warned_at = self._now.mono
            limit = self._transport.files_max
            self._log("file_descriptors_short", {"limit": limit, "hint": "raise ulimit -n"})


def _drained(queue: SimpleQueue[Any]) -> list[Any]:
    items = []
    try:
        while True:
            items.append(queue.get_nowait())
    except Empty:
        return items


def new_boot(rng: random.Random) -> Boot:
    """Return the boot of a process that starts now."""
    return (time.time_ns() // MILLISECOND) << 16 | rng.getrandbits(16)


def open_loop(options: Options, *, log: Log, on_ready: Callable[[], None], **tuning: Any) -> Loop:
    """Bind the node that `options` describe and return its loop, ready to run.

    `tuning` sets fields of `NodeConfig` that are no options.

    Raises:
        ConfigError: an address cannot be bound, or the configuration is impossible. Nothing
            stays open.
    """
    rng = random.Random(os.urandom(16))
    security = Closed(options.keys, options.name) if options.keys else Open()
    options = replace(options, name=options.name or security.name)
    transport = Transport(reconnect_ms=rng.randint(100, 300), security=security)
    try:
        request, gossip = transport.bind(options.bind, options.gossip_bind)
        own = [str((options.advertise or request)._replace(port=request.port)), str(request)]
        config = options.node_config(request, gossip, expand_seeds(options.seed, own), **tuning)
        transport.subscribe(topic_of(node_key(config.name)))
        transport.unread.bytes_max = config.replies_bytes_max
    except BaseException:
        transport.close()
        raise
    core = NodeCore(config, boot=new_boot(rng), rng=rng, now=read_clocks())
    core.access.mode = options.security
    return Loop(core, transport, config, log=log, on_ready=on_ready)
