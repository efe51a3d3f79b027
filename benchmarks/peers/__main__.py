"""dcc beside redis-py, redis.asyncio, valkey-glide, pymemcache and bare ZeroMQ, in one run.

    python -m benchmarks.peers [--rounds 5] [--count 2000] [--only get] [--json FILE] [--chart FILE]

Every library has a process of its own on the first processor, every server one on the second, as on
two machines: unpinned, the wake-ups of threads across processors decide the figures by a factor of
four (these are printed beside, as are those with both on one processor). Within a round the
contestants take turns on the same keys and values; figures are medians over the rounds. Times are
microseconds of one call, for threads and asyncio the wall time divided by the number of calls.
Processor time of one call or key stands beside, of the client's and of the server's process.
Whoever is not installed is named and left out.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers import growth, report
from benchmarks.peers.contestants import ASYNC, SYNC
from benchmarks.peers.processes import Client, clients
from benchmarks.peers.rows import Row, fillings, rows


def play(row: Row, contestants: dict[str, Client], rounds: int) -> report.Result:
    """Let the contestants of a row take turns, `rounds` times."""
    result = report.Result(row)
    for _ in range(rounds):
        for name in row.contestants:
            client = contestants.get(name)
            if client is None:
                continue
            client.pin(row.mode)
            took, server_us = client.measure(row.work)
            figures = result.by_name.setdefault(name, report.Figures())
            figures.us.append(took.us)
            figures.client_cpu_us.append(took.cpu_us)
            figures.server_cpu_us.append(server_us)
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=2_000, help="single calls of one round")
    parser.add_argument("--only", default="", help="rows whose name contains this; no growth")
    parser.add_argument("--million", action="store_true", help="grow to a million keys, too")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--chart", type=Path, help="draw the ratios into this PNG file")
    options = parser.parse_args(argv)
    if (os.cpu_count() or 1) < 2:
        raise SystemExit("clients and servers need a processor each")
    skipped: list[str] = []
    results: list[report.Result] = []
    with clients([*SYNC, *ASYNC], skipped) as contestants:
        for name in SYNC:
            if name in contestants and name != "bare ZeroMQ":
                for filling in fillings():
                    contestants[name].measure(filling)
        for row in rows(options.count):
            if options.only in row.name:
                results.append(play(row, contestants, options.rounds))
                print(report.text(results[-1:]), flush=True)
    grown = (
        {} if options.only else growth.growth(options.rounds, options.count, not options.million)
    )
    for name, figures in grown.items():
        print(f"{name:24} " + ", ".join(f"{kind} {us:.1f} µs" for kind, us in figures.items()))
    for line in skipped:
        print(f"skipped: {line}")
    print("\n" + report.table(results, [*SYNC, *ASYNC]))
    if options.json:
        report.write_json(options.json, results, grown, skipped)
    if options.chart:
        print(report.draw(options.chart, results))


if __name__ == "__main__":
    main()
