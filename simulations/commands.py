"""The commands of `python -m simulations`.

`run` plays seeds and judges them; exit status 1 tells of a violation, and the one command that
repeats it is printed. `membership` prints detection and dissemination times beside the figures
of the design note. `crash-hits` prints what a crash costs the readers of a full cache.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

from dcc.config import EVICTION_POLICIES
from dcc.units import SECOND
from simulations import crash_hits, membership
from simulations.draws import draw_scenario
from simulations.mutations import MUTATIONS, core_with
from simulations.runs import Report, run
from simulations.worlds import WORLDS


def play(seed: int, mutation: str, slots: int, world: str) -> dict[str, Any]:
    """Run one seed and return its summary as plain data."""
    began = time.perf_counter()
    scenario = draw_scenario(seed, world)
    report = run(replace(scenario, slots=slots or scenario.slots), core_with(mutation))
    seconds = time.perf_counter() - began
    return summary(report) | {"seconds": round(seconds, 3)}


def summary(report: Report) -> dict[str, Any]:
    """Return what a run came to, ready for JSON."""
    scenario = report.scenario
    ends = Counter(f"{entry.verb} {entry.end.value}" for entry in report.history)
    statuses = Counter(entry.status for entry in report.history if entry.verb == "get")
    return {
        "seed": scenario.seed,
        "nodes": scenario.nodes,
        "replicas": scenario.replicas,
        "faults": [str(fault) for fault in scenario.faults],
        "violations": [violation._asdict() for violation in report.violations],
        "digest": report.digest,
        "events": report.events,
        "inputs": report.inputs,
        "virtual_s": report.virtual_ns // SECOND,
        "converged_s": report.converged_ns / SECOND if report.converged_ns >= 0 else None,
        "calls": dict(sorted(ends.items())),
        "gets": dict(sorted(statuses.items())),
        "counts": dict(sorted(report.counts.items())),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status: 0, or 1 when a promise broke."""
    options = _parser().parse_args(argv)
    status: int = options.command(options)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m simulations", description=__doc__)
    commands = parser.add_subparsers(required=True)

    runs = commands.add_parser("run", help="play drawn scenarios and judge them")
    runs.add_argument("--seed", type=int, default=1, help="first seed (default 1)")
    runs.add_argument("--seeds", type=int, default=1, help="how many from there on (default 1)")
    runs.add_argument(
        "--mutate", choices=sorted(MUTATIONS), default="", help="plant this bug, stop when seen"
    )
    runs.add_argument("--world", choices=sorted(WORLDS), default="", help="play all in this one")
    runs.add_argument(
        "--slots", type=int, default=0, help="hash slots (default as drawn; dcc: 16384)"
    )
    runs.add_argument("--jobs", type=int, default=1, help="processes side by side (default 1)")
    runs.add_argument("--json", action="store_true", help="one JSON object a seed")
    runs.set_defaults(command=_run)

    figures = commands.add_parser("membership", help="detection and dissemination times")
    figures.add_argument("--nodes", type=int, default=128)
    figures.add_argument("--seed", type=int, default=1)
    figures.add_argument("--trials", type=int, default=100)
    figures.add_argument("--json", action="store_true", help="print JSON")
    figures.set_defaults(command=_membership)

    hits = commands.add_parser("crash-hits", help="hits on a dead node's keys in a full cache")
    hits.add_argument("--reads", type=int, default=20_000, help="before the crash (default 20000)")
    hits.add_argument("--seed", type=int, default=1)
    hits.set_defaults(command=_crash_hits)
    return parser


def _run(options: argparse.Namespace) -> int:
    seeds = range(options.seed, options.seed + options.seeds)
    one = partial(play, mutation=options.mutate, slots=options.slots, world=options.world)
    failed = events = played = 0
    began = time.perf_counter()
    counts: Counter[str] = Counter()
    with ProcessPoolExecutor(options.jobs) as pool:
        results = pool.map(one, seeds) if options.jobs > 1 else map(one, seeds)
        for result in results:
            played += 1
            failed += bool(result["violations"])
            events += result["events"]
            counts.update(result["counts"])
            print(json.dumps(result) if options.json else _line(result, options), flush=True)
            if failed and options.mutate:
                pool.shutdown(cancel_futures=True)
                break
    if not options.json:
        seconds = time.perf_counter() - began
        rate = events / seconds
        print(f"\n{played} seeds, {failed} failed; {events:,} events, {rate:,.0f} a second")
        print("happened:", ", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
    return 1 if failed else 0


def _line(result: dict[str, Any], options: argparse.Namespace) -> str:
    converged = result["converged_s"]
    head = (
        f"seed {result['seed']}: {result['nodes']} nodes, {result['replicas']} replicas, "
        f"{len(result['faults'])} faults, {sum(result['calls'].values())} calls, "
        f"{result['events']:,} events in {result['seconds']} s, "
        f"{'never converged' if converged is None else f'converged in {converged:.0f} s'}"
    )
    if not result["violations"]:
        return f"{head}, digest {result['digest']}"
    lines = [f"{head}: VIOLATED"]
    lines += [f"    {fault}" for fault in result["faults"]]
    lines += [f"  {v['promise']}: {v['text']}" for v in result["violations"][:10]]
    again = f"python -m simulations run --seed {result['seed']}"
    again += f" --mutate {options.mutate}" if options.mutate else ""
    again += f" --world {options.world}" if options.world else ""
    again += f" --slots {options.slots}" if options.slots else ""
    lines.append(f"  repeat with: {again}    (Python {sys.version.split()[0]})")
    return "\n".join(lines)


def _membership(options: argparse.Namespace) -> int:
    result = membership.measure(options.nodes, options.seed, options.trials)
    print(json.dumps(result.as_json()) if options.json else result.table())
    return 0 if result.good else 1


def _crash_hits(options: argparse.Namespace) -> int:
    print("eviction  keys named   healthy   after the crash, of what the dead node led")
    for eviction, named in product(EVICTION_POLICIES, (0, 1_000)):
        found = crash_hits.measure(
            named=named, eviction=eviction, reads=options.reads, seed=options.seed
        )
        print(f"{eviction:8}  {named:6} / s  {found.healthy:8.1%}  {found.after_crash:8.1%}")
    return 0
