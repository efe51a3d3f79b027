"""Connections of one node to its peers: one to each member that is ALIVE or SUSPECT."""

from __future__ import annotations

from collections.abc import KeysView

from dcc.effects import Connect, Disconnect, Effect
from dcc.types import Boot, Member, NodeKey, Standing


class Links:
    """What is connected to: of each peer the addresses, and the boot that was there."""

    def __init__(self) -> None:
        self._links: dict[NodeKey, tuple[str, str, Boot]] = {}

    @property
    def keys(self) -> KeysView[NodeKey]:
        """The peers that there are connections to."""
        return self._links.keys()

    def follow(self, key: NodeKey, row: Member) -> list[Effect]:
        """Return what changes in the connections when `row` is what is known of `key`."""
        link = (row.request, row.gossip, row.boot)
        if row.standing <= Standing.SUSPECT:
            old = self._links.get(key)
            if old == link:
                return []
            self._links[key] = link
            connect = Connect(key, row.request, row.gossip)
            if old is None or old[:2] != link[:2]:
                return [connect]
            # The same address in another life: the old connection may be seconds from its next
            # attempt, having found nobody there.
            return [Disconnect(key), connect]
        if self._links.pop(key, None) is None:
            return []
        return [Disconnect(key)]
