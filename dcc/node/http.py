"""The node over HTTP: metrics, probes and status, from threads of their own.

No thread here touches the core: each asks the loop for its latest statistics, which are at most a
second old, and gives up after `SNAPSHOT_TIMEOUT_S`.

- `/livez` never depends on peers: a liveness probe that did would restart a whole cluster during
  a partition. 503 only when the loop has not turned for ten seconds.
- `/readyz` 200 once joined, with the slots of this node filled, and not leaving. It does not go
  back to 503 because others come or go: all nodes would, at once, while all keys can be read.
- `/metrics` Prometheus' text; `/api/v1/status` the statistics as JSON.
- `/api/v1/converged` as JSON whether the cluster has converged and why not; 200 only if it has.

The pages beyond `/livez` and `/readyz` tell names, addresses and figures. A node that has a token
gives them only to requests that carry it; a node without one gives them to its own machine, and to
other machines if it is `--insecure`.

There are `CONNECTIONS_MAX` places. A connection that comes when all are taken gets the place of the
one that has been sending its request for longest: an honest request arrives whole at once, so
connections that are only held open cannot keep a probe out. Pages that ask the loop take no more
than `ASKING_MAX` of the places, so that `/livez` answers while the loop does not. And no connection
lasts longer than `CONNECTION_NS` as a whole, however busily it sends or slowly it reads.
"""

from __future__ import annotations

import errno
import json
import socket as net
import threading
import time
from collections.abc import Iterator
from hmac import compare_digest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from dcc.errors import ConfigError
from dcc.node.clocks import mono_ns
from dcc.node.loop import Loop
from dcc.node.metrics import families, histograms
from dcc.node.options import Address
from dcc.units import SECOND

SNAPSHOT_TIMEOUT_S = 2.0
STUCK_NS = 10 * SECOND
"A loop that has not turned for this long is not going to."
CONNECTIONS_MAX = 16
"Connections at once, so that a scanner cannot fill the process with threads."
ASKING_MAX = 12
"Requests at once that ask the loop."
CONNECTION_NS = 5 * SECOND
"From accepting to closing."
JUDGED_NS = 2 * SECOND
"How long a judgement of the cluster's convergence is waited for; it is made once a second."
JUDGED_PAUSE_S = 0.1
REAP_S = 0.1
"How often connections that last too long are looked for."


class HttpServer:
    """Serves one node's HTTP until `close`. Raises ConfigError if it cannot be bound.

    Args:
        token: who reads more than probes must send it; empty: nobody may; None: everybody.
    """

    def __init__(self, address: Address, loop: Loop, token: bytes | None = None) -> None:
        try:
            self._server = _Server(address, loop, token)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise ConfigError(f"--http: cannot bind {address}: {reason}") from error
        self.address: Address = Address(address.host, self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": REAP_S}, name="dcc-http",
            daemon=True,
        )  # fmt: skip
        self._thread.start()

    def close(self) -> None:
        """Stop serving and close the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Places:
    """The connections, since when, and whether each has sent its request. For all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: dict[net.socket, int] = {}
        self._sending: dict[net.socket, None] = {}
        "Those whose request is not there yet, oldest first."

    def take(self, connection: net.socket) -> bool:
        """Give `connection` a place, that of the slowest sender if need be; False: none left."""
        with self._lock:
            if len(self._since) >= CONNECTIONS_MAX:
                if not self._sending:
                    return False
                self._end(next(iter(self._sending)))
            self._since[connection] = mono_ns()
            self._sending[connection] = None
            return True

    def complete(self, connection: net.socket) -> None:
        """Note that the request of `connection` has come in whole."""
        with self._lock:
            self._sending.pop(connection, None)

    def free(self, connection: net.socket) -> None:
        """Give the place back; harmless for one that was ended."""
        with self._lock:
            self._since.pop(connection, None)
            self._sending.pop(connection, None)

    def reap(self) -> None:
        """End the connections that have lasted too long."""
        with self._lock:
            oldest = mono_ns() - CONNECTION_NS
            for connection in [one for one, since in self._since.items() if since < oldest]:
                self._end(connection)

    def _end(self, connection: net.socket) -> None:
        # Its thread wakes up from whatever it waits for, and closes it.
        del self._since[connection]
        self._sending.pop(connection, None)
        try:
            connection.shutdown(net.SHUT_RDWR)
        except OSError:  # It was closed meanwhile.
            pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, address: Address, loop: Loop, token: bytes | None) -> None:
        self.loop = loop
        self.token = token
        self.places = _Places()
        self.asking = threading.BoundedSemaphore(ASKING_MAX)
        host = "" if address.host == "*" else address.host
        self.address_family = net.AF_INET6 if ":" in host else net.AF_INET
        super().__init__((host, address.port), _Handler)

    def server_bind(self) -> None:
        """Bind without the reverse DNS look-up that HTTPServer would do."""
        # Else a probe that was answered keeps a restarted node off its port for a minute.
        self.socket.setsockopt(net.SOL_SOCKET, net.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "dcc", self.server_address[1]

    def get_request(self) -> tuple[net.socket, Any]:
        """Accept a connection; not in a hurry if there is no descriptor for it."""
        try:
            return super().get_request()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                time.sleep(REAP_S)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for the connection, or turn it away."""
        if not self.places.take(request):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer one connection, and free its place."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.places.free(request)

    def service_actions(self) -> None:
        """Called by `serve_forever` every `REAP_S`, and after each connection."""
        self.places.reap()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = CONNECTION_NS / SECOND
    server_version = "dcc"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer one path."""
        self.server.places.complete(self.connection)
        asking = {
            "/readyz": self._readyz,
            "/metrics": self._metrics,
            "/api/v1/status": self._status,
            "/api/v1/converged": self._converged,
        }
        path = self.path.partition("?")[0]
        answer = asking.get(path)
        if path == "/livez":
            self._livez()
        elif path != "/readyz" and not self._is_allowed():
            self._refuse()
        elif answer is None:
            self._text(404, f"no such page; there are /livez, {', '.join(asking)}\n")
        elif not self.server.asking.acquire(blocking=False):
            self._text(503, f"{ASKING_MAX} requests are being answered\n")
        else:
            try:
                answer()
            finally:
                self.server.asking.release()

    def _is_allowed(self) -> bool:
        token = self.server.token
        if token is None:
            return True
        kind, _, sent = self.headers.get("Authorization", "").partition(" ")
        # Compared in a time that tells nothing; an empty token is nobody's.
        same = compare_digest(sent.strip().encode("latin-1", "replace"), token)
        return kind.lower() == "bearer" and same and bool(token)

    def _refuse(self) -> None:
        if self.server.token:
            self._text(401, "this page needs the token of --http-token, as Authorization: Bearer\n")
        else:
            self._text(403, "other machines get no such page; start the node with --http-token\n")

    def _livez(self) -> None:
        still_ns = mono_ns() - self.server.loop.turned_at
        if still_ns < STUCK_NS:
            self._text(200, "ok\n")
        else:
            self._text(503, f"the loop has not turned for {still_ns // SECOND} s\n")

    def _readyz(self) -> None:
        snapshot = self._snapshot()
        if snapshot is None:
            return
        reasons = not_ready(snapshot)
        self._text(503 if reasons else 200, "\n".join(reasons or ["ok"]) + "\n")

    def _metrics(self) -> None:
        snapshot = self._snapshot()
        if snapshot is not None:
            self._bytes(200, CONTENT_TYPE_LATEST, exposition(snapshot))

    def _status(self) -> None:
        snapshot = self._snapshot()
        if snapshot is not None:
            body = json.dumps(snapshot, default=str, indent=2).encode() + b"\n"
            self._bytes(200, "application/json", body)

    def _converged(self) -> None:
        """Answer with a judgement of the cluster that the node began after this question.

        An older yes could be of before the restart that somebody waits for. Each look at the
        statistics makes the node judge again if it has not done so for a second.
        """
        began, waited_ns = mono_ns(), 0
        found: dict[str, Any] = {"converged": False, "reasons": ["not known: not joined, or stuck"]}
        while waited_ns < JUDGED_NS:
            snapshot = self.server.loop.snapshot(SNAPSHOT_TIMEOUT_S, age_max_ns=0)
            latest = snapshot["detail"]["convergence"] if snapshot else None
            if latest and latest["age_seconds"] * SECOND < waited_ns:
                found = latest
                break
            time.sleep(JUDGED_PAUSE_S)
            waited_ns = mono_ns() - began
        body = json.dumps(found, indent=2).encode() + b"\n"
        self._bytes(200 if found["converged"] else 503, "application/json", body)

    def _snapshot(self) -> dict[str, Any] | None:
        """Return the node's statistics, or answer 503 and return None."""
        snapshot = self.server.loop.snapshot(SNAPSHOT_TIMEOUT_S)
        if snapshot is None:
            self._text(503, "the loop does not answer\n")
        return snapshot

    def _text(self, status: int, text: str) -> None:
        self._bytes(status, "text/plain; charset=utf-8", text.encode())

    def _bytes(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        if status == 401:
            self.send_header("WWW-Authenticate", "Bearer")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Scrapes are not worth a line."""


class _Snapshot(Collector):
    """The metrics of one snapshot, for one scrape."""

    def __init__(self, snapshot: dict[str, Any]) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        """Yield every metric with its samples."""
        for name, kind, text, samples in families(self._snapshot):
            labels = tuple(samples[0][0]) if samples else ()
            make = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
            family = make(name, text, labels=labels)
            for label_values, value in samples:
                family.add_metric(tuple(label_values.values()), value)
            yield family
        for histogram in histograms(self._snapshot):
            timed = HistogramMetricFamily(histogram.name, histogram.help, labels=[histogram.label])
            for label_value, buckets, total in histogram.samples:
                timed.add_metric([label_value], buckets, total)
            yield timed


def exposition(snapshot: dict[str, Any]) -> bytes:
    """Return a snapshot in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot(snapshot))
    return generate_latest(registry)


def not_ready(snapshot: dict[str, Any]) -> list[str]:
    """Return why a node with these statistics should get no requests, [] if it should."""
    if not snapshot["ready"]:
        return snapshot["detail"]["lacks"] or ["not joined yet, or leaving"]
    return ["slots of this node are not filled yet"] if snapshot["filling"] else []
