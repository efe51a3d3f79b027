"""Runs the peers' suites against real nodes: one, three, and three of which one is killed.

    python -m tests.peers.run [--only SUITE]

All suites run at the same time, each in its own namespaces of one cluster. The killed node stays
away; writes are acknowledged by two (`w=2`), so nothing that a suite was told may be missing. But a
write that is on its way to a node as it dies ends as MaybeStored, and the suites' tests do not
expect that: so of each suite the few tests that were under way at that moment may fail, no others.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass

from tests.support.paths import ROOT
from tests.support.processes import Processes, clean_environment

HERE = ROOT / "tests/peers"
INSTALLED = ROOT / ".venv/peers"
PYTHON = str(INSTALLED / "bin/python")
SUITE_SECONDS = 150
KILL_AFTER_SECONDS = 6.0
UNDER_WAY_MAX = 2
"A test, and one that it leaves its mess to."
PYTEST = [PYTHON, "-W", "ignore", "-m", "pytest", "-q", "--timeout", "60", "-p", "no:cacheprovider",
          "--rootdir", str(HERE), "--confcutdir", str(HERE), "-c", "/dev/null"]  # fmt: skip
DJANGO = [PYTHON, "-W", "ignore", "-m", "django", "test", "--settings", "settings_django"]


@dataclass(frozen=True)
class Suite:
    """One peer's suite: which folders of its source must be found, and how it is run."""

    name: str
    folders: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    least: int = 1
    "So many of its tests must have passed: none is left out unseen."

    def argv(self) -> list[str]:
        """Return the command line."""
        module = f"suite_{self.name}"
        if self.name == "django":
            return [*DJANGO, module]
        return [*PYTEST, *self.options, str(HERE / f"{module}.py")]

    def paths(self) -> list[str]:
        """Return the folders of its source, unpacked."""
        return [str(INSTALLED / "sources" / folder) for folder in self.folders]


SUITES = (
    Suite("cachelib", ("cachelib-0.17.0/tests",), ("-p", "conftest"), 84),
    Suite("flask_caching", ("flask_caching-2.5.1/tests",), ("-p", "conftest"), 13),
    Suite("aiocache", ("aiocache-0.12.3",), ("-o", "asyncio_mode=auto"), 111),
    Suite("dogpile", (), (), 56),
    Suite("django", ("django-5.2.19/tests",), (), 181),
)


def unpack() -> None:
    """Unpack the sources that were fetched."""
    for archive in sorted((INSTALLED / "sources").glob("*.tar.gz")):
        if not archive.with_suffix("").with_suffix("").exists():
            with tarfile.open(archive) as tar:
                tar.extractall(INSTALLED / "sources", filter="data")


def ended(suite: Suite, output: str, may_fail: int) -> tuple[bool, str]:
    """Return whether a suite is green, and how many of its tests passed and failed."""

    def number(pattern: str) -> int:
        found = re.search(pattern, output)
        return int(found[1]) if found else 0

    if ran := number(r"Ran (\d+) tests"):
        failed = number(r"failures=(\d+)") + number(r"errors=(\d+)")
        passed = ran - number(r"skipped=(\d+)") - failed
    else:
        failed = number(r"(\d+) failed") + number(r"(\d+) errors?\b")
        passed = number(r"(\d+) passed")
    green = failed <= may_fail and passed + failed >= suite.least
    return green, f"{passed} passed, {failed} failed"


def run(processes: Processes, suites: list[Suite], count: int, *, kill: bool) -> bool:
    """Run all suites on `count` nodes, and say how they ended; return whether all are green."""
    nodes = processes.nodes(count, "--replicas", "1" if count > 1 else "0")
    addresses = ",".join(node.address for node in nodes)
    options = "?w=2&timeout=2" if kill else "?timeout=5"
    started = []
    for suite in suites:
        paths = os.pathsep.join([*suite.paths(), str(HERE)])
        env = clean_environment({"DCC_URL": f"dcc://{addresses}/{options}"}) | {"PYTHONPATH": paths}
        started.append(
            subprocess.Popen(
                suite.argv(), cwd=HERE, env=env, stdin=subprocess.DEVNULL, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
            )
        )  # fmt: skip
    if kill:
        time.sleep(KILL_AFTER_SECONDS)  # somewhere in the middle of every suite
        nodes[-1].signal(signal.SIGKILL)
        for suite, process in zip(suites, started, strict=True):
            if process.poll() is not None:
                print(f"{suite.name} was over before the node was killed", flush=True)
    what = f"{count} node{'s' * (count > 1)}{', one killed' * kill}"
    green = True
    for suite, process in zip(suites, started, strict=True):
        try:
            output, _ = process.communicate(timeout=SUITE_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output = process.communicate()[0] + f"\nnot done after {SUITE_SECONDS} s"
        fine, text = ended(suite, output, UNDER_WAY_MAX if kill else 0)
        green = green and fine
        print(f"{what}: {suite.name}: {text}{'' if fine else ': RED'}", flush=True)
        if not fine:
            print(output[-6000:], flush=True)
    return green


def main() -> int:
    """Run all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=[suite.name for suite in SUITES])
    given = parser.parse_args()
    suites = [suite for suite in SUITES if given.only in (None, suite.name)]
    unpack()
    green = True
    for count, kill in ((1, False), (3, False), (3, True)):
        processes = Processes()
        try:
            green = run(processes, suites, count, kill=kill) and green
        finally:
            processes.end()
    return 0 if green else 1


if __name__ == "__main__":
    sys.exit(main())
