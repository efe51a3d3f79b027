"""The clocks of a node's process, as its shell reads them.

One message may hold thousands of keys and take longer than the skew of clocks that is borne. What
comes after it is judged by the time at which it is looked at: the clocks are read again once the
last reading is `FRESH_NS` old. Only messages that the core looked at can make it so, and only after
them is it asked.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from dcc.types import Now
from dcc.units import MILLISECOND

FRESH_NS = 2 * MILLISECOND
"How old a reading of the clocks may be when the core is given a message."


mono_ns: Callable[[], int] = (
    partial(time.clock_gettime_ns, time.CLOCK_BOOTTIME)
    if hasattr(time, "CLOCK_BOOTTIME")
    else time.monotonic_ns
)
"""The node's monotonic clock, for everything that is compared with `Now.mono`.

Where there is one, it is the clock that goes on while the machine is suspended: a laptop that
wakes up must see that it stood still, and cluster time, which is made from it, must not be hours
behind. It costs about one and a half times `time.monotonic_ns`.
"""


def read_clocks() -> Now:
    """Return both clocks now."""
    return Now(mono_ns(), time.time_ns())


class Clocks:
    """Both clocks, and their last reading: what the core is told."""

    def __init__(self) -> None:
        self.now: Now = read_clocks()

    def read(self) -> Now:
        """Read them again."""
        self.now = read_clocks()
        return self.now

    def late(self, until: int) -> bool:
        """Read them again if the last reading is old; return whether `until` has passed."""
        mono = mono_ns()
        if mono - self.now.mono >= FRESH_NS:
            self.now = read_clocks()
        return mono >= until
