"""`python -m dcc.demo.worker`: one client process of the demonstration, a small page server.

For each request it asks the cache; on a miss it renders the page itself and puts it. It reports
what happened as JSON lines on standard output, several times a second. Standard input tells it
which pages the other clients found to have none, one name a line; when that ends, so does the
process, so none outlives the demonstration.

It also keeps the cache to its word: of each page that it put it remembers until when the page must
be there, and reports a miss before.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import threading
import time
import zlib
from collections.abc import Sequence
from itertools import accumulate
from typing import IO, Any

from dcc import Client, MaybeStored
from dcc.demo import pages
from dcc.demo.tally import Tally

REPORT_SECONDS = 0.2
PAUSE_SECONDS = 0.002
"Between requests: a reader is no benchmark, and the machine has renderers to feed."

PAGES = 240
"Of about 350: two cores render them all in ten seconds or so."

ZIPF_EXPONENT = 0.8
"Web proxies saw 0.64 to 0.83 (Breslau et al., Web caching and Zipf-like distributions, 1999)."

EARLY_SECONDS = 0.25
"How far before its time a page may go: clocks of two processes, and the call's own duration."

TIMEOUT_SECONDS = 1.0
TTL_SECONDS_MIN = 1.0


def ttl_of(name: str, period: float, now: float) -> float:
    """Return the seconds from `now` (monotonic) to the next time at which the page grows stale.

    Each page does so once a period, at a moment of its own: misses are spread evenly from the
    first second on, and a later put never ends before an earlier one, whoever puts.
    """
    moment = zlib.crc32(name.encode()) / 2**32 * period
    left = (moment - now) % period
    return left if left >= TTL_SECONDS_MIN else left + period


class Worker:
    """Requests pages until told to stop."""

    def __init__(self, client: Client, *, seed: int, number: int, period: float) -> None:
        self._client, self._period = client, period
        # The popularity is the same for every client, what each asks for next is its own.
        found = pages.catalogue()
        self._names = random.Random(seed).sample(found, min(PAGES, len(found)))
        self._weights = list(
            accumulate(1 / rank**ZIPF_EXPONENT for rank in range(1, len(self._names) + 1))
        )
        self._rng = random.Random(seed * 1000 + number)
        self._due: dict[str, tuple[float, float]] = {}
        "Page -> when its put was answered, and until when it must be there (monotonic)."
        self.left_out: set[str] = set()
        self.stopping: threading.Event = threading.Event()
        self.tally: Tally = Tally()

    def run(self, reports: IO[str]) -> None:
        """Request and report until `stopping`."""
        report_at = time.monotonic() + REPORT_SECONDS
        while not self.stopping.wait(PAUSE_SECONDS):
            self.request(self._draw())
            if time.monotonic() >= report_at:
                self._report(reports)
                report_at = time.monotonic() + REPORT_SECONDS
        self._report(reports)

    def request(self, name: str) -> None:
        """Serve the page `name` from the cache, or render and put it."""
        began = time.perf_counter_ns()
        try:
            value = self._client.get(key_of(name))
        except Exception as error:  # Whatever leaves the client is a failed request.
            self._failed("get", name, error)
            return
        took_us = (time.perf_counter_ns() - began) // 1000
        if value is None:
            self._missed(name, took_us)
            return
        try:
            page = pages.unseal(name, value)
        except pages.WrongBytes as error:
            self.tally.wrong += 1
            self.tally.note(str(error))
        else:
            self.tally.hit(name, took_us, page.cost_us)

    def _missed(self, name: str, took_us: int) -> None:
        now = time.monotonic()
        answered, due = self._due.pop(name, (0.0, 0.0))
        if now < due - EARLY_SECONDS:
            self.tally.early.append((name, answered, now))
        try:
            page = pages.render(name)
        except pages.NoPage as error:
            self.left_out.add(name)
            self.tally.left_out[name] = str(error)
            return
        self.tally.miss(name, took_us, page.cost_us)
        self._put(page)

    def _put(self, page: pages.Page) -> None:
        now = time.monotonic()
        ttl = ttl_of(page.name, self._period, now)
        try:
            self._client.put(key_of(page.name), pages.seal(page), ttl=ttl)
        except MaybeStored:
            self.tally.maybe += 1
        except Exception as error:
            self._failed("put", page.name, error)
        else:
            self._due[page.name] = (time.monotonic(), now + ttl)

    def _failed(self, what: str, name: str, error: Exception) -> None:
        self.tally.failed += 1
        self.tally.note(f"{what} {name}: {type(error).__name__}: {error}")

    def _draw(self) -> str:
        while True:
            name = self._rng.choices(self._names, cum_weights=self._weights)[0]
            if name not in self.left_out:
                return name

    def _report(self, reports: IO[str]) -> None:
        reports.write(json.dumps(self.tally.as_json()) + "\n")
        reports.flush()
        self.tally = Tally()


def key_of(name: str) -> str:
    """Return the cache's key of a page."""
    return f"page/{name}"


def listen(source: IO[str], worker: Worker) -> None:
    """Take the names of pages that do not exist until the input ends, then stop the worker."""
    for line in source:
        worker.left_out.add(line.strip())
    worker.stopping.set()


def own_output() -> IO[str]:
    """Return standard output for reports alone, and let what modules print go nowhere."""
    reports = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    return reports


def main(argv: Sequence[str] | None = None) -> int:
    """Run one client as the arguments say; return 0."""
    parser = argparse.ArgumentParser(prog="python -m dcc.demo.worker", description=main.__doc__)
    parser.add_argument("--nodes", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--number", type=int, required=True)
    parser.add_argument("--period", type=float, required=True)
    options: Any = parser.parse_args(argv)
    if not sys.flags.safe_path:
        # Where the demonstration was started, any file may be called like a page.
        sys.path.append(sys.path.pop(0))
    with own_output() as reports, Client(options.nodes, timeout=TIMEOUT_SECONDS) as client:
        worker = Worker(client, seed=options.seed, number=options.number, period=options.period)
        threading.Thread(target=listen, args=(sys.stdin, worker), daemon=True).start()
        worker.run(reports)
    return 0


if __name__ == "__main__":
    sys.exit(main())
