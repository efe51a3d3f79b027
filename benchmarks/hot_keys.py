"""What counting hot keys costs a node: gets from bytes to bytes, with it and without.

    python -m benchmarks.hot_keys [--rounds 9] [--gets 40000]

One node core in this process, without sockets; the two take turns within a round, so that a busy
machine slows both down. Prints the CPU time of a get without counting, and the median over the
rounds of what counting adds: where all keys are read alike (each look at a read takes a counter
from another key, the dearest case), and by Zipf's law with the exponent 1.2. The socket, which
costs a get twice as much as the core does, is not in it.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from itertools import accumulate
from typing import Any

from dcc.config import NodeConfig
from dcc.node.core import NodeCore
from dcc.types import Now
from dcc.units import MILLISECOND, SECOND
from dcc.wire import messages as m
from dcc.wire.codec import Codec

KEYS = 20_000
CODEC = Codec("dcc", sender=7, boot=1)


class Alone:
    """One node that leads everything and is sure of it."""

    def __init__(self) -> None:
        self.mono = 1_000 * SECOND
        config = NodeConfig(name="a", request="a:1", gossip="a:2", replicas=0)
        self.core = NodeCore(config, boot=1 << 16, rng=random.Random(1), now=self.now)
        self.core.start(self.now)
        for _ in range(400):
            self.mono += 50 * MILLISECOND
            self.core.tick(self.now)
        for number in range(KEYS):
            write = m.Write(op=m.Op.PUT, key=name(number), value=b"v" * 100)
            self.core.receive(b"\\0c", CODEC.encode(write, request=number), self.now)

    @property
    def now(self) -> Now:
        return Now(self.mono, 1_700_000_000 * SECOND + self.mono)

    def seconds(self, frames: list[bytes], served: Callable[[bytes], bool]) -> float:
        """Return the CPU time of answering `frames` with that way of counting hits."""
        fast: Any = self.core._fast
        fast._served = served
        now, serve = self.now, self.core.serve
        began = time.process_time()
        for frame in frames:
            if serve(b"", frame, now) is None:
                raise AssertionError("not answered by the short path")
        return time.process_time() - began


def name(number: int) -> bytes:
    """Return a key."""
    return b"key-%d" % number


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--gets", type=int, default=40_000)
    options = parser.parse_args()
    node = Alone()
    counted, named = node.core.machines.hot.served, node.core.machines.served.served

    def uncounted(key: bytes) -> bool:
        named(key)
        return False

    weights = {"uniform": 0.0, "zipf 1.2": 1.2}
    for text, skew in weights.items():
        law = list(accumulate((rank + 1) ** -skew for rank in range(KEYS)))
        drawn = random.Random(2).choices(range(KEYS), cum_weights=law, k=options.gets)
        frames = [CODEC.encode(m.Get(key=name(n)), request=n)[0] for n in drawn]
        node.seconds(frames, counted)
        plain, shares = [], []
        for turn in range(options.rounds):
            pair = [uncounted, counted] if turn % 2 else [counted, uncounted]
            took = {served: node.seconds(frames, served) for served in pair}
            plain.append(took[uncounted] / options.gets)
            shares.append(took[counted] / took[uncounted] - 1)
        print(
            f"{text}: a get {statistics.median(plain) * 1e6:.2f} µs in the node's core, "
            f"counting adds {statistics.median(shares):+.1%} "
            f"({min(shares):+.1%} to {max(shares):+.1%})"
        )


if __name__ == "__main__":
    main()
