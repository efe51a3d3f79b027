"""Watches a cluster until all owners of every key agree, and says when that was.

    python -m tests.support.agreement NODES owners KEY-PREFIX COUNT
    python -m tests.support.agreement NODES removed --members 5 --seconds 60
    python -m tests.support.agreement NODES agree VERSIONS.json --members 5 --seconds 90

`owners` prints `{key: [owner, …]}` as some node sees it. `removed` waits until one node has removed
so many members from its ring, and prints `{"removed_at": …}`. `agree` waits for one view in all
members, then asks every owner of every key in the file (`{key: newest acknowledged version}`) until
all hold one version, not older than the acknowledged one, with one value; then it reads each key
once as anybody would. It prints `{"one_view_at": …, "agreed_at": …, "keys": …, …}`. Times are
seconds since 1970.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import dcc
from dcc import Version

PAUSE_SECONDS = 0.1


def removed(client: dcc.Client, members: int, seconds: float) -> dict[str, object]:
    """Return when so many members were removed; exit code 1 if that takes longer than `seconds`."""
    deadline = time.time() + seconds
    while time.time() < deadline:
        gone = sum(one.standing == "removed" for one in client.topology().nodes)
        if gone == members:
            return {"removed_at": time.time(), "left": 0}
        time.sleep(PAUSE_SECONDS)
    return {"left": members}


def one_view(client: dcc.Client, members: int) -> bool:
    """Return whether so many nodes answer, and each sees exactly these alive, at one epoch."""
    try:
        found = client.stats().nodes
    except dcc.DccError:
        return False
    views = {
        (one.epoch, *sorted(n for n, s in one.members.items() if s == "alive"))
        for one in found.values()
    }
    return len(views) == 1 and set(views.pop()[1:]) == set(found) and len(found) == members


def disagreement(client: dcc.Client, key: str, newest: Version) -> str:
    """Return how the owners of `key` differ; empty when they agree on `newest` or a later one."""
    try:
        held = client.inspect(key)
    except dcc.DccError as error:
        return repr(error)
    entries = [one for one in held.values() if isinstance(one, dcc.Entry)]
    versions = {one.version for one in entries}
    if len(entries) < len(held) or len(versions) > 1 or min(versions) < newest:
        said = {n: str(o.version) if isinstance(o, dcc.Entry) else o for n, o in held.items()}
        return f"acknowledged {newest}, held {said}"
    return "" if len({one.value for one in entries}) == 1 else f"{versions} has several values"


def agree(
    client: dcc.Client, newest: dict[str, Version], members: int, seconds: float
) -> dict[str, object]:
    """Return when all agreed, or on what they still do not after `seconds`."""
    deadline = time.time() + seconds
    result: dict[str, object] = {"keys": len(newest)}
    while time.time() < deadline and not one_view(client, members):
        time.sleep(PAUSE_SECONDS)
    result["one_view_at"] = time.time()
    left = dict.fromkeys(newest, "not asked")
    while left and time.time() < deadline:
        looked = {key: disagreement(client, key, newest[key]) for key in left}
        left = {key: said for key, said in looked.items() if said}
        result.setdefault("differed_at_one_view", len(left))
    result["agreed_at"] = time.time()
    result["left"] = len(left)
    result["for_example"] = list(left.items())[:10]
    result["unread"] = sum(unread(client, key, newest[key]) for key in newest)
    return result


def unread(client: dcc.Client, key: str, newest: Version) -> bool:
    """Return whether a read of `key` does not find what was acknowledged, or later."""
    entry = client.entry(key)
    return entry is None or entry.version < newest


def main() -> int:
    """Do what the arguments say; exit code 1 if there was no agreement in time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nodes")
    commands = parser.add_subparsers(dest="command", required=True)
    owners = commands.add_parser("owners")
    owners.add_argument("prefix")
    owners.add_argument("count", type=int)
    for name in ("removed", "agree"):
        waits = commands.add_parser(name)
        waits.add_argument("--members", type=int, required=True)
        waits.add_argument("--seconds", type=float, default=90)
    waits.add_argument("versions", type=Path)
    options = parser.parse_args()
    with dcc.Client(options.nodes, timeout=2) as client:
        if options.command == "owners":
            topology = client.topology()
            keys = [f"{options.prefix}-{i}" for i in range(options.count)]
            print(json.dumps({key: topology.owners(key) for key in keys}))
            return 0
        if options.command == "removed":
            result = removed(client, options.members, options.seconds)
        else:
            texts = json.loads(options.versions.read_text())
            newest = {key: Version.parse(text) for key, text in texts.items()}
            result = agree(client, newest, options.members, options.seconds)
    print(json.dumps(result))
    return 1 if result["left"] else 0


if __name__ == "__main__":
    sys.exit(main())
