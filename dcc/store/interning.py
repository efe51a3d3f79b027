"""One object for each origin, so that a million versions of ten nodes hold twenty integers.

A decoded version comes with integers of its own, 80 bytes of them; most versions in memory name
the same few origins.
"""

from __future__ import annotations

from dcc.types import Origin, Version

ORIGINS_MAX = 4_096
"More would mean that someone invents origins; then the table starts anew, and nothing is wrong."


class Origins:
    """The origins met so far."""

    def __init__(self) -> None:
        self._known: dict[Origin, Origin] = {}

    def intern(self, origin: Origin) -> Origin:
        """Return the shared object that equals `origin`."""
        known = self._known.get(origin)
        if known is None:
            if len(self._known) >= ORIGINS_MAX:
                self._known.clear()
            known = self._known[origin] = origin
        return known

    def origin(self, version: Version) -> Origin:
        """Return the shared origin of `version`."""
        return self.intern((version[1], version[2]))
