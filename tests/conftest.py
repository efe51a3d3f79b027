"""Hypothesis profiles: how hard the property tests look. And the fixture that starts processes.

`ci` is the default and derandomized, so that a red run is red again; `HYPOTHESIS_PROFILE=dev`
looks elsewhere each time, `soak` looks long.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

from tests.processes import processes as processes

QUIET = (HealthCheck.too_slow,)

settings.register_profile("ci", derandomize=True, deadline=None, suppress_health_check=QUIET)
settings.register_profile("dev", deadline=None, suppress_health_check=QUIET)
settings.register_profile(
    "soak", deadline=None, max_examples=5_000, suppress_health_check=QUIET, print_blob=True
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
