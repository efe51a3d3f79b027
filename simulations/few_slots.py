"""Run the ring with fewer slots than the protocol's 16,384, so that a simulated second is cheap.

An exchange compares every slot that two nodes share, whether it holds anything or not. A run of
a few dozen keys would spend nearly all its time on empty slots. No rule depends on how many slots
there are; `--slots 16384` runs the protocol's number.

The number is a constant of the protocol, not a setting, so each module's own copy of it is
replaced, and every table that was built with one item for each slot is cut.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from dcc.client.core import ClientCore
from dcc.limits import SLOT_COUNT
from dcc.node.core import NodeCore

LOADED = (ClientCore, NodeCore)
"Importing these loads every module that has a copy."


@contextmanager
def few_slots(count: int) -> Iterator[None]:
    """Within the block, keys hash to `count` slots: a power of two, at least 4."""
    assert count & (count - 1) == 0, "a power of two"
    assert 4 <= count <= SLOT_COUNT
    old: list[tuple[ModuleType, str, object]] = []
    try:
        for name, module in sorted(sys.modules.items()):
            if name.startswith("dcc."):
                old += _shrink(module, count)
        yield
    finally:
        for module, attribute, value in old:
            setattr(module, attribute, value)


def _shrink(module: ModuleType, count: int) -> list[tuple[ModuleType, str, object]]:
    """Cut whatever in `module` has the size of the ring; return what it was."""
    old: list[tuple[ModuleType, str, object]] = []
    for attribute, value in list(vars(module).items()):
        if attribute == "SLOT_COUNT":
            setattr(module, attribute, count)
        elif isinstance(value, tuple) and len(value) == SLOT_COUNT:
            setattr(module, attribute, value[:count])
        else:
            continue
        old.append((module, attribute, value))
    return old
