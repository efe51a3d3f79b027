"""What a node's SUB is connected to: the PUBs of the members, by number.

A member's gossip address may be a name that means several addresses; SUB is connected to all of
them, and gossip that comes twice does no harm. Members may share an address, which is connected to
once.
"""

from __future__ import annotations

from typing import Protocol

import zmq

from dcc.handshakes import Watch
from dcc.keys import present
from dcc.node.security import Closed, Open
from dcc.resolve import Resolver


class Publisher(Protocol):
    """A member, as it is subscribed to."""

    gossip: str
    publishers: tuple[str, ...]
    "Where SUB is connected to because of this member."


class Subscriptions:
    """The connections of one SUB."""

    def __init__(self, sub: zmq.Socket[bytes], security: Open | Closed, resolver: Resolver) -> None:
        self._sub, self._security, self._resolver = sub, security, resolver
        self._watch = Watch(sub)
        self._members: dict[str, int] = {}
        "Numeric addresses that SUB is connected to, with the number of members there."
        self._turns: dict[str, int] = {}
        "How often a publisher was connected to again, where it was not with the first key."
        self.failed: int = 0
        "Connections that could not be opened."

    def follow(self, member: Publisher, *, anew: bool = True) -> None:
        """Connect to all that the member's gossip address is known to mean."""
        try:
            if anew:
                self._resolver.look_up(member.gossip)
            found = self._resolver.addresses(member.gossip)
        except ValueError:
            return
        if not found:
            return
        for publisher in found:
            if publisher not in member.publishers:
                self._add(publisher)
        for publisher in member.publishers:
            if publisher not in found:
                self._remove(publisher)
        member.publishers = found

    def leave(self, member: Publisher) -> None:
        """Disconnect from a member, unless another one is there, too."""
        for publisher in member.publishers:
            self._remove(publisher)

    def again(self) -> None:
        """Connect again to all: this node's own key has changed."""
        for publisher in list(self._members):
            self._connect_again(publisher)

    def look(self) -> None:
        """Connect again where a handshake has failed: libzmq does not try again by itself."""
        for failure in self._watch.failures():
            if self._security.keyed and failure.address in self._members:
                self._connect_again(failure.address)

    def _add(self, publisher: str) -> None:
        """Connect; libzmq would ignore a second connection to the same address."""
        self._members[publisher] = self._members.get(publisher, 0) + 1
        if self._members[publisher] == 1:
            try:
                turn = self._turns.get(publisher, 0)
                present(self._sub, self._security.credentials(), turn)
                self._sub.setsockopt(zmq.IPV6, int(publisher.startswith("[")))
                self._sub.connect(f"tcp://{publisher}")
            except zmq.ZMQError:
                self.failed += 1

    def _remove(self, publisher: str) -> None:
        self._members[publisher] -= 1
        if not self._members[publisher]:
            del self._members[publisher]
            self._turns.pop(publisher, None)
            try:
                self._sub.disconnect(f"tcp://{publisher}")
            except zmq.ZMQError:  # It was never connected.
                pass

    def _connect_again(self, publisher: str) -> None:
        turn = self._turns.get(publisher, 0) + 1
        members = self._members[publisher]
        self._members[publisher] = 1
        self._remove(publisher)
        self._turns[publisher] = turn
        self._add(publisher)
        self._members[publisher] = members
