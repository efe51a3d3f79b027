"""Packing: how clocks, spans, graves and debts of many slots travel in one message.

Origins are two large integers, and every slot's clock names the same few of them. So a message has
one table of origins, and clocks name places in it. What an answer says of places that are not in
its table is left out: it comes from outside.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice

from dcc.store.doubt import Owed, Span
from dcc.store.notes import SPANS_MAX
from dcc.types import Origin, Stamp, Version
from dcc.wire.messages import Pull


def pack_clock(clock: Mapping[Origin, Stamp], origins: dict[Origin, int]) -> tuple[int, ...]:
    """Return `clock` as flat pairs (index, stamp), adding unknown origins to the table.

    >>> table = {}
    >>> pack_clock({(7, 1): 90}, table), table
    ((0, 90), {(7, 1): 0})
    """
    flat: list[int] = []
    for origin, stamp in sorted(clock.items()):
        flat.append(origins.setdefault(origin, len(origins)))
        flat.append(stamp)
    return tuple(flat)


def unpack_clock(flat: tuple[int, ...], origins: tuple[Origin, ...]) -> dict[Origin, Stamp]:
    """Return the clock in flat pairs; pairs that name no origin of the table are left out.

    >>> unpack_clock((0, 90, 5, 1), ((7, 1),))
    {(7, 1): 90}
    """
    return {
        origins[index]: stamp
        for index, stamp in zip(flat[::2], flat[1::2], strict=False)
        if index < len(origins)
    }


def pack_spans(spans: Iterable[Span], origins: dict[Origin, int]) -> tuple[int, ...]:
    """Return notes as flat triples (index, low, high), adding unknown origins to the table.

    `SPANS_MAX` at most; what is left out travels when these have closed.

    >>> table = {}
    >>> pack_spans([((7, 1), 3, 9)], table), table
    ((0, 3, 9), {(7, 1): 0})
    """
    return tuple([
        word
        for origin, low, high in islice(spans, SPANS_MAX)
        for word in (origins.setdefault(origin, len(origins)), low, high)
    ])  # fmt: skip


def unpack_spans(flat: tuple[int, ...], origins: tuple[Origin, ...]) -> list[Span]:
    """Return the notes in flat triples; those that name no origin or are empty are left out.

    >>> unpack_spans((0, 3, 9, 7, 1, 2), ((7, 1),))
    [((7, 1), 3, 9)]
    """
    return [
        (origins[index], low, high)
        for index, low, high in zip(flat[::3], flat[1::3], flat[2::3], strict=False)
        if index < len(origins) and low < high
    ]


def owed_to(pull: Pull) -> dict[int, Owed]:
    """Return what an asker says to be owed, by slot."""
    return {one.slot: Owed(one.low, one.high, one.held) for one in pull.owed}


def pack_graves(graves: Iterable[tuple[int, Version]]) -> tuple[int, ...]:
    """Return graves as flat fours (hash, stamp, node, boot).

    >>> pack_graves([(5, Version(90, 7, 1))])
    (5, 90, 7, 1)
    """
    return tuple([word for name, version in graves for word in (name, *version)])


def unpack_graves(flat: tuple[int, ...]) -> list[tuple[int, Version]]:
    """Return the graves in flat fours, whose number the message has been checked for.

    >>> unpack_graves((5, 90, 7, 1))
    [(5, Version(stamp=90, node=7, boot=1))]
    """
    fours = zip(flat[::4], flat[1::4], flat[2::4], flat[3::4], strict=True)
    return [(name, Version(*version)) for name, *version in fours]
