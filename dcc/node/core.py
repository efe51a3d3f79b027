"""The node without I/O: composes the machines, routes every message to the one that decides.

What arrives is decoded here and nowhere else; a `PeerError` ends here as a counted drop. What the
machines answer in messages leaves as frames. The shell (`loop`) and the simulator drive it alike:
bytes and `now` in, effects out, `tick` when `wake_at()` has come.

`serve` is the one exception to effects: a GET of one small frame that can be answered from the
store goes from bytes to bytes in one short function, because most requests are that.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from dcc.config import NodeConfig
from dcc.effects import (
    Answer,
    Disconnect,
    Effect,
    Gossip,
    Notify,
    Publish,
    Reply,
    Send,
    Tell,
)
from dcc.errors import ForeignCluster, MalformedMessage, PeerError, UnsupportedVersion
from dcc.node.administration import Administration
from dcc.node.admission import Admission, Request
from dcc.node.company import Company
from dcc.node.converging import Converging
from dcc.node.copies import Copies
from dcc.node.door import Door
from dcc.node.fastpath import DROPPED, FastPath
from dcc.node.footprint import Footprint
from dcc.node.gates import AnybodyGate, MemberGate
from dcc.node.lifecycle import Lifecycle
from dcc.node.listings import Listings
from dcc.node.machines import Machines
from dcc.node.outgoing import Outgoing
from dcc.node.requests import Requests
from dcc.node.rights import Rights
from dcc.node.routes import Handler, Sender, table
from dcc.node.stats import Statistics
from dcc.node.views import Views
from dcc.replication.holdings import Instant
from dcc.types import Boot, Identity, NodeKey, Now, topic_of
from dcc.units import NEVER, SECOND
from dcc.wire import messages as m
from dcc.wire.codec import HEADER_FIELDS, Header, unpack_items


class NodeCore:
    """One node; see docs/architecture.md for the contract with its shell."""

    def __init__(self, config: NodeConfig, *, boot: Boot, rng: Random, now: Now) -> None:
        machines = self.machines = Machines(config, boot=boot, rng=rng, now=now)
        self.config: NodeConfig = config
        self.boot: Boot = boot
        self.key: NodeKey = machines.key
        self.clock, self.codec, self.counters = machines.clock, machines.codec, machines.counters
        self.held, self.sync, self.membership = machines.held, machines.sync, machines.membership
        self.certainty, self.questions = machines.certainty, machines.questions
        self.exchange, self.staleness = machines.exchange, machines.staleness
        self.served, self.forwards = machines.served, machines.forwards
        self.streams = machines.streams
        self.reads, self.writes, self.lateness = machines.reads, machines.writes, machines.lateness
        self.load, self.timekeeper = machines.load, machines.timekeeper
        self.access = machines.access
        self._door, self._outgoing = Door(machines), Outgoing(machines)
        self._views = Views(machines, self._door)
        self.company: Company = Company(machines)
        self.lifecycle: Lifecycle = Lifecycle(machines, self.company)
        self.converging: Converging = Converging(machines, self.lifecycle)
        self.footprint: Footprint = Footprint(machines, self.converging)
        self._statistics = Statistics(
            machines, self.company, self.lifecycle, self.converging, self.footprint
        )
        self._copies = Copies(machines, self._door, self._views)
        self._admission, self._rights = Admission(machines), Rights(machines)
        self.requests: Requests = Requests(machines, self._admission)
        self.listings: Listings = Listings(machines, self._admission)
        self.administration: Administration = Administration(
            machines, self._admission, self.lifecycle, self._views, self.converging,
            self._statistics,
        )  # fmt: skip
        self._anybody = AnybodyGate(machines, self._door, self.company)
        self._members = MemberGate(machines, self._door, self._views)
        self._routes = table(
            machines, self.requests, self.listings, self.administration, self._copies,
            self._views, self.converging,
        )  # fmt: skip
        self._fast = FastPath(machines, self.turn)
        self.serve = self._fast.serve
        self._turn_at = self._remember_at = now.mono
        self._at = Instant(now.mono, self.clock.cluster_ms(now.mono))

    # -------------------------------------------------------------- contract with the shell

    @property
    def ready(self) -> bool:
        """Whether the node is in service, in the company that it should be in."""
        return self.lifecycle.ready

    @property
    def displaced(self) -> bool:
        """Whether a newer node took this one's name; it has fallen silent and `left` is true."""
        return self.membership.displaced

    @property
    def view_due(self) -> bool:
        """Whether the members or settings have changed since the ring was laid over them."""
        return self.machines.view_pace.due

    @property
    def slots_ready(self) -> bool:
        """Whether it is in sync with every live holder of its slots, too, and leads them."""
        return self.lifecycle.slots_ready

    @property
    def left(self) -> bool:
        """Whether the shell should end: the node has left, or was displaced."""
        return self.lifecycle.left

    def start(self, now: Now) -> list[Effect]:
        """Begin to join the seeds, or found a cluster."""
        at = self.turn(now)
        effects = self.membership.start(at.mono, at.ms)
        return self._emit(effects) + self._views.take(at)

    def receive(
        self, route: bytes, frames: list[bytes], now: Now, who: Identity | None = None
    ) -> list[Effect]:
        """Take a message from the ROUTER (or from a seed's connection: `route` empty).

        `who` sent it, where that is known: on the ROUTER of a node with keys.
        """
        at = self.turn(now)
        plain = len(frames) == 1 and route and (who is None or not who.limited)
        many = self._fast.serve_many(frames[0], now) if plain else None
        if many == DROPPED:
            return []
        if many is not None:
            return [Reply(route, [many], "get_many", at.mono)]
        try:
            header, message = self.codec.decode(frames)
        except PeerError as error:
            return self._salvage(frames, at, who) or self._drop(error, route)
        row = self._routes.get(type(message))
        if row is None:
            self.counters.drop("unexpected")
            return [Notify("message_dropped", {"reason": "unexpected", "tag": header.tag})]
        if who is None and self.access.nodes is not None and row.sender is not Sender.ANYBODY:
            # A seed's connection shows that a member is there, not which one.
            self.counters.drop("not_allowed")
            fields = {"reason": "not_allowed", "sender": header.sender}
            return [Notify("message_dropped", fields)]
        if who is not None:
            why = self._rights.refusal(who, row.sender, header, message)
            if why:
                return self._emit(self._rights.refuse(who, why, route, header, message))
        match row.sender:
            case Sender.CLIENT | Sender.ADMIN:
                request = self._admission.admit(route, frames, header, message, at)
                if isinstance(request, Request):
                    return self._emit(row.handler()(request, message))
                return self._emit(request)
            case Sender.MEMBER:
                self.company.heard(header, message, route, request_plane=True)
                return self._emit(self._members.admit(header, message, row.handler(), at))
            case Sender.ASKED:
                return self._emit(row.handler()(header, message, at))
            case Sender.ANYBODY:
                return self._hear(header, message, row.handler(), at, route, request_plane=True)

    def receive_gossip(self, frames: list[bytes], now: Now) -> list[Effect]:
        """Take [topic, payload] from the SUB."""
        at = self.turn(now)
        try:
            if len(frames) != 2:
                raise MalformedMessage(f"{len(frames)} frames on the gossip plane")
            header, message = self.codec.decode(frames[1:])
            row = self._routes.get(type(message))
            if row is None or row.sender is not Sender.ANYBODY:
                raise MalformedMessage(f"{type(message).__name__} on the gossip plane")
        except PeerError as error:
            return self._drop(error, b"")
        return self._hear(header, message, row.handler(), at, b"", request_plane=False)

    def undeliverable(self, to: int | str, frames: list[bytes], now: Now) -> list[Effect]:
        """Take back a `Send` that could not be queued: surely nothing of it arrived."""
        at = self.turn(now)
        if isinstance(to, str):
            return []  # A seed; joining retries by itself.
        items = unpack_items(frames[0])
        number = items[5]
        if items[0] == m.TAG[m.Replicate]:
            self.streams.undeliverable(to, items[HEADER_FIELDS])
        self.exchange.undeliverable(to, number, at)
        effects = self._copies.resume(self.questions.unreachable(to, number, at), at)
        return self._emit(effects + self.requests.undeliverable(to, number, at))

    def tick(self, now: Now) -> list[Effect]:
        """Do what is due, and send what this turn has gathered."""
        at = self.turn(now)
        effects: list[Effect] = []
        if self.membership.wake_at() <= at.mono:
            effects += self.membership.tick(at.mono, at.ms)
        out = self._emit(effects)
        if self.machines.view_pace.wake_at() <= at.mono:
            out += self._views.take(at)
        effects = self._copies.resume(self.questions.tick(at), at)
        effects += self.writes.tick(at) + self.machines.changes.tick(at)
        effects += self.converging.tick(at)
        effects += self.machines.audits.tick(at)
        effects += self.exchange.tick(at, self.counters.served)
        self.streams.offer_dropped(at, self.writes.confirming.unconfirmed)
        effects += self.streams.flush(at) + self.streams.tick(at)
        effects += self.served.tick(at)
        effects += self.machines.watchers.tick(at)
        self.forwards.tick(at.mono)
        self._housekeep(at)
        self.footprint.settle()
        effects += self.timekeeper.tick(at)
        effects += self.lifecycle.tick(at)
        effects += self.company.tick(at, in_service=self.lifecycle.in_service)
        return out + self._emit(effects)

    def wake_at(self) -> int:
        """Return the monotonic ns at which `tick` has something to do.

        At most half a protocol period ahead, so that a gap between turns tells a standstill.
        """
        if self.streams.waiting:  # The rule while somebody writes: nothing can be due sooner.
            return self._turn_at
        return min(
            self._turn_at + self.config.protocol_period_ns // 2,
            self.membership.wake_at(),
            self.machines.view_pace.wake_at(),
            self.questions.wake_at(),
            self.writes.wake_at(),
            self.machines.changes.wake_at(),
            self.converging.wake_at(),
            self.machines.audits.wake_at(),
            self.exchange.wake_at(),
            self.streams.wake_at(self._turn_at),
            self.served.wake_at(),
            self.machines.watchers.wake_at(),
            self.forwards.wake_at(),
            self._remember_at,
            self.footprint.wake_at(self._turn_at),
            self.timekeeper.wake_at() if self.membership.joined else NEVER,
        )

    def leave(self, now: Now) -> list[Effect]:
        """Begin a graceful leave: own nothing more, hand over, then LEFT. Idempotent."""
        at = self.turn(now)
        if self.lifecycle.leaving:
            return []
        effects = self.lifecycle.leave(at)
        self.machines.view_pace.changed()
        return self._emit(effects) + self._views.take(at)

    def unsent(self, frames: list[bytes]) -> list[bytes]:
        """Return what a client gets instead of a reply that is too much beside its unread ones."""
        return self._outgoing.unsent(frames)

    def stats(self, now: Now) -> dict[str, Any]:
        """Return this node's statistics as a JSON-ready dictionary (see `Statistics.all`)."""
        self.converging.look()
        return self._statistics.all(now.mono)

    def observe(self, command: str, duration_ns: int, times: int = 1) -> None:
        """Count how long a command took, `times` times; told by the shell as replies go out."""
        self.counters.latency[command].observe(duration_ns, times)

    def check(self) -> None:
        """Assert the invariants of every machine; for tests and the simulator."""
        self.membership.check()
        self.held.store.check()
        self.streams.check()
        self.exchange.check()
        self.writes.check()
        self.staleness.check()
        self.questions.check()
        self.forwards.check()
        self.footprint.check()
        self.machines.hot.check()

    # -------------------------------------------------------------- turns and effects

    def turn(self, now: Now) -> Instant:
        """Open a turn: notice a standstill before anything is judged by the clock."""
        gap = now.mono - self._turn_at
        self._turn_at = now.mono
        self.machines.view_pace.turned(gap, now.mono)
        self._at = Instant(now.mono, self.clock.cluster_ms(now.mono))
        if gap > self.config.protocol_period_ns:
            self.membership.standstill(gap, now.mono)
            self._stood_still(self._at)
            self.machines.notices.append(Notify("standstill", {"seconds": gap / SECOND}))
        return self._at

    def _stood_still(self, at: Instant) -> None:
        self.sync.standstill(at.mono)
        self.converging.stood_still()
        self.exchange.standstill(at)

    def _emit(self, effects: Sequence[Effect]) -> list[Effect]:
        """Turn messages into frames, and hear what the membership has to say."""
        out, self.machines.notices = self.machines.notices, []
        for effect in effects:
            if isinstance(effect, Tell):
                out.append(
                    Send(effect.to, self._outgoing.frames(effect.to, effect, self._at), effect.bulk)
                )
            elif isinstance(effect, Answer):
                frames = self._outgoing.frames("", effect, self._at)
                out.append(Reply(effect.route, frames, effect.command, effect.began_at))
            elif isinstance(effect, Gossip):
                payload = self._outgoing.frames(effect.to, effect, self._at)[0]
                out.append(Publish(topic_of(effect.to), payload))
            else:
                if isinstance(effect, Notify):
                    self._note(effect)
                elif isinstance(effect, Disconnect) and isinstance(effect.key, int):
                    self.clock.forget(effect.key)
                out.append(effect)
        return out

    def _note(self, notice: Notify) -> None:
        if notice.event == "refuted":
            # Others thought this node suspect or dead and wrote without it.
            self.held.view.accused = True
            self._stood_still(self._at)
        elif notice.event == "member_alive":
            self.counters.flaps += 1

    def _hear(
        self, header: Header, message: m.Message, handler: Handler, at: Instant, route: bytes, *,
        request_plane: bool,
    ) -> list[Effect]:  # fmt: skip
        """Take a membership message, and what it says of the settings once it is emitted."""
        out = self._emit(
            self._anybody.admit(
                header, message, handler, at, request_plane=request_plane, route=route
            )
        )
        self._views.follow_settings()
        return out

    def _salvage(self, frames: list[bytes], at: Instant, who: Identity | None) -> list[Effect]:
        """Take the rest of a member's message when single records of it cannot be read."""
        saved = self._door.salvage(frames)
        if saved is None:
            return []
        header, message = saved
        if who is not None and self._rights.refusal(who, Sender.MEMBER, header, message):
            return []
        handler = self._routes[type(message)].handler()
        return self._emit(self._members.admit(header, message, handler, at))

    def _drop(self, error: PeerError, route: bytes) -> list[Effect]:
        reason = {
            ForeignCluster: "foreign_cluster",
            UnsupportedVersion: "unsupported_version",
        }.get(type(error), "malformed")
        self.counters.drop(reason)
        out: list[Effect] = [Notify("message_dropped", {"reason": reason, "text": str(error)})]
        refusal = {
            "foreign_cluster": (m.Code.WRONG_CLUSTER, f"it is of cluster '{self.config.cluster}'"),
            "unsupported_version": (m.Code.UNSUPPORTED_VERSION, str(error)),
        }.get(reason)
        if refusal is not None and route:
            out += self._emit([Answer(route, m.ErrorReply(code=refusal[0], text=refusal[1]))])
        return out

    # -------------------------------------------------------------- housekeeping

    def _housekeep(self, at: Instant) -> None:
        if (store := self.held.store).next_sweep_ms() <= at.ms:
            store.sweep(at.ms)
        if self._remember_at <= at.mono:
            self._remember_at = at.mono + SECOND
            self.counters.remember(at.mono)
            self.machines.hot.judge(at.mono)
