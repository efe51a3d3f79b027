"""How a node begins and ends its life in the ring: filled once, leaving once.

A node without seeds founds a cluster of its own whenever it starts. So that a restart is not taken
for an empty cache, a node counts as *lone* until it meets somebody, or until those who remember it
must have looked for it: none of its misses is authoritative (`dcc.replication.certainty`), and
clients that know another ring keep it.

A node begins as *filling*: it owns slots and leads none that another owner can (`ring.slots`). Once
it is in sync with every live holder of its slots it says so, and leads.

It ends by *leaving*: it drains (owns nothing any more, holds until the owners have taken over),
then says LEFT and is gone when that has spread. Who is still suspected may take slots over yet;
without anybody who could, and at the time-out, it leaves with what it has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dcc.effects import Effect, Notify
from dcc.replication.holdings import Instant
from dcc.types import Standing
from dcc.units import NEVER

if TYPE_CHECKING:
    from dcc.node.core import NodeCore


class Lifecycle:
    """The two changes that a node announces of itself."""

    def __init__(self, core: NodeCore) -> None:
        self._core = core
        self._leave_by = NEVER
        self.left = False
        "Whether this node has left, or another one has taken its name: the shell ends it."

    @property
    def in_service(self) -> bool:
        """Whether this node has joined one view, serves, and is not leaving."""
        core = self._core
        return core.serving and not core.membership.me.draining and not self.left

    @property
    def leaving(self) -> bool:
        """Whether the node was asked to leave."""
        return self._leave_by != NEVER

    def leave(self, at: Instant) -> list[Effect]:
        """Begin to leave: own nothing more."""
        self._leave_by = at.mono + self._core.config.leave_timeout_ns
        return self._core.membership.drain(at.mono, at.ms)

    def tick(self, at: Instant) -> list[Effect]:
        """Go on with either, as far as it goes now."""
        if self._core.certainty.lone:
            self._core.certainty.lone = self._is_lone(at)
        return self._fill(at) + self._go_on_leaving(at)

    def _is_lone(self, at: Instant) -> bool:
        core = self._core
        looked_for_ns = core.config.reconnect_interval_ns + core.config.protocol_period_ns
        met = core.held.view.boots.keys() - {core.key}
        return not met and at.mono < core.started_at + looked_for_ns

    def _fill(self, at: Instant) -> list[Effect]:
        core = self._core
        fit = self.in_service and core.company.reached
        if not (core.membership.me.filling and fit and core.caught_up):
            return []
        return core.membership.filled(at.mono, at.ms)

    def _go_on_leaving(self, at: Instant) -> list[Effect]:
        core = self._core
        if core.membership.displaced:
            self.left = True
        if not self.leaving or self.left:
            return []
        if core.membership.me.standing is Standing.LEFT:
            self.left = core.membership.gone(at.mono)
            return []
        others = [m for key, m in core.membership.members.items() if key != core.key]
        # Whoever is only suspected may take the slots over yet.
        targets = any(m.standing <= Standing.SUSPECT and not m.draining for m in others)
        slots = len(core.exchange.leftovers)
        handed_over = not slots and not core.streams.queued_total()
        if targets and not handed_over and at.mono < self._leave_by:
            return []
        effects = core.membership.leave(at.mono, at.ms)
        return effects if handed_over else [*effects, Notify("left_with_data", {"slots": slots})]
