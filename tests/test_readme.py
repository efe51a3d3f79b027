"""What the README shows is what happens: its Python blocks run, and so does every command in it.

Blocks are taken from the README itself. The addresses it shows are fixed ports; here each node
gets free ones, and the addresses in later lines are replaced by those that it got.
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
from tests.processes import ROOT, Processes, Running, wait_until
from tests.source_rules import sources

README = (ROOT / "README.md").read_text("utf-8")
DOCUMENTS = ("README.md", "docs/operations.md")
COMMANDS = ("dcc ", "python -m ")


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


def test_the_readme_has_what_these_tests_look_for() -> None:
    assert len(blocks(README, "python")) == 3
    lines = commands(README)
    assert sum(is_node(shlex.split(line)) for line in lines) == 3
    assert len(lines) >= 12


@pytest.mark.process
@pytest.mark.parametrize("document", ["README.md", "docs/asyncio.md"])
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


@pytest.mark.parametrize("document", sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("docs/*.md")))
def test_every_file_that_a_document_names_exists(document: Path) -> None:
    named = re.findall(
        r"`((?:docs|dcc|tests|simulations|benchmarks)/[\w/.]*)`", document.read_text()
    )
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_promise_of_the_readme_names_its_test() -> None:
    start = README.index("| situation | promised |")
    table, behind = README[start:].split("\n\n", 2)[:2]
    rows = [line for line in table.splitlines()[2:] if line.split("|")[2].strip()]
    notes = [re.findall(r"<sup>(\d+)</sup>", row.split("|")[2]) for row in rows]
    assert [len(one) for one in notes] == [1] * len(rows), "each promise has its note"
    assert re.findall(r"<sup>(\d+)</sup>", behind) == [number for (number,) in notes]
    named = re.findall(r"`(tests/[\w/.]+?)(?:::(\w+))?`", behind)
    assert len(named) >= len(rows)
    for path, test in named:
        assert not test or f"def {test}(" in (ROOT / path).read_text("utf-8"), (path, test)


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
