"""The parts of one node's membership, in the order in which they are built; each has its own file.

What takes several of them is given all: this node's own row (`own`), the rules of claims
(`claims`), what a message does (`hearing`). Those and the machine (`membership`) stand above.
"""

from __future__ import annotations

import random

from dcc.config import NodeConfig
from dcc.gossip.dissemination import RumorQueue
from dcc.gossip.gray import PaceJudge
from dcc.gossip.joining import Seeds
from dcc.gossip.newcomers import Newcomers
from dcc.gossip.owntime import OwnTime
from dcc.gossip.probe import Prober
from dcc.gossip.pushpull import PushPuller
from dcc.gossip.spreading import Spreading
from dcc.gossip.table import Table
from dcc.gossip.twin import Twins
from dcc.types import Member, Settings


class Parts:
    """What one membership machine is made of."""

    def __init__(
        self,
        me: Member,
        config: NodeConfig,
        *,
        rng: random.Random,
        settings: Settings,
        now: int,
        cluster_ms: int,
    ) -> None:
        self.config = config
        self.time: OwnTime = OwnTime(now, late_max_ns=config.ack_timeout_ns // 2)
        self.time.cluster_ms = cluster_ms
        self.table: Table = Table(me)
        self.rumors: RumorQueue = RumorQueue()
        self.pace: PaceJudge = PaceJudge()
        self.prober: Prober = Prober(self.table, self.rumors, self.pace, config, rng)
        self.seeds: Seeds = Seeds(config, self.table.key, rng)
        self.push_puller: PushPuller = PushPuller(self.table, self.seeds, config, rng)
        self.newcomers: Newcomers = Newcomers(self.table, config, rng)
        self.twins: Twins = Twins(self.table, config, rng)
        self.spreading: Spreading = Spreading(
            self.table, self.rumors, settings, self.time, config, rng
        )
