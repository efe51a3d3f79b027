"""What a refusal means: from the protocol's codes to the errors that a caller sees."""

from __future__ import annotations

from collections.abc import Mapping

from dcc.errors import (
    AuthenticationFailed,
    ClockSkew,
    DccError,
    InvalidKey,
    MaybeStored,
    NodeUnavailable,
    NotAllowed,
    NotANumber,
    OperationTimeout,
    Overloaded,
    ProtocolError,
    QuorumNotReached,
    ValueTooLarge,
    WrongCluster,
)
from dcc.wire.messages import Code, ErrorReply

_ERRORS: dict[Code, type[DccError]] = {
    Code.OVERLOADED: Overloaded,
    Code.QUORUM_NOT_REACHED: QuorumNotReached,
    Code.NOT_A_NUMBER: NotANumber,
    Code.VALUE_TOO_LARGE: ValueTooLarge,
    Code.INVALID_KEY: InvalidKey,
    Code.NOT_READY: NodeUnavailable,
    Code.WRONG_CLUSTER: WrongCluster,
    Code.TOO_LATE: OperationTimeout,
    Code.UNSUPPORTED_VERSION: ProtocolError,
    Code.CLOCK_SKEW: ClockSkew,
    Code.NOT_OWNER: NodeUnavailable,
    Code.MAYBE: MaybeStored,
    Code.MALFORMED: ProtocolError,
    Code.NOT_ALLOWED: NotAllowed,
}
assert set(_ERRORS) == set(Code), "every code has its error"

ASK_ANOTHER = frozenset({Code.NOT_READY, Code.NOT_OWNER, Code.WRONG_CLUSTER})
"Refusals by which a node says that it is the wrong one to ask."

CORRECTIONS_MAX = 2
"Times a call goes on with the time or stamp that a refusal names, before it believes it."

TOLD_MAX = 8
"Addresses that the text of an error names."

DECIDED = frozenset(
    {
        Code.NOT_A_NUMBER, Code.VALUE_TOO_LARGE, Code.INVALID_KEY, Code.MALFORMED,
        Code.NOT_ALLOWED,
    }
)  # fmt: skip
"Refusals of the request itself: every sending of it is refused alike."


class Barred(str):
    """Why nothing was sent to a node: for the keys of one of the two."""

    __slots__ = ()


def error_of(reply: ErrorReply, address: str) -> DccError:
    """Return the error to raise for `reply`, which `address` gave."""
    text = reply.text or reply.code.name.lower().replace("_", " ")
    return _ERRORS[reply.code](f"{address}: {text}")


def nobody(error: DccError | None, tried: Mapping[str, str], *, sent: bool) -> DccError:
    """Return why an operation that changes nothing ended without an answer.

    `error` is what a node said, if any did; the text tells what became of all that were `tried`.
    """
    if error is not None:
        others = {a: why for a, why in tried.items() if not str(error).startswith(f"{a}: ")}
        return type(error)(str(error) + account(others))
    if sent:
        return OperationTimeout("no node answered in time" + account(tried))
    if any(isinstance(why, Barred) for why in tried.values()):
        return AuthenticationFailed("no node let this client in" + account(tried))
    return NodeUnavailable("no node could be reached" + account(tried))


def account(tried: Mapping[str, str]) -> str:
    """Return what became of each address that was tried, as the end of an error's text.

    >>> account({"a:1": "no connection", "b:1": "no answer within 250 ms"})
    ' (a:1: no connection; b:1: no answer within 250 ms)'
    """
    if not tried:
        return ""
    told = [f"{address}: {why}" for address, why in list(tried.items())[:TOLD_MAX]]
    if len(tried) > TOLD_MAX:
        told.append(f"and {len(tried) - TOLD_MAX} more")
    return f" ({'; '.join(told)})"
