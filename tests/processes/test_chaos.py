"""Half a minute of `make chaos`: real nodes and clients under drawn faults, nothing lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulations.chaos.namespaces import why_not
from simulations.chaos.report import report
from simulations.chaos.run import Run

pytestmark = [
    pytest.mark.process,
    pytest.mark.slow,
    pytest.mark.timeout(180),
    pytest.mark.skipif(bool(why_not()), reason=f"no network namespaces: {why_not()}"),
]
SEED, SECONDS = 4, 25.0


def test_under_drawn_faults_no_promise_breaks(tmp_path: Path) -> None:
    run = Run(SEED, SECONDS, tmp_path, memory_mib=32)
    try:
        result = run.play()
    finally:
        run.close()
    print("\n".join(report(result)))
    assert result.violations == []
    assert len(result.events) >= 2
    answered = sum(not entry.error for entry in result.history)
    assert answered > 0.9 * len(result.history) > 900
