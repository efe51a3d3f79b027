"""Nodes inside this process: one in an application, or a small cluster for tests and first steps.

Each node is a thread with sockets of its own on real ports, the same core and loop as the node
command. It installs no signal handler, configures no logging (its events go to the standard
logger `dcc.node`, at the level they have in the command), and `stop` leaves no thread behind.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack
from urllib.parse import quote

from dcc import green
from dcc.config import NodeConfig
from dcc.errors import ConfigError, NodeUnavailable, UsageError
from dcc.keys import new_key
from dcc.node.keywords import ClusterOptions, NodeOptions
from dcc.node.logs import level_of
from dcc.node.loop import Loop, open_loop
from dcc.node.options import OPTIONS, Given, parse
from dcc.types import Role

if TYPE_CHECKING:
    from dcc.client.keywords import ClientOptions
    from dcc.client.sync import Client

_LOGGER = logging.getLogger("dcc.node")
_LOGGER.addHandler(logging.NullHandler())

ADMIN = "admin"
"Whose key the clients of a cluster with keys have."

_PROCESS_ONLY = {"http", "http-token", "log-format", "log-level"}


class Node:
    """One node as a thread of this process.

    Takes the node command's options as keywords (`seed`, `replicas`, `max_memory="64MiB"`, …) and
    the fields of `NodeConfig` that are no options, for tuning. `bind` is 127.0.0.1 and a free port
    unless given. Raises TypeError for other keywords, ConfigError for impossible values.
    """

    def __init__(self, *, bind: str = "127.0.0.1:0", **options: Unpack[NodeOptions]) -> None:
        given, self._tuning = _split({"bind": bind} | options)
        self._options = parse(given)
        self._loop: Loop | None = None
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()

    def start(self) -> Self:
        """Bind and run; return at once, joined or not.

        Raises ConfigError if it cannot be bound, or where greenlets have replaced threads.
        """
        if self._loop is not None:
            raise UsageError("a node is started once; make another one")
        if green.threads_are_green():
            raise ConfigError(
                "a node needs a thread of its own, and gevent or eventlet has replaced threads in"
                " this process: start `dcc node` beside it"
            )
        self._loop = open_loop(self._options, log=_log, on_ready=self._ready.set, **self._tuning)
        name = f"dcc-node-{self._loop.config.name}"
        self._thread = threading.Thread(target=self._loop.run, name=name, daemon=True)
        self._thread.start()
        return self

    def wait_ready(self, timeout: float = 10.0) -> bool:
        """Return True once the node has joined and serves, False after `timeout` seconds."""
        return self._ready.wait(timeout)

    @property
    def address(self) -> str:
        """The host:port that clients and seeds use; UsageError before `start`."""
        return self._running.config.request

    @property
    def name(self) -> str:
        """The node's name; UsageError before `start`."""
        return self._running.config.name

    @property
    def alive(self) -> bool:
        """True while the node runs."""
        return self._thread is not None and self._thread.is_alive()

    def stats(self, timeout: float = 2.0) -> dict[str, Any] | None:
        """Return the node's statistics, at most a second old; None if it does not answer."""
        return self._running.snapshot(timeout) if self.alive else None

    def stop(self) -> None:
        """Hand the data over and leave the cluster; return when the thread has ended.

        Takes up to `leave_timeout` seconds and a few more. Idempotent.
        """
        if self._loop is not None:
            self._loop.leave()
            self._join()

    def kill(self) -> None:
        """End at once, as a crash looks to the others; return when the thread has ended."""
        if self._loop is not None:
            self._loop.stop()
            self._join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.stop()

    @property
    def _running(self) -> Loop:
        if self._loop is None:
            raise UsageError("the node was not started")
        return self._loop

    def _join(self) -> None:
        assert self._thread is not None
        self._thread.join()


class LocalCluster:
    """A cluster of `count` nodes in this process, for tests, notebooks and first steps.

    >>> with LocalCluster(3, replicas=1) as cluster:  # doctest: +SKIP
    ...     cache = cluster.client()
    ...     cache.put("greeting", b"hello")

    Options are those of `Node`, for every node. Leaving the block ends all nodes at once: there is
    nobody left to hand data to.

    `with_keys`: nodes let in only who has a key, and all is encrypted. The keys are made in a
    directory of their own, `keys`, which is deleted with the cluster; clients made here, and who
    takes `url`, are administrators.
    """

    def __init__(
        self,
        count: int = 3,
        *,
        replicas: int = 1,
        with_keys: bool = False,
        **options: Unpack[ClusterOptions],
    ) -> None:
        if count < 1:
            raise ValueError("a cluster has at least one node")
        self._count = count
        self._options: dict[str, Any] = {"replicas": replicas} | options
        self._made_keys = TemporaryDirectory(prefix="dcc-keys-") if with_keys else None
        if self._made_keys is not None:
            new_key(Path(self._made_keys.name), ADMIN, Role.ADMIN)
        self._clients: weakref.WeakSet[Client] = weakref.WeakSet()
        self.nodes: list[Node] = []
        "In the order of their start; stopped ones stay in the list."

    def start(self, timeout: float = 30.0) -> Self:
        """Start all nodes; return when each is ready and sees all others.

        Raises:
            NodeUnavailable: that took longer than `timeout` seconds. Nothing keeps running.
        """
        deadline = time.monotonic() + timeout
        try:
            for _ in range(self._count):
                self.add()
            for node in self.nodes:
                if not node.wait_ready(deadline - time.monotonic()):
                    raise NodeUnavailable(f"{node.name} is not ready after {timeout} s")
            self._wait_for_one_view(deadline)
        except BaseException:
            self.close()
            raise
        return self

    def add(self, *, bind: str = "127.0.0.1:0", **options: Unpack[NodeOptions]) -> Node:
        """Start one more node, which joins the first that is alive; return it at once."""
        seeds = [node.address for node in self.nodes if node.alive]
        merged: dict[str, Any] = self._options | ({"seed": seeds} if seeds else {}) | options
        if self.keys is not None:
            merged["keys"] = str(self.keys)
            name = merged.setdefault("name", f"node-{len(self.nodes) + 1}")
            new_key(self.keys, name, Role.NODE)
            for node in self.nodes:  # Else it would be refused, and try again seconds later.
                if node._loop is not None:
                    node._loop.read_keys()
        node = Node(bind=bind, **merged)
        self.nodes.append(node.start())
        return node

    @property
    def url(self) -> str:
        """The URL of the running nodes, for `dcc.Cache` and all that take one."""
        nodes = ",".join(node.address for node in self.nodes if node.alive)
        url = f"dcc://{nodes}?cluster={quote(self._options.get('cluster', 'dcc'), safe='')}"
        if self.keys is None:
            return url
        return f"{url}&keys={quote(str(self.keys), safe='')}&name={ADMIN}"

    @property
    def keys(self) -> Path | None:
        """The directory of the keys that were made here; None without."""
        return Path(self._made_keys.name) if self._made_keys is not None else None

    def client(self, **options: Unpack[ClientOptions]) -> Client:
        """Return a client that knows all running nodes; closed with the cluster."""
        from dcc.client.sync import Client

        merged: dict[str, Any] = {"cluster": self._options.get("cluster", "dcc")}
        merged |= {"keys": self.keys, "name": ADMIN} if self.keys is not None else {}
        merged |= options
        client = Client([node.address for node in self.nodes if node.alive], **merged)
        self._clients.add(client)
        return client

    def close(self) -> None:
        """End all nodes at once and close the clients made here. Idempotent."""
        for client in list(self._clients):
            client.close()
        self._clients.clear()
        for node in self.nodes:
            if node._loop is not None:
                node._loop.stop()
        for node in self.nodes:
            node.kill()
        if self._made_keys is not None:
            self._made_keys.cleanup()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    def _wait_for_one_view(self, deadline: float) -> None:
        while not all(self._sees_all(node) for node in self.nodes):
            if time.monotonic() > deadline:
                raise NodeUnavailable("the nodes do not all see each other in time")
            time.sleep(0.02)

    def _sees_all(self, node: Node) -> bool:
        stats = node._running.snapshot(1.0, age_max_ns=0)
        if stats is None or not stats["slots_ready"]:
            return False
        standings = list(stats["members"].values())
        return standings.count("alive") == sum(one.alive for one in self.nodes)


def _split(keywords: Mapping[str, Any]) -> tuple[dict[str, Given], dict[str, Any]]:
    """Return the options among `keywords` as given text, and the tuning."""
    options = {option.name: option for option in OPTIONS if option.name not in _PROCESS_ONLY}
    fields = {name for name in NodeConfig.__slots__ if name.endswith(("_ns", "_ms", "_max"))}
    given = {option.name: Given(option.default, "default") for option in OPTIONS}
    tuning = {}
    for keyword, value in keywords.items():
        name = keyword.replace("_", "-")
        if name in options:
            given[name] = Given(_as_text(value), "option")
        elif keyword in fields:
            tuning[keyword] = value
        else:
            raise TypeError(f"Node() got an unexpected keyword argument '{keyword}'")
    return given, tuning


def _as_text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return "" if value is None else str(value)


def _log(event: str, fields: Mapping[str, Any]) -> None:
    level = getattr(logging, level_of(event, fields).upper())
    if _LOGGER.isEnabledFor(level):
        _LOGGER.log(level, "%s %s", event, fields)
