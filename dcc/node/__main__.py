"""`python -m dcc.node`: one node as a process of its own.

Exit codes: 0 after a graceful leave (SIGTERM, SIGINT); 2 with one line on standard error if the
node could not start: a bad option, an unreadable file, an address in use; 3 (`EXIT_NAME_TAKEN`) if
another node that was there first has its name, which a restart would not change; 4
(`EXIT_KEY_REVOKED`) if its key was taken away while it ran, nor would a restart change that; 128 +
the signal's number if a second signal cut the leave short.

Standard output carries exactly one line, `node_ready`, once this node has joined and serves.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dcc import output
from dcc.errors import ConfigError
from dcc.keys import read_token
from dcc.node import logs, options
from dcc.node.allocator import give_back_early
from dcc.node.loop import Loop, open_loop

if TYPE_CHECKING:
    from dcc.node.http import HttpServer


EXIT_NAME_TAKEN = 3
"Another node of this one's name was there first; supervisors should not start this one again."
EXIT_KEY_REVOKED = 4
"The key files do not allow this node's own key any more."


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run the node that `argv` and `environ` describe; return the exit code."""
    try:
        given, show = options.gather(sys.argv[1:] if argv is None else argv, environ)
        chosen = options.parse(given)
        if show:
            sys.stdout.write(options.describe(given, chosen))
            return 0
        return Process(chosen).run()
    except ConfigError as error:
        output.complain(f"dcc node: {error}")
        return 2


class Process:
    """A node as the whole process: signals, log lines, the HTTP server, the collector's tuning."""

    def __init__(self, chosen: options.Options) -> None:
        self._options = chosen
        self._writer = logs.Writer()
        logs.configure(self._writer, log_format=chosen.log_format, log_level=chosen.log_level)
        self._log = logs.journal()
        self._loop: Loop | None = None
        self._http: HttpServer | None = None
        self._signals = 0
        self._exit_code = 0

    def _http_token(self) -> bytes | None:
        """Return what must be sent to read about the node; empty: nobody may; None: everybody."""
        chosen = self._options
        if chosen.http_token:
            return read_token(Path(chosen.http_token))
        assert chosen.http is not None
        return None if chosen.http.loopback or chosen.insecure else b""

    def run(self) -> int:
        """Serve until a signal ends it; return the exit code. Raises ConfigError before that."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        if self._options.keys:
            signal.signal(signal.SIGHUP, self._on_hangup)
        give_back_early()
        try:
            self._loop = open_loop(self._options, log=self._log, on_ready=self._announce)
            if self._options.http is not None:
                from dcc.node.http import HttpServer

                self._http = HttpServer(self._options.http, self._loop, self._http_token())
            mode = self._options.security
            self._log("node_starting", self._fields() | {"pid": os.getpid(), "security": mode})
            if mode == "insecure":
                self._log(
                    "insecure", {"hint": "anybody who reaches it may do anything; use --keys"}
                )
            tune_collector()
            self._loop.run()
            if self._loop.displaced:
                self._exit_code = EXIT_NAME_TAKEN
            elif self._loop.expelled:
                self._exit_code = EXIT_KEY_REVOKED
            self._log("node_stopped", {"exit_code": self._exit_code})
        finally:
            if self._http is not None:
                self._http.close()
            self._writer.close()
        return self._exit_code

    def _on_signal(self, number: int, _frame: object) -> None:
        self._signals += 1
        if self._loop is None:  # Nothing has begun, so nothing is to be handed over.
            raise SystemExit(0)
        if self._signals == 1:
            self._loop.leave()
        else:
            self._exit_code = 128 + number
            self._loop.stop()

    def _on_hangup(self, _number: int, _frame: object) -> None:
        if self._loop is not None:
            self._loop.read_keys()

    def _fields(self) -> dict[str, Any]:
        assert self._loop is not None
        config = self._loop.config
        return {
            "node": config.name,
            "request": config.request,
            "gossip": config.gossip,
            "http": str(self._http.address) if self._http else None,
        }

    def _announce(self) -> None:
        fields = {"event": "node_ready"} | self._fields()
        if self._options.log_format == "json":
            line = json.dumps(fields)
        else:
            rest = " ".join(f"{name}={value or 'null'}" for name, value in self._fields().items())
            line = f"node_ready {rest}"
        self._writer.write(1, line)


def tune_collector() -> None:
    """Make Python's cycle collector rare.

    A store of a million entries is a million objects that never form a cycle; looking through
    them would stop the loop for a good part of a second. What exists now lives as long as the
    process, so it is never looked at again; the young are looked at less often.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


if __name__ == "__main__":
    sys.exit(output.guarded(main))
