"""`docs/simulation.md` names every world, fault, checker and planted bug there is, and how many."""

from __future__ import annotations

import re

from simulations import faults
from simulations.mutations import MUTATIONS
from simulations.twists import TWISTS
from simulations.worlds import ODDS, WORLDS
from tests.support.paths import ROOT

TEXT = (ROOT / "docs/simulation.md").read_text("utf-8")


def section(title: str) -> str:
    return re.split(r"^## ", TEXT.split(f"\n## {title}\n", 1)[1], maxsplit=1, flags=re.M)[0]


def named(text: str) -> list[str]:
    """Return what stands in the first column of the tables of a text."""
    rows = re.findall(r"^\| (`.+?) \|", text, re.M)
    return [name for row in rows for name in re.findall(r"`([\w-]+)`", row)]


def test_worlds_are_named_with_how_often_they_are_drawn() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \| .+ \| (?:one in (\d+))? ?\|$", section("The world"), re.M)
    assert sorted(name for name, _ in rows) == sorted(WORLDS)
    assert [(name, int(odds)) for name, odds in rows if odds] == [
        (name, one_of) for name, _, one_of in ODDS
    ]
    assert f"the {len(WORLDS)} worlds" in TEXT


def test_twists_are_named() -> None:
    missing = [twist.__name__ for twist in TWISTS if f"`{twist.__name__}`" not in TEXT]
    assert missing == ["untwisted"] * missing.count("untwisted")


def test_faults_are_named() -> None:
    assert sorted(named(section("Faults"))) == sorted(
        kind.__name__ for kind in faults.Fault.__args__
    )


def test_checkers_are_named_and_counted() -> None:
    files = {path.stem for path in (ROOT / "simulations/checkers").glob("[!_]*.py")}
    assert files == set(named(section("Checkers")))
    assert f"{len(files)} in all" in TEXT


def test_planted_bugs_are_named_and_counted() -> None:
    assert sorted(named(section("Mutations"))) == sorted(MUTATIONS)
    assert f"There are {len(MUTATIONS)}:" in TEXT
