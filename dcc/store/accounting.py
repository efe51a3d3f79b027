"""What things cost in memory, in bytes, as CPython lays them out.

Sizes come from `sys.getsizeof` where an object's size never changes, and from the arithmetic of
CPython's allocator (blocks of 16 bytes) where asking for each object would take too long. A test
compares the sums with `tracemalloc`, `benchmarks/store.py` with the resident set.

Not counted: what a store costs empty (0.6 MiB), and the tail of the allocator's pages.
"""

from __future__ import annotations

from sys import getsizeof

from dcc.store.entry import Entry, anchor
from dcc.types import NO_VERSION

BLOCK_BYTES = 16
"The allocator hands out multiples of this."


def block(size: int) -> int:
    """Return what the allocator hands out for `size` bytes.

    >>> block(33)
    48
    """
    return (size + BLOCK_BYTES - 1) & -BLOCK_BYTES


INT_BYTES = block(getsizeof(1 << 59))
"A stamp or a time of our century, in an object of its own."

ENTRY_BYTES = block(getsizeof(anchor())) + block(getsizeof(NO_VERSION)) + INT_BYTES
"An entry, its version and the version's stamp. Node and boot are shared with other versions."

BUCKET_BYTES = block(getsizeof(anchor())) + INT_BYTES + 128
"A bucket of the expiry index; 128 for its place in the sorted dictionary and that one's list."

BYTES_OBJECT_BYTES = getsizeof(b"")
_ROUND_UP = BYTES_OBJECT_BYTES + BLOCK_BYTES - 1


def bytes_cost(length: int) -> int:
    """Return what a bytes object of `length` costs; the empty one is shared by all.

    >>> bytes_cost(0), bytes_cost(100)
    (0, 144)
    """
    return (length + _ROUND_UP) & -BLOCK_BYTES if length else 0


def entry_cost(entry: Entry) -> int:
    """Return what an entry costs without its value: what stays of it when it is evicted."""
    cost = ENTRY_BYTES + ((len(entry.key) + _ROUND_UP) & -BLOCK_BYTES)
    if entry.expires_at_ms:
        cost += INT_BYTES
    if entry.prev > 0:
        cost += INT_BYTES
    return cost
