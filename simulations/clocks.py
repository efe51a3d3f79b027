"""A process's two clocks, each wrong in its own way.

The world has one true time, in ns since its beginning. A process reads a monotonic clock that
runs a little too fast or too slow, and a wall clock that does the same, starts at an offset and
may be stepped either way. Everything is integer arithmetic: a float that differs in its last bit
between machines would change a run.
"""

from __future__ import annotations

from dcc.types import Now

EPOCH_NS = 1_760_000_000 * 1_000_000_000
"What a perfect wall clock shows at world time 0; any recent date does."

PPM = 1_000_000


def true_ms(at: int) -> int:
    """Return what a perfect wall clock shows at world time `at`, in ms."""
    return (EPOCH_NS + at) // 1_000_000


class ProcessClock:
    """Monotonic and wall clock of one machine; survives restarts of the process on it."""

    def __init__(self, *, mono_ns: int, offset_ns: int, drift_ppm: int) -> None:
        assert abs(drift_ppm) < PPM // 2, "a clock runs forwards"
        self._base_at = 0
        self._base_mono_ns = mono_ns
        self._offset_ns = EPOCH_NS + offset_ns - mono_ns
        self._drift_ppm = drift_ppm

    def read(self, at: int) -> Now:
        """Return both clocks at world time `at`."""
        mono = self._mono(at)
        return Now(mono, mono + self._offset_ns)

    def _mono(self, at: int) -> int:
        elapsed = at - self._base_at
        return self._base_mono_ns + elapsed + elapsed * self._drift_ppm // PPM

    def when(self, mono: int) -> int:
        """Return the first world time at which the monotonic clock shows `mono` or more."""
        elapsed = (mono - self._base_mono_ns) * PPM // (PPM + self._drift_ppm)
        at = self._base_at + elapsed
        # Two roundings: the estimate is off by a few ns at most.
        while self._mono(at) >= mono:
            at -= 1
        while self._mono(at) < mono:
            at += 1
        return at

    def step_wall(self, by_ns: int) -> None:
        """Set the wall clock forwards or back; the monotonic clock does not notice."""
        self._offset_ns += by_ns

    def set_drift(self, drift_ppm: int, at: int) -> None:
        """From world time `at` on, run `drift_ppm` millionths too fast (or, negative, slow)."""
        assert abs(drift_ppm) < PPM // 2, "a clock runs forwards"
        self._base_mono_ns, self._base_at = self._mono(at), at
        self._drift_ppm = drift_ppm
