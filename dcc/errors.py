"""Every error a caller can see, and the two that never leave a node.

Each public error is also the matching builtin, so `except TimeoutError` works. `definite` says
whether the operation surely did not happen and never will; when in doubt it is false.
"""

from typing import Self


class DccError(Exception):
    """Root of everything dcc raises on purpose."""

    definite = True
    "The operation surely did not happen, and will not."

    def again(self) -> Self:
        """Return an equal error for another call: each raises one of its own."""
        other = type(self)(*self.args)
        other.__dict__.update(self.__dict__)
        return other


class NodeUnavailable(DccError, ConnectionError):
    """No node could be asked: nothing was sent, or nobody was ready. Retry later.

    `partial` holds what a call of many keys did get: a dict for `get_many`, a list of the keys
    that failed for `delete_many`; None for calls of one key.
    """

    partial: object = None


class WrongCluster(DccError, ConnectionError):
    """The node belongs to a cluster of another name. Nothing happened; fix the address or name."""


class OperationTimeout(DccError, TimeoutError):
    """The deadline passed without an answer, for a call that changes nothing."""


class NotMade(OperationTimeout):
    """Somebody else was to make the value, and has not in the time to wait. Nothing was stored."""


class MaybeStored(OperationTimeout):
    """The write was sent, or stored by fewer owners than asked for; it may exist. Indefinite.

    Read the key to find out, or write again: the newer version wins either way.
    """

    definite = False


class QuorumNotReached(DccError):
    """Fewer owners are alive than `w` or `r` asks for. Known beforehand: nothing was stored."""


class AuthenticationFailed(DccError, PermissionError):
    """The node refused this client's key, or the client the node's. Nothing happened."""


class NotAllowed(AuthenticationFailed):
    """This client's key is known, and does not allow this operation. Nothing happened.

    Of a `put_many` or `delete_many` other keys may be allowed: then `definite` is false. `partial`
    lists those of which nothing happened, or nothing is known.
    """

    partial: object = None


class InvalidKey(DccError, ValueError):
    """A key is empty, longer than 512 bytes as UTF-8, or to be written and a lease's. Not sent."""


class ValueTooLarge(DccError, ValueError):
    """A value exceeds `value_bytes_max`. Nothing was stored."""


class NotANumber(DccError, TypeError):
    """incr or decr met a value that is not an ASCII integer. The value is unchanged."""


class ClockSkew(DccError):
    """A version or deadline lies too far ahead of the node's cluster time. Nothing was stored."""


class Overloaded(DccError):
    """A queue of the node is full; it answered at once instead of queueing. Back off, retry."""


class SessionLapsed(DccError):
    """The session's causal past can no longer be checked; it starts anew with the next call."""


class WrongLoop(DccError, RuntimeError):
    """An `AsyncClient` was used from another event loop than the one of its first call, or in a
    child process after a fork. Nothing was sent; make a client for each loop and process.
    """


class ClientClosed(DccError, RuntimeError):
    """The client was closed before the call; or during it: then `definite` is false, and a write
    that was under way may have happened."""


class ProtocolError(DccError):
    """A node answered something that this client cannot understand. Upgrade one of the two."""

    definite = False


class ConfigError(DccError, ValueError):
    """A setting is impossible; the text names the setting and the bound. Nothing was started."""


class UsageError(DccError):
    """Our own code broke a contract of this package. State is unchanged; it is a bug here."""


class PeerError(DccError):
    """A peer broke the protocol. Never escapes the node: it becomes a counted drop."""


class MalformedMessage(PeerError):
    """Bytes that are no message: wrong shape, type, range or size. Dropped, nothing changed."""


class UnsupportedVersion(PeerError):
    """A message of a protocol version that this node does not speak. Dropped and counted."""


class ForeignCluster(PeerError):
    """A message of a cluster of another name. Dropped and counted, and its sender told."""
