"""Rules that the source itself must keep, as functions from a file to what is wrong in it.

Each rule reads the syntax tree, so that a comment or a string is never mistaken for code. Layers
and shells are read from `docs/architecture.md`: the document and the check cannot disagree.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product

from tests.support.paths import ROOT

CODE_LINES_MAX = 400
FUNCTION_LINES_MAX = 50
METHODS_MAX = 25
"Of one class, properties and special methods included."

TEST_LINES_MAX = 500
"A file of tests may be longer: it is read one test at a time."

TEST_FOLDERS = ("cluster", "simulations", "processes", "rules")
"Folders of tests whose subject is no single package."

LIMITED = ("dcc/", "simulations/", "benchmarks/")
"Where the stricter bounds hold."

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)

LONGER = {
    "dcc/client/dispatch.py": (450, "many calls over one connection each; to be split"),
}
"Files above `CODE_LINES_MAX`: how long they may be, and why."

MORE_METHODS = {
    "AsyncClient": (50, "public: one method for each call, like `Client`"),
    "Client": (45, "public: one method for each call"),
    "AsyncCache": (30, "public: one method for each call of a cache"),
    "DccCache": (30, "Django's cache backend decides which methods there are"),
    "Store": (55, "the face of the store package: its sections are its parts"),
    "Clocks": (40, "one data structure with its theory; its sections are its parts"),
    "ClusterClock": (30, "one clock; half of the methods judge other clocks"),
    "Transport": (40, "members, seeds and clients are sent to by one thread; to be split by them"),
    "Dispatcher": (40, "many calls over one connection each; to be split"),
    "Network": (40, "every kind of message and connection that a simulated network knows"),
}
"Classes above `METHODS_MAX`: how many they may have, and why."

TOP_LAYER = 6
"`dcc/__init__.py` and `dcc/__main__.py`: they may name everything below."

OUTSIDERS = ("cli", "contrib", "demo")
"Written like anybody's program, so they alone import the public names from the top."

OPEN_LAYERS = (0, 5)
"Layers whose packages may import each other, as long as there is no circle."

TYPE_ONLY = {("effects", "wire")}
"Imports for annotations alone that point upwards."

SHELL_MODULES = {
    "asyncio", "concurrent", "ctypes", "http", "logging", "multiprocessing", "os",
    "prometheus_client", "queue", "secrets", "select", "selectors", "signal", "socket", "ssl",
    "structlog", "subprocess", "tempfile", "threading", "time", "urllib", "uuid", "zmq",
}  # fmt: skip
BANNED_CALLS = {
    "print": "return a Notify",
    "open": "files belong to a shell",
    "input": "input belongs to a shell",
    "id": "differs between runs; name things by key",
    "hash": "differs with PYTHONHASHSEED; use xxhash",
    "eval": "never",
    "exec": "never",
    "breakpoint": "never",
}
CLOCK_READS = frozenset({"now", "utcnow", "today"})
ORDERLESS = frozenset({"sorted", "set", "frozenset", "any", "all", "sum", "len", "min", "max"})
"What may take a set as it comes: the result does not depend on the order."

# Spelled so that this file passes its own rule.
UNFINISHED = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")


@dataclass(frozen=True)
class Source:
    """One Python file: its path below the root, with slashes, and its text."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree."""
        return ast.parse(self.text)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """Every node of the tree, which each rule walks."""
        return list(ast.walk(self.tree))

    @property
    def module(self) -> str:
        """The dotted name."""
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @property
    def package(self) -> str:
        """The part of dcc it belongs to: `store` for dcc/store/eviction.py, "" for dcc itself."""
        parts = self.module.split(".")
        return parts[1] if len(parts) > 1 else ""


def sources(*folders: str) -> list[Source]:
    """Return all Python files below `folders`, in a fixed order."""
    found = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return [Source(str(path.relative_to(ROOT)), path.read_text("utf-8")) for path in found]


# ------------------------------------------------------------------ the document


def layers(architecture: str) -> dict[str, int]:
    """Return package → layer from the table in docs/architecture.md."""
    rows = re.findall(r"^\| (\d) \| ((?:`\w+` ?)+)\|", architecture, re.MULTILINE)
    return {name: int(number) for number, names in rows for name in re.findall(r"\w+", names)}


def shells(architecture: str) -> list[str]:
    """Return the paths below dcc/ that docs/architecture.md names as shells."""
    paragraph = re.search(r"^Shells, the only places.*?:\n(.*?)\.$", architecture, re.M | re.S)
    assert paragraph, "docs/architecture.md names the shells"
    found: list[str] = []
    for name in re.findall(r"`([^`]+)`", paragraph[1]):
        parts = re.split(r"\{([^}]*)\}", name)
        choices = [part.split(",") if i % 2 else [part] for i, part in enumerate(parts)]
        found += ["".join(choice) for choice in product(*choices)]
    return found


def is_shell(path: str, shell_paths: list[str]) -> bool:
    """Return whether dcc/… at `path` is one of the shells; the public names count as one."""
    inside = path.removeprefix("dcc/")
    return inside in ("__init__.py", "__main__.py") or any(
        inside == shell or (shell.endswith("/") and inside.startswith(shell))
        for shell in shell_paths
    )


# ------------------------------------------------------------------ imports


def imports(source: Source) -> Iterator[tuple[int, str]]:
    """Yield line and full dotted name of everything that `source` imports, at any depth."""
    for node in source.nodes:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = source.module.split(".")
                keep = len(parts) - node.level + source.path.endswith("__init__.py")
                base = ".".join([*parts[:keep], *([base] if base else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def own_imports(source: Source) -> Iterator[tuple[int, str]]:
    """Yield line and package for each import of a part of dcc ("" = a public name of dcc)."""
    for line, name in imports(source):
        top, _, below = name.partition(".")
        if top == "dcc":
            part = below.partition(".")[0]
            yield line, part if part.islower() and part != "__version__" else ""


def wrong_layers(source: Source, layer_of: dict[str, int]) -> Iterator[str]:
    """Yield each import of dcc that does not point down."""
    mine = source.package
    here = layer_of.get(mine, TOP_LAYER)
    if mine and mine != "__main__" and mine not in layer_of:
        yield f"{source.path}:1: package {mine} is in no layer of docs/architecture.md"
    for line, other in own_imports(source):
        there = layer_of.get(other, TOP_LAYER)
        fine = there < here or (there == here and here in OPEN_LAYERS)
        fine = fine or (mine in OUTSIDERS and not other) or (mine, other) in TYPE_ONLY
        if other != mine and not fine:
            yield f"{source.path}:{line}: {mine or 'dcc'} imports {other or 'dcc'}, which is above"


def circles(all_sources: list[Source]) -> Iterator[str]:
    """Yield each file that reaches itself through what files import, for annotations alone, too.

    The public names are left out: whoever may import them (`wrong_layers`) does so as a user would.
    """
    files = {source.module: source for source in all_sources if source.module != "dcc"}
    edges: dict[str, list[str]] = {}
    for source in files.values():
        found = (_file_of(name, files) for _, name in imports(source))
        edges[source.module] = sorted({name for name in found if name and name != source.module})
    for start in sorted(edges):
        way = _way_back(start, edges)
        if way:
            yield f"{files[start].path} imports itself: {' -> '.join(way)}"


def _file_of(name: str, files: dict[str, Source]) -> str:
    """Return the module that an imported name is, or stands in."""
    return next((one for one in (name, name.rpartition(".")[0]) if one in files), "")


def _way_back(start: str, edges: dict[str, list[str]]) -> list[str]:
    """Return a shortest way from a file over others back to itself; [] if there is none."""
    came_from: dict[str, str] = {}
    ahead = deque([start])
    while ahead:
        at = ahead.popleft()
        for there in edges[at]:
            if there == start:
                way = [at]
                while way[-1] != start:
                    way.append(came_from[way[-1]])
                return [*reversed(way), start]
            if there not in came_from:
                came_from[there] = at
                ahead.append(there)
    return []


def core_imports_shell(source: Source, shell_paths: list[str]) -> Iterator[str]:
    """Yield each import of a shell."""
    for line, name in imports(source):
        for cut in (name, name.rpartition(".")[0]):
            path = cut.replace(".", "/") + ".py"
            if path.startswith("dcc/") and is_shell(path, shell_paths):
                yield f"{source.path}:{line}: the core imports the shell {cut}"
                break


# ------------------------------------------------------------------ the core


def impure(source: Source) -> Iterator[str]:
    """Yield each way in which a core file reaches for the world or for chance."""
    for line, name in imports(source):
        top = name.partition(".")[0]
        if top in SHELL_MODULES and not name.startswith("urllib.parse"):
            yield f"{source.path}:{line}: the core imports {top}"
        if name.startswith("random.") and name != "random.Random":
            yield f"{source.path}:{line}: {name}; take a random.Random instead"
    for node in source.nodes:
        complaint = _impure_node(node)
        if complaint:
            yield f"{source.path}:{getattr(node, 'lineno', 0)}: {complaint}"


def _impure_node(node: ast.AST) -> str:
    match node:
        case ast.Attribute(value=ast.Name(id="random"), attr=name) if name != "Random":
            return f"random.{name}; use the injected generator"
        case ast.Call(func=ast.Attribute(attr="Random") | ast.Name(id="Random"), args=[]):
            return "a generator without a seed"
        case ast.Call(func=ast.Name(id=name)) if name in BANNED_CALLS:
            return f"{name}(): {BANNED_CALLS[name]}"
        case ast.Call(func=ast.Attribute(attr=name, value=owner)) if name in CLOCK_READS and (
            ast.unparse(owner) in ("datetime", "date", "datetime.datetime", "datetime.date")
        ):
            return f"{ast.unparse(owner)}.{name}(): time is passed in"
        case ast.ExceptHandler(type=None):
            return "a bare except"
        case ast.ExceptHandler(type=ast.Name(id="Exception" | "BaseException" as name)):
            return f"except {name}: only a shell's outermost loop may"
    return ""


def unordered(source: Source) -> Iterator[str]:
    """Yield each iteration over a set whose order can show.

    Found by their looks: set displays and calls, set operations on them, and names or attributes
    that this file annotates as sets.
    """
    known = _annotated_sets(source.nodes)
    harmless = {
        id(argument)
        for node in source.nodes
        if isinstance(node, ast.Call) and _called(node) in ORDERLESS
        for argument in node.args
    }
    for node in source.nodes:
        for over in _iterated(node, harmless):
            if _is_set(over, known):
                yield f"{source.path}:{over.lineno}: iterates a set, {ast.unparse(over)}; sort it"


def _iterated(node: ast.AST, harmless: set[int]) -> list[ast.expr]:
    match node:
        case ast.For(iter=over):
            return [over]
        case ast.ListComp() | ast.DictComp():
            return [] if id(node) in harmless else [part.iter for part in node.generators]
        case ast.GeneratorExp():
            return [] if id(node) in harmless else [part.iter for part in node.generators]
        case ast.Call(args=[over, *_]) if _called(node) in ("list", "tuple", "iter", "enumerate"):
            return [] if id(node) in harmless else [over]
        case ast.Starred(value=over):
            return [over]
    return []


def _called(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else ""


def _annotated_sets(nodes: list[ast.AST]) -> set[str]:
    found: set[str] = set()
    for node in nodes:
        match node:
            case ast.AnnAssign(target=target, annotation=kind) if _names_set(kind):
                found.add(ast.unparse(target))
            case ast.arg(arg=name, annotation=kind) if kind and _names_set(kind):
                found.add(name)
    return found


def _names_set(kind: ast.expr) -> bool:
    return re.match(r"(set|frozenset|Set|AbstractSet)\b", ast.unparse(kind)) is not None


def _is_set(node: ast.expr, known: set[str]) -> bool:
    match node:
        case ast.Set() | ast.SetComp():
            return True
        case ast.Call(func=ast.Name(id="set" | "frozenset")):
            return True
        case ast.BinOp(left=left, op=ast.Sub() | ast.BitOr() | ast.BitAnd() | ast.BitXor()):
            return _is_set(left, known) or _is_set(node.right, known) or _is_keys(left)
        case ast.Name() | ast.Attribute():
            return ast.unparse(node) in known
    return False


def _is_keys(node: ast.expr) -> bool:
    match node:
        case ast.Call(func=ast.Attribute(attr="keys" | "items")):
            return True
    return False


# ------------------------------------------------------------------ sizes and words


def code_lines(source: Source) -> set[int]:
    """Return the numbers of lines that hold code: no blanks, comments or bare strings."""
    prose: set[int] = set()
    for node in source.nodes:
        match node:
            case ast.Expr(value=ast.Constant(value=str())):
                prose.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    skip = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        if token.type not in (*skip, tokenize.ENDMARKER):
            lines.update(range(token.start[0], token.end[0] + 1))
    return lines - prose


def oversized(source: Source) -> Iterator[str]:
    """Yield the file, and each class and function, that has grown past its bound."""
    code = code_lines(source)
    usual = CODE_LINES_MAX if source.path.startswith(LIMITED) else TEST_LINES_MAX
    limit, _reason = LONGER.get(source.path, (usual, ""))
    if len(code) > limit:
        yield f"{source.path}:1: {len(code)} lines of code, at most {limit}"
    for node in source.nodes:
        if isinstance(node, FUNCTIONS):
            assert node.end_lineno is not None
            count = sum(node.lineno <= line <= node.end_lineno for line in code)
            if count > FUNCTION_LINES_MAX:
                yield f"{source.path}:{node.lineno}: {node.name} has {count} lines of code"
        if isinstance(node, ast.ClassDef) and source.path.startswith(LIMITED):
            methods = sum(isinstance(part, FUNCTIONS) for part in node.body)
            most, _reason = MORE_METHODS.get(node.name, (METHODS_MAX, ""))
            if methods > most:
                yield f"{source.path}:{node.lineno}: {node.name} has {methods} methods"


def needless_exceptions(all_sources: list[Source]) -> Iterator[str]:
    """Yield each exception from a bound that nothing needs any more."""
    long = {source.path: len(code_lines(source)) for source in all_sources}
    many: dict[str, int] = {}
    for source in all_sources:
        for node in source.nodes:
            if isinstance(node, ast.ClassDef):
                methods = sum(isinstance(part, FUNCTIONS) for part in node.body)
                many[node.name] = max(methods, many.get(node.name, 0))
    yield from (f"{path} is short" for path in LONGER if long.get(path, 0) <= CODE_LINES_MAX)
    yield from (f"{name} is small" for name in MORE_METHODS if many.get(name, 0) <= METHODS_MAX)


def undocumented(source: Source) -> Iterator[str]:
    """Yield the file when it has code but does not open by saying what it is."""
    if source.tree.body and not ast.get_docstring(source.tree):
        yield f"{source.path}:1: no docstring that says what this file is"


def misplaced(path: str) -> Iterator[str]:
    """Yield a file of tests, or one that tests share, unless it lies where CONTRIBUTING.md says."""
    _, *folders, name = path.split("/")
    if name in ("__init__.py", "conftest.py") or folders == ["peers"]:
        return
    if not name.startswith("test_"):
        if folders not in (["support"], ["rules"]):
            yield f"{path}:1: no test; what tests share lies in tests/support/"
    elif not folders:
        module = name.removeprefix("test_")
        if not any((ROOT / place / module).exists() for place in ("dcc", ".")):
            yield f"{path}:1: tests no module of that name; see CONTRIBUTING.md for its folder"
    elif folders[0] not in TEST_FOLDERS and not (ROOT / "dcc" / folders[0]).is_dir():
        yield f"{path}:1: dcc/ has no package of this name; see CONTRIBUTING.md for its folder"


def unfinished(path: str, text: str) -> Iterator[str]:
    """Yield each mark of unfinished work."""
    for number, line in enumerate(text.splitlines(), 1):
        if UNFINISHED.search(line):
            yield f"{path}:{number}: finish it or open an issue: {line.strip()}"


def titles(path: str, text: str) -> Iterator[str]:
    """Yield the document unless it has exactly one title, in its first line."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    found = re.findall(r"^# .+$", prose, re.M)
    if len(found) != 1 or not text.startswith(found[0]):
        yield f"{path}:1: {len(found)} titles; one, in the first line"
