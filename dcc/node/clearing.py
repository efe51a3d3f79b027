"""`clear`: raise the cluster's cleared stamp and wait until every live member has taken it.

The stamp also travels in every join, push/pull and rumor, so a member that is away takes it when
it returns, before it serves; the waiting here only tells the caller how far it has come.
"""

from __future__ import annotations

from dataclasses import dataclass

from dcc.effects import Effect, Tell
from dcc.replication.holdings import Asker, Holdings, Instant
from dcc.types import NodeKey, Settings
from dcc.units import NEVER
from dcc.wire.messages import ClearReply, SettingsUpdate


@dataclass(slots=True)
class _Clearing:
    asker: Asker
    stamp: int
    waiting: set[NodeKey]
    until: int


class Clearings:
    """The clear requests that wait for acknowledgements."""

    def __init__(self, holdings: Holdings) -> None:
        self._held = holdings
        self._open: dict[int, _Clearing] = {}

    def begin(self, asker: Asker, settings: Settings, until: int) -> list[Effect]:
        """Tell every live member the settings that hold the new stamp."""
        peers = sorted(self._held.view.alive - {self._held.key})
        if not peers:
            return [asker.answer(ClearReply(stamp=settings.cleared, everywhere=True))]
        number = self._held.next_request()
        self._open[number] = _Clearing(asker, settings.cleared, set(peers), until)
        return [Tell(peer, SettingsUpdate(settings=settings), number) for peer in peers]

    def acknowledged(self, peer: NodeKey, number: int, settings: Settings) -> list[Effect]:
        """Count one member's acknowledgement."""
        clearing = self._open.get(number)
        if clearing is None or settings.cleared < clearing.stamp:
            return []
        clearing.waiting.discard(peer)
        return [] if clearing.waiting else [self._close(number, everywhere=True)]

    def tick(self, now: Instant) -> list[Effect]:
        """Answer those whose deadline has come: the rest will hear by gossip."""
        overdue = [n for n, clearing in self._open.items() if clearing.until <= now.mono]
        return [self._close(number, everywhere=False) for number in sorted(overdue)]

    def wake_at(self) -> int:
        """Return the earliest deadline."""
        return min((clearing.until for clearing in self._open.values()), default=NEVER)

    def _close(self, number: int, *, everywhere: bool) -> Effect:
        clearing = self._open.pop(number)
        return clearing.asker.answer(ClearReply(stamp=clearing.stamp, everywhere=everywhere))
