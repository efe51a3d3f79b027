"""The loop of a node: the one thread that owns its sockets and its core.

A turn is: wait until something arrives or the core's time has come; read both clocks (`clocks`);
take what has come in (`reception`), gossip first; let the core tick; carry out what it asked for.

Other threads and signal handlers never touch the core: they leave wishes (`wishes`).

A bug in the core ends one turn, not the node: it is counted, and logged once (`bugs`).
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import zmq

from dcc.config import NodeConfig
from dcc.effects import Connect, Disconnect, Effect, Notify, Publish, Reply, Send
from dcc.node import clocks
from dcc.node.binding import expand_seeds
from dcc.node.bugs import Bugs
from dcc.node.clocks import Clocks
from dcc.node.contract import Core
from dcc.node.core import NodeCore
from dcc.node.logs import Log
from dcc.node.options import Options
from dcc.node.reception import Reception
from dcc.node.security import Closed, Open
from dcc.node.transport import Pollables, Transport
from dcc.node.wishes import SNAPSHOT_AGE_NS, Wishes, drained
from dcc.types import Boot, node_key, topic_of
from dcc.units import MILLISECOND, SECOND

POLL_MAX_NS = 1 * SECOND
"The loop turns at least this often, so that liveness can be told from outside."
UPKEEP_NS = 100 * MILLISECOND
"How often the transport is looked after while it has anything to look after."
BUG_PAUSE_NS = 10 * MILLISECOND
"After a bug: a tick that always fails must not take the whole processor."
LAG_WINDOW_NS = 1 * SECOND
FILES_WARNING_NS = 600 * SECOND
"Between two warnings that descriptors are short."
LEAVE_GRACE_NS = 5 * SECOND
"What a leave may take beyond the core's own time-out before the shell ends it."


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
        self._clocks, self._wishes, self._bugs = Clocks(), Wishes(), Bugs(log)
        self._reception = Reception(core, transport, self._clocks, self._carry_out)
        transport.watch(self._wishes.fileno())
        transport.on_names(self._wishes.wake)
        self._closed = transport.security if isinstance(transport.security, Closed) else None
        "Where keys are used: which keys are allowed."
        transport.security.refusals.on_news = partial(self._wishes.add, "keys")
        self._tell_access()
        self._stopping = self._announced = False
        self.expelled: bool = False
        "Whether this node's key was taken away, which ended `run`."
        self._files_warned_at = -FILES_WARNING_NS
        self._leave_by: int | None = None
        self._wake_at = self._paused_until = 0
        self._touched = True
        "The core was called, so it may want to be woken earlier; the short path never does."
        self._worst_lag_ns = self._lag_from = self._unread = 0
        self.turned_at: int = self._clocks.now.mono
        "Monotonic time of the last turn."

    # ------------------------------------------------------------ for other threads

    def leave(self) -> None:
        """Ask the node to hand its data over and end; `run` returns when it has."""
        self._wishes.add("leave")

    def stop(self) -> None:
        """Ask `run` to return after this turn; to others it looks like a crash."""
        self._wishes.add("stop")

    def snapshot(
        self, timeout_s: float, *, age_max_ns: int = SNAPSHOT_AGE_NS
    ) -> dict[str, Any] | None:
        """Return the node's statistics, at most so old; None if the loop does not answer."""
        return self._wishes.snapshot(timeout_s, age_max_ns=age_max_ns)

    @property
    def displaced(self) -> bool:
        """Whether another node took this one's name, which ended `run`."""
        return self._core.displaced

    @property
    def bugs(self) -> int:
        """Turns that a bug ended."""
        return self._bugs.total

    # ------------------------------------------------------------ the loop

    def run(self) -> None:
        """Turn until the core has left or `stop` was called, then close all sockets."""
        try:
            self._guarded(self._start)
            while not self._ended():
                self._guarded(self._turn)
        finally:
            self._transport.close()
            self._wishes.refuse()
            self._wishes.close()

    def _start(self) -> None:
        self._carry_out(self._core.start(self._clocks.read()))

    def _ended(self) -> bool:
        if self._stopping or self._core.left:
            return True
        return self._leave_by is not None and clocks.mono_ns() > self._leave_by

    def _guarded(self, part: Callable[[], None]) -> None:
        """Run `part`; whatever it raises is a bug that the node survives."""
        try:
            part()
        except Exception as error:
            self._touched = True
            self._paused_until = clocks.mono_ns() + BUG_PAUSE_NS
            self._bugs.note(error)

    def _turn(self) -> None:
        transport, core, reception = self._transport, self._core, self._reception
        before = clocks.mono_ns()
        timeout_ns = self._timeout_ns(before)
        ready: Pollables = zmq.zmq_poll(transport.pollables(), -(-timeout_ns // MILLISECOND))
        self._note_lag(before, timeout_ns, self._clocks.read().mono)
        for source, _events in ready:
            if source is transport.router:
                if self._closed is None and not transport.floods.watching:
                    reception.requests()
                else:
                    reception.requests_by_connection(self._closed)
            elif source is transport.sub:
                reception.gossip()
            elif type(source) is int:
                self._take_wishes()
        if not transport.idle:
            reception.seed_answers()
            transport.upkeep(self._clocks.now.mono)
        if transport.look_at <= self._clocks.now.mono:
            self._look(self._clocks.now.mono)
        if transport.undelivered:
            self._tell_undelivered()
        if self._touched:  # What a turn costs is counted by these, see `replication.pace`.
            self._clocks.read()
            self._touched, self._wake_at = False, core.wake_at()
        if transport.unread.bytes_used or self._unread:
            self._unread = self._core.load.replies_bytes = transport.unread.look()
        now = self._clocks.now
        if self._wake_at <= now.mono and now.mono >= self._paused_until:
            self._carry_out(core.tick(now))
            self._touched, self._wake_at = False, core.wake_at()
        if not self._announced and core.ready:
            self._announced = True
            self._on_ready()

    def _look(self, now: int) -> None:
        if self._transport.look(now):
            self._warn_of_files()
        if self._transport.security.is_expelled(now):  # Alone it would take writes from clients.
            self.expelled = self._stopping = True
            self._log("own_key_revoked", {"name": self.config.name})

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

    # ------------------------------------------------------------ wishes

    def _take_wishes(self) -> None:
        self._touched = True
        wishes = self._wishes.taken()
        self._transport.names_answered(self._clocks.now.mono)
        for wish in wishes:
            if wish == "keys":
                self._take_keys()
                continue
            self._log("asked_to_" + wish, {})
            if wish == "stop":
                self._stopping = True
            elif self._leave_by is None:
                now = self._clocks.now
                self._leave_by = now.mono + self.config.leave_timeout_ns + LEAVE_GRACE_NS
                self._carry_out(self._core.leave(now))
        self._wishes.answer(self._clocks.now.mono, self._figures)

    def _take_keys(self) -> None:
        """Hear what is to be told of keys, and end connections that are not allowed any more."""
        for event, fields in drained(self._transport.security.refusals.told):
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

    def _figures(self) -> dict[str, Any]:
        return self._core.stats(self._clocks.now) | {"shell": self.counts()}

    def counts(self) -> dict[str, int]:
        """Return what the shell itself counts."""
        return {
            "bugs": self.bugs,
            "replies_lost": self._transport.replies_lost,
            "sends_lost": self._transport.sends_lost + self._transport.subscriptions.failed,
            "strays": self._transport.strays,
            "connections": self._transport.connections,
        }

    # ------------------------------------------------------------ what goes out

    def _tell_undelivered(self) -> None:
        """Tell the core of failed sends; what fails again meanwhile waits for the next turn."""
        failed, self._transport.undelivered = self._transport.undelivered, []
        for to, frames in failed:
            self._carry_out(self._core.undeliverable(to, frames, self._clocks.now))

    def _carry_out(self, effects: list[Effect]) -> None:
        # Like a get of the short path, an answer to a get_many alone makes nothing due.
        if len(effects) != 1 or getattr(effects[0], "command", "") != "get_many":
            self._touched = True
        transport, now = self._transport, self._clocks.now
        for effect in effects:
            match effect:
                case Reply(route, frames):
                    if not transport.reply(route, frames):
                        self._transport.replies_lost += 1
                        transport.reply(route, self._core.unsent(frames))
                    if effect.command:
                        took = clocks.mono_ns() - effect.began_at
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
        if self._clocks.now.mono - self._files_warned_at >= FILES_WARNING_NS:
            self._files_warned_at = self._clocks.now.mono
            limit = self._transport.files_max
            self._log("file_descriptors_short", {"limit": limit, "hint": "raise ulimit -n"})


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
    core = NodeCore(config, boot=new_boot(rng), rng=rng, now=clocks.read_clocks())
    core.access.mode = options.security
    return Loop(core, transport, config, log=log, on_ready=on_ready)
