"""What is told to some members in each gossip interval: rumors, and the cluster's settings.

Nobody asks for it and nobody answers it. Each rumor, and each change of the settings, is sent so
many times that everybody hears of it with high probability, and then no more (`dissemination`).
"""

from __future__ import annotations

import random

from dcc.config import NodeConfig
from dcc.effects import Effect, Gossip, Notify
from dcc.gossip.dissemination import RumorQueue, retransmit_limit
from dcc.gossip.joining import FOUNDED_STAMP
from dcc.gossip.owntime import OwnTime
from dcc.gossip.table import Table
from dcc.types import Settings, Standing
from dcc.units import NEVER
from dcc.wire.messages import Rumors

FANOUT = 3
"Members gossiped to in each gossip interval."


class Spreading:
    """Spreads one node's rumors and the settings that it knows."""

    def __init__(
        self,
        table: Table,
        rumors: RumorQueue,
        settings: Settings,
        time: OwnTime,
        config: NodeConfig,
        rng: random.Random,
    ) -> None:
        self.settings: Settings = settings
        self._table, self._rumors, self._time = table, rumors, time
        self._config, self._rng = config, rng
        self._settings_left = 0
        "How often the settings are sent yet."
        self._next_at = 0

    def found(self) -> None:
        """Take the settings that this node was started with as those of a cluster."""
        stamp = max(FOUNDED_STAMP, self.settings.replicas_stamp)
        self.settings = self.settings._replace(replicas_stamp=stamp)

    def merge(self, settings: Settings) -> list[Effect]:
        """Merge `settings` into the cluster's, and spread them if that changed anything."""
        merged = self.settings.merge(settings)
        if merged == self.settings:
            return []
        self.settings = merged
        self._settings_left = retransmit_limit(self._table.size)
        return [Notify("settings_changed", merged._asdict())]

    def tick(self) -> list[Effect]:
        """Tell some members what is new, if the interval is over and anything is."""
        if self._time.now < self._next_at or not (self._rumors or self._settings_left):
            return []
        self._next_at = self._time.now + self._config.gossip_interval_ns
        limit = retransmit_limit(self._table.size)
        effects: list[Effect] = []
        for key in self._table.some_peers(FANOUT, self._rng):
            if not (self._rumors or self._settings_left):
                break
            row = self._table.rows[key]
            first = (row,) if row.standing == Standing.SUSPECT else ()
            rumors = self._rumors.take(limit, first=first)
            self._settings_left = max(0, self._settings_left - 1)
            effects.append(Gossip(key, Rumors(rumors=rumors, settings=self.settings)))
        if not self._table.peers:
            # Alone: nobody to tell; who joins gets the whole view.
            self._settings_left = 0
            self._rumors.clear()
        return effects

    def wake_at(self) -> int:
        """Return the own time at which there is something to tell; NEVER if nothing is new."""
        return self._next_at if self._rumors or self._settings_left else NEVER
