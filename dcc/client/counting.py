"""`incr` and `decr` of both clients: numbers that the primary counts, decided in one step there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, overload

from dcc.client.arguments import UNSET, Quorum, Ttl, Unset, signed_64
from dcc.wire.messages import Op, Outcome, WriteReply


class CountsNumbers(ABC):
    """`incr` and `decr` of the blocking client."""

    @abstractmethod
    def _write(self, op: Op, key: str, value: bytes, ttl: Ttl | Unset, **more: Any) -> WriteReply:
        """Return the reply to one write."""

    @overload
    def incr(
        self,
        key: str,
        delta: int = 1,
        *,
        initial: int = 0,
        ttl: Ttl | Unset = UNSET,
        w: Quorum | Unset = UNSET,
    ) -> int: ...
    @overload
    def incr(
        self,
        key: str,
        delta: int = 1,
        *,
        initial: int | None,
        ttl: Ttl | Unset = UNSET,
        w: Quorum | Unset = UNSET,
    ) -> int | None: ...
    def incr(
        self,
        key: str,
        delta: int = 1,
        *,
        initial: int | None = 0,
        ttl: Ttl | Unset = UNSET,
        w: Quorum | Unset = UNSET,
    ) -> int | None:
        """Add `delta` to the ASCII integer of `key` and return the sum; 64 bits with a sign.

        An absent key counts as `initial`, and then takes `ttl`; with `initial=None` it stays
        absent, and the result is None. NotANumber if the value is none.
        """
        _check(delta, initial)
        more = {"delta": delta, "initial": initial, "w": w}
        return _number(self._write(Op.INCR, key, b"", ttl, **more))

    @overload
    def decr(
        self,
        key: str,
        delta: int = 1,
        *,
        initial: int = 0,
        ttl: Ttl | Unset = UNSET,
        w: Quorum | Unset = UNSET,
    ) -> int: ...
    @overload
    def decr(
        self,
        key: str,
        delta: int = 1,
        *,
        initial: int | None,
        ttl: Ttl | Unset = UNSET,
        w: Quorum | Unset = UNSET,
    ) -> int | None: ...
    def decr(
        self,
        key: str,
        delta: int = 1,
        *,
        initial: int | None = 0,
        ttl: Ttl | Unset = UNSET,
        w: Quorum | Unset = UNSET,
    ) -> int | None:
        """Subtract `delta`; otherwise as `incr`."""
        signed_64("delta", delta)
        return self.incr(key, signed_64("delta", -delta), initial=initial, ttl=ttl, w=w)


class AsyncCountsNumbers(ABC):
    """`incr` and `decr` of the asyncio client."""

    @abstractmethod
    async def _write(
        self, op: Op, key: str, value: bytes, ttl: Ttl | Unset, **more: Any
    ) -> WriteReply:
        """Return the reply to one write."""

    @overload
    async def incr(
        self,
        key: str,
        delta: int = 1,
        *,
        initial: int = 0,
        ttl: Ttl | Unset = UNSET,
        w: Quorum | Unset = UNSET,
    ) -> int: ...
    @overload
    async def incr(
        self,
        key: str,
        delta: int = 1,
        *,
        initial: int | None,
        ttl: Ttl | Unset = UNSET,
        w: Quorum | Unset = UNSET,
    ) -> int | None: ...
    async def incr(
        self,
        key: str,
        delta: int = 1,
        *,
        initial: int | None = 0,
        ttl: Ttl | Unset = UNSET,
        w: Quorum | Unset = UNSET,
    ) -> int | None:
        """Add `delta` to the ASCII integer of `key` and return the sum; 64 bits with a sign.

        An absent key counts as `initial`, and then takes `ttl`; with `initial=None` it stays
        absent, and the result is None. NotANumber if the value is none.
        """
        _check(delta, initial)
        more = {"delta": delta, "initial": initial, "w": w}
        return _number(await self._write(Op.INCR, key, b"", ttl, **more))

    @overload
    async def decr(
        self,
        key: str,
        delta: int = 1,
        *,
        initial: int = 0,
        ttl: Ttl | Unset = UNSET,
        w: Quorum | Unset = UNSET,
    ) -> int: ...
    @overload
    async def decr(
        self,
        key: str,
        delta: int = 1,
        *,
        initial: int | None,
        ttl: Ttl | Unset = UNSET,
        w: Quorum | Unset = UNSET,
    ) -> int | None: ...
    async def decr(
        self,
        key: str,
        delta: int = 1,
        *,
        initial: int | None = 0,
        ttl: Ttl | Unset = UNSET,
        w: Quorum | Unset = UNSET,
    ) -> int | None:
        """Subtract `delta`; otherwise as `incr`."""
        signed_64("delta", delta)
        return await self.incr(key, signed_64("delta", -delta), initial=initial, ttl=ttl, w=w)


def _number(reply: WriteReply) -> int | None:
    """Return the number that an incr made, None if it made none."""
    return reply.number if reply.outcome is Outcome.DONE else None


def _check(delta: int, initial: int | None) -> None:
    """Refuse numbers of an incr that are no ints of 64 bits; `initial` may be None."""
    signed_64("delta", delta)
    if initial is not None:
        signed_64("initial", initial)
