"""Commands about copies: how many, whether all are in their places, and whether they are equal."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

from dcc.cli import tables
from dcc.client.results import Convergence
from dcc.errors import MaybeStored, NodeUnavailable, OperationTimeout

if TYPE_CHECKING:
    from dcc import Audit, Client

OK, DEGRADED = 0, 1

LOOK_AGAIN_SECONDS = 0.5
WAIT_MAX_SECONDS = 86_400.0
SLOTS_SHOWN = 8

Told = Callable[[Convergence], None]


def replicas(client: Client, options: argparse.Namespace) -> int:
    """Print the number of copies beyond the primary; with N set it, and wait if told to.

    Exit code 1 if the wait was over before every copy was made.
    """
    _check_wait(options.wait)
    if options.n is None:
        _show_replicas(client, options, None)
        return OK
    try:
        client.set_replicas(options.n)
    except MaybeStored:
        if not options.wait:
            raise  # Else the wait will tell: members that were away take it when they are back.
    found = None
    if options.wait:
        found = _wait_for(client, options.wait, lambda one: _show_progress(one, options.json))
    _show_replicas(client, options, found)
    return DEGRADED if found is not None and not found.converged else OK


def converged(client: Client, options: argparse.Namespace) -> int:
    """Print whether the cluster has converged, and what is missing; exit code 1 if not."""
    _check_wait(options.wait)
    found = _wait_for(client, options.wait, lambda _: None)
    if options.json:
        tables.show_json(asdict(found))
    elif found.converged:
        tables.show("converged")
    else:
        lines = [f"not converged, under-replicated {found.under_replicated}"]
        tables.show("\n".join([*lines, *[f"- {reason}" for reason in found.reasons]]))
    return OK if found.converged else DEGRADED


def audit(client: Client, options: argparse.Namespace) -> int:
    """Compare the owners' data slot by slot; exit code 1 if they differ but by eviction."""
    found = client.audit()
    if options.json:
        told = {name: one for name, one in asdict(found).items() if not name.startswith("_")}
        tables.show_json(told | {"clean": found.clean})
    else:
        tables.show(_audit_text(found))
    return OK if found.clean else DEGRADED


def _wait_for(client: Client, seconds: float, told: Told) -> Convergence:
    """Ask until the cluster has converged or the time is over; return the last answer.

    Nodes that do not answer are waited for too: they may be just what is missing.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            found = client.convergence()
        except (NodeUnavailable, OperationTimeout):
            if time.monotonic() >= end:
                raise
        else:
            told(found)
            if found.converged or time.monotonic() >= end:
                return found
        time.sleep(max(0.0, min(LOOK_AGAIN_SECONDS, end - time.monotonic())))


def _check_wait(seconds: float) -> None:
    if not 0 <= seconds <= WAIT_MAX_SECONDS:
        raise ValueError(f"--wait: 0..{WAIT_MAX_SECONDS:g} seconds, got {seconds:g}")


def _show_progress(found: Convergence, quiet: bool) -> None:
    if not quiet and not found.converged:
        tables.show(f"under-replicated {found.under_replicated}")


def _show_replicas(client: Client, options: argparse.Namespace, found: Convergence | None) -> None:
    count = client.replicas
    if options.json:
        tables.show_json({"replicas": count} | (asdict(found) if found is not None else {}))
        return
    tables.show(str(count))
    if found is not None:
        tables.show("converged" if found.converged else "not converged yet; see dcc converged")


def _audit_text(found: Audit) -> str:
    lines = [
        f"slots compared {found.compared}, equal {found.equal}",
        f"explained by eviction {len(found.evicted)}",
        f"behind (owners have not seen the same writes) {_slots(found.behind)}",
        f"unexplained (same writes seen, other values held) {_slots(found.unexplained)}",
        f"not known (what was evicted is forgotten) {len(found.unknown)}",
    ]
    if found.alone:
        lines.append(f"not compared, one owner only {found.alone}")
    lines += [f"{name}: {why}" for name, why in found.unreachable.items()]
    return "\n".join([*lines, "clean" if found.clean else "not clean"])


def _slots(slots: list[int]) -> str:
    if not slots:
        return "0"
    shown = ", ".join(map(str, slots[:SLOTS_SHOWN])) + ", …" * (len(slots) > SLOTS_SHOWN)
    return f"{len(slots)}: slots {shown}"
