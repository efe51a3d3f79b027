"""What type checkers say: of the examples in the documents, strictly, and of all the package."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

import dcc
from tests.support.paths import ROOT
from tests.support.processes import Processes

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]

DOCUMENTS = (
    "README.md", "docs/asyncio.md", "docs/coming-from-redis.md", "docs/fastapi.md", "docs/flask.md",
    "docs/observability.md", "docs/other.md", "docs/quickstart.md", "docs/testing.md",
)  # fmt: skip
"Not those of Django and Celery, which have no types, as dogpile and aiocache."
UNTYPED = ("dogpile", "aiocache")
COMPLETE_AT_LEAST = 0.98
"Of all names, those inside as well."
SECONDS_MAX = 240


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """A folder with every example as a file of its own."""
    for document in DOCUMENTS:
        text = (ROOT / document).read_text("utf-8")
        for number, block in enumerate(re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)):
            if not any(name in block for name in UNTYPED):
                name = re.sub(r"\W", "_", document.removesuffix(".md"))
                (tmp_path / f"{name}_{number}.py").write_text(block)
    assert len(list(tmp_path.glob("*.py"))) >= len(DOCUMENTS)
    return tmp_path


def test_mypy_finds_nothing_in_the_examples(processes: Processes, examples: Path) -> None:
    ran = processes.python(
        "-m", "mypy", "--strict", "--config-file=", "--follow-imports=silent", "--no-incremental",
        *map(str, sorted(examples.glob("*.py"))),
    )  # fmt: skip
    assert ran.wait(SECONDS_MAX) == 0, ran.text()


def test_pyright_finds_nothing_in_the_examples(processes: Processes, examples: Path) -> None:
    settings = {"typeCheckingMode": "strict", "extraPaths": [str(ROOT)], "include": [str(examples)]}
    (examples / "pyrightconfig.json").write_text(json.dumps(settings))
    ran = pyright(processes, "--project", str(examples))
    assert ran["summary"]["filesAnalyzed"] >= len(DOCUMENTS)
    assert [one["message"] for one in ran["generalDiagnostics"]] == []


def test_all_types_of_the_public_names_are_known(processes: Processes) -> None:
    found = pyright(processes, "--verifytypes", "dcc", "--ignoreexternal")["typeCompleteness"]
    known = {symbol["name"]: symbol["isTypeKnown"] for symbol in found["symbols"]}
    public = [name for name in known if name.startswith(public_prefixes())]
    assert len(public) >= 300
    assert [name for name in public if not known[name]] == []
    assert found["completenessScore"] >= COMPLETE_AT_LEAST


def public_prefixes() -> tuple[str, ...]:
    """Return where public names are defined, but for adapters whose frameworks have no types."""
    homes = {
        f"{one.__module__}.{one.__qualname__}"
        for one in (getattr(dcc, name) for name in dcc.__all__ if not name.startswith("_"))
    }
    return (*sorted(homes), "dcc.contrib.starlette.", "dcc.contrib.opentelemetry.", "dcc.errors.")


def pyright(processes: Processes, *arguments: str) -> dict[str, Any]:
    """Return what pyright prints; it looks for the package in this checkout."""
    ran = processes.python(
        "-m", "pyright", "--pythonpath", sys.executable, "--outputjson", *arguments,
        env={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    ran.wait(SECONDS_MAX)
    text = "\n".join(ran.out)
    assert "{" in text, ran.text()
    found: dict[str, Any] = json.loads(text[text.index("{") :])
    return found
