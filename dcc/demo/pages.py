"""What the demonstration serves: the standard library's documentation, rendered by pydoc.

Real, slow and on every machine: a page takes from under a millisecond to several hundred. Two
processes render slightly different text for the same module (addresses, the order of sets), so
equality with a page of one's own proves nothing. Instead each value is sealed: it begins with a
digest of everything behind it, its own name included, so a value that is cut, mixed up or another
page's is noticed by whoever reads it.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import io
import os
import pkgutil
import pydoc
import signal
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from types import FrameType, ModuleType
from typing import NamedTuple

LEFT_OUT = frozenset({
    "antigravity",  # opens a browser
    "this",  # prints
    "idlelib", "tkinter", "turtle", "turtledemo",  # want a display
    "test", "lib2to3", "ensurepip", "msilib",  # tests, grammars, bundled wheels, Windows
    "encodings", "pydoc_data",  # over a hundred pages that say nothing
    "readline", "rlcompleter",  # touch the terminal
    "distutils",  # gone from 3.12 on; setuptools hooks itself in where it is looked for
})  # fmt: skip
"Top-level names without a page."

IMPORT_SECONDS_MAX = 2.0
RENDER_SECONDS_MAX = 0.3
"Of CPU time. A dozen pages take seconds before Python 3.13; the story is too short for them."

REPEAT_SECONDS = 0.02
"pydoc has a bare `except` or two, which may swallow the first alarm."

DIGEST_HEX = 64


class NoPage(Exception):
    """The module does not import here, or takes too long; it gets no page."""


class WrongBytes(Exception):
    """A value that is not the page it was asked for, whole and unchanged."""


class Page(NamedTuple):
    """One rendered page."""

    name: str
    "Of the module."
    cost_us: int
    "Microseconds that rendering it took, without the import, which a server pays only once."
    text: bytes


def catalogue() -> list[str]:
    """Return the modules of the standard library that may have a page; imports none of them."""
    names: list[str] = []
    for top in sorted(sys.stdlib_module_names - LEFT_OUT):
        spec = None if top.startswith("_") else importlib.util.find_spec(top)
        if spec is not None:
            names.append(top)
            names += _below(top, spec.submodule_search_locations or ())
    return names


def _below(package: str, folders: Iterable[str]) -> Iterator[str]:
    for found in pkgutil.iter_modules(folders):
        if found.name.startswith("_") or found.name in ("test", "tests"):
            continue
        name = f"{package}.{found.name}"
        yield name
        if found.ispkg:
            yield from _below(name, [os.path.join(folder, found.name) for folder in folders])


def render(name: str) -> Page:
    """Return the page of the module `name`; NoPage if it has none here.

    Must run in the main thread: only there can an alarm end what takes too long.
    """
    try:
        with _silence(), _at_most(IMPORT_SECONDS_MAX, "ITIMER_REAL", "SIGALRM"):
            module = importlib.import_module(name)
        with _silence(), _at_most(RENDER_SECONDS_MAX, "ITIMER_PROF", "SIGPROF"):
            return _timed(name, module)
    except (Exception, SystemExit) as error:
        # Importing somebody's module runs somebody's code: whatever it raises, there is no page.
        raise NoPage(f"{name}: {type(error).__name__}: {error}") from error


def _timed(name: str, module: ModuleType) -> Page:
    began = time.perf_counter_ns()
    text = pydoc.plain(pydoc.render_doc(module))
    cost_us = (time.perf_counter_ns() - began) // 1000
    return Page(name, cost_us, text.encode("utf-8", "backslashreplace"))


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    sink = io.StringIO()
    with (
        contextlib.redirect_stdout(sink),
        contextlib.redirect_stderr(sink),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _at_most(seconds: float, timer: str, alarm: str) -> Iterator[None]:
    """Raise TimeoutError in the block once the timer has run for `seconds`, where there is one."""
    if not hasattr(signal, "setitimer"):
        yield
        return
    which, number = getattr(signal, timer), getattr(signal, alarm)
    before = signal.signal(number, _too_long)
    signal.setitimer(which, seconds, REPEAT_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(which, 0)
        signal.signal(number, before)


def _too_long(_number: int, _frame: FrameType | None) -> None:
    raise TimeoutError("takes too long")


def seal(page: Page) -> bytes:
    """Return the page as the value that is cached."""
    rest = f" {page.name} {page.cost_us}\n".encode() + page.text
    return hashlib.sha256(rest).hexdigest().encode() + rest


def unseal(name: str, value: bytes) -> Page:
    """Return the page in `value`; WrongBytes unless it is `name`'s, byte for byte as sealed.

    >>> unseal("abc", seal(Page("abc", 1200, b"Help on module abc"))).cost_us
    1200
    """
    digest, rest = value[:DIGEST_HEX], value[DIGEST_HEX:]
    if hashlib.sha256(rest).hexdigest().encode() != digest:
        raise WrongBytes(f"{name}: {len(value)} bytes that do not match their own checksum")
    head, _, text = rest.partition(b"\n")
    found, cost_us = head.decode().split()
    if found != name:
        raise WrongBytes(f"{name}: got the page of {found}")
    return Page(found, int(cost_us), text)
