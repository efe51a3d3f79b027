"""The machines of one node, in the order in which they are built, and what follows from them alone.

Everything above (`core`, the gates, the requests) is given `Machines`, or some of them, and nobody
is given the core. A machine decides its own subject: which members are there, which are in sync,
one write, one exchange. What takes several of them is decided in the modules of this folder that
import this one.
"""

from __future__ import annotations

from random import Random

from dcc.clock import ClusterClock
from dcc.config import NodeConfig
from dcc.effects import Effect
from dcc.gossip.membership import Membership
from dcc.node.access import Access
from dcc.node.audit import Audits
from dcc.node.counters import Counters, Load
from dcc.node.forwards import Forwards
from dcc.node.lateness import Lateness
from dcc.node.settings import Changes
from dcc.node.timekeeping import Timekeeper
from dcc.node.viewpace import ViewPace
from dcc.node.watchers import Watchers
from dcc.replication.certainty import Certainty
from dcc.replication.exchange import Exchange
from dcc.replication.holdings import Holdings, secret
from dcc.replication.hot import HotKeys
from dcc.replication.questions import Questions
from dcc.replication.reads import Reads
from dcc.replication.served import ServedKeys
from dcc.replication.staleness import Staleness
from dcc.replication.streams import Streams
from dcc.replication.sync import SyncTable
from dcc.replication.writes import Writes
from dcc.types import Boot, Member, NodeKey, Now, Settings, Standing, node_key
from dcc.wire.codec import Codec


class Machines:
    """What one node is made of, below the modules that take several of them."""

    def __init__(self, config: NodeConfig, *, boot: Boot, rng: Random, now: Now) -> None:
        self.config: NodeConfig = config
        self.boot: Boot = boot
        self.key: NodeKey = node_key(config.name)
        self.clock: ClusterClock = ClusterClock(now, max_skew_ms=config.max_skew_ms)
        self.codec: Codec = Codec(config.cluster, sender=self.key, boot=boot)
        self.counters: Counters = Counters()
        self.held: Holdings = Holdings(
            config, key=self.key, boot=boot, clock=self.clock, requests_from=secret(rng),
            refused=self.counters.drop,
        )  # fmt: skip
        self.membership: Membership = Membership(
            _own_row(config, boot, self.clock.own_ms(now.mono)), config, rng=rng,
            settings=Settings(config.replicas, 0, 0), now=now.mono,
            cluster_ms=self.clock.cluster_ms(now.mono),
        )  # fmt: skip
        self.timekeeper: Timekeeper = Timekeeper(self.clock, self.membership, config)
        self.sync: SyncTable = SyncTable(self.held.view, self.held.unasked, now.mono)
        self.questions: Questions = Questions(self.held)
        self.streams: Streams = Streams(self.held)
        self.exchange: Exchange = Exchange(self.held, self.sync)
        self.staleness: Staleness = Staleness()
        self.served: ServedKeys = ServedKeys(self.held)
        self.hot: HotKeys = HotKeys(self.held, self.served)
        self.certainty: Certainty = Certainty(self.held, self.sync)
        self.reads: Reads = Reads(
            self.held, self.certainty, self.questions, self.streams, self.staleness, self.hot
        )
        self.writes: Writes = Writes(self.held, self.certainty, self.questions, self.streams)
        self.forwards: Forwards = Forwards(self.held, self.codec)
        self.changes: Changes = Changes(self.held)
        self.audits: Audits = Audits(self.held.store)
        self.lateness: Lateness = Lateness(self.clock)
        self.watchers: Watchers = Watchers(self.held)
        self.view_pace: ViewPace = ViewPace(self.membership)
        self.started_at: int = now.mono
        self.load: Load = Load()
        self.access: Access = Access()
        self.notices: list[Effect] = []
        "What leaves with the effects of this turn, without being anybody's result."

    @property
    def serving(self) -> bool:
        """Whether the node has joined and knows the time well enough to stamp."""
        return self.membership.joined and self.clock.settled

    @property
    def caught_up(self) -> bool:
        """Whether this node is in sync with all holders of its slots in its newest view."""
        return self.exchange.agenda.caught_up and not self.view_pace.due


def _own_row(config: NodeConfig, boot: Boot, own_ms: int) -> Member:
    incarnation = boot >> 16
    return Member(
        config.name, config.request, config.gossip, config.zone, float(config.weight), boot,
        incarnation, Standing.ALIVE, own_ms, draining=False, filling=True,
    )  # fmt: skip
