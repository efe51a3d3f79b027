"""A client process that looks at the whole cluster.

    python -m simulations.chaos.watch NODES --began NS          until its standard output is closed
    python -m simulations.chaos.watch NODES --began NS --keys FILE

The first prints a line each time that it has looked:
`{"at": …, "alive": [names] or null, "converged": bool}`; `alive` are those that answered, if each
of them has exactly these for alive. The second reads each key of the file (one a line) once, and
asks every owner for it; it prints a line each:
`{"key": …, "at": …, "status": …, "found": …, "version": …, "held": {node: version or "nothing"}}`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import dcc

PAUSE_SECONDS = 0.5


def alive(client: dcc.Client) -> list[str] | None:
    """Return who all say is alive, if they say the same and all answer."""
    found = client.stats().nodes
    views = {tuple(sorted(n for n, s in one.members.items() if s == "alive"))
             for one in found.values()}  # fmt: skip
    return sorted(found) if views == {tuple(sorted(found))} else None


def look(client: dcc.Client) -> dict[str, Any]:
    """Return what is to be seen now."""
    try:
        names = alive(client)
        converged = names is not None and client.convergence().converged
    except dcc.DccError:
        return {"alive": None, "converged": False}
    return {"alive": names, "converged": converged}


def read(client: dcc.Client, key: str, began_ns: int) -> dict[str, Any]:
    """Return what a read of a key finds, and what each owner holds."""
    began = time.monotonic_ns() - began_ns
    try:
        found = client.lookup(key)
        held = {
            node: str(one.version) if isinstance(one, dcc.Entry) else "nothing"
            for node, one in client.inspect(key).items()
        }
    except dcc.DccError as error:
        return {"key": key, "at": began, "error": repr(error)}
    value = found.value.decode() if found.value is not None else None
    return {
        "key": key, "at": began, "ended": time.monotonic_ns() - began_ns, "status": found.status,
        "found": value, "version": str(found.version) if found.version else "",
        "node": found.node, "held": held,
    }  # fmt: skip


def main() -> None:
    """Look, or read."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nodes")
    parser.add_argument("--began", type=int, required=True, help="monotonic ns")
    parser.add_argument("--keys", type=Path)
    options = parser.parse_args()
    with dcc.Client(options.nodes, timeout=3) as client:
        if options.keys:
            for key in options.keys.read_text().split():
                print(json.dumps(read(client, key, options.began)), flush=True)
            return
        while True:
            seen = look(client) | {"at": time.monotonic_ns() - options.began}
            try:
                print(json.dumps(seen), flush=True)
            except BrokenPipeError:
                sys.stdout = None
                return
            time.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    main()
