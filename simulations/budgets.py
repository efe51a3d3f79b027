"""Run the data plane with budgets so small that its rare branches are the common ones.

With the production figures a run of a few dozen keys never fills a queue, never runs out of notes
beside a clock, never splits a pull, and forgets nothing for want of room. Each of these has code
of its own, and bugs of its own.

Most budgets are constants, not settings, so each module's own copy is replaced for the length of
a run, as `few_slots` does with the number of slots; production code has no switch for it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from types import ModuleType

from dcc.limits import BATCH_BYTES
from dcc.node.core import NodeCore
from dcc.replication.lane import WINDOW_BATCHES
from dcc.store.memory import VALUELESS_SHARE
from dcc.store.notes import NOTES_MAX
from dcc.units import MIB

LOADED = NodeCore
"Importing it loads every module that has a copy."

WHERE = ("dcc.store.", "dcc.replication.")
"Frames of clients keep their size; what nodes keep and send to each other shrinks."


@dataclass(frozen=True, slots=True, kw_only=True)
class Budgets:
    """What a node allows itself; the defaults are those of production."""

    valueless_share: int = VALUELESS_SHARE
    "Tombstones, ghosts and expired records may take one part in so many of the memory limit."
    notes_max: int = NOTES_MAX
    "Intervals beside the clock of a slot."
    batch_bytes: int = BATCH_BYTES
    "Where replication batches and answers to pulls are cut."
    window_batches: int = WINDOW_BATCHES
    "Batches in flight to one peer."
    queue_bytes_max: int = 16 * MIB
    "Records waiting for one peer; a setting of the node."

    @property
    def forgetful(self) -> bool:
        """Whether tombstones and ghosts are forgotten before everybody has seen them."""
        return self.valueless_share > VALUELESS_SHARE


SETTINGS = ("queue_bytes_max",)
"Fields that are no constants: the scenario writes them into each node's configuration."


@contextmanager
def squeezed(budgets: Budgets) -> Iterator[None]:
    """Within the block, node cores that are made and run have these budgets."""
    wanted = {name.upper(): value for name, value in asdict(budgets).items()
              if name not in SETTINGS}  # fmt: skip
    old: list[tuple[ModuleType, str, object]] = []
    try:
        for name, module in sorted(sys.modules.items()):
            if name.startswith(WHERE):
                for constant, value in wanted.items():
                    if constant in vars(module):
                        old.append((module, constant, vars(module)[constant]))
                        setattr(module, constant, value)
        missing = wanted.keys() - {constant for _, constant, _ in old}
        assert not missing, f"the production code has moved on: no {sorted(missing)}"
        yield
    finally:
        for module, constant, was in old:
            setattr(module, constant, was)
