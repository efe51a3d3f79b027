"""`python -m dcc.demo`: a real cluster serves a real workload through a `kill -9`.

The story: three nodes start, client processes begin to serve documentation pages from the cache
and render what it lacks; one node, the first, is killed with SIGKILL; the copies it held are made
anew; a new node joins by the address of another; all the while nothing may fail. The end is a
report. Exit codes: 0 every promise held, 1 one did not, 2 a process did not start or ended by
itself, 64 wrong usage, 130 interrupted. Nothing leaves the loopback interface.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import IO

from dcc import Client, DccError, output
from dcc.demo.cluster import READY_SECONDS_MAX, Broken, Child, Cluster
from dcc.demo.copies import Watch
from dcc.demo.report import Phase, Result, broken_promises, report
from dcc.demo.screen import Picture, Screen
from dcc.demo.tally import Tally
from dcc.demo.worker import key_of

NODES, WORKERS = 3, 3
STALE_SECONDS = 20.0
"Each page is rendered anew once in so long."
STEADY_SECONDS = 5.0
WARM_RATIO = 0.85
WARM_SECONDS_MAX = 8.0
WHOLE_SECONDS_MAX = 5.0
ONE_VIEW_SECONDS_MAX = 10.0
RESTORED_SECONDS_MAX = 20.0
FILLED_SECONDS_MAX = 15.0

TURN_SECONDS = 0.1
WATCH_SECONDS = 0.05
"Spent on looking at copies in one turn, so that the screen stays alive."
MEMBERS_SECONDS = 0.5
RECENT_TURNS = 12


class Story:
    """Runs the phases one after the other and keeps what they gave."""

    def __init__(self, cluster: Cluster, screen: Screen, *, seed: int, steady: float) -> None:
        self._cluster, self._screen = cluster, screen
        self._seed, self._steady = seed, steady
        self._began = time.monotonic()
        self._phase = Phase("start")
        self._recent: deque[tuple[float, Tally]] = deque(maxlen=RECENT_TURNS)
        self._left_out: dict[str, str] = {}
        self._members: dict[str, str] = {}
        self._members_due = 0.0
        self._watch: Watch | None = None
        self.result: Result = Result()

    def run(self) -> Result:
        """Tell the whole story; Broken if a process fails."""
        self._start()
        nodes = ",".join(node.request for node in self._cluster.nodes)
        with Client(nodes, timeout=1.0, keys=self._cluster.keys or None) as self._client:
            self._one_view()
            self._serve()
            self._kill()
            self._join()
            self._begin("steady again")
            self._turn_until(lambda: False, self._steady)
            self._end()
        return self.result

    def _start(self) -> None:
        first = self._cluster.add_node()
        self._cluster.wait_ready(first)
        for node in [self._cluster.add_node() for _ in range(NODES - 1)]:
            self._cluster.wait_ready(node)
        for node in self._cluster.nodes:
            self._announce(f"{node.name} is ready at {node.request}, process {node.pid}")

    def _serve(self) -> None:
        for _ in range(WORKERS):
            worker = self._cluster.add_worker(seed=self._seed, period=STALE_SECONDS)
            self._announce(f"{worker.name} requests pages, process {worker.pid}")
        self._begin("warm up")
        self._turn_until(self._warm, WARM_SECONDS_MAX)
        self._whole(WHOLE_SECONDS_MAX)
        self._begin("steady")
        self._turn_until(lambda: False, self._steady)

    def _kill(self) -> None:
        victim = self._cluster.nodes[0]
        self._begin("kill until restored")
        self.result.killed_at = time.monotonic()
        victim.kill()
        self._announce(f"kill -9 {victim.pid}: {victim.name}, the first, is gone")
        restored_at = self._whole(RESTORED_SECONDS_MAX)
        if restored_at is not None:
            self.result.restored_seconds = restored_at - self.result.killed_at
            self._announce(f"all copies are restored, {self.result.restored_seconds:.1f} s later")

    def _join(self) -> None:
        self._begin("a node joins")
        started_at = time.monotonic()
        node = self._cluster.add_node()
        self._announce(f"{node.name} starts, process {node.pid}, with one seed")
        self._turn_until(lambda: node.ready, READY_SECONDS_MAX)
        if not node.ready:
            raise node.broken("is not ready")
        self.result.ready_seconds = time.monotonic() - started_at
        self._announce(f"{node.name} is ready at {node.request}")
        self._one_view()
        filled_at = self._whole(FILLED_SECONDS_MAX)
        if filled_at is not None:
            self.result.filled_seconds = filled_at - started_at
            self.result.newcomer_items = self._items(node.name)
            self._announce(f"{node.name} has its copies")

    def _end(self) -> None:
        self._close_phase()
        self._cluster.check()
        self._cluster.finish_workers()
        self._collect()
        if self._left_out:
            self._announce(f"{len(self._left_out)} modules have no page: too slow, or no import")

    def _one_view(self) -> None:
        """Wait until all nodes that run are members and alive; Broken if that takes too long."""
        expected = sorted(node.name for node in self._cluster.nodes if node.running)
        self._turn_until(lambda: self._alive() == expected, ONE_VIEW_SECONDS_MAX)
        if self._alive() != expected:
            raise Broken(f"{', '.join(expected)} run, but the members are {self._members}")

    def _whole(self, seconds_max: float) -> float | None:
        """Watch the copies until all are whole; return when that was, None if it took too long."""
        self._watch = Watch(self._client, map(key_of, self.result.total.names))
        watch = self._watch
        self._turn_until(lambda: watch.complete_at is not None, seconds_max)
        self._watch = None
        return watch.complete_at

    def _begin(self, name: str) -> None:
        self._close_phase()
        self._phase = Phase(name)
        self._phase_began = time.monotonic()
        self.result.phases.append(self._phase)

    def _close_phase(self) -> None:
        if self.result.phases:
            self._collect()
            self._phase.seconds = time.monotonic() - self._phase_began

    def _turn_until(self, done: Callable[[], bool], seconds_max: float) -> None:
        until = time.monotonic() + seconds_max
        while time.monotonic() < until and not done():
            self._turn()

    def _turn(self) -> None:
        turn_ends = time.monotonic() + TURN_SECONDS
        self._cluster.check()
        self._collect()
        self._look_at_members()
        if self._watch is not None:
            self._watch.step(WATCH_SECONDS)
        self._show()
        time.sleep(max(0.0, turn_ends - time.monotonic()))

    def _collect(self) -> None:
        fresh = Tally()
        for worker in self._cluster.workers:
            for line in worker.lines():
                tally = Tally.from_line(line)
                fresh.add(tally)
                self._pass_on(worker, tally.left_out)
        self._phase.tally.add(fresh)
        self.result.total.add(fresh)
        self._recent.append((time.monotonic(), fresh))

    def _pass_on(self, source: Child, left_out: dict[str, str]) -> None:
        """Spare the other workers from finding out what one has."""
        for name in left_out.keys() - self._left_out.keys():
            for worker in self._cluster.workers:
                if worker is not source:
                    worker.say(name)
        self._left_out |= left_out

    def _look_at_members(self) -> None:
        if time.monotonic() < self._members_due:
            return
        self._members_due = time.monotonic() + MEMBERS_SECONDS
        try:
            nodes = self._client.topology().nodes
        except DccError:
            return  # The last known standings stay on the screen.
        self._members = {node.name: node.standing for node in nodes}

    def _alive(self) -> list[str]:
        return sorted(name for name, standing in self._members.items() if standing == "alive")

    def _items(self, name: str) -> int:
        try:
            return self._client.stats().nodes[name].items
        except (DccError, KeyError):
            return 0

    def _warm(self) -> bool:
        recent = self._last_second()
        return len(self._recent) == RECENT_TURNS and recent.hit_ratio >= WARM_RATIO

    def _last_second(self) -> Tally:
        recent = Tally()
        for _, tally in self._recent:
            recent.add(tally)
        return recent

    def _show(self) -> None:
        self._screen.show(
            Picture(
                seconds=self._seconds(),
                phase=self._phase.name,
                recent=self._last_second(),
                recent_seconds=self._recent[-1][0] - self._recent[0][0],
                total=self.result.total,
                members=self._members,
                whole_share=self._watch.whole_share if self._watch is not None else None,
            )
        )

    def _announce(self, text: str) -> None:
        self._screen.announce(self._seconds(), text)

    def _seconds(self) -> float:
        return time.monotonic() - self._began


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = output.Parser(
        prog="python -m dcc.demo",
        description="Three nodes, real clients, one kill -9, a report. Takes under a minute.",
    )
    parser.add_argument("--seed", type=int, default=1, help="of what the clients request")
    parser.add_argument(
        "--steady", type=float, default=STEADY_SECONDS, metavar="SECONDS",
        help="length of each of the two steady phases [%(default)s]",
    )  # fmt: skip
    parser.add_argument(
        "--keys", action="store_true", help="all is encrypted, and only who has a key is let in"
    )
    parser.add_argument("--plain", action="store_true", help="one line a second, as when piped")
    return parser.parse_args(argv)


def _terminal(out: IO[str]) -> bool:
    return out.isatty() and os.environ.get("TERM", "dumb") != "dumb"


@contextmanager
def _signals_noted(cluster: Cluster) -> Iterator[None]:
    """Let a signal only be noted, so that none comes between a child and its entry in the list."""

    def note(number: int, _frame: FrameType | None) -> None:
        cluster.signal = number

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    names = ("SIGINT", "SIGTERM", "SIGHUP")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demonstration; return the exit code."""
    try:
        options = _arguments(argv)
    except SystemExit as stop:
        return 64 if stop.code else 0
    screen = Screen(sys.stdout, terminal=_terminal(sys.stdout) and not options.plain)
    try:
        cluster = Cluster(with_keys=options.keys)
        with _signals_noted(cluster), cluster:
            story = Story(cluster, screen, seed=options.seed, steady=options.steady)
            result = story.run()
    except Broken as error:
        screen.write(f"BROKEN: {error}\n")
        return 2
    except SystemExit as stop:
        screen.write("interrupted; all processes are ended\n")
        return int(stop.code or 0)
    screen.write(report(result))
    return 1 if any(broken_promises(result)) else 0


if __name__ == "__main__":
    sys.exit(output.guarded(main))
