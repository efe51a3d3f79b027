"""A node's side of keys: what its sockets are told, and which peer is on a connection.

With keys, both planes are CURVE servers with the key pair that all nodes of the cluster share, so
a peer that knows its public key can join by an address alone. A peer is known by its own key
(`dcc.node.zap`). Without keys there is nothing to do, and peers are not told apart.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import zmq

from dcc.errors import ConfigError
from dcc.handshakes import Failure, Why
from dcc.keys import Credentials, Directory, Keyring
from dcc.node.connections import hang_up
from dcc.node.zap import GOSSIP, Authenticator, Refusals
from dcc.types import Identity, NodeKey, Role
from dcc.units import NEVER, SECOND

NOTED_MAX = 65_536
HANDSHAKE_BYTES_MAX = 512
"The longest message of CURVE's handshake has some 330 bytes."
EXPELLED_NS = 2 * SECOND
"How long a node's own key may lack in its key files: the other half of a change may follow."
SocketOptions = dict[zmq.SocketOption, Any]


class Changes(NamedTuple):
    """What has changed in the key files that existing connections do not follow by themselves."""

    nodes_removed: bool
    server: bool
    own: bool


class Open:
    """No keys: everybody is let in."""

    keyed = False
    name = ""

    def __init__(self) -> None:
        self.refusals: Refusals = Refusals()
        self.ports: frozenset[int] = frozenset()
        "Where requests are accepted."

    def start(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        """Nothing is to be started."""

    def close(self) -> None:
        """Nothing was started."""

    def serving(self, domain: bytes) -> SocketOptions:
        """Return the options of a socket that binds."""
        return {}

    def credentials(self) -> Credentials | None:
        """Return what is shown to those that are connected to."""
        return None

    @property
    def changing(self) -> bool:
        """Whether servers may have either of two keys, as while theirs is being changed."""
        credentials = self.credentials()
        return credentials is not None and len(credentials.servers) > 1

    @property
    def nodes(self) -> frozenset[NodeKey] | None:
        """The nodes that may be members; None: all."""
        return None

    def is_expelled(self, now: int) -> bool:
        """Return whether this node has had no key for a while that the files allow.

        `now` is monotonic, in nanoseconds.
        """
        return False

    def turned_away(self, failures: list[Failure]) -> None:
        """Count those that this node's sockets did not let in."""
        for failure in failures:
            if failure.why is Why.MIXED:
                reason = "without_key" if self.keyed else "with_key"
                self.refusals.add(reason, failure.address)
            elif failure.why is Why.GARBLED and self.keyed:
                self.refusals.add("wrong_server_key", failure.address)

    def hang_up(self) -> None:
        """End the connections by which requests came of peers that may send none any more."""

    def changes(self) -> Changes:
        """Return what has changed since the last call that the sockets must follow."""
        return Changes(False, False, False)


class Closed(Open):
    """Keys: nobody without one of those that are allowed is let in."""

    keyed = True

    def __init__(self, path: str | os.PathLike[str], name: str) -> None:
        """Read the keys of the node `name`; of the only one in the directory if it is empty.

        Raises ConfigError: a file is missing or wrong, or others may read a private one.
        """
        super().__init__()
        self._directory = Directory(path)
        self._keyring = Keyring(path, name, (Role.NODE,))
        self.name: str = self._keyring.name
        self._server = self._directory.server()
        self.authenticator: Authenticator = Authenticator(self._directory, self.refusals)
        self._nodes = self.authenticator.node_keys()
        self._own = self._keyring.credentials().own
        self._noted: set[bytes] = set()
        "Routing ids whose connections are in `_on`."
        self._on: dict[int, str] = {}
        "Descriptor of a connection that requests came by, and the key that it was made with."
        self._expelled_since = NEVER
        if not self._is_allowed():
            raise ConfigError(f"keys: {path}/nodes/{self.name}.pub lacks this node's own key")
        if self._server.public not in self.credentials().servers:
            raise ConfigError(f"keys: {path}/servers lacks the key that this node serves with")

    def start(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        """Begin to answer which peers may connect; before anything is bound."""
        self.authenticator.start(context)

    def close(self) -> None:
        """End what was started. Idempotent."""
        self.authenticator.close()

    def serving(self, domain: bytes) -> SocketOptions:
        """Return the options of a socket that binds, which stand above its own."""
        options: SocketOptions = {
            zmq.CURVE_SERVER: 1,
            zmq.CURVE_SECRETKEY: self._server.secret,
            zmq.ZAP_DOMAIN: domain,
            zmq.ZAP_ENFORCE_DOMAIN: 1,  # Nobody is let in if there is nobody to ask.
        }
        if domain == GOSSIP:
            options[zmq.MAXMSGSIZE] = HANDSHAKE_BYTES_MAX
        return options

    def credentials(self) -> Credentials:
        """Return what is shown to those that are connected to."""
        return self._keyring.credentials()

    @property
    def nodes(self) -> frozenset[NodeKey]:
        """The nodes that may be members: those with a key that is allowed."""
        return self.authenticator.nodes

    def is_expelled(self, now: int) -> bool:
        """Return whether this node has had no key for a while that the files allow."""
        if self._is_allowed():
            self._expelled_since = NEVER
            return False
        self._expelled_since = min(self._expelled_since, now)
        return now - self._expelled_since >= EXPELLED_NS

    def _is_allowed(self) -> bool:
        mine = self.authenticator.allowed.get(self.credentials().own.public.decode())
        return mine is not None and (mine.role, mine.name) == (Role.NODE, self.name)

    def who_sent(self, head: Any, route: bytes) -> Identity | None:
        """Return the peer on the connection that the first frame of a message came on.

        None if its key is not allowed (any more): then the connection is ended.
        """
        try:
            key = head.get("User-Id")
        except zmq.ZMQError:  # Nobody was asked about this connection.
            key = ""
        who = self.authenticator.allowed.get(key)
        if who is None:
            self.refusals.add("revoked", key)
            hang_up(int(head.get(zmq.SRCFD)), self.ports)
        elif route not in self._noted:
            if len(self._noted) >= NOTED_MAX:
                self._noted.clear()
            self._noted.add(route)
            self._on[int(head.get(zmq.SRCFD))] = key
        return who

    def hang_up(self) -> None:
        """End the connections by which requests came of peers that may send none any more."""
        for fd, key in list(self._on.items()):
            if key not in self.authenticator.allowed:
                del self._on[fd]
                hang_up(fd, self.ports)

    def changes(self) -> Changes:
        """Return what has changed since the last call that the sockets must follow."""
        nodes, own = self._nodes, self._own
        self._nodes, self._own = self.authenticator.node_keys(), self.credentials().own
        return Changes(not nodes <= self._nodes, self._server_changed(), own != self._own)

    def _server_changed(self) -> bool:
        try:
            server = self._directory.server()
        except ConfigError as error:  # Serve with the one that there was.
            self.refusals.tell("keys_unreadable", {"text": str(error)})
            return False
        before, self._server = self._server, server
        return before != server
