"""The member table and the settings laid over the ring, and what every machine learns of it.

`viewpace` says when. A peer that shows another epoch sees another ring: it is offered this node's
member table and answers with its own, so both end with the same.
"""

from __future__ import annotations

from dcc.effects import Effect, Notify, Tell
from dcc.node.door import Door
from dcc.node.machines import Machines
from dcc.replication.holdings import Instant
from dcc.types import NodeKey, Settings
from dcc.units import SECOND
from dcc.wire.codec import Header
from dcc.wire.messages import SettingsAck, SettingsUpdate

VIEWS_PAUSE_NS = 1 * SECOND
"Between two offers to exchange views with one peer whose epoch differs."


class Views:
    """Keeps one node's ring and settings up to date with its members."""

    def __init__(self, machines: Machines, door: Door) -> None:
        self._machines, self._door, self._pace = machines, door, machines.view_pace
        self._settings = machines.membership.settings
        self._offered: dict[NodeKey, int] = {}
        "Until when a peer is not offered the member table again."

    def take(self, at: Instant) -> list[Effect]:
        """Lay the member table over the ring, and let every machine know what changed."""
        machines, membership = self._machines, self._machines.membership
        self._pace.taken(at.mono)
        if not membership.joined:
            return []
        view = machines.held.view
        boots = dict(view.boots)
        view.awaiting = bool(membership.awaited)
        change = view.update(membership.members, membership.settings.replicas, at.mono)
        machines.held.store.comparison.births = view.births
        machines.held.unasked.view_changed()
        if not change.any:
            return []
        self._pace.moved()
        gone = tuple(key for key, boot in sorted(boots.items()) if view.boots.get(key) != boot)
        machines.sync.view_changed(gone)
        for key in gone:
            self._offered.pop(key, None)
            machines.streams.forget(key)
        if change.missed:
            machines.sync.missed_writes(change.met)
        machines.exchange.view_changed(change, at)
        machines.streams.retarget(at, machines.writes.confirming.unconfirmed())
        machines.writes.confirming.view_changed()
        fields = {
            "epoch": f"{view.epoch:016x}", "members": len(view.boots),
            "alive": len(view.alive), "slots_changed": len(change.slots),
        }  # fmt: skip
        return [Notify("view_changed", fields)]

    def offer(self, peer: NodeKey, at: Instant) -> list[Effect]:
        """Exchange member tables with a peer whose epoch differs, once in a while."""
        if self._offered.get(peer, 0) > at.mono:
            return []
        self._offered[peer] = at.mono + VIEWS_PAUSE_NS
        return self._machines.membership.offer_view(peer, at.mono, at.ms)

    # -------------------------------------------------------------- settings

    def follow_settings(self) -> None:
        """Go by the settings that the members have agreed on, if they are new."""
        settings, store = self._machines.membership.settings, self._machines.held.store
        if settings == self._settings:
            return
        self._settings = settings
        if settings.cleared > store.cleared:
            store.clear(settings.cleared)
            self._machines.clock.witness(settings.cleared)
        self._pace.changed()

    def change_settings(self, settings: Settings, at: Instant) -> list[Effect]:
        """Merge cluster settings, take them at once and spread them."""
        effects = self._machines.membership.change_settings(settings, at.mono)
        self.follow_settings()
        return effects

    def settings_update(self, header: Header, message: SettingsUpdate, at: Instant) -> list[Effect]:
        """Take the settings that a member spreads, and confirm what they have come to here."""
        believed = self._door.believed(header, message, at)
        effects = self.change_settings(believed.settings, at)
        ack = SettingsAck(settings=self._machines.membership.settings)
        return [*effects, Tell(header.sender, ack, header.request)]
