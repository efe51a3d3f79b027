"""What is held here: entries, slot clocks, eviction and expiry, within a byte limit."""

from dcc.store.entry import Entry
from dcc.store.store import Applied, Store

__all__ = ["Applied", "Entry", "Store"]
