"""A client process: a blocking client with threads, an asyncio client with tasks, all their calls.

    python -m simulations.chaos.load NODES --name c0 --history FILE … (started by `cluster`)

Keys belong to a window of a minute, so that each has a short history; some calls are of keys of
earlier windows. The first letter says what is done with a key, as in `simulations.workload`:

    k put, added, replaced, never deleted    p also deleted       x with a short time to live
    t touched     n counted     m made by whoever lacks it (get_or_put)     b many in one call

Every call is written down as it begins and as it ends, so that nothing is lost with the process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import dcc
from dcc.client.results import Lookup

WINDOW_NS = 60_000_000_000
THREADS, TASKS = 2, 4
PAUSE_SECONDS = 0.04
TIMEOUT_SECONDS = 1.5
KEYS = {"k": 24, "p": 12, "x": 6, "t": 6, "n": 4, "m": 6, "b": 24}
"Of each window."
MIX: dict[str, tuple[tuple[str, int], ...]] = {
    "k": (("lookup", 35), ("get", 15), ("entry", 10), ("put", 30), ("add", 5), ("replace", 5)),
    "p": (("lookup", 40), ("put", 35), ("delete", 15), ("add", 5), ("replace", 5)),
    "x": (("lookup", 50), ("put_ttl", 50)),
    "t": (("lookup", 45), ("put_ttl", 25), ("touch", 25), ("delete", 5)),
    "n": (("get", 40), ("incr", 60)),
    "m": (("get_or_put", 100),),
    "b": (("get_many", 60), ("put_many", 35), ("delete_many", 5)),
}
OLD = 0.15
"Share of the calls that read keys of earlier windows."
SCANS = 0.004


@dataclass
class Step:
    """One call: what is done, and what is known of how it ended."""

    verb: str
    keys: list[str]
    values: list[bytes] = field(default_factory=list)
    w: Any = 1
    ttl: float | None = None


class Book:
    """The history of one client object, in a file that all of a process share."""

    _lock = threading.Lock()
    _count = 0

    def __init__(self, fd: int, began_ns: int) -> None:
        self._fd, self._began_ns = fd, began_ns

    def now_ns(self) -> int:
        """Return the time of the run."""
        return time.monotonic_ns() - self._began_ns

    def begin(self, client: str, step: Step) -> int:
        """Write down that a call begins; return its number."""
        with Book._lock:
            Book._count += 1
            number = Book._count
        self._write({
            "begin": number, "client": client, "verb": step.verb, "keys": step.keys,
            "values": [value.decode() for value in step.values], "w": step.w,
            "ttl": step.ttl, "at": self.now_ns(),
        })  # fmt: skip
        return number

    def end(self, begun: int, **how: Any) -> None:
        """Write down how the call of that number ended."""
        self._write({"end": begun, "at": self.now_ns()} | how)

    def _write(self, line: dict[str, Any]) -> None:
        os.write(self._fd, json.dumps(line).encode() + b"\n")


class Drawer:
    """Draws what one worker does."""

    def __init__(self, name: str, seed: str, book: Book) -> None:
        self._name, self._rng, self._book = name, Random(seed), book
        self._written = 0

    def pause(self) -> float:
        """Return how long to wait before the next call."""
        return self._rng.random() * 2 * PAUSE_SECONDS

    def step(self) -> Step:
        """Return the next call."""
        rng, window = self._rng, self._book.now_ns() // WINDOW_NS
        if window and rng.random() < OLD:
            return Step("lookup", [self._key(rng.choice("kp"), rng.randrange(window))])
        if rng.random() < SCANS:
            return Step("scan", [f"k{window}-"])
        letter = rng.choices(list(KEYS), list(KEYS.values()))[0]
        verbs, weights = zip(*MIX[letter], strict=True)
        verb = rng.choices(verbs, weights)[0]
        if letter == "b":
            keys = sorted({self._key("b", window) for _ in range(8)})
        else:
            keys = [self._key(letter, window)]
        step = Step(verb, keys)
        if verb in ("put", "put_ttl", "add", "replace", "put_many", "get_or_put"):
            step.values = [self._value() for _ in keys]
        if verb in ("put_ttl", "touch"):
            step.ttl = 0.5 + 4 * rng.random()
        if verb in ("put", "put_ttl"):
            step.w = rng.choice((1, 2, 2, "quorum"))
        return step

    def _key(self, letter: str, window: int) -> str:
        return f"{letter}{window}-{self._rng.randrange(KEYS[letter])}"

    def _value(self) -> bytes:
        self._written += 1
        size = self._rng.choice((16, 100, 100, 2_000))
        return f"{self._name}/{self._written}.".encode().ljust(size, b"_")


def calls(client: Any, step: Step) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    """Return the client's method of a step, and its arguments."""
    key, verb = step.keys[0], step.verb
    match verb:
        case "put" | "put_ttl":
            return client.put, (key, step.values[0]), {"ttl": step.ttl, "w": step.w}
        case "add" | "replace":
            return getattr(client, verb), (key, step.values[0]), {}
        case "touch":
            return client.touch, (key, step.ttl), {}
        case "put_many":
            return client.put_many, (dict(zip(step.keys, step.values, strict=True)),), {}
        case "get_many" | "delete_many":
            return getattr(client, verb), (step.keys,), {}
        case "get_or_put":
            return client.get_or_put, (key, lambda: step.values[0]), {"wait": TIMEOUT_SECONDS}
    return getattr(client, verb), (key,), {}


def told(step: Step, result: Any) -> dict[str, Any]:
    """Return what a result says, ready for JSON."""
    if isinstance(result, dcc.Version):
        return {"status": "done", "version": str(result)}
    if isinstance(result, Lookup):
        found = result.value.decode() if result.value is not None else None
        return {
            "status": result.status, "found": [found], "node": result.node,
            "version": str(result.version) if result.version else "",
            "confirmed": result.confirmed,
        }  # fmt: skip
    match step.verb:
        case "entry":
            if result is None:
                return {"status": "unsure", "found": [None]}
            return {"status": "hit", "found": [result.value.decode()],
                    "version": str(result.version), "node": result.node,
                    "confirmed": result.confirmed}  # fmt: skip
        case "get" | "get_or_put":
            found = result.decode() if result is not None else None
            return {"status": "hit" if result is not None else "unsure", "found": [found]}
        case "get_many":
            values = [result.get(key) for key in step.keys]
            return {"found": [value.decode() if value is not None else None for value in values]}
        case "put_many":
            return {"failed": result}
        case "scan":
            return {"listed": result}
        case "incr":
            return {"status": "done", "number": result}
        case "delete_many":
            return {"status": "done"}
    return {"status": "done" if result else "not done"}


def failed(error: Exception) -> dict[str, Any]:
    """Return what an error says, ready for JSON; one that is no `DccError` is a finding itself."""
    if isinstance(error, dcc.DccError):
        return {"error": type(error).__name__, "definite": error.definite}
    return {"error": repr(error), "definite": False}


def work(client: dcc.Client, name: str, drawer: Drawer, book: Book, ends: threading.Event) -> None:
    """Do one call after the other, on a thread."""
    while not ends.wait(drawer.pause()):
        step = drawer.step()
        number = book.begin(name, step)
        call, given, named = calls(client, step)
        try:
            result = call(*given, **named)
            if step.verb == "scan":
                result = list(result)
        except Exception as error:  # Whatever it is, it is written down.
            book.end(number, **failed(error))
        else:
            book.end(number, **told(step, result))


async def work_async(
    client: dcc.AsyncClient, name: str, drawer: Drawer, book: Book, ends: threading.Event
) -> None:
    """Do one call after the other, in a task."""
    while not ends.is_set():
        await asyncio.sleep(drawer.pause())
        step = drawer.step()
        number = book.begin(name, step)
        call, given, named = calls(client, step)
        try:
            if step.verb == "scan":
                result: Any = [key async for key in call(*given)]
            else:
                result = await call(*given, **named)
        except Exception as error:  # Whatever it is, it is written down.
            book.end(number, **failed(error))
        else:
            book.end(number, **told(step, result))


def drawers(options: argparse.Namespace, kind: str, book: Book, count: int) -> Iterator[Drawer]:
    """Return what draws for each worker of a client object."""
    for index in range(count):
        name = f"{options.name}.{options.life}{kind}{index}"
        yield Drawer(name, f"{options.seed}/{name}", book)


async def work_all_async(options: argparse.Namespace, book: Book, ends: threading.Event) -> None:
    """Run the tasks of the asyncio client."""
    name = f"{options.name}a"
    async with dcc.AsyncClient(options.nodes, timeout=TIMEOUT_SECONDS, read="primary") as client:
        await asyncio.gather(*(
            work_async(client, name, drawer, book, ends)
            for drawer in drawers(options, "a", book, TASKS)
        ))  # fmt: skip


def main() -> None:
    """Work until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nodes")
    parser.add_argument("--name", required=True)
    parser.add_argument("--life", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--began", type=int, required=True, help="monotonic ns")
    parser.add_argument("--history", required=True)
    options = parser.parse_args()
    ends = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: ends.set())
    book = Book(os.open(options.history, os.O_WRONLY | os.O_CREAT | os.O_APPEND), options.began)
    with dcc.Client(options.nodes, timeout=TIMEOUT_SECONDS, read="primary") as client:
        name = f"{options.name}s"
        threads = [
            threading.Thread(target=work, args=(client, name, drawer, book, ends))
            for drawer in drawers(options, "s", book, THREADS)
        ]
        for thread in threads:
            thread.start()
        asyncio.run(work_all_async(options, book, ends))
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main()
