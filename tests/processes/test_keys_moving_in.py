"""From a cluster without keys to one with keys, as docs/security.md says: nothing is missed."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

import dcc
from tests.support.key_ground import Ground, is_converged
from tests.support.processes import Processes, wait_until

pytestmark = [pytest.mark.process, pytest.mark.slow]
KEYS = [f"key-{number}" for number in range(100)]


class Application:
    """Reads the new cluster first and the old one then; writes to both. On a thread."""

    def __init__(self, old: dcc.Client) -> None:
        self.old: dcc.Client | None = old
        self.new: dcc.Client | None = None
        self.rounds = 0
        self.missed: list[str] = []
        self.failed: list[str] = []
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def start(self) -> None:
        for key in KEYS:
            self._write(key)
        self._thread.start()

    def end(self) -> None:
        self._ends.set()
        if self._thread.is_alive():
            self._thread.join()

    def clusters(self) -> list[dcc.Client]:
        return [one for one in (self.new, self.old) if one is not None]

    def _work(self) -> None:
        while not self._ends.is_set():
            for number, key in enumerate(KEYS):
                try:
                    if all(one.get(key) is None for one in self.clusters()):
                        self.missed.append(key)
                    if number % 4 == self.rounds % 4:
                        self._write(key)
                except dcc.DccError as error:
                    self.failed.append(repr(error))
            self.rounds += 1

    def _write(self, key: str) -> None:
        for one in self.clusters():
            one.put(key, key.encode())


@pytest.fixture
def application(processes: Processes) -> Iterator[Application]:
    nodes = processes.nodes(2, "--replicas", "1")
    with dcc.Client([node.address for node in nodes], timeout=5) as old:
        made = Application(old)
        yield made
        made.end()


def rounds(application: Application, count: int) -> None:
    """Let the application do so many rounds more."""
    wanted = application.rounds + count
    wait_until(lambda: application.rounds >= wanted, 60)


def test_an_application_that_uses_both_for_a_while_misses_nothing(
    application: Application, ground: Ground
) -> None:
    application.start()
    rounds(application, 1)
    ground.cluster("--replicas", "1")
    new = ground.client("app")
    wait_until(lambda: is_converged(ground.client("chief")), 60, ground.text)
    application.new = new
    rounds(application, 6)  # Every value is written within four: so long they live here.
    assert len(new.get_many(KEYS)) == len(KEYS)
    application.old = None
    rounds(application, 2)
    application.end()
    assert application.missed == application.failed == []
