"""Changes of the cluster's settings: `clear` and `set_replicas`, told to every live member.

A setting also travels in every join, push/pull and rumor, so a member that is away takes it when
it returns, before it serves; the waiting here only tells the caller how far it has come.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dcc.effects import Effect, Tell
from dcc.replication.holdings import Asker, Holdings, Instant
from dcc.types import NodeKey, Settings, Stamp
from dcc.units import NEVER
from dcc.wire.codec import Header
from dcc.wire.messages import Message, SettingsAck, SettingsUpdate

CLEAR_LEEWAY_MS = 40
"""How far a caller's idea of cluster time may be off: the clear of a caller that is told that
another one is done at the same millisecond must still cover it."""

STAMP_MS_BITS = 16

CHANGES_MAX = 1_024
"Changes that wait for acknowledgements at once."


def stamp_of_change(made: Stamp, seen: Stamp, issued_ms: int) -> Stamp:
    """Return the stamp of a change for which `made` is the coordinator's new stamp.

    It lies above every stamp that the caller has seen, and otherwise no later than the caller
    asked. So a clear that waited on its way spares what was written meanwhile, and a late number
    of copies does not undo a newer one. With `issued_ms` 0 the caller does not say when it asked.

    >>> stamp_of_change(made=900 << 16, seen=7, issued_ms=500) == 540 << 16
    True
    >>> stamp_of_change(made=900 << 16, seen=600 << 16, issued_ms=500) == (600 << 16) + 1
    True
    """
    if not issued_ms:
        return made
    return max(min(made, _stamp_at(issued_ms + CLEAR_LEEWAY_MS)), seen + 1)


def stamp_of_clear(made: Stamp, seen: Stamp, issued_ms: int, now_ms: int) -> Stamp:
    """Return the stamp of a clear: what its caller says decides, not the node that does it, nor
    when.

    A caller that got no answer in time asks another node, while the first may be done with it. If
    each node took a stamp of its own, the second would make absent what was written after the
    first. So the stamp may be a little in the future of this node, at `now_ms`, which then goes on
    above it; a caller whose idea of time is ahead by more gets no more than that.

    >>> stamp_of_clear(made=500 << 16, seen=7, issued_ms=500, now_ms=500) == 540 << 16
    True
    >>> stamp_of_clear(made=900 << 16, seen=7, issued_ms=500, now_ms=900) == 540 << 16
    True
    >>> stamp_of_clear(made=500 << 16, seen=7, issued_ms=9999, now_ms=500) == 580 << 16
    True
    """
    if not issued_ms:
        return made
    latest = max(made, _stamp_at(now_ms + 2 * CLEAR_LEEWAY_MS))
    return max(min(latest, _stamp_at(issued_ms + CLEAR_LEEWAY_MS)), seen + 1)


def _stamp_at(ms: int) -> Stamp:
    return ms << STAMP_MS_BITS


@dataclass(slots=True)
class _Change:
    asker: Asker
    settings: Settings
    reply: Callable[..., Message]
    waiting: set[NodeKey]
    until: int


class Changes:
    """The changes of settings that wait for acknowledgements."""

    def __init__(self, holdings: Holdings) -> None:
        self._held = holdings
        self._open: dict[int, _Change] = {}

    def __len__(self) -> int:
        return len(self._open)

    def begin(
        self, asker: Asker, settings: Settings, reply: Callable[..., Message], until: int
    ) -> list[Effect]:
        """Tell every live member `settings`; answer `reply(everywhere=…)` when that is known."""
        peers = sorted(self._held.view.alive - {self._held.key})
        if not peers:
            return [asker.answer(reply(everywhere=True))]
        number = self._held.next_request()
        self._open[number] = _Change(asker, settings, reply, set(peers), until)
        return [Tell(peer, SettingsUpdate(settings=settings), number) for peer in peers]

    def acknowledged(self, header: Header, message: SettingsAck, _now: Instant) -> list[Effect]:
        """Count one member's acknowledgement, if its settings contain the change."""
        number, theirs = header.request, message.settings
        change = self._open.get(number)
        if change is None or theirs.merge(change.settings) != theirs:
            return []
        change.waiting.discard(header.sender)
        return [] if change.waiting else [self._close(number, everywhere=True)]

    def tick(self, now: Instant) -> list[Effect]:
        """Answer those whose deadline has come: the rest will hear by gossip."""
        overdue = [n for n, change in self._open.items() if change.until <= now.mono]
        return [self._close(number, everywhere=False) for number in sorted(overdue)]

    def wake_at(self) -> int:
        """Return the earliest deadline."""
        return min((change.until for change in self._open.values()), default=NEVER)

    def _close(self, number: int, *, everywhere: bool) -> Effect:
        change = self._open.pop(number)
        return change.asker.answer(change.reply(everywhere=everywhere))
