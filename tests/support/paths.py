"""Where the project's files are: the only place that knows how deep the tests lie."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The directory of the project."""

GOLDEN = ROOT / "tests" / "golden"
"""The files that say how things have to stay."""
