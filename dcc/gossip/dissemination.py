"""Dissemination: which rumors travel in the next packet.

A rumor is a whole `Member`. Each is sent a bounded number of times by each member that learned
it, riding on pings, acks and ping-reqs, and in packets of its own every gossip interval. Rumors
that were sent least go first, so that news is never starved by what everybody has heard, and a
newer rumor about a member replaces the queued one. With a limit that grows with log n, everybody
is reached with high probability (an epidemic), and traffic ends by itself.

The queue is a row of buckets by times sent: choosing costs O(rumors taken + rumors too large),
independently of the queue's length. Sizes are added up from upper bounds, never measured by
packing.

Source: SWIM (Das, Gupta, Motivala, DSN 2002), dissemination by piggybacking; hashicorp/memberlist
`retransmitLimit` and its preference for the least-sent broadcast.
"""

from __future__ import annotations

from math import ceil, log10

from dcc.limits import GOSSIP_BYTES_MAX
from dcc.types import Member, NodeKey

RETRANSMIT_MULT = 4
"memberlist's LAN default."

PACKET_BYTES = 119
"Upper bound of a gossip message without rumors: topic, prefix, header, seq, target, root."

MEMBER_BYTES = 71
"Upper bound of a packed member without its texts: nine bytes a number, length bytes, flags."

MISFITS_MAX = 8
"Rumors too large for the rest of a packet that are passed over before it goes as it is."


def retransmit_limit(members: int) -> int:
    """Return how often each member sends a rumor.

    >>> [retransmit_limit(n) for n in (1, 3, 16, 128)]
    [4, 4, 8, 12]
    """
    return RETRANSMIT_MULT * max(1, ceil(log10(members + 1)))


def packed_bytes(member: Member) -> int:
    """Return an upper bound of the bytes that `member` takes in a message."""
    texts = member.name + member.request + member.gossip + member.zone
    return MEMBER_BYTES + (len(texts) if texts.isascii() else len(texts.encode()))


class _Rumor:
    """A queued rumor; `sent` is also the number of its bucket."""

    __slots__ = ("bytes", "member", "sent")

    def __init__(self, member: Member) -> None:
        self.member = member
        self.bytes = packed_bytes(member)
        self.sent = 0


class RumorQueue:
    """Rumors still to be spread, at most one per member (so at most MEMBERS_MAX)."""

    def __init__(self) -> None:
        self._rumors: dict[NodeKey, _Rumor] = {}
        self._buckets: list[dict[NodeKey, _Rumor]] = [{}]

    def put(self, key: NodeKey, member: Member) -> None:
        """Queue news about the member `key`, in place of what was queued about it."""
        self.drop(key)
        self._rumors[key] = self._buckets[0][key] = _Rumor(member)

    def drop(self, key: NodeKey) -> None:
        """Spread nothing more about the member `key`."""
        rumor = self._rumors.pop(key, None)
        if rumor is not None:
            del self._buckets[rumor.sent][key]

    def clear(self) -> None:
        """Spread nothing any more."""
        self._rumors.clear()
        self._buckets = [{}]

    def take(
        self, limit: int, *, first: tuple[Member, ...] = (), bytes_max: int = GOSSIP_BYTES_MAX
    ) -> tuple[Member, ...]:
        """Return the rumors for one packet, and count them as sent once more.

        Args:
            limit: a rumor is forgotten when it was sent this often.
            first: rows that go in before the others, queued or not.
        """
        if not self._rumors:
            return first
        room = bytes_max - PACKET_BYTES - sum(map(packed_bytes, first))
        chosen = self._choose(room, tuple([member.name for member in first]))
        for key, rumor in chosen:
            self._count(key, rumor, limit)
        return first + tuple([rumor.member for _, rumor in chosen])

    def _choose(self, room: int, about: tuple[str, ...]) -> list[tuple[NodeKey, _Rumor]]:
        chosen: list[tuple[NodeKey, _Rumor]] = []
        misfits = 0
        for bucket in self._buckets:
            for key, rumor in bucket.items():
                if room < MEMBER_BYTES or misfits > MISFITS_MAX:
                    return chosen
                if rumor.bytes > room:
                    misfits += 1
                elif rumor.member.name not in about:
                    chosen.append((key, rumor))
                    room -= rumor.bytes
        return chosen

    def _count(self, key: NodeKey, rumor: _Rumor, limit: int) -> None:
        del self._buckets[rumor.sent][key]
        rumor.sent += 1
        if rumor.sent >= limit:
            del self._rumors[key]
            return
        if rumor.sent == len(self._buckets):
            self._buckets.append({})
        self._buckets[rumor.sent][key] = rumor

    def __contains__(self, key: NodeKey) -> bool:
        return key in self._rumors

    def __len__(self) -> int:
        return len(self._rumors)

    def check(self) -> None:
        """Assert that every rumor is in the bucket of the times it was sent, and no other."""
        assert sum(len(bucket) for bucket in self._buckets) == len(self._rumors)
        for key, rumor in self._rumors.items():
            assert self._buckets[rumor.sent][key] is rumor
            assert rumor.member.key == key


def fit(members: list[Member], bytes_max: int) -> tuple[Member, ...]:
    """Return the leading `members` that together take at most `bytes_max`."""
    room = bytes_max
    for count, member in enumerate(members):
        room -= packed_bytes(member)
        if room < 0:
            return tuple(members[:count])
    return tuple(members)
