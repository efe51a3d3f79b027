"""The two hashes that decide where a key lives; both are part of the protocol.

A key hashes to one of 16,384 slots. Every pair of slot and node has a *draw*, a pseudo-random
number below 2**30 that depends on nothing else: the smaller a node's draw, the better its place in
the slot's order. Four neighbouring slots are a *block*, because one 128-bit hash holds the draws of
four slots: drawing is most of the work of building a table, and this makes it a quarter.

Why 30 bits: CPython compares integers of one 30-bit digit several times faster than wider ones,
and sorting draws is the rest of the work. Equal draws (100 nodes: about one pair in 200,000) go to
the smaller node key.

    draw(slot, node) = word number (slot mod 4) of XXH3-128(input, seed) & 0x3FFFFFFF
        input: slot div 4, two bytes, big-endian        seed: the 64-bit node key
        words: the canonical 16-byte digest as four big-endian 32-bit integers
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import repeat
from struct import unpack

from xxhash import xxh3_64_intdigest, xxh3_128_digest

from dcc.limits import SLOT_COUNT
from dcc.types import NodeKey

BLOCK_SLOTS = 4
"Slots that share one hash."

DRAW_BITS = 30

_DIGEST_BYTES = 16
_BLOCKS = tuple(block.to_bytes(2, "big") for block in range(SLOT_COUNT // BLOCK_SLOTS))


def slot_of(key: bytes) -> int:
    """Return the slot, 0..16,383, of a key's bytes.

    >>> slot_of(b"user:42")
    15064
    """
    return xxh3_64_intdigest(key) & (SLOT_COUNT - 1)


def block_draws(block: int, nodes: Sequence[NodeKey]) -> list[int]:
    """Return the draws of all `nodes` for the four slots of a block, node by node.

    The draws of the block's slot number `i` are `result[i::4]`. About 25 ns for each draw.
    """
    return _draws(map(xxh3_128_digest, repeat(_BLOCKS[block]), nodes), len(nodes))


def node_draws(node: NodeKey) -> list[int]:
    """Return the draws of one node, indexed by slot. About 1 ms."""
    return _draws(map(xxh3_128_digest, _BLOCKS, repeat(node)), len(_BLOCKS))


def _draws(digests: Iterable[bytes], count: int) -> list[int]:
    # One wide integer masks all words at once; a loop would take longer than the hashing.
    words = int.from_bytes(b"".join(digests), "big") & _mask(count)
    return list(unpack(f">{count * BLOCK_SLOTS}I", words.to_bytes(count * _DIGEST_BYTES, "big")))


@lru_cache(maxsize=16)
def _mask(count: int) -> int:
    word = ((1 << DRAW_BITS) - 1).to_bytes(4, "big")
    return int.from_bytes(word * (count * BLOCK_SLOTS), "big")
