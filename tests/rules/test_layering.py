"""The source keeps its own rules; each rule is shown to see what it is there to see."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.rules import source_rules as rules
from tests.rules.source_rules import Source
from tests.support.paths import ROOT

ARCHITECTURE = (ROOT / "docs/architecture.md").read_text("utf-8")
LAYERS = rules.layers(ARCHITECTURE)
SHELLS = rules.shells(ARCHITECTURE)
PACKAGE = rules.sources("dcc")
CORE = [source for source in PACKAGE if not rules.is_shell(source.path, SHELLS)]
EVERYTHING = rules.sources("dcc", "simulations", "benchmarks", "scripts", "tests")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def all_of(rule: Callable[[Source], Iterator[str]], files: list[Source]) -> list[str]:
    return [complaint for source in files for complaint in rule(source)]


# ------------------------------------------------------------------ the tree


def test_the_documents_table_of_layers_is_found() -> None:
    assert LAYERS["node"] == LAYERS["client"] == 4
    assert LAYERS["gossip"] == LAYERS["ring"] == LAYERS["store"] == 2
    assert {"node/loop.py", "node/__main__.py", "client/sync.py", "cli/"} <= set(SHELLS)


def test_imports_point_down() -> None:
    assert all_of(lambda source: rules.wrong_layers(source, LAYERS), PACKAGE) == []


def test_imports_run_in_no_circle() -> None:
    assert list(rules.circles(rules.sources("dcc", "simulations", "benchmarks"))) == []


def test_the_core_imports_no_shell() -> None:
    assert all_of(lambda source: rules.core_imports_shell(source, SHELLS), CORE) == []


def test_the_core_reaches_for_nothing_in_the_world() -> None:
    assert all_of(rules.impure, CORE) == []


def test_the_core_iterates_no_set_in_its_own_order() -> None:
    assert all_of(rules.unordered, CORE) == []


def test_files_and_functions_keep_their_size() -> None:
    assert all_of(rules.oversized, EVERYTHING) == []
    assert list(rules.needless_exceptions(EVERYTHING)) == []


def test_every_file_says_what_it_is() -> None:
    assert all_of(rules.undocumented, EVERYTHING) == []


def test_every_test_lies_where_its_subject_says() -> None:
    assert all_of(lambda source: rules.misplaced(source.path), rules.sources("tests")) == []


def test_nothing_is_marked_unfinished() -> None:
    files = [(source.path, source.text) for source in EVERYTHING]
    files += [(path.name, path.read_text("utf-8")) for path in DOCUMENTS]
    assert [complaint for path, text in files for complaint in rules.unfinished(path, text)] == []


def test_every_document_has_one_title() -> None:
    found = [rules.titles(path.name, path.read_text("utf-8")) for path in DOCUMENTS]
    assert [complaint for complaints in found for complaint in complaints] == []


# ------------------------------------------------------------------ the rules themselves


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("dcc/gossip/probe.py", "from dcc.ring.slots import SlotMap"),
        ("dcc/store/store.py", "import dcc.gossip"),
        ("dcc/ring/slots.py", "from dcc.replication import sync"),
        ("dcc/client/core.py", "from dcc.node.core import NodeCore"),
        ("dcc/wire/codec.py", "from dcc.config import NodeConfig"),
        ("dcc/types.py", "import dcc.wire.codec"),
        ("dcc/store/store.py", "from dcc import Client"),
        ("dcc/store/store.py", "from ..gossip import probe"),
        ("dcc/store/store.py", "def late():\n    from dcc.ring import slots"),
        ("dcc/newcomer/thing.py", ""),
    ],
)
def test_an_import_that_points_up_or_sideways_is_seen(path: str, line: str) -> None:
    assert list(rules.wrong_layers(Source(path, line), LAYERS))


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("dcc/store/store.py", "from dcc.store import eviction"),
        ("dcc/store/store.py", "from . import eviction"),
        ("dcc/node/core.py", "from dcc.gossip.membership import Membership"),
        ("dcc/effects.py", "from dcc.wire.messages import Message"),
        ("dcc/__init__.py", "from dcc.client.sync import Client"),
        ("dcc/demo/__main__.py", "from dcc import Client"),
        ("dcc/cli/main.py", "from dcc import __version__"),
    ],
)
def test_an_import_that_points_down_passes(path: str, line: str) -> None:
    assert list(rules.wrong_layers(Source(path, line), LAYERS)) == []


def test_a_circle_is_seen() -> None:
    a = Source("dcc/node/a.py", "from dcc.node.b import B")
    b = Source("dcc/node/b.py", "from dcc.node import c")
    c = Source("dcc/node/c.py", "if TYPE_CHECKING:\n    from dcc.node.a import A")
    (complaint, *_) = rules.circles([a, b, c])
    assert complaint.endswith("dcc.node.a -> dcc.node.b -> dcc.node.c -> dcc.node.a")
    assert list(rules.circles([a, b])) == []


@pytest.mark.parametrize(
    "line", ["from dcc.node.loop import run", "import dcc.client.sync", "from dcc.node import http"]
)
def test_a_shell_in_the_core_is_seen(line: str) -> None:
    assert list(rules.core_imports_shell(Source("dcc/node/core.py", line), SHELLS))


@pytest.mark.parametrize(
    "code",
    [
        "import zmq",
        "import time",
        "from time import monotonic_ns",
        "import socket",
        "import threading",
        "import os",
        "import logging",
        "import structlog",
        "import uuid",
        "import secrets",
        "import random\nrandom.random()",
        "import random\nrandom.shuffle(x)",
        "from random import choice",
        "import random\nrandom.Random()",
        "from random import Random\nRandom()",
        "import datetime\ndatetime.datetime.now()",
        "print('x')",
        "hash(key)",
        "try:\n    f()\nexcept Exception:\n    pass",
        "try:\n    f()\nexcept:\n    pass",
    ],
)
def test_reaching_for_the_world_is_seen(code: str) -> None:
    assert list(rules.impure(Source("dcc/store/store.py", code)))


def test_an_injected_generator_passes() -> None:
    code = "import random\n\ndef f(rng: random.Random) -> int:\n    return rng.randrange(3)\n"
    assert list(rules.impure(Source("dcc/gossip/probe.py", code))) == []


@pytest.mark.parametrize(
    "code",
    [
        "for x in {1, 2}: f(x)",
        "for x in set(y): f(x)",
        "for x in {a for a in y}: f(x)",
        "for x in set(a) - b: f(x)",
        "for x in a.keys() - b: f(x)",
        "z = [f(x) for x in frozenset(y)]",
        "z = {x: 1 for x in set(y)}",
        "z = list(set(y))",
        "z = [*{1, 2}]",
        "def f(these: set[int]) -> None:\n    for x in these: g(x)",
        "class A:\n    def __init__(self) -> None:\n        self.all: set[int] = set()\n"
        "    def f(self) -> list[int]:\n        return [x for x in self.all]",
    ],
)
def test_the_order_of_a_set_is_seen(code: str) -> None:
    assert list(rules.unordered(Source("dcc/store/store.py", code)))


@pytest.mark.parametrize(
    "code",
    [
        "for x in sorted({1, 2}): f(x)",
        "z = any(f(x) for x in {1, 2})",
        "z = sorted(f(x) for x in set(y))",
        "z = {f(x) for x in set(y)}",
        "for x in [1, 2]: f(x)",
    ],
)
def test_a_set_whose_order_cannot_show_passes(code: str) -> None:
    assert list(rules.unordered(Source("dcc/store/store.py", code))) == []


def test_a_file_that_is_too_long_is_seen() -> None:
    assert list(rules.oversized(Source("dcc/a.py", "x = 1\n" * 401)))
    assert list(rules.oversized(Source("tests/a.py", "x = 1\n" * 501)))
    assert list(rules.oversized(Source("tests/a.py", "x = 1\n" * 500))) == []
    prose = '"""' + "a\n" * 600 + '"""\n' + "# why\n\n" * 300 + "x = 1\n" * 400
    assert list(rules.oversized(Source("dcc/a.py", prose))) == []


def test_a_class_with_too_many_methods_is_seen() -> None:
    def methods(count: int) -> str:
        return "class A:\n" + "".join(f"    def m{i}(self): ...\n" for i in range(count))

    assert list(rules.oversized(Source("dcc/a.py", methods(26))))
    assert list(rules.oversized(Source("dcc/a.py", methods(25)))) == []
    assert list(rules.oversized(Source("tests/a.py", methods(26)))) == []


def test_an_exception_that_nothing_needs_is_seen() -> None:
    assert "Client is small" in rules.needless_exceptions([Source("dcc/a.py", "class Client: ...")])


def test_a_function_that_is_too_long_is_seen() -> None:
    assert list(rules.oversized(Source("dcc/a.py", "def f():\n" + "    x = 1\n" * 50)))
    assert list(rules.oversized(Source("dcc/a.py", "def f():\n" + "    x = 1\n" * 49))) == []


def test_a_file_without_a_docstring_is_seen() -> None:
    assert list(rules.undocumented(Source("dcc/a.py", "x = 1\n")))
    assert list(rules.undocumented(Source("dcc/a.py", ""))) == []


@pytest.mark.parametrize(
    "path",
    ["tests/test_lost.py", "tests/lost/test_a.py", "tests/node/helper.py", "tests/helper.py"],
)
def test_a_test_in_the_wrong_place_is_seen(path: str) -> None:
    assert list(rules.misplaced(path))


@pytest.mark.parametrize("word", ["TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK"])
def test_a_mark_of_unfinished_work_is_seen(word: str) -> None:
    assert list(rules.unfinished("dcc/a.py", f"x = 1  # {word}: later"))


@pytest.mark.parametrize("text", ["", "text\n\n# A\n", "# A\n\n# B\n", "## A\n"])
def test_a_document_without_exactly_one_title_is_seen(text: str) -> None:
    assert list(rules.titles("docs/a.md", text))


def test_a_hash_in_a_code_block_is_no_title() -> None:
    assert list(rules.titles("docs/a.md", "# A\n\n```\n# a comment\n```\n")) == []
