"""A value is made once though many miss it: a lease beside the key, and who has it makes the value.

    hit, fresh ───────────────────────────────────────────▶ the value
    hit, stale or refreshed early ── lease? ── no ────────▶ the value that is there
                                        │ yes
    miss ── lease? ── yes ──▶ look again ── hit ─▶ release ▶ the value
              │ no                │ miss
        pause, look again      factory ── raises ─▶ release ▶ the error
              │ hit               │ value
              ▼               lease still ours? ── no ────▶ the value, not stored
           the value              │ renewed
                               put, release ──────────────▶ the value

*The lease* is a record under a key of its own, made by `add` with a time to live: the primary of
that key decides who has it, and it ends by itself when its holder dies. It is released by letting
it expire at once, only at the version that was taken. So no message is there for leases alone. The
two sides of a partition have a holder each, and a lease that was lost with its primary may have
two: it keeps work away, it is no lock.

*Who waits* looks for the value and tries the lease in turn, after growing random pauses. When a
factory raises, its holder alone is told; the next one that comes by tries. After the time to wait a
waiter gives up.

*Look again.* Between a miss and the lease another holder may have stored and released.

*Invalidation* takes the lease away before it deletes the value. What the holder of that lease is
making was read before, so it is not stored: the holder renews the lease first, at the version that
was taken, and the primary of the lease decides. A lease that has ended is not renewed either, since
nobody could tell any more whether the value was invalidated meanwhile.

*Refreshing* takes the lease over, whoever has it, because what its reader makes is newer.

*Early refresh.* One reader makes a value anew before it expires, chosen by chance: the nearer the
end and the costlier the value, the likelier. How long a value took is known to who made it.

Source: Vattani, Chierichetti, Lowenstein, "Optimal probabilistic cache stampede prevention", VLDB
2015, for the early refresh; Nishtala et al., "Scaling Memcache at Facebook", NSDI 2013, for leases.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Generator
from itertools import islice
from typing import Any, NamedTuple

from dcc.errors import DccError, MaybeStored, NotMade
from dcc.limits import KEY_BYTES_MAX
from dcc.types import Version
from dcc.units import MILLISECOND
from dcc.wire.messages import Get, GetReply, Op, Outcome, Status, Write, WriteReply

SUFFIX = b":dcc-lease"
PAUSE_FIRST_NS = 10 * MILLISECOND
PAUSE_MOST_NS = 250 * MILLISECOND
PAUSE_GROWS = 1.5
COSTS_MAX = 4_096
"Keys whose cost a client remembers."


class Recipe(NamedTuple):
    """How a value is kept and made; all times but `beta` in ms."""

    ttl_ms: int
    "Until it is stale; 0 = never."
    stale_ms: int
    "For so long it is kept after that, and handed out while somebody makes it anew."
    lease_ms: int
    wait_ms: int
    beta: float
    "1: early refresh as the source has it; more is earlier, 0 never."
    w: int = 1
    "Owners that must have the value, and the lease."

    @property
    def kept_ms(self) -> int:
        """The time to live of what is stored; 0 = never ends."""
        return self.ttl_ms + self.stale_ms if self.ttl_ms else 0


class Pause(NamedTuple):
    """A step: let so much time pass."""

    ns: int


class Make(NamedTuple):
    """A step: call the factory; its value is sent back, or its error thrown in."""


class Interrupted(Exception):
    """A step was broken off: the factory raised, or a signal or a cancellation came in between."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


class _Lease(NamedTuple):
    key: bytes
    version: Version
    token: bytes
    "Its value, by which its holder knows it again."


Step = Get | Write | Pause | Make
Plan = Generator[Step, Any, bytes]


class Stampede:
    """Plans of one client that make values. Chance and time come from the shell.

    A plan is driven by whoever carries out its steps. An operation is answered with its reply, or
    its `DccError` is thrown in; whatever else a step raises is thrown in as `Interrupted`.
    """

    def __init__(
        self,
        rng: Callable[[], float],
        mono: Callable[[], int],
        cluster_ms: Callable[[], int],
    ) -> None:
        self._rng, self._mono, self._cluster_ms = rng, mono, cluster_ms
        self._costs: dict[bytes, int] = {}
        "Key -> ns that its factory took last."

    def get_or_put(self, key: bytes, recipe: Recipe) -> Plan:
        """Return the value of `key`, made by the factory if nobody has it or makes it."""
        found: GetReply = yield Get(key=key)
        if found.status is not Status.HIT:
            return (yield from self._absent(key, recipe))
        left_ms = self._left_ms(found, recipe)
        if left_ms > 0 and not self._is_chosen(key, left_ms, recipe):
            return found.value
        try:
            lease = yield from self._take(key, recipe)
        except DccError:
            return found.value
        if lease is None:
            return found.value
        try:
            return (yield from self._make(key, recipe, lease, found.version))
        except Interrupted as broken:
            if left_ms > 0 and isinstance(broken.error, Exception):
                return found.value  # It is still good, and its reader has not asked for another.
            raise

    def refresh(self, key: bytes, recipe: Recipe) -> Plan:
        """Return the value of `key`, made now, whatever is there."""
        lease = yield from self._take(key, recipe, Op.PUT)
        assert lease is not None, "a put is done, or raises"
        return (yield from self._made(key, recipe, lease, quietly=False))

    def invalidate(self, key: bytes) -> Generator[Step, Any, bool]:
        """Delete `key`, and let nobody store what is being made of it; true if it was there."""
        yield Write(op=Op.DELETE, key=lease_key(key))
        reply: WriteReply = yield Write(op=Op.DELETE, key=key)
        return reply.outcome is Outcome.DONE

    # -------------------------------------------------------------- when

    def _left_ms(self, found: GetReply, recipe: Recipe) -> float:
        """Return for how long a value is fresh; not above 0 = stale."""
        if not found.expires_at_ms or not recipe.ttl_ms:
            return math.inf
        return found.expires_at_ms - recipe.stale_ms - self._cluster_ms()

    def _is_chosen(self, key: bytes, left_ms: float, recipe: Recipe) -> bool:
        """Return whether this reader refreshes early; by chance."""
        cost_ns = self._costs.get(key, 0)
        if not cost_ns or left_ms == math.inf:
            return False
        ahead = -math.log(1.0 - self._rng())
        return cost_ns * recipe.beta * ahead >= left_ms * MILLISECOND

    def _note_cost(self, key: bytes, took_ns: int) -> None:
        costs = self._costs
        if len(costs) >= COSTS_MAX and key not in costs:
            for one in list(islice(costs, COSTS_MAX // 2)):
                del costs[one]
        costs[key] = max(1, took_ns)

    # -------------------------------------------------------------- steps

    def _absent(self, key: bytes, recipe: Recipe) -> Plan:
        give_up_at = self._mono() + recipe.wait_ms * MILLISECOND
        pause_ns: float = PAUSE_FIRST_NS
        while True:
            lease = yield from self._take(key, recipe)
            if lease is not None:
                return (yield from self._make(key, recipe, lease, None))
            yield Pause(int(pause_ns * (0.5 + self._rng())))
            pause_ns = min(pause_ns * PAUSE_GROWS, PAUSE_MOST_NS)
            found: GetReply = yield Get(key=key)
            if found.status is Status.HIT:
                return found.value
            if self._mono() >= give_up_at:
                raise NotMade("others were to make the value, and have not in time")

    def _take(
        self, key: bytes, recipe: Recipe, op: Op = Op.ADD
    ) -> Generator[Step, Any, _Lease | None]:
        """Return the lease of `key` if it was free; by a put whoever has it."""
        name, token = lease_key(key), b"%016x" % int(self._rng() * (1 << 64))
        take = Write(op=op, key=name, value=token, ttl_ms=recipe.lease_ms, w=recipe.w)
        try:
            reply: WriteReply = yield take
        except MaybeStored:
            lease = yield from self._found(name, token)
            if lease is None and op is Op.PUT:
                raise
            return lease
        except Interrupted:  # The lease may be ours all the same.
            lease = yield from self._found(name, token)
            if lease is not None:
                yield from self._release(lease)
            raise
        return _Lease(name, reply.version, token) if reply.outcome is Outcome.DONE else None

    def _found(self, name: bytes, token: bytes) -> Generator[Step, Any, _Lease | None]:
        """Return the lease that may have been taken or renewed, if it is there."""
        held: GetReply | None = yield from self._quietly(Get(key=name))
        if held is None or held.status is not Status.HIT or held.value != token:
            return None
        return _Lease(name, held.version, token)

    def _make(self, key: bytes, recipe: Recipe, lease: _Lease, old: Version | None) -> Plan:
        """Make the value as the holder of the lease; `old` is the version to be replaced."""
        again = yield from self._quietly(Get(key=key))
        if again is not None and again.status is Status.HIT and again.version != old:
            yield from self._release(lease)
            value: bytes = again.value
            return value
        return (yield from self._made(key, recipe, lease, quietly=True))

    def _made(self, key: bytes, recipe: Recipe, lease: _Lease, *, quietly: bool) -> Plan:
        """Call the factory, store what it made if the lease is still ours, and give that back.

        `quietly`: a value that could not be stored is good for its caller all the same.
        """
        began = self._mono()
        try:
            value: bytes = yield Make()
            self._note_cost(key, self._mono() - began)
            renewed = yield from self._renew(lease, recipe)
            if renewed is not None:
                lease = renewed
                put = self._write(Op.PUT, key, value, recipe)
                if quietly:
                    yield from self._quietly(put)
                else:
                    yield put
        except (Interrupted, DccError):
            yield from self._release(lease)
            raise
        yield from self._release(lease)
        return value

    def _renew(self, lease: _Lease, recipe: Recipe) -> Generator[Step, Any, _Lease | None]:
        """Return the lease renewed for as long as storing takes; None: it is not surely ours."""
        renew = Write(
            op=Op.REPLACE, key=lease.key, value=lease.token, ttl_ms=recipe.lease_ms,
            expected=lease.version,
        )  # fmt: skip
        try:
            reply: WriteReply = yield renew
        except MaybeStored:
            return (yield from self._found(lease.key, lease.token))
        except DccError:
            return None
        return lease._replace(version=reply.version) if reply.outcome is Outcome.DONE else None

    def _release(self, lease: _Lease) -> Generator[Step, Any, None]:
        """Let the lease expire now if it is still ours."""
        release = Write(op=Op.REPLACE, key=lease.key, ttl_ms=1, expected=lease.version)
        yield from self._quietly(release)

    def _write(self, op: Op, key: bytes, value: bytes, recipe: Recipe) -> Write:
        return Write(op=op, key=key, value=value, ttl_ms=recipe.kept_ms, w=recipe.w)

    def _quietly(self, operation: Get | Write) -> Generator[Step, Any, Any]:
        """Return the reply to an operation, None if it fails."""
        try:
            return (yield operation)
        except DccError:
            return None


def lease_key(key: bytes) -> bytes:
    """Return the key of the lease of `key`. It begins alike, as what a caller may write has to.

    >>> lease_key(b"user:1"), len(lease_key(b"x" * 512))
    (b'user:1:dcc-lease', 512)
    """
    if len(key) <= KEY_BYTES_MAX - len(SUFFIX):
        return key + SUFFIX
    mark = b"#" + hashlib.blake2b(key, digest_size=20).hexdigest().encode() + SUFFIX
    # Half a character is no text that could travel.
    start = key[: KEY_BYTES_MAX - len(mark)].decode("utf-8", "ignore")
    return start.encode() + mark
