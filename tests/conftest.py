"""Hypothesis profiles: how hard the property tests look. The fixture that starts processes. And
tests that are coroutines: each is run on every kind of event loop.

`ci` is the default and derandomized, so that a red run is red again; `HYPOTHESIS_PROFILE=dev`
looks elsewhere each time, `soak` looks long.
"""

from __future__ import annotations

import inspect
import os

import pytest
from hypothesis import HealthCheck, settings

from tests.support.loops import LOOPS, run_watched
from tests.support.processes import processes as processes

collect_ignore = ["peers"]  # Run by their own frameworks' rules, see peers/run.py.

QUIET = (HealthCheck.too_slow,)

settings.register_profile("ci", derandomize=True, deadline=None, suppress_health_check=QUIET)
settings.register_profile("dev", deadline=None, suppress_health_check=QUIET)
settings.register_profile(
    "soak", deadline=None, max_examples=5_000, suppress_health_check=QUIET, print_blob=True
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Let tests that are coroutines run once for each kind of loop."""
    if inspect.iscoroutinefunction(metafunc.function):
        metafunc.fixturenames.append("loop_kind")
        metafunc.parametrize("loop_kind", LOOPS)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    wanted = inspect.signature(pyfuncitem.obj).parameters
    given = {name: pyfuncitem.funcargs[name] for name in wanted}
    run_watched(pyfuncitem.obj(**given), str(pyfuncitem.callspec.params["loop_kind"]))
    return True
