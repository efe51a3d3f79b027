"""How many owners a request asks for: a number, a quorum, or all of them."""

from __future__ import annotations

QUORUM, ALL = 0, 255
"On the wire, in place of a number."


def needed(count: int, copies: int) -> int:
    """Return how many of `copies` owners must answer when the request says `count`.

    >>> needed(QUORUM, 3), needed(QUORUM, 4), needed(ALL, 4), needed(2, 4)
    (2, 3, 4, 2)
    """
    if count == ALL:
        return copies
    return copies // 2 + 1 if count == QUORUM else count
