"""Tries the pages for Django, FastAPI, Flask and Celery as a new user would.

    python -m build --wheel && python scripts/new_user.py dist/*.whl

For each page: a virtual environment of its own with the wheel and the page's extra (and the server
that the page's command starts), the programs of the page as they stand there, three nodes. Then it
asks for the page's URL, kills all nodes with SIGKILL, asks on, starts nodes again, and asks until
the cluster is used again. It prints what each request got; its exit code is 1 if any request
was answered otherwise than with 200, waited longer than one time-out, or the cluster stayed unused.

It needs the package index, some minutes and no node at 127.0.0.1:6740.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).parent.parent / "docs"
PORT = 8000
"As the pages have it."
NODES = ("127.0.0.1:6740", "127.0.0.1:6750", "127.0.0.1:6760")
CALL_SECONDS = 0.25
"The time-out that the pages set; of one call, once."
SLACK_SECONDS = float(os.environ.get("SLACK", "1"))
"What a busy machine adds."

WAIT_FOR_TASK = """
import sys
from celery.exceptions import TimeoutError
from tasks import add
try:
    print(add.delay(*map(int, sys.argv[1:])).get(timeout=5))
except TimeoutError:
    print("lost")
"""


class Trial(NamedTuple):
    """One page, and what its reader installs."""

    page: str
    extra: str
    beside: tuple[str, ...]
    "Packages that the page's reader has already: his framework and his server."
    command: str
    "A word of the command that starts the program."


TRIALS = (
    Trial("django.md", "django", ("gunicorn",), "gunicorn"),
    Trial("fastapi.md", "starlette", ("fastapi", "uvicorn"), "uvicorn"),
    Trial("flask.md", "flask", ("gunicorn",), "gunicorn"),
    Trial("celery.md", "celery", (), "worker"),
)


def main() -> int:
    """Try the pages that are named behind the wheel, or all; return the exit code."""
    wheel, *wanted = sys.argv[1:]
    failed = 0
    for trial in TRIALS:
        if wanted and trial.page not in wanted:
            continue
        with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
            print(f"{trial.page}: pip install 'dcc-cache[{trial.extra}]'", *trial.beside)
            python = environment(Path(folder), Path(wheel).resolve(), trial)
            found = tried(trial, Path(folder), python, running)
            print(f"{trial.page}: {found or 'fine'}", flush=True)
            failed += bool(found)
    return min(failed, 1)


def environment(folder: Path, wheel: Path, trial: Trial) -> Path:
    """Return the Python of a new environment, with the page's programs beside it."""
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    wanted = [f"{wheel}[{trial.extra}]", *trial.beside]
    options = ["--quiet", "--disable-pip-version-check"]
    subprocess.run([python, "-m", "pip", "install", *options, *wanted], check=True)
    for block in blocks(trial.page, "python"):
        name = re.match(r"# ([\w/]+\.py)\n", block)
        if name:
            (folder / name[1]).write_text(block)
    (folder / "queue").mkdir()
    (folder / "wait.py").write_text(WAIT_FOR_TASK)
    return python


def blocks(page: str, language: str) -> list[str]:
    """Return the blocks of a page in one language."""
    text = (DOCS / page).read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def tried(trial: Trial, folder: Path, python: Path, running: ExitStack) -> str:
    """Return what went wrong, if anything did."""
    lines = [line for block in blocks(trial.page, "sh") for line in block.splitlines()]
    command = next(line for line in lines if trial.command in line)
    nodes = start_nodes(folder, python, running)
    program = start(folder, [*command.split()], running)
    ask = asked_task(folder, python) if trial.page == "celery.md" else asked_page
    if not until(lambda: used(trial, ask), 60):
        return f"never used its cluster; it runs: {program.poll() is None}"
    for node in nodes:
        node.send_signal(signal.SIGKILL)
    for number in range(8):
        began = time.monotonic()
        answer = ask()
        took = time.monotonic() - began
        print(f"  without a cluster, {number}: {answer} in {took:.2f} s")
        if trial.page != "celery.md" and took > CALL_SECONDS + SLACK_SECONDS:
            return f"request {number} without a cluster took {took:.2f} s"
        if trial.page == "celery.md":
            break  # A result is lost, and the program that asks has to wait for it.
    for node in nodes:
        node.wait()
    start_nodes(folder, python, running)
    if not until(lambda: used(trial, ask), 60):
        return "did not find its cluster again"
    return "" if program.poll() is None else f"ended with {program.returncode}"


def used(trial: Trial, ask: Callable[[], str]) -> bool:
    """Return whether the program is served by its cluster now."""
    if trial.page == "celery.md":
        return ask() == "3"
    found = {ask() for _ in range(8)}
    print(f"  with a cluster: {len(found)} page of 8 requests")
    return len(found) == 1


def asked_page() -> str:
    """Return the body of the page; an exception unless its status is 200."""
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/", timeout=10) as answer:
                body: str = answer.read().decode()
                return body
        except urllib.error.HTTPError:
            raise
        except urllib.error.URLError:
            time.sleep(0.1)  # The server is not there yet.
    raise TimeoutError("the server did not start")


def asked_task(folder: Path, python: Path) -> Callable[[], str]:
    """Return what asks a worker for 1 + 2."""

    def ask() -> str:
        done = subprocess.run(
            [python, "wait.py", "1", "2"], cwd=folder, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    return ask


def start_nodes(folder: Path, python: Path, running: ExitStack) -> list[subprocess.Popen[bytes]]:
    """Start three nodes and wait until each says that it is ready."""
    nodes = []
    for address in NODES:
        argv = [str(python.with_name("dcc")), "node", "--bind", address, "--seed", NODES[0]]
        node = start(folder, argv, running, stdout=subprocess.PIPE)
        assert node.stdout is not None
        print(f"  {node.stdout.readline().decode().strip()[:76]}")
        nodes.append(node)
    return nodes


def start(
    folder: Path, argv: list[str], running: ExitStack, stdout: int | None = None
) -> subprocess.Popen[bytes]:
    """Start a program of the environment, which is killed with all it started at the end."""
    path = f"{folder / 'venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("DCC_", "PYTHON"))}
    with (folder / "log").open("ab") as log:
        started = subprocess.Popen(
            argv, cwd=folder, env=kept | {"PATH": path}, start_new_session=True,
            stdout=stdout or log, stderr=log,
        )  # fmt: skip
    running.callback(ended, started)
    return started


def ended(program: subprocess.Popen[bytes]) -> None:
    """Kill a program with all that it started."""
    try:
        os.killpg(program.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    program.wait()


def until(holds: Callable[[], bool], seconds: float) -> bool:
    """Return whether something comes to hold in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


if __name__ == "__main__":
    sys.exit(main())
