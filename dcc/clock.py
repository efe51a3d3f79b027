"""Cluster time and the stamps made from it.

A machine's **own clock** is its wall clock read once at start, plus monotonic time since; later
steps of the wall clock have no effect. **Cluster time** is the own clock plus an offset. What
decides the offset depends on how far cluster time is agreed upon (`Trust`):

    FREE       nothing was stamped or taken in yet: the offset follows the lower median of the
               members' own clocks, or the time of those who are further, and may step
    ANCHORED   from the first stamp on the offset stays, whoever comes, goes or restarts
    CONFIRMED  three clocks or more were read, and more than half of them agreed on a time; the
               offset has been that since, or is being slewed there; own clocks count no more

So time changes because a clock was read, never because somebody went, and what is compared among
those who are anchored is the cluster time that each believes, not its own clock. A node that starts
takes over the time of those who are anchored, whatever its own clock shows. Members that differ all
the same (clocks drift, clusters meet) follow the lower median of their times, if it is certainly
further away than `max_skew / 4`. Each sees all others too slow by the time on the way, so nothing
moves on the strength of one direction: an answer to a ping says what the ping's clock looked like,
and both directions together bound the difference from both sides. Nor does anything move because a
member's last word is older than a correction that both have agreed to.

**Nothing expires by a step.** An agreed correction is slewed: a twelfth faster or slower. A node
that must step forward to be with the others stamps by their time at once, and lets values expire
by a time that lags behind and catches up by a twelfth. One that steps back has stamps in the
future; until time has reached them it `is_ahead` and leaves stamping to others.

A stamp is a hybrid logical clock in one integer: milliseconds << 16 | counter. It exceeds every
stamp seen, so a write that knew of another one is newer than it; and it stays close to cluster
time, because stamps too far ahead are refused before they are seen.

Source: Kulkarni, Demirbas et al., "Logical Physical Clocks", OPODIS 2014, section 3 (the
difference: one 64-bit integer, a full counter carries into the milliseconds). Cristian,
"Probabilistic clock synchronization", 1989: a round trip bounds a difference from both sides.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from dcc.types import Boot, Claim, NodeKey, Now, Stamp, Trust
from dcc.units import MILLISECOND, NEVER, SECOND

COUNTER_BITS = 16

WINDOW_NS = 10 * SECOND
"A member's clock is read off the quickest of its messages in one to two windows."

SLEW = 12
"Corrections change the speed of time by one part in so many; as chrony does by default."

APART_NS = 3 * SECOND
"""So long a single other member must be seen at another time before it is followed: it is heard a
few times in it, so one message that is wrong changes nothing."""

SETTLE_NS = 5 * SECOND
"""A node that starts waits so long for the word of every member, if none of those who answered is
anchored: somebody slow may be."""

MS_MAX = 1 << 47
"No clock shows so much; as on the wire."


@dataclass(slots=True)
class _Bound:
    """The largest of the differences read in one to two windows; drift makes older ones void."""

    best: int
    newest: int
    until: int

    def take(self, difference: int, mono: int) -> None:
        if mono >= self.until:
            self.best, self.newest, self.until = self.newest, difference, mono + WINDOW_NS
        self.newest = max(self.newest, difference)
        self.best = max(self.best, self.newest)


@dataclass(slots=True)
class _Reading:
    """What is known of one member: their own clock minus ours, ms, and what they claim.

    Time on the way makes their clock look slow, so what they say of it is a lower bound; our own
    clock looked slow to them, so what they say of ours is an upper one.
    """

    boot: Boot
    low: _Bound
    high: _Bound | None = None
    "Negated, so that the largest counts there, too."
    claim: Claim | None = None
    claimed_at: int = 0
    slewed_ms: int = 0
    "How far this node had been slewed by then."

    @property
    def answered(self) -> bool:
        """Whether a ping of ours was answered: the difference is bounded from both sides."""
        return self.high is not None

    def bounds(self) -> tuple[int, int]:
        """Return the least and the largest that the difference can be."""
        low = self.low.best
        return low, MS_MAX if self.high is None else max(low, -self.high.best)

    def middle(self) -> int:
        """Return the likeliest difference: both ways take about as long."""
        low, high = self.bounds()
        return low if high == MS_MAX else (low + high) // 2

    def offset(self, mono: int) -> int:
        """Return cluster time minus their own clock, as they claim it to be now."""
        assert self.claim is not None
        return toward(self.claim.offset_ms, self.claim.target_ms, mono - self.claimed_at)

    def offsets(self, mono: int, slewed_ms: int) -> tuple[int, int]:
        """Return the least and the largest that this offset may be by now.

        Where it said to be going, or as far on as this node has been slewed since: it may have
        agreed to the same correction behind its last word.

        Args:
            slewed_ms: how far this node has been slewed up to now.
        """
        assert self.claim is not None
        said, along = self.offset(mono), self.claim.offset_ms + slewed_ms - self.slewed_ms
        return min(said, along), max(said, along)


def toward(start_ms: int, end_ms: int, elapsed_ns: int) -> int:
    """Return where an offset is that has been slewed from `start_ms` for `elapsed_ns`.

    >>> toward(0, 1_000, 6 * SECOND), toward(0, -100, 6 * SECOND)
    (500, -100)
    """
    way = elapsed_ns // (SLEW * MILLISECOND)
    return min(end_ms, start_ms + way) if end_ms > start_ms else max(end_ms, start_ms - way)


class ClusterClock:
    """One node's reading of cluster time and its last stamp."""

    def __init__(self, now: Now, *, max_skew_ms: int) -> None:
        self._base_ns = now.wall - now.mono
        self._max_skew_ms = max_skew_ms
        self._others: dict[NodeKey, _Reading] = {}
        self._offset_ms = self._target_ms = 0
        self._lag_ms = 0
        "By how much what expires lags behind, so that a step forward expires nothing."
        self._slewed_ms = 0
        "How far this node has been slewed since it started: forward less back."
        self._shift_ms = 0
        "Offset without lag: all that is added when the time is read."
        self._moved_at = now.mono
        self._apart_since = self._asked_at = NEVER
        self.trust: Trust = Trust.FREE
        self.settled: bool = False
        "Whether enough other clocks were read to trust this one; once true it stays so."
        self.last: Stamp = 0
        "The largest stamp made or seen; grows only."
        self._seen_first: Stamp | None = None
        "What `last` was before this node made its first stamp."

    # -------------------------------------------------------------- reading the time

    @property
    def offset_ms(self) -> int:
        """What is added to this machine's own clock, ms; how wrong the machine's clock is."""
        return self._offset_ms

    @property
    def moving(self) -> bool:
        """Whether `follow` has to be called ten times a second: time is being slewed."""
        return self._offset_ms != self._target_ms or self._lag_ms > 0

    def own_ms(self, mono: int) -> int:
        """Return this machine's wall time in ms, as started: what it tells the others."""
        return (self._base_ns + mono) // MILLISECOND

    def cluster_ms(self, mono: int) -> int:
        """Return cluster time in ms, by which values expire: it never steps forward."""
        return (self._base_ns + mono) // MILLISECOND + self._shift_ms

    def agreed_ms(self, cluster_ms: int) -> int:
        """Return what the others call the time `cluster_ms`: what is stamped goes by it."""
        return cluster_ms + self._lag_ms

    def claim(self, cluster_ms: int) -> Claim:
        """Return what this node tells the others of cluster time."""
        return Claim(self._offset_ms, self._target_ms, self.trust, self.is_ahead(cluster_ms))

    def skews_ms(self) -> dict[NodeKey, int]:
        """Return how far each member's own clock is ahead of this machine's, as last read."""
        return {member: reading.middle() for member, reading in sorted(self._others.items())}

    # -------------------------------------------------------------- stamps

    def next_stamp(self, cluster_ms: int, seen: Stamp = 0) -> Stamp:
        """Return a stamp above all made or seen here and above `seen`, and remember it."""
        if self.trust is Trust.FREE:
            self._anchor()
        if self._seen_first is None:
            self._seen_first = self.last
        self.last = max(self.agreed_ms(cluster_ms) << COUNTER_BITS, self.last + 1, seen + 1)
        return self.last

    @property
    def above(self) -> Stamp:
        """What all stamps made here since the start exceed, those to come included."""
        return self.last if self._seen_first is None else self._seen_first

    def witness(self, stamp: Stamp) -> None:
        """Remember a stamp that was accepted; own stamps will exceed it."""
        if stamp > self.last:
            self.last = stamp
            if self.trust is Trust.FREE:
                self._anchor()

    def too_far_ahead(self, stamp: Stamp, cluster_ms: int) -> bool:
        """Return whether `stamp` must be refused: it would drag time along with it."""
        return stamp >> COUNTER_BITS > self.agreed_ms(cluster_ms) + self._max_skew_ms

    def present(self, cluster_ms: int) -> Stamp:
        """Return the stamp to go on from for whoever has been refused one; it would be accepted."""
        now_ms = self.agreed_ms(cluster_ms)
        ahead_most = max(0, now_ms + self._max_skew_ms) << COUNTER_BITS
        return max(1, now_ms << COUNTER_BITS, min(self.last, ahead_most))

    def is_ahead(self, cluster_ms: int) -> bool:
        """Return whether what is stamped here might be refused elsewhere.

        So it is after a step back, until time has reached what was stamped before.
        """
        return self.last >> COUNTER_BITS > self.agreed_ms(cluster_ms) + self._max_skew_ms // 2

    def knows(self, member: NodeKey) -> bool:
        """Return whether what a member sends can be judged by the time: it is known, and theirs."""
        reading = self._others.get(member)
        return self.settled and reading is not None and reading.claim is not None

    def claims_ahead(self, member: NodeKey) -> bool:
        """Return whether a member said that its stamps are ahead."""
        reading = self._others.get(member)
        return reading is not None and reading.claim is not None and reading.claim.ahead

    # -------------------------------------------------------------- reading other clocks

    def observe(
        self,
        member: NodeKey,
        boot: Boot,
        their_own_ms: int,
        mono: int,
        *,
        claim: Claim | None = None,
        heard_ms: int | None = None,
    ) -> None:
        """Note what a member said its own clock was; O(1), O(members log members) while FREE.

        Another boot than before is another clock: what was read of the former one is void.

        Args:
            claim: what it said of cluster time, if it did.
            heard_ms: its own clock minus ours when it took the ping that this message answers.
        """
        if not 0 < their_own_ms < MS_MAX:
            return
        difference = their_own_ms - self.own_ms(mono)
        reading = self._others.get(member)
        if reading is None or reading.boot != boot:
            low = _Bound(difference, difference, mono + WINDOW_NS)
            self._others[member] = reading = _Reading(boot, low)
        else:
            reading.low.take(difference, mono)
        if heard_ms is not None and reading.high is None:
            reading.high = _Bound(-heard_ms, -heard_ms, mono + WINDOW_NS)
        elif heard_ms is not None and reading.high is not None:
            reading.high.take(-heard_ms, mono)
        if claim is not None:
            met = reading.claim is None
            reading.claim, reading.claimed_at = claim, mono
            reading.slewed_ms = self._slewed_ms
            if met and self.trust is not Trust.FREE:
                self.follow(mono)  # Before anything of a newly met member is judged by the time.
        if self.trust is Trust.FREE:
            self._choose(mono)

    def forget(self, member: NodeKey) -> None:
        """Read no more of a member that is not alive; once time is anchored, it stays for that."""
        self._others.pop(member, None)

    def settle(self, others: Collection[NodeKey], mono: int) -> bool:
        """Return `settled`, which becomes true once enough of the `others` were read.

        A machine whose clock is wrong must not stamp before it knows: what it stamps would be
        refused, or would beat newer writes. Two who are anchored and agree are enough, or one that
        is the only other member. Otherwise all must have answered, or, after `SETTLE_NS`, two.
        Where the anchored seem to disagree, word that was long on its way may do that alone: only
        their answers to pings of this node tell, since these bound the difference from both sides.
        """
        if self.settled:
            return True
        self._asked_at = min(self._asked_at, mono)
        needed = min(2, len(others))
        heard = [r for r in map(self._others.get, others) if r is not None and r.claim is not None]
        agreeing = self._agreeing(mono)
        clear = agreeing or all(reading.answered for reading in self._anchored())
        enough = (clear and len(heard) == len(others)) or len(agreeing) >= max(needed, 1)
        waited = mono - self._asked_at >= SETTLE_NS
        if enough or (waited and len(heard) >= needed):
            self.settled = True
            self._choose(mono)
            if self.last:
                self._anchor()
        return self.settled

    def unheard(self, others: Collection[NodeKey]) -> list[NodeKey]:
        """Return those of `others` whose claim was not heard yet, or else no answer, ascending."""
        read = {key: self._others.get(key) for key in sorted(others)}
        silent = [key for key, one in read.items() if one is None or one.claim is None]
        return silent or [key for key, one in read.items() if one is None or not one.answered]

    def follow(self, mono: int) -> None:
        """Slew what is to be slewed, and look at the others' times. O(members log members)."""
        elapsed_ns = mono - self._moved_at
        self._moved_at = mono - elapsed_ns % (SLEW * MILLISECOND)  # What is left over counts later.
        slewed_ms = toward(self._offset_ms, self._target_ms, elapsed_ns) - self._offset_ms
        self._offset_ms += slewed_ms
        self._slewed_ms += slewed_ms
        self._lag_ms = toward(self._lag_ms, 0, elapsed_ns)
        if self.trust is Trust.FREE:
            self._choose(mono)
        else:
            self._keep_up(mono)
            if self.trust is Trust.ANCHORED:
                self._confirm()
        self._shift_ms = self._offset_ms - self._lag_ms

    # -------------------------------------------------------------- deciding

    def _anchored(self) -> list[_Reading]:
        return [r for r in self._others.values() if r.claim is not None and r.claim.trust]

    def _choose(self, mono: int) -> None:
        """Take over the time of those who are anchored, or else the median of all clocks."""
        anchored = self._answered(self._agreeing(mono) or self._anchored())
        if anchored:
            anchored.sort(key=lambda reading: reading.middle() + reading.offset(mono))
            self._take_over(anchored[_lower_middle(len(anchored))], mono)
        else:
            self._offset_ms = self._target_ms = self._median_clock()[0]
        self._shift_ms, self._moved_at = self._offset_ms, mono

    def _take_over(self, reading: _Reading, mono: int) -> None:
        """Adopt the time of one member, and where it is going."""
        assert reading.claim is not None
        self._offset_ms = reading.middle() + reading.offset(mono)
        self._target_ms = reading.middle() + reading.claim.target_ms
        if self.settled:
            self.trust = max(self.trust, reading.claim.trust)

    def _agreeing(self, mono: int) -> list[_Reading]:
        """Return the anchored members that agree on the time, if more than half of them do."""
        anchored = self._anchored()
        times = sorted(r.middle() + r.offset(mono) for r in anchored)
        if not times:
            return []
        middle = times[_lower_middle(len(times))]
        found = [
            r for r in anchored if abs(r.middle() + r.offset(mono) - middle) <= self._max_skew_ms
        ]
        return found if 2 * len(found) > len(times) else []

    def _answered(self, readings: list[_Reading]) -> list[_Reading]:
        """Return those of `readings` that are bounded from both sides, or else all.

        What was long on its way looks slow, and only an answer to a ping tells how long it was.
        """
        return [reading for reading in readings if reading.answered] or readings

    def _median_clock(self) -> tuple[int, bool]:
        """Return the lower median of all own clocks beside ours, and whether it has a majority."""
        clocks = sorted([0, *(r.middle() for r in self._others.values() if r.claim is not None)])
        middle = clocks[_lower_middle(len(clocks))]
        count = sum(abs(clock - middle) <= self._max_skew_ms for clock in clocks)
        return middle, len(clocks) >= 3 and 2 * count > len(clocks)

    def _anchor(self) -> None:
        """Something has been stamped: from now on time goes on as it is."""
        if self.settled:
            middle, agreed = self._median_clock()
            same = agreed and abs(middle - self._offset_ms) <= self._max_skew_ms
            self.trust = max(self.trust, Trust.CONFIRMED if same else Trust.ANCHORED)

    def _confirm(self) -> None:
        """End the doubt in a time that few have agreed on: by three clocks, or by a member."""
        middle, agreed = self._median_clock()
        if agreed:
            self.trust = Trust.CONFIRMED
            if abs(middle - self._offset_ms) > self._max_skew_ms:
                self._target_ms = middle
            return
        for reading in self._anchored():
            assert reading.claim is not None
            apart = reading.middle() + reading.claim.target_ms - self._target_ms
            if reading.claim.trust is Trust.CONFIRMED and abs(apart) <= self._max_skew_ms // 4:
                self.trust = Trust.CONFIRMED

    def _keep_up(self, mono: int) -> None:
        """Go with the majority of those who are anchored, once it is certainly elsewhere.

        One member against this one is no majority: of the two the slower is followed, if it
        stays there for a while. Nothing expires by the faster one meanwhile.
        """
        band, mine = self._max_skew_ms // 4, self._offset_ms
        lows: list[tuple[int, _Reading | None]] = [(0, None)]
        highs: list[tuple[int, _Reading | None]] = [(0, None)]
        for reading in self._anchored():
            low, high = reading.bounds()
            least, most = reading.offsets(mono, self._slewed_ms)
            lows.append((low + least - mine, reading))
            highs.append((high + most - mine, reading))
        middle = _lower_middle(len(lows))
        forward, leading = sorted(lows, key=_time)[middle]
        back, trailing = sorted(highs, key=_time)[middle]
        other = leading if forward > band else trailing if back < -band else None
        if other is None:
            self._apart_since = NEVER
            return
        self._apart_since = min(self._apart_since, mono)
        self._lag_ms = max(self._lag_ms, -back)
        if len(lows) > 2 or mono - self._apart_since >= APART_NS:
            self._apart_since = NEVER
            self._take_over(other, mono)
            self._lag_ms = max(0, self._lag_ms + self._offset_ms - mine)


def _lower_middle(count: int) -> int:
    return (count - 1) // 2


def _time(one: tuple[int, _Reading | None]) -> int:
    return one[0]
