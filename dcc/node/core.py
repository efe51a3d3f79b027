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

from dcc.clock import ClusterClock
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
from dcc.gossip.membership import Membership
from dcc.node.audit import Audits
from dcc.node.company import Company
from dcc.node.comparing import Comparing, Handler
from dcc.node.converging import Converging
from dcc.node.counters import Counters
from dcc.node.door import Door
from dcc.node.fastpath import DROPPED, FastPath
from dcc.node.footprint import Footprint
from dcc.node.forwards import Forwards
from dcc.node.lateness import Lateness
from dcc.node.lifecycle import Lifecycle
from dcc.node.outgoing import MEMBERSHIP, Outgoing
from dcc.node.requests import Requests
from dcc.node.settings import Changes
from dcc.node.stats import statistics
from dcc.node.timekeeping import Timekeeper
from dcc.node.viewpace import ViewPace
from dcc.replication.certainty import Certainty
from dcc.replication.exchange import Exchange
from dcc.replication.holdings import Holdings, Instant, secret
from dcc.replication.questions import Outcome, Questions
from dcc.replication.reads import Reads
from dcc.replication.served import ServedKeys
from dcc.replication.staleness import Staleness
from dcc.replication.streams import Streams
from dcc.replication.sync import SyncTable
from dcc.replication.writes import Writes
from dcc.ring.hashing import slot_of
from dcc.store.store import Applied
from dcc.types import Boot, Member, Now, Record, Settings, Standing, node_key, topic_of
from dcc.units import NEVER, SECOND
from dcc.wire import messages as m
from dcc.wire.codec import HEADER_FIELDS, Codec, Header, unpack_items

VIEWS_PAUSE_NS = 1 * SECOND
"Between two offers to exchange views with one peer whose epoch differs."


WITH_RECORDS = (m.Replicate, m.PullReply, m.FetchReply)
"What brings other nodes' versions."

WITH_SLOTS = (m.Compare, m.Nudge, m.Pull)
"What costs work for each slot that it names."


class NodeCore:
    """One node; see docs/architecture.md for the contract with its shell."""

    def __init__(self, config: NodeConfig, *, boot: Boot, rng: Random, now: Now) -> None:
        self.config, self.boot = config, boot
        self.key = node_key(config.name)
        self.clock = ClusterClock(now, max_skew_ms=config.max_skew_ms)
        self.codec = Codec(config.cluster, sender=self.key, boot=boot)
        self.held = Holdings(
            config, key=self.key, boot=boot, clock=self.clock, requests_from=secret(rng)
        )
        self.membership = Membership(
            self._myself(now), config, rng=rng, settings=Settings(config.replicas, 0, 0),
            now=now.mono, cluster_ms=self.clock.cluster_ms(now.mono),
        )  # fmt: skip
        self.timekeeper = Timekeeper(self.clock, self.membership, config)
        self.counters = Counters()
        self._door, self._outgoing = Door(self), Outgoing(self)
        self.sync = SyncTable(self.held.view, now.mono)
        self.questions, self.streams = Questions(self.held), Streams(self.held)
        self.exchange = Exchange(self.held, self.sync)
        self.staleness = Staleness()
        self.served = ServedKeys(self.held)
        self.certainty = Certainty(self.held, self.sync)
        self.reads = Reads(
            self.held, self.certainty, self.questions, self.streams, self.staleness, self.served
        )
        self.writes = Writes(self.held, self.certainty, self.questions, self.streams)
        self.forwards, self.changes = Forwards(self.held, self.codec), Changes(self.held)
        self.converging, self.audits = Converging(self), Audits(self.held.store)
        self.lateness = Lateness(self.clock)
        self.requests = Requests(self)
        self._fast = FastPath(self)
        self.serve = self._fast.serve
        self.lifecycle, self.company = Lifecycle(self), Company(self)
        self.notices: list[Effect] = []
        self.replies_bytes = 0
        "Of replies that clients have not taken yet; set by the shell."
        self.footprint = Footprint(self)
        self.loop_lag_ns = 0
        "How late the loop turned lately; set by the shell."
        self.started_at = self._turn_at = now.mono
        self._view_pace = ViewPace(self.membership)
        self._settings = self.membership.settings
        self._offered_views: dict[int, int] = {}
        self._remember_at = now.mono
        self._at = Instant(now.mono, self.clock.cluster_ms(now.mono))
        self._handlers = self._table()

    # -------------------------------------------------------------- contract with the shell

    @property
    def ready(self) -> bool:
        """Whether the node is in service, in the company that it should be in."""
        return self.lifecycle.in_service and not self.company.lacks()

    @property
    def displaced(self) -> bool:
        """Whether a newer node took this one's name; it has fallen silent and `left` is true."""
        return self.membership.displaced

    @property
    def serving(self) -> bool:
        """Whether the node has joined and knows the time well enough to stamp."""
        return self.membership.joined and self.clock.settled

    @property
    def view_due(self) -> bool:
        """Whether the members or settings have changed since the ring was laid over them."""
        return self._view_pace.due

    @property
    def slots_ready(self) -> bool:
        """Whether it is in sync with every live holder of its slots, too, and leads them."""
        return self.ready and self.caught_up and not self.membership.me.follows

    @property
    def caught_up(self) -> bool:
        """Whether this node is in sync with all holders of its slots in its newest view."""
        return self.exchange.agenda.caught_up and not self.view_due

    @property
    def left(self) -> bool:
        """Whether the shell should end: the node has left, or was displaced."""
        return self.lifecycle.left

    def start(self, now: Now) -> list[Effect]:
        """Begin to join the seeds, or found a cluster."""
        at = self.turn(now)
        effects = self.membership.start(at.mono, at.ms)
        return self._emit(effects) + self._take_view(at)

    def receive(self, route: bytes, frames: list[bytes], now: Now) -> list[Effect]:
        """Take a message from the ROUTER (or from a seed's connection: `route` empty)."""
        at = self.turn(now)
        many = self._fast.serve_many(frames[0], now) if len(frames) == 1 and route else None
        if many == DROPPED:
            return []
        if many is not None:
            return [Reply(route, [many], "get_many", at.mono)]
        try:
            header, message = self.codec.decode(frames)
        except PeerError as error:
            return self._salvage(frames, at) or self._drop(error, route)
        if isinstance(message, MEMBERSHIP):
            return self._gossiped(header, message, at, request_plane=True, route=route)
        handler = self._handlers.get(type(message))
        if handler is not None:
            self.company.heard(header, message, route, request_plane=True)
            return self._emit(self._from_peer(header, message, handler, at))
        return self._emit(self.requests.handle(route, frames, header, message, at))

    def receive_gossip(self, frames: list[bytes], now: Now) -> list[Effect]:
        """Take [topic, payload] from the SUB."""
        at = self.turn(now)
        try:
            if len(frames) != 2:
                raise MalformedMessage(f"{len(frames)} frames on the gossip plane")
            header, message = self.codec.decode(frames[1:])
            if not isinstance(message, MEMBERSHIP):
                raise MalformedMessage(f"{type(message).__name__} on the gossip plane")
        except PeerError as error:
            return self._drop(error, b"")
        return self._gossiped(header, message, at, request_plane=False, route=b"")

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
        effects = self._resume_all(self.questions.unreachable(to, number, at), at)
        return self._emit(effects + self.requests.undeliverable(to, number, at))

    def tick(self, now: Now) -> list[Effect]:
        """Do what is due, and send what this turn has gathered."""
        at = self.turn(now)
        effects: list[Effect] = []
        if self.membership.wake_at() <= at.mono:
            effects += self.membership.tick(at.mono, at.ms)
        out = self._emit(effects)
        if self._view_pace.wake_at() <= at.mono:
            out += self._take_view(at)
        effects = self._resume_all(self.questions.tick(at), at)
        effects += self.writes.tick(at) + self.changes.tick(at)
        effects += self.converging.tick(at)
        effects += self.audits.tick(at)
        effects += self.exchange.tick(at, self.counters.served)
        self.streams.offer_dropped(at, self.writes.unconfirmed)
        effects += self.streams.flush(at) + self.streams.tick(at)
        effects += self.served.tick(at)
        self.forwards.tick(at.mono)
        self._housekeep(at)
        self.footprint.settle()
        effects += self.timekeeper.tick(at)
        effects += self.lifecycle.tick(at) + self.company.tick(at)
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
            self._view_pace.wake_at(),
            self.questions.wake_at(),
            self.writes.wake_at(),
            self.changes.wake_at(),
            self.converging.wake_at(),
            self.audits.wake_at(),
            self.exchange.wake_at(),
            self.streams.wake_at(self._turn_at),
            self.served.wake_at(),
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
        self._view_pace.changed()
        return self._emit(effects) + self._take_view(at)

    def unsent(self, frames: list[bytes]) -> list[bytes]:
        """Return what a client gets instead of a reply that is too much beside its unread ones."""
        return self._outgoing.unsent(frames)

    def stats(self, now: Now) -> dict[str, Any]:
        """Return this node's statistics as a JSON-ready dictionary (see `stats.statistics`)."""
        self.converging.look()
        return statistics(self, now.mono)

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

    # -------------------------------------------------------------- turns and effects

    def _myself(self, now: Now) -> Member:
        config = self.config
        incarnation = self.boot >> 16
        return Member(
            config.name, config.request, config.gossip, config.zone, float(config.weight),
            self.boot, incarnation, Standing.ALIVE, self.clock.own_ms(now.mono), draining=False,
            filling=True,
        )  # fmt: skip

    def turn(self, now: Now) -> Instant:
        """Open a turn: notice a standstill before anything is judged by the clock."""
        gap = now.mono - self._turn_at
        self._turn_at = now.mono
        self._view_pace.turned(gap, now.mono)
        self._at = Instant(now.mono, self.clock.cluster_ms(now.mono))
        if gap > self.config.protocol_period_ns:
            self.membership.standstill(gap, now.mono)
            self._stood_still(self._at)
            self.notices.append(Notify("standstill", {"seconds": gap / SECOND}))
        return self._at

    def _stood_still(self, at: Instant) -> None:
        self.sync.standstill(at.mono)
        self.converging.stood_still()
        self.exchange.standstill(at)

    def _emit(self, effects: Sequence[Effect]) -> list[Effect]:
        """Turn messages into frames, and hear what the membership has to say."""
        out, self.notices = self.notices, []
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
                    self._hear(effect)
                elif isinstance(effect, Disconnect) and isinstance(effect.key, int):
                    self.clock.forget(effect.key)
                out.append(effect)
        return out

    def _hear(self, notice: Notify) -> None:
        if notice.event == "refuted":
            # Others thought this node suspect or dead and wrote without it.
            self._stood_still(self._at)
        elif notice.event == "member_alive":
            self.counters.flaps += 1

    def _salvage(self, frames: list[bytes], at: Instant) -> list[Effect]:
        """Take the rest of a member's message of which single records cannot be read."""
        saved = self._door.salvage(frames)
        if saved is None:
            return []
        header, message = saved
        return self._emit(self._from_peer(header, message, self._handlers[type(message)], at))

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

    # -------------------------------------------------------------- membership and view

    def _gossiped(
        self, header: Header, message: m.Message, at: Instant, *, request_plane: bool, route: bytes
    ) -> list[Effect]:
        known = self._door.knows_clock(header, at)
        self.timekeeper.observe(header, message, at, known=known)
        if isinstance(message, m.Ping | m.Ack) and header.epoch == self.held.view.epoch:
            self.exchange.root_heard(header.sender, message.root, at)
        self.company.heard(header, message, route, request_plane=request_plane)
        believed = self._door.believed(header, message, at)
        effects = self.membership.receive(
            header, believed, at.mono, at.ms, request_plane=request_plane, route=route
        )
        if not known and isinstance(message, m.Ack):  # The answer by which it became a member.
            known = self._door.knows_clock(header, at)
            self.timekeeper.observe(header, message, at, known=known)
        out = self._emit(effects)
        if self.membership.settings != self._settings:
            self._take_settings()
        return out

    def _take_settings(self) -> None:
        self._settings = self.membership.settings
        if self._settings.cleared > self.held.store.cleared:
            self.held.store.clear(self._settings.cleared)
            self.clock.witness(self._settings.cleared)
        self._view_pace.changed()

    def _take_view(self, at: Instant) -> list[Effect]:
        """Lay the member table over the ring, and let every machine know what changed."""
        self._view_pace.taken(at.mono)
        if not self.membership.joined:
            return []
        view = self.held.view
        boots = dict(view.boots)
        view.awaiting = bool(self.membership.awaited)
        change = view.update(self.membership.members, self.membership.settings.replicas, at.mono)
        if not change.any:
            return []
        self._view_pace.moved()
        gone = tuple(key for key, boot in sorted(boots.items()) if view.boots.get(key) != boot)
        self.sync.view_changed(gone)
        for key in gone:
            self._offered_views.pop(key, None)
            self.streams.forget(key)
        if change.missed:
            self.sync.missed_writes(change.met)
        self.exchange.view_changed(change, at)
        self.streams.retarget(at, self.writes.unconfirmed())
        self.writes.view_changed()
        fields = {
            "epoch": f"{view.epoch:016x}", "members": len(view.boots),
            "alive": len(view.alive), "slots_changed": len(change.slots),
        }  # fmt: skip
        return [Notify("view_changed", fields)]

    def change_settings(self, settings: Settings, at: Instant) -> list[Effect]:
        """Merge cluster settings, take them at once and spread them."""
        effects = self.membership.change_settings(settings, at.mono)
        self._take_settings()
        return effects

    # -------------------------------------------------------------- peers' messages

    def _table(self) -> dict[type, Handler]:
        return {
            m.Fetch: self._fetch,
            m.FetchReply: self._fetch_reply,
            m.Replicate: self._replicate,
            m.ReplicateAck: self._replicate_ack,
            **Comparing(self.exchange, self._door).table(),
            m.Served: self._named,
            m.SettingsUpdate: self._settings_update,
            m.SettingsAck: self._settings_ack,
            m.StateGet: self._state_get,
            m.State: self._state,
        }

    def _from_peer(
        self,
        header: Header,
        message: m.Message,
        handler: Handler,
        at: Instant,
    ) -> list[Effect]:
        boot = self.held.view.boots.get(header.sender)
        if boot is None or boot != header.boot or header.sender == self.key:
            reason = "unknown_sender" if boot is None else "other_boot"
            self.counters.drop(reason)
            return [Notify("message_dropped", {"reason": reason, "sender": header.sender})]
        if isinstance(message, WITH_RECORDS) and not self.clock.knows(header.sender):
            # By a wrong clock it would take values for expired, or stamps for the future's.
            self.counters.drop("time_unknown")
            dropped = Notify("message_dropped", {"reason": "time_unknown", "sender": header.sender})
            return [dropped, *self.timekeeper.ask(header.sender)]
        if isinstance(message, WITH_SLOTS) and not self._door.once(message):
            self.counters.drop("malformed")
            return [Notify("message_dropped", {"reason": "malformed", "sender": header.sender})]
        if isinstance(message, WITH_RECORDS):
            message = self._door.readable(header, message)
            self.staleness.arrived(message.records)
        effects = handler(header, message, at)
        if header.epoch != self.held.view.epoch:
            effects = effects + self._offer_view(header.sender, at)
        return effects

    def _offer_view(self, peer: int, at: Instant) -> list[Effect]:
        """Exchange member tables with a peer whose epoch differs, once in a while."""
        if self._offered_views.get(peer, 0) > at.mono:
            return []
        self._offered_views[peer] = at.mono + VIEWS_PAUSE_NS
        return self.membership.offer_view(peer, at.mono, at.ms)

    def _fetch(self, header: Header, message: m.Fetch, _at: Instant) -> list[Effect]:
        sure = self.certainty.of_word(slot_of(message.key))
        records = self.requests.held_record(message.key)
        gone = not records and self.exchange.answerer.knows_gone(message)
        reply = m.FetchReply(records=records, sure=sure, gone=gone)
        return [Tell(header.sender, reply, header.request)]

    def _fetch_reply(self, header: Header, message: m.FetchReply, at: Instant) -> list[Effect]:
        agreed = header.epoch == self.held.view.epoch
        outcome = self.questions.receive(header.sender, header.request, message, at, agreed=agreed)
        return self._resume_all(outcome, at)

    def _resume_all(self, outcome: Outcome, at: Instant) -> list[Effect]:
        effects = [*outcome.effects]
        for verdict in outcome.verdicts:
            effects += self.reads.resume(verdict, at)
            effects += self.writes.resume(verdict, at)
        return effects

    def _replicate(self, header: Header, message: m.Replicate, at: Instant) -> list[Effect]:
        held, moved, ignored = self.held, [], []
        for index, record in enumerate(message.records):
            slot = slot_of(record.key)
            record = self._door.claimed(header, record)
            if self.clock.too_far_ahead(record.version.stamp, at.ms):
                self.counters.drop("clock_skew")
                moved.append(index)
                self.exchange.agenda.gap(header.sender, slot, at, refused=True)
                continue
            self.clock.witness(record.version.stamp)
            applied = held.store.apply(slot, record, at.ms)
            if applied is Applied.OLDER:
                self._lost(slot, record)
            elif applied is Applied.GHOST and held.store.doubts(slot, record.key):
                self.exchange.doubted(slot, at)
            if not held.view.holds(slot):
                moved.append(index)
                self.exchange.leftovers.written(slot)
            elif applied is not Applied.NEWER and not held.store.answers_for(slot, record, at.ms):
                ignored.append(index)
            elif not held.store.covers(slot, record.version) or held.store.has_gaps(slot):
                self.exchange.agenda.gap(header.sender, slot, at)
        moved = sorted({*moved, *self._door.refused})  # Nobody is to count on a copy of these.
        ack = m.ReplicateAck(seq=message.seq, moved=tuple(moved), ignored=tuple(ignored))
        return [Tell(header.sender, ack, header.request)]

    def _lost(self, slot: int, record: Record) -> None:
        """Count a write that came after a newer one by another coordinator: one may not have known
        the other. Exchanges bring versions in any order, so theirs say nothing and do not count."""
        held = self.held.store.peek(slot, record.key)
        if held is not None and held.version.node != record.version.node:
            self.counters.conflicts += 1

    def _replicate_ack(self, header: Header, message: m.ReplicateAck, at: Instant) -> list[Effect]:
        versions = self.streams.acknowledged(header.sender, message, at.mono)
        effects = self.writes.acknowledged(header.sender, versions)
        if message.moved:
            effects = effects + self._offer_view(header.sender, at)
        return effects

    def _named(self, _header: Header, message: m.Served, at: Instant) -> list[Effect]:
        self.served.heard_of(message.keys, at)
        return []

    def _settings_update(
        self, header: Header, message: m.SettingsUpdate, at: Instant
    ) -> list[Effect]:
        believed = self._door.believed(header, message, at)
        effects = self.change_settings(believed.settings, at)
        ack = m.SettingsAck(settings=self.membership.settings)
        return [*effects, Tell(header.sender, ack, header.request)]

    def _settings_ack(self, header: Header, message: m.SettingsAck, _at: Instant) -> list[Effect]:
        return self.changes.acknowledged(header.sender, header.request, message.settings)

    def _state_get(self, header: Header, _message: m.StateGet, _at: Instant) -> list[Effect]:
        self.converging.asked(header)
        return []

    def _state(self, header: Header, message: m.State, at: Instant) -> list[Effect]:
        return self.converging.told(header, message, at)

    # -------------------------------------------------------------- housekeeping

    def _housekeep(self, at: Instant) -> None:
        if (store := self.held.store).next_sweep_ms() <= at.ms:
            store.sweep(at.ms)
        if self._remember_at <= at.mono:
            self._remember_at = at.mono + SECOND
            self.counters.remember(at.mono)
