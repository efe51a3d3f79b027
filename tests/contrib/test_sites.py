"""The programs that the pages show: they share a cache, outlive their cluster and find it again.

Each is run as its page says, on nodes that are killed and started anew.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.example_sites import RUN_IN, Site, commands, start_site, write_programs
from tests.support.processes import NodeProcess, Processes, wait_until

pytestmark = pytest.mark.process

TIMEOUT_SECONDS = 0.25
"As the pages set it."


@pytest.fixture
def nodes(processes: Processes) -> list[NodeProcess]:
    """Three nodes."""
    return processes.nodes(3)


def serves(page: str, word: str) -> str:
    """Return the command of `page` that has `word` in it."""
    return next(line for line in commands(page) if word in line)


@pytest.fixture
def serve(processes: Processes, nodes: list[NodeProcess], tmp_path: Path) -> Callable[..., Site]:
    """Runs the program of a page, on the nodes, under the server that the page names."""

    def started(page: str, framework: str, server: str, program: str = "") -> Site:
        pytest.importorskip(framework)
        pytest.importorskip(server)
        write_programs(page, tmp_path, nodes)
        command = serves(page, server)
        return start_site(
            processes, tmp_path, command.replace("app:app", program) if program else command
        )

    return started


THROUGHOUT = [True, False, True]
"With nodes, without any, and with nodes again."


def is_cached_throughout(
    site: Site, nodes: list[NodeProcess], processes: Processes, path: str = "/"
) -> list[bool]:
    """Return whether a page that is made once a minute is cached: see `THROUGHOUT`."""
    found = [is_cached(site, path)]
    for node in nodes:
        node.kill()
    for _ in range(8):
        began = time.monotonic()
        site.get(path)
        # One call of one time-out, and what a busy machine adds.
        assert time.monotonic() - began < TIMEOUT_SECONDS + 1
    found.append(is_cached(site, path))
    again = restart(nodes, processes)
    assert all(node.ready for node in again)
    wait_until(lambda: is_cached(site, path), 20, site.process.text)
    return [*found, True]


def is_cached(site: Site, path: str) -> bool:
    """Return whether many requests in a row get the same page."""
    return len({site.get(path) for _ in range(8)}) == 1


def restart(nodes: list[NodeProcess], processes: Processes) -> list[NodeProcess]:
    """Start nodes at the addresses of those that were killed."""
    first, *rest = [node.same_again for node in nodes]
    seed = ("--seed", nodes[0].address)
    return [processes.node(*first), *(processes.node(*seed, *options) for options in rest)]


def test_flask_under_gunicorn(
    serve: Callable[..., Site], processes: Processes, nodes: list[NodeProcess]
) -> None:
    site = serve("flask.md", "flask_caching", "gunicorn")
    assert is_cached_throughout(site, nodes, processes) == THROUGHOUT


def test_sessions_of_flask(serve: Callable[..., Site], nodes: list[NodeProcess]) -> None:
    site = serve("flask.md", "flask", "gunicorn", "sessions:app")
    before = int(site.get())
    assert [int(site.get()) for _ in range(8)] == [before + i for i in range(1, 9)]
    for node in nodes:
        node.kill()
    assert site.get() == "1"


def test_django_under_gunicorn(
    serve: Callable[..., Site], processes: Processes, nodes: list[NodeProcess]
) -> None:
    site = serve("django.md", "django", "gunicorn")
    before = int(site.get("/visits"))
    assert [int(site.get("/visits")) for _ in range(4)] == [before + i for i in range(1, 5)]
    assert is_cached_throughout(site, nodes, processes) == THROUGHOUT
    # The cookie of before: its session is gone with the cluster, and another one begins.
    # (For seconds after such a start a read may find an older value, so it may count twice.)
    assert int(site.get("/visits")) == 1
    wait_until(lambda: int(site.get("/visits")) >= 4, 20, site.process.text)


def test_a_session_of_django_outlives_an_outage_of_its_cluster(
    serve: Callable[..., Site], nodes: list[NodeProcess]
) -> None:
    site = serve("django.md", "django", "gunicorn")
    assert [site.get("/visits") for _ in range(3)] == ["1", "2", "3"]
    for node in nodes:
        node.signal(signal.SIGSTOP)
    began = time.monotonic()
    assert [site.get("/visits") for _ in range(6)] == ["1"] * 6
    # Each of two workers has waited for one call, and no other call for anything.
    assert time.monotonic() - began < 2 * TIMEOUT_SECONDS + 1
    for node in nodes:
        node.signal(signal.SIGCONT)
    wait_until(lambda: int(site.get("/visits")) >= 4, 20, site.process.text)


def test_fastapi(
    serve: Callable[..., Site], processes: Processes, nodes: list[NodeProcess]
) -> None:
    site = serve("fastapi.md", "fastapi", "uvicorn")
    assert [site.get("/visits") for _ in range(2)] == ['{"visits":1}', '{"visits":2}']
    assert is_cached_throughout(site, nodes, processes) == THROUGHOUT
    assert site.get("/visits") == '{"visits":1}'


WAIT_FOR_TASK = """
import sys
from celery.exceptions import TimeoutError
from tasks import add
try:
    print(add.delay(*map(int, sys.argv[1:])).get(timeout=3))
except TimeoutError:
    print("lost")
"""


def test_a_celery_worker(processes: Processes, nodes: list[NodeProcess], tmp_path: Path) -> None:
    pytest.importorskip("celery")
    write_programs("celery.md", tmp_path, nodes)
    (tmp_path / "queue").mkdir()
    (tmp_path / "wait.py").write_text(WAIT_FOR_TASK)

    def added(a: int, b: int) -> str:
        words = ["python", "wait.py", str(a), str(b)]
        ran = processes.python("-c", RUN_IN, str(tmp_path), *words)
        assert ran.wait() == 0, ran.text()
        return ran.out[-1]

    worker = processes.python("-c", RUN_IN, str(tmp_path), *serves("celery.md", "worker").split())
    wait_until(lambda: added(1, 2) == "3", 40, worker.text)
    for node in nodes:
        node.kill()
    assert added(3, 4) == "lost"
    again = restart(nodes, processes)
    assert all(node.ready for node in again)
    wait_until(lambda: added(5, 6) == "11", 20, worker.text)
    assert worker.popen.poll() is None
