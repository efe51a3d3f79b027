"""A client process that reads and writes until its time is over, and keeps its own books.

    python -m tests.load NODES --name A --seconds 20 --keys 2000 --w 2
    python -m tests.load NODES --name B --poll            # until SIGTERM

Each key belongs to one process, so what it must find is known without asking anybody. With `--poll`
all keys are written first (the line `{"written": n}` says when) and then read in turn, many at once
and singly, with a write now and then. At the end it prints its books as one JSON object: calls,
missing and failed gets, uncertain and failed writes, slow calls. After SIGUSR1 a poll prints them
too, when it has read the last key, and begins new ones. A miss is looked into at once: how a
`lookup` ends, what each owner holds.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

import dcc

READS_PER_WRITE = 4
BLOCK = 64
"Keys that a poll reads at once; one of eight of them is then read singly."

LOOKED_INTO_MAX = 50
"Misses that are looked into; more tell nothing new."

Call = tuple[float, float, str]
"(seconds since 1970 at its end, seconds it took, what)."


@dataclass
class Books:
    """What happened."""

    gets: int = 0
    puts: int = 0
    missing: int = 0
    "Gets of a key with an acknowledged write that found nothing."
    unsure: int = 0
    "Those of them that said so; only a lookup can tell."
    failed_gets: list[str] = field(default_factory=list)
    wrong: int = 0
    "Values that this process never wrote under that key."
    older: int = 0
    "Values older than the last acknowledged one: legal, but worth knowing."
    uncertain_puts: int = 0
    failed_puts: list[str] = field(default_factory=list)
    slow: list[Call] = field(default_factory=list)
    "Calls above 250 ms."
    slowest: Call = (0.0, 0.0, "")
    missing_at: list[tuple[float, str, str]] = field(default_factory=list)
    "(seconds since 1970, key, what was found out about it)."
    gets_by_second: dict[int, int] = field(default_factory=dict)
    lost_at_end: int = 0
    "Acknowledged keys that are not found once all is over."
    behind_at_end: int = 0
    "Acknowledged keys whose value is then older than the acknowledged one."
    loops: int = 0
    "Times that a poll has read every key."


class Load:
    """One client's work."""

    def __init__(
        self, client: dcc.Client, name: str, keys: int, w: int, *, size_bytes: int = 0
    ) -> None:
        self.client, self.name, self.keys, self.w = client, name, keys, w
        self.size_bytes = size_bytes
        self.rng = random.Random(name)
        self.acked: dict[str, int] = {}
        self.written: dict[str, int] = {}
        self.books = Books()

    def value(self, key: str, number: int) -> bytes:
        """Return what the `number`th write of `key` stores."""
        size = self.size_bytes or 100 + hash_of(key) % 2_000
        return f"{key}/{number}/".encode().ljust(size, b".")

    def step(self) -> None:
        """Read or write a random key."""
        if self.acked and self.rng.randrange(READS_PER_WRITE + 1):
            read = self.lookup if self.rng.randrange(2) else self.get
            read(self.rng.choice(list(self.acked)) if len(self.acked) < 64 else self.known())
        else:
            self.put(f"{self.name}-{self.rng.randrange(self.keys)}")

    def known(self) -> str:
        """Return a random key whose write was acknowledged."""
        while True:
            key = f"{self.name}-{self.rng.randrange(self.keys)}"
            if key in self.acked:
                return key

    # -------------------------------------------------------------- polling

    def fill(self) -> None:
        """Write every key, again and again until all are acknowledged."""
        left = [f"{self.name}-{i}" for i in range(self.keys)]
        while left:
            for key in left:
                self.put(key)
            left = [key for key in left if key not in self.acked]

    def poll(self, first: int) -> None:
        """Read one block of keys at once, some of them singly, and write one."""
        keys = [f"{self.name}-{i}" for i in range(first, min(first + BLOCK, self.keys))]
        self.get_many(keys)
        for i, key in enumerate(keys[first // BLOCK % 8 :: 8]):
            if i % 2:
                self.get(key)
            else:
                self.lookup(key)
        self.put(self.rng.choice(keys))

    def get_many(self, keys: Sequence[str]) -> None:
        """Read `keys` in one call."""
        began = time.monotonic()
        found: dict[str, bytes] = {}
        unasked: Sequence[str] = ()
        try:
            found = self.client.get_many(keys)
        except dcc.DccError as error:
            self.books.failed_gets.append(f"{time.time():.1f} get_many {error!r}"[:200])
            if isinstance(error, dcc.NodeUnavailable) and isinstance(error.partial, dict):
                found = error.partial
            unasked = [key for key in keys if key not in found]
        self.note_time(began, f"get_many {keys[0]}", gets=len(keys) - len(unasked))
        for key in keys:
            if key not in unasked:
                self.judge(key, found.get(key), "get_many")

    # -------------------------------------------------------------- single keys

    def get(self, key: str) -> None:
        """Read `key`."""
        self.read(key, "get", lambda: self.client.get(key))

    def lookup(self, key: str) -> None:
        """Read `key` by the call that tells how a miss came about."""

        def look_up() -> bytes | None:
            found = self.client.lookup(key)
            if found.value is None:
                self.books.unsure += found.status == "unsure"
                how.append(f"lookup: {found.status} by {found.node}")
            return found.value

        how: list[str] = []
        self.read(key, "lookup", look_up, how)

    def read(
        self, key: str, what: str, call: Callable[[], bytes | None], how: Sequence[str] = ()
    ) -> None:
        """Do `call`, which reads `key`, and judge what it returns."""
        began = time.monotonic()
        try:
            value = call()
        except dcc.DccError as error:
            self.books.failed_gets.append(f"{time.time():.1f} {what} {key} {error!r}"[:200])
            return
        finally:
            self.note_time(began, f"{what} {key}", gets=1)
        self.judge(key, value, " ".join([what, *how]))

    def judge(self, key: str, value: bytes | None, how: str) -> None:
        """Enter what a read of `key` found."""
        if value is None:
            self.books.missing += 1
            self.books.missing_at.append((time.time(), key, f"{how}; {self.look_into(key)}"))
            return
        name, number, _rest = value.split(b"/", 2)
        if name.decode() != key or value != self.value(key, int(number)):
            self.books.wrong += 1
        elif int(number) < self.acked[key]:
            self.books.older += 1

    def look_into(self, key: str) -> str:
        """Return what can be found out about a key that was missed a moment ago."""
        if self.books.missing > LOOKED_INTO_MAX:
            return ""
        try:
            found = self.client.lookup(key)
            held = {
                name: one if one is None or isinstance(one, str) else f"holds {one.version}"
                for name, one in self.client.inspect(key).items()
            }
        except dcc.DccError as error:
            return repr(error)
        return f"then {found.status} by {found.node}; owners {held}; acked {self.acked[key]}"

    def put(self, key: str) -> None:
        """Write the next value of `key`."""
        self.books.puts += 1
        number = self.written[key] = self.written.get(key, 0) + 1
        began = time.monotonic()
        try:
            self.client.put(key, self.value(key, number), w=self.w)
            self.acked[key] = number
        except dcc.MaybeStored:
            self.books.uncertain_puts += 1
        except dcc.DccError as error:
            self.books.failed_puts.append(f"{time.time():.1f} {error!r}"[:200])
        finally:
            self.note_time(began, f"put {key}")

    def note_time(self, began: float, what: str, *, gets: int = 0) -> None:
        """Enter a call that has ended now."""
        books, now, took = self.books, time.time(), time.monotonic() - began
        books.gets += gets
        if gets:
            books.gets_by_second[int(now)] = books.gets_by_second.get(int(now), 0) + gets
        if took > 0.25:
            books.slow.append((now, took, what))
        if took > books.slowest[1]:
            books.slowest = (now, took, what)

    def report(self) -> None:
        """Print the books and begin new ones."""
        print(json.dumps(asdict(self.books)), flush=True)
        self.books = Books()

    def verify(self) -> None:
        """Read every acknowledged key once more."""
        for key, number in sorted(self.acked.items()):
            value = self.client.get(key)
            self.books.lost_at_end += value is None
            self.books.behind_at_end += value is not None and int(value.split(b"/", 2)[1]) < number


def hash_of(key: str) -> int:
    """Return a small number that is the same in every process."""
    return sum(key.encode()) * 31


def work(load: Load, options: argparse.Namespace) -> None:
    """Do what the arguments describe, until the time is over or SIGTERM comes."""
    stopped: list[int] = []
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: stopped.append(number))
    signal.signal(signal.SIGUSR1, lambda number, _frame: asked.append(number))
    if options.poll:
        load.fill()
        print(json.dumps({"written": len(load.acked)}), flush=True)
    end = time.monotonic() + options.seconds if options.seconds else float("inf")
    first = 0
    while time.monotonic() < end and not stopped:
        if not options.poll:
            load.step()
            continue
        load.poll(first)
        first += BLOCK
        if first >= load.keys:
            first, load.books.loops = 0, load.books.loops + 1
            if asked:
                asked.clear()
                load.report()
        time.sleep(options.pause)


def main() -> None:
    """Run the load that the arguments describe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nodes")
    parser.add_argument("--name", default="load")
    parser.add_argument("--seconds", type=float, default=0, help="0 = until SIGTERM")
    parser.add_argument("--keys", type=int, default=2_000)
    parser.add_argument("--size", type=int, default=0, help="bytes of a value; 0 = 100 to 2,100")
    parser.add_argument("--w", type=int, default=2)
    parser.add_argument("--read", default="primary")
    parser.add_argument("--poll", action="store_true")
    parser.add_argument("--pause", type=float, default=0, help="seconds after each polled block")
    options = parser.parse_args()
    with dcc.Client(options.nodes, read=options.read) as client:
        load = Load(client, options.name, options.keys, options.w, size_bytes=options.size)
        work(load, options)
        load.verify()
        load.report()


if __name__ == "__main__":
    main()
