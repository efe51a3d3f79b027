"""Claims about members: which move somebody, and what is told of them."""

from __future__ import annotations

from typing import Any

from dcc.effects import Effect, Notify
from dcc.gossip.table import order_of, placement_of
from dcc.types import Member, Standing
from dcc.wire.codec import Header

EVENTS = {
    Standing.ALIVE: "member_alive",
    Standing.SUSPECT: "member_suspect",
    Standing.DEAD: "member_dead",
    Standing.REMOVED: "member_removed",
    Standing.LEFT: "member_left",
}


def moves(held: Member | None, claim: Member) -> bool:
    """Return whether a claim brings somebody new, or puts one that is `held` elsewhere."""
    if claim.standing > Standing.SUSPECT:
        return False
    if held is None:
        return True
    there = (held.boot, held.request, held.gossip) != (claim.boot, claim.request, claim.gossip)
    return there and order_of(claim) > order_of(held)


def dated(claim: Member, latest_ms: int) -> Member:
    """Return a claim of death no later than `latest_ms`."""
    if claim.standing < Standing.DEAD or claim.since_ms <= latest_ms:
        return claim
    return claim._replace(since_ms=latest_ms)


def changed(held: Member, row: Member) -> list[Effect]:
    """Return what is told of a change of one member's row."""
    if row.standing != held.standing:
        return [notice(EVENTS[row.standing], row)]
    if row.standing == Standing.ALIVE and placement_of(row) != placement_of(held):
        return [notice("member_updated", row)]
    return []


def notice(event: str, row: Member, **more: Any) -> Notify:
    """Return the notice of an event of one member."""
    fields = {
        "node": row.name,
        "key": row.key,
        "standing": row.standing.name.lower(),
        "incarnation": row.incarnation,
        **more,
    }
    return Notify(event, fields)


def dropped(header: Header, reason: str) -> Notify:
    """Return the notice of a message that was not taken in."""
    return Notify("message_dropped", {"reason": reason, "sender": header.sender})
