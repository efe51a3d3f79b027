"""Python without assertions and docstrings: all works; and no assertion does anything."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from tests.rules import source_rules as rules

PROGRAM = """
import dcc
assert False, "assertions are still here"
with dcc.LocalCluster(2, replicas=1) as cluster, cluster.client(w="all", timeout=10) as cache:
    values = {f"k{n}": b"%d" % n for n in range(500)}
    failed = cache.put_many(values)
    right = [failed, cache.get_many(values) == values, cache.incr("n"), cache.delete("k1")]
    right += [sorted(cache.scan("k49")) == sorted(k for k in values if k.startswith("k49"))]
    right += [cache.get("k2", r="all"), cache.get("k1"), cache.add("k1", b"again")]
    cache.clear()
    right += [cache.get("k3"), len(cache.stats().nodes)]
print(right)
"""

CHANGING = {
    "add", "append", "appendleft", "clear", "close", "discard", "extend", "insert", "next", "pop",
    "popitem", "popleft", "put", "receive", "recv", "remove", "send", "setdefault", "start", "tick",
    "update", "write",
}  # fmt: skip


@pytest.mark.process
@pytest.mark.parametrize("option", ["-O", "-OO"])
def test_a_cluster_works_without_assertions(option: str) -> None:
    argv = [sys.executable, option, "-c", PROGRAM]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=90, check=False)
    right = "[[], True, 1, True, True, b'2', None, True, None, 2]\n"
    assert (done.returncode, done.stdout) == (0, right), done.stderr


@pytest.mark.process
@pytest.mark.parametrize("module", ["dcc", "dcc.node", "dcc.demo"])
def test_commands_have_their_help_without_docstrings(module: str) -> None:
    argv = [sys.executable, "-OO", "-m", module, "--help"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage" in done.stdout.lower()


def test_no_assertion_changes_anything() -> None:
    found = [
        f"{source.path}:{node.lineno}: {ast.unparse(node)}"
        for source in rules.sources("dcc")
        for node in source.nodes
        if isinstance(node, ast.Assert)
        for part in ast.walk(node)
        if isinstance(part, ast.NamedExpr | ast.Await | ast.Yield)
        or (isinstance(part, ast.Call) and _name(part) in CHANGING)
    ]
    assert found == []


def _name(call: ast.Call) -> str:
    match call.func:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
    return ""
