"""Whether a member was ever reached at the addresses that it advertises, in its present boot.

A member whose addresses lead nowhere is found dead again and again; who runs it should be told
once, and not for every member that crashes.
"""

from __future__ import annotations

from dcc.effects import Effect
from dcc.gossip.rows import notice
from dcc.gossip.table import Table
from dcc.types import Boot, Member, NodeKey


class Reached:
    """What one node's probes and those of its helpers have found."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._answered: dict[NodeKey, Boot] = {}
        "The boot in which a member was last reached at its addresses."
        self._missed: dict[NodeKey, Boot] = {}
        "The boot in which a probe of a member that was never reached has failed."

    def answered(self, key: NodeKey) -> None:
        """Take note that a member is reached at its addresses, by this node or by a helper."""
        row = self._table.rows.get(key)
        if row is not None:
            self._answered[key] = row.boot
            self._missed.pop(key, None)

    def failed(self, row: Member) -> list[Effect]:
        """Note a failed probe; tell of the first in a boot of a member that never answered."""
        if row.boot in (self._answered.get(row.key), self._missed.get(row.key)):
            return []
        self._missed[row.key] = row.boot
        addresses = {"request": row.request, "gossip": row.gossip}
        return [notice("member_not_reached", row, **addresses)]

    def never(self) -> list[Member]:
        """Return the members that failed a probe and never answered one in their present boot."""
        rows = self._table.rows
        return [rows[key] for key, boot in self._missed.items() if rows[key].boot == boot]

    def forget(self, key: NodeKey) -> None:
        """Remember nothing about a member whose row is gone."""
        self._answered.pop(key, None)
        self._missed.pop(key, None)
