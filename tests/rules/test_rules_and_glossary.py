"""`docs/rules.md` and `docs/glossary.md` cannot rot: what they name exists, and is named once."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from simulations.mutations import MUTATIONS
from tests.rules.source_rules import sources
from tests.support.paths import ROOT

RULES = (ROOT / "docs/rules.md").read_text("utf-8")
GLOSSARY = (ROOT / "docs/glossary.md").read_text("utf-8")
ENTRIES = [
    " ".join(entry.split()) for entry in re.findall(r"^- (.+?)(?=^- |^#|\Z)", RULES, re.M | re.S)
]
CODE = re.compile(r"`((?:dcc|tests)/[\w/]+\.py):([A-Za-z_][\w.]*)`")
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
PLANTED = re.compile(r"planted: ((?:`[\w-]+`(?:, )?)+)")


@cache
def functions(path: str) -> frozenset[str]:
    """Return the functions of a file, those of a class as `Class.method`."""
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    found = set(names_of(tree.body))
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            found.update(f"{node.name}.{name}" for name in names_of(node.body))
    return frozenset(found)


def names_of(body: list[ast.stmt]) -> list[str]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [one.name for one in body if isinstance(one, kinds)]


def where_now(name: str) -> list[str]:
    """Return where a function or test of that name is now: what a failure suggests to write."""
    last = name.rpartition(".")[2]
    return [
        f"{source.path}:{one}"
        for source in sources("dcc", "tests")
        for one in sorted(functions(source.path))
        if one.rpartition(".")[2] == last
    ]


def title(entry: str) -> str:
    found = re.match(r"\*\*(.+?)\.\*\* ", entry)
    assert found, f"an entry begins with its name: {entry[:60]}"
    return found[1]


def test_there_are_rules_enough_and_no_name_stands_for_two() -> None:
    names = [title(entry) for entry in ENTRIES]
    assert len(names) >= 60
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("entry", ENTRIES, ids=title)
def test_a_rule_names_its_reason_its_function_and_its_test(entry: str) -> None:
    assert "*Why*:" in entry
    code, tests = CODE.findall(entry), TEST.findall(entry)
    assert code
    assert tests
    for path, name in [*code, *tests]:
        there = (ROOT / path).exists() and name in functions(path)
        assert there, f"{path}:{name} has moved; perhaps to {where_now(name)}"


def test_the_bugs_that_rules_name_can_be_planted_and_each_belongs_to_a_rule() -> None:
    named = [
        bug for bugs in PLANTED.findall(" ".join(ENTRIES)) for bug in re.findall(r"[\w-]+", bugs)
    ]
    assert [bug for bug in named if bug not in MUTATIONS] == []
    assert len(set(named)) >= 20


def terms() -> list[str]:
    return re.findall(r"^\*\*(.+?)\.\*\*", GLOSSARY, re.M)


def test_the_glossary_is_alphabetical_and_defines_each_term_once() -> None:
    letters = [re.sub(r"[^a-z ]", "", term.lower()) for term in terms()]
    assert len(letters) >= 60
    assert letters == sorted(set(letters))
