"""Fixtures of the tests with keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.key_ground import Ground
from tests.support.processes import Processes


@pytest.fixture
def ground(processes: Processes, tmp_path: Path) -> Iterator[Ground]:
    """Give keys for a cluster, and clients that are closed at the end."""
    made = Ground(processes, tmp_path / "keys")
    yield made
    made.close()
