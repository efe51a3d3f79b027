"""The site that `make docs` builds: its index, its pictures, and the files that its pages show."""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

from dcc.node.options import OPTIONS
from tests.support.paths import ROOT
from tests.support.processes import Processes

PAGES = sorted(ROOT.glob("docs/*.md"))
DEPLOY = (ROOT / "docs/deploy.md").read_text("utf-8")
SVG = "{http://www.w3.org/2000/svg}"


def load_sequence() -> ModuleType:
    """Return the extension that draws, which needs Sphinx only where Sphinx calls it."""
    path = ROOT / "docs/_extensions/sequence.py"
    spec = importlib.util.spec_from_file_location("dcc_docs_sequence", path)
    assert spec
    assert spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


sequence = load_sequence()


def block(language: str) -> str:
    """Return the only block of one language in the page about deployment."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", DEPLOY, re.M | re.S)
    return str(found)


def test_every_page_is_in_the_index_once() -> None:
    index = (ROOT / "docs/index.md").read_text("utf-8")
    trees = re.findall(r"^```\{toctree\}\n(.*?)^```$", index, re.M | re.S)
    listed = [line for tree in trees for line in tree.splitlines() if re.fullmatch(r"[\w-]+", line)]
    assert sorted(listed) == [page.stem for page in PAGES if page.stem != "index"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pictures_are_drawn_with_all_that_their_lines_say(page: Path) -> None:
    text = page.read_text("utf-8")
    for lines in re.findall(r"^```sequence\n(.*?)^```$", text, re.M | re.S):
        picture = sequence.parsed(lines)
        drawn = ElementTree.fromstring(sequence.drawn(picture, lines))
        texts = [one.text for one in drawn.iter(f"{SVG}text")]
        for step in picture.steps:
            said = next(step[key] for key in ("said", "why", "across", "does") if key in step)
            assert said in texts
        assert len(picture.steps) == len(lines.strip().splitlines()) - 1


def test_a_line_that_says_nothing_known_is_refused() -> None:
    with pytest.raises(ValueError, match="no lane 'B'"):
        sequence.parsed("A | C\nA -> B: get k")
    with pytest.raises(ValueError, match="not a step"):
        sequence.parsed("A | C\nA => C: get k")


@pytest.mark.process
def test_the_configuration_of_the_page_is_one(processes: Processes, tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text(block("toml"))
    # What the unit adds: a node must be told what to advertise if it binds every interface.
    told = ("--advertise", "cache-1.example:6740", "--show-config")
    shown = processes.python("-m", "dcc.node", "--config", str(tmp_path / "node.toml"), *told)
    assert shown.wait() == 0, shown.text()
    given = [line.split()[0] for line in shown.out if str(tmp_path) in line]
    written = re.findall(r"^([\w-]+) =", block("toml"), re.M)
    assert sorted(given) == sorted(written)


def test_every_option_that_the_page_uses_is_one() -> None:
    names = {option.name for option in OPTIONS}
    flags = set(re.findall(r"--([a-z][a-z-]+)", block("ini") + block("yaml"))) - {"config"}
    assert flags
    assert flags <= names
    variables = set(re.findall(r"DCC_([A-Z_]+)", block("yaml")))
    assert {name.lower().replace("_", "-") for name in variables} <= names


@pytest.mark.process
def test_systemd_finds_nothing_wrong_with_the_unit(processes: Processes, tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze on this machine")
    unit = tmp_path / "dcc.service"
    unit.write_text(block("ini").replace("/opt/dcc/bin/dcc", sys.executable))
    checked = processes.run("systemd-analyze", "verify", str(unit))
    assert checked.wait() == 0, checked.text()
    assert not [line for line in checked.err if "dcc.service" in line]
