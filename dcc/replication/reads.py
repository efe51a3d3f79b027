"""One read: a hit, an authoritative miss, or an unsure miss.

`certainty` says what a node may answer alone, and which others it has to ask before. After others
were asked a miss is authoritative if all have answered and nothing stands against it, else unsure.
What is found is installed, so the next reader finds it here.

A read may want the word of `r` owners (or their stand-ins), this node's own included. Then all
the others are asked even when there is a hit at hand, and holders that this node is not in sync
with besides, so that an acknowledged write is met in whatever view it was made; `r` answers and
those holders' end the question, and the newest version wins. An owner that answered with an older
version is sent the newest one, unless that is so young that it may still be on its way: hints to
owners that merely lag would make them lag more. If such a repair is lost, an exchange makes it
good, as it would have done without it.
"""

from __future__ import annotations

from typing import NamedTuple

from dcc.effects import Effect
from dcc.replication.certainty import Certainty
from dcc.replication.holdings import Asker, Holdings, Instant
from dcc.replication.hot import HotKeys
from dcc.replication.questions import Questions, Quorum, Verdict
from dcc.replication.quorum import needed
from dcc.replication.served import EVERY as NAMED
from dcc.replication.staleness import EVERY, STAMP_MS_BITS, Staleness
from dcc.replication.streams import Streams
from dcc.ring.hashing import slot_of
from dcc.types import NO_VERSION, PREV_UNKNOWN, Kind, NodeKey, Record, Version
from dcc.wire.messages import Code, ErrorReply, GetReply, Status

REPAIR_AGE_MS = 1_000
"A younger version is still on its way to the owners that lack it."

REPAIRS_MAX = 1_024
"Repairs remembered, so that many reads of one key send it to one owner once."


class _Waiting(NamedTuple):
    asker: Asker
    slot: int
    key: bytes
    decides: bool
    "Whether the answers of all that were asked make a miss authoritative."
    held: Version
    "What was held here of the key when the question was put."
    needed: int = 1
    route: tuple[NodeKey, ...] = ()
    "Whose answers count, this node included if it is one of them; empty for a plain read."
    asked: tuple[NodeKey, ...] = ()
    aside: bool = False
    until: int = 0
    found: Record | None = None
    "What an earlier question has found; it need not be held here."


class Reads:
    """Answers reads from the store, and asks around where that is not enough."""

    def __init__(
        self,
        holdings: Holdings,
        certainty: Certainty,
        questions: Questions,
        streams: Streams,
        staleness: Staleness,
        hot: HotKeys,
    ) -> None:
        self._held, self._certainty, self._questions = holdings, certainty, questions
        self._streams, self._staleness, self._hot = streams, staleness, hot
        self._waiting: dict[int, _Waiting] = {}
        self._repaired: dict[tuple[NodeKey, Version], None] = {}
        self.hits: int = 0
        self.misses: int = 0
        self.unsure: int = 0
        self.read_repairs: int = 0

    @property
    def repairs(self) -> int:
        """Repairs remembered."""
        return len(self._repaired)

    def get(
        self,
        asker: Asker,
        key: bytes,
        now: Instant,
        *,
        r: int = 1,
        until: int = 0,
        aside: bool = False,
    ) -> list[Effect]:
        """Answer one GET that wants the word of `r` owners, now or after asking others.

        Holders that live are given most of the time until `until`, the reader's deadline: one of
        them may have what is absent here, and a busy machine may keep it from saying so at once.
        With `aside` the reader found the primary silent.
        """
        slot, held = slot_of(key), self._held
        wanted = needed(r, held.view.replicas + 1)
        if wanted > 1:
            return self._get_by_quorum(asker, slot, key, wanted, until, now)
        entry = held.store.get(slot, key, now.ms)
        if entry is not None:
            inquiry = self._certainty.of_hit(slot, aside=aside)
            if not inquiry.peers:
                return [self._hit(asker, key, entry.version, entry.value, entry.expires_at_ms, now)]
        else:
            inquiry = self._certainty.of_absence(slot, key, aside=aside)
            if not inquiry.peers:
                return [asker.answer(self._miss(authoritative=inquiry.decides))]
        patience_ns = (until - now.mono) * 3 // 4 if inquiry.decides else 0
        unknown = held.store.peek(slot, key) is None
        number, effects = self._questions.ask(
            key, inquiry.peers, now, until=now.mono + patience_ns, first_alone=unknown,
            for_newer=entry is not None,
        )  # fmt: skip
        version = entry.version if entry is not None else NO_VERSION
        self._waiting[number] = _Waiting(
            asker, slot, key, inquiry.decides, version,
            asked=inquiry.peers, aside=aside, until=until,
        )  # fmt: skip
        return effects

    def has(self, key: bytes) -> bool:
        """Return whether a value of `key` is held here, owned or not; it may have expired."""
        entry = self._held.store.peek(slot_of(key), key)
        return entry is not None and entry.kind is Kind.VALUE

    def _get_by_quorum(
        self, asker: Asker, slot: int, key: bytes, wanted: int, until: int, now: Instant
    ) -> list[Effect]:
        held = self._held
        route = held.view.route(slot)
        if wanted > len(route):
            text = f"r = {wanted}, live owners and stand-ins {len(route)}"
            return [asker.answer(ErrorReply(code=Code.QUORUM_NOT_REACHED, text=text))]
        inquiry = self._certainty.of_quorum(slot, key)
        quorum = Quorum(
            tuple([peer for peer in route if peer != held.key]), wanted - (held.key in route)
        )
        patience_ns = (until - now.mono) * 3 // 4
        number, effects = self._questions.ask(
            key, inquiry.peers, now, quorum, until=now.mono + patience_ns
        )
        entry = held.store.peek(slot, key)
        version = entry.version if entry is not None else NO_VERSION
        self._waiting[number] = _Waiting(
            asker, slot, key, inquiry.decides, version, wanted, route,
            asked=route + inquiry.peers, until=until,
        )  # fmt: skip
        return effects

    def resume(self, verdict: Verdict, now: Instant) -> list[Effect]:
        """Finish the read whose question has ended; nothing if it is not one of reads."""
        waiting = self._waiting.pop(verdict.question, None)
        if waiting is None:
            return []
        route = waiting.route
        authoritative = self._certainty.after(verdict, waiting.slot, waiting.key)
        record = self._best(waiting, verdict, now)
        if route and not (verdict.enough and verdict.answered):
            # r owners may have answered, but a holder that this node is not in sync with has
            # not, or one that answered is out of sync itself: either may hide a write.
            got = sum(peer == self._held.key or peer in verdict.versions for peer in route)
            text = f"r = {waiting.needed}, only {got} of the owners answered in time"
            if got >= waiting.needed:
                text = f"r = {waiting.needed}, a holder that may know more has not answered in time"
            refusal = ErrorReply(code=Code.QUORUM_NOT_REACHED, text=text)
            return [waiting.asker.answer(refusal)]
        if route:
            self._repair(waiting, verdict, now)
        if record is not None:
            others = self._to_ask_still(waiting)
            if others and now.mono < waiting.until:
                return self._ask_on(waiting, record, others, now)
        if record is None:
            authoritative = authoritative and waiting.decides
            return [waiting.asker.answer(self._miss(authoritative=authoritative))]
        self.read_repairs += record.version != waiting.held
        return [
            self._hit(
                waiting.asker, record.key, record.version, record.value, record.expires_at_ms, now
            )
        ]

    def _to_ask_still(self, waiting: _Waiting) -> tuple[NodeKey, ...]:
        """Return peers that came to know better than a value while others were asked for it."""
        now = self._certainty.of_hit(waiting.slot, aside=waiting.aside)
        return tuple([peer for peer in now.peers if peer not in waiting.asked])

    def _ask_on(
        self, waiting: _Waiting, found: Record, peers: tuple[NodeKey, ...], now: Instant
    ) -> list[Effect]:
        """Ask `peers` for a newer version than the one found; a quorum has had its word already."""
        patience_ns = (waiting.until - now.mono) * 3 // 4
        number, effects = self._questions.ask(
            waiting.key, peers, now, until=now.mono + patience_ns, for_newer=True
        )
        self._waiting[number] = waiting._replace(
            asked=waiting.asked + peers, needed=1, route=(), found=found
        )
        return effects

    def _best(self, waiting: _Waiting, verdict: Verdict, now: Instant) -> Record | None:
        """Return the newest live value known after a verdict; None = absent."""
        store, slot, key = self._held.store, waiting.slot, waiting.key
        newest, found = verdict.newest, waiting.found
        if found is not None and found.version != verdict.gone:
            newest = found if newest is None or newest.version < found.version else newest
        entry = store.get(slot, key, now.ms)
        if entry is not None and (newest is None or newest.version <= entry.version):
            return None if entry.version == verdict.gone else entry.record()
        held = store.peek(slot, key)
        if newest is None or newest.kind is not Kind.VALUE:
            return None
        # Not held here: this node coordinates for others, or had no room for it.
        expired = 0 < newest.expires_at_ms <= now.ms
        outdated = held is not None and held.version > newest.version
        gone = newest.version.stamp <= store.cleared
        gone = gone or store.graves.hide(slot, key, newest.version)
        return None if expired or outdated or gone else newest

    def _repair(self, waiting: _Waiting, verdict: Verdict, now: Instant) -> None:
        """Send the newest version to the owners that have answered with an older one."""
        held = self._held
        entry = held.store.peek(waiting.slot, waiting.key)
        newest = verdict.newest
        if entry is not None and (newest is None or entry.version >= newest.version):
            newest = entry.record()
        if (
            newest is None
            or newest.kind is Kind.EVICTED
            or newest.version.stamp <= held.store.cleared
        ):
            return
        if now.ms - (newest.version.stamp >> STAMP_MS_BITS) < REPAIR_AGE_MS:
            return
        for peer in waiting.route:
            repair = (peer, newest.version)
            answered = verdict.versions.get(peer, newest.version)
            if answered < newest.version and self._may_repair(repair):
                self._streams.offer(peer, newest._replace(prev=PREV_UNKNOWN), now.mono)
                self.read_repairs += 1

    def _may_repair(self, repair: tuple[NodeKey, Version]) -> bool:
        """Return whether that version is to be sent to that owner: it is not on its way yet."""
        if repair in self._repaired or self._streams.carries(*repair):
            return False
        if len(self._repaired) >= REPAIRS_MAX:
            self._repaired.clear()
        self._repaired[repair] = None
        return True

    def _hit(
        self, asker: Asker, key: bytes, version: Version, value: bytes, expires_at_ms: int,
        now: Instant,
    ) -> Effect:  # fmt: skip
        self.hits += 1
        if not self.hits % EVERY:
            self._staleness.served(key, version, now.ms)
        hot = not self.hits % NAMED and self._hot.served(key)
        reply = GetReply(
            status=Status.HIT, version=version, value=value, expires_at_ms=expires_at_ms, hot=hot
        )
        return asker.answer(reply)

    def _miss(self, *, authoritative: bool) -> GetReply:
        if authoritative:
            self.misses += 1
        else:
            self.unsure += 1
        status = Status.MISS if authoritative else Status.UNSURE
        return GetReply(status=status, version=NO_VERSION, value=b"", expires_at_ms=0)
