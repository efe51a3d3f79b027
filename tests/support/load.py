"""A client process that reads and writes until its time is over, and keeps its own books.

    python -m tests.support.load NODES --name A --seconds 20 --keys 2000 --w 2
    python -m tests.support.load NODES --name B --poll            # until SIGTERM

Each key belongs to one process, so what it must find is known without asking anybody. With `--poll`
all keys are written first (the line `{"written": n}` says when) and then read in turn, many at once
and singly, with a write now and then. At the end it prints its books as one JSON object: calls,
missing and failed gets, uncertain and failed writes, slow calls. After SIGUSR1 a poll prints them
too, when it has read the last key, and begins new ones. A miss is looked into at once: how a
`lookup` ends, what each owner holds.

Keys of `--shared` are written by every process that is told so. After SIGUSR2 a poll writes no more
and prints the newest version of each key that was acknowledged to it: `{"versions": {...}}`.
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
    missed_lookups: int = 0
    "Those of them that were lookups."
    unsure: int = 0
    "Those of the missed lookups that ended so."
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
    missing_at: list[tuple[float, str, str, float]] = field(default_factory=list)
    "(seconds since 1970, key, what was found out about it, when it was last acknowledged)."
    gets_by_second: dict[int, int] = field(default_factory=dict)
    lost_at_end: int = 0
    "Acknowledged keys that are not found once all is over."
    behind_at_end: list[str] = field(default_factory=list)
    "Acknowledged keys whose value is then an older one of this process."
    loops: int = 0
    "Times that a poll has read every key."


class Load:
    """One client's work."""

    def __init__(
        self,
        client: dcc.Client,
        name: str,
        keys: int,
        w: int,
        *,
        size_bytes: int = 0,
        shared: int = 0,
    ) -> None:
        self.client, self.name, self.w = client, name, w
        self.size_bytes = size_bytes
        self.keys = [f"{name}-{i}" for i in range(keys)] + [f"shared-{i}" for i in range(shared)]
        self.rng = random.Random(name)
        self.writes = True
        self.acked: dict[str, int] = {}
        self.versions: dict[str, dcc.Version] = {}
        self.acked_at: dict[str, float] = {}
        self.written: dict[str, int] = {}
        self.books = Books()

    def value(self, key: str, number: int, writer: str) -> bytes:
        """Return what the `number`th write of `key` by `writer` stores."""
        size = self.size_bytes or 100 + hash_of(key) % 2_000
        return f"{key}/{number}/{writer}/".encode().ljust(size, b".")

    def step(self) -> None:
        """Read or write a random key."""
        if self.acked and self.rng.randrange(READS_PER_WRITE + 1):
            read = self.lookup if self.rng.randrange(2) else self.get
            read(self.rng.choice(list(self.acked)) if len(self.acked) < 64 else self.known())
        else:
            self.put(self.rng.choice(self.keys))

    def known(self) -> str:
        """Return a random key whose write was acknowledged."""
        while (key := self.rng.choice(self.keys)) not in self.acked:
            pass
        return key

    # -------------------------------------------------------------- polling

    def fill(self) -> None:
        """Write every key, again and again until all are acknowledged."""
        left = self.keys
        while left:
            for key in left:
                self.put(key)
            left = [key for key in left if key not in self.acked]

    def poll(self, first: int) -> None:
        """Read one block of keys at once, some of them singly, and write one."""
        keys = self.keys[first : first + BLOCK]
        self.get_many(keys)
        for i, key in enumerate(keys[first // BLOCK % 8 :: 8]):
            if i % 2:
                self.get(key)
            else:
                self.lookup(key)
        if self.writes:
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
                self.books.missed_lookups += 1
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
            said = f"{how}; {self.look_into(key)}"
            self.books.missing_at.append((time.time(), key, said, self.acked_at[key]))
            return
        name, number, writer, _rest = value.split(b"/", 3)
        if name.decode() != key or value != self.value(key, int(number), writer.decode()):
            self.books.wrong += 1
        elif writer.decode() == self.name and int(number) < self.acked[key]:
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
            version = self.client.put(key, self.value(key, number, self.name), w=self.w)
            self.acked[key], self.versions[key] = number, version
            self.acked_at[key] = time.time()
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

    def write_no_more(self) -> None:
        """Only read from now on, and print what was acknowledged."""
        self.writes = False
        versions = {key: str(version) for key, version in self.versions.items()}
        print(json.dumps({"versions": versions}), flush=True)

    def verify(self) -> None:
        """Read every acknowledged key once more."""
        for key, number in sorted(self.acked.items()):
            entry = self.client.entry(key)
            if entry is None:
                self.books.lost_at_end += 1
                continue
            _key, found, writer, _rest = entry.value.split(b"/", 3)
            if writer.decode() == self.name and int(found) < number:
                acked = f"acked {number} {self.versions[key]}"
                self.books.behind_at_end.append(f"{key}: {int(found)} {entry.version}, {acked}")


def hash_of(key: str) -> int:
    """Return a small number that is the same in every process."""
    return sum(key.encode()) * 31


def work(load: Load, options: argparse.Namespace) -> None:
    """Do what the arguments describe, until the time is over or SIGTERM comes."""
    stopped: list[int] = []
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: stopped.append(number))
    for one in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(one, lambda number, _frame: asked.append(number))
    if options.poll:
        load.fill()
        print(json.dumps({"written": len(load.acked)}), flush=True)
    end = time.monotonic() + options.seconds if options.seconds else float("inf")
    first = 0
    while time.monotonic() < end and not stopped:
        if not options.poll:
            load.step()
            continue
        if signal.SIGUSR2 in asked:
            asked.remove(signal.SIGUSR2)
            load.write_no_more()
        load.poll(first)
        first += BLOCK
        if first >= len(load.keys):
            first, load.books.loops = 0, load.books.loops + 1
            if signal.SIGUSR1 in asked:
                asked.remove(signal.SIGUSR1)
                load.report()
        time.sleep(options.pause)


def main() -> None:
    """Run the load that the arguments describe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nodes")
    parser.add_argument("--name", default="load")
    parser.add_argument("--seconds", type=float, default=0, help="0 = until SIGTERM")
    parser.add_argument("--keys", type=int, default=2_000)
    parser.add_argument("--shared", type=int, default=0, help="keys that others write too")
    parser.add_argument("--size", type=int, default=0, help="bytes of a value; 0 = 100 to 2,100")
    parser.add_argument("--w", type=int, default=2)
    parser.add_argument("--read", default="primary")
    parser.add_argument("--timeout", type=float, default=1, help="seconds of a call")
    parser.add_argument("--poll", action="store_true")
    parser.add_argument("--pause", type=float, default=0, help="seconds after each polled block")
    options = parser.parse_args()
    with dcc.Client(options.nodes, read=options.read, timeout=options.timeout) as client:
        load = Load(
            client, options.name, options.keys, options.w,
            size_bytes=options.size, shared=options.shared,
        )  # fmt: skip
        work(load, options)
        load.verify()
        load.report()


if __name__ == "__main__":
    main()
