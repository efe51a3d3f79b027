"""Keys that are read so often that all their owners should serve them.

Reads go to the primary, so one key that everybody reads makes its node busier than all others. A
node looks at one in `EVERY` of its hits and counts the keys (`dcc/store/frequent.py`). Once a
second it judges which of them are *hot*: they make up a share of what this node serves, at a rate
that is worth it. The answer to a read that is looked at says whether its key is hot; a client that
is told so asks the key's owners in turn for a while (`dcc/client/spreading.py`).

Once it is spread, each owner serves its part only. So a key that is hot stays hot until its rate
here is far below that by which it became so.

Only the answers to clients tell it, and a wrong judgement costs nothing but balance. What a client
finds at another owner is bound by the rules of every read: a node that may be behind asks first,
and no client takes what it has outlived.

Ends: what is not read fades within seconds. Bounded: `PLACES` keys are counted.

A load that goes round in a circle of a few keys may meet but some of them at the hits that are
looked at, so their rates come out higher than they are and those of the others lower.
"""

from __future__ import annotations

from typing import NamedTuple

from dcc.replication.holdings import Holdings
from dcc.replication.served import EVERY, ServedKeys
from dcc.ring.hashing import slot_of
from dcc.store.frequent import Frequent, SpaceSaving
from dcc.units import SECOND

PLACES = 512
"A key with one part in as many of the reads is surely counted: several times finer than `SHARE`."
SHARE = 100
"One part in so many of what a node serves: fewer keys would be too few to balance five nodes by."
RATE = 64
"Reads a second, here: one core serves two hundred times as many, so fewer are not worth a word."
FADES_NS = 2 * SECOND
"Counts halve in as long: short enough for what becomes popular, long enough not to flicker."
TOLD = 50
"Of the keys read most, for the statistics of a node."


class Popular(NamedTuple):
    """A key that is read much."""

    key: bytes
    rate: float
    "Reads a second that were served here."
    hot: bool


class HotKeys:
    """Which keys are read most at this node."""

    def __init__(self, holdings: Holdings, named: ServedKeys) -> None:
        self._held, self._named = holdings, named
        self._reads = SpaceSaving(PLACES)
        self._hot: frozenset[bytes] = frozenset()
        self._began_at = self._faded_at = -1
        self._seconds = 0.0
        "What the counts are of, faded like them."

    def __len__(self) -> int:
        return len(self._reads)

    @property
    def hot(self) -> int:
        """How many keys are hot here."""
        return len(self._hot)

    def served(self, key: bytes) -> bool:
        """Count a hit that is looked at; return whether its key is hot. O(1)."""
        self._named.served(key)
        self._reads.count(key)
        return key in self._hot

    def judge(self, mono: int) -> None:
        """Judge which keys are hot; called about once a second. O(places log places)."""
        if self._began_at < 0:
            self._began_at = self._faded_at = mono
            return
        self._seconds += (mono - self._began_at) / SECOND
        self._began_at = mono
        self._hot = frozenset([
            one.item for one in self._reads.top(PLACES) if self._is_hot(one)
        ])  # fmt: skip
        if mono - self._faded_at >= FADES_NS:
            self._faded_at = mono
            self._reads.fade()
            self._seconds /= 2

    def top(self, most: int = TOLD) -> list[Popular]:
        """Return the keys read most, the first first. O(places log places)."""
        seconds = max(self._seconds, 1.0)
        return [
            Popular(one.item, one.times * EVERY / seconds, one.item in self._hot)
            for one in self._reads.top(most)
        ]

    def check(self) -> None:
        """Assert the invariants."""
        self._reads.check()
        assert len(self._hot) <= PLACES

    def _is_hot(self, one: Frequent) -> bool:
        owners = len(self._held.view.route(slot_of(one.item)))
        if owners < 2:
            return False
        surely = one.times - one.error
        # What is spread already was met at its other owners as well, and may fall by half besides.
        weight = surely * 2 * owners if one.item in self._hot else surely
        often = weight * EVERY >= RATE * self._seconds
        return often and weight * SHARE >= self._reads.total
