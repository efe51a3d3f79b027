"""How a node comes into the ring and goes: filled once, leaving once.

A node without seeds founds a cluster of its own whenever it starts. So that a restart is not taken
for an empty cache, a node counts as *lone* until it meets somebody, or until nodes that remember it
must have looked for it: none of its misses is authoritative (`dcc.replication.certainty`), and
clients that know another ring keep it.

A node begins as *filling*: it owns slots and leads none that another owner can (`ring.slots`). Once
it is in sync with every live holder of its slots it says so, and leads.

It ends by *leaving*: it drains (owns nothing any more, holds until the owners have taken over),
then says LEFT and is gone when that has spread. A suspected member may take slots over yet. If
no member is left that could, or at the time-out, it leaves with what it has.
"""

from __future__ import annotations

from dcc.effects import Effect, Notify
from dcc.node.company import Company
from dcc.node.machines import Machines
from dcc.replication.holdings import Instant
from dcc.types import Standing
from dcc.units import NEVER


class Lifecycle:
    """The two changes that a node announces of itself."""

    def __init__(self, machines: Machines, company: Company) -> None:
        self._machines, self._company = machines, company
        self._leave_by = NEVER
        self.left: bool = False
        "Whether this node has left, or another one has taken its name: the shell ends it."

    @property
    def in_service(self) -> bool:
        """Whether this node has joined one view, serves, and is not leaving."""
        machines = self._machines
        return machines.serving and not machines.membership.me.draining and not self.left

    @property
    def ready(self) -> bool:
        """Whether the node is in service, in the company that it should be in."""
        return self.in_service and not self._company.lacks()

    @property
    def slots_ready(self) -> bool:
        """Whether it is in sync with every live holder of its slots, too, and leads them."""
        machines = self._machines
        return self.ready and machines.caught_up and not machines.membership.me.follows

    @property
    def leaving(self) -> bool:
        """Whether the node was asked to leave."""
        return self._leave_by != NEVER

    def leave(self, at: Instant) -> list[Effect]:
        """Begin to leave: own nothing more."""
        self._leave_by = at.mono + self._machines.config.leave_timeout_ns
        return self._machines.membership.drain(at.mono, at.ms)

    def tick(self, at: Instant) -> list[Effect]:
        """Go on with either, as far as it goes now."""
        if self._machines.certainty.lone:
            self._machines.certainty.lone = self._is_lone(at)
        return self._fill(at) + self._go_on_leaving(at)

    def _is_lone(self, at: Instant) -> bool:
        machines = self._machines
        looked_for_ns = machines.config.reconnect_interval_ns + machines.config.protocol_period_ns
        met = machines.held.view.boots.keys() - {machines.key}
        return not met and at.mono < machines.started_at + looked_for_ns

    def _fill(self, at: Instant) -> list[Effect]:
        machines = self._machines
        fit = self.in_service and self._company.reached
        if not (machines.membership.me.filling and fit and machines.caught_up):
            return []
        above = machines.clock.above
        return machines.membership.filled(at.mono, at.ms, stamps_above=above)

    def _go_on_leaving(self, at: Instant) -> list[Effect]:
        machines = self._machines
        if machines.membership.displaced:
            self.left = True
        if not self.leaving or self.left:
            return []
        if machines.membership.me.standing is Standing.LEFT:
            self.left = machines.membership.gone(at.mono)
            return []
        others = [m for key, m in machines.membership.members.items() if key != machines.key]
        # A member that is only suspected may take the slots over yet.
        targets = any(m.standing <= Standing.SUSPECT and not m.draining for m in others)
        slots = len(machines.exchange.leftovers)
        handed_over = not slots and not machines.streams.queued_total()
        if targets and not handed_over and at.mono < self._leave_by:
            return []
        effects = machines.membership.leave(at.mono, at.ms)
        return effects if handed_over else [*effects, Notify("left_with_data", {"slots": slots})]
