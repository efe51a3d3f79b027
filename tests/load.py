"""A client process that reads and writes until its time is over, and keeps its own books.

    python -m tests.load NODES --name A --seconds 20 --keys 2000 --w 2

Each key belongs to one process, so what it must find is known without asking anybody. Prints one
JSON object: calls, missing and failed gets, uncertain and failed writes, slow calls by second.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from dataclasses import asdict, dataclass, field

import dcc

READS_PER_WRITE = 4


@dataclass
class Books:
    """What happened."""

    gets: int = 0
    puts: int = 0
    missing: int = 0
    "Gets of a key with an acknowledged write that found nothing."
    failed_gets: list[str] = field(default_factory=list)
    wrong: int = 0
    "Values that this process never wrote under that key."
    older: int = 0
    "Values older than the last acknowledged one: legal, but worth knowing."
    uncertain_puts: int = 0
    failed_puts: list[str] = field(default_factory=list)
    slow: list[tuple[float, float, str]] = field(default_factory=list)
    "(seconds since 1970, seconds it took, what) of calls above 250 ms."
    missing_at: list[tuple[float, str]] = field(default_factory=list)
    lost_at_end: int = 0
    "Acknowledged keys that are not found once all is over."


class Load:
    """One client's work."""

    def __init__(self, client: dcc.Client, name: str, keys: int, w: int, seed: str) -> None:
        self.client, self.name, self.keys, self.w = client, name, keys, w
        self.rng = random.Random(seed)
        self.acked: dict[str, int] = {}
        self.written: dict[str, int] = {}
        self.books = Books()

    def value(self, key: str, number: int) -> bytes:
        size = 100 + hash_of(key) % 2_000
        return f"{key}/{number}/".encode().ljust(size, b".")

    def step(self) -> None:
        if self.acked and self.rng.randrange(READS_PER_WRITE + 1):
            self.get(self.rng.choice(list(self.acked)) if len(self.acked) < 64 else self.known())
        else:
            self.put(f"{self.name}-{self.rng.randrange(self.keys)}")

    def known(self) -> str:
        while True:
            key = f"{self.name}-{self.rng.randrange(self.keys)}"
            if key in self.acked:
                return key

    def get(self, key: str) -> None:
        self.books.gets += 1
        began = time.monotonic()
        try:
            value = self.client.get(key)
        except dcc.DccError as error:
            self.books.failed_gets.append(repr(error)[:200])
            return
        finally:
            self.note_time(began, f"get {key}")
        if value is None:
            self.books.missing += 1
            self.books.missing_at.append((time.time(), key))
            return
        name, number, _rest = value.split(b"/", 2)
        if name.decode() != key or value != self.value(key, int(number)):
            self.books.wrong += 1
        elif int(number) < self.acked[key]:
            self.books.older += 1

    def put(self, key: str) -> None:
        self.books.puts += 1
        number = self.written[key] = self.written.get(key, 0) + 1
        began = time.monotonic()
        try:
            self.client.put(key, self.value(key, number), w=self.w)
            self.acked[key] = number
        except dcc.MaybeStored:
            self.books.uncertain_puts += 1
        except dcc.DccError as error:
            self.books.failed_puts.append(repr(error)[:200])
        finally:
            self.note_time(began, f"put {key}")

    def note_time(self, began: float, what: str) -> None:
        took = time.monotonic() - began
        if took > 0.25:
            self.books.slow.append((time.time(), took, what))

    def verify(self) -> None:
        self.books.lost_at_end = sum(self.client.get(key) is None for key in sorted(self.acked))


def hash_of(key: str) -> int:
    """Return a small number that is the same in every process."""
    return sum(key.encode()) * 31


def main() -> None:
    """Run the load that the arguments describe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nodes")
    parser.add_argument("--name", default="load")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--keys", type=int, default=2_000)
    parser.add_argument("--w", type=int, default=2)
    options = parser.parse_args()
    with dcc.Client(options.nodes) as client:
        load = Load(client, options.name, options.keys, options.w, options.name)
        end = time.monotonic() + options.seconds
        while time.monotonic() < end:
            load.step()
        load.verify()
    print(json.dumps(asdict(load.books)), flush=True)


if __name__ == "__main__":
    main()
