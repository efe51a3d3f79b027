"""What the documents show is what happens: their Python blocks run, and so do their commands.

Blocks are taken from the documents themselves. The addresses they show are fixed ports; here each
node gets free ones, and the addresses in later lines are replaced by those that it got.
"""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from dcc import LocalCluster
from dcc.figures import FIGURES
from dcc.node.options import OPTIONS
from tests.rules.source_rules import sources
from tests.support.paths import ROOT
from tests.support.processes import Processes, Running, wait_until

README = (ROOT / "README.md").read_text("utf-8")
README_LINES_MAX = 150
GUARANTEES = (ROOT / "docs/guarantees.md").read_text("utf-8")
DOCUMENTS = ("docs/quickstart.md", "docs/operations.md")
PROGRAMS = (
    "README.md",
    "docs/quickstart.md",
    "docs/asyncio.md",
    "docs/coming-from-redis.md",
    "docs/own-writes.md",
    "docs/near-cache.md",
    "docs/hot-keys.md",
    "docs/stampede.md",
)
RUN_ELSEWHERE = {
    "docs/celery.md": "tests/contrib/test_sites.py",
    "docs/django.md": "tests/contrib/test_sites.py",
    "docs/fastapi.md": "tests/contrib/test_sites.py",
    "docs/flask.md": "tests/contrib/test_sites.py",
    "docs/observability.md": "tests/client/test_observability.py",
    "docs/other.md": "tests/contrib/test_documents.py",
    "docs/simulation.md": "tests/simulations/test_runs.py",
    "docs/testing.md": "tests/test_pytest_dcc.py",
}
"Documents with Python blocks that other tests run."
COMMANDS = ("dcc ", "python -m ")
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def blocks(text: str, language: str) -> list[str]:
    """Return the fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def commands(text: str) -> list[str]:
    """Return all lines in shell blocks that start with one of our commands, without comments."""
    lines = [line for block in blocks(text, "sh") for line in block.splitlines()]
    return [line.partition("  #")[0].strip() for line in lines if line.startswith(COMMANDS)]


def is_node(words: list[str]) -> bool:
    return words[:3] == ["python", "-m", "dcc.node"] or words[:2] == ["dcc", "node"]


def argv_of(words: list[str]) -> list[str]:
    """Return what starts the command with this Python, from this checkout."""
    if words[0] == "dcc":
        return [sys.executable, "-m", "dcc", *words[1:]]
    return [sys.executable, *words[1:]]


class Session:
    """The lines of one document, typed one after the other."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._addresses: dict[str, str] = {}  # as written -> as it came to be

    def type(self, line: str) -> None:
        """Run one line: a node stays in the background, everything else must succeed."""
        words = shlex.split(line)
        if is_node(words) and "--bind" in words:
            self._start(words)
            return
        argv = argv_of([self._translated(word) for word in words])
        if "status" in words:
            # It is right to say degraded while a node that just came is being filled.
            wait_until(lambda: self._run(argv).wait() == 0, 30, lambda: self._run(argv).text())
        else:
            ran = self._run(argv)
            assert ran.wait() == 0, f"{line}\n{ran.text()}"

    def _run(self, argv: list[str]) -> Running:
        nodes = {"DCC_NODES": ",".join(self._addresses.values())} if self._addresses else {}
        return self._processes.run(*argv, env=nodes)

    def _start(self, words: list[str]) -> None:
        written = words[words.index("--bind") + 1]
        options = [self._translated(word) for word in words[words.index("--bind") :]]
        for i, option in enumerate(options):
            if option in ("--bind", "--http"):
                options[i + 1] = "127.0.0.1:0"
        node = self._processes.node(*options)
        self._addresses[written] = node.address

    def _translated(self, word: str) -> str:
        for written, real in self._addresses.items():
            word = word.replace(written, real)
        return word


def test_the_quickstart_has_what_these_tests_look_for() -> None:
    text = (ROOT / DOCUMENTS[0]).read_text("utf-8")
    assert len(blocks(text, "python")) == 2
    lines = commands(text)
    assert sum(is_node(shlex.split(line)) for line in lines) == 3
    assert len(lines) >= 12


def test_each_document_with_programs_has_a_test_that_runs_them() -> None:
    texts = {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in PAGES}
    with_programs = {name for name, text in texts.items() if blocks(text, "python")}
    assert with_programs == {*PROGRAMS, *RUN_ELSEWHERE}
    for document, test in RUN_ELSEWHERE.items():
        name = document.removeprefix("docs/")
        assert name in (ROOT / test).read_text("utf-8"), f"{test} does not read {name}"


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= README_LINES_MAX


@pytest.mark.process
@pytest.mark.parametrize("document", PROGRAMS)
def test_the_python_blocks_of_a_document_run(
    document: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LocalCluster(2) as cluster:
        monkeypatch.setenv("DCC_NODES", ",".join(node.address for node in cluster.nodes))
        for block in blocks((ROOT / document).read_text("utf-8"), "python"):
            exec(compile(block, document, "exec"), {})


@pytest.mark.process
@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_in_a_document_works(document: str, processes: Processes) -> None:
    session = Session(processes)
    for line in commands(Path(ROOT / document).read_text("utf-8")):
        session.type(line)


@pytest.mark.process
def test_a_command_that_fails_is_seen(processes: Processes) -> None:
    with pytest.raises(AssertionError):
        Session(processes).type("dcc get --nodes 127.0.0.1:1 --timeout 0.1 key")


@pytest.mark.parametrize("document", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_that_a_document_names_exists(document: Path) -> None:
    text = document.read_text("utf-8")
    named = re.findall(r"`((?:docs|dcc|tests|simulations|benchmarks|scripts)/[\w/.-]*)`", text)
    assert [name for name in named if not (ROOT / name).exists()] == []
    linked = re.findall(r"\]\(([\w/.-]+)(?:#[\w-]+)?\)", text)
    assert [name for name in linked if not (document.parent / name).exists()] == []


@pytest.mark.parametrize("document", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_test_that_a_document_names_exists(document: Path) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)", document.read_text("utf-8"))
    for path, test in named:
        assert f"def {test}(" in (ROOT / path).read_text("utf-8"), (path, test)


def promises(text: str) -> dict[str, str]:
    """Return situation -> promise, which may be empty, of the table of promises in a text."""
    table = text[text.index("| situation | promised |") :].split("\n\n", 1)[0]
    rows = [row.split("|") for row in table.splitlines()[2:]]
    return {cells[1].strip(): cells[2].strip() for cells in rows}


def test_every_promise_names_its_test() -> None:
    promised = [promise for promise in promises(GUARANTEES).values() if promise]
    notes = [re.findall(r"<sup>(\d+)</sup>", promise) for promise in promised]
    assert notes == [[str(number + 1)] for number in range(len(promised))], "each has its note"
    behind = GUARANTEES[GUARANTEES.index("## The tests behind it") :]
    items = re.findall(r"^(\d+)\. (.+?)(?=^\d+\. |\Z)", behind, re.M | re.S)
    assert [[number] for number, _ in items] == notes
    for number, item in items:
        assert re.search(r"`tests/[\w/]+\.py", item), f"{number} has a test"


def test_the_readme_promises_nothing_that_the_page_does_not() -> None:
    short, full = promises(README), promises(GUARANTEES)
    assert len(short) >= 8
    assert [situation for situation in short if situation not in full] == []
    assert [situation for situation in short if short[situation] and not full[situation]] == []


def test_every_event_that_the_manual_lists_is_in_the_source() -> None:
    manual = (ROOT / "docs/operations.md").read_text("utf-8")
    rows = re.findall(r"^\| ((?:`[a-z_]+`(?:, )?)+) \| (?:debug|info|warning|error)", manual, re.M)
    events = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    said = [source.text for source in sources("dcc") if source.path != "dcc/node/logs.py"]
    unknown = [
        event for event in events
        if not any(f'"{event}"' in text for text in said) and not event.startswith("asked_to_")
    ]  # fmt: skip
    assert len(events) > 15
    assert unknown == []


def test_every_metric_that_the_manual_names_is_in_the_schema() -> None:
    manual = (ROOT / "docs/operations.md").read_text("utf-8")
    named = {name.removesuffix("_total") for name in re.findall(r"`(dcc_\w+)", manual)}
    assert sorted(named - {figure.metric for figure in FIGURES}) == []


def test_every_option_that_the_manual_names_is_one() -> None:
    manual = (ROOT / "docs/operations.md").read_text("utf-8")
    flags = set(re.findall(r"`(--[a-z-]+)", manual))
    known = {f"--{option.name}" for option in OPTIONS} | {"--help", "--config", "--show-config"}
    for script in (ROOT / "scripts").glob("*.py"):
        known |= set(re.findall(r'"(--[a-z-]+)"', script.read_text("utf-8")))
    assert sorted(flags - known) == []
