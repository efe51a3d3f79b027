"""The `dcc` command: arguments, exit codes, and who does what.

Exit codes: 0 healthy or done, 1 degraded, refused or not found, 2 nobody could be reached,
64 wrong usage, 74 the output could not be written, 130 interrupted, 141 whoever read the output has
gone. What is read only when it is needed is imported only then, since
most of a short command's time is importing.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

from dcc import __version__, output

if TYPE_CHECKING:
    from dcc import Client

OK, DEGRADED, UNREACHABLE, USAGE, INTERRUPTED = 0, 1, 2, 64, 130

Command = Callable[["Client", argparse.Namespace], int]

WHOLE = {
    "node": "run a node (dcc node --help)",
    "demo": "three nodes, real clients, one kill -9, a report",
}
"Commands with options of their own, which see everything behind their name."


class Parser(output.Parser):
    """Leaves with 64 for wrong usage: 2 means that nobody could be reached."""

    def error(self, message: str) -> NoReturn:
        """Print the mistake in one line and leave."""
        output.complain(f"{self.prog}: {message}")
        self.exit(USAGE)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in `argv` (default: this process's arguments); return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return output.guarded(lambda: _dispatch(arguments))
    except KeyboardInterrupt:
        return INTERRUPTED


def _dispatch(arguments: list[str]) -> int:
    if arguments and arguments[0] in WHOLE:
        return _whole(arguments[0], arguments[1:])
    return _run(parser().parse_args(arguments))


def _whole(name: str, arguments: list[str]) -> int:
    if name == "demo":
        from dcc.demo.__main__ import main as demo

        return demo(arguments)
    from dcc.node.__main__ import main as node

    return node(arguments)


def _run(options: argparse.Namespace) -> int:
    from dcc import (
        AuthenticationFailed,
        Client,
        DccError,
        NodeUnavailable,
        NotAllowed,
        OperationTimeout,
        WrongCluster,
    )

    try:
        if hasattr(options, "part"):
            from dcc.cli import keyring

            return keyring.run(options)
        client = Client(
            options.nodes, timeout=options.timeout, cluster=options.cluster, keys=options.keys,
            name=options.key_name,
        )  # fmt: skip
        with client:
            command: Command = options.command
            return command(client, options)
    except NotAllowed as error:
        return _fail(error, DEGRADED)
    except (NodeUnavailable, WrongCluster, AuthenticationFailed) as error:
        return _fail(error, UNREACHABLE)
    except OperationTimeout as error:
        return _fail(error, UNREACHABLE if error.definite else DEGRADED)
    except (ValueError, TypeError) as error:
        # Some of our own errors are these too: an invalid key is wrong usage.
        return _fail(error, USAGE)
    except DccError as error:
        return _fail(error, DEGRADED)


def _fail(error: Exception, code: int) -> int:
    output.complain(f"dcc: {error or type(error).__name__}")
    return code


def parser() -> Parser:
    """Return the parser of everything but `node` and `demo`."""
    from dcc.cli import cluster, copies, keyring, keys

    top = Parser(prog="dcc", description="Talk to a dcc cluster.", epilog=_epilog())
    _common(top, top_level=True)
    top.add_argument("--version", action="version", version=f"dcc {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)

    def add(name: str, command: Command, text: str) -> Parser:
        one = commands.add_parser(name, help=text, description=text)
        _common(one, top_level=False)
        one.set_defaults(command=command)
        return one

    for name in WHOLE:
        commands.add_parser(name, help=WHOLE[name], add_help=False)
    get = add("get", keys.get, "print a key's value")
    get.add_argument("key")
    get.add_argument("--r", type=_quorum, default=1, metavar="N|quorum|all",
                     help="owners that must answer (default 1)")  # fmt: skip
    put = add("put", keys.put, "store a value")
    put.add_argument("key")
    put.add_argument("value", nargs="?", default="-", help="- or nothing: standard input")
    put.add_argument("--ttl", type=float, metavar="SECONDS", help="default: it never expires")
    put.add_argument("--w", type=_quorum, default=1, metavar="N|quorum|all",
                     help="owners that must have it (default 1)")  # fmt: skip
    add("delete", keys.delete, "delete a key").add_argument("key")
    add("entry", keys.entry, "what each owner holds of a key, side by side").add_argument("key")
    add("status", cluster.status, "is the cluster well? one verdict, one row a node")
    add("members", cluster.members, "all members that are known, with their addresses")
    ring = add("ring", cluster.ring, "who owns which share, or which key")
    ring.add_argument("key", nargs="*")
    add("stats", cluster.stats, "counters and latencies of every node")
    hot = add("hotkeys", cluster.hotkeys, "the keys that are read most, in the whole cluster")
    hot.add_argument("--most", type=int, default=20, metavar="N", help="so many keys (default 20)")
    replicas = add("replicas", copies.replicas, "print or set the copies beyond the primary")
    replicas.add_argument("n", nargs="?", type=int, metavar="N", help="set it, cluster-wide")
    _wait(replicas, "after setting it, wait until the copies are made")
    converged = add(
        "converged", copies.converged, "do all nodes agree, is every copy in its place?"
    )
    _wait(converged, "wait until they do")
    text = "make, change and take away keys"
    keyring.add(commands.add_parser("keys", help=text, description=text))
    add("audit", copies.audit, "compare what the owners of every slot really hold")
    return top


def _common(one: Parser, *, top_level: bool) -> None:
    """Add the global options, which may stand before or behind the command's name."""

    def default(value: object) -> object:
        # A command's own default would overwrite what was given before its name.
        return value if top_level else argparse.SUPPRESS

    one.add_argument("-n", "--nodes", metavar="HOST:PORT,…", default=default(None),
                     help="default: $DCC_NODES, else 127.0.0.1:6740")  # fmt: skip
    one.add_argument("--cluster", metavar="NAME", help="default: $DCC_CLUSTER, else dcc",
                     default=default(os.environ.get("DCC_CLUSTER", "dcc")))  # fmt: skip
    one.add_argument("--keys", metavar="DIR", default=default(None),
                     help="directory of key files; default: $DCC_KEYS, else none")  # fmt: skip
    one.add_argument("--key-name", metavar="NAME", default=default(None),
                     help="whose key to use, if there are several")  # fmt: skip
    one.add_argument("--timeout", type=float, metavar="SECONDS", default=default(2.0),
                     help="deadline of one call (default 2)")  # fmt: skip
    one.add_argument("--json", action="store_true", default=default(False), help="print JSON")


def _wait(one: Parser, text: str) -> None:
    one.add_argument("--wait", type=float, default=0.0, metavar="SECONDS",
                     help=f"{text} (default 0: do not wait)")  # fmt: skip


def _quorum(text: str) -> int | str:
    return int(text) if text.isdigit() else text


def _epilog() -> str:
    return (
        "Exit codes: 0 healthy or done, 1 degraded or not found, 2 nobody reached, 64 wrong usage."
    )
